"""Answers held against other answers by a judge: the rows of AlpacaEval, Arena-Hard and MT-Bench in pairs.

Response `a` is the system's, `b` the other's (the benchmark's baseline, or that of `--against`). A row keeps every
game, so that other statistics can be made of it later; a game that was not read makes the row unscored, and it is
counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ...errors import SettingsError
from ...records import Message, Messages
from .answering import answers
from .core import Metric, Open, Row, Task

if TYPE_CHECKING:
    from ...judging.verdicts import Comparison, Judgement

__all__ = ["AGREED", "WON", "compare", "compared", "consistent", "judgements", "verdict_row"]


def compared(task: Task, *, by_category: Mapping[str, float] | None = None,
             more: Callable[[str, str], Row] | None = None) -> Iterator[Row]:  # fmt: skip
    """A row for each turn of each item: the system's answer against the other's. `more(a, b)` adds fields of the texts.

    A question that either lacks an answer to is a row without a verdict. Raises SettingsError where no item has
    another's answer.
    """
    items: Sequence[Open] = task.items
    if not any(item.other for item in items):
        raise SettingsError("there are no answers to hold these against.", remedy="Name a file: --against ANSWERS.")
    own = answers(task, by_category)
    asked: list[Comparison] = []
    where: list[tuple[int, int]] = []
    for i, (item, said) in enumerate(zip(items, own, strict=True)):
        for turn in range(len(item.turns) if said and item.other else 0):
            asked.append(compare(item, said or (), item.other, turn=turn))
            where.append((i, turn))
    found = dict(zip(where, zip(judgements(task, asked), asked, strict=True), strict=True))
    for i, item in enumerate(items):
        for turn in range(len(item.turns)):
            row: Row = {"system": task.system.name, "id": item.id, "category": item.category}
            if len(item.turns) > 1:
                row |= {"id": f"{item.id}.{turn + 1}", "cluster": item.id, "turn": turn + 1}
            one = found.get((i, turn))
            if one is None:
                yield {**row, "failed": "an answer lacks"}
                continue
            a, b = (own[i] or ())[turn], item.other[turn]
            yield {**row, **verdict_row(*one), "length": [len(a), len(b)], **(more(a, b) if more else {})}


def compare(item: Open, a: Sequence[str], b: Sequence[str], *, turn: int) -> Comparison:
    """Both answers to one turn of an item. The first answers differ, so that no prompt holds both of them: in a second
    turn each side's response is its whole conversation after the first question."""
    from ...judging.verdicts import Comparison

    reference = item.references[turn] if turn < len(item.references) else ""
    prompt: Messages = (Message("user", item.turns[0]),)
    one, other = (_conversation(item, said, turn) for said in (a, b))
    own = f"{item.id}.{turn + 1}" if len(item.turns) > 1 else item.id
    return Comparison(own, prompt, one, other, item.category, reference)


def _conversation(item: Open, said: Sequence[str], turn: int) -> str:
    parts = [said[0]]
    for number in range(1, turn + 1):
        parts += [f"### User:\n{item.turns[number]}", f"### Assistant:\n{said[number]}"]
    return "\n\n".join(parts)


def judgements(task: Task, asked: Sequence[Comparison]) -> list[Judgement]:
    """What the task's judge says of comparisons; what it said before is taken from verdicts.jsonl."""
    from ...judging.judged import judged

    return judged(task.judge, asked, store=task.path("verdicts.jsonl"), progress=task.count("verdicts"))


def verdict_row(found: Judgement, asked: Comparison) -> Row:
    """What a judgement says, with its games and what was judged, so that it can be read again."""
    return {
        "prompt": [turn.as_dict() for turn in asked.prompt],
        "answers": [asked.a, asked.b],
        **({"reference": asked.reference} if asked.reference else {}),
        "judge": found.judge,
        "outcome": found.outcome,
        "score": found.score,
        "consistent": found.consistent,
        "games": [asdict(game) for game in found.games],
    }


def consistent(row: Row) -> float | None:
    """Whether both orders had the same verdict; None where there were not two that could be read."""
    value = row.get("consistent")
    return None if value is None else float(value)


def _score(row: Row) -> float | None:
    value: Any = row.get("score")
    return None if value is None else float(value)


WON = Metric("win_rate", _score, kind="wins")
AGREED = Metric("consistent", consistent, kind="share")
