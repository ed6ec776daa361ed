"""People of K kinds: which kind each is, from the likelihood of all their pairs (EM), as arrays.

EM-DPO (Chidambaram et al. 2024, arXiv 2405.15065) is known to this project by its abstract and by notes on it: the
E- and the M-step below are its formulas, annealing, restarts and starts are RECONSTRUCTIONS of ours.

    P_k(w > l | x) = sigma(beta (h_k(w) - h_k(l)))        kind k's policy as a reward
    E: gamma_ik proportional to eta_k prod_j P_k(pair_ij)   over all pairs j of person i, so sums of logs, not means
    M: eta_k = mean_i gamma_ik;  theta_k = DPO on all pairs, weighted by gamma_ik

One pair a person identifies no kinds: any two policies whose mixture has the same P explain the data equally well
(arXiv 2510.15716). Choice sets of three and more do, and so do several pairs a person.

Shapes: N pairs, U people, K kinds. Log-likelihoods in nats.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import PluralignError, SettingsError

__all__ = [
    "Fit",
    "by_person",
    "choice_loglik",
    "clustering_accuracy",
    "expectation_maximisation",
    "marginal",
    "pair_loglik",
    "random_start",
    "responsibilities",
    "temperatures",
]

Floats = NDArray[np.float64]
LEAST = 1e-9  # no kind's share falls to zero for good


def pair_loglik(logits: Any) -> Floats:
    """log sigma(z) of each pair and kind; NaN (a pair that could not be scored) says nothing: 0."""
    z = np.asarray(logits, dtype=np.float64)
    return np.where(np.isnan(z), 0.0, -np.logaddexp(0.0, -np.nan_to_num(z)))


def choice_loglik(scores: Any) -> Floats:
    """Luce's log-probability of the first of m things from their scores (..., m): log softmax at 0; m = 2 is a pair."""
    s = np.asarray(scores, dtype=np.float64)
    top = s.max(-1, keepdims=True)
    found: Floats = s[..., 0] - (top[..., 0] + np.log(np.exp(s - top).sum(-1)))
    return found


def by_person(loglik: Any, people: Any, count: int) -> Floats:
    """Sums of (N, K) over each person's pairs, `people` (N,) numbers below `count`: (U, K)."""
    values = np.asarray(loglik, dtype=np.float64)
    out = np.zeros((count, values.shape[1]))
    np.add.at(out, np.asarray(people, dtype=np.int64), values)
    return out


def responsibilities(loglik: Any, eta: Any, temperature: float = 1.0) -> Floats:
    """gamma (U, K) from log-likelihoods (U, K) and shares eta (K,): softmax of (log eta + loglik) / T, in log space.

    Logits (1, .5, -.2) against (-1, .1, .4) at eta = (.5, .5): gamma_1 = 0.707898. Raises SettingsError unless T > 0.
    """
    if not temperature > 0:
        raise SettingsError(f"a temperature is above 0, not {temperature:g}.")
    joint = (np.log(np.maximum(np.asarray(eta, dtype=np.float64), LEAST)) + np.asarray(loglik)) / temperature
    joint = joint - joint.max(-1, keepdims=True)
    gamma = np.exp(joint)
    found: Floats = gamma / gamma.sum(-1, keepdims=True)
    return found


def marginal(loglik: Any, eta: Any) -> Floats:
    """(U,) log sum_k eta_k exp(loglik_ik): how likely a person's pairs are where the kind is not known."""
    joint = np.log(np.maximum(np.asarray(eta, dtype=np.float64), LEAST)) + np.asarray(loglik, dtype=np.float64)
    top = joint.max(-1)
    found: Floats = top + np.log(np.exp(joint - top[:, None]).sum(-1))
    return found


def temperatures(rounds: int, first: float = 2.0) -> list[float]:
    """From `first` down to 1, geometrically, and 1 in the last round; one round is at 1."""
    if not first >= 1:
        raise SettingsError(f"annealing begins at 1 or above, not at {first:g}.")
    return [first ** (1 - i / (rounds - 1)) for i in range(rounds)] if rounds > 1 else [1.0]


def random_start(people: int, kinds: int, seed: int = 0, concentration: float = 1.0) -> Floats:
    """Responsibilities (U, K) drawn from a Dirichlet, one draw a person: equal ones would stay equal for ever."""
    found: Floats = np.random.default_rng(seed).dirichlet(np.full(kinds, concentration), people)
    return found


@dataclass(frozen=True, slots=True)
class Fit:
    """What EM leaves: `eta` (K,), `gamma` (U, K) at temperature 1, `loglik` (U, K); `history` has a row a round.

    `held_out`: mean marginal log-likelihood of a held-out person, nats (NaN where nobody is held out). `rounds`
    counts what was done.
    """

    eta: Floats
    gamma: Floats
    loglik: Floats
    train: float
    held_out: float
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def chosen_by(self) -> float:
        """What restarts are compared by: held-out people where there are any, else those of the training."""
        return self.train if np.isnan(self.held_out) else self.held_out


def expectation_maximisation(
    maximise: Callable[[int, Floats], Floats],
    start: Any,
    rounds: int,
    *,
    held: Sequence[bool] | None = None,
    anneal: float = 2.0,
) -> Fit:
    """EM from responsibilities `start` (U, K): `rounds` times the M-step, then the E-step under a falling temperature.

    `maximise(round, gamma)` fits the K kinds to responsibilities and returns the log-likelihoods (U, K) of everybody's
    pairs under them; rounds count from 1. People who are `held` out enter no share and no M-step (their weight is 0)
    and measure the fit. Raises PluralignError where a log-likelihood is not finite.
    """
    gamma = np.array(start, dtype=np.float64)
    out = np.zeros(len(gamma), dtype=bool) if held is None else np.asarray(held, dtype=bool)
    if out.all():
        raise SettingsError("EM needs people who are not held out.")
    if rounds < 1:
        raise SettingsError("EM needs at least one round.")
    history: list[dict[str, Any]] = []
    for number, temperature in enumerate(temperatures(rounds, anneal), start=1):
        eta = gamma[~out].mean(0)
        loglik = np.asarray(maximise(number, np.where(out[:, None], 0.0, gamma)), dtype=np.float64)
        if not np.isfinite(loglik).all():
            raise PluralignError(f"round {number} of EM has a log-likelihood that is not finite.")
        each = marginal(loglik, eta)
        train, held_out = float(each[~out].mean()), float(each[out].mean()) if out.any() else float("nan")
        moved = gamma
        gamma = responsibilities(loglik, eta, temperature)
        history.append({
            "round": number, "temperature": temperature, "eta": eta.tolist(), "train": train, "held_out": held_out,
            "moved": float(np.abs(gamma - moved)[~out].sum(1).mean() / 2),
        })  # fmt: skip
    return Fit(eta, responsibilities(loglik, eta), loglik, train, held_out, history)


def clustering_accuracy(gamma: Any, labels: Sequence[Any]) -> float:
    """Share of people whose likeliest kind is their label, under the best naming of kinds (they have no names)."""
    from scipy.optimize import linear_sum_assignment

    found = np.asarray(gamma).argmax(1)
    names = sorted(set(labels), key=str)
    table = np.zeros((np.asarray(gamma).shape[1], len(names)))
    for kind, label in zip(found, labels, strict=True):
        table[kind, names.index(label)] += 1
    rows, columns = linear_sum_assignment(-table)
    return float(table[rows, columns].sum() / len(labels))
