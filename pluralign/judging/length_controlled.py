"""AlpacaEval 2's length-controlled win rate: the published fit, and the uncertainty of that fit, which it leaves out.

One logistic fit per model against the baseline (Dubois et al. 2024, arXiv 2404.04475; `metrics/glm_winrate.py` of
alpaca_eval): logit P(model wins) = w_l tanh(delta / sd) + w_d difficulty + w_m, where delta is characters of the
baseline minus characters of the model, not centred, over its own sd. The rate is the mean prediction at delta = 0. The
fit is held down by 2 x 805 verdicts on the baseline told to be concise or verbose (`Gamed`), in which w_m does not
stand, each with weight 0.2 / 2. Shapes: N instructions, G gamed rows. Rates are shares: published tables show them
times 100.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import SettingsError
from .length_controlled_fit import LAMBDA, fit_at, fit_by_cross_validation
from .statistics import Estimate, Item, mean_interval

__all__ = [
    "Gamed",
    "LengthControlled",
    "Variant",
    "difficulty_from_predictions",
    "gamed_from_sums",
    "length_controlled_between",
    "length_controlled_win_rate",
    "length_feature",
]

Floats = NDArray[np.float64]
Variant = Literal["length_controlled_v1", "length_controlled_noreg", "length_controlled_minimal"]
LENGTH, DIFFICULTY, MODEL = "length", "difficulty", "model"
GAMED_SUMS = (
    -182.7,
    412.9,
)  # sums of y tanh and y difficulty over the official gamed rows, solved from published weights


@dataclass(frozen=True)
class Gamed:
    """Verdicts on the baseline told to be concise or verbose: `length` tanh(delta / sd), `difficulty`, `wins` in [0,
    1], (G,) each; where the official file has no preference, that row is left out."""

    length: Floats
    difficulty: Floats
    wins: Floats


@dataclass(frozen=True)
class LengthControlled:
    """`rate`: the interval is a bootstrap over instructions, refitted each time at the C that cross-validation chose.

    `published`: the same value with the published standard error, that of the predictions, which takes the fit as
    known. `raw`: the win rate without control. `coefficients`: length, difficulty, model. `draws` (B, 3): those of the
    resamples, in that order. `predicted` (N,): at equal length. `extreme`: so far from the raw rate that alpaca_eval
    warns of it.
    """

    rate: Estimate
    published: Estimate
    raw: Estimate
    coefficients: dict[str, float]
    c: float
    predicted: Floats
    draws: Floats
    variant: str
    extreme: bool

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, without predictions and draws."""
        rates = {name: getattr(self, name).as_dict() for name in ("rate", "published", "raw")}
        return {
            **rates,
            "coefficients": self.coefficients,
            "c": self.c,
            "variant": self.variant,
            "extreme": self.extreme,
        }


def length_feature(baseline: ArrayLike, model: ArrayLike) -> Floats:
    """(N,) tanh(delta / sd) of character counts (N,) each, sd with N - 1; 0 everywhere where delta never changes.

    Scaling all lengths changes nothing. Raises SettingsError for unequal shapes or fewer than two rows.
    """
    one, two = np.asarray(baseline, dtype=np.float64), np.asarray(model, dtype=np.float64)
    if one.shape != two.shape or one.ndim != 1 or len(one) < 2:
        raise SettingsError(f"lengths of both responses are needed, for two rows at least: {one.shape}, {two.shape}.")
    delta = one - two
    spread = float(delta.std(ddof=1))
    return np.tanh(delta / spread) if spread > 0 else np.zeros(len(delta))


