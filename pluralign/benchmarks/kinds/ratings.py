"""Answers that a judge rates one at a time: the rows of MT-Bench, one for each turn of a question."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from ...records import Message
from .answering import answers
from .core import Open, Row, Task
from .kept import digest_of, keep

if TYPE_CHECKING:
    from ...judging.verdicts import Rating, Subject

__all__ = ["rated", "ratings", "subject"]


def rated(task: Task, *, by_category: Mapping[str, float] | None = None) -> Iterator[Row]:
    """A row for each turn of each item, with the judge's `rating` on its own scale (None: not read)."""
    items: Sequence[Open] = task.items
    own = answers(task, by_category)
    asked, where = [], []
    for i, (item, said) in enumerate(zip(items, own, strict=True)):
        for turn in range(len(item.turns) if said else 0):
            asked.append(subject(item, said or (), turn))
            where.append((i, turn))
    found = dict(zip(where, ratings(task, asked), strict=True))
    for i, item in enumerate(items):
        for turn in range(len(item.turns)):
            row: Row = {"system": task.system.name, "id": f"{item.id}.{turn + 1}", "category": item.category,
                        "cluster": item.id, "turn": turn + 1}  # fmt: skip
            one = found.get((i, turn))
            if one is None:
                yield {**row, "failed": "an answer lacks"}
            else:
                yield {**row, "rating": one.score, "raw": one.raw, "reason": one.reason}


def subject(item: Open, said: Sequence[str], turn: int) -> Subject:
    """One answer with everything that was said before it, and the reference answer to that turn, if there is one."""
    from ...judging.verdicts import Subject

    turns = [Message("user", item.turns[0])]
    for before in range(turn):
        turns += [Message("assistant", said[before]), Message("user", item.turns[before + 1])]
    reference = item.references[turn] if turn < len(item.references) else ""
    return Subject(f"{item.id}.{turn + 1}", tuple(turns), said[turn], item.category, reference)


def ratings(task: Task, asked: Sequence[Subject]) -> list[Rating]:
    """What the task's judge says of responses; what it said before is taken from ratings.jsonl."""
    from ...judging.verdicts import Rating

    judge = task.judge
    keys = [digest_of([judge.key, {k: v for k, v in asdict(one).items() if k != "id"}]) for one in asked]
    kept = keep(
        task.path("ratings.jsonl"),
        keys,
        lambda part: [asdict(one) for one in judge.rate([asked[i] for i in part])],
        progress=task.count("ratings"),
    )
    return [Rating(**{**value, "id": one.id}) for value, one in zip(kept, asked, strict=True)]
