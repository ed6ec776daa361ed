"""One judge that asks in another way for some categories, as Arena-Hard v2.0 does for creative writing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...judging.verdicts import Comparison, Judgement, PairJudge, Progress

__all__ = ["ByCategory", "by_category"]


@dataclass(frozen=True)
class ByCategory:
    """A `PairJudge` made of several: `judges` by category, "" for every other one."""

    judges: Mapping[str, PairJudge]

    @property
    def name(self) -> str:
        return self.judges[""].name

    @property
    def key(self) -> str:
        return " | ".join(f"{name}: {judge.key}" for name, judge in sorted(self.judges.items()))

    def compare(self, items: Sequence[Comparison], *, progress: Progress | None = None) -> list[Judgement]:
        """A judgement of each, in order, by the judge of its category."""
        parts: dict[str, list[int]] = {}
        for i, item in enumerate(items):
            parts.setdefault(item.category if item.category in self.judges else "", []).append(i)
        out: dict[int, Judgement] = {}
        for name, where in parts.items():
            out.update(zip(where, self.judges[name].compare([items[i] for i in where]), strict=True))
            if progress:
                progress(len(out), len(items))
        return [out[i] for i in range(len(items))]


def by_category(judges: Mapping[str, Any]) -> Any:
    """The one judge where all are asked alike, else one of them all."""
    return judges[""] if len({judge.key for judge in judges.values()}) == 1 else ByCategory(judges)
