"""Weighted logistic regression, solved to convergence: the engine of Bradley-Terry, Elo and Arena-Hard's style control.

Shapes: N rows, P parameters. Outcomes lie in [0, 1]: a tie is 0.5, a probability is itself. The objective is
sum_i w_i BCE(y_i, sigma(x_i . theta)) + l2/2 |theta|^2, convex, solved by Newton's method with step halving.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import PluralignError

__all__ = [
    "LogisticFit",
    "cluster_codes",
    "fit_logistic",
    "hessian_covariance",
    "resampled_fits",
    "sandwich_covariance",
]

Floats = NDArray[np.float64]
FARTHEST = 20.0  # |logit| beyond which rows are taken to separate: odds of 5e8 that no battles can tell from certainty


@dataclass(frozen=True, slots=True)
class LogisticFit:
    """`coefficients` (P,); `converged`: False where the optimum lies at infinity (the rows separate)."""

    coefficients: Floats
    converged: bool
    steps: int


def fit_logistic(
    x: Floats,
    y: Floats,
    weights: Floats | None = None,
    *,
    l2: float = 0.0,
    start: Floats | None = None,
    tolerance: float = 1e-12,
    max_steps: int = 200,
) -> LogisticFit:
    """The minimiser for a design x (N, P), outcomes y (N,) and weights (N,).

    It stops where Newton's decrement falls below `tolerance` times the total weight. A column that is zero in every
    weighted row keeps its start. Raises PluralignError for shapes that do not fit together or an outcome outside [0,
    1].
    """
    w = np.ones(len(y)) if weights is None else np.asarray(weights, dtype=np.float64)
    if x.ndim != 2 or len(x) != len(y) or len(w) != len(y):
        raise PluralignError(f"a fit needs a row of features and a weight for each outcome: {x.shape}, {len(y)}.")
    if len(y) and not (np.isfinite(x).all() and (y >= 0).all() and (y <= 1).all() and (w >= 0).all()):
        raise PluralignError("a fit needs finite features, outcomes between 0 and 1 and weights that are not negative.")
    theta = np.zeros(x.shape[1]) if start is None else np.array(start, dtype=np.float64)
    total = float(w.sum())
    loss = _loss(x, y, w, theta, l2)
    for step in range(1, max_steps + 1):
        logits = x @ theta
        if not l2 and len(logits) and float(np.abs(logits).max()) > FARTHEST:
            return LogisticFit(theta, False, step)
        p = _sigmoid(logits)
        gradient = x.T @ (w * (p - y)) + l2 * theta
        curvature = (x * (w * p * (1 - p))[:, None]).T @ x + l2 * np.eye(len(theta))
        direction = np.linalg.lstsq(curvature, gradient, rcond=1e-13)[0]
        decrement = float(gradient @ direction)
        if decrement <= tolerance * max(total, 1e-300):
            theta = theta - direction
            far = not l2 and len(y) and float(np.abs(x @ theta).max()) > FARTHEST
            return LogisticFit(theta, not far, step)
        size = 1.0
        while (new := _loss(x, y, w, theta - size * direction, l2)) > loss - 1e-4 * size * decrement and size > 1e-6:
            size /= 2
        theta, loss = theta - size * direction, new
    return LogisticFit(theta, False, max_steps)


def hessian_covariance(x: Floats, weights: Floats | None, theta: Floats, l2: float = 0.0) -> Floats:
    """(P, P) the inverse of the curvature: right where the model is, and the rows are independent."""
    w = np.ones(len(x)) if weights is None else weights
    p = _sigmoid(x @ theta)
    return np.asarray(np.linalg.inv((x * (w * p * (1 - p))[:, None]).T @ x + l2 * np.eye(len(theta))))


def sandwich_covariance(
    x: Floats, y: Floats, weights: Floats | None, theta: Floats, clusters: NDArray[np.int64] | None, l2: float = 0.0
) -> Floats:
    """(P, P) H^-1 (sum over clusters of score score^T) H^-1 * G/(G-1) (Huber; Liang & Zeger 1986).

    Right where rows of a cluster depend on each other, or ties and weights make the likelihood a quasi-likelihood. NaN
    for fewer than two clusters.
    """
    w = np.ones(len(x)) if weights is None else weights
    scores = x * (w * (y - _sigmoid(x @ theta)))[:, None]
    if clusters is not None:
        sums = np.zeros((int(clusters.max()) + 1, x.shape[1]))
        np.add.at(sums, clusters, scores)
        scores = sums
    groups = len(scores)
    if groups < 2:  # one unit says nothing of how units differ
        return np.full((x.shape[1], x.shape[1]), math.nan)
    bread = hessian_covariance(x, weights, theta, l2)
    return np.asarray(bread @ (scores.T @ scores) @ bread * groups / (groups - 1))


def resampled_fits(
    x: Floats, y: Floats, weights: Floats, start: Floats, *, clusters: NDArray[np.int64] | None, resamples: int,
    seed: int, l2: float = 0.0,
) -> Iterator[Floats]:  # fmt: skip
    """(P,) the coefficients of each resample of rows, or of whole clusters, each fitted to convergence.

    A resample in which the rows separate gives the large finite values at which its fit was stopped; a parameter that
    no resampled row touches is NaN.
    """
    rng = np.random.default_rng(seed)
    units = len(y) if clusters is None else int(clusters.max()) + 1
    for _ in range(resamples):
        counts = np.bincount(rng.integers(units, size=units), minlength=units).astype(np.float64)
        w = weights * (counts if clusters is None else counts[clusters])
        kept = w > 0
        theta = fit_logistic(x[kept], y[kept], w[kept], l2=l2, start=start, tolerance=1e-8, max_steps=60).coefficients
        yield np.where(np.abs(x[kept]).sum(0) > 0, theta, math.nan)


def cluster_codes(clusters: Sequence[Hashable] | None, kept: NDArray[np.bool_]) -> NDArray[np.int64] | None:
    """Labels of the kept rows as 0 .. G-1 in order of appearance. Raises PluralignError where a row has none."""
    if clusters is None:
        return None
    labels = list(clusters)
    if len(labels) != len(kept):
        raise PluralignError(f"{len(kept)} items but {len(labels)} cluster labels: each item needs one.")
    seen: dict[Hashable, int] = {}
    return np.array([seen.setdefault(labels[i], len(seen)) for i in np.flatnonzero(kept)], dtype=np.int64)


def _loss(x: Floats, y: Floats, w: Floats, theta: Floats, l2: float) -> float:
    logits = x @ theta
    return float(w @ (np.logaddexp(0.0, logits) - y * logits)) + l2 / 2 * float(theta @ theta)


def _sigmoid(z: Floats) -> Floats:
    return np.asarray(np.exp(-np.logaddexp(0.0, -z)))
