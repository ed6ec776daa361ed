"""Objectives over pairs that look at single tokens: a token's KL, its place, its probability.

A reading's `tokens`, `kl`, `collision` are (M,), all examples end to end; `segment` (M,) says whose each one is.
rho = h(y_w) - h(y_l), h(y) = log pi(y|x) - log pi_ref(y|x).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from .core import Outcome, Readings, objective
from .pairwise import log_ratios, pair_metrics

__all__ = ["ld_dpo", "segment_sum", "tdpo1", "tdpo2", "wpo"]

REFERENCED = ("w", "l", "ref_w", "ref_l")


def segment_sum(values: Tensor, reading: object) -> Tensor:
    """(M,) values added up by the example they belong to, (B,), in fp32 at least."""
    wide = torch.promote_types(values.dtype, torch.float32)
    total = torch.zeros(len(reading.length), dtype=wide, device=values.device)  # type: ignore[attr-defined]
    return total.index_add(0, reading.segment, values.to(wide))  # type: ignore[attr-defined]


def _places(reading: object) -> Tensor:
    """(M,) number of each token within its response, from 0."""
    length, segment = reading.length, reading.segment  # type: ignore[attr-defined]
    starts = torch.cumsum(length, 0) - length
    return torch.arange(len(segment), device=segment.device) - starts[segment]


def _sequential_kl(r: Readings) -> tuple[Tensor, Tensor]:
    """(B,) KL(pi_ref || pi) summed over the chosen and over the rejected response."""
    return segment_sum(r["w"].kl, r["w"]), segment_sum(r["l"].kl, r["l"])


def _tdpo(r: Readings, beta: float, excess: Tensor, chosen: Tensor, rejected: Tensor) -> Outcome:
    h_w, h_l = log_ratios(r)
    margin = beta * (h_w - h_l - excess)
    metrics = pair_metrics(r, margin) | {"chosen_kl": chosen.detach(), "rejected_kl": rejected.detach()}
    return Outcome(-logsigmoid(margin), metrics)


@objective(
    "tdpo1",
    needs=REFERENCED,
    formula="-log sigma(beta (rho - (KL(y_l) - KL(y_w)))), KL(y) = sum_t KL(pi_ref || pi) at t",
    paper="Zeng et al. 2024, arXiv 2404.11999, TDPO1",
    reads=("kl",),
)
def tdpo1(r: Readings, *, beta: float = 0.1) -> Outcome:
    """Token-level DPO with both sequential KLs in the gradient. Policy = reference: ln 2."""
    chosen, rejected = _sequential_kl(r)
    return _tdpo(r, beta, rejected - chosen, chosen, rejected)


@objective(
    "tdpo2",
    needs=REFERENCED,
    formula="-log sigma(beta (rho - c (KL(y_l) - sg KL(y_w)))), KL(y) = sum_t KL(pi_ref || pi) at t",
    paper="Zeng et al. 2024, arXiv 2404.11999, TDPO2",
    reads=("kl",),
)
def tdpo2(r: Readings, *, beta: float = 0.1, kl_weight: float = 0.5) -> Outcome:
    """Token-level DPO that stops the gradient of KL(y_w), and of nothing else. Policy = reference: ln 2.

    `kl_weight` is the paper's alpha; at 1 the value is that of `tdpo1`, at 0 it is DPO.
    """
    chosen, rejected = _sequential_kl(r)
    return _tdpo(r, beta, kl_weight * (rejected - chosen.detach()), chosen, rejected)


@objective(
    "ld_dpo",
    needs=REFERENCED,
    formula="-log sigma(beta rho), log-probs of tokens past min(|y_w|, |y_l|) times a, in policy and reference",
    paper="Liu et al. 2024, arXiv 2409.06411",
    reads=("tokens",),
)
def ld_dpo(r: Readings, *, beta: float = 0.1, ld_alpha: float = 0.5) -> Outcome:
    """Length-desensitised DPO: tokens past the shorter response's length count `ld_alpha`. Policy = reference: ln 2.

    `ld_alpha` 1 is DPO; at 0 both responses are read for as many tokens as the shorter one has.
    Places count response tokens, so that the prompt's length plays no part. The reference is cut like the policy: with
    the policy alone a longer response would start with a reward of its own.
    """
    shared = torch.minimum(r["w"].length, r["l"].length)

    def desensitised(name: str) -> Tensor:
        reading = r[name]
        inside = _places(reading) < shared[reading.segment]
        return segment_sum(torch.where(inside, reading.tokens, ld_alpha * reading.tokens), reading)

    chosen = desensitised("w") - desensitised("ref_w")
    rejected = desensitised("l") - desensitised("ref_l")
    margin = beta * (chosen - rejected)
    return Outcome(-logsigmoid(margin), pair_metrics(r, margin))


@objective(
    "wpo",
    needs=REFERENCED,
    formula="-sg(w(y_w) w(y_l)) log sigma(beta rho), log w(y) = (1/|y|) sum_t (log pi(y_t) - log sum_v pi(v)^2)",
    paper="Zhou et al. 2024, arXiv 2406.11827, Eq. 2, sampled alignment",
    reads=("tokens", "collision"),
)
def wpo(r: Readings, *, beta: float = 0.1, max_weight: float | None = None) -> Outcome:
    """Weighted preference optimisation: pairs the policy itself would write count more. Policy = reference: w ln 2.

    A token sampled from the policy has pi(y_t) / sum_v pi(v)^2 = 1 on average, whatever its entropy there. Responses
    that are likelier than samples weigh more than 1; `max_weight` caps the product of both (TRL once did, at 1).
    """

    def log_weight(name: str) -> Tensor:
        reading = r[name]
        return segment_sum(reading.tokens.detach() - reading.collision.detach(), reading) / reading.length

    weight = torch.exp(log_weight("w") + log_weight("l"))
    if max_weight is not None:
        weight = weight.clamp(max=max_weight)
    chosen, rejected = log_ratios(r)
    margin = beta * (chosen - rejected)
    return Outcome(weight * -logsigmoid(margin), pair_metrics(r, margin) | {"pair_weight": weight})
