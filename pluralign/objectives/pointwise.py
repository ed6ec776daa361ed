"""Objectives over pairs that judge each response on its own: functions of h(y_w) and h(y_l), not of their gap alone.

h(y) = log pi(y|x) - log pi_ref(y|x), v = beta h. They say where each response should go, not only how far apart.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from .core import Batch, Outcome, Readings, objective
from .pairwise import REFERENCED, log_ratios, pair_metrics

__all__ = ["apo_down", "apo_zero", "bco_pair", "nca", "sppo"]


def _rewards(r: Readings, beta: float) -> tuple[Tensor, Tensor]:
    chosen, rejected = log_ratios(r)
    return beta * chosen, beta * rejected


@objective(
    "apo_zero",
    needs=REFERENCED,
    formula="1 - sigma(beta h(y_w)) + sigma(beta h(y_l))",
    paper="D'Oosterlinck et al. 2024, arXiv 2408.06266, Eq. 7",
)
def apo_zero(r: Readings, *, beta: float = 0.1) -> Outcome:
    """Anchored preference optimisation for a model worse than the chosen responses: y_w up, y_l down, each by itself.

    Policy = reference: 1.
    """
    chosen, rejected = _rewards(r, beta)
    return Outcome(torch.sigmoid(-chosen) + torch.sigmoid(rejected), pair_metrics(r, chosen - rejected))


@objective(
    "apo_down",
    needs=REFERENCED,
    formula="sigma(beta h(y_w)) + 1 - sigma(beta rho)",
    paper="D'Oosterlinck et al. 2024, arXiv 2408.06266, Eq. 8",
)
def apo_down(r: Readings, *, beta: float = 0.1) -> Outcome:
    """Anchored preference optimisation for a model better than the chosen responses: both down, y_l further.

    The one objective here that is meant to lower y_w, wherever the gap is wider than y_w's own distance to the
    reference. Policy = reference: 1, where only y_l has a gradient.
    """
    chosen, rejected = _rewards(r, beta)
    margin = chosen - rejected
    return Outcome(torch.sigmoid(chosen) + torch.sigmoid(-margin), pair_metrics(r, margin))


@objective(
    "nca",
    needs=REFERENCED,
    formula="-log sigma(v_w) - (log sigma(-v_w) + log sigma(-v_l)) / 2, v = beta h",
    paper="Chen et al. 2024, arXiv 2402.05369, pairwise NCA",
)
def nca(r: Readings, *, beta: float = 0.1) -> Outcome:
    """Noise contrastive alignment on pairs: likelihoods are fitted, not only their ratio. Policy = reference: 2 ln 2.

    y_w rises to sigma(beta h) = 2/3 (beta h = ln 2) and is held there; y_l falls without end.
    """
    chosen, rejected = _rewards(r, beta)
    loss = -logsigmoid(chosen) - (logsigmoid(-chosen) + logsigmoid(-rejected)) / 2
    return Outcome(loss, pair_metrics(r, chosen - rejected))


@objective(
    "sppo",
    needs=REFERENCED,
    formula="(h(y_w) - 1/(2 beta))^2 + (h(y_l) + 1/(2 beta))^2",
    paper="Wu et al. 2024, arXiv 2405.00675, Eq. 4.7 with P = 1 and 0",
)
def sppo(r: Readings, *, beta: float = 0.001) -> Outcome:
    """Self-play preference optimisation with hard labels: each response has a target, 1/(2 beta) nats up or down.

    `beta` is the paper's 1/eta. Policy = reference: 1/(2 beta^2), which is 500,000 at beta = 0.001: clip gradients.
    """
    chosen, rejected = log_ratios(r)
    target = 1 / (2 * beta)
    loss = (chosen - target) ** 2 + (rejected + target) ** 2
    return Outcome(loss, pair_metrics(r, beta * (chosen - rejected)))


def _drift_statistics(r: Readings) -> Batch:
    """The mean of both log-ratios of each pair."""
    chosen, rejected = log_ratios(r)
    return {"drift": ((chosen + rejected) / 2).detach()}


@objective(
    "bco_pair",
    needs=REFERENCED,
    formula="-log sigma(v_w - delta) - log sigma(-(v_l - delta)), v = beta h, delta = mean of v over the step",
    paper="Jung et al. 2024, arXiv 2404.04656, both halves of a pair",
    statistics=_drift_statistics,
)
def bco_pair(r: Readings, *, beta: float = 0.1, reward_shift: bool = True, batch: Batch | None = None) -> Outcome:
    """Binary classifier optimisation on pairs; `bco` is the unpaired one. Policy = reference: 2 ln 2.

    delta is the mean reward of all responses of the optimiser step, without gradient: there the bound on DPO is
    tightest. `reward_shift` false sets it to 0, as TRL has done since 0.29.
    """
    chosen, rejected = _rewards(r, beta)
    known = (batch if batch is not None else _drift_statistics(r))["drift"]
    shift = beta * known.to(chosen).mean() if reward_shift else torch.zeros_like(chosen[0])
    loss = -logsigmoid(chosen - shift) - logsigmoid(shift - rejected)
    return Outcome(loss, pair_metrics(r, chosen - rejected) | {"shift": shift.detach().expand_as(loss)})
