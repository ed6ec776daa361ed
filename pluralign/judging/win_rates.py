"""Win rates with ties: one system against a baseline, and two systems against the same baseline on the same prompts.

A score is 1 where the system won, 0.5 for a tie, 0 where it lost, a share in between from judges that give one, and
None or NaN where the verdict could not be read: those are left out and counted.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import PluralignError
from .statistics import Estimate, Item, mean_interval, paired_difference, proportion_interval

__all__ = ["WinRate", "compare_win_rates", "tied_proportion_interval", "win_rate"]


@dataclass(frozen=True, slots=True)
class WinRate:
    """`rate`: ties count half. `decided`: wins among the verdicts that are no tie, Wilson."""

    rate: Estimate
    decided: Estimate
    wins: int
    ties: int
    losses: int

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        counts = {"wins": self.wins, "ties": self.ties, "losses": self.losses}
        return {"rate": self.rate.as_dict(), "decided": self.decided.as_dict(), **counts}


def win_rate(
    scores: Sequence[Item] | NDArray[np.float64], level: float = 0.95, *, clusters: Sequence[Hashable] | None = None
) -> WinRate:
    """The share of wins, ties half, of `scores` (N,).

    The interval is Wilson's, which `tied_proportion_interval` extends to ties, for wins, ties and losses; Student's for
    graded shares; the cluster-robust one where `clusters` (N,) are given. It is cut at 0 and 1.
    Raises PluralignError for a score outside [0, 1].
    """
    found = mean_interval(scores, level, clusters)
    read = np.array([s for s in scores if s is not None and not math.isnan(s)], dtype=np.float64)
    if len(read) and (read.min() < 0 or read.max() > 1):
        raise PluralignError("a score is 1 (won), 0.5 (tie), 0 (lost), or a share in between.")
    wins, ties, losses = (int(n) for n in ((read > 0.5).sum(), (read == 0.5).sum(), (read < 0.5).sum()))
    if clusters is None and np.isin(read, (0.0, 0.5, 1.0)).all():
        rate = tied_proportion_interval(wins, ties, losses, level, missing=found.missing)
    else:
        rate = replace(found, low=max(0.0, found.low), high=min(1.0, found.high)) if found.has_interval else found
    return WinRate(rate, proportion_interval(wins, wins + losses, level), wins, ties, losses)


def tied_proportion_interval(wins: int, ties: int, losses: int, level: float = 0.95, *, missing: int = 0) -> Estimate:
    """(wins + ties/2) / n with a score interval; without ties it is Wilson's.

    A score of mean p with a share t of ties has variance p (1 - p) - t/4, so the ends solve n (m - p)^2 = z^2 (p (1 -
    p) - t/4). For t stands ties / (n + z^2): taking it somewhat low keeps the interval from collapsing where all are
    ties.
    """
    n = wins + ties + losses
    plain = proportion_interval(wins, n, level, missing=missing) if not ties else None
    if plain is not None or n == 0:
        return plain or proportion_interval(0, 0, level, missing=missing)
    from scipy.stats import norm

    mean, z = (wins + ties / 2) / n, float(norm.ppf(0.5 + level / 2))
    share = ties / (n + z * z)
    centre = 2 * n * mean + z * z
    root = math.sqrt(max(0.0, centre**2 - 4 * (n + z * z) * (n * mean**2 + z * z * share / 4)))
    low, high = ((centre + sign * root) / (2 * (n + z * z)) for sign in (-1, 1))
    return Estimate(mean, max(0.0, low), min(1.0, high), n, level, "Wilson with ties", missing)


def compare_win_rates(
    first: Mapping[Hashable, Item],
    second: Mapping[Hashable, Item],
    level: float = 0.95,
    *,
    clusters: Mapping[Hashable, Hashable] | None = None,
) -> Estimate:
    """rate(first) - rate(second) on the prompts that both were judged on, paired, with its p-value.

    Scores by prompt; a prompt that only one has, or that was not read for one, counts as missing. Exact McNemar for
    wins and losses alone, the paired t-test otherwise. Raises PluralignError where the two share no prompt.
    """
    prompts = list(dict.fromkeys([*first, *second]))
    if not any(p in first and p in second for p in prompts):
        raise PluralignError("the two systems were judged on different prompts: nothing is paired.")
    labels = None if clusters is None else [clusters[p] for p in prompts]
    return paired_difference([first.get(p) for p in prompts], [second.get(p) for p in prompts], level, clusters=labels)
