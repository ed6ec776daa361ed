"""Objectives over beliefs: a question's options, how people are spread over them, and answers that hold one (GDPO).

p(y | x) = sum_b p(b | x) p(y | x, b). Readings, for B examples with up to K options:

    "b"        (B, K) log pi(number of option k | x): `.sum`, `.length`, `.mask` (False: the question has fewer options)
    "belief"   log pi(text of the accepted option | x, its number)
    "w", "l"   log pi(y | x, b), b the accepted option in both: its tokens are shown and not scored
    "share"    (B, K) the shares p*(b | x) of the data; "accept" (B,) the accepted option; "majority" (B,) 1 where no
               option has a larger share

Every loss is one of the example alone: none is a mean over the batch.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .core import Outcome, Readings, objective
from .pairwise import REFERENCED, dpo

__all__ = ["belief_nll", "calibration", "gdpo", "js_distance", "kl", "option_log_probs"]

PAPER = "Yao et al. 2025, arXiv 2412.20299"
OPTIONS = ("b", "share")
BELIEF = ("b", "belief", "accept")


def option_log_probs(r: Readings, *, restricted: bool = False) -> Tensor:
    """log q(b | x) (B, K), -inf where a question has no such option.

    As the model has it over everything it could write (then q adds up to less than 1), or `restricted`: over the
    options alone.
    """
    q = r["b"].sum.masked_fill(~r["b"].mask.bool(), -torch.inf)
    return q - q.logsumexp(-1, keepdim=True) if restricted else q


def kl(share: Tensor, log_q: Tensor) -> Tensor:
    """KL(p* || q) (B,) nats, with 0 log 0 = 0; log_q may be -inf where p* is 0. It is not negative where q adds up to
    at most 1."""
    there = share > 0
    entropy = torch.special.xlogy(share, share).sum(-1)
    return entropy - (share * torch.where(there, log_q, torch.zeros_like(log_q))).sum(-1)


def js_distance(p: Tensor, q: Tensor) -> Tensor:
    """The square root of the Jensen-Shannon divergence (natural logarithm) of distributions (B, K), 0 to sqrt(ln 2)."""
    middle = (p + q) / 2
    half = lambda a: torch.where(a > 0, a * (a.clamp(min=1e-30).log() - middle.clamp(min=1e-30).log()), 0.0).sum(-1)
    return ((half(p) + half(q)) / 2).clamp(min=0).sqrt()


def belief_metrics(r: Readings) -> dict[str, Tensor]:
    """How far q is from p*, over the options alone, and what of q lies on none of them."""
    share, q = r["share"].detach(), option_log_probs(r).detach()
    near = option_log_probs(r, restricted=True).detach()
    return {"js_distance": js_distance(share, near.exp()), "off_option": 1 - q.exp().sum(-1)}


@objective(
    "calibration",
    needs=OPTIONS,
    formula="KL(p* || q), q(k) = pi(number of option k | x), or that divided by its sum over k",
    paper=PAPER,
)
def calibration(r: Readings, *, restricted: bool = False) -> Outcome:
    """How people are spread over the options of a question, learned from their shares.

    Over the whole vocabulary (the authors' code) the loss also pulls mass onto the options; `restricted` compares the
    options with one another only. One option: -log q_1, restricted 0. No gradient at q = p*, which is its minimum.
    """
    loss = kl(r["share"].detach(), option_log_probs(r, restricted=restricted))
    return Outcome(loss, belief_metrics(r) | {"calibration": loss.detach()})


def _accepted(r: Readings) -> tuple[Tensor, Tensor]:
    """(log-prob, tokens) of the accepted option's number and text, (B,) each."""
    at = r["accept"].long()[:, None]
    number, length = (x.gather(1, at)[:, 0] for x in (r["b"].sum, r["b"].length))
    return number + r["belief"].sum, length + r["belief"].length


@objective(
    "belief_nll",
    needs=BELIEF,
    formula="-log pi(number and text of the accepted option | x) per token",
    paper=PAPER,
)
def belief_nll(r: Readings) -> Outcome:
    """The likelihood of what the response begins with, so that the option's text follows its number."""
    total, length = _accepted(r)
    loss = -total / length
    return Outcome(loss, {"belief_nll": loss.detach()})


@objective(
    "gdpo",
    needs=(*REFERENCED, *OPTIONS, "belief", "accept", "majority"),
    formula="w_1 KL(p* || q) - w_2 log sigma(beta rho_b) - w_3 log pi(b|x) per token - w_4 log pi(b, y_w|x) per token",
    paper=PAPER,
)
def gdpo(
    r: Readings,
    *,
    beta: float = 0.1,
    calibration_weight: float = 1.0,
    preference_weight: float = 1.0,
    belief_weight: float = 1.0,
    imitation_weight: float = 0.0,
    restricted: bool = False,
) -> Outcome:
    """Group distributional preference optimisation: what the group believes, and answers that express a belief.

    rho_b is DPO's gap of answers behind the accepted belief, whose own tokens count in neither log-prob. Weights (1, 1,
    1, 0) are GDPO, (0, 1, 0, 0) its cdpo, (1, 0, 1, 0) its mft and (0, 0, 0, 1) its sft mode. Another preference in
    place of DPO is a sum: "ipo + calibration + belief_nll".
    Policy = reference: the preference's part is ln 2. `majority_...` and `minority_...` are means over those pairs.
    Raises ValueError for a weight below 0, and where all are 0.
    """
    weights = (calibration_weight, preference_weight, belief_weight, imitation_weight)
    if min(weights) < 0 or not any(weights):
        raise ValueError(f"the weights of gdpo are {weights}; none may be below 0, and one must be above.")
    preference, belief = dpo(r, beta=beta), belief_nll(r)
    spread = kl(r["share"].detach(), option_log_probs(r, restricted=restricted))
    total, length = _accepted(r)
    imitation = -(total + r["w"].sum) / (length + r["w"].length)
    parts = (spread, preference.loss, belief.loss, imitation)
    loss = torch.stack([w * part for w, part in zip(weights, parts, strict=True) if w]).sum(0)
    names = ("calibration", "preference", "belief_nll", "nll_per_token")
    shown = {name: part.detach() for name, part in zip(names, parts, strict=True)}
    return Outcome(loss, {**preference.metrics, **belief_metrics(r), **shown, **_by_group(r, preference.metrics)})


def _by_group(r: Readings, metrics: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Margin and accuracy of the pairs that argue for the majority's belief, and of the others: one value a pair of
    that group, so that each mean is over its own."""
    majority = r["majority"] > 0.5
    groups = {"majority": majority, "minority": ~majority}
    return {f"{g}_{name}": metrics[name][own] for g, own in groups.items() for name in ("margin", "accuracy")}
