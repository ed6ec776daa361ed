"""Judging by attributes: win rates per attribute, how well scores are sensed, and what steering by them is worth.

Everything here is arithmetic on tables of scores, one row for each response and one column for each attribute, NaN
where a response was not scored. Where the scores come from (a reward model, people) is the caller's business;
intervals are over prompts (`clusters`: rows of one prompt belong together).

Shapes: N rows, K attributes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import SettingsError
from .statistics import Estimate, bootstrap_interval, mean_interval, paired_difference, share_interval

__all__ = [
    "MACRO",
    "NEAR",
    "Sensed",
    "WeightsReport",
    "judge_sensing",
    "judge_weights",
    "plain_rows",
    "steering_scores",
    "steering_table",
    "win_rates",
    "wins",
]

Floats = NDArray[np.float64]
Row = dict[str, str | Estimate]

MACRO = "macro"  # the name of the average over attributes
NEAR = 0.2  # |s - s_hat| below this is near: where Figure 4 of SGA has its major cluster
BINS = 10  # of the histogram of absolute errors, over [0, 1]


# Win rates (Tables 1 and 2 of SGA)


def wins(system: ArrayLike, reference: ArrayLike, *, tie: float = 0.0) -> Floats:
    """(N, K) 1 where the system's response has the higher score, 1/2 where they differ by at most `tie`, else 0; NaN
    where either was not scored. Raises SettingsError where the two tables differ in shape."""
    s, r = _table(system), _table(reference)
    if s.shape != r.shape:
        raise SettingsError(f"the system has scores {s.shape}, the reference {r.shape}: they answer the same prompts.")
    gap = s - r
    won = np.where(gap > 0, 1.0, 0.0)
    return np.where(np.isnan(gap), math.nan, np.where(np.abs(gap) <= tie, 0.5, won))


def win_rates(
    system: ArrayLike,
    reference: ArrayLike,
    names: Sequence[str],
    *,
    tie: float = 0.0,
    clusters: Sequence[Hashable] | None = None,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Estimate]:
    """The win rate against reference responses for every attribute, and `MACRO`, their mean with equal weights.

    `system` and `reference` are (N, K) scores of responses to the same prompts. Shares, not per cent. Intervals are
    bootstrapped over rows, or over `clusters` of rows; the macro average resamples rows with all their attributes.
    It has no value where an attribute was never scored. Raises SettingsError for shapes that do not fit together.
    """
    won = wins(system, reference, tie=tie)
    columns = _named(won, names)
    options: dict[str, Any] = {"n": resamples, "seed": seed, "level": level, "clusters": clusters}
    rates = {name: bootstrap_interval(column, _mean, **options) for name, column in columns.items()}
    return {**rates, MACRO: _of_rows(won, _macro, **options)}


# Sensing (Figure 4 of SGA)


@dataclass(frozen=True)
class Sensed:
    """How near sensed scores are to the true ones, for one attribute on its unit scale.

    `error`: mean |s - s_hat|; `constant`: the same for one score given to every prompt; `gain`: constant - error,
    paired, positive where sensing is better; `r2`: 1 - SSE / SST, zero for the mean of these very rows; `near`: the
    share of rows within NEAR; `histogram`: rows per bin of |s - s_hat| between `edges`, the last bin open above, and
    `constant_histogram` the same for the one score.
    """

    name: str
    error: Estimate
    constant: Estimate
    gain: Estimate
    r2: Estimate
    near: Estimate
    histogram: tuple[int, ...]
    constant_histogram: tuple[int, ...]
    edges: tuple[float, ...]


def judge_sensing(
    sensed: ArrayLike,
    truth: ArrayLike,
    names: Sequence[str],
    *,
    constant: ArrayLike | None = None,
    clusters: Sequence[Hashable] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Sensed]:
    """Sensed against true scores, both (N, K) in [0, 1], for every attribute.

    `constant` (K,) is the predictor that looks at no prompt: the training set's median, say. Without it, the median of
    these rows is taken, the constant with the least absolute error that there can be, so that no `gain` is owed to a
    poor choice of it. Raises SettingsError for shapes that do not fit together.
    """
    s_hat, s = _table(sensed), _table(truth)
    if s_hat.shape != s.shape:
        raise SettingsError(f"sensed scores {s_hat.shape} and true ones {s.shape} are not of the same rows.")
    fixed = None if constant is None else np.asarray(constant, dtype=np.float64)
    if fixed is not None and fixed.shape != s.shape[1:]:
        raise SettingsError(f"a constant predictor of {s.shape[1]} attributes needs as many scores, not {fixed.shape}.")
    known = _named(s, names)
    options: dict[str, Any] = {"n": resamples, "seed": seed, "level": level, "clusters": clusters}
    out = {}
    for k, (name, true) in enumerate(known.items()):
        guess = s_hat[:, k]
        error = np.abs(guess - true)
        scored = ~np.isnan(error)
        level_of = fixed[k] if fixed is not None else np.median(true[scored]) if scored.any() else math.nan
        blind = np.where(scored, np.abs(level_of - true), math.nan)
        near = np.where(scored, (error < NEAR).astype(np.float64), math.nan)
        out[name] = Sensed(
            name=name,
            error=mean_interval(error, level, clusters),
            constant=mean_interval(blind, level, clusters),
            gain=paired_difference(blind, error, level, clusters=clusters),
            r2=_of_rows(np.stack([guess, true], axis=1), _r2, complete=True, **options),
            near=share_interval(near, level) if clusters is None else mean_interval(near, level, clusters),
            histogram=_histogram(error[scored]),
            constant_histogram=_histogram(blind[scored]),
            edges=tuple(round(i / BINS, 6) for i in range(BINS + 1)),
        )
    return out


def _histogram(error: Floats) -> tuple[int, ...]:
    """Counts in BINS equal bins over [0, 1]; what a prediction outside of the unit scale adds goes into the last."""
    places = np.minimum((error * BINS + 1e-9).astype(np.int64), BINS - 1)  # .3 * 10 is a hair below 3
    return tuple(np.bincount(places, minlength=BINS).tolist())


# Steering (Table 5 of SGA)


def steering_scores(
    truth: ArrayLike, sensed: ArrayLike | None = None, *, fixed: Sequence[float] = (0.25, 0.5, 1.0)
) -> dict[str, Floats]:
    """The scores that each strategy of Table 5 asks for, (N, K) on the unit scale: one number for every attribute, the
    ground truth ("gt"), and what the policy senses ("sensed", where given)."""
    s = _table(truth)
    asked = {f"{level:g}": np.full(s.shape, float(level)) for level in fixed}
    asked["gt"] = s
    if sensed is not None:
        asked["sensed"] = _table(sensed)
        if asked["sensed"].shape != s.shape:
            raise SettingsError(f"sensed scores {asked['sensed'].shape} and true ones {s.shape} differ in shape.")
    return asked


def steering_table(
    strategies: Mapping[str, ArrayLike],
    reference: ArrayLike,
    names: Sequence[str],
    *,
    against: str = "sensed",
    tie: float = 0.0,
    clusters: Sequence[Hashable] | None = None,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> list[Row]:
    """One row for each strategy of steering: `scores` (its name), the win rate of every attribute and `MACRO` of the
    responses it made against the reference ones; `difference`, its macro average minus that of `against`, paired over
    the rows where both have every attribute, with a p-value.

    `strategies` are (N, K) scores of responses by name. Raises SettingsError where `against` is none of them.
    """
    if against not in strategies:
        raise SettingsError(f'there is no strategy "{against}" to hold the others against.')
    if MACRO in names or {"scores", "difference"} & set(names):
        raise SettingsError(f'an attribute cannot be called "{MACRO}", "scores" or "difference" here.')
    options: dict[str, Any] = {"tie": tie, "clusters": clusters, "level": level}
    base = wins(strategies[against], reference, tie=tie).mean(1)
    rows: list[Row] = []
    for strategy, scores in strategies.items():
        row: Row = {"scores": strategy}
        row.update(win_rates(scores, reference, names, resamples=resamples, seed=seed, **options))
        if strategy != against:
            own = wins(scores, reference, tie=tie).mean(1)  # NaN where an attribute is missing: left out and counted
            row["difference"] = paired_difference(own, base, level, clusters=clusters)
        rows.append(row)
    return rows


def plain_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same rows, JSON-ready."""
    return [{key: x.as_dict() if isinstance(x, Estimate) else x for key, x in row.items()} for row in rows]


