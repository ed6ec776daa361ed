"""Kinds of people whose rewards are linear in features of a pair: EM with an exact M-step.

P_k(w > l) = sigma(theta_k . (f(w) - f(l))). It is the small world in which EM is checked, and a cheap start for
EM-DPO: on frozen states of the model it takes seconds where a round of EM-DPO takes K trainings.

Shapes: N pairs, D features, U people, K kinds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .latent import Fit, by_person, expectation_maximisation, pair_loglik, random_start

__all__ = ["fit_types", "weighted_logistic"]

Floats = NDArray[np.float64]


def weighted_logistic(gaps: Any, weights: Any, penalty: float = 1.0, start: Any = None) -> Floats:
    """theta (D,) that minimises sum_n weights_n log(1 + exp(-theta . gaps_n)) + penalty |theta|^2 / 2."""
    from scipy.optimize import minimize

    x, w = np.asarray(gaps, dtype=np.float64), np.asarray(weights, dtype=np.float64)

    def loss(theta: Floats) -> tuple[float, Floats]:
        z = x @ theta
        value = float(w @ np.logaddexp(0.0, -z)) + penalty * float(theta @ theta) / 2
        gradient = -(x.T @ (w * 0.5 * (1 - np.tanh(z / 2)))) + penalty * theta  # sigma(-z), without overflow
        return value, gradient

    found = minimize(loss, np.zeros(x.shape[1]) if start is None else start, jac=True, method="L-BFGS-B")
    return np.asarray(found.x, dtype=np.float64)


def fit_types(
    gaps: Any, people: Any, kinds: int, *, rounds: int = 30, restarts: int = 5, penalty: float = 1.0,
    held: Sequence[bool] | None = None, anneal: float = 2.0, seed: int = 0,
) -> tuple[Floats, Fit]:  # fmt: skip
    """(theta (K, D), fit) of the restart whose held-out people are likeliest; `gaps` (N, D) = f(w) - f(l)."""
    x, who = np.asarray(gaps, dtype=np.float64), np.asarray(people, dtype=np.int64)
    count = int(who.max()) + 1 if held is None else len(held)
    best: tuple[Floats, Fit] | None = None
    for restart in range(restarts):
        theta = np.zeros((kinds, x.shape[1]))

        def maximise(_: int, gamma: Floats, theta: Floats = theta) -> Floats:
            for k in range(kinds):
                theta[k] = weighted_logistic(x, gamma[who, k], penalty, theta[k])
            return by_person(pair_loglik(x @ theta.T), who, count)

        start = random_start(count, kinds, seed + restart)
        fit = expectation_maximisation(maximise, start, rounds, held=held, anneal=anneal)
        if best is None or fit.chosen_by > best[1].chosen_by:
            best = theta, fit
    assert best is not None, "there is at least one restart"
    return best
