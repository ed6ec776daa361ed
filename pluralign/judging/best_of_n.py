"""Best-of-n: every n from one set of samples, what it costs in KL, and whether another reward agrees.

Sample N answers a prompt once, score them, and take all n <= N from these: the best of a random n of N is the i-th of
the ascending scores with probability C(i - 1, n - 1) / C(N, n). Ties go to the first sample, as argmax does. Shapes: P
prompts, N samples.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import SettingsError
from .statistics import Estimate, mean_interval

__all__ = [
    "BestOfN",
    "best_of_n_curve",
    "best_of_n_distribution",
    "best_of_n_kl",
    "expected_best",
    "selection_weights",
    "soft_selection",
]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BestOfN:
    """One n. `proxy`: the mean reward that chose; `gold`: the mean of another reward of what was chosen; `win_rate`: of
    the chosen answer against an independent sample by the gold reward (by the proxy itself it is n / (n + 1)). `kl`:
    nats, an upper bound that holds with equality where answers never repeat."""

    n: int
    kl: float
    proxy: Estimate
    gold: Estimate | None
    win_rate: Estimate | None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        others = {"proxy": self.proxy, "gold": self.gold, "win_rate": self.win_rate}
        return {"n": self.n, "kl": self.kl} | {k: None if e is None else e.as_dict() for k, e in others.items()}


def best_of_n_kl(n: int) -> float:
    """ln n - (n - 1) / n nats: KL(best of n || policy) at most. 2: .193147, 4: .636294, 16: 1.835089.

    Raises SettingsError for n below 1.
    """
    if n < 1:
        raise SettingsError(f"the best of {n} answers does not exist.")
    return math.log(n) - (n - 1) / n


def selection_weights(samples: int, n: int) -> Floats:
    """(N,) the probability that the best of n out of N is the i-th in ascending order. Raises SettingsError for n >
    N."""
    if not 1 <= n <= samples:
        raise SettingsError(f"the best of {n} cannot be told from {samples} samples.")
    # C(i-1, n-1) / C(N, n), from the largest down: w_N = n / N, w_{i-1} = w_i (i - n) / (i - 1)
    weights = np.zeros(samples)
    weights[-1] = n / samples
    for i in range(samples, n, -1):
        weights[i - 2] = weights[i - 1] * (i - n) / (i - 1)
    return weights


def expected_best(rewards: ArrayLike, n: int) -> Floats:
    """(P,) the unbiased estimate of E[max of n] for each prompt's rewards (P, N). 1, 2, 3, 4 with n = 2: 3.333333.

    Raises SettingsError for a table that is no (P, N) or n > N.
    """
    r = _table(rewards)
    return np.asarray(np.sort(r, axis=1) @ selection_weights(r.shape[1], n))


def best_of_n_curve(
    rewards: ArrayLike,
    ns: Sequence[int] = (1, 2, 4, 8, 16, 64),
    *,
    gold: ArrayLike | None = None,
    clusters: Sequence[Hashable] | None = None,
    level: float = 0.95,
) -> list[BestOfN]:
    """What best-of-n gives for every n, from rewards (P, N) that choose and, if given, gold rewards (P, N) that judge.

    Intervals are over prompts. A prompt with a reward that is NaN is left out and counted. `ns` beyond N raise
    SettingsError, as do tables of different shapes. Use a gold reward that is not the proxy: its own choice always
    looks good to it.
    """
    r = _table(rewards)
    g = None if gold is None else _table(gold)
    if g is not None and g.shape != r.shape:
        raise SettingsError(f"both rewards are needed of every sample: {r.shape} and {g.shape}.")
    unread = np.isnan(r).any(1) | (np.isnan(g).any(1) if g is not None else False)
    # descending and stable turned round: of equals the first sample stands highest
    order = np.argsort(-np.where(np.isnan(r), -math.inf, r), axis=1, kind="stable")[:, ::-1]
    ranked = np.take_along_axis(r, order, 1)
    judged = None if g is None else np.take_along_axis(g, order, 1)

    def over_prompts(values: Floats) -> Estimate:
        return mean_interval(np.where(unread, math.nan, values), level, clusters)

    out = []
    for n in ns:
        weights = selection_weights(r.shape[1], n)
        wins = None if judged is None or n == r.shape[1] else _wins(judged, weights, n)
        out.append(
            BestOfN(
                n=n,
                kl=best_of_n_kl(n),
                proxy=over_prompts(ranked @ weights),
                gold=None if judged is None else over_prompts(judged @ weights),
                win_rate=None if wins is None else over_prompts(wins),
            )
        )
    return out


def _wins(judged: Floats, weights: Floats, n: int) -> Floats:
    """(P,) P(the chosen one beats one of the samples that were not among the n), ties half; samples in proxy order."""
    size = judged.shape[1]
    i = np.arange(1, size + 1)
    # n - 1 of the i - 1 below the chosen i-th are among the n, so each is outside with (i - n) / (i - 1); all above are
    outside = np.where(i[None, :] < i[:, None], ((i - n) / np.maximum(i - 1, 1))[:, None], 1.0)
    np.fill_diagonal(outside, 0.0)
    share = weights[:, None] * outside / (size - n)
    return np.array([float((share * (0.5 + 0.5 * np.sign(row[:, None] - row[None, :]))).sum()) for row in judged])


def best_of_n_distribution(probabilities: ArrayLike, rewards: ArrayLike, n: int) -> Floats:
    """(Y,) what best-of-n makes of a policy over a finite set: F(r)^n - F(r^-)^n, shared among equal rewards as the
    policy does. With a constant reward it is the policy. Raises SettingsError where the probabilities are none."""
    p, r = np.asarray(probabilities, dtype=np.float64), np.asarray(rewards, dtype=np.float64)
    if p.shape != r.shape or p.ndim != 1 or (p < 0).any() or abs(float(p.sum()) - 1) > 1e-9:
        raise SettingsError("a policy over a finite set needs probabilities that add up to one, and as many rewards.")
    best_of_n_kl(n)
    out = np.zeros(len(p))
    for value in np.unique(r):
        same = r == value
        below, mass = float(p[r < value].sum()), float(p[same].sum())
        if mass > 0:
            out[same] = p[same] / mass * ((below + mass) ** n - below**n)
    return out


def soft_selection(rewards: ArrayLike, temperature: float) -> Floats:
    """(P, N) softmax(rewards / temperature): best-of-n that chooses softly. Raises SettingsError for temperature <=
    0."""
    if temperature <= 0:
        raise SettingsError(f"a temperature is above 0, not {temperature:g}.")
    z = _table(rewards) / temperature
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def _table(rewards: ArrayLike) -> Floats:
    r = np.asarray(rewards, dtype=np.float64)
    if r.ndim != 2 or not r.size:
        raise SettingsError(f"rewards are a table of prompts and samples, not {r.shape}.")
    return r
