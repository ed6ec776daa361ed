"""Objectives over pairs that pursue several goals at once: margins of other rewards, pairs of several dimensions.

Shapes: B examples, K attributes in the order of the run, D dimensions. The columns "attributes_w" and "attributes_l"
(B, K) hold the attribute scores of the chosen and the rejected response, NaN where nobody gave one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from .core import Outcome, Readings, objective
from .pairwise import gap, pair_metrics

__all__ = ["amopo", "modpo"]

LEAST_WEIGHT = 0.05  # of the pairs' own objective: its inverse scales the logit


# Margins of other rewards


def margin_gap(r: Readings, weights: Sequence[float]) -> Tensor:
    """sum_i w_i (r_i(y_w) - r_i(y_l)), (B,), without gradient. Raises ValueError for a score that is missing.

    An attribute of weight 0 is not looked at. A missing margin is neither a tie nor a pair less: both would change what
    is learned without a word.
    """
    gaps = (r["attributes_w"] - r["attributes_l"]).detach()
    weight = torch.tensor(weights, dtype=gaps.dtype, device=gaps.device)
    missing = gaps.isnan() & (weight != 0)
    if missing.any():
        where = ", ".join(str(i + 1) for i in missing.any(0).nonzero()[:, 0].tolist())
        raise ValueError(
            f"{int(missing.any(1).sum())} of {len(gaps)} pairs of this step lack a score of attribute {where} in the "
            "run's order, and a margin needs both responses' (score them, or leave those pairs out)."
        )
    return torch.where(weight != 0, gaps * weight, torch.zeros_like(gaps)).sum(-1)


def _margin_weights(own: float, others: Sequence[float] | None, attributes: int) -> tuple[float, ...]:
    """The weights of the margins, checked: `others` as given, else what `own` leaves of 1 in equal parts."""
    if not own >= LEAST_WEIGHT:
        raise ValueError(f"own_weight={own}: 1/own_weight scales the loss, so that it must be at least {LEAST_WEIGHT}.")
    if others is None:
        if own > 1:
            raise ValueError(f"own_weight={own} leaves nothing for the margins; give margin_weights as well.")
        return ((1 - own) / attributes,) * attributes
    if len(others) != attributes:
        raise ValueError(f"margin_weights has {len(others)} entries for {attributes} attributes.")
    if any(not 0 <= w < float("inf") for w in others):
        raise ValueError(f"margin_weights={list(others)}: weights are finite and not negative.")
    return tuple(others)


@objective(
    "modpo",
    needs=("w", "l", "ref_w", "ref_l", "attributes_w", "attributes_l"),
    formula="-log sigma((1/w_k) [beta rho - sum_{i != k} w_i (r_i(y_w) - r_i(y_l))]), or max(0, 1 - the same)",
    paper="Zhou et al. 2024, arXiv 2310.03708",
)
def modpo(
    r: Readings,
    *,
    beta: float = 0.1,
    own_weight: float = 0.5,
    margin_weights: Sequence[float] | None = None,
    hinge: bool = False,
) -> Outcome:
    """Multi-objective DPO: pairs of one objective k, and rewards r_i of the others as margins.

    `own_weight` is w_k of what the pairs were compared by, `margin_weights` the w_i of the run's attributes in their
    order; left out, they share 1 - w_k evenly. Attributes are read in their own units (scores.normal=none): with pairs
    drawn by r_k the optimum is that of sum_i w_i r_i - beta KL. The weights need not add up to 1.
    w_k = 1 and margins of 0: DPO. Policy = reference and no margin: ln 2 (hinge: 1). `accuracy` asks whether the
    policy prefers y_w, `agreement` whether the weighted margins do.
    Raises ValueError for w_k below 0.05 (the logit explodes), weights that do not fit, and missing scores.
    """
    weights = _margin_weights(own_weight, margin_weights, r["attributes_w"].shape[-1])
    others = margin_gap(r, weights)
    margin = beta * gap(r)
    z = (margin - others) / own_weight
    loss = relu(1 - z) if hinge else -logsigmoid(z)
    return Outcome(loss, pair_metrics(r, margin) | {"other_margin": others, "agreement": (others > 0).float()})


# Pairs of several dimensions


def _as_list(x: Tensor) -> Tensor:
    """(B,) as a list of one, (B, 1); a list as it is."""
    return x[:, None] if x.ndim == 1 else x


def _present(r: Readings) -> Tensor:
    """(B, D) which dimensions an example has."""
    own, other = (
        torch.ones_like(_as_list(r[name].length), dtype=torch.bool) if mask is None else mask.bool()
        for name in ("w", "l")
        for mask in [getattr(r[name], "mask", None)]
    )
    if own.shape != other.shape or not torch.equal(own, other) or not own[:, 0].all():
        raise ValueError(
            "chosen and rejected do not come in the same dimensions, the first of which every example has "
            "(conditioning mixes them up where an attribute contradicts the pair: set conditioning=none)."
        )
    return own


def _per_token(reading: Any, there: Tensor) -> tuple[Tensor, Tensor]:
    """(log-prob per token, number of tokens), (B, D) each; 0 and 1 where there is no response."""
    length = torch.where(there, _as_list(reading.length), 1)
    total = _as_list(reading.sum)
    return torch.where(there, total, torch.zeros_like(total)) / length, length


def token_probabilities(reading: Any) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of a response's token probabilities, (B, D) each, without gradient.

    `tokens` (M,) are log-probs end to end, `segment` (M,) the place b D + d of the response that each belongs to. The
    deviation is the sample's (n - 1); that of a single token is 0, and so are both where there is no token.
    """
    shape = _as_list(reading.length).shape
    p = reading.tokens.detach().float().exp()
    empty = torch.zeros(shape.numel(), dtype=p.dtype, device=p.device)
    count = empty.index_add(0, reading.segment, torch.ones_like(p))
    mean = empty.index_add(0, reading.segment, p) / count.clamp(min=1)
    squares = empty.index_add(0, reading.segment, (p - mean[reading.segment]).square())
    return mean.view(shape), (squares / (count - 1).clamp(min=1)).sqrt().view(shape)


