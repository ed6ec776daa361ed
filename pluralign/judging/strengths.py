"""Strengths of systems from battles: Bradley-Terry on Elo's scale, with style, length and position as covariates.

logit P(first beats second) = ln 10 (theta_first - theta_second) + position + z . beta, ties as half (Bradley & Terry
1952; covariates as in Search Arena, arXiv 2506.05334). A rating is 400 theta + what the anchor is fixed at, so 400
points are odds of ten to one. Shapes: N battles, M systems, F covariates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import SettingsError, nearest
from .logistic import cluster_codes, fit_logistic, hessian_covariance, resampled_fits, sandwich_covariance
from .statistics import Estimate, Item

__all__ = ["Interval", "Strengths", "fit_strengths", "ratio_difference"]

Floats = NDArray[np.float64]
Interval = Literal["sandwich", "bootstrap", "hessian"]
SCALE = 400.0
POSITION = "position"


@dataclass(frozen=True)
class Strengths:
    """Ratings on Elo's scale, and what covariates are worth.

    `effects` are in nats of the logit for one standard deviation of a covariate; "position" is what it is worth to be
    named first. `centre`, `spread`: the mean and sd by which each covariate was standardised, for every resample alike.
    `beats_anchor`: the probability to beat the anchor where covariates are equal (at their mean, if they were centred).
    """

    anchor: str
    ratings: Mapping[str, Estimate]
    beats_anchor: Mapping[str, Estimate]
    effects: Mapping[str, Estimate]
    centre: Mapping[str, float]
    spread: Mapping[str, float]
    battles: int
    ties: int
    missing: int

    def probability(self, first: str, second: str) -> float:
        """That `first` beats `second`, covariates and position equal. Raises SettingsError for an unknown system."""
        for name in (first, second):
            if name not in self.ratings:
                raise SettingsError(f'no battles of "{name}".{nearest(name, self.ratings)}')
        return _win_probability(self.ratings[first].value - self.ratings[second].value)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        tables = {"ratings": self.ratings, "beats_anchor": self.beats_anchor, "effects": self.effects}
        return {
            "anchor": self.anchor,
            "battles": self.battles,
            "ties": self.ties,
            "missing": self.missing,
            **{name: {key: e.as_dict() for key, e in table.items()} for name, table in tables.items()},
        }


def ratio_difference(a: ArrayLike, b: ArrayLike, *, plus: float = 1.0) -> Floats:
    """(N,) (a - b) / (a + b + plus), the covariate of two counts (tokens, citations); 0 where all are 0.

    Averages stay averages: nothing is rounded to whole numbers.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    total = first + second + plus
    return np.where(total > 0, (first - second) / np.where(total > 0, total, 1.0), 0.0)