def length_controlled_win_rate(
    wins: Sequence[Item] | Floats,
    baseline_lengths: ArrayLike,
    model_lengths: ArrayLike,
    *,
    difficulty: ArrayLike | None = None,
    gamed: Gamed | None = None,
    variant: Variant | None = None,
    order: Sequence[int] | None = None,
    is_baseline: bool = False,
    resamples: int = 200,
    seed: int = 0,
    level: float = 0.95,
) -> LengthControlled:
    """The rate from `wins` (N,) in [0, 1] (alpaca_eval's preference - 1) and character counts (N,).

    `difficulty` (N,) is each row's own; alpaca_eval takes it by row position, so that reordered annotations get another
    row's without a word: match it by instruction. `order` (N,) is each row's place in the official question set. Folds
    of the cross-validation go by row, so rows are put in that order first, and their order in the file changes nothing.
    `variant`: "length_controlled_v1" (needs difficulty and gamed rows), "_noreg" (no gamed rows), "_minimal" (neither);
    by default the fullest that the inputs allow. `is_baseline`: the model is the baseline, 0.5 by construction. Rows
    without a verdict take no part in the fit but do in the rate, as published; they are counted as missing. Raises
    SettingsError for inputs that do not fit together or the variant.
    """
    y = np.array([math.nan if w is None else w for w in wins], dtype=np.float64)
    length = length_feature(baseline_lengths, model_lengths)
    if len(length) != len(y):
        raise SettingsError(f"each verdict needs both lengths: {len(y)} verdicts, {len(length)} lengths.")
    if np.isnan(y).all() or np.nanmin(y) < 0 or np.nanmax(y) > 1:
        raise SettingsError(
            "verdicts are shares between 0 and 1 (alpaca_eval's preference - 1), and one at least is read."
        )
    chosen = _variant(variant, difficulty, gamed)
    hard = _difficulty(difficulty, len(y)) if chosen != "length_controlled_minimal" else None
    held = gamed if chosen == "length_controlled_v1" else None
    raw = mean_interval(y, level)
    if is_baseline:
        half = Estimate(0.5, 0.5, 0.5, raw.n, level, "by construction", raw.missing)
        zero = {LENGTH: 0.0, DIFFICULTY: 0.0, MODEL: 0.0}
        return LengthControlled(half, half, raw, zero, math.nan, np.full(len(y), 0.5), np.zeros((1, 3)), chosen, False)
    turn = np.arange(len(y)) if order is None else np.argsort(np.asarray(order), kind="stable")
    if len(turn) != len(y):
        raise SettingsError(f"each row needs a place in the question set: {len(y)} rows, {len(turn)} places.")
    x, target, weights = _design(y[turn], length[turn], None if hard is None else hard[turn], held)
    theta, c = fit_by_cross_validation(x, target, weights if held is not None else None)
    at_zero = _at_equal_length(len(y), hard)
    predicted = _sigmoid(at_zero @ theta)
    draws = _draws(x, target, weights, held is not None, c, theta, turn, y, resamples, seed)
    rates = np.array([_sigmoid(at_zero[chosen_rows] @ d).mean() for chosen_rows, d in draws])
    low, high = np.quantile(rates, [0.5 - level / 2, 0.5 + level / 2]) if len(rates) else (math.nan, math.nan)
    value = float(predicted.mean())
    note = f"bootstrap percentile of the fit, {resamples} resamples"
    return LengthControlled(
        rate=Estimate(value, min(float(low), value), max(float(high), value), raw.n, level, note, raw.missing),
        published=mean_interval(predicted, level),
        raw=raw,
        coefficients=_named(theta, hard is not None),
        c=c,
        predicted=predicted,
        draws=np.stack([list(_named(d, hard is not None).values()) for _, d in draws]) if draws else np.zeros((0, 3)),
        variant=chosen,
        extreme=_is_extreme(raw.value, value),
    )


def length_controlled_between(
    first: LengthControlled, second: LengthControlled, difficulty: ArrayLike | None = None, level: float = 0.95
) -> Estimate:
    """The rate of one model against another from both fits against the same baseline: mean sigma(dw_m + dw_d d).

    The interval takes both fits' resamples pairwise: give both the same seed and instructions, and what they share
    cancels. Raises SettingsError where difficulties are needed and not given, or the resamples differ in number.
    """
    a, b = first.coefficients, second.coefficients
    if difficulty is None and (a[DIFFICULTY] or b[DIFFICULTY]):
        raise SettingsError("these fits know how hard instructions are.", remedy="Give the difficulties.")
    d = np.zeros(1) if difficulty is None else np.asarray(difficulty, dtype=np.float64)

    def rate(gap_model: float, gap_difficulty: float) -> float:
        return float(_sigmoid(gap_model + gap_difficulty * d).mean())

    value = rate(a[MODEL] - b[MODEL], a[DIFFICULTY] - b[DIFFICULTY])
    one, two = first.draws, second.draws
    if len(one) == 1 or len(two) == 1:  # the baseline itself: nothing was fitted
        one, two = np.broadcast_arrays(one, two)
    if len(one) != len(two):
        raise SettingsError(f"fits with {len(one)} and {len(two)} resamples cannot be held against each other.")
    rates = [rate(*gap) for gap in (one - two)[:, [2, 1]].tolist()]
    low, high = np.quantile(rates, [0.5 - level / 2, 0.5 + level / 2]) if rates else (math.nan, math.nan)
    n = min(first.rate.n, second.rate.n)
    note = f"bootstrap percentile of both fits, {len(rates)} resamples"
    return Estimate(value, min(float(low), value), max(float(high), value), n, level, note)


def difficulty_from_predictions(predicted: ArrayLike, model: float, slope: float) -> Floats:
    """(N,) difficulties from published predictions (`glm_preference`) and the two published coefficients of that model.

    Inverts predicted = sigma(model + slope * difficulty). Raises SettingsError for a slope of 0.
    """
    if slope == 0:
        raise SettingsError("a fit without a coefficient of difficulty says nothing of it.")
    p = np.asarray(predicted, dtype=np.float64)
    return np.asarray((np.log(p) - np.log1p(-p) - model) / slope)


