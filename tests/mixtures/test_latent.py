"""Kinds of people and policies between them: EM and min-max regret by hand and in worlds whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pluralign.errors import PluralignError, SettingsError
from pluralign.mixtures.latent import (
    Fit,
    by_person,
    choice_loglik,
    clustering_accuracy,
    expectation_maximisation,
    marginal,
    pair_loglik,
    random_start,
    responsibilities,
    temperatures,
)
from pluralign.mixtures.linear import fit_types, weighted_logistic
from pluralign.mixtures.regret import minmax, pair_weights, regrets

LOGITS = np.array([[1.0, -1.0], [0.5, 0.1], [-0.2, 0.4]])  # three pairs of one person, under two kinds


def numbers(low: float, high: float, shape: tuple[int, ...]):
    return arrays(np.float64, shape, elements=st.floats(low, high))


# E-step


def test_responsibilities_by_hand() -> None:
    """sigma(1) sigma(.5) sigma(-.2) = .731059 * .622459 * .450166 = .204850; sigma(-1) sigma(.1) sigma(.4) = .268941 *
    .524979 * .598688 = .084528; .204850 / (.204850 + .084528) = .707898."""
    loglik = by_person(pair_loglik(LOGITS), [0, 0, 0], 1)
    assert np.exp(loglik[0]) == pytest.approx([0.204850, 0.084528], abs=1e-6)
    assert responsibilities(loglik, (0.5, 0.5))[0, 0] == pytest.approx(0.707898, abs=1e-6)
    assert marginal(loglik, (0.5, 0.5))[0] == pytest.approx(math.log((0.204850 + 0.084528) / 2), abs=1e-5)


def test_pairs_are_summed_not_averaged() -> None:
    """Ten times the same evidence is ten times as strong: odds (.204850 / .084528)^10."""
    loglik = by_person(pair_loglik(np.tile(LOGITS, (10, 1))), np.zeros(30, int), 1)
    odds = (0.2048499 / 0.0845279) ** 10
    assert responsibilities(loglik, (0.5, 0.5))[0, 0] == pytest.approx(odds / (1 + odds), rel=1e-4)


def test_a_temperature_flattens_towards_equal_shares() -> None:
    """At T the odds are their T-th root: sqrt(.204850 / .084528) = 1.556757, 1.556757 / 2.556757 = .608880."""
    loglik = by_person(pair_loglik(LOGITS), [0, 0, 0], 1)
    assert responsibilities(loglik, (0.5, 0.5), 2.0)[0, 0] == pytest.approx(0.608880, abs=1e-5)
    assert responsibilities(loglik, (0.5, 0.5), 1e9)[0] == pytest.approx([0.5, 0.5])
    with pytest.raises(SettingsError, match="above 0"):
        responsibilities(loglik, (0.5, 0.5), 0.0)
    assert temperatures(3, 4.0) == pytest.approx([4, 2, 1])
    assert temperatures(1) == [1.0]
    with pytest.raises(SettingsError, match="at 1 or above"):
        temperatures(3, 0.5)


@given(numbers(-1e4, 0, (4, 3)), numbers(0.01, 1, (3,)))
def test_responsibilities_are_shares_however_small_the_likelihoods(loglik, eta) -> None:
    gamma = responsibilities(loglik, eta / eta.sum())
    assert gamma.sum(1) == pytest.approx(np.ones(4))
    assert (gamma >= 0).all()
    assert np.isfinite(marginal(loglik, eta / eta.sum())).all()


def test_kinds_that_are_the_same_leave_everybody_at_eta() -> None:
    """Nothing tells them apart: gamma = eta, whatever a person said."""
    loglik = by_person(pair_loglik(np.repeat(LOGITS[:, :1], 2, 1)), [0, 1, 2], 3)
    assert responsibilities(loglik, (0.3, 0.7)) == pytest.approx(np.tile([0.3, 0.7], (3, 1)))


def test_a_choice_of_two_is_a_pair_and_of_three_is_luces() -> None:
    assert choice_loglik([[0.7, 0.2]]) == pytest.approx(pair_loglik([[0.5]])[0])
    assert math.exp(choice_loglik([math.log(2), 0.0, math.log(3)])) == pytest.approx(2 / 6)
    assert np.isfinite(choice_loglik([1e4, -1e4, 0.0]))


def test_a_pair_without_a_score_says_nothing() -> None:
    assert pair_loglik([[math.nan, 0.0]]).tolist() == [[0.0, -math.log(2)]]


# EM


def world(people: int, pairs: int, seed: int = 0, kinds: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(gaps (N, D), people, kinds of people): half want what the others do not, theta = +-(3, -3, 3, -3)."""
    rng = np.random.default_rng(seed)
    labels = np.arange(people) % kinds
    theta = np.array([[3.0, -3, 3, -3], [-3, 3, -3, 3]])[labels]
    who = np.repeat(np.arange(people), pairs)
    gaps = rng.normal(size=(people * pairs, 4))
    z = (gaps * theta[who]).sum(1)
    wins = rng.random(len(z)) < 1 / (1 + np.exp(-z))
    return np.where(wins[:, None], gaps, -gaps), who, labels


