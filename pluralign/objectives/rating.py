"""Objectives of heads that score: attribute models and reward models, and the loss of a sensing head.

Scores are (B, K), K attributes; NaN in the data means that nobody gave one. What is missing is masked: it enters no
sum, no count and no gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from .core import Outcome, Readings, objective

__all__ = ["masked_mean", "masked_squared_error", "rating", "rating_bt"]


def masked_squared_error(found: Tensor, wanted: Tensor) -> Tensor:
    """||wanted - found||^2 over the known attributes, (B,): SGA's L_MSE (Eq. 7) where all are known.

    It is a sum, as the Gaussian likelihood of Eq. 13 has it, and not divided by the number of attributes.
    """
    known = ~wanted.isnan()
    gap = torch.where(known, found, 0.0) - torch.where(known, wanted, 0.0)
    return gap.square().sum(-1)


def masked_mean(values: Tensor) -> Tensor:
    """Mean over the entries of each row that are numbers, (B,); 0 where none is."""
    known = ~values.isnan()
    return torch.where(known, values, 0.0).sum(-1) / known.sum(-1).clamp(min=1)


@objective(
    "rating",
    needs=("y", "attributes"),
    formula="sum_k (s_k - r_k(x, y))^2 over the known attributes",
    paper="Dong et al. 2023, arXiv 2310.05344, step 1",
    reads=("rated",),
)
def rating(r: Readings) -> Outcome:
    """SteerLM's attribute model: regression of the scores at the response's last token."""
    found, wanted = r["y"].rated, r["attributes"]
    off = masked_mean((found - wanted).abs())
    return Outcome(masked_squared_error(found, wanted), {"rating_error": off.detach()})


@objective(
    "rating_bt",
    needs=("w", "l", "attributes_w", "attributes_l"),
    formula="mean_k log(1 + exp(-sign(s_k(y_w) - s_k(y_l)) (r_k(x, y_w) - r_k(x, y_l)))), ties left out",
    paper="Bradley and Terry 1952; one comparison an attribute",
    reads=("rated",),
)
def rating_bt(r: Readings) -> Outcome:
    """A reward model with one score an attribute, from which of the two responses scores higher on it."""
    order = torch.sign(r["attributes_w"] - r["attributes_l"]).nan_to_num()  # 0: a tie or a missing score says nothing
    gap = r["w"].rated - r["l"].rated
    count = (order != 0).sum(-1)
    loss = ((order != 0) * softplus(-order * gap)).sum(-1) / count.clamp(min=1)
    right = (order * gap.detach() > 0).sum(-1) / count
    return Outcome(loss, {"rating_accuracy": torch.where(count > 0, right, 0.5)})