def gamed_from_sums(length: ArrayLike, difficulty: ArrayLike, sums: tuple[float, float] = GAMED_SUMS) -> Gamed:
    """Gamed rows without their verdicts: what they do to the gradient is all in sum(y tanh) and sum(y difficulty).

    `length` (G,) is tanh(delta / sd) of the concise and verbose baseline, `difficulty` (G,) that of the rows; wins
    become sigma(a tanh + b difficulty) with a, b such that the sums hold. Cross-validation sees other verdicts than the
    official ones, so it may choose another C. Raises SettingsError for sums that no verdicts in [0, 1] can have.
    """
    x = np.stack([np.asarray(length, dtype=np.float64), np.asarray(difficulty, dtype=np.float64)], axis=1)
    target, theta = np.asarray(sums, dtype=np.float64), np.zeros(2)
    for _ in range(200):
        p = _sigmoid(x @ theta)
        off = x.T @ p - target
        if float(np.abs(off).max()) < 1e-8 * max(1.0, float(np.abs(target).max())):
            return Gamed(x[:, 0], x[:, 1], p)
        step = np.linalg.lstsq((x * (p * (1 - p))[:, None]).T @ x, off, rcond=None)[0]
        theta = theta - step * min(1.0, 1.0 / max(float(np.abs(step).max()), 1e-12))
    raise SettingsError(f"no verdicts have the sums {sums} over these {len(x)} rows.")


def _variant(variant: Variant | None, difficulty: ArrayLike | None, gamed: Gamed | None) -> Variant:
    if variant is None:
        if difficulty is None:
            return "length_controlled_minimal"
        return "length_controlled_noreg" if gamed is None else "length_controlled_v1"
    known = ("length_controlled_v1", "length_controlled_noreg", "length_controlled_minimal")
    if variant not in known:
        raise SettingsError(f'a variant is one of {", ".join(known)}, not "{variant}".')
    if variant != "length_controlled_minimal" and difficulty is None:
        raise SettingsError(f"{variant} needs the difficulty of every instruction.")
    if variant == "length_controlled_v1" and gamed is None:
        raise SettingsError("length_controlled_v1 needs the gamed rows.", remedy="Or use length_controlled_noreg.")
    return variant


def _difficulty(difficulty: ArrayLike | None, n: int) -> Floats:
    found = np.asarray(difficulty, dtype=np.float64)
    if found.shape != (n,) or not np.isfinite(found).all():
        raise SettingsError(f"each of {n} rows needs a difficulty that is a number, found {found.shape}.")
    return found


def _design(y: Floats, length: Floats, hard: Floats | None, gamed: Gamed | None) -> tuple[Floats, Floats, Floats]:
    """Rows of the fit, gamed ones first as published: (R, 2 or 3) features, (R,) wins, (R,) weights; no verdict, no
    row."""
    columns = [length, *([] if hard is None else [hard]), np.ones(len(y))]
    x, target, weights = np.stack(columns, axis=1), y, np.ones(len(y))
    if gamed is not None:
        rows = np.stack([gamed.length, gamed.difficulty, np.zeros(len(gamed.wins))], axis=1)
        x, target = np.concatenate([rows, x]), np.concatenate([gamed.wins, y])
        weights = np.concatenate([np.full(len(rows), LAMBDA / 2), weights])
    kept = ~np.isnan(target)
    return x[kept], target[kept], weights[kept]


def _draws(
    x: Floats, target: Floats, weights: Floats, has_gamed: bool, c: float, start: Floats, turn: NDArray[np.int64],
    y: Floats, resamples: int, seed: int,
) -> list[tuple[NDArray[np.int64], Floats]]:  # fmt: skip
    """Resampled instructions (all N, read or not, in the caller's numbering) with the coefficients they give.

    Gamed rows are a fixed part of the method, no sample: they stay."""
    rng = np.random.default_rng(seed)
    read = ~np.isnan(y[turn])
    place = np.cumsum(read) - 1  # of a row in official order among those that were read
    gamed = len(target) - int(read.sum()) if has_gamed else 0
    out = []
    for _ in range(resamples):
        drawn = rng.integers(len(y), size=len(y))
        rows = place[drawn[read[drawn]]]
        index = np.concatenate([np.arange(gamed), gamed + rows])
        out.append((turn[drawn], fit_at(x[index], target[index], weights[index], c, start)))
    return out


def _at_equal_length(n: int, hard: Floats | None) -> Floats:
    return np.stack([np.zeros(n), *([] if hard is None else [hard]), np.ones(n)], axis=1)


def _named(theta: Floats, has_difficulty: bool) -> dict[str, float]:
    return {
        LENGTH: float(theta[0]),
        DIFFICULTY: float(theta[1]) if has_difficulty else 0.0,
        MODEL: float(theta[-1]),
    }


def _is_extreme(raw: float, controlled: float) -> bool:
    """alpaca_eval's own warning: more than 10 points and more than a quarter of the way to 0 or 1."""
    too_small = controlled < min(raw - raw / 4, raw - 0.1)
    return too_small or controlled > max(raw + (1 - raw) / 4, raw + 0.1)


def _sigmoid(z: Floats) -> Floats:
    return np.asarray(np.exp(-np.logaddexp(0.0, -z)))
