"""A-IPO's rewards on finite worlds: the similarity's shift of the log-odds, what lambda can do, what a fit makes of it.

Shapes: P pairs, I intents, N responses. `base` is beta times the gap of log-ratios (nats), `dsim` the difference of the
two similarities, in [-1, 1]. Equations and statements are those of the A-IPO paper, section 5 and Appendices C and D.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from .tabular import minimise
from .worlds import Array

__all__ = [
    "best_lambda",
    "dataset_nll",
    "estimated_log_loss",
    "fit_pairs",
    "gain",
    "lambdas",
    "log_odds",
    "nll",
    "nonincreasing",
    "plackett_luce",
    "sim_slope",
    "slope",
    "tilted",
]  # fmt: skip

Convention = Literal["rewards", "rewards over beta"]


def nll(z: Array) -> Array:
    """-log sigma(z), nats."""
    return np.logaddexp(0.0, -np.asarray(z, dtype=np.float64))


def _sigma(z: Array) -> Array:
    return np.exp(-nll(z))


# Lemma D.1, Corollaries D.1 to D.3


def lambdas(base: float, dsim: float, margin: float = 0.0) -> tuple[float, float]:
    """The lambdas >= 0 with base + lambda dsim >= margin, as (least, largest); (nan, nan) where there are none.

    Corollary D.1 prints (margin - base) / dsim as the least one. That needs dsim > 0: below 0 the same number is the
    largest, and at 0 lambda can do nothing.
    """
    if dsim > 0:
        return max(0.0, (margin - base) / dsim), np.inf
    if base < margin:
        return np.nan, np.nan
    return 0.0, np.inf if dsim == 0 else (margin - base) / dsim


def log_odds(gap: Array, dsim: Array, beta: float, lam: float, convention: Convention = "rewards") -> Array:
    """Log-odds of y_w over y_l; `gap` is the bare difference of log-ratios.

    "rewards": sigma(r_w - r_l), Eq. 9 and Lemma 5.2: beta gap + lambda dsim. "rewards over beta": sigma((r_w - r_l) /
    beta), Corollary D.3: gap + (lambda / beta) dsim. The second is the first divided by beta.
    """
    whole = beta * np.asarray(gap) + lam * np.asarray(dsim)
    return whole if convention == "rewards" else whole / beta


# Theorem 5.3


def dataset_nll(base: Array, dsim: Array, lam: float) -> float:
    """The mean of -log sigma(base + lambda dsim) over a data set."""
    return float(nll(base + lam * dsim).mean())


def slope(base: Array, dsim: Array, lam: float) -> float:
    """Its derivative by lambda, -mean(sigma(-(base + lambda dsim)) dsim): not the mean of dsim that decides, but one
    weighted by how wrong each pair still is."""
    return float(-(_sigma(-(base + lam * dsim)) * dsim).mean())


def nonincreasing(dsim: Array) -> bool:
    """Whether the data set's NLL falls, or stays, at every lambda >= 0: exactly where no dsim is below 0.

    One pair with dsim < 0 makes it grow without bound in the end, whatever the average."""
    return bool((np.asarray(dsim) >= 0).all())


def best_lambda(base: Array, dsim: Array, most: float = 1e3) -> float:
    """The lambda in [0, most] with the smallest NLL, by bisection of the slope (the NLL is convex in lambda)."""
    if slope(base, dsim, 0.0) >= 0:
        return 0.0
    if slope(base, dsim, most) <= 0:
        return most
    low, high = 0.0, most
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(base, dsim, middle) < 0 else (low, middle)
    return (low + high) / 2


# Theorem 5.1


def tilted(reward: Array, sim: Array, reference: Array, beta: float, lam: float) -> tuple[Array, Array]:
    """(policy (I, N), baseline beta log Z (I,)) with r = beta log(pi / pi_ref) + lambda sim + baseline.

    The policy carries the reward *less* lambda sim: what the similarity says is left for the similarity to say.
    """
    z = np.log(reference) + (reward - lam * sim) / beta
    top = z.max(-1, keepdims=True)
    log_z = top + np.log(np.exp(z - top).sum(-1, keepdims=True))
    return np.exp(z - log_z), beta * log_z[..., 0]


def plackett_luce(reward: Array, order: Sequence[int]) -> float:
    """log P(order) of responses ranked best first, log prod_i e^{r_i} / sum_{j >= i} e^{r_j}."""
    r = np.asarray(reward, dtype=np.float64)[list(order)]
    return float(sum(r[i] - np.logaddexp.reduce(r[i:]) for i in range(len(r))))


def fit_pairs(reward: Array, sim: Array, reference: Array, beta: float, lam: float) -> Array:
    """The policy (I, N) that minimises Eq. 10 (gamma 0, intents known) in full expectation, where people choose between
    two responses drawn from the reference by sigma(r(y) - r(z)); by LBFGS in float64 from the reference."""
    n = reference.shape[-1]
    prefer = _sigma(reward[..., :, None] - reward[..., None, :])
    drawn = reference[..., :, None] * reference[..., None, :] * (1 - np.eye(n))
    weight, log_ref, s = (torch.from_numpy(np.ascontiguousarray(a)) for a in (drawn * prefer, np.log(reference), sim))

    def loss(x: Tensor) -> Tensor:
        h = beta * (torch.log_softmax(x, -1) - log_ref) + lam * s
        return (weight * torch.nn.functional.softplus(-(h[..., :, None] - h[..., None, :]))).sum()

    return torch.softmax(minimise(loss, log_ref, rounds=4), -1).numpy()


def sim_slope(policy: Array, sim: Array, beta: float) -> Array:
    """(I,) d E_pi[sim] / d lambda of `tilted`: -Var_pi(sim) / beta, never above 0."""
    mean = (policy * sim).sum(-1, keepdims=True)
    return -(policy * (sim - mean) ** 2).sum(-1) / beta


# Lemma 5.1, Theorem 5.2


def gain(joint: Array, loss: Array | None = None) -> float:
    """How much the Bayes risk falls once the intent is known: joint (X, I, T) over inputs, intents and labels.

    `loss` (T, A) is what action a costs under label t; None: the log loss, whose risk is the conditional entropy, and
    whose gain is the mutual information of label and intent given x.
    """
    whole = joint.sum(1)
    if loss is None:
        return _entropy(whole) - _entropy(joint)
    return float((whole @ loss).min(-1).sum() - (joint @ loss).min(-1).sum())


def _entropy(joint: Array) -> float:
    """Conditional entropy of the last axis, nats."""
    total = joint.sum(-1, keepdims=True)
    there = joint > 0
    share = np.divide(joint, total, out=np.ones_like(joint), where=total > 0)
    return float(-(joint[there] * np.log(share[there])).sum())


def estimated_log_loss(p: float, n: int) -> float:
    """Expected log loss on new labels of P(label) = (k + 1) / (n + 2), k of n labels drawn with probability p.

    What a table of preferences is worth that was *estimated*: Lemma 5.1 speaks of the best predictor, which nobody has.
    """
    k = np.arange(n + 1)
    odds = np.array([math.comb(n, int(i)) for i in k], dtype=np.float64) * p**k * (1 - p) ** (n - k)
    at = (k + 1) / (n + 2)
    each: Callable[[Array], float] = lambda a: float(odds @ a)
    return each(-p * np.log(at) - (1 - p) * np.log1p(-at))
