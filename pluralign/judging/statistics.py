"""Numbers with their uncertainty: every estimate carries an interval, a sample size and what was left out.

Items are numbers; `None` and NaN mean "not scored". They are excluded from the estimate and counted in
`Estimate.missing`. An infinite item is an error: no mean survives it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import PluralignError

__all__ = [
    "Estimate",
    "bootstrap_interval",
    "mean_interval",
    "paired_difference",
    "proportion_interval",
    "share_interval",
]

Item = float | int | bool | None
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its interval.

    `low`, `high`: ends of the two-sided interval of confidence `level`, NaN where none exists (n < 2).
    `n`: items that entered; `missing`: items that did not, because they had no score.
    `p_value`: two-sided, only for differences (null hypothesis: no difference).
    """

    value: float
    low: float
    high: float
    n: int
    level: float = 0.95
    method: str = ""
    missing: int = 0
    p_value: float | None = None

    def __str__(self) -> str:
        """`.61 ± .03 (n = 322)`, or `.98 [.93, .99] (n = 50)` where the interval is visibly lopsided."""
        notes = [f"n = {self.n:,}"]
        if self.missing:
            notes.append(f"{self.missing:,} missing")
        if self.has_interval and self.level != 0.95:
            notes.append(f"{self.level * 100:g} %")
        if self.p_value is not None:
            notes.append(f"p {format_p(self.p_value)}")
        return f"{self.short()} ({', '.join(notes)})"

    def short(self) -> str:
        """The value and its interval only: `.61 ± .03`; `–` where nothing was scored."""
        if math.isnan(self.value):
            return "–"
        digits, sign = self._digits(), "+" if self.p_value is not None else ""
        value = format_number(self.value, digits, sign)
        if not self.has_interval:
            return value
        below, above = (f"{abs(gap):.{digits}f}" for gap in (self.value - self.low, self.high - self.value))
        if below == above:
            return f"{value} ± {format_number(float(below), digits)}"
        return f"{value} [{format_number(self.low, digits, sign)}, {format_number(self.high, digits, sign)}]"

    @property
    def has_interval(self) -> bool:
        return math.isfinite(self.low) and math.isfinite(self.high)

    def _digits(self) -> int:
        """Decimals that show the first significant figure of the half-width: at least two below one."""
        half = (self.high - self.low) / 2 if self.has_interval else 0.0
        if half <= 0:
            return 2 if abs(self.value) < 100 else 1
        if half >= 1:
            return 0 if half >= 10 else 1
        return min(6, max(2, -math.floor(math.log10(half))))

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready: NaN becomes null, empty fields are left out. `from_dict` reads it back."""
        row = {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(self).items()}
        if not self.missing:
            del row["missing"]
        if self.p_value is None:
            del row["p_value"]
        return row

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Estimate:
        """The inverse of `as_dict`. Raises KeyError without "value" or "n", ValueError for values that cannot be."""

        def number(key: str) -> float:
            found = row[key] if key == "value" else row.get(key)
            if found is None:
                return math.nan
            if isinstance(found, bool) or not isinstance(found, int | float):
                raise ValueError(f'"{key}" is not a number.')
            return float(found)

        def count(key: str, found: Any) -> int:
            if isinstance(found, bool) or not isinstance(found, int) or found < 0:
                raise ValueError(f'"{key}" is not a count.')
            return found

        value, low, high = number("value"), number("low"), number("high")
        room = 1e-6 * max(1.0, abs(value))  # for what rounding on the way to a file may do
        if low > high or value < low - room or value > high + room:
            raise ValueError(f"the interval [{low:g}, {high:g}] does not hold the value {value:g}.")
        level = number("level") if "level" in row else 0.95
        if not 0 < level < 1:
            raise ValueError(f'"level" must lie between 0 and 1, not {level:g}.')
        p_value = number("p_value") if row.get("p_value") is not None else None
        n, missing = count("n", row["n"]), count("missing", row.get("missing", 0))
        return cls(value, low, high, n, level, str(row.get("method", "")), missing, p_value)


def format_number(x: float, digits: int, sign: str = "") -> str:
    """Fixed decimals, no leading zero below one (`.61`, `-.05`), never `-.00`; `sign="+"` shows a plus."""
    text = f"{abs(x):.{digits}f}"
    if text.startswith("0.") and digits:
        text = text[1:]
    is_zero = not text.strip("0.")
    if x < 0 and not is_zero:
        return f"-{text}"
    return f"{sign}{text}" if not is_zero else text


def format_p(p: float) -> str:
    """`= .034`, or `< .001`."""
    return "< .001" if p < 0.001 else f"= {format_number(p, 3)}"


def mean_interval(
    values: Sequence[Item] | Floats, level: float = 0.95, clusters: Sequence[Hashable] | None = None
) -> Estimate:
    """The mean of independent items with its Student-t interval.

    With `clusters` (one label per item: the prompt, the annotator, ...) items within a cluster may depend on
    each other: the variance is the cluster-robust one (CR1: residuals summed per cluster, times G/(G-1)) with
    G - 1 degrees of freedom. One item per cluster gives exactly the plain interval.
    """
    _check_level(level)
    scored, labels, missing = _scored(values, clusters)
    n = len(scored)
    method = "Student t" if labels is None else f"Student t, {len(set(labels))} clusters"
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, 0, level, method, missing)
    mean, error, freedom = _mean_and_error(scored, labels)
    half = _t_quantile(level, freedom) * error if freedom else math.nan
    return Estimate(mean, mean - half, mean + half, n, level, method, missing)


def proportion_interval(successes: int, n: int, level: float = 0.95, *, missing: int = 0) -> Estimate:
    """successes / n with the Wilson score interval, which stays inside [0, 1] and holds at the ends."""
    from scipy.stats import norm

    _check_level(level)
    if not (int(successes) == successes and int(n) == n and 0 <= successes <= n):
        raise PluralignError(f"a proportion needs whole counts 0 <= successes <= n, not {successes} of {n}.")
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, 0, level, "Wilson", missing)
    p, z = successes / n, float(norm.ppf(0.5 + level / 2))
    scale = 1 + z * z / n
    centre = (p + z * z / (2 * n)) / scale
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / scale
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return Estimate(p, low, high, int(n), level, "Wilson", missing)


def share_interval(outcomes: Sequence[Item] | Floats, level: float = 0.95) -> Estimate:
    """The share of ones among 0/1 outcomes, Wilson. Unscored outcomes (None, NaN) are excluded and counted."""
    scored, _, missing = _scored(outcomes, None)
    if not _is_binary(scored):
        raise PluralignError("a share needs outcomes of 0 and 1 only.", remedy="Use mean_interval for graded scores.")
    return proportion_interval(int(scored.sum()), len(scored), level, missing=missing)


def bootstrap_interval(
    values: Sequence[Item] | Floats,
    statistic: Callable[[Floats], float],
    n: int = 2000,
    *,
    seed: int,
    level: float = 0.95,
    clusters: Sequence[Hashable] | None = None,
) -> Estimate:
    """Any statistic of the scored items with a bias-corrected accelerated (BCa) bootstrap interval.

    `statistic` maps an array (m,) to a number; `n` is the number of resamples. With `clusters`, whole clusters
    are resampled. Where BCa does not exist (every leave-one-out value agrees) the percentile interval is given
    and `method` says so.
    """
    from scipy.stats import bootstrap

    _check_level(level)
    if n < 100:
        raise PluralignError(f"a bootstrap interval needs at least 100 resamples, not {n}.")
    scored, labels, missing = _scored(values, clusters)
    units = [scored[i : i + 1] for i in range(len(scored))] if labels is None else _by_cluster(scored, labels)
    value = float(statistic(scored)) if len(scored) else math.nan
    if len(units) < 2:
        return Estimate(value, math.nan, math.nan, len(scored), level, "bootstrap", missing)

    def of_units(index: NDArray[np.int64]) -> float:
        return float(statistic(scored[index] if labels is None else np.concatenate([units[i] for i in index])))

    options: dict[str, Any] = {"vectorized": False, "n_resamples": n, "confidence_level": level}
    # scipy warns where BCa does not exist; that case is handled below and named in `method`.
    with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
        found = bootstrap(
            (np.arange(len(units)),), of_units, method="BCa", random_state=np.random.default_rng(seed), **options
        )
    low, high = (float(x) for x in found.confidence_interval)
    kind = "BCa"
    if math.isnan(low) or math.isnan(high):
        low, high = (float(x) for x in np.quantile(found.bootstrap_distribution, [0.5 - level / 2, 0.5 + level / 2]))
        kind = "percentile"
    # A statistic such as the maximum can lie outside its own resamples; the interval still has to hold the value.
    method = f"bootstrap {kind}, {n} resamples" + ("" if labels is None else f" of {len(units)} clusters")
    return Estimate(value, min(low, value), max(high, value), len(scored), level, method, missing)


def paired_difference(
    a: Sequence[Item] | Floats,
    b: Sequence[Item] | Floats,
    level: float = 0.95,
    *,
    clusters: Sequence[Hashable] | None = None,
) -> Estimate:
    """mean(a) - mean(b) over the same items (a[i] and b[i] belong together), with interval and p-value.

    Graded scores, or clusters: the paired t-test (cluster-robust where clusters are given). 0/1 outcomes:
    the exact McNemar test on the discordant pairs and the Bonett-Price interval (Wald with one added to each
    kind of discordant pair). A pair that lacks either score is left out and counted as missing.
    """
    _check_level(level)
    first, second = _floats(a), _floats(b)
    if len(first) != len(second):
        raise PluralignError(f"a paired difference needs the same items twice, found {len(first)} and {len(second)}.")
    unscored = np.isnan(first) | np.isnan(second)
    gaps, labels, missing = _scored(np.where(unscored, np.nan, first - second), clusters)
    kept = np.concatenate([first[~unscored], second[~unscored]])
    if len(gaps) == 0:
        return Estimate(math.nan, math.nan, math.nan, 0, level, "paired", missing)
    if labels is None and _is_binary(kept):
        return _mcnemar(int((gaps > 0).sum()), int((gaps < 0).sum()), len(gaps), level, missing)
    found = mean_interval(gaps, level, labels)
    _, error, freedom = _mean_and_error(gaps, labels)
    method = f"paired t{'' if labels is None else f', {len(set(labels))} clusters'}"
    p_value = _t_test(found.value, error, freedom)
    return Estimate(found.value, found.low, found.high, found.n, level, method, missing, p_value)


def _mcnemar(wins: int, losses: int, n: int, level: float, missing: int) -> Estimate:
    """Of n pairs, `wins` are 1 only in a, `losses` only in b (Bonett & Price 2012 for the interval)."""
    from scipy.stats import binomtest, norm

    p_value = float(binomtest(wins, wins + losses, 0.5).pvalue) if wins + losses else 1.0
    up, down, z = (wins + 1) / (n + 2), (losses + 1) / (n + 2), float(norm.ppf(0.5 + level / 2))
    centre = up - down
    half = z * math.sqrt((up + down - centre**2) / (n + 2))
    low, high = max(-1.0, centre - half), min(1.0, centre + half)
    value = (wins - losses) / n
    return Estimate(value, min(low, value), max(high, value), n, level, "McNemar exact", missing, p_value)


def _mean_and_error(scored: Floats, labels: list[Hashable] | None) -> tuple[float, float, int]:
    """The mean, its standard error and the degrees of freedom (0: no error can be had)."""
    n, mean = len(scored), float(scored.mean())
    residuals = scored - mean
    sums = residuals if labels is None else np.array([c.sum() for c in _by_cluster(residuals, labels)])
    units = len(sums)
    if units < 2:
        return mean, math.nan, 0
    return mean, math.sqrt(units / (units - 1) * float(sums @ sums)) / n, units - 1


def _t_quantile(level: float, freedom: int) -> float:
    from scipy.stats import t

    return float(t.ppf(0.5 + level / 2, freedom))


def _t_test(mean: float, error: float, freedom: int) -> float:
    from scipy.stats import t

    if freedom == 0:
        return math.nan
    if error == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * t.sf(abs(mean / error), freedom))


def _by_cluster(values: Floats, labels: list[Hashable]) -> list[Floats]:
    """One array per cluster, in order of first appearance."""
    places: dict[Hashable, list[int]] = {}
    for i, label in enumerate(labels):
        places.setdefault(label, []).append(i)
    return [values[where] for where in places.values()]


def _scored(
    values: Sequence[Item] | Floats, clusters: Sequence[Hashable] | None
) -> tuple[Floats, list[Hashable] | None, int]:
    """The scored items, their cluster labels and how many items had no score."""
    items = _floats(values)
    scored = ~np.isnan(items)
    if clusters is None:
        return items[scored], None, int((~scored).sum())
    labels = list(clusters)
    if len(labels) != len(items):
        raise PluralignError(f"{len(items)} items but {len(labels)} cluster labels: each item needs one.")
    kept = [label for label, is_scored in zip(labels, scored, strict=True) if is_scored]
    if any(label is None or label != label for label in kept):
        raise PluralignError(
            "a scored item has no cluster label.", remedy="Label every item or leave clusters out altogether."
        )
    return items[scored], kept, int((~scored).sum())


def _floats(values: Sequence[Item] | Floats) -> Floats:
    items = np.array([math.nan if x is None else x for x in values], dtype=np.float64)
    infinite = np.flatnonzero(np.isinf(items))
    if len(infinite):
        raise PluralignError(
            f"item {infinite[0]} is {items[infinite[0]]:g}; no mean survives an infinite score.",
            remedy="Give NaN for items that could not be scored.",
        )
    return items


def _is_binary(scored: Floats) -> bool:
    return bool(np.isin(scored, (0.0, 1.0)).all())


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise PluralignError(f"a confidence level lies between 0 and 1, not {level}.", remedy="For 95 % give 0.95.")
