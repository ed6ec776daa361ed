"""The scores of an evaluation pair by pair: how they are kept, and how two evaluations are compared by them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import RecordError
from ..records import Preference, to_row
from .statistics import Estimate, paired_difference

__all__ = ["Pair", "compare_scores", "pair_id", "read_scores", "short_hash"]


@dataclass(frozen=True, slots=True)
class Pair:
    """One policy's reading of one pair: nats and tokens of both responses."""

    chosen: float
    rejected: float
    chosen_tokens: int
    rejected_tokens: int

    @property
    def gap(self) -> float:
        """Nats by which the chosen response is likelier."""
        return self.chosen - self.rejected

    @property
    def gap_per_token(self) -> float:
        return self.chosen / self.chosen_tokens - self.rejected / self.rejected_tokens


def pair_id(pair: Preference) -> str:
    """The same for the same prompt and responses, wherever they were read from."""
    row = to_row(pair)
    text = json.dumps([row[k] for k in ("prompt", "chosen", "rejected")], sort_keys=True, ensure_ascii=False)
    return short_hash(text)


def short_hash(text: str) -> str:
    """16 hexadecimal digits of the sha256."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def read_scores(folder: str | Path) -> dict[str, dict[str, Any]]:
    """The lines of scores.jsonl by pair id; empty where there is no such file.

    Raises RecordError (file and line) where it is malformed.
    """
    path = Path(folder) / "scores.jsonl"
    out: dict[str, dict[str, Any]] = {}
    if not path.is_file():
        return out
    for number, line in enumerate(path.read_text().split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            for values in row["scores"].values():
                _ = None if values is None else Pair(*values)
            out[row["id"]] = row
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise RecordError(f"no line of scores ({type(error).__name__}).", where=f"{path}:{number}") from None
    return out


def compare_scores(first: str | Path, second: str | Path) -> dict[str, Estimate]:
    """second - first on the pairs that both evaluations hold, by their last models; empty where there are none.

    `accuracy` is the share of pairs whose chosen response is likelier per token, `gap` the nats a token it is ahead.
    """
    sides = [read_scores(folder) for folder in (first, second)]
    common = [key for key in sides[0] if key in sides[1]]
    both = [[_last(side[key]) for key in common] for side in sides]
    if not common:
        return {}
    labels = [str(sides[0][key].get("cluster", key)) for key in common]
    clusters = labels if len(set(labels)) < len(labels) else None
    gaps = [[math.nan if p is None else p.gap_per_token for p in side] for side in both]
    wins = [[math.nan if math.isnan(g) else float(g > 0) for g in side] for side in gaps]
    return {
        "accuracy": paired_difference(wins[1], wins[0], clusters=clusters),
        "gap": paired_difference(gaps[1], gaps[0], clusters=clusters),
    }


def _last(row: Mapping[str, Any]) -> Pair | None:
    """The reading of the model that the run was for: the last that is not the reference."""
    values = [v for name, v in row["scores"].items() if name != "reference"] or list(row["scores"].values())
    return None if values[-1] is None else Pair(*values[-1])
