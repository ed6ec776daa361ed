"""Answers that a judge rates one at a time: the rows of MT-Bench, one for each turn of a question."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ...records import Message
from .answering import answers
from .core import Open, Row, Task

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
    found = dict(zip(where, zip(ratings(task, asked), asked, strict=True), strict=True))
    for i, item in enumerate(items):
        for turn in range(len(item.turns)):
            row: Row = {"system": task.system.name, "id": f"{item.id}.{turn + 1}", "category": item.category,
                        "cluster": item.id, "turn": turn + 1}  # fmt: skip
            if (i, turn) not in found:
                yield {**row, "failed": "an answer lacks"}
                continue
            one, what = found[i, turn]
            yield {
                **row,
                "prompt": [turn.as_dict() for turn in what.prompt],
                "response": what.response,
                **({"reference": what.reference} if what.reference else {}),
                "judge": one.judge,
                "rating": one.score,
                "raw": one.raw,
                "reason": one.reason,
            }


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
    from ...judging.judged import rated as kept

    return kept(task.judge, asked, store=task.path("ratings.jsonl"), progress=task.count("ratings"))
