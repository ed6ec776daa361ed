"""A-IPO's bounds: Eq. 3, 9 and 10, the intention loss of Appendix E, and the cases of Appendix B.1."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pluralign.theory import intents_bounds as bounds

quick = settings(max_examples=80, deadline=None, derandomize=True)
seeds = st.integers(0, 2**31)
LN2 = math.log(2)


def drawn(seed: int, n: int = 4):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(n)), 1 / (1 + np.exp(-3 * rng.normal(size=n)))


# The ELBO


@quick
@given(seeds)
def test_eq_3_bounds_the_likelihood_under_the_prior_and_is_tight_at_the_posterior(seed) -> None:
    q, prior, p = drawn(seed)
    whole = bounds.log_mixture(prior, p)
    assert bounds.elbo(q, prior, p) <= whole + 1e-12
    assert bounds.elbo(bounds.posterior(prior, p), prior, p) == pytest.approx(whole, abs=1e-12)
    assert whole - bounds.elbo(q, prior, p) == pytest.approx(bounds.kl(q, bounds.posterior(prior, p)), abs=1e-9)


@quick
@given(seeds, st.floats(0, 3))
def test_eq_9_bounds_the_likelihood_under_q(seed, gamma) -> None:
    """log E_q[sigma] >= E_q[log sigma]: no KL is needed there, and any gamma >= 0 keeps it a bound."""
    q, prior, p = drawn(seed)
    assert bounds.mean_log(q, p) <= bounds.log_mixture(q, p) + 1e-12
    assert bounds.elbo(q, prior, p, gamma) <= bounds.log_mixture(q, p) + 1e-12
    if gamma >= 1:
        assert bounds.elbo(q, prior, p, gamma) <= bounds.log_mixture(prior, p) + 1e-12


def test_without_the_whole_kl_it_is_no_bound_under_the_prior() -> None:
    """Two intents, sigma .9 and .1, uniform prior: log .5 = -.693147. q on the first: log .9 = -.105361, above it.

    With gamma .01 (the paper's larger value): -.105361 - .01 ln 2 = -.112292, still above. With gamma 1: -.798508.
    """
    q, prior, p = np.array([1.0, 0.0]), np.array([0.5, 0.5]), np.array([0.9, 0.1])
    assert bounds.log_mixture(prior, p) == pytest.approx(-LN2)
    assert bounds.mean_log(q, p) == pytest.approx(-0.105361, abs=1e-6)
    assert bounds.elbo(q, prior, p, 0.01) == pytest.approx(-0.112292, abs=1e-6)
    assert bounds.elbo(q, prior, p) == pytest.approx(-0.798508, abs=1e-6)
    assert bounds.log_mixture(q, p) == bounds.mean_log(q, p)  # of its own mixture it is one, here an equality


def test_the_posterior_depends_on_the_pair() -> None:
    """What makes Eq. 3 tight turns round with the labels; q(I | x) does not see them."""
    prior, p = np.array([0.5, 0.5]), np.array([0.9, 0.1])
    assert bounds.posterior(prior, p).tolist() == pytest.approx([0.9, 0.1])
    assert bounds.posterior(prior, 1 - p).tolist() == pytest.approx([0.1, 0.9])


# Appendix E


@quick
@given(seeds)
def test_the_loss_at_the_mean_is_a_lower_bound(seed) -> None:
    rng = np.random.default_rng(seed)
    q, p = rng.dirichlet(np.ones(3)), rng.uniform(0.01, 0.99, size=(3, 4))
    s = (rng.random(4) < 0.5).astype(np.float64)
    assert bounds.bce_at_mean(q, p, s) <= bounds.expected_bce(q, p, s) + 1e-12
    assert bounds.exact_label_nll(q, p, s) <= bounds.expected_bce(q, p, s) + 1e-12
    same = np.repeat(p[:1], 3, axis=0)  # every intent predicts the same: all are equal
    assert bounds.bce_at_mean(q, same, s) == pytest.approx(bounds.expected_bce(q, same, s))


def test_a_small_lower_bound_promises_nothing() -> None:
    """Two intents as likely, sigma 1 - e and e. At the mean ln 2, whatever e is; expected -(ln(1 - e) + ln e) / 2.

    e = .1: (.105361 + 2.302585) / 2 = 1.203973; e = 1e-6: 6.907756, and on without end.
    """
    q, s = np.array([0.5, 0.5]), np.array([1.0])
    for e, expected in ((0.1, 1.203973), (1e-6, 6.907756)):
        p = np.array([[1 - e], [e]])
        assert bounds.bce_at_mean(q, p, s) == pytest.approx(LN2)
        assert bounds.expected_bce(q, p, s) == pytest.approx(expected, abs=1e-6)


def test_for_one_label_the_mean_is_the_likelihood_and_for_several_it_is_on_neither_side() -> None:
    """-log E_q[Bernoulli(s)] is the loss at the mean for K = 1. Of two labels E[p p'] is not E[p] E[p']."""
    q = np.array([0.5, 0.5])
    p = np.array([[0.9], [0.2]])
    assert bounds.bce_at_mean(q, p, np.ones(1)) == pytest.approx(bounds.exact_label_nll(q, p, np.ones(1)))
    both = np.array([[0.9, 0.9], [0.1, 0.1]])
    # together: -ln((.81 + .01) / 2) = .891598 below 2 ln 2 = 1.386294; apart: -ln(.09) = 2.407946 above it
    assert bounds.exact_label_nll(q, both, np.array([1.0, 1.0])) == pytest.approx(0.891598, abs=1e-6)
    assert bounds.exact_label_nll(q, both, np.array([1.0, 0.0])) == pytest.approx(2.407946, abs=1e-6)
    for s in ([1.0, 1.0], [1.0, 0.0]):
        assert bounds.bce_at_mean(q, both, np.array(s)) == pytest.approx(2 * LN2)


# Appendix B.1


def test_two_contexts_by_hand() -> None:
    """beta 1: -log sigma(2) = .126928, -log sigma(-2) = 2.126928, mean 1.126928. The paper: both above ln 2."""
    up, down, mean = bounds.two_contexts(1.0)
    assert (up, down, mean) == pytest.approx((0.126928, 2.126928, 1.126928), abs=1e-6)
    assert up < LN2 < down
    assert bounds.two_contexts(0.1)[2] == pytest.approx(0.698138, abs=1e-6)


@quick
@given(st.floats(1e-3, 20))
def test_the_mean_exceeds_ln_2_though_not_both_do(beta) -> None:
    """The conclusion holds (Jensen, Eq. 27), the reason given does not, at any beta: their difference is 2 beta."""
    up, down, mean = bounds.two_contexts(beta)
    assert up < LN2 < mean < down
    assert down - up == pytest.approx(2 * beta)


@quick
@given(seeds)
def test_eq_24_is_a_soft_minimum(seed) -> None:
    """Its inner minimum is -log E_prior[e^-loss], attained at q ~ prior e^-loss; it lies between the easiest intent's
    loss and the average, never above the hardest's."""
    q, prior, p = drawn(seed)
    losses = -np.log(p)
    value, best = bounds.inner_minimum(losses, prior)
    assert value == pytest.approx(-bounds.log_mixture(prior, p), abs=1e-12)
    assert best @ losses + bounds.kl(best, prior) == pytest.approx(value, abs=1e-9)
    assert q @ losses + bounds.kl(q, prior) >= value - 1e-12
    c = bounds.cases(losses, prior)
    assert c.best <= c.intent + 1e-12
    assert c.intent <= c.average + 1e-12
    assert c.average <= c.worst + 1e-12
    assert best[losses.argmin()] >= prior[losses.argmin()] - 1e-12  # q moves to what is easy already
    assert best[losses.argmax()] <= prior[losses.argmax()] + 1e-12


def test_it_bounds_no_worst_case() -> None:
    """sigma .9 and .1 as likely: easiest .105361, A-IPO ln 2, average 1.203973, hardest 2.302585. Eq. 25 is the first
    inequality; "a tighter upper bound on the worst-case loss" would need the last one turned round."""
    c = bounds.cases(-np.log(np.array([0.9, 0.1])), np.array([0.5, 0.5]))
    assert (c.best, c.intent, c.average, c.worst) == pytest.approx((0.105361, LN2, 1.203973, 2.302585), abs=1e-6)
