"""Are probabilities of judges and reward models worth their name? Expected calibration error, Brier score, reliability.

Shapes: N predictions, B bins. A prediction is the probability of the outcome 1; an outcome is 0, 1 or a share in
between (of annotators, say).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import SettingsError
from .statistics import Estimate, Item, bootstrap_interval, mean_interval

__all__ = ["Bin", "Calibration", "calibration", "calibration_error"]

Floats = NDArray[np.float64]
Bins = Literal["width", "mass"]


@dataclass(frozen=True, slots=True)
class Bin:
    """Predictions between `low` and `high`: how sure they were on average, and how often the outcome came."""

    low: float
    high: float
    confidence: float
    outcome: Estimate


@dataclass(frozen=True, slots=True)
class Calibration:
    """`ece`: the mean over bins of |outcome - confidence|, weighted by items. It is never 0 in a sample:
    `if_calibrated` is what it would be were the predictions true, and `p_value` how often it would then be as large.
    `brier`: the mean squared error. `bins`: the reliability table, without empty bins."""

    ece: Estimate
    brier: Estimate
    if_calibrated: float
    p_value: float
    bins: tuple[Bin, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "ece": self.ece.as_dict(),
            "brier": self.brier.as_dict(),
            "if_calibrated": self.if_calibrated,
            "p_value": self.p_value,
            "bins": [
                {"low": b.low, "high": b.high, "confidence": b.confidence, "outcome": b.outcome.as_dict()}
                for b in self.bins
            ],
        }


def calibration(
    predictions: Sequence[Item] | Floats,
    outcomes: Sequence[Item] | Floats,
    *,
    bins: int = 10,
    by: Bins = "width",
    clusters: Sequence[Hashable] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Calibration:
    """ECE and Brier score of `predictions` (N,) against `outcomes` (N,), in bins of equal width or of equal mass.

    Items that lack either are left out and counted. Bins keep their edges in every resample; predictions that are equal
    share a bin. Raises SettingsError for predictions or outcomes outside [0, 1] or without any.
    """
    p, y = (
        np.array([math.nan if v is None else v for v in side], dtype=np.float64) for side in (predictions, outcomes)
    )
    if len(p) != len(y):
        raise SettingsError(f"each prediction needs an outcome: {len(p)} and {len(y)}.")
    read = ~np.isnan(p) & ~np.isnan(y)
    if not read.any() or min(p[read].min(), y[read].min()) < 0 or max(p[read].max(), y[read].max()) > 1:
        raise SettingsError("predictions and outcomes lie between 0 and 1, and one of each at least is known.")
    edges = _edges(p[read], bins, by)
    items = np.where(read, np.arange(len(p), dtype=np.float64), math.nan)

    def ece(index: Floats) -> float:
        i = index.astype(np.int64)
        return _error(p[i], y[i], edges)

    found = bootstrap_interval(items, ece, resamples, seed=seed, level=level, clusters=clusters)
    rng = np.random.default_rng(seed)
    sims = np.array([_error(p[read], (rng.random(int(read.sum())) < p[read]).astype(float), edges) for _ in range(500)])
    return Calibration(
        ece=found,
        brier=mean_interval(np.where(read, (p - y) ** 2, math.nan), level, clusters),
        if_calibrated=float(sims.mean()),
        p_value=float((1 + (sims >= found.value - 1e-12).sum()) / (1 + len(sims))),
        bins=_table(p[read], y[read], edges, level),
    )


def calibration_error(predictions: Floats, outcomes: Floats, *, bins: int = 10, by: Bins = "width") -> float:
    """The number alone, of complete arrays (N,). Raises SettingsError for no bins or an unknown kind of them."""
    p, y = np.asarray(predictions, dtype=np.float64), np.asarray(outcomes, dtype=np.float64)
    return _error(p, y, _edges(p, bins, by))


def _edges(p: Floats, bins: int, by: Bins) -> Floats:
    """Inner edges; a prediction on an edge belongs to the bin below it, as in (0, .1], (.1, .2]."""
    if bins < 1:
        raise SettingsError(f"reliability needs a bin at least, not {bins}.")
    if by == "width":
        return np.arange(1, bins) / bins
    if by != "mass":
        raise SettingsError(f'bins are of equal "width" or "mass", not "{by}".')
    return np.unique(np.quantile(p, np.arange(1, bins) / bins, method="inverted_cdf"))


def _error(p: Floats, y: Floats, edges: Floats) -> float:
    place = np.searchsorted(edges, p, side="left")
    gaps = np.bincount(place, weights=y - p, minlength=len(edges) + 1)
    return float(np.abs(gaps).sum() / len(p))


def _table(p: Floats, y: Floats, edges: Floats, level: float) -> tuple[Bin, ...]:
    place, ends = np.searchsorted(edges, p, side="left"), [0.0, *edges.tolist(), 1.0]
    return tuple(
        Bin(ends[b], ends[b + 1], float(p[place == b].mean()), mean_interval(y[place == b], level))
        for b in np.unique(place).tolist()
    )
