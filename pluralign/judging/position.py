"""Does the order in which responses are shown decide? Both games of each comparison, held against each other."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import PluralignError
from .statistics import Estimate, Item, mean_interval, paired_difference, share_interval
from .verdicts import Judgement

__all__ = ["PositionReport", "games_by_order", "position_report"]


@dataclass(frozen=True, slots=True)
class PositionReport:
    """`first_preferred`: share of the points that went to the response shown first; 0.5 where order does not matter.

    `advantage`: what being shown first adds to a response's score, with a p-value. `consistency`: share of comparisons
    whose games agree. `always_first`, `always_second`: comparisons in which a place won both games. `biased`: the
    advantage is significant at the interval's level.
    """

    first_preferred: Estimate
    advantage: Estimate
    consistency: Estimate
    always_first: int
    always_second: int
    biased: bool

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "first_preferred": self.first_preferred.as_dict(),
            "advantage": self.advantage.as_dict(),
            "consistency": self.consistency.as_dict(),
            "always_first": self.always_first,
            "always_second": self.always_second,
            "biased": self.biased,
        }


def position_report(
    shown_first: Sequence[Item],
    shown_second: Sequence[Item],
    level: float = 0.95,
    *,
    clusters: Sequence[Hashable] | None = None,
) -> PositionReport:
    """From the scores of the same response where it was shown first and where it was shown second, (N,) each.

    A comparison that lacks either game is left out and counted. The test is McNemar's for wins and losses (a judge that
    always picks the first of 10 pairs: p = 2/1024), else the paired t-test. Raises PluralignError for unequal lengths.
    """
    advantage = paired_difference(shown_first, shown_second, level, clusters=clusters)
    a, b = ([math.nan if s is None else float(s) for s in side] for side in (shown_first, shown_second))
    pairs = np.array([a, b], dtype=np.float64).reshape(2, -1)
    complete = np.asarray(~np.isnan(pairs).any(axis=0))
    shares = np.where(complete, (1 + pairs[0] - pairs[1]) / 2, math.nan)
    sides = np.sign(pairs - 0.5)  # a graded share agrees with another one on the same side
    agree = [bool(x == y) if ok else None for x, y, ok in zip(*sides, complete, strict=True)]
    p = advantage.p_value
    return PositionReport(
        first_preferred=mean_interval(shares, level, clusters),
        advantage=advantage,
        consistency=share_interval(agree, level),
        always_first=int(((sides[0] > 0) & (sides[1] < 0) & complete).sum()),
        always_second=int(((sides[0] < 0) & (sides[1] > 0) & complete).sum()),
        biased=p is not None and p < 1 - level,
    )


def games_by_order(judgements: Sequence[Judgement]) -> tuple[list[float | None], list[float | None]]:
    """(N,) and (N,) scores of response `a` where it was shown first and where second; the mean of several such games.

    Raises PluralignError for a judgement without a game in each order.
    """
    out: tuple[list[float | None], list[float | None]] = ([], [])
    for judgement in judgements:
        for side, scores in zip(("a", "b"), out, strict=True):
            games = [game.score for game in judgement.games if game.first == side]
            if not games:
                raise PluralignError(f'"{judgement.id}" was not judged in both orders.')
            read = [score for score in games if score is not None]
            scores.append(sum(read) / len(read) if len(read) == len(games) else None)
    return out
