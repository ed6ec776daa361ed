"""One policy for everybody, such that nobody regrets it much: min-max regret over policies of different kinds.

MinMax-DPO (Chidambaram et al. 2024, arXiv 2405.15065) is known to this project by its abstract and by notes on it; the
regret is the paper's, the multiplicative weights and the measures of utility are RECONSTRUCTIONS.

    R_k(pi) = E[r_k(pi*_k) - r_k(pi)]     what kind k loses where pi answers instead of its own best policy
    min over pi of max over k of R_k(pi)

Over a finite set {pi_1 .. pi_J} the minimum is a mixture of them, found by multiplicative weights: an adversary weighs
the kinds, w_k <- w_k exp(rate R_k(pi_t)), pi_t is the best response to w, and the iterates are averaged.

Shapes: K kinds, J policies, U people.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import SettingsError

__all__ = ["MinMax", "minmax", "pair_weights", "regrets"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class MinMax:
    """`mixture` (J,): how often each policy answers. `adversary` (K,): the weights of kinds that make this best.

    `regret` (K,) of the mixture and `worst`, its largest; `single`, `single_worst`: the best policy that answers alone.
    `gap`: the worst regret is at most so much above the least possible one.
    """

    mixture: Floats
    adversary: Floats
    regret: Floats
    worst: float
    single: int
    single_worst: float
    gap: float


def regrets(utility: Any) -> Floats:
    """R (K, J) = max_j' u_kj' - u_kj of a table of utilities (K, J): what kind k loses under policy j.

    The best of the set stands for pi*_k, so that no regret is below zero. Only differences within a row count, so a
    constant of a kind's utility (beta log Z of an implicit reward) has no influence; its scale has.
    Raises SettingsError for a table with anything that is not finite.
    """
    u = np.asarray(utility, dtype=np.float64)
    if u.ndim != 2 or not u.size or not np.isfinite(u).all():
        raise SettingsError("utilities are a table of finite numbers, kinds by policies.")
    found: Floats = u.max(1, keepdims=True) - u
    return found


def minmax(regret: Any, rounds: int = 10_000, rate: float | None = None) -> MinMax:
    """The mixture of policies with (nearly) the least worst regret, from regrets (K, J).

    `rate` of the multiplicative weights is sqrt(ln K / rounds) on regrets divided by the largest. By weak duality the
    least possible worst regret is no lower than min_j of the averaged adversary's regret; `gap` is the distance to it.
    u = (1, 0, .55; 0, 1, .6): the third policy alone has .45, the mixture (1/21, 0, 20/21) has 3/7 = .4286.
    """
    r = np.asarray(regret, dtype=np.float64)
    if r.ndim != 2 or not r.size or not np.isfinite(r).all() or (r < 0).any():
        raise SettingsError("regrets are a table of finite numbers of 0 or more, kinds by policies.")
    if rounds < 1:
        raise SettingsError("multiplicative weights need at least one round.")
    kinds, policies = r.shape
    scale = float(r.max()) or 1.0
    step = math.sqrt(math.log(kinds) / rounds) if rate is None else rate
    logw = np.zeros(kinds)
    played, weighed = np.zeros(policies), np.zeros(kinds)
    for _ in range(rounds):
        w = np.exp(logw - logw.max())
        w /= w.sum()
        best = int((w @ r).argmin())
        played[best] += 1
        weighed += w
        logw += step * r[:, best] / scale
    mixture, adversary = played / rounds, weighed / rounds
    own = r @ mixture
    alone = r.max(0)
    single = int(alone.argmin())
    lower = float((adversary @ r).min())
    return MinMax(mixture, adversary, own, float(own.max()), single, float(alone[single]), float(own.max()) - lower)


def pair_weights(gamma: Any, kinds: Any, people: Any) -> Floats:
    """(N,) weights of pairs under which one policy minimises sum_k w_k L_k, L_k the mean loss over kind k's pairs.

    `gamma` (U, K), `kinds` w (K,), `people` (N,): w_k gamma_ik / mean over pairs of gamma_k, summed over k. Where w is
    each kind's share of the pairs, every weight is 1: plain DPO on all. Raises SettingsError where a kind has no pairs.
    """
    own = np.asarray(gamma, dtype=np.float64)[np.asarray(people, dtype=np.int64)]
    share = own.mean(0)
    w = np.asarray(kinds, dtype=np.float64)
    if ((share <= 0) & (w > 0)).any():
        raise SettingsError("a kind of people has no pairs, and no loss.")
    found: Floats = own @ np.divide(w, share, out=np.zeros_like(w), where=share > 0)
    return found
