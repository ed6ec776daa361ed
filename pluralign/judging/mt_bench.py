"""MT-Bench: ratings of two turns from 1 to 10, and pairwise verdicts in both orders (Zheng et al. 2023, arXiv
2306.05685).

As FastChat's `show_result.py` counts: the score is the mean over (question, turn) rows, so a turn whose rating could
not be read (-1) leaves its row out and the mean of the turns is not the score. What was not read is counted here.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..errors import PluralignError
from .position import PositionReport, position_report
from .statistics import Estimate, Item, mean_interval
from .win_rates import WinRate, win_rate

__all__ = [
    "FAILED", "TIE_DELTA", "MTBenchPairs", "MTBenchScore", "Winner", "mt_bench_pairs", "mt_bench_score", "rated_winner",
]  # fmt: skip

FAILED = -1.0  # what FastChat stores for a rating that it could not read
TIE_DELTA = 0.1
Winner = Literal["model_1", "model_2", "tie"]


@dataclass(frozen=True, slots=True)
class MTBenchScore:
    """`score`: the mean over rows, both turns; `turns` and `categories`: the same over some of them. Intervals take the
    turns of a question as one cluster."""

    score: Estimate
    turns: Mapping[int, Estimate]
    categories: Mapping[str, Estimate]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "score": self.score.as_dict(),
            "turns": {str(turn): e.as_dict() for turn, e in self.turns.items()},
            "categories": {name: e.as_dict() for name, e in self.categories.items()},
        }


@dataclass(frozen=True, slots=True)
class MTBenchPairs:
    """`rate`: ties half (FastChat's adjusted win rate), of model 1. `position`: None where games have no order."""

    rate: WinRate
    position: PositionReport | None
    errors: int

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        position = None if self.position is None else self.position.as_dict()
        return {**self.rate.as_dict(), "position": position, "errors": self.errors}


def mt_bench_score(
    ratings: Sequence[Item],
    questions: Sequence[Hashable],
    turns: Sequence[int],
    categories: Sequence[str] | None = None,
    level: float = 0.95,
) -> MTBenchScore:
    """From one row a question and turn, (N,) each; -1, None and NaN are ratings that were not read.

    Turn 1 {8, 6}, turn 2 {4, -1}: turns 7 and 4, score 6. Raises PluralignError for columns of unequal length.
    """
    if not len(ratings) == len(questions) == len(turns) or (categories is not None and len(categories) != len(turns)):
        raise PluralignError(f"each rating has a question and a turn: {len(ratings)}, {len(questions)}, {len(turns)}.")
    read = [None if r is None or math.isnan(r) or r == FAILED else float(r) for r in ratings]
    if any(r is not None and not 0 <= r <= 10 for r in read):
        raise PluralignError("a rating of MT-Bench lies between 1 and 10, or is -1 where it was not read.")

    def over(places: Sequence[int]) -> Estimate:
        return mean_interval([read[i] for i in places], level, [questions[i] for i in places])

    everything = range(len(read))
    kinds = categories or []
    return MTBenchScore(
        score=over(everything),
        turns={turn: over([i for i in everything if turns[i] == turn]) for turn in sorted(set(turns))},
        categories={name: over([i for i in everything if kinds[i] == name]) for name in dict.fromkeys(kinds)},
    )


def rated_winner(one: float, other: float, delta: float = TIE_DELTA) -> Winner:
    """Who is better by ratings: a tie up to and including `delta`, whatever the rounding of 7.4 - 7.3 says."""
    if abs(one - other) <= delta + 1e-9:
        return "tie"
    return "model_1" if one > other else "model_2"


def mt_bench_pairs(
    first_games: Sequence[str | None],
    second_games: Sequence[str | None],
    level: float = 0.95,
    *,
    clusters: Sequence[Hashable] | None = None,
    ordered: bool = True,
) -> MTBenchPairs:
    """From the winners of both games ("model_1", "model_2", "tie"), (N,) each; model 1 was shown first in the first.

    Both must agree, otherwise it is a tie. A comparison with an "error" (or None) in either game is left out and
    counted. `ordered=False`: winners by ratings, which know no order. Raises PluralignError for another word or unequal
    lengths.
    """
    if len(first_games) != len(second_games):
        raise PluralignError(f"each comparison has two games: {len(first_games)} and {len(second_games)}.")
    one, two = ([_score(winner) for winner in games] for games in (first_games, second_games))
    both = [None if a is None or b is None else a if a == b else 0.5 for a, b in zip(one, two, strict=True)]
    position = position_report(one, two, level, clusters=clusters) if ordered else None
    return MTBenchPairs(win_rate(both, level, clusters=clusters), position, int(np.sum([s is None for s in both])))


def _score(winner: str | None) -> float | None:
    if winner is None or winner == "error":
        return None
    known = {"model_1": 1.0, "model_2": 0.0, "tie": 0.5}
    if winner not in known:
        raise PluralignError(f'a winner is "model_1", "model_2", "tie" or "error", not "{winner}".')
    return known[winner]