def adaptive_weights(r: Readings, there: Tensor) -> Tensor:
    """omega (B, D): softmax over an example's own dimensions of u = n_w + n_l, without gradient.

    n ~ N(mean, deviation^2) of the token probabilities of each response. The sum of the two normals is drawn as one,
    from the column "noise" (B, D or more) of standard normals; without it (validation) u is its mean.
    """
    (mean_w, deviation_w), (mean_l, deviation_l) = token_probabilities(r["w"]), token_probabilities(r["l"])
    u = mean_w + mean_l
    if "noise" in r:
        u = u + (deviation_w.square() + deviation_l.square()).sqrt() * r["noise"][:, : u.shape[1]].to(u)
    return torch.softmax(torch.where(there, u, -torch.inf), -1)


@objective(
    "amopo",
    needs=("w", "l"),
    formula="sum_d omega_d (-log sigma(beta (log pi(y_w^d)/|y_w^d| - log pi(y_l^d)/|y_l^d|) - gamma)), "
    "omega = softmax_d(u_d)",
    paper="Liu et al. 2025, arXiv 2506.07165; form of the authors' code, softmax ours",
    reads=("tokens",),
    optional=("noise",),
)
def amopo(r: Readings, *, beta: float = 2.0, gamma: float = 0.5, nll_weight: float = 0.0) -> Outcome:
    """Adaptive multi-objective preference optimisation: SimPO in each dimension, weighted by how likely its pair is.

    "w" and "l" are lists (B, D), one pair a dimension; what the mask hides has no weight. A plain pair is a list of one
    and the loss SimPO's. The softmax runs over one example's dimensions (the authors' runs over the batch, where
    examples compete with one another). u equal: the mean of the D losses. `nll_weight` adds the NLL per token of the
    chosen responses, averaged over dimensions. Equal log-probs per token: ln(1 + e^gamma).
    Raises ValueError where the two lists do not fit, or an example lacks its first dimension, the pair as it is.
    """
    there = _present(r)
    (chosen, _), (rejected, _) = (_per_token(r[name], there) for name in ("w", "l"))
    margin = beta * (chosen - rejected)
    omega = adaptive_weights(r, there)
    losses = torch.where(there, -logsigmoid(margin - gamma), torch.zeros_like(margin))
    over = lambda x: torch.where(there, x, torch.zeros_like(x)).sum(-1) / there.sum(-1)
    nll = -over(chosen)
    metrics = {
        "accuracy": over((margin > 0).float()),
        "margin": over(margin),
        "chosen_logp": over(_as_list(r["w"].sum)),
        "rejected_logp": over(_as_list(r["l"].sum)),
        "largest_weight": omega.amax(-1),
        "nll": nll,
    }
    loss = (omega * losses).sum(-1) + nll_weight * nll
    return Outcome(loss, {name: value.detach() for name, value in metrics.items()})
