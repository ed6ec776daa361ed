"""A-IPO's lemmas on the similarity term: what holds, under which assumption, and a case where each fails."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pluralign.objectives import OBJECTIVES
from pluralign.theory import intents
from pluralign.theory.tabular import Target

quick = settings(max_examples=60, deadline=None, derandomize=True)
seeds = st.integers(0, 2**31)
bases = st.floats(-5, 5)
gaps = st.floats(-1, 1).filter(lambda x: abs(x) > 1e-3)


def logit(q: float) -> float:
    return math.log(q / (1 - q))


def sigma(z: float) -> float:
    return float(np.exp(-intents.nll(np.array(z))))


# Lemma D.1, Corollaries D.1 and D.2


@quick
@given(bases, st.floats(0.01, 1), st.floats(1e-6, 10))
def test_lemma_d1(base, dsim, more) -> None:
    """dsim > 0: any lambda above (-base)+ / dsim makes the preference right."""
    least, most = intents.lambdas(base, dsim)
    assert least == pytest.approx(max(0.0, -base) / dsim)
    assert most == math.inf
    assert base + (least + more) * dsim > 0
    assert sigma(base + (least + more) * dsim) > 0.5
    if base < 0:  # and none below it does: the condition is necessary, too
        assert base + 0.999 * least * dsim < 0


def test_lemma_d1_by_hand() -> None:
    """base -0.3, dsim 0.2: lambda must exceed 1.5, three times the largest value that the paper sweeps."""
    assert intents.lambdas(-0.3, 0.2) == (pytest.approx(1.5), math.inf)
    assert sigma(-0.3 + 1.5 * 0.2) == pytest.approx(0.5)
    # a margin of 0.5 (D.1): (0.5 + 0.3) / 0.2 = 4; a preference of 0.8 (D.2): (ln 4 + 0.3) / 0.2 = 8.431472
    assert intents.lambdas(-0.3, 0.2, 0.5)[0] == pytest.approx(4.0)
    assert intents.lambdas(-0.3, 0.2, logit(0.8))[0] == pytest.approx(8.431472, abs=1e-6)
    assert sigma(-0.3 + 8.431472 * 0.2) == pytest.approx(0.8, abs=1e-6)


def test_where_dsim_is_negative_the_corollary_is_the_wrong_way_round() -> None:
    """base 1, dsim -0.5, margin 0.5: as printed lambda >= (0.5 - 1) / -0.5 = 1 is enough; 2 gives a margin of 0."""
    printed = (0.5 - 1.0) / -0.5
    assert printed == 1.0
    assert 1.0 + 2.0 * -0.5 == 0.0 < 0.5
    assert intents.lambdas(1.0, -0.5, 0.5) == (0.0, pytest.approx(1.0))  # it is the largest, not the least
    assert intents.lambdas(1.0, 0.0, 0.5) == (0.0, math.inf)
    assert math.isnan(intents.lambdas(-0.1, -0.5)[0])  # no lambda mends a wrong pair whose similarity is wrong, too
    assert math.isnan(intents.lambdas(-0.1, 0.0)[0])


@quick
@given(bases, st.floats(-1, 1), st.floats(-3, 3))
def test_the_range_of_lambda_is_exact(base, dsim, margin) -> None:
    least, most = intents.lambdas(base, dsim, margin)
    for lam in np.linspace(0, 40, 81):
        inside = not math.isnan(least) and least <= lam <= most
        z = base + lam * dsim - margin
        assert (z >= 0) == inside or abs(z) < 1e-9


def test_another_link_needs_one_half_at_nought() -> None:
    """Remark D.1: the lemma's 1/2 holds for a link with g(0) = 1/2. Gumbel's, exp(-exp(-t)), is below it at 0.1."""
    gumbel = lambda t: math.exp(-math.exp(-t))
    margin = -0.3 + 2.0 * 0.2  # lambda 2 > 1.5
    assert margin > 0
    assert gumbel(margin) == pytest.approx(0.404608, abs=1e-6)
    need = -math.log(math.log(2))  # g^-1(1/2): what has to stand in place of 0
    assert gumbel(need) == pytest.approx(0.5)


# Corollary D.3 and Lemma 5.2


def test_the_two_conventions() -> None:
    """gap 2, dsim .5, beta .1, lambda .2. Eq. 9: .1 * 2 + .2 * .5 = .3; D.3: 2 + (.2 / .1) * .5 = 3, ten times that."""
    gap, dsim = np.array(2.0), np.array(0.5)
    assert intents.log_odds(gap, dsim, 0.1, 0.2) == pytest.approx(0.3)
    assert intents.log_odds(gap, dsim, 0.1, 0.2, "rewards over beta") == pytest.approx(3.0)


@quick
@given(seeds, st.sampled_from([0.05, 0.1, 1.0]), st.sampled_from([0.1, 0.5, 2.0]))
def test_the_shift_is_lambda_dsim_or_that_over_beta(seed, beta, lam) -> None:
    rng = np.random.default_rng(seed)
    gap, dsim = rng.normal(size=20) * 5, rng.uniform(-1, 1, size=20)
    for convention, scale in (("rewards", 1.0), ("rewards over beta", 1 / beta)):
        shift = intents.log_odds(gap, dsim, beta, lam, convention) - intents.log_odds(gap, dsim, beta, 0, convention)
        assert shift == pytest.approx(lam * dsim * scale, abs=1e-9)
    # whichever it is: only gap + (lambda / beta) dsim can be told from pairs (Remark D.2)
    other = gap + dsim * lam / beta
    assert intents.log_odds(gap, dsim, beta, lam) == pytest.approx(beta * other, abs=1e-9)


@quick
@given(bases, gaps, st.floats(0.01, 5))
def test_lemma_52_and_the_first_half_of_theorem_53(base, dsim, lam) -> None:
    """dsim > 0 raises the probability and lowers the loss; dsim < 0 does the contrary."""
    up = sigma(base + lam * dsim) - sigma(base)
    assert (up > 0) == (dsim > 0) or abs(lam * dsim) < 1e-9
    assert (intents.nll(np.array(base + lam * dsim)) < intents.nll(np.array(base))) == (dsim > 0)


# Theorem 5.3, second half


def test_a_nonnegative_average_is_not_enough() -> None:
    """Two undecided pairs, dsim 1 and -0.8 (average 0.1): the loss is ln 2 at 0 and above it from lambda 0.49 on.

    At lambda = 5: (ln(1 + e^-5) + ln(1 + e^4)) / 2 = (0.006715 + 4.018150) / 2 = 2.012433.
    """
    base, dsim = np.zeros(2), np.array([1.0, -0.8])
    assert dsim.mean() == pytest.approx(0.1)
    assert intents.dataset_nll(base, dsim, 0.0) == pytest.approx(math.log(2))
    assert intents.dataset_nll(base, dsim, 5.0) == pytest.approx(2.012433, abs=1e-6)
    assert intents.slope(base, dsim, 0.0) == pytest.approx(-0.05)  # -(1 - 0.8) / 4: it does fall at first
    lam = intents.best_lambda(base, dsim)
    assert lam == pytest.approx(0.24495, abs=1e-5)
    assert intents.dataset_nll(base, dsim, 0.48) < math.log(2) < intents.dataset_nll(base, dsim, 0.5)
    assert intents.slope(base, dsim, lam) == pytest.approx(0, abs=1e-12)
    assert not intents.nonincreasing(dsim)


def test_it_may_grow_from_the_first_step() -> None:
    """A pair that is right (base 4, dsim 1) has no more to gain; one that is wrong (base -2, dsim -0.8) loses at once.

    -(sigma(-4) * 1 - sigma(2) * 0.8) / 2 = -(0.017986 - 0.704638) / 2 = 0.343326.
    """
    base, dsim = np.array([4.0, -2.0]), np.array([1.0, -0.8])
    assert intents.slope(base, dsim, 0.0) == pytest.approx(0.343326, abs=1e-6)
    assert intents.best_lambda(base, dsim) == 0.0


@quick
@given(seeds, st.floats(0, 3))
def test_what_decides_is_that_no_dsim_is_negative(seed, lam) -> None:
    rng = np.random.default_rng(seed)
    base, dsim = 2 * rng.normal(size=12), rng.uniform(-0.5, 1, size=12)
    h = 1e-5
    numeric = (intents.dataset_nll(base, dsim, lam + h) - intents.dataset_nll(base, dsim, lam - h)) / (2 * h)
    assert intents.slope(base, dsim, lam) == pytest.approx(numeric, abs=1e-7)
    grid = np.array([intents.dataset_nll(base, dsim, x) for x in np.linspace(0, 60, 61)])
    assert (np.diff(grid, 2) >= -1e-9).all()  # convex
    assert intents.nonincreasing(dsim) == (dsim.min() >= 0)
    assert (np.diff(grid) <= 1e-12).all() or dsim.min() < 0
    if dsim.min() < -0.05:
        assert grid[-1] > grid.min()
    best = intents.best_lambda(base, dsim, 60.0)
    assert intents.dataset_nll(base, dsim, best) <= grid.min() + 1e-12
    assert (np.diff(np.array([intents.dataset_nll(base, abs(dsim), x) for x in range(20)])) <= 0).all()


# Theorem 5.1


def world(seed: int, n: int = 5):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(3, n)), rng.random((3, n)), 0.8 * rng.dirichlet(np.ones(n), size=3) + 0.2 / n


@quick
@given(seeds, st.sampled_from([0.1, 1.0]), st.sampled_from([0.0, 0.5, 3.0]))
def test_theorem_51(seed, beta, lam) -> None:
    """The representation is exact, and its baseline leaves every likelihood as it is."""
    reward, sim, reference = world(seed)
    policy, baseline = intents.tilted(reward, sim, reference, beta, lam)
    assert policy.sum(-1) == pytest.approx(1)
    again = beta * np.log(policy / reference) + lam * sim + baseline[:, None]
    assert again == pytest.approx(reward, abs=1e-9)
    order = np.random.default_rng(seed).permutation(reward.shape[1]).tolist()
    for i in range(3):
        bare = beta * np.log(policy[i] / reference[i]) + lam * sim[i]
        assert intents.plackett_luce(bare, order) == pytest.approx(intents.plackett_luce(reward[i], order), abs=1e-9)


def test_plackett_luce_of_two_is_bradley_terry() -> None:
    assert intents.plackett_luce(np.array([1.0, 0.0]), [0, 1]) == pytest.approx(math.log(sigma(1.0)))
    assert intents.plackett_luce(np.array([1.0, 0.0]), [1, 0]) == pytest.approx(math.log(sigma(-1.0)))
    equal = sum(math.exp(intents.plackett_luce(np.zeros(3), o)) for o in ([0, 1, 2], [0, 2, 1]))
    assert equal == pytest.approx(2 / 6)


def test_without_full_support_there_is_no_representation() -> None:
    """A response that the reference never gives has the log-ratio of 0 to 0, whatever its reward."""
    reference = np.array([[0.5, 0.5, 0.0]])
    with np.errstate(divide="ignore", invalid="ignore"):
        policy, _ = intents.tilted(np.array([[0.0, 1.0, 9.0]]), np.zeros((1, 3)), reference, 1.0, 0.0)
        assert policy[0, 2] == 0.0
        assert np.isnan(np.log(policy[0, 2] / reference[0, 2]))


def test_the_fit_is_the_tilted_policy() -> None:
    """Eq. 10 with known intents, minimised numerically: the policy learns the reward less lambda sim."""
    reward, sim, reference = (a[:1] for a in world(3, 4))
    for lam in (0.0, 1.0):
        fitted = intents.fit_pairs(reward, sim, reference, 1.0, lam)
        assert fitted == pytest.approx(intents.tilted(reward, sim, reference, 1.0, lam)[0], abs=1e-6)


def test_eq_10_is_dpo_with_an_offset() -> None:
    """gamma 0 and one intent: the registered `dpo_offset` with the margin -lambda dsim."""
    r = {
        n: Target(torch.tensor([v]), torch.ones(1))
        for n, v in zip(("w", "l", "ref_w", "ref_l"), (-10.0, -14.0, -12.0, -13.0), strict=True)
    }
    dsim, lam = 0.4, 0.5
    out = OBJECTIVES["dpo_offset"]({**r, "margin": torch.tensor([-lam * dsim])}, beta=0.1)
    assert float(out.loss) == pytest.approx(
        float(intents.nll(intents.log_odds(np.array(3.0), np.array(dsim), 0.1, lam))), abs=1e-6
    )


@quick
@given(seeds, st.sampled_from([0.1, 1.0]), st.sampled_from([0.0, 0.5, 3.0]))
def test_the_more_the_similarity_says_the_less_the_policy_does(seed, beta, lam) -> None:
    """d E_pi[sim] / d lambda = -Var_pi(sim) / beta: for fixed similarities a larger lambda never helps the policy."""
    reward, sim, reference = world(seed)
    h = 1e-5
    mean = lambda x: (intents.tilted(reward, sim, reference, beta, x)[0] * sim).sum(-1)
    policy, _ = intents.tilted(reward, sim, reference, beta, lam)
    found = intents.sim_slope(policy, sim, beta)
    assert found == pytest.approx((mean(lam + h) - mean(lam - h)) / (2 * h), abs=1e-5)
    assert (found <= 0).all()


# Lemma 5.1 and Theorem 5.2


@quick
@given(seeds)
def test_lemma_51(seed) -> None:
    """Knowing the intent never raises the Bayes risk: log loss, 0/1 loss, or any other."""
    rng = np.random.default_rng(seed)
    joint = rng.dirichlet(np.ones(24)).reshape(2, 4, 3)
    for loss in (None, 1 - np.eye(3), rng.random((3, 5))):
        assert intents.gain(joint, loss) >= -1e-12


def test_lemma_51_by_hand() -> None:
    """One prompt, two intents as likely, who want the contrary: .9 and .1 for y_w. Unknown intent: ln 2 and 1/2 wrong.
    Known: H(.9) = .325083 nats, and .1 wrong."""
    joint = np.array([[[0.45, 0.05], [0.05, 0.45]]])
    assert intents.gain(joint) == pytest.approx(math.log(2) - 0.325083, abs=1e-6)
    assert intents.gain(joint, 1 - np.eye(2)) == pytest.approx(0.4)
    same = np.array([[[0.45, 0.05], [0.45, 0.05]]])  # intents that want the same: nothing gained
    assert intents.gain(same) == pytest.approx(0)


def test_an_intent_that_says_nothing_costs_once_preferences_are_estimated() -> None:
    """20 labels of a preference of .8 in one cell, or 10 in each of two intents that do not matter.

    n = 1, p = .8: P(k = 1) .8 with (2/3, 1/3), .2 with (1/3, 2/3); .68 ln 1.5 + .32 ln 3 = .627272.
    """
    one = 0.8 * (-0.8 * math.log(2 / 3) - 0.2 * math.log(1 / 3)) + 0.2 * (
        -0.8 * math.log(1 / 3) - 0.2 * math.log(2 / 3)
    )
    assert intents.estimated_log_loss(0.8, 1) == pytest.approx(one, abs=1e-12) == pytest.approx(0.627272, abs=1e-6)
    assert intents.estimated_log_loss(0.8, 10) > intents.estimated_log_loss(0.8, 20)
    entropy = -0.8 * math.log(0.8) - 0.2 * math.log(0.2)
    assert intents.estimated_log_loss(0.8, 20) > entropy
    assert intents.estimated_log_loss(0.8, 900) == pytest.approx(entropy, abs=1e-3)
