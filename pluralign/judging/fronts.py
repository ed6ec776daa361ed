"""Trade-offs between objectives: weights asked for, mean rewards got, and what the front they trace is worth.

A steerable system is run once for every point of a grid of weights, on the same prompts; rewards lie in an array
(P points, N prompts, K objectives), higher is better, NaN where a response was not scored. Every figure has an
interval from a bootstrap over prompts, with all points of the grid resampled together: they share their prompts.

Shapes: P points, N prompts, K objectives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import SettingsError
from .statistics import Estimate, bootstrap_interval, mean_interval

__all__ = [
    "FrontReport",
    "compare_hypervolumes",
    "controllability",
    "dominated",
    "evaluate_front",
    "hypervolume",
    "mean_inner_product",
    "pareto_front",
    "reference_point",
    "share_dominated",
    "simplex_grid",
    "spread",
]

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], float]


def simplex_grid(objectives: int, steps: int = 10) -> Floats:
    """All weights that are multiples of 1/steps and add up to one, (P, K): 11 for two objectives, 66 for three.

    They ascend by the first weight, then by the next.
    Raises SettingsError for fewer than one objective or step.
    """
    if objectives < 1 or steps < 1:
        raise SettingsError(f"a grid needs at least one objective and one step, not {objectives} and {steps}.")

    def parts(left: int, places: int) -> list[tuple[int, ...]]:
        if places == 1:
            return [(left,)]
        return [(first, *rest) for first in range(left + 1) for rest in parts(left - first, places - 1)]

    return np.array(parts(steps, objectives), dtype=np.float64) / steps


def dominated(points: ArrayLike) -> NDArray[np.bool_]:
    """(P,) whether another point is at least as good in every objective and better in one. Equal points do not count.

    Raises SettingsError for points that are no finite (P, K) table.
    """
    p = _points(points)
    no_worse = np.all(p[None] >= p[:, None], axis=2)  # [i, j]: j is nowhere below i
    better = np.any(p[None] > p[:, None], axis=2)
    return np.asarray(np.any(no_worse & better, axis=1))


def pareto_front(points: ArrayLike) -> NDArray[np.int64]:
    """The places of the points that no other dominates, ordered by the first objective (then the next ones)."""
    p = _points(points)
    kept = np.flatnonzero(~dominated(p))
    return kept[np.lexsort(p[kept].T[::-1])]


def share_dominated(points: ArrayLike) -> float:
    """The share of points that another one dominates: weights for which the system does worse than it can."""
    return float(dominated(points).mean())


def hypervolume(points: ArrayLike, reference: ArrayLike) -> float:
    """The volume between the reference point and the front: of all that is above the reference and below some point.

    Exact in any number of objectives, by slicing along the last one (While et al. 2006); the cost grows like
    P^(K - 1). Points that are not above the reference in every objective add nothing. {(1,3), (2,2), (3,1)} against
    the origin: 6. Raises SettingsError where points and reference do not fit together.
    """
    p = _points(points)
    floor = np.asarray(reference, dtype=np.float64)
    if floor.shape != p.shape[1:] or not np.isfinite(floor).all():
        raise SettingsError(
            f"the reference point of {p.shape[1]} objectives needs as many finite numbers, not {floor.tolist()}."
        )
    above = p[(p > floor).all(1)] - floor
    return _volume(np.unique(above, axis=0)) if len(above) else 0.0


def _volume(p: Floats) -> float:
    """Volume below some of the points and above zero."""
    if p.shape[1] == 1:
        return float(p.max())
    if p.shape[1] == 2:  # from the right: each point adds what it has above all that lie further right
        p = p[np.argsort(-p[:, 0], kind="stable")]
        tops = np.maximum.accumulate(p[:, 1])
        return float(p[:, 0] @ np.diff(tops, prepend=0.0))
    order = np.argsort(-p[:, -1], kind="stable")
    heights = p[order, -1]
    total = 0.0
    for i, thickness in enumerate(heights - np.append(heights[1:], 0.0)):
        if thickness > 0:  # between two heights the cross-section is that of all points that reach so far up
            total += thickness * _volume(p[order[: i + 1], :-1])
    return total


def reference_point(base: ArrayLike) -> Floats:
    """(K,) the base model's mean reward minus one standard deviation in each objective; `base` is (N, K), NaN unscored.

    Raises SettingsError where an objective has fewer than two scores.
    """
    b = np.asarray(base, dtype=np.float64)
    if b.ndim != 2 or ((~np.isnan(b)).sum(0) < 2).any():
        raise SettingsError(f"a reference point needs at least two scores of every objective, not {b.shape}.")
    return np.asarray(np.nanmean(b, axis=0) - np.nanstd(b, axis=0, ddof=1))


def mean_inner_product(weights: ArrayLike, points: ArrayLike) -> float:
    """The mean over the grid of w . r(w): the reward that was asked for, under the weights that asked for it."""
    w, p = _matching(weights, points)
    return float((w * p).sum(1).mean())


def spread(points: ArrayLike) -> float:
    """How far the front reaches: the diagonal of the box around its non-dominated points (maximum spread).

    In the rewards' own units: compare it only where the rewards are the same.
    """
    p = _points(points)
    front = p[pareto_front(p)]
    return float(np.linalg.norm(front.max(0) - front.min(0)))


def controllability(weights: ArrayLike, points: ArrayLike) -> Floats:
    """(K,) Spearman's rank correlation of each objective's weight with the reward got; 1: more asked is more given.

    NaN where the weight or the reward never changes.
    """
    from scipy.stats import rankdata

    w, p = _matching(weights, points)
    ranks = [np.apply_along_axis(rankdata, 0, x) for x in (w, p)]
    a, b = (r - r.mean(0) for r in ranks)
    scale = np.sqrt((a * a).sum(0) * (b * b).sum(0))
    return np.where(scale > 0, (a * b).sum(0) / np.where(scale > 0, scale, 1.0), math.nan)


@dataclass(frozen=True)
class FrontReport:
    """What a grid of weights gave. `points`: per weight the mean rewards, and whatever else was measured there."""

    names: tuple[str, ...]
    reference: tuple[float, ...]
    hypervolume: Estimate
    mean_inner_product: Estimate
    share_dominated: Estimate
    spread: Estimate
    controllability: Mapping[str, Estimate]
    weights: tuple[tuple[float, ...], ...]
    points: tuple[Mapping[str, Estimate], ...]
    front: tuple[int, ...]
    prompts: int

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        figures = ("hypervolume", "mean_inner_product", "share_dominated", "spread")
        return {
            "objectives": list(self.names),
            "reference": list(self.reference),
            "prompts": self.prompts,
            **{name: getattr(self, name).as_dict() for name in figures},
            "controllability": {name: e.as_dict() for name, e in self.controllability.items()},
            "front": list(self.front),
            "points": [
                {"weights": list(w), **{name: e.as_dict() for name, e in point.items()}}
                for w, point in zip(self.weights, self.points, strict=True)
            ],
        }


def evaluate_front(
    weights: ArrayLike,
    rewards: ArrayLike,
    *,
    reference: ArrayLike,
    names: Sequence[str] = (),
    others: Mapping[str, ArrayLike] | None = None,
    clusters: Sequence[Hashable] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> FrontReport:
    """The figures of section 4.9 for one system: `weights` (P, K) asked for, `rewards` (P, N, K) of its responses.

    `reference` (K,) is fixed, not resampled: see `reference_point`. `others` are more readings of each response, (P, N)
    each (KL to the base, length), of which the points get means. `clusters` labels prompts that belong together.
    A prompt that lacks a score at some point of the grid is left out everywhere and counted as missing.
    Raises SettingsError for shapes that do not fit together.
    """
    w, r = np.asarray(weights, dtype=np.float64), np.asarray(rewards, dtype=np.float64)
    if r.ndim != 3 or w.shape != (r.shape[0], r.shape[2]):
        raise SettingsError(f"weights {w.shape} and rewards {r.shape} are not (points, objectives) and (P, N, K).")
    named = tuple(names) or tuple(f"objective {k + 1}" for k in range(w.shape[1]))
    if len(named) != w.shape[1]:
        raise SettingsError(f"{w.shape[1]} objectives but {len(named)} names.")
    floor = np.asarray(reference, dtype=np.float64)
    hypervolume(w, floor)  # a reference of the wrong shape is told before anything is resampled
    complete = np.asarray(~np.isnan(r).any(axis=(0, 2)))
    if not complete.any():
        raise SettingsError("no prompt was scored at every point of the grid: there is nothing to compare.")

    def interval(statistic: Statistic) -> Estimate:
        return _over_prompts(r, complete, statistic, resamples, seed, level, clusters)

    means = r[:, complete].mean(1)
    return FrontReport(
        names=named,
        reference=tuple(floor.tolist()),
        hypervolume=interval(lambda p: hypervolume(p, floor)),
        mean_inner_product=interval(lambda p: mean_inner_product(w, p)),
        share_dominated=interval(share_dominated),
        spread=interval(spread),
        controllability={
            name: interval(lambda p, k=k: float(controllability(w[:, [k]], p[:, [k]])[0]))  # type: ignore[misc]
            for k, name in enumerate(named)
        },
        weights=tuple(tuple(row) for row in w.tolist()),
        points=_point_rows(r, complete, named, others or {}, level, clusters),
        front=tuple(pareto_front(means).tolist()),
        prompts=int(complete.sum()),
    )


def compare_hypervolumes(
    first: ArrayLike,
    second: ArrayLike,
    *,
    reference: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate:
    """hypervolume(second) - hypervolume(first), rewards (P, N, K) of two systems on the same N prompts, resampled
    together. The two grids may differ. Raises SettingsError where prompts or objectives differ in number."""
    a, b = (np.asarray(x, dtype=np.float64) for x in (first, second))
    if a.ndim != 3 or b.ndim != 3 or a.shape[1:] != b.shape[1:]:
        raise SettingsError(f"two systems need the same prompts and objectives, not {a.shape} and {b.shape}.")
    floor, cut = np.asarray(reference, dtype=np.float64), len(a)
    both = np.concatenate([a, b])
    complete = np.asarray(~np.isnan(both).any(axis=(0, 2)))
    if not complete.any():
        raise SettingsError("no prompt was scored at every point of both grids: there is nothing to compare.")

    def gap(p: Floats) -> float:
        return hypervolume(p[cut:], floor) - hypervolume(p[:cut], floor)

    return _over_prompts(both, complete, gap, resamples, seed, level, clusters)


def _over_prompts(
    rewards: Floats,
    complete: NDArray[np.bool_],
    statistic: Statistic,
    resamples: int,
    seed: int,
    level: float,
    clusters: Sequence[Hashable] | None,
) -> Estimate:
    """A statistic of the (P, K) mean rewards, its prompts resampled: the items are the prompts' numbers."""
    items = np.where(complete, np.arange(rewards.shape[1], dtype=np.float64), math.nan)
    by_prompt = np.ascontiguousarray(rewards.transpose(1, 0, 2))

    def of(chosen: Floats) -> float:
        return statistic(by_prompt[chosen.astype(np.int64)].mean(0))

    return bootstrap_interval(items, of, resamples, seed=seed, level=level, clusters=clusters)