# Weights of objectives (the preference orchestrator)


@dataclass(frozen=True)
class WeightsReport:
    """Predicted weights of objectives against the targets of prompts that were not trained on; nats.

    `kl`: KL(target || predicted); `constant`: KL(target || the same weights for every prompt); `gain`: constant - kl,
    paired; `entropy` of the predicted weights, `target_entropy` of the targets; `retest`: total variation between the
    targets of two rows of one prompt, the noise below which no prediction can come (n = 0 where no prompt has two).
    """

    kl: Estimate
    constant: Estimate
    gain: Estimate
    entropy: Estimate
    target_entropy: Estimate
    retest: Estimate

    @property
    def is_better(self) -> bool:
        """Whether the interval of the gain lies above zero."""
        return self.gain.has_interval and self.gain.low > 0

    @property
    def verdict(self) -> str:
        """What the numbers allow to be said, and no more."""
        if not self.gain.has_interval:
            return "Too few held-out prompts to compare it with constant weights."
        if self.is_better:
            found = f"Nearer to the targets than constant weights: {self.gain.short()} nats a prompt."
        else:
            found = f"Not shown to be nearer to the targets than constant weights ({self.gain.short()} nats a prompt)."
        return f"{found} This says nothing about responses that are made with it."

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        named = ("kl", "constant", "gain", "entropy", "target_entropy", "retest")
        return {**{name: getattr(self, name).as_dict() for name in named}, "verdict": self.verdict}


