"""Best-of-n: the table of KL, the unbiased estimator against enumeration and sampling, exact policies."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pluralign.errors import SettingsError
from pluralign.judging.best_of_n import (
    best_of_n_curve,
    best_of_n_distribution,
    best_of_n_kl,
    expected_best,
    selection_weights,
    soft_selection,
)


@pytest.mark.parametrize(
    ("n", "kl"), [(1, 0), (2, 0.193147), (4, 0.636294), (8, 1.204442), (16, 1.835089), (64, 3.174508)]
)
def test_kl_table(n, kl):
    assert best_of_n_kl(n) == pytest.approx(kl, abs=5e-7)


def test_estimator_by_hand_and_by_enumeration():
    assert expected_best([[1, 2, 3, 4]], 2)[0] == pytest.approx(10 / 3)
    rewards = [0.3, -1.0, 2.0, 2.0, 0.7, 1.1]
    for n in range(1, 7):
        all_of_them = [max(chosen) for chosen in itertools.combinations(rewards, n)]
        assert expected_best([rewards], n)[0] == pytest.approx(np.mean(all_of_them))
    assert expected_best([rewards], 1)[0] == pytest.approx(np.mean(rewards))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 200), st.data())
def test_selection_weights_are_those_of_the_formula(samples, data):
    n = data.draw(st.integers(1, samples))
    weights = selection_weights(samples, n)
    assert weights.sum() == pytest.approx(1)
    exact = [math.comb(i - 1, n - 1) / math.comb(samples, n) for i in range(1, samples + 1)]
    assert weights == pytest.approx(exact, abs=1e-12)


def test_estimator_against_sampling():
    """N = 40, n = 4: 100,000 draws of four know the mean to .004."""
    rng = np.random.default_rng(0)
    rewards = rng.normal(size=40)
    draws = np.argsort(rng.random((100_000, 40), dtype=np.float32), axis=1)[:, :4]
    assert expected_best([rewards], 4)[0] == pytest.approx(rewards[draws].max(1).mean(), abs=0.006)


def test_gold_and_win_rates_by_enumeration():
    proxy, gold = [0.1, 0.9, 0.9, 0.4], [3.0, 1.0, 2.0, 2.0]
    golds, wins = [], []
    for chosen in itertools.combinations(range(4), 2):
        best = max(chosen, key=lambda i: (proxy[i], -i))  # the first of equals
        golds.append(gold[best])
        others = [i for i in range(4) if i not in chosen]
        wins.append(np.mean([0.5 + 0.5 * np.sign(gold[best] - gold[i]) for i in others]))
    found = best_of_n_curve([proxy], [2], gold=[gold])[0]
    assert found.gold.value == pytest.approx(np.mean(golds))
    assert found.win_rate.value == pytest.approx(np.mean(wins))


@pytest.mark.parametrize("n", [1, 2, 4, 7])
def test_by_its_own_reward_it_wins_n_of_n_plus_one(n):
    rewards = np.random.default_rng(n).normal(size=(5, 8))
    found = best_of_n_curve(rewards, [n], gold=rewards)[0]
    assert found.win_rate.value == pytest.approx(n / (n + 1))


def test_curve_counts_prompts_that_lack_a_reward():
    rewards = np.random.default_rng(0).normal(size=(20, 16))
    rewards[3, 5] = np.nan
    curve = best_of_n_curve(rewards, [1, 4, 16], gold=np.zeros((20, 16)))
    assert [(p.n, p.proxy.n, p.proxy.missing) for p in curve] == [(1, 19, 1), (4, 19, 1), (16, 19, 1)]
    assert curve[0].proxy.value < curve[1].proxy.value < curve[2].proxy.value
    assert curve[2].win_rate is None  # no sample is left to win against
    assert curve[1].win_rate.value == pytest.approx(0.5)


def test_interval_over_prompts_covers():
    """Prompts differ; the best of 4 of standard normal rewards is 1.0294 above a prompt's mean."""
    hits, rng = 0, np.random.default_rng(3)
    for _ in range(400):
        rewards = rng.normal(size=(25, 1)) + rng.normal(size=(25, 8))
        found = best_of_n_curve(rewards, [4])[0].proxy
        hits += found.low <= 1.02938 <= found.high
    assert 0.93 <= hits / 400 <= 0.97


def test_tabular_policy():
    p, r = np.array([0.2, 0.3, 0.5]), np.array([1.0, 3.0, 2.0])
    # F: .2, .7, 1 in order of reward; squares .04, .49, 1
    assert best_of_n_distribution(p, r, 2).tolist() == pytest.approx([0.04, 0.51, 0.45])
    assert best_of_n_distribution(p, np.ones(3), 16) == pytest.approx(p)
    assert best_of_n_distribution(p, r, 1) == pytest.approx(p)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(0.01, 1), st.integers(0, 5)), min_size=2, max_size=8), st.integers(1, 20))
def test_kl_is_never_above_its_bound(rows, n):
    p = np.array([w for w, _ in rows])
    p /= p.sum()
    q = best_of_n_distribution(p, [r for _, r in rows], n)
    assert q.sum() == pytest.approx(1)
    kl = float(np.sum(np.where(q > 0, q * np.log(np.where(q > 0, q, 1) / p), 0)))
    assert -1e-9 <= kl <= best_of_n_kl(n) + 1e-9


def test_soft_selection():
    assert soft_selection([[0.0, math.log(3)]], 1.0).tolist() == [[pytest.approx(0.25), pytest.approx(0.75)]]
    assert soft_selection([[0.0, 1.0]], 1e-3)[0, 1] == pytest.approx(1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: best_of_n_kl(0), "best of 0"),
        (lambda: expected_best([[1, 2]], 3), "best of 3 cannot be told from 2"),
        (lambda: expected_best([1, 2], 1), "a table of prompts and samples"),
        (lambda: best_of_n_curve([[1, 2]], [1], gold=[[1]]), "both rewards"),
        (lambda: best_of_n_distribution([0.5, 0.6], [1, 2], 2), "add up to one"),
        (lambda: soft_selection([[1, 2]], 0), "above 0"),
    ],
)
def test_impossible_requests(call, message):
    with pytest.raises(SettingsError, match=message):
        call()
