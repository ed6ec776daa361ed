"""What the runs of EM and of min-max regret share: people in records, weighted trainings that resume, scored pairs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..data import fingerprint
from ..errors import RecordError, SettingsError
from ..records import Preference

if TYPE_CHECKING:
    from ..policy import Policy
    from ..terms import Plan
    from ..training.callbacks import Say
    from ..training.settings import Settings

__all__ = [
    "People",
    "Stopped",
    "beta_of",
    "data_key",
    "log_ratios",
    "people_of",
    "read_json",
    "reference_of",
    "train_weighted",
    "write_json",
]

Floats = NDArray[np.float64]


class Stopped(Exception):
    """A training was interrupted: the work so far is on disk."""


class People:
    """Who said what: `names` (U,), and of every pair the number of its person, `of` (N,)."""

    def __init__(self, names: Sequence[str], of: Sequence[int]) -> None:
        self.names, self.of = tuple(names), np.asarray(of, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def pairs(self) -> NDArray[np.int64]:
        """(U,) pairs of each."""
        return np.bincount(self.of, minlength=len(self.names))


def people_of(records: Sequence[Preference]) -> People:
    """The people of pairs, in order of appearance. Raises RecordError for a pair of nobody, or no pair."""
    place: dict[str, int] = {}
    of = []
    for i, record in enumerate(records):
        if not isinstance(record, Preference):
            raise RecordError(f"a {type(record).__name__.lower()} record is no pair.", where=record.where or f"row {i}")
        if record.user is None:
            raise RecordError(
                "the pair belongs to nobody.", where=record.where or f"row {i}",
                remedy="Every pair needs a `user` (columns={user: YOUR_COLUMN}).",
            )  # fmt: skip
        of.append(place.setdefault(record.user, len(place)))
    if not records:
        raise RecordError("there are no pairs.")
    return People(list(place), of)


def data_key(records: Sequence[Preference]) -> str:
    """What tells sets of pairs apart: how many, and 16 hex digits of their content."""
    return f"{len(records)} {fingerprint(records)[:16]}"


def beta_of(settings: Settings) -> float:
    """The temperature of the DPO that the settings ask for."""
    from ..objectives import find

    return float({**find("dpo").defaults, **settings.objective.hyper}["beta"])


# Trainings


def train_weighted(
    settings: Settings, records: Sequence[Preference], weights: Iterable[float], mark: str, *,
    shares: Sequence[Any], plan: Plan | None, say: Say | None, command: str,
) -> Path:  # fmt: skip
    """Train on pairs times their weights, go on with a training that stopped, or leave one that is done; its folder.

    `shares` stands under `mark` in each record's meta: what the recipe's plan looks for. Pairs of weight 0 are left
    out. Raises Stopped where the person interrupts, SettingsError where no pair has a weight.
    """
    from ..policy import KEPT
    from ..training.run import Data, align

    folder = Path(str(settings.output))
    begun = (folder / "run.json").is_file()
    if begun and (folder / "model" / KEPT).is_file() and read_json(folder / "run.json").get("status") == "finished":
        return folder
    kept = [
        replace(record, weight=record.weight * float(weight), meta={**record.meta, mark: share})
        for record, weight, share in zip(records, weights, shares, strict=True)
        if weight > 0
    ]
    if not kept:
        raise SettingsError(f"no pair has any weight in {folder}: a kind of people that is nobody.")
    data = Data(kept, None, {"source": settings.data.source, "format": "weighted pairs"})
    done = align(settings, data=data, plan=plan, resume=begun, say=say, command=command or "python")
    if done.status != "finished":
        raise Stopped
    return folder


def reference_of(settings: Settings) -> Policy:
    """The policy that all trainings begin with, which is the reference of all."""
    from ..policy import Policy

    return Policy.load(
        settings.reference or settings.model, precision=settings.training.precision,
        trust_remote_code=settings.trust_remote_code, rendering=settings.rendering.model_dump(),
    )  # fmt: skip


def log_ratios(policy: Policy, records: Sequence[Preference], path: Path, budget: int = 8192) -> Floats:
    """(N, 2) summed log-probs of chosen and rejected in nats, from `path` where they are there already; NaN where a
    pair cannot be rendered."""
    if path.is_file():
        return _table(read_json(path)["sums"])
    from ..judging.preferences import evaluate_preferences

    found = evaluate_preferences({"policy": policy}, records, kl_rows=0, token_budget=budget)
    sums = [None if s is None else s[:2] for s in (row["scores"]["policy"] for row in found.scores)]
    write_json(path, {"sums": sums, "failed": found.failed})
    return _table(sums)


def _table(sums: Sequence[Any]) -> Floats:
    return np.array([[np.nan, np.nan] if s is None else s for s in sums], dtype=np.float64).reshape(-1, 2)


# Files


def read_json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text("utf-8")))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """JSON, all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(json.dumps(content, ensure_ascii=False, default=str) + "\n", "utf-8")
    unfinished.replace(path)