def judge_weights(
    targets: ArrayLike,
    predicted: ArrayLike,
    constant: ArrayLike,
    *,
    known: ArrayLike | None = None,
    clusters: Sequence[Hashable] | None = None,
    level: float = 0.95,
) -> WeightsReport:
    """Targets and predictions (N, K) on the simplex, one constant (K,), on held-out rows.

    `known` (N, K) says which objectives a row was scored for; there, prediction and constant are renormalised over
    them, as in training. `clusters` labels the rows of one prompt. Raises SettingsError for shapes that do not fit.
    """
    w_star, w = _table(targets), _table(predicted)
    c = np.asarray(constant, dtype=np.float64)
    if w_star.shape != w.shape or c.shape != w.shape[1:]:
        raise SettingsError(f"targets {w_star.shape}, predictions {w.shape} and a constant {c.shape} do not fit.")
    mask = np.ones(w.shape, dtype=np.bool_) if known is None else np.asarray(known, dtype=np.bool_)
    kl = _kl(w_star, w, mask)
    blind = _kl(w_star, np.broadcast_to(c, w.shape), mask)
    return WeightsReport(
        kl=mean_interval(kl, level, clusters),
        constant=mean_interval(blind, level, clusters),
        gain=paired_difference(blind, kl, level, clusters=clusters),
        entropy=mean_interval(_entropy(w), level, clusters),
        target_entropy=mean_interval(_entropy(w_star), level, clusters),
        retest=_retest(w_star, mask, clusters, level),
    )


def _kl(p: Floats, q: Floats, known: NDArray[np.bool_]) -> Floats:
    """(N,) KL(p || q) over the known objectives, q renormalised over them; 0 log 0 is 0."""
    part = np.where(known, q, 0.0)
    part = part / part.sum(1, keepdims=True)
    positive = known & (p > 0)
    ratio = np.where(positive, p, 1.0) / np.where(positive, np.maximum(part, np.finfo(np.float64).tiny), 1.0)
    return np.asarray((np.where(positive, p, 0.0) * np.log(ratio)).sum(1))


def _entropy(p: Floats) -> Floats:
    """(N,) in nats."""
    return np.asarray(-(p * np.log(np.where(p > 0, p, 1.0))).sum(1))


def _retest(targets: Floats, known: NDArray[np.bool_], clusters: Sequence[Hashable] | None, level: float) -> Estimate:
    """Total variation between the first two fully scored rows of each prompt that has two."""
    rows: dict[Hashable, list[int]] = {}
    for i, label in enumerate(clusters or ()):
        if known[i].all():
            rows.setdefault(label, []).append(i)
    pairs = [places[:2] for places in rows.values() if len(places) > 1]
    return mean_interval([0.5 * float(np.abs(targets[a] - targets[b]).sum()) for a, b in pairs], level)


# Shared


def _of_rows(
    table: Floats,
    statistic: Callable[[Floats], float],
    *,
    complete: bool = False,
    n: int,
    seed: int,
    level: float,
    clusters: Sequence[Hashable] | None,
) -> Estimate:
    """A statistic of whole rows, rows resampled: the items are their numbers. Rows without a score (`complete`: without
    all of them) are left out and counted."""
    unscored = np.isnan(table)
    out = unscored.any(axis=1) if complete else unscored.all(axis=1)
    items = np.where(out, math.nan, np.arange(len(table), dtype=np.float64))
    return bootstrap_interval(
        items, lambda rows: statistic(table[rows.astype(np.int64)]), n, seed=seed, level=level, clusters=clusters
    )


def _mean(values: Floats) -> float:
    return float(values.mean())


def _macro(table: Floats) -> float:
    """The mean of the columns' means, NaN where a column has no score."""
    known = ~np.isnan(table)
    counts = known.sum(axis=0)
    if not counts.all():
        return math.nan
    return float((np.where(known, table, 0.0).sum(axis=0) / counts).mean())


def _r2(table: Floats) -> float:
    """1 - SSE / SST of (sensed, true) rows; NaN where the true scores are all alike."""
    guess, true = table.T
    total = float(((true - true.mean()) ** 2).sum())
    return 1 - float(((true - guess) ** 2).sum()) / total if total > 0 else math.nan


def _table(values: ArrayLike) -> Floats:
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or not table.size:
        raise SettingsError(f"scores are a table of (rows, attributes), not {table.shape}.")
    return table


def _named(table: Floats, names: Sequence[str]) -> dict[str, Floats]:
    """The columns by name, in order."""
    if len(names) != table.shape[1] or len(set(names)) != len(names):
        raise SettingsError(f"{table.shape[1]} attributes need as many different names, not {', '.join(names)}.")
    return {name: table[:, k] for k, name in enumerate(names)}
