"""Bradley-Terry with covariates: fixtures of Search Arena, odds by hand, recovery of known strengths, coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pluralign.errors import PluralignError, SettingsError
from pluralign.judging.logistic import fit_logistic, hessian_covariance, sandwich_covariance
from pluralign.judging.strengths import fit_strengths, ratio_difference

DECADE = math.log(10)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def drawn(rng, names, theta, n, beta=0.0, position=0.0, confounded=0.0):
    """Battles of random pairs: first, second, outcomes, covariate (first minus second)."""
    i = rng.integers(len(names), size=n)
    j = (i + rng.integers(1, len(names), size=n)) % len(names)
    x = rng.normal(size=n) + confounded * (theta[i] - theta[j])
    p = sigmoid(DECADE * (theta[i] - theta[j]) + beta * x + position)
    y = (rng.random(n) < p).astype(float)
    return [names[k] for k in i], [names[k] for k in j], y, x


# --- the solver ----------------------------------------------------------------------------------------------------


def test_one_parameter_is_the_log_odds():
    # 3 of 4: theta = ln 3; curvature 4 * 3/16 = 3/4, so the variance is 4/3. Scores are .25 three times and -.75: their
    # squares add up to .75, the sandwich is (4/3)^2 * .75 * 4/3 = 16/9
    x, y = np.ones((4, 1)), np.array([1.0, 1, 1, 0])
    fit = fit_logistic(x, y)
    assert fit.converged
    assert fit.coefficients[0] == pytest.approx(math.log(3))
    assert hessian_covariance(x, None, fit.coefficients)[0, 0] == pytest.approx(4 / 3)
    assert sandwich_covariance(x, y, None, fit.coefficients, None)[0, 0] == pytest.approx(16 / 9)
    pairs = np.array([0, 0, 1, 1])  # cluster scores .5 and -.5: (4/3)^2 * .5 * 2
    assert sandwich_covariance(x, y, None, fit.coefficients, pairs)[0, 0] == pytest.approx(16 / 9)


def test_a_weight_is_a_repeated_row():
    rng = np.random.default_rng(0)
    x, y, w = rng.normal(size=(30, 3)), rng.random(30), rng.integers(0, 4, 30)
    one = fit_logistic(x, y, w.astype(float)).coefficients
    other = fit_logistic(np.repeat(x, w, axis=0), np.repeat(y, w)).coefficients
    assert one == pytest.approx(other)


def test_penalised_fit_has_no_gradient():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(20, 2)), rng.random(20)
    theta = fit_logistic(x, y, l2=0.7).coefficients
    assert x.T @ (sigmoid(x @ theta) - y) + 0.7 * theta == pytest.approx(np.zeros(2), abs=1e-7)


def test_separated_rows_do_not_converge():
    assert not fit_logistic(np.array([[1.0], [2.0], [-1.0]]), np.array([1.0, 1, 0])).converged
    with pytest.raises(PluralignError, match="between 0 and 1"):
        fit_logistic(np.ones((1, 1)), np.array([2.0]))


# --- ratings -------------------------------------------------------------------------------------------------------


def test_two_systems_by_hand():
    # a wins 2, ties 2, loses 0 against b: share .75, so 400 log10(3) = 190.8485 points above the anchor
    found = fit_strengths(["a", "a", "b", "b"], ["b", "b", "a", "a"], [1, 0.5, 0.5, 0], anchor="b")
    assert found.ratings["a"].value == pytest.approx(1000 + 400 * math.log10(3))
    assert (found.ratings["b"].value, found.ratings["b"].low) == (1000, 1000)
    assert found.beats_anchor["a"].value == pytest.approx(0.75)
    assert found.probability("a", "b") == pytest.approx(0.75)
    assert (found.battles, found.ties, found.ratings["a"].n) == (4, 2, 4)


def test_odds_of_the_specification():
    # Search Arena: gap .1 (in units of 400), x .5, beta .334: logit ln10 * .1 + .5 * .334 = .3972585, P .5980287
    logit = DECADE * 0.1 + 0.5 * 0.334
    assert (logit, sigmoid(logit)) == (pytest.approx(0.397259, abs=1e-6), pytest.approx(0.598029, abs=1e-6))
    # and a fit to the probabilities themselves finds them again
    names, theta = ["a", "b", "c"], {"a": 0.1, "b": 0.0, "c": -0.2}
    first, second = ["a", "a", "b", "b", "c", "c"] * 2, ["b", "c", "c", "a", "a", "b"] * 2
    x = np.array([0.5, -1, 0.3, 1, 0.2, -0.4, -0.5, 1, -0.3, -1, -0.2, 0.4])
    p = [sigmoid(DECADE * (theta[f] - theta[s]) + 0.334 * v) for f, s, v in zip(first, second, x, strict=True)]
    found = fit_strengths(first, second, p, anchor="b", covariates={"x": x}, centre=False)
    assert found.effects["x"].value / found.spread["x"] == pytest.approx(0.334)
    for name in names:
        assert found.ratings[name].value == pytest.approx(1000 + 400 * theta[name])


def test_position_is_told_from_strength():
    # a beats b from both places with odds 3 * 2 = 6 (first) and 3 / 2 (second): strength odds 3, position odds 2
    found = fit_strengths(["a", "b"], ["b", "a"], [6 / 7, 1 - 1.5 / 2.5], anchor="b", position=True, interval="hessian")
    assert found.probability("a", "b") == pytest.approx(0.75)
    assert found.effects["position"].value == pytest.approx(math.log(2))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.booleans(), min_size=60, max_size=60))
def test_naming_the_other_system_first_changes_nothing(flips):
    rng = np.random.default_rng(4)
    first, second, y, x = drawn(rng, ["a", "b", "c"], np.array([0.1, 0, -0.1]), 60, beta=0.3)
    turned = [
        (s, f, 1 - o, -v) if flip else (f, s, o, v) for f, s, o, v, flip in zip(first, second, y, x, flips, strict=True)
    ]
    f, s, o, v = (list(c) for c in zip(*turned, strict=True))
    # the sd of a covariate depends on which way round it stands, and what it is worth in all does not
    one = fit_strengths(first, second, y, anchor="a", covariates={"x": x}, centre=False)
    other = fit_strengths(f, s, o, anchor="a", covariates={"x": v}, centre=False)
    assert other.effects["x"].value / other.spread["x"] == pytest.approx(one.effects["x"].value / one.spread["x"])
    for name in "abc":
        assert other.ratings[name].value == pytest.approx(one.ratings[name].value)
        assert other.ratings[name].low == pytest.approx(one.ratings[name].low)


def test_turning_every_battle_round_changes_nothing_even_centred():
    rng = np.random.default_rng(4)
    first, second, y, x = drawn(rng, ["a", "b", "c"], np.array([0.1, 0, -0.1]), 200, beta=0.3)
    one = fit_strengths(first, second, y, anchor="a", covariates={"x": x + 1}, l2=0.5)
    other = fit_strengths(second, first, 1 - y, anchor="a", covariates={"x": -x - 1}, l2=0.5)
    assert other.effects["x"].value == pytest.approx(one.effects["x"].value)
    assert other.ratings["c"].value == pytest.approx(one.ratings["c"].value)


def test_confounded_covariate_is_recovered_and_leaving_it_out_inflates_strengths():
    """Search Arena's simulation: 5 systems, 20,000 battles, 8 seeds, beta .33, stronger systems have more of x."""
    names, theta = list("abcde"), np.array([0.4, 0.2, 0.0, -0.2, -0.4])
    betas, inflation = [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        first, second, y, x = drawn(rng, names, theta, 20_000, beta=0.33, confounded=0.75)
        full = fit_strengths(first, second, y, anchor="c", covariates={"x": x}, centre=False, interval="hessian")
        bare = fit_strengths(first, second, y, anchor="c", interval="hessian")
        betas.append(full.effects["x"].value / full.spread["x"])
        got = [(full.ratings[name].value - 1000) / 400 for name in names]
        assert got == pytest.approx(theta, abs=0.06)
        width = [s.ratings["a"].value - s.ratings["e"].value for s in (bare, full)]
        inflation.append(width[0] / width[1] - 1)
    assert all(0.28 <= beta <= 0.38 for beta in betas)
    assert np.mean(betas) == pytest.approx(0.33, abs=0.02)
    assert 0.06 <= np.mean(inflation) <= 0.16


def test_the_same_optimum_as_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(2)
    names = ["a", "b", "c"]
    first, second, y, _ = drawn(rng, names, np.array([0.2, 0, -0.2]), 300)
    x = np.array([[(f == n) - (s == n) for n in names] for f, s in zip(first, second, strict=True)]) * DECADE
    theirs = LogisticRegression(C=1 / 0.5, fit_intercept=False, tol=1e-10, max_iter=1000).fit(x, y).coef_[0]
    ours = fit_strengths(first, second, y, anchor="b", l2=0.5)
    assert (ours.ratings["a"].value - 1000) / 400 == pytest.approx(theirs[0] - theirs[1], abs=1e-5)


# --- intervals -----------------------------------------------------------------------------------------------------


def test_intervals_cover_the_true_rating():
    names, theta = ["a", "b", "c"], np.array([0.25, 0.0, -0.15])
    hits, widths = 0, []
    for seed in range(300):
        first, second, y, _ = drawn(np.random.default_rng(seed), names, theta, 150)
        found = fit_strengths(first, second, y, anchor="b").ratings["a"]
        hits += found.low <= 1100 <= found.high
        if seed % 6 == 0:  # where the model is true, its curvature says the same
            plain = fit_strengths(first, second, y, anchor="b", interval="hessian").ratings["a"]
            widths.append((plain.high - plain.low) / (found.high - found.low))
    assert 0.93 <= hits / 300 <= 0.97
    assert np.mean(widths) == pytest.approx(1, abs=0.02)


def test_only_clustered_intervals_know_that_battles_are_copies():
    names, theta = ["a", "b", "c"], np.array([0.2, 0.0, -0.2])
    first, second, y, _ = drawn(np.random.default_rng(1), names, theta, 120)
    once = fit_strengths(first, second, y, anchor="b").ratings["a"]
    prompts = list(range(120)) * 4
    copies = (first * 4, second * 4, np.tile(y, 4))
    robust = fit_strengths(*copies, anchor="b", clusters=prompts).ratings["a"]
    naive = fit_strengths(*copies, anchor="b").ratings["a"]
    assert robust.high - robust.low == pytest.approx(once.high - once.low)
    assert naive.high - naive.low < 0.55 * (once.high - once.low)
    drawn_again = fit_strengths(*copies, anchor="b", clusters=prompts, interval="bootstrap", resamples=300).ratings["a"]
    assert drawn_again.high - drawn_again.low == pytest.approx(once.high - once.low, rel=0.2)
    assert drawn_again.method == "Bradley-Terry, bootstrap percentile, 300 resamples, 120 clusters"


def test_bootstrap_is_seeded_and_near_the_sandwich():
    first, second, y, x = drawn(np.random.default_rng(3), ["a", "b", "c"], np.array([0.2, 0, -0.2]), 400, beta=0.3)
    options = {"anchor": "b", "covariates": {"x": x}}
    one = fit_strengths(first, second, y, interval="bootstrap", resamples=300, seed=5, **options)
    assert one == fit_strengths(first, second, y, interval="bootstrap", resamples=300, seed=5, **options)
    robust = fit_strengths(first, second, y, **options)
    for table in ("ratings", "effects"):
        key = "a" if table == "ratings" else "x"
        width = [e.high - e.low for e in (getattr(one, table)[key], getattr(robust, table)[key])]
        assert width[0] == pytest.approx(width[1], rel=0.2)


# --- what cannot be fitted -----------------------------------------------------------------------------------------


def test_averages_stay_averages():
    assert ratio_difference([1.5, 0], [0.5, 0]).tolist() == [pytest.approx(1 / 3), 0.0]
    assert ratio_difference([0], [0], plus=0).tolist() == [0.0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit_strengths(["a"], ["b"], [1], anchor="b"), "no finite optimum"),
        (lambda: fit_strengths(["a", "c"], ["b", "d"], [0.5, 0.5], anchor="b"), "2 groups that never meet"),
        (lambda: fit_strengths(["a"], ["b"], [None], anchor="b"), "no battle was judged"),
        (lambda: fit_strengths(["a"], ["b"], [0.5], anchor="bb"), 'anchor "bb" fought no battle. Did you mean "b"'),
        (lambda: fit_strengths(["a"], ["a"], [0.5], anchor="a"), "fights itself"),
        (lambda: fit_strengths(["a"], ["b"], [3], anchor="a"), "a share in between"),
        (lambda: fit_strengths(["a"] * 2, ["b"] * 2, [0, 1], anchor="a", covariates={"x": [1, 1]}), "never changes"),
        (lambda: fit_strengths(["a"] * 2, ["b"] * 2, [0, 1], anchor="a", covariates={"x": [1]}), "not one value for"),
        (lambda: fit_strengths(["a"] * 2, ["b"] * 2, [0, 1], anchor="a", covariates={"x": [1, math.nan]}), "not known"),
        (lambda: fit_strengths(["a"] * 2, ["b"] * 2, [0, 1], anchor="a", interval="wald"), "an interval is"),
        (lambda: fit_strengths(["a"] * 2, ["b"] * 2, [0, 1], anchor="a").probability("a", "z"), "no battles of"),
    ],
)  # fmt: skip
def test_impossible_requests_are_one_clear_line(call, message):
    with pytest.raises(SettingsError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_penalty_makes_an_undefeated_system_finite_and_unread_battles_are_counted():
    # thetas +-t, and 2 log(1 + exp(-2 ln10 t)) + .25 * 2 t^2 is lowest where 4 ln10 sigma(-2 ln10 t) = t: t = .58451
    found = fit_strengths(["a", "a", "a"], ["b", "b", "b"], [1, 1, None], anchor="b", l2=0.5, interval="hessian")
    t = (found.ratings["a"].value - 1000) / 800
    assert t == pytest.approx(0.58451, abs=1e-5)
    assert 4 * DECADE * sigmoid(-2 * DECADE * t) == pytest.approx(t)
    assert (found.battles, found.missing) == (2, 1)


def test_one_cluster_gives_no_interval():
    assert not fit_strengths(["a"] * 3, ["b"] * 3, [1, 0, 1], anchor="b", clusters=[0, 0, 0]).ratings["a"].has_interval
