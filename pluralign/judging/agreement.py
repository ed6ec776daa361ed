"""How far judges agree: shares, Cohen's kappa, Krippendorff's alpha, each with an interval over the items.

A rating is any label; None (and NaN) means that a judge gave none for the item. Shapes: R judges, N items, C
categories.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import PluralignError
from .statistics import Estimate, bootstrap_interval, mean_interval, share_interval

__all__ = ["agreement", "agreement_matrix", "cohen_kappa", "krippendorff_alpha"]

Rating = Any  # a label of any kind; a number where distances between ratings matter
Floats = NDArray[np.float64]
Weights = Literal["linear", "quadratic"]
Scale = Literal["nominal", "ordinal", "interval"]


def agreement(
    a: Sequence[Rating], b: Sequence[Rating], level: float = 0.95, *, clusters: Sequence[Hashable] | None = None
) -> Estimate:
    """The share of items that two judges label alike: Wilson, or cluster-robust. Items that lack a label are counted.

    Raises PluralignError where the two have different numbers of items.
    """
    _same_items(a, b)
    alike = [None if _missing(x) or _missing(y) else float(x == y) for x, y in zip(a, b, strict=True)]
    return share_interval(alike, level) if clusters is None else mean_interval(alike, level, clusters)


def cohen_kappa(
    a: Sequence[Rating],
    b: Sequence[Rating],
    *,
    weights: Weights | None = None,
    categories: Sequence[Rating] | None = None,
    clusters: Sequence[Hashable] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate:
    """1 - observed over expected disagreement of two judges (Cohen 1960, 1968), with a bootstrap over items.

    `weights`: how much a disagreement counts; None: all the same; "linear" and "quadratic": by the distance between the
    places in `categories` (by default the labels in sorted order). NaN where both judges know one label only.
    Raises PluralignError for unequal lengths or a label that is not among the categories.
    """
    _same_items(a, b)
    both = [not (_missing(x) or _missing(y)) for x, y in zip(a, b, strict=True)]
    known = list(categories) if categories is not None else _sorted([*a, *b])
    codes = _codes([*a, *b], known)
    first, second = codes[: len(a)], codes[len(a) :]
    size = len(known)
    gap = np.abs(np.subtract.outer(np.arange(size), np.arange(size))).astype(np.float64)
    cost = {None: (gap > 0).astype(np.float64), "linear": gap, "quadratic": gap**2}[weights]

    def kappa(index: Floats) -> float:
        i = index.astype(np.int64)
        table = np.bincount(first[i] * size + second[i], minlength=size * size).reshape(size, size) / len(i)
        expected = float((np.outer(table.sum(1), table.sum(0)) * cost).sum())
        return 1 - float((table * cost).sum()) / expected if expected > 0 else math.nan

    return _over_items(both, kappa, clusters, resamples, seed, level, "Cohen's kappa")


def krippendorff_alpha(
    ratings: Sequence[Sequence[Rating]],
    scale: Scale = "nominal",
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    clusters: Sequence[Hashable] | None = None,
) -> Estimate:
    """1 - observed over expected disagreement of any number of judges, with gaps (Krippendorff 2011).

    `ratings`: R judges of N items each. An item that fewer than two judges rated says nothing of agreement: it counts
    as missing. `scale`: labels ("nominal"), ranks ("ordinal": distances in how many ratings lie between) or numbers
    ("interval": squared differences). The interval is a bootstrap over items. NaN where all ratings are the same.
    Raises PluralignError for judges with different numbers of items.
    """
    items = len(ratings[0]) if len(ratings) else 0
    if any(len(row) != items for row in ratings):
        raise PluralignError("each judge needs a rating (or None) for every item.")
    known = _sorted([x for row in ratings for x in row])
    codes = np.stack([_codes(row, known) for row in ratings]) if len(ratings) else np.zeros((0, 0), dtype=np.int64)
    counts = np.stack([(codes == c).sum(0) for c in range(len(known))], axis=1) if known else np.zeros((items, 0))
    rated = counts.sum(1)
    paired = rated >= 2
    # per item the matrix of pairs of ratings, over m - 1: summed they are the coincidences
    pairs = np.einsum("ij,ik->ijk", counts, counts) - np.einsum("ij,jk->ijk", counts, np.eye(len(known)))
    pairs = pairs / np.maximum(rated - 1, 1)[:, None, None]

    def alpha(index: Floats) -> float:
        coincidences = pairs[index.astype(np.int64)].sum(0)
        totals = coincidences.sum(1)
        n = float(totals.sum())
        distances = _distances(known, totals, scale)
        expected = float((np.outer(totals, totals) * distances).sum())
        observed = float((coincidences * distances).sum())
        return 1 - (n - 1) * observed / expected if expected > 0 else math.nan

    return _over_items(paired.tolist(), alpha, clusters, resamples, seed, level, f"Krippendorff's alpha, {scale}")


def agreement_matrix(
    judges: Mapping[str, Sequence[Rating]], statistic: Callable[..., Estimate] = cohen_kappa, **options: Any
) -> dict[tuple[str, str], Estimate]:
    """{(judge, other judge): statistic} for every pair, each named once, in the order given."""
    names = list(judges)
    return {
        (one, other): statistic(judges[one], judges[other], **options)
        for i, one in enumerate(names)
        for other in names[i + 1 :]
    }


def _distances(known: Sequence[Rating], totals: Floats, scale: Scale) -> Floats:
    """(C, C) squared distances between categories."""
    size = len(known)
    if scale == "nominal":
        return 1.0 - np.eye(size)
    if scale == "interval":
        values = np.array([float(c) for c in known])
        return np.asarray(np.subtract.outer(values, values) ** 2)
    if scale != "ordinal":
        raise PluralignError(f'a scale is "nominal", "ordinal" or "interval", not "{scale}".')
    middle = np.cumsum(totals) - totals / 2  # between two categories lie half of each and all in between
    return np.asarray(np.subtract.outer(middle, middle) ** 2)


def _over_items(
    usable: Sequence[bool],
    statistic: Callable[[Floats], float],
    clusters: Sequence[Hashable] | None,
    resamples: int,
    seed: int,
    level: float,
    name: str,
) -> Estimate:
    """A statistic of the items' numbers, resampled. Without a usable item: NaN, n = 0."""
    index = [float(i) if ok else None for i, ok in enumerate(usable)]
    if sum(usable) == 0 or math.isnan(whole := statistic(np.flatnonzero(usable).astype(np.float64))):
        return Estimate(math.nan, math.nan, math.nan, sum(usable), level, name, len(usable) - sum(usable))
    # a resample in which everybody says the same has no chance agreement to be held against: it is whole agreement
    found = bootstrap_interval(
        index, lambda i: 1.0 if math.isnan(k := statistic(i)) else k, resamples, seed=seed, level=level,
        clusters=clusters,
    )  # fmt: skip
    return Estimate(whole, found.low, found.high, found.n, level, f"{name}, {found.method}", found.missing)


def _missing(x: Rating) -> bool:
    return x is None or (isinstance(x, float) and math.isnan(x))


def _sorted(ratings: Sequence[Rating]) -> list[Rating]:
    found = {x for x in ratings if not _missing(x)}
    try:
        return sorted(found)
    except TypeError:
        return sorted(found, key=lambda x: (type(x).__name__, str(x)))


def _codes(ratings: Sequence[Rating], known: Sequence[Rating]) -> NDArray[np.int64]:
    places = {label: i for i, label in enumerate(known)}
    for x in ratings:
        if not _missing(x) and x not in places:
            raise PluralignError(f"the rating {x!r} is not among the categories.")
    return np.array([-1 if _missing(x) else places[x] for x in ratings], dtype=np.int64)


def _same_items(a: Sequence[Rating], b: Sequence[Rating]) -> None:
    if len(a) != len(b):
        raise PluralignError(f"agreement needs the same items twice, found {len(a)} and {len(b)}.")