def _point_rows(
    rewards: Floats,
    complete: NDArray[np.bool_],
    names: Sequence[str],
    others: Mapping[str, ArrayLike],
    level: float,
    clusters: Sequence[Hashable] | None,
) -> tuple[Mapping[str, Estimate], ...]:
    """Per point the mean of every objective (over the complete prompts, as the front has it) and of other readings."""
    readings = {name: np.where(complete, rewards[:, :, k], math.nan) for k, name in enumerate(names)}
    for name, values in others.items():
        table = np.asarray(values, dtype=np.float64)
        if table.shape != rewards.shape[:2]:
            raise SettingsError(f'"{name}" is {table.shape}, not one value for each of {rewards.shape[:2]} responses.')
        readings[name] = table
    return tuple(
        {name: mean_interval(table[i], level, clusters) for name, table in readings.items()}
        for i in range(rewards.shape[0])
    )


def _points(points: ArrayLike) -> Floats:
    p = np.asarray(points, dtype=np.float64)
    if p.ndim != 2 or not p.size:
        raise SettingsError(f"points are a table of (points, objectives), not {p.shape}.")
    if not np.isfinite(p).all():
        raise SettingsError("a point has an objective that is no finite number.", remedy="Leave unscored points out.")
    return p


def _matching(weights: ArrayLike, points: ArrayLike) -> tuple[Floats, Floats]:
    w, p = _points(weights), _points(points)
    if w.shape != p.shape:
        raise SettingsError(f"each point needs the weights that asked for it: {w.shape} weights, {p.shape} points.")
    return w, p
