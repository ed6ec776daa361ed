"""Objectives that compare distributions over the whole optimiser step instead of pairs.

Sorting joins all N examples of a step, which arrive in micro-batches. Each example's share is the cost of its own value
against the other side's value of the same rank, taken from the gathered batch. Shares add up to the loss of the whole
step, and so do their gradients, however the step is split.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from .core import Batch, Outcome, Readings, objective
from .pairwise import log_ratios, pair_metrics

__all__ = ["aot", "aot_unpaired"]

REFERENCED = ("w", "l", "ref_w", "ref_l")


def _cost(gap: Tensor, smoothing: float) -> Tensor:
    """The violation cost of AOT: logistic, smoothed like a label that is wrong with that probability."""
    return -(1 - smoothing) * logsigmoid(gap) - smoothing * logsigmoid(-gap)


def _ranks(x: Tensor, everyone: Tensor) -> Tensor:
    """(B, N) shares of ranks: row i is 1 at the rank of x_i among `everyone` (N,), spread evenly over equal values.

    Values are found by the nearest one, since a second pass need not repeat the first to the last bit. Spreading makes
    the sum over equal examples exact and independent of their order.
    """
    ordered = everyone.sort().values
    right = torch.searchsorted(ordered, x).clamp(max=len(ordered) - 1)
    left = (right - 1).clamp(min=0)
    nearest = torch.where(x - ordered[left] < ordered[right] - x, ordered[left], ordered[right])
    equal = (nearest[:, None] == ordered[None, :]).to(x)
    return equal / equal.sum(-1, keepdim=True)


def _against(x: Tensor, everyone: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """(differences x_i - (k-th smallest of `others`) (B, N), share of rank k (B, N)); only x carries gradient."""
    ranks = _ranks(x.detach(), everyone.to(x))
    return x[:, None] - others.to(x).sort().values[None, :], ranks


def _paired_statistics(r: Readings) -> Batch:
    return {
        "gap": (r["w"].sum - r["l"].sum).detach(),
        "ref_gap": (r["ref_w"].sum - r["ref_l"].sum).detach(),
    }


@objective(
    "aot",
    needs=REFERENCED,
    formula="mean_k -log sigma(beta (u_(k) - v_(k))), u, v = log pi(y_w) - log pi(y_l) of policy and reference, sorted",
    paper="Melnyk et al. 2024, arXiv 2406.05882, paired AOT",
    statistics=_paired_statistics,
)
def aot(r: Readings, *, beta: float = 0.1, label_smoothing: float = 0.0, batch: Batch | None = None) -> Outcome:
    """Alignment via optimal transport on pairs: the policy's gaps shall exceed the reference's at every quantile.

    Quantiles are those of the whole step. Policy = reference: ln 2; one pair alone: DPO.
    """
    known = batch if batch is not None else _paired_statistics(r)
    difference, ranks = _against(r["w"].sum - r["l"].sum, known["gap"], known["ref_gap"])
    loss = (ranks * _cost(beta * difference, label_smoothing)).sum(-1)
    chosen, rejected = log_ratios(r)
    return Outcome(loss, pair_metrics(r, beta * (chosen - rejected)))


def _unpaired_statistics(r: Readings) -> Batch:
    chosen, rejected = log_ratios(r)
    return {"chosen": chosen.detach(), "rejected": rejected.detach()}


@objective(
    "aot_unpaired",
    needs=REFERENCED,
    formula="mean_k -log sigma(beta (h_(k)(y_w) - h_(k)(y_l))), both sides sorted",
    paper="Melnyk et al. 2024, arXiv 2406.05882, unpaired AOT",
    statistics=_unpaired_statistics,
)
def aot_unpaired(
    r: Readings, *, beta: float = 0.1, label_smoothing: float = 0.0, batch: Batch | None = None
) -> Outcome:
    """Alignment via optimal transport that ignores who belongs to whom: chosen rewards shall exceed rejected ones at
    every quantile of the step. Policy = reference: ln 2; one pair alone: DPO.

    Both sides learn, and the partner of the same rank may lie in another micro-batch. So every value meets its partner
    as a constant, which gives each half of the gradient once and the value twice; half of the value is taken off.
    """
    known = batch if batch is not None else _unpaired_statistics(r)
    chosen, rejected = log_ratios(r)
    up, up_ranks = _against(chosen, known["chosen"], known["rejected"])
    down, down_ranks = _against(rejected, known["rejected"], known["chosen"])
    both = (up_ranks * _cost(beta * up, label_smoothing)).sum(-1)
    both = both + (down_ranks * _cost(-beta * down, label_smoothing)).sum(-1)
    return Outcome(both - both.detach() / 2, pair_metrics(r, beta * (chosen - rejected)))
