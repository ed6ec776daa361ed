"""Win rates: hand-worked values, exact coverage of the interval with ties, pairing by prompt."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pluralign.errors import PluralignError
from pluralign.judging.statistics import mean_interval, paired_difference, proportion_interval
from pluralign.judging.win_rates import compare_win_rates, tied_proportion_interval, win_rate


def test_ties_count_half_and_what_was_not_read_is_counted():
    found = win_rate([1, 1, 1, 0.5, 0, None, math.nan])
    assert (found.rate.value, found.rate.n, found.rate.missing) == (0.7, 5, 2)
    assert (found.wins, found.ties, found.losses) == (3, 1, 1)
    assert (found.decided.value, found.decided.n) == (0.75, 4)


def test_without_ties_it_is_wilson():
    found, wilson = win_rate([1] * 8 + [0] * 2).rate, proportion_interval(8, 10)
    assert (found.low, found.high, found.method) == (wilson.low, wilson.high, "Wilson")


def test_interval_with_ties_by_hand():
    # 4 wins, 2 ties, 4 losses: m = .5, z^2 = 3.8414588, t = 2 / 13.8414588 = .1444935; the centre is
    # (2 n m + z^2) / 2 (n + z^2) = .5. Root: 13.8414588^2 - 4 * 13.8414588 * (2.5 + 3.8414588 * .0361234)
    # = 191.5859817 - 55.3658352 * 2.6387665 = 45.4887, of which 6.74453 / (2 * 13.8414588) = .243635
    found = tied_proportion_interval(4, 2, 4)
    assert (found.low, found.high) == (pytest.approx(0.5 - 0.243635, abs=2e-5), pytest.approx(0.5 + 0.243635, abs=2e-5))
    assert found.high - found.low < 2 * 0.263  # ties narrow it: Wilson for 5 of 10 is +- .2634


def test_all_ties_is_no_certainty():
    found = tied_proportion_interval(0, 3, 0)
    assert found.value == 0.5
    assert found.high - found.low > 0.3


@pytest.mark.parametrize("tie", [0.1, 0.3, 0.6])
def test_coverage_with_ties_is_exactly_summed(tie: float):
    """All trinomial counts of 40 comparisons, over a range of true rates."""
    from scipy.stats import multinomial

    n = 40
    counts = np.array([(w, t, n - w - t) for w in range(n + 1) for t in range(n + 1 - w)])
    ends = [tied_proportion_interval(*c) for c in counts.tolist()]
    low, high = np.array([e.low for e in ends]), np.array([e.high for e in ends])
    covered = []
    for rate in np.linspace(tie / 2 + 0.04, 1 - tie / 2 - 0.04, 9):
        p = [rate - tie / 2, tie, 1 - rate - tie / 2]
        covered.append(float(multinomial.pmf(counts, n, p)[(low <= rate) & (rate <= high)].sum()))
    assert 0.94 <= np.mean(covered) <= 0.97
    assert min(covered) >= 0.925


def test_graded_shares_and_clusters_take_the_intervals_of_means():
    shares = [0.9, 0.2, 0.7, 0.4]
    assert win_rate(shares).rate.high == pytest.approx(min(1.0, mean_interval(shares).high))
    labels = ["a", "a", "b", "b"]
    clustered = win_rate([1, 1, 0, 0.5], clusters=labels).rate
    assert clustered.method == "Student t, 2 clusters"
    assert (clustered.low, clustered.high) == (0.0, 1.0)  # 1 degree of freedom: cut to what a rate can be


def test_two_systems_on_the_same_prompts():
    first = {"p1": 1, "p2": 1, "p3": 0, "p4": None, "p5": 1}
    second = {"p1": 0, "p2": 1, "p3": 0, "p4": 1, "p6": 1}
    found = compare_win_rates(first, second)
    assert (found.n, found.missing) == (3, 3)  # p4 unread, p5 and p6 judged for one alone
    assert found == paired_difference([1, 1, 0, None, 1, None], [0, 1, 0, 1, None, 1])
    assert compare_win_rates(second, first).value == pytest.approx(-found.value)
    with pytest.raises(PluralignError, match="different prompts"):
        compare_win_rates({"a": 1}, {"b": 1})


def test_nothing_read_and_impossible_scores():
    assert math.isnan(win_rate([None, None]).rate.value)
    with pytest.raises(PluralignError, match="a score is 1"):
        win_rate([2.0, 1.0])
