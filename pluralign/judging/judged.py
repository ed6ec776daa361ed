"""Verdicts that are kept: on disk as they come, so that a judge is asked once, whatever is stopped in between."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from ..errors import RecordError
from .lines import whole_lines
from .verdicts import Comparison, Judgement, PairJudge, Progress, Rating, RatingJudge, Subject

__all__ = ["judged", "rated"]

Item = TypeVar("Item", Comparison, Subject)
CHUNK = 64  # items between two looks at the disk


def judged(
    judge: PairJudge, items: Sequence[Comparison], *, store: Path | None = None, progress: Progress | None = None
) -> list[Judgement]:
    """A judgement of each comparison, in order; those that `store` (JSON lines) holds already are taken from there.

    What is stored belongs to the judge's key and the texts, not to the id. Unread verdicts are kept, too: they are
    outcomes. Raises RecordError for a damaged file, and what the judge raises: what came before is kept.
    """
    rows = _through(store, judge.key, items, lambda part: [j.as_dict() for j in judge.compare(part)], progress)
    return [replace(Judgement.from_dict(row), id=item.id) for row, item in zip(rows, items, strict=True)]


def rated(
    judge: RatingJudge, items: Sequence[Subject], *, store: Path | None = None, progress: Progress | None = None
) -> list[Rating]:
    """A rating of each subject, kept as `judged` keeps verdicts."""
    rows = _through(store, judge.key, items, lambda part: [asdict(r) for r in judge.rate(part)], progress)
    return [replace(Rating(**row), id=item.id) for row, item in zip(rows, items, strict=True)]


def _through(
    store: Path | None,
    judge: str,
    items: Sequence[Item],
    ask: Callable[[Sequence[Item]], list[dict[str, Any]]],
    progress: Progress | None,
) -> list[dict[str, Any]]:
    keys = [_key(judge, item) for item in items]
    known = _read(store) if store else {}
    missing = list({key: item for key, item in zip(keys, items, strict=True) if key not in known}.items())
    if progress:
        progress(sum(key in known for key in keys), len(keys))
    for start in range(0, len(missing), CHUNK):
        part = missing[start : start + CHUNK]
        found = {key: row for (key, _), row in zip(part, ask([item for _, item in part]), strict=True)}
        if store:
            _append(store, found)
        known |= found
        if progress:
            progress(sum(key in known for key in keys), len(keys))
    return [known[key] for key in keys]


def _key(judge: str, item: Comparison | Subject) -> str:
    seen = [judge, {name: value for name, value in asdict(item).items() if name != "id"}]
    text = json.dumps(seen, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _append(store: Path, found: dict[str, dict[str, Any]]) -> None:
    store.parent.mkdir(parents=True, exist_ok=True)
    with store.open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps({"key": key, **row}) + "\n" for key, row in found.items()))


def _read(store: Path) -> dict[str, dict[str, Any]]:
    """Rows by key. A last line that was cut off while it was written is taken off the file."""
    found = {}
    for number, line in enumerate(whole_lines(store).splitlines(), start=1):
        try:
            row = json.loads(line)
            found[str(row.pop("key"))] = row
        except (ValueError, KeyError, AttributeError, TypeError):
            raise RecordError("not a stored verdict.", where=f"{store}:{number}") from None
    return found
