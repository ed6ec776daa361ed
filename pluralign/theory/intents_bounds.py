"""A-IPO's bounds on finite sets of intents: the ELBO (Eq. 3, 9, 10), the intention loss (Appendix E), and the claims
about average and worst cases (Appendix B.1).

Shapes: I intents (prior, q: (I,) distributions), K labels. All in nats.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .intents import nll
from .worlds import Array

__all__ = [
    "Cases",
    "bce",
    "bce_at_mean",
    "cases",
    "elbo",
    "exact_label_nll",
    "expected_bce",
    "inner_minimum",
    "kl",
    "log_mixture",
    "mean_log",
    "posterior",
    "two_contexts",
]  # fmt: skip


def kl(q: Array, p: Array) -> float:
    """KL(q || p), with 0 log 0 = 0."""
    there = q > 0
    return float((q[there] * (np.log(q[there]) - np.log(p[there]))).sum())


def log_mixture(weights: Array, p: Array) -> float:
    """log sum_b w_b p_b: the log-likelihood of a preference whose intent is not known, p_b = sigma(logit_b)."""
    return float(np.log(weights @ p))


def mean_log(q: Array, p: Array) -> float:
    """E_q[log p]: the right-hand side of Eq. 9."""
    there = q > 0
    return float(q[there] @ np.log(p[there]))


def elbo(q: Array, prior: Array, p: Array, gamma: float = 1.0) -> float:
    """E_q[log p] - gamma KL(q || prior): Eq. 3 at gamma 1, minus Eq. 10 at any other."""
    return mean_log(q, p) - gamma * kl(q, prior)


def posterior(prior: Array, p: Array) -> Array:
    """The q at which Eq. 3 is an equality. It depends on the pair, which q(I | x) is not shown."""
    q = prior * p
    return np.asarray(q / q.sum())


# Appendix E


def bce(s: Array, p: Array) -> Array:
    """-s log p - (1 - s) log(1 - p), label by label, for p strictly between 0 and 1."""
    return np.asarray(-s * np.log(p) - (1 - s) * np.log1p(-p))


def expected_bce(q: Array, probabilities: Array, s: Array) -> float:
    """E_q[sum_k BCE(s_k, sigma(g_k))]: what the negative ELBO has. `probabilities` (I, K), s (K,)."""
    return float(q @ bce(s, probabilities).sum(-1))


def bce_at_mean(q: Array, probabilities: Array, s: Array) -> float:
    """sum_k BCE(s_k, E_q[sigma(g_k)]): K times the intention loss of Eq. 5. At most `expected_bce` (Jensen)."""
    return float(bce(s, q @ probabilities).sum())


def exact_label_nll(weights: Array, probabilities: Array, s: Array) -> float:
    """-log E_w[prod_k Bernoulli(s_k)]: what the ELBO bounds, with the prior as weights."""
    return -float(np.log(weights @ np.exp(-bce(s, probabilities).sum(-1))))


# Appendix B.1


@dataclass(frozen=True)
class Cases:
    """Losses over intents at one prompt: the easiest intent's, A-IPO's (Eq. 24), the prior average, the hardest's."""

    best: float
    intent: float
    average: float
    worst: float


def inner_minimum(losses: Array, prior: Array) -> tuple[float, Array]:
    """min over q of E_q[loss] + KL(q || prior), and the q that attains it: -log E_prior[e^-loss], q ~ prior e^-loss.

    A soft *minimum*: q goes to the intents that are easy already, not to the hardest (Eq. 24)."""
    q = prior * np.exp(-losses)
    return -float(np.log(q.sum())), np.asarray(q / q.sum())


def cases(losses: Array, prior: Array) -> Cases:
    """best <= A-IPO <= average <= worst, always."""
    return Cases(float(losses.min()), inner_minimum(losses, prior)[0], float(prior @ losses), float(losses.max()))


def two_contexts(beta: float, delta: float = 2.0) -> tuple[float, float, float]:
    """(loss at +delta, loss at -delta, their mean) of B.1's example: the mean exceeds ln 2, the first never does."""
    up, down = (float(nll(np.array(beta * z))) for z in (delta, -delta))
    return up, down, (up + down) / 2
