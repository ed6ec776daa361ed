"""Judges by a rule: for tests of statistics (what does length alone win, what does the first place?), and for answers
that are right where they hold a given one."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..errors import SettingsError, nearest
from .verdicts import Comparison, Judgement, Outcome, Progress, Verdict

__all__ = ["RULES", "RuleJudge", "holds", "rule_judge"]


def _higher(a: float, b: float) -> Outcome:
    return "win" if a > b else "loss" if a < b else "tie"


def _longer(item: Comparison) -> tuple[Verdict, ...]:
    return (Verdict(_higher(len(item.a), len(item.b))),)


def _shorter(item: Comparison) -> tuple[Verdict, ...]:
    return (Verdict(_higher(len(item.b), len(item.a))),)


def _first(item: Comparison) -> tuple[Verdict, ...]:
    return (Verdict("win", "a"), Verdict("loss", "b"))


def holds(text: str, answer: str) -> bool:
    """Whether the words of an answer stand in a text, one after the other, without regard to case and blanks."""
    words = answer.casefold().split()
    pattern = r"\s+".join(map(re.escape, words))
    return bool(words) and re.search(rf"(?<!\w){pattern}(?!\w)", text.casefold()) is not None


def _right(item: Comparison) -> tuple[Verdict, ...]:
    if not item.reference.strip():
        return (Verdict(None, reason="no reference answer"),)
    return (Verdict(_higher(holds(item.a, item.reference), holds(item.b, item.reference))),)


RULES: dict[str, Callable[[Comparison], tuple[Verdict, ...]]] = {
    "longer": _longer,  # more characters
    "shorter": _shorter,
    "first": _first,  # whatever is shown first
    "right": _right,  # the response that holds the reference answer
}


@dataclass(frozen=True)
class RuleJudge:
    """A function of the comparison alone."""

    name: str
    key: str
    games: Callable[[Comparison], tuple[Verdict, ...]]

    def compare(self, items: Sequence[Comparison], *, progress: Progress | None = None) -> list[Judgement]:
        if progress:
            progress(len(items), len(items))
        return [Judgement(item.id, self.name, self.games(item)) for item in items]


def rule_judge(name: str) -> RuleJudge:
    """The judge of one of `RULES`. Raises SettingsError for another."""
    if name not in RULES:
        raise SettingsError(f'no rule is called "{name}".{nearest(name, RULES)}', remedy=f"Known: {', '.join(RULES)}.")
    return RuleJudge(f"rule:{name}", f"rule {name}", RULES[name])
