"""Breakdowns by group: by hand, weighted means against the formulas they reduce to, and the worst group's interval."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pluralign.errors import PluralignError
from pluralign.judging.groups import by_group, combine, difference_of, group_report, worst_group
from pluralign.judging.statistics import Estimate, mean_interval


def test_groups_are_means_of_their_items():
    found = by_group([1, 2, None, 5, 7], ["a", "a", "a", "b", "b"])
    assert found["a"] == mean_interval([1, 2, None])
    assert found["b"] == mean_interval([5, 7])
    clustered = by_group([1, 2, 3, 6], ["a"] * 4, clusters=["x", "x", "y", "y"])
    assert clustered["a"] == mean_interval([1, 2, 3, 6], clusters=["x", "x", "y", "y"])
    with pytest.raises(PluralignError, match="needs a group"):
        by_group([1], [])


def test_report_by_hand():
    values, groups = [1, 1, 0, 1, 0, 0, 1, 0], ["big"] * 4 + ["one"] * 2 + ["two"] * 2
    found = group_report(values, groups)
    assert (found.majority_name, found.majority.value, found.minority.value) == ("big", 0.75, 0.25)
    assert found.gap.value == 0.5
    assert (found.worst_name, found.worst.value) == ("one", 0.0)
    assert found.balanced.value == pytest.approx((0.75 + 0 + 0.5) / 3)
    with pytest.raises(PluralignError, match="two groups"):
        group_report([1, 2], ["a", "a"])


def test_symmetric_intervals_combine_by_the_root_of_squares():
    a, b = Estimate(0.5, 0.4, 0.6, 10), Estimate(0.7, 0.6, 0.8, 10)
    assert combine([a]).low == pytest.approx(0.4)
    both = combine([a, b])
    assert (both.value, both.n) == (pytest.approx(0.6), 20)
    assert both.high - both.value == pytest.approx(0.1 / math.sqrt(2))
    weighted = combine([a, b], [3, 1])
    assert weighted.value == pytest.approx(0.55)
    assert weighted.value - weighted.low == pytest.approx(math.hypot(0.075, 0.025))
    gap = difference_of(b, a)
    assert (gap.value, gap.high) == (pytest.approx(0.2), pytest.approx(0.2 + 0.1 * math.sqrt(2)))


def test_a_group_without_interval_leaves_none():
    assert not combine([Estimate(0.5, 0.4, 0.6, 9), Estimate(1.0, math.nan, math.nan, 1)]).has_interval
    with pytest.raises(PluralignError, match="different levels"):
        combine([Estimate(0.5, 0.4, 0.6, 9), Estimate(0.5, 0.4, 0.6, 9, level=0.9)])
    with pytest.raises(PluralignError, match="as many weights"):
        combine([Estimate(0.5, 0.4, 0.6, 9)], [1, 2])


def test_weighted_means_of_groups_cover():
    from pluralign.judging.statistics import proportion_interval

    rng = np.random.default_rng(0)
    p, sizes, weights = np.array([0.95, 0.7, 0.5]), [40, 30, 60], [5, 1, 3]
    truth, hits = float(np.dot(p, weights) / 9), 0
    for _ in range(600):
        drawn = [proportion_interval(int(rng.binomial(n, q)), n) for n, q in zip(sizes, p, strict=True)]
        found = combine(drawn, weights)
        hits += found.low <= truth <= found.high
    assert 0.93 <= hits / 600 <= 0.97


@pytest.mark.parametrize("means", [(0.0, 0.0, 0.0, 0.0), (0.0, 2.0, 2.0, 2.0)])
def test_the_worst_groups_interval_holds_the_lowest_true_mean(means):
    """Four groups of 12, alike or one far below: it covers at its level at least, where the group's own does not."""
    rng = np.random.default_rng(1)
    groups = [str(k) for k in range(4) for _ in range(12)]
    hits = naive = 0
    for _ in range(150):
        values = np.concatenate([rng.normal(m, 1, 12) for m in means])
        name, found = worst_group(values, groups)
        hits += found.low <= 0 <= found.high
        own = by_group(values, groups)[name]
        naive += own.low <= 0 <= own.high
    assert hits / 150 >= 0.93
    if len(set(means)) == 1:
        assert naive / 150 < 0.92  # the lowest of four is low by luck
