"""Hand-derived values, exact and simulated coverage, and the honest treatment of unscored items."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from pluralign.errors import PluralignError
from pluralign.judging import (
    Estimate,
    bootstrap_interval,
    mean_interval,
    paired_difference,
    proportion_interval,
    share_interval,
)


def approx(x: float) -> object:
    return pytest.approx(x, abs=2e-6)


# ------------------------------------------------------------------------------------------- values by hand


def test_student_t_by_hand():
    # mean 2.5, s^2 = (2.25 + .25 + .25 + 2.25) / 3 = 5/3, se = sqrt(5/12) = .6454972, t(.975, 3) = 3.1824463
    found = mean_interval([1, 2, 3, 4])
    assert (found.value, found.low, found.high) == (2.5, approx(2.5 - 2.0542604), approx(2.5 + 2.0542604))
    assert (found.n, found.level, found.missing, found.method) == (4, 0.95, 0, "Student t")


def test_clustered_by_hand():
    # residuals -2 -1 0 3, cluster sums -3 and 3, variance 2/1 * 18 / 16 = 2.25, se 1.5, t(.975, 1) = 12.7062047
    found = mean_interval([1, 2, 3, 6], clusters=["a", "a", "b", "b"])
    assert (found.value, found.high) == (3.0, approx(3 + 19.0593071))
    assert found.method == "Student t, 2 clusters"


def test_clusters_of_one_change_nothing():
    values = [0.3, 0.1, 0.7, 0.2, 0.9]
    plain, clustered = mean_interval(values), mean_interval(values, clusters=range(5))
    assert (plain.low, plain.high) == (pytest.approx(clustered.low), pytest.approx(clustered.high))


def test_repeating_every_item_does_not_narrow_a_clustered_interval():
    values = [0.3, 0.1, 0.7, 0.2, 0.9]
    once = mean_interval(values)
    copied = mean_interval(values * 10, clusters=list(range(5)) * 10)
    assert (copied.low, copied.high) == (pytest.approx(once.low), pytest.approx(once.high))
    assert mean_interval(values * 10).high < copied.high


def test_wilson_by_hand():
    # z^2 = 3.8414588: centre (.8 + .1920729) / 1.3841459 = .7167401, half 1.9599640 * sqrt(.0256036) / 1.3841459
    found = proportion_interval(8, 10)
    assert (found.low, found.high) == (pytest.approx(0.490162, abs=2e-5), pytest.approx(0.943318, abs=2e-5))


def test_wilson_at_the_ends():
    # With no success the upper end is z^2 / (n + z^2).
    none, all_ = proportion_interval(0, 10), proportion_interval(10, 10)
    assert (none.value, none.low, none.high) == (0.0, 0.0, approx(3.8414588 / 13.8414588))
    assert (all_.value, all_.high, all_.low) == (1.0, 1.0, approx(10 / 13.8414588))


def test_mcnemar_by_hand():
    # 8 pairs for a, 2 for b, 10 agree: p = 2 (45 + 10 + 1) / 1024.
    a, b = [1] * 8 + [0] * 2 + [1] * 6 + [0] * 4, [0] * 8 + [1] * 2 + [1] * 6 + [0] * 4
    found = paired_difference(a, b)
    assert found.value == approx(0.3)
    assert found.p_value == approx(112 / 1024)
    # Bonett-Price: 9/22 - 3/22 = .2727273, sqrt((12/22 - .0743802) / 22) = .1463300, times 1.9599640
    assert (found.low, found.high) == (pytest.approx(-0.014074, abs=2e-5), pytest.approx(0.559529, abs=2e-5))
    assert found.method == "McNemar exact"


def test_paired_t_by_hand():
    # gaps 1 2 3: mean 2, s = 1, se = .5773503, t = 3.4641016 with 2 degrees of freedom:
    # p = 1 - t / sqrt(2 + t^2) = 1 - 3.4641016 / 3.7416574 = .0741801
    found = paired_difference([3, 5, 9], [2, 3, 6])
    assert (found.value, found.p_value) == (approx(2.0), approx(0.0741801))
    assert found.high == approx(2 + 4.3026527 * 0.5773503)


def test_paired_difference_changes_sign_with_its_arguments():
    rng = np.random.default_rng(3)
    for a, b in [(rng.normal(size=9), rng.normal(size=9)), (rng.random(40) < 0.7, rng.random(40) < 0.4)]:
        forth, back = paired_difference(a, b), paired_difference(b, a)
        assert (forth.value, forth.low, forth.p_value) == (
            approx(-back.value),
            approx(-back.high),
            approx(back.p_value),
        )


def test_paired_binary_with_clusters_is_not_mcnemar():
    a, b = [1, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0]
    found = paired_difference(a, b, clusters=["x", "x", "y", "y", "z", "z"])
    assert found.method == "paired t, 3 clusters"
    assert found.p_value > paired_difference(a * 1, b).p_value  # three independent units, not six


@pytest.mark.parametrize(("a", "b", "p"), [([1, 0], [1, 0], 1.0), ([2.0, 3.0], [2.0, 3.0], 1.0), ([2.0, 3], [1, 2], 0)])
def test_no_spread_in_the_gaps(a, b, p):
    assert paired_difference(a, b).p_value == p


# ------------------------------------------------------------------------------------------------- coverage


@pytest.mark.parametrize("n", [10, 30, 60, 322])
def test_wilson_coverage_is_exactly_summed(n):
    """Counts are a lattice, so coverage at one p swings around the level; over all p it must sit near it."""
    from scipy.stats import binom

    p = np.linspace(0.03, 0.97, 95)
    bounds = [proportion_interval(k, n) for k in range(n + 1)]
    inside = np.array([(e.low <= p) & (p <= e.high) for e in bounds])  # (n + 1, 95)
    covered = (inside * binom.pmf(np.arange(n + 1)[:, None], n, p[None, :])).sum(axis=0)
    assert 0.945 <= covered.mean() <= 0.96
    assert covered.min() >= 0.90 if n >= 30 else covered.min() >= 0.83


def coverage(draw, interval, truth, runs):
    rng = np.random.default_rng(11)
    return sum((e := interval(*draw(rng))).low <= truth <= e.high for _ in range(runs)) / runs


def test_student_coverage():
    assert 0.93 <= coverage(lambda rng: (rng.normal(3, 2, size=8),), mean_interval, 3, 2000) <= 0.97


def correlated(rng):
    """40 clusters of 2 to 6 items that share most of their variance."""
    sizes = rng.integers(2, 7, size=40)
    labels = np.repeat(np.arange(40), sizes)
    return rng.normal(size=40)[labels] + 0.5 * rng.normal(size=len(labels)), labels


def test_clustered_coverage_where_the_plain_interval_fails():
    assert 0.93 <= coverage(correlated, lambda v, c: mean_interval(v, clusters=c), 0, 1500) <= 0.97
    assert coverage(correlated, lambda v, c: mean_interval(v), 0, 1500) < 0.80


def test_paired_binary_coverage():
    def draw(rng):  # P(10) = .3, P(01) = .15, otherwise equal: the true difference is .15
        kind = rng.choice(3, p=[0.3, 0.15, 0.55], size=50)
        return np.where(kind == 0, 1, 0), np.where(kind == 1, 1, 0)

    assert 0.93 <= coverage(draw, paired_difference, 0.15, 2000) <= 0.97


def test_mcnemar_is_no_more_often_wrong_than_it_says():
    rng = np.random.default_rng(5)
    draws = [rng.choice([-1, 0, 1], p=[0.2, 0.6, 0.2], size=60) for _ in range(1500)]
    assert sum(paired_difference(g == 1, g == -1).p_value <= 0.05 for g in draws) / 1500 <= 0.055


def test_bootstrap_coverage():
    def interval(values):
        return bootstrap_interval(values, np.mean, n=400, seed=0)

    assert 0.93 <= coverage(lambda rng: (rng.normal(1, 1, size=50),), interval, 1, 400) <= 0.97


# ------------------------------------------------------------------------------------------------ bootstrap


def test_bootstrap_of_the_mean_agrees_with_student():
    values = np.random.default_rng(2).normal(size=300)
    student, resampled = mean_interval(values), bootstrap_interval(values, np.mean, seed=1)
    assert resampled.value == pytest.approx(student.value)
    assert (resampled.low, resampled.high) == (
        pytest.approx(student.low, abs=0.02),
        pytest.approx(student.high, abs=0.02),
    )


def test_bootstrap_is_reproducible_and_follows_its_seed():
    values = np.random.default_rng(2).normal(size=30)
    first = bootstrap_interval(values, np.median, seed=1, n=300)
    assert first == bootstrap_interval(values, np.median, seed=1, n=300)
    assert first != bootstrap_interval(values, np.median, seed=2, n=300)


def test_bootstrap_resamples_whole_clusters():
    values, labels = correlated(np.random.default_rng(4))
    clustered = bootstrap_interval(values, np.mean, n=800, seed=0, clusters=labels.tolist())
    robust = mean_interval(values, clusters=labels.tolist())
    assert clustered.high - clustered.low == pytest.approx(robust.high - robust.low, rel=0.15)
    assert clustered.method == "bootstrap BCa, 800 resamples of 40 clusters"


def test_bootstrap_names_the_method_it_used():
    constant = bootstrap_interval([2.0] * 9, np.mean, seed=0)
    assert (constant.value, constant.low, constant.high) == (2.0, 2.0, 2.0)
    assert constant.method.startswith("bootstrap percentile")


def test_bootstrap_interval_holds_its_value():
    found = bootstrap_interval([1.0, 5, 2, 8, 3, 9], np.max, seed=0)
    assert found.low <= found.value <= found.high


# ------------------------------------------------------------------------------------------- unscored items


def test_unscored_items_are_counted():
    found = mean_interval([1, None, 2, math.nan, 3, 4])
    assert (found.value, found.n, found.missing) == (2.5, 4, 2)
    assert found.high == mean_interval([1, 2, 3, 4]).high
    assert "n = 4, 2 missing" in str(found)


def test_a_pair_needs_both_scores():
    found = paired_difference([1, None, 0, 1, 1], [0, 1, None, 0, 1])
    assert (found.value, found.n, found.missing) == (approx(2 / 3), 3, 2)
    assert found.method == "McNemar exact"


def test_share_counts_the_unparsed():
    found = share_interval([True, False, None, True, math.nan])
    assert (found.value, found.n, found.missing) == (approx(2 / 3), 3, 2)
    with pytest.raises(PluralignError, match="0 and 1 only"):
        share_interval([1, 0, 0.5])


def test_bootstrap_never_hands_nan_to_the_statistic():
    assert bootstrap_interval([1, None, 3, 5, 9], np.median, seed=0).missing == 1


def test_clusters_of_unscored_items_do_not_count():
    found = mean_interval([1, 2, 3, 6, None], clusters=["a", "a", "b", "b", None])
    assert (found.method, found.missing) == ("Student t, 2 clusters", 1)


@pytest.mark.parametrize("nothing", [[], [None, math.nan]])
def test_nothing_scored(nothing):
    for found in (
        mean_interval(nothing),
        share_interval(nothing),
        bootstrap_interval(nothing, np.mean, seed=0),
        paired_difference(nothing, nothing),
    ):
        assert math.isnan(found.value)
        assert math.isnan(found.low)
        assert (found.n, found.missing) == (0, len(nothing))
        assert str(found).startswith("– (n = 0")


def test_one_item_has_no_interval():
    found = mean_interval([5])
    assert (found.value, found.has_interval, str(found)) == (5.0, False, "5.00 (n = 1)")
    assert not mean_interval([5, 6], clusters=["a", "a"]).has_interval


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_interval([1, math.inf]), "item 1 is inf"),
        (lambda: mean_interval([1, 2], level=95), "between 0 and 1, not 95"),
        (lambda: mean_interval([1, 2], clusters=["a"]), "2 items but 1 cluster labels"),
        (lambda: mean_interval([1, 2], clusters=["a", None]), "no cluster label"),
        (lambda: paired_difference([1, 2], [1]), "found 2 and 1"),
        (lambda: proportion_interval(3, 2), "not 3 of 2"),
        (lambda: proportion_interval(0.5, 2), "whole counts"),
        (lambda: bootstrap_interval([1, 2], np.mean, n=10, seed=0), "at least 100 resamples"),
    ],
)
def test_impossible_requests_are_one_clear_line(call, message):
    with pytest.raises(PluralignError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------- printing


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(0.612, 0.582, 0.642, 322), ".61 ± .03 (n = 322)"),
        (Estimate(0.98, 0.895, 0.996, 50), ".98 [.90, 1.00] (n = 50)"),
        (Estimate(0.0, 0.0, 0.12, 1290), ".00 [.00, .12] (n = 1,290)"),
        (Estimate(1.0, 1.0, 1.0, 9), "1.00 ± .00 (n = 9)"),
        (Estimate(0.6123, 0.6093, 0.6153, 100_000), ".612 ± .003 (n = 100,000)"),
        (Estimate(-1.5, -1.9, -1.1, 40), "-1.50 ± .40 (n = 40)"),
        (Estimate(-0.001, -0.051, 0.049, 40), ".00 ± .05 (n = 40)"),
        (Estimate(412.2, 399.9, 424.5, 40), "412 ± 12 (n = 40)"),
        (Estimate(0.09, 0.05, 0.13, 322, p_value=0.0031), "+.09 ± .04 (n = 322, p = .003)"),
        (Estimate(-0.09, -0.13, -0.05, 322, p_value=1e-9), "-.09 ± .04 (n = 322, p < .001)"),
        (Estimate(0.61, 0.58, 0.64, 322, level=0.9), ".61 ± .03 (n = 322, 90 %)"),
    ],
)
def test_printed_form(estimate, text):
    assert str(estimate) == text


def test_round_trip_through_json():
    for estimate in (paired_difference([1, 0, None, 1], [0, 0, 1, 1]), proportion_interval(3, 9), mean_interval([4.0])):
        row = json.loads(json.dumps(estimate.as_dict(), allow_nan=False))
        assert str(Estimate.from_dict(row)) == str(estimate)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"value": 0.5, "low": 0.6, "high": 0.7, "n": 3}, "does not hold the value"),
        ({"value": "a", "n": 3}, '"value" is not a number'),
        ({"value": 0.5, "n": -3}, '"n" is not a count'),
        ({"value": 0.5, "n": 3, "level": 95}, '"level" must lie between 0 and 1'),
    ],
)
def test_impossible_rows_do_not_load(row, message):
    with pytest.raises(ValueError, match=message):
        Estimate.from_dict(row)