def fit_strengths(
    first: Sequence[str],
    second: Sequence[str],
    outcomes: Sequence[Item] | Floats,
    *,
    anchor: str,
    anchor_at: float = 1000.0,
    covariates: Mapping[str, ArrayLike] | None = None,
    position: bool = False,
    centre: bool = True,
    weights: ArrayLike | None = None,
    clusters: Sequence[Hashable] | None = None,
    l2: float = 0.0,
    interval: Interval = "sandwich",
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Strengths:
    """Ratings from battles: `outcomes` (N,) of `first`, 1 won, 0.5 tied, 0 lost, None or NaN not judged (counted).

    `covariates` are differences first minus second, (N,) each, scaled by their sd, and by default centred as published
    leaderboards do: then a constant difference is no difference, and ratings depend on whose battles are in the set.
    With `centre=False` ratings are those at equal covariates. `l2` penalises l2/2 per squared parameter, thetas in
    units of 400 points included (Search Arena: 0.5). `clusters` (N,) groups battles that depend on each other (a
    prompt, an annotator). `interval`: "sandwich" (cluster-robust), "hessian" (the model is taken at its word) or
    "bootstrap" (percentile, over clusters where there are some). Raises SettingsError where there is no finite or no
    single optimum.
    """
    y = np.array([math.nan if o is None else o for o in outcomes], dtype=np.float64)
    kept = ~np.isnan(y)
    _check(first, second, y, kept, anchor)
    where = _places(kept)
    names = sorted({*(first[i] for i in where), *(second[i] for i in where)})
    if anchor not in names:
        raise SettingsError(f'the anchor "{anchor}" fought no battle.{nearest(anchor, names)}')
    free = names if l2 else [name for name in names if name != anchor]
    duel = _duels(first, second, kept, free)
    table, means, sds = _standardised(covariates or {}, kept, centre)
    effects = [*([POSITION] if position else []), *means]
    x = np.hstack([duel, np.ones((len(duel), int(position))), table])
    w = np.ones(len(x)) if weights is None else np.asarray(weights, dtype=np.float64)[kept]
    codes = cluster_codes(clusters, kept)
    _check_identified(x, w, l2, first, second, kept)
    fit = fit_logistic(x, y[kept], w, l2=l2)
    if not fit.converged:
        raise SettingsError(
            "the battles have no finite optimum: some systems won or lost all of theirs.",
            remedy="Give l2 (0.5, say), or leave those systems out.",
        )
    contrast = _contrasts(names, free, anchor, len(effects))
    spreads = _spread(x, y[kept], w, fit.coefficients, codes, l2, interval, resamples, seed, level)
    values, lows, highs = spreads(contrast)
    note = _method(interval, resamples, codes)
    fought = {name: sum(name in (first[i], second[i]) for i in where) for name in names}
    scaled = [SCALE] * len(names) + [1.0] * len(effects)
    rows = {
        name: Estimate(v * s, min(lo, v) * s, max(hi, v) * s, fought.get(name, int(kept.sum())), level, note)
        for name, v, lo, hi, s in zip([*names, *effects], values, lows, highs, scaled, strict=True)
    }
    return Strengths(
        anchor=anchor,
        ratings={name: _moved(rows[name], lambda r: r + anchor_at) for name in names},
        beats_anchor={name: _moved(rows[name], _win_probability) for name in names},
        effects={name: rows[name] for name in effects},
        centre=means,
        spread=sds,
        battles=int(kept.sum()),
        ties=int((y[kept] == 0.5).sum()),
        missing=int((~kept).sum()),
    )


def _check(first: Sequence[str], second: Sequence[str], y: Floats, kept: NDArray[np.bool_], anchor: str) -> None:
    if not len(first) == len(second) == len(y):
        raise SettingsError(f"each battle has two systems and an outcome: {len(first)}, {len(second)}, {len(y)}.")
    if not kept.any():
        raise SettingsError("no battle was judged.")
    if ((y[kept] < 0) | (y[kept] > 1)).any():
        raise SettingsError("an outcome is 1, 0, 0.5 or a share in between.")
    if any(first[i] == second[i] for i in _places(kept)):
        raise SettingsError("a system fights itself.", remedy="Leave such battles out.")


def _places(kept: NDArray[np.bool_]) -> list[int]:
    return [int(i) for i in np.flatnonzero(kept)]


def _duels(first: Sequence[str], second: Sequence[str], kept: NDArray[np.bool_], free: Sequence[str]) -> Floats:
    """(N, M) +ln 10 for the first system, -ln 10 for the second; an anchor that is fixed has no column."""
    places = {name: k for k, name in enumerate(free)}
    x = np.zeros((int(kept.sum()), len(free)))
    for row, i in enumerate(_places(kept)):
        for name, sign in ((first[i], 1.0), (second[i], -1.0)):
            if name in places:
                x[row, places[name]] = sign * math.log(10)
    return x


def _standardised(
    covariates: Mapping[str, ArrayLike], kept: NDArray[np.bool_], centre: bool
) -> tuple[Floats, dict[str, float], dict[str, float]]:
    """(N, F) covariates over their sd, with the means taken off and the sds."""
    columns, means, sds = [], {}, {}
    for name, given in covariates.items():
        values = np.asarray(given, dtype=np.float64)
        if values.shape != kept.shape:
            raise SettingsError(
                f'covariate "{name}" has {values.shape}, not one value for each of {len(kept)} battles.'
            )
        values = values[kept]
        if not np.isfinite(values).all():
            raise SettingsError(f'covariate "{name}" is not known for every judged battle.')
        means[name] = float(values.mean()) if centre else 0.0
        sds[name] = float(values.std())
        if sds[name] <= 1e-12 * max(1.0, float(np.abs(values).max())):
            raise SettingsError(
                f'covariate "{name}" never changes, so nothing can be told of it.', remedy="Leave it out."
            )
        columns.append((values - means[name]) / sds[name])
    return np.stack(columns, axis=1) if columns else np.zeros((int(kept.sum()), 0)), means, sds


def _check_identified(
    x: Floats, w: Floats, l2: float, first: Sequence[str], second: Sequence[str], kept: NDArray[np.bool_]
) -> None:
    if l2 or np.linalg.matrix_rank(x * np.sqrt(w)[:, None]) == x.shape[1]:
        return
    group: dict[str, str] = {}

    def root(name: str) -> str:
        while group.setdefault(name, name) != name:
            name = group[name]
        return name

    for i in _places(kept):
        group[root(first[i])] = root(second[i])
    apart = sorted({root(name) for name in list(group)})
    if len(apart) > 1:
        raise SettingsError(
            f'the battles fall apart into {len(apart)} groups that never meet (of "{apart[0]}", of "{apart[1]}", ...).',
            remedy="Add battles between them, or give l2.",
        )
    raise SettingsError("a covariate repeats what the systems or the other covariates say.", remedy="Leave one out.")


def _contrasts(names: Sequence[str], free: Sequence[str], anchor: str, effects: int) -> Floats:
    """(M + F, P): each system against the anchor, then each effect by itself."""
    out = np.zeros((len(names) + effects, len(free) + effects))
    for row, name in enumerate(names):
        if name != anchor:
            out[row, free.index(name)] = 1.0
            if anchor in free:
                out[row, free.index(anchor)] = -1.0
    out[len(names) :, len(free) :] = np.eye(effects)
    return out


def _spread(
    x: Floats, y: Floats, w: Floats, theta: Floats, codes: NDArray[np.int64] | None, l2: float, interval: Interval,
    resamples: int, seed: int, level: float,
) -> Callable[[Floats], tuple[Floats, Floats, Floats]]:  # fmt: skip
    """What gives values and interval ends of linear contrasts of the parameters."""
    from scipy.stats import norm

    if interval == "bootstrap":
        if resamples < 100:
            raise SettingsError(f"a bootstrap interval needs at least 100 resamples, not {resamples}.")
        draws = np.stack(list(resampled_fits(x, y, w, theta, clusters=codes, resamples=resamples, seed=seed, l2=l2)))

        def by_draws(contrast: Floats) -> tuple[Floats, Floats, Floats]:
            # 0 * NaN would spoil the contrasts that a missing parameter has no part in
            drawn = np.stack([_contrast(draws, row) for row in contrast], axis=1)
            low, high = np.nanquantile(drawn, [0.5 - level / 2, 0.5 + level / 2], axis=0)
            return contrast @ theta, low, high

        return by_draws
    if interval == "sandwich":
        covariance = sandwich_covariance(x, y, w, theta, codes, l2)
    elif interval == "hessian":
        covariance = hessian_covariance(x, w, theta, l2)
    else:
        raise SettingsError(f'an interval is "sandwich", "bootstrap" or "hessian", not "{interval}".')
    z = float(norm.ppf(0.5 + level / 2))

    def by_covariance(contrast: Floats) -> tuple[Floats, Floats, Floats]:
        half = z * np.sqrt(np.einsum("ij,jk,ik->i", contrast, covariance, contrast))
        return contrast @ theta, contrast @ theta - half, contrast @ theta + half

    return by_covariance


def _contrast(draws: Floats, row: Floats) -> Floats:
    used = np.flatnonzero(row)
    return np.asarray(draws[:, used] @ row[used])


def _method(interval: Interval, resamples: int, codes: NDArray[np.int64] | None) -> str:
    name = f"bootstrap percentile, {resamples} resamples" if interval == "bootstrap" else interval
    return f"Bradley-Terry, {name}" + ("" if codes is None else f", {int(codes.max()) + 1} clusters")


def _moved(e: Estimate, f: Callable[[float], float]) -> Estimate:
    return Estimate(f(e.value), f(e.low), f(e.high), e.n, e.level, e.method)


def _win_probability(points: float) -> float:
    return 1 / (1 + 10 ** (-points / SCALE))
