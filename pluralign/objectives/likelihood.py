"""Objectives with the likelihood of a response in them: alone, or beside a preference without a reference.

p(y) = exp(log pi(y|x) / |y|), the geometric mean of the token probabilities.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from .core import Outcome, Reading, Readings, objective
from .pairwise import PAIR, pair_metrics, tilt

__all__ = ["cpo", "nll", "orpo", "sft", "slic"]

CERTAIN = -1e-6  # the largest log-probability whose odds are still finite in fp32


@objective("sft", needs=("y",), formula="-log pi(y|x), per token", paper="maximum likelihood", per_token=True)
def sft(r: Readings) -> Outcome:
    """Supervised fine-tuning on the response only. The trainer divides the sum by the global number of tokens."""
    loss = -r["y"].sum
    return Outcome(loss, {"nll_per_token": (loss / r["y"].length).detach()})


@objective("nll", needs=PAIR, formula="-log pi(y_w|x) / |y_w|", paper="maximum likelihood")
def nll(r: Readings) -> Outcome:
    """The likelihood of the chosen response per token: what is mixed into a preference loss ("dpo + 0.2*nll").

    Every pair weighs the same; `sft` weighs tokens and takes no pairs apart. y_l is read for the metrics only.
    """
    margin = r["w"].mean - r["l"].mean
    loss = -r["w"].mean
    return Outcome(loss, pair_metrics(r, margin) | {"nll_per_token": loss.detach()})


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - e^x) for x < 0, to the last digits at both ends."""
    near, far = x.clamp(min=-math.log(2)), x.clamp(max=-math.log(2))
    return torch.where(x > -math.log(2), torch.log(-torch.expm1(near)), torch.log1p(-torch.exp(far)))


def log_odds(x: Tensor) -> Tensor:
    """log(p / (1 - p)) of log-probabilities x <= 0, in fp32 at least; above -1e-6 they count as -1e-6."""
    x = x.to(torch.promote_types(x.dtype, torch.float32)).clamp(max=CERTAIN)
    return x - log1mexp(x)


@objective(
    "orpo",
    needs=PAIR,
    formula="-log p(y_w) - lambda log sigma(logit p(y_w) - logit p(y_l)), p(y) = pi(y)^(1/|y|)",
    paper="Hong, Lee, Thorne 2024, arXiv 2403.07691, Eq. 6 and 7",
    optional=("tilt",),
)
def orpo(r: Readings, *, odds_weight: float = 0.1) -> Outcome:
    """Odds ratio preference optimisation: fine-tuning and preference in one stage. `odds_weight` is lambda, 0 is `nll`.

    The likelihood is of response tokens, as InSPO's Table 1 prints it; the official code and TRL add the prompt's.
    Equal log-probs per token: -log p + lambda ln 2.
    """
    margin = log_odds(r["w"].mean) - log_odds(r["l"].mean) + tilt(r)
    likelihood = -r["w"].mean
    loss = likelihood - odds_weight * logsigmoid(margin)
    return Outcome(loss, pair_metrics(r, margin) | {"nll_per_token": likelihood.detach()})


def _likelihood(y: Reading, average: bool) -> Tensor:
    return -(y.mean if average else y.sum)


@objective(
    "cpo",
    needs=PAIR,
    formula="-log sigma(beta (log pi(y_w) - log pi(y_l))) + c NLL(y_w)",
    paper="Xu et al. 2024, arXiv 2401.08417",
    optional=("tilt",),
)
def cpo(r: Readings, *, beta: float = 0.1, nll_weight: float = 1.0, nll_average: bool = True) -> Outcome:
    """Contrastive preference optimisation: DPO under a uniform reference, and the likelihood of y_w.

    `nll_weight` is c; the NLL is per token, as the authors run it, or of the whole response (`nll_average` false, as
    they print it). Sums favour short winners. Equal log-probs: ln 2 + c NLL(y_w).
    """
    margin = beta * (r["w"].sum - r["l"].sum) + tilt(r)
    likelihood = _likelihood(r["w"], nll_average)
    loss = -logsigmoid(margin) + nll_weight * likelihood
    return Outcome(loss, pair_metrics(r, margin) | {"nll": likelihood.detach()})


@objective(
    "slic",
    needs=PAIR,
    formula="max(0, delta - log pi(y_w) + log pi(y_l)) + lambda NLL(y_w)",
    paper="Zhao et al. 2023, arXiv 2305.10425",
    optional=("tilt",),
)
def slic(r: Readings, *, hinge_margin: float = 1.0, nll_weight: float = 0.1, nll_average: bool = False) -> Outcome:
    """Sequence likelihood calibration: the winner `hinge_margin` (delta) nats above, and its likelihood as regulariser.

    Both of whole responses; `nll_average` takes the NLL per token. The regulariser is on the chosen response, where the
    paper also allows a separate target. Equal log-probs: delta + lambda NLL(y_w).
    """
    margin = r["w"].sum - r["l"].sum + tilt(r)
    likelihood = _likelihood(r["w"], nll_average)
    loss = relu(hinge_margin - margin) + nll_weight * likelihood
    return Outcome(loss, pair_metrics(r, margin) | {"nll": likelihood.detach()})