def test_two_kinds_are_told_apart() -> None:
    """200 people, 10 pairs each: everybody in the right cluster, and pairs as likely as under the truth."""
    gaps, who, labels = world(200, 10)
    theta, fit = fit_types(gaps, who, 2, rounds=15, restarts=2)
    assert clustering_accuracy(fit.gamma, labels.tolist()) == 1.0
    nll = -pair_loglik((gaps * theta[fit.gamma.argmax(1)[who]]).sum(1)).mean()
    truth = np.array([[3.0, -3, 3, -3], [-3, 3, -3, 3]])[labels]
    assert nll == pytest.approx(-pair_loglik((gaps * truth[who]).sum(1)).mean(), abs=0.02)
    assert fit.eta == pytest.approx([0.5, 0.5], abs=0.02)


def test_one_kind_is_right_about_half_of_opposed_people() -> None:
    gaps, who, _ = world(100, 10)
    theta, fit = fit_types(gaps, who, 1, rounds=2, restarts=1)
    assert ((gaps @ theta[0]) > 0).mean() == pytest.approx(0.5, abs=0.05)
    _, two = fit_types(gaps, who, 2, rounds=10, restarts=1)
    assert two.train > fit.train + 1


def test_one_pair_a_person_identifies_nothing() -> None:
    """Opposed people with one pair each: everybody stays at eta, and new people are no likelier under two kinds."""
    gaps, who, _ = world(400, 1)
    held = np.arange(400) % 4 == 3
    _, one = fit_types(gaps, who, 1, rounds=1, restarts=1, held=held.tolist())
    _, two = fit_types(gaps, who, 2, rounds=15, restarts=2, held=held.tolist())
    assert two.held_out <= one.held_out + 0.02
    assert two.gamma == pytest.approx(np.tile(two.eta, (400, 1)), abs=0.02)

    def maximise(_: int, gamma: np.ndarray) -> np.ndarray:
        theta = np.stack([weighted_logistic(gaps, gamma[who, k]) for k in range(2)])
        return by_person(pair_loglik(gaps @ theta.T), who, 400)

    stuck = expectation_maximisation(maximise, np.full((400, 2), 0.5), 3)
    assert stuck.gamma == pytest.approx(np.full((400, 2), 0.5), abs=1e-6)


def test_the_marginal_likelihood_never_falls_without_annealing() -> None:
    """Exact M-steps at T = 1: EM's guarantee (up to the ridge)."""
    gaps, who, _ = world(60, 5, seed=3)
    _, fit = fit_types(gaps, who, 2, rounds=10, restarts=1, anneal=1.0, penalty=1e-6)
    steps = np.diff([h["train"] for h in fit.history])
    assert (steps > -1e-4).all()


