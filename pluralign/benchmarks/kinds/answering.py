"""Answers to open questions: kept on disk, one or two turns, the second on top of the system's own first answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import SettingsError
from .core import Open, Task

__all__ = ["GENERATION", "INSPO", "SGA", "answers", "temperature_of"]

# InSPO's evaluation settings, and those of SGA's Table 6; `max_new_tokens` are tokens.
INSPO: Mapping[str, Any] = {"temperature": 0.7, "top_p": 0.95, "max_new_tokens": 2048}
SGA: Mapping[str, Any] = {"temperature": 0.6, "top_p": 0.9, "max_new_tokens": 1024}
GENERATION: Mapping[str, Mapping[str, Any]] = {"default": INSPO, "inspo": INSPO, "sga": SGA}
BY_CATEGORY = "category"  # as a temperature: the one that MT-Bench names for the question's category


def temperature_of(settings: Mapping[str, Any], item: Open, by_category: Mapping[str, float]) -> float:
    """The temperature of an item: the settings' own, or that of its category (0 where none is named)."""
    given = settings["temperature"]
    if given == BY_CATEGORY:
        return by_category.get(item.category, 0.0)
    try:
        return float(given)
    except ValueError:
        raise SettingsError(f'temperature is a number or "{BY_CATEGORY}", not "{given}".') from None


def answers(task: Task, by_category: Mapping[str, float] | None = None) -> list[tuple[str, ...] | None]:
    """The system's answers to every item, one a turn; None where a file of answers lacks them.

    A policy writes them (or they are taken from answers.jsonl in the task's folder); each turn is asked with the
    answers before it. Every question draws its own random numbers.
    """
    items: Sequence[Open] = task.items
    saved = task.system.saved
    if saved is not None:
        found = [saved.find(item) for item in items]
        if not any(found):
            raise SettingsError(f"{task.system.name} answers none of the {len(items):,} questions.")
        lacking = sum(one is None for one in found)
        if lacking:
            task.warn(f"{task.system.name} lacks answers to {lacking:,} of {len(items):,} questions")
        return found
    said: list[list[str]] = [[] for _ in items]
    for turn in range(max(len(item.turns) for item in items)):
        for i, text in _write(task, turn, said, by_category or {}).items():
            said[i].append(text)
    return [tuple(texts) for texts in said]


def _write(task: Task, turn: int, said: Sequence[Sequence[str]], by_category: Mapping[str, float]) -> dict[int, str]:
    """The answers to one turn, by the item's number."""
    from ...judging.answers import write_answers
    from ...records import Message
    from ...steering import Request

    numbers = [i for i, item in enumerate(task.items) if turn < len(item.turns)]
    requests, labels = [], []
    settings = task.settings
    for i in numbers:
        item = task.items[i]
        turns = [Message("user", item.turns[0])]
        for before in range(turn):
            turns += [Message("assistant", said[i][before]), Message("user", item.turns[before + 1])]
        requests.append(
            Request(
                tuple(turns), max_new_tokens=settings["max_new_tokens"], top_p=settings["top_p"], seed=task.seed,
                temperature=temperature_of(settings, item, by_category), attributes=dict(task.attributes),
                place=i * 8 + turn,  # another turn draws other numbers
            )
        )  # fmt: skip
        label = {"system": task.system.name, "id": item.id, "category": item.category}
        labels.append(label | ({"turn": turn} if len(item.turns) > 1 else {}))
    rows = write_answers(
        task.path("answers.jsonl"), task.system.policy, requests, labels, batch_size=task.batch_size,
        progress=task.count("answers" if turn == 0 else f"answers to turn {turn + 1}"), warn=task.warn,
    )  # fmt: skip
    return {i: row["response"] for i, row in zip(numbers, rows, strict=True)}
