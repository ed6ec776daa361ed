"""Judges by rule, question files in memory, and a policy that is small."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pluralign.benchmarks.kinds.core import Row
from pluralign.errors import SettingsError
from pluralign.judging.verdicts import Comparison, Judgement, Outcome, Rating, Subject, Verdict

__all__ = ["InMemory", "LongerJudge", "RuleJudge"]


class RuleJudge:
    """Two games a comparison; `rule(a, b, first)` is the outcome of a game. `asked` counts what it was asked."""

    name, low, high = "rule", 1.0, 10.0

    def __init__(self, rule: Callable[[str, str, str], Outcome | None], *, weight: float = 1.0, stop_at: int = -1):
        self.rule, self.weight, self.stop_at = rule, weight, stop_at
        self.key = f"rule {rule.__name__} {weight}"
        self.asked: list[str] = []
        self.seen: list[Any] = []

    def _count(self, item: Any) -> None:
        if len(self.asked) == self.stop_at:
            raise KeyboardInterrupt
        self.asked.append(item.id)
        self.seen.append(item)

    def compare(self, items: Sequence[Comparison], *, progress: Any = None) -> list[Judgement]:
        out = []
        for item in items:
            self._count(item)
            games = tuple(Verdict(self.rule(item.a, item.b, first), first, self.weight) for first in ("a", "b"))
            out.append(Judgement(item.id, self.name, games))
        return out

    def rate(self, items: Sequence[Subject], *, progress: Any = None) -> list[Rating]:
        out = []
        for item in items:
            self._count(item)
            read = self.rule(item.response, "", "a") is not None
            out.append(Rating(item.id, self.name, min(10.0, 1.0 + len(item.response) / 50) if read else None, "raw"))
        return out


def longer(a: str, b: str, first: str) -> Outcome:
    return "tie" if len(a) == len(b) else "win" if len(a) > len(b) else "loss"


def LongerJudge(**options: Any) -> RuleJudge:
    return RuleJudge(longer, **options)


class InMemory:
    """Rows by role instead of files."""

    def __init__(self, **roles: list[Row]) -> None:
        self.roles: Mapping[str, list[Row]] = {name.replace("_", " "): rows for name, rows in roles.items()}

    def __call__(self, role: str) -> list[Row]:
        if role not in self.roles:
            raise SettingsError(f"no {role}")
        return self.roles[role]

    def has(self, role: str) -> bool:
        return role in self.roles
