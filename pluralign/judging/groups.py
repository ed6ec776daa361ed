"""A mean taken apart by group: who is served worst, how the majority fares beside the rest, and weighted means of
groups."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import PluralignError
from .statistics import Estimate, Item, mean_interval

__all__ = ["GroupReport", "by_group", "combine", "difference_of", "group_report", "worst_group"]


@dataclass(frozen=True, slots=True)
class GroupReport:
    """`groups`: each group's mean. `worst`: the lowest of them. `majority` and `minority`: the means over items of the
    group with most items and of all other groups; `gap`: majority minus minority. `balanced`: every group counts
    alike."""

    groups: Mapping[str, Estimate]
    worst_name: str
    worst: Estimate
    majority_name: str
    majority: Estimate
    minority: Estimate
    gap: Estimate
    balanced: Estimate

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        names = ("worst", "majority", "minority", "gap", "balanced")
        return {
            "groups": {name: e.as_dict() for name, e in self.groups.items()},
            "worst_name": self.worst_name,
            "majority_name": self.majority_name,
            **{name: getattr(self, name).as_dict() for name in names},
        }


def by_group(
    values: Sequence[Item] | NDArray[np.float64],
    groups: Sequence[str],
    level: float = 0.95,
    *,
    clusters: Sequence[Hashable] | None = None,
) -> dict[str, Estimate]:
    """The mean of each group's items, groups in order of appearance. Raises PluralignError for unequal lengths."""
    if len(values) != len(groups):
        raise PluralignError(f"each of {len(values)} items needs a group, found {len(groups)}.")
    places: dict[str, list[int]] = {}
    for i, group in enumerate(groups):
        places.setdefault(group, []).append(i)

    def of(where: Sequence[int]) -> Estimate:
        labels = None if clusters is None else [clusters[i] for i in where]
        return mean_interval([values[i] for i in where], level, labels)

    return {group: of(where) for group, where in places.items()}


def worst_group(
    values: Sequence[Item] | NDArray[np.float64],
    groups: Sequence[str],
    level: float = 0.95,
    *,
    clusters: Sequence[Hashable] | None = None,
) -> tuple[str, Estimate]:
    """The group with the lowest mean, with an interval for the lowest of the true means.

    The group that looks worst is partly the unluckiest. The lower end is the lowest end of the groups' own intervals;
    the upper end the lowest of their upper ends, each drawn so wide that all K of them hold together (Bonferroni). It
    covers at least at its level, and more where groups are alike. Groups without two scored items have no interval and
    are left out; raises PluralignError where no group has one.
    """
    plain = by_group(values, groups, level, clusters=clusters)
    known = {name: e for name, e in plain.items() if e.has_interval}
    if not known:
        raise PluralignError("no group has two scored items.")
    wide = by_group(values, groups, 1 - (1 - level) / len(known), clusters=clusters)
    name = min(known, key=lambda g: known[g].value)
    found = known[name]
    low, high = min(e.low for e in known.values()), min(wide[g].high for g in known)
    note = f"lowest of {len(known)} groups"
    return name, Estimate(
        found.value, min(low, found.value), max(high, found.value), found.n, level, note, found.missing
    )


def group_report(
    values: Sequence[Item] | NDArray[np.float64],
    groups: Sequence[str],
    level: float = 0.95,
    *,
    clusters: Sequence[Hashable] | None = None,
) -> GroupReport:
    """All of it at once. The majority is the group with most items, the first of several.

    Raises PluralignError for fewer than two groups.
    """
    found = by_group(values, groups, level, clusters=clusters)
    if len(found) < 2:
        raise PluralignError("a breakdown needs two groups at least.")
    sizes = {name: list(groups).count(name) for name in found}
    most = max(sizes, key=lambda name: sizes[name])
    sides = by_group(values, ["majority" if g == most else "minority" for g in groups], level, clusters=clusters)
    worst_name, worst = worst_group(values, groups, level, clusters=clusters)
    return GroupReport(
        groups=found,
        worst_name=worst_name,
        worst=worst,
        majority_name=most,
        majority=sides["majority"],
        minority=sides["minority"],
        gap=difference_of(sides["majority"], sides["minority"]),
        balanced=combine([e for e in found.values() if e.n]),
    )


def combine(estimates: Sequence[Estimate], weights: Sequence[float] | None = None) -> Estimate:
    """The weighted mean of independent estimates; weights are made to add up to one, and are alike by default.

    The interval puts theirs together by recovered variances (Zou & Donner 2008): value -+ sqrt(sum (w_k gap_k)^2), with
    the gap to each one's own end, so that lopsided intervals and those at 0 and 1 keep their shape. None where one of
    them has no interval. Raises PluralignError without estimates or with weights that are no weights.
    """
    given = np.ones(len(estimates)) if weights is None else np.asarray(weights, dtype=np.float64)
    if not len(estimates) or len(given) != len(estimates) or (given < 0).any() or given.sum() <= 0:
        raise PluralignError(f"a weighted mean needs estimates and as many weights: {len(estimates)}, {len(given)}.")
    if len({e.level for e in estimates}) > 1:
        raise PluralignError("intervals of different levels cannot be put together.")
    w = given / given.sum()
    value = float(w @ np.array([e.value for e in estimates]))
    below = math.sqrt(sum((k * (e.value - e.low)) ** 2 for k, e in zip(w.tolist(), estimates, strict=True)))
    above = math.sqrt(sum((k * (e.high - e.value)) ** 2 for k, e in zip(w.tolist(), estimates, strict=True)))
    n, missing = sum(e.n for e in estimates), sum(e.missing for e in estimates)
    return Estimate(
        value, value - below, value + above, n, estimates[0].level, f"weighted mean of {len(estimates)}", missing
    )


def difference_of(a: Estimate, b: Estimate) -> Estimate:
    """a - b of independent estimates, the interval from theirs by recovered variances; no p-value."""
    value = a.value - b.value
    low = value - math.hypot(a.value - a.low, b.high - b.value)
    high = value + math.hypot(a.high - a.value, b.value - b.low)
    return Estimate(value, low, high, a.n + b.n, a.level, "difference of independent means", a.missing + b.missing)