def test_held_out_people_shape_nothing_and_choose_the_restart() -> None:
    seen: list[np.ndarray] = []

    def maximise(_: int, gamma: np.ndarray) -> np.ndarray:
        seen.append(gamma)
        return np.log([[0.9, 0.1], [0.1, 0.9], [0.5, 0.5]])

    fit = expectation_maximisation(maximise, random_start(3, 2), 2, held=[False, False, True])
    assert all(gamma[2].tolist() == [0.0, 0.0] for gamma in seen)
    assert seen[0][:2].sum(1) == pytest.approx([1, 1])
    assert fit.held_out == pytest.approx(math.log(0.5))
    assert fit.chosen_by == fit.held_out
    assert Fit(fit.eta, fit.gamma, fit.loglik, -1.0, math.nan).chosen_by == -1.0
    with pytest.raises(SettingsError, match="not held out"):
        expectation_maximisation(maximise, random_start(3, 2), 2, held=[True] * 3)
    with pytest.raises(PluralignError, match="not finite"):
        expectation_maximisation(lambda *_: np.full((3, 2), np.nan), random_start(3, 2), 1)
    with pytest.raises(SettingsError, match="at least one round"):
        expectation_maximisation(maximise, random_start(3, 2), 0)


# Regret


def test_a_mixture_regrets_less_than_any_policy() -> None:
    """u = (1, 0, .55; 0, 1, .6): regrets (0, 1, .45; 1, 0, .4), so the third policy alone has .45. With q of it and
    1 - q of the first: .45 q = 1 - q + .4 q, q = 20/21, both kinds regret 3/7 = .428571."""
    r = regrets([[1, 0, 0.55], [0, 1, 0.6]])
    assert r.tolist() == [pytest.approx([0, 1, 0.45]), pytest.approx([1, 0, 0.4])]
    found = minmax(r)
    assert (found.single, found.single_worst) == (2, pytest.approx(0.45))
    assert found.worst == pytest.approx(3 / 7, abs=2e-3)
    assert found.worst < found.single_worst
    assert found.mixture == pytest.approx([1 / 21, 0, 20 / 21], abs=5e-3)
    assert found.worst - found.gap <= 3 / 7 + 1e-9


@settings(max_examples=20, deadline=None)
@given(numbers(0, 1, (3, 4)))
def test_multiplicative_weights_agree_with_the_linear_programme(utility) -> None:
    """min t with R p <= t, p on the simplex."""
    from scipy.optimize import linprog

    r = regrets(utility)
    kinds, policies = r.shape
    bound = np.hstack([r, -np.ones((kinds, 1))])
    exact = linprog([*[0] * policies, 1], bound, np.zeros(kinds), [[*[1] * policies, 0]], [1],
                    bounds=[*[(0, None)] * policies, (None, None)])  # fmt: skip
    found = minmax(r, rounds=2000)
    assert exact.fun - 1e-9 <= found.worst <= exact.fun + 0.1
    assert found.worst - found.gap <= exact.fun + 1e-9
    assert found.mixture.sum() == pytest.approx(1)


@given(numbers(0, 1, (2, 3)), numbers(-5, 5, (2, 1)))
def test_a_constant_of_a_kinds_utility_changes_no_regret(utility, constant) -> None:
    assert regrets(utility + constant) == pytest.approx(regrets(utility), abs=1e-9)


def test_the_weights_of_one_policy_by_hand() -> None:
    """Three pairs of two people, gamma (1, 0) with two pairs and (.5, .5) with one: kind 1's mean is 5/6, kind 2's 1/6.
    Under w = (1, 0): 6/5, 6/5, 3/5. Under w = (0, 1): 0, 0, 3. Under the shares themselves: 1, 1, 1."""
    gamma, people = [[1.0, 0.0], [0.5, 0.5]], [0, 0, 1]
    assert pair_weights(gamma, [1, 0], people) == pytest.approx([1.2, 1.2, 0.6])
    assert pair_weights(gamma, [0, 1], people) == pytest.approx([0, 0, 3])
    assert pair_weights(gamma, [5 / 6, 1 / 6], people) == pytest.approx([1, 1, 1])
    with pytest.raises(SettingsError, match="has no pairs"):
        pair_weights([[1.0, 0.0]], [0.5, 0.5], [0])


@pytest.mark.parametrize("wrong", [[[1.0, math.nan]], [1.0, 2.0], [[]]])
def test_tables_that_cannot_be_are_refused(wrong) -> None:
    with pytest.raises(SettingsError, match="table of finite numbers"):
        regrets(wrong)
    with pytest.raises(SettingsError, match="table of finite numbers"):
        minmax(wrong)
