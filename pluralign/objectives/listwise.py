"""Objectives over a list of responses to one prompt, with scores (higher is better).

h(y) = log pi(y|x) - log pi_ref(y|x), v = beta h. Lists are padded to K; what the mask hides changes nothing. Equal
scores say nothing about one another: no pair is made of them, and among the best (or worst) the mean is taken, so that
the order of the list never matters. A list without two different scores has no pair: its accuracy and margin are 0.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import relu, softplus

from .core import Outcome, Readings, objective

__all__ = ["info_nca", "lipo", "nca_list", "plackett_luce", "rrhf"]

LIST = ("ys", "scores")
REFERENCED = ("ys", "ref_ys", "scores")


def _mask(r: Readings) -> Tensor:
    return r["ys"].mask.bool()


def _present(x: Tensor, mask: Tensor) -> Tensor:
    """`x` with zeros under the mask, so that nothing hidden there (an infinity, a NaN) reaches value or gradient."""
    return torch.where(mask, x, torch.zeros_like(x))


def _drifts(r: Readings) -> Tensor:
    """h of every response, (B, K) nats."""
    return _present(r["ys"].sum, _mask(r)) - _present(r["ref_ys"].sum, _mask(r))


def _better(r: Readings) -> Tensor:
    """(B, K, K) bool: [b, i, j] where response i has a strictly higher score than j."""
    mask, scores = _mask(r), r["scores"]
    return (scores[:, :, None] > scores[:, None, :]) & mask[:, :, None] & mask[:, None, :]


def _over(x: Tensor, at: Tensor, dims: tuple[int, ...] = (-1,)) -> Tensor:
    """The mean of `x` over `dims` where `at`; 0 where that is nowhere."""
    return _present(x, at).sum(dims) / at.sum(dims).clamp(min=1)


def _extremes(r: Readings) -> tuple[Tensor, Tensor]:
    """(B, K) bool each: the best-scored and the worst-scored responses, all of them where several are equal."""
    mask, scores = _mask(r), r["scores"]
    best = torch.where(mask, scores, -torch.inf).amax(-1, keepdim=True)
    worst = torch.where(mask, scores, torch.inf).amin(-1, keepdim=True)
    return mask & (scores == best), mask & (scores == worst)


def _metrics(r: Readings, value: Tensor) -> dict[str, Tensor]:
    """Those of pairs, over all ordered pairs of the list; chosen and rejected are its best and its worst."""
    better, (best, worst) = _better(r), _extremes(r)
    gap = value[:, :, None] - value[:, None, :]
    metrics = {
        "accuracy": _over((gap > 0).float(), better, (-2, -1)),
        "margin": _over(gap, better, (-2, -1)),
        "chosen_logp": _over(r["ys"].sum, best),
        "rejected_logp": _over(r["ys"].sum, worst),
    }
    if "ref_ys" in r:
        h = _drifts(r)
        metrics |= {"chosen_drift": _over(h, best), "rejected_drift": _over(h, worst)}
    return {name: x.detach() for name, x in metrics.items()}


@objective(
    "rrhf",
    needs=LIST,
    formula="u sum_{r_i < r_j} max(0, p_i - p_j) + c NLL(y_best), p = log pi(y|x) / |y|^q",
    paper="Yuan et al. 2023, arXiv 2304.05302, section 3",
)
def rrhf(
    r: Readings,
    *,
    rank_weight: float = 1.0,
    nll_weight: float = 1.0,
    nll_average: bool = False,
    length_power: float = 1.0,
) -> Outcome:
    """Rank responses to align human feedback, reference-free.

    The NLL of the best response is summed, as the paper prints it; `nll_average` takes it per token, as the authors'
    code does. A list in order: that NLL alone. Lengths count the response's own tokens, never its padding.
    """
    mask = _mask(r)
    length = r["ys"].length.clamp(min=1)
    logp = _present(r["ys"].sum, mask)
    p = logp / length**length_power
    better = _better(r)
    hinge = _present(relu(p[:, None, :] - p[:, :, None]), better).sum((-2, -1))
    best, _ = _extremes(r)
    nll = -_over(logp / length if nll_average else logp, best)
    metrics = _metrics(r, p) | {"hinge": hinge.detach(), "nll": nll.detach()}
    return Outcome(rank_weight * hinge + nll_weight * nll, metrics)


@objective(
    "plackett_luce",
    needs=REFERENCED,
    formula="-sum_i log(e^{v_i} / (e^{v_i} + sum_{j: r_j < r_i} e^{v_j})), v = beta h",
    paper="Rafailov et al. 2023, arXiv 2305.18290, appendix A.3",
)
def plackett_luce(r: Readings, *, beta: float = 0.1) -> Outcome:
    """DPO over rankings. Policy = reference: sum_i ln(1 + how many are worse than i), ln K! without ties; K = 2: DPO.

    Each response competes with those of strictly lower score. Without ties that is the paper's product of choices from
    what is left; equal scores do not compete with each other (ours: the paper has no ties).
    """
    v = beta * _drifts(r)
    rivals = _better(r) | torch.eye(v.shape[1], dtype=torch.bool, device=v.device)
    field = torch.where(rivals, v[:, None, :], -torch.inf).logsumexp(-1)
    return Outcome((field - v).sum(-1), _metrics(r, v))


@objective(
    "lipo",
    needs=REFERENCED,
    formula="sum_{r_i > r_j} |2^{r_i} - 2^{r_j}| |1/ln(1 + rank_i) - 1/ln(1 + rank_j)| log(1 + e^{-(v_i - v_j)})",
    paper="Liu et al. 2024, arXiv 2402.01878, LiPO-lambda",
)
def lipo(r: Readings, *, beta: float = 0.1) -> Outcome:
    """Listwise preference optimisation with lambda weights; `rank` is by v, 1 for the likeliest, without gradient.

    Gains 2^r are the paper's and made for scores between 0 and 1: bring others to that range first. Equal v are ranked
    by score (ours), without which nothing would be learned where the policy is the reference. K = 2: DPO times
    |2^{r_w} - 2^{r_l}| (1/ln 2 - 1/ln 3).
    """
    v, mask, scores = beta * _drifts(r), _mask(r), r["scores"]
    gap = v[:, :, None] - v[:, None, :]
    gain = torch.exp2(_present(scores, mask).to(v))
    with torch.no_grad():
        same = gap == 0
        earlier = torch.ones_like(gap[0]).tril(-1).bool()  # [i, j] where j stands before i in the list
        equal = scores[:, :, None] == scores[:, None, :]
        ahead = (gap < 0) | (same & (scores[:, None, :] > scores[:, :, None])) | (same & equal & earlier)
        rank = 1 + (ahead & mask[:, None, :]).sum(-1)
        discount = 1 / torch.log1p(rank.to(v))
        weight = (gain[:, :, None] - gain[:, None, :]).abs() * (discount[:, :, None] - discount[:, None, :]).abs()
    return Outcome(_present(weight * softplus(-gap), _better(r)).sum((-2, -1)), _metrics(r, v))


def _targets(r: Readings, like: Tensor, temperature: float) -> Tensor:
    """softmax of scores / temperature over the responses that are there, (B, K)."""
    return torch.where(_mask(r), r["scores"].to(like) / temperature, -torch.inf).softmax(-1)


@objective(
    "info_nca",
    needs=REFERENCED,
    formula="-sum_i softmax(r / alpha)_i log softmax(v)_i",
    paper="Chen et al. 2024, arXiv 2402.05369, InfoNCA",
)
def info_nca(r: Readings, *, beta: float = 0.1, score_temperature: float = 1.0) -> Outcome:
    """Noise contrastive alignment with explicit rewards, softmax form. Policy = reference: ln K.

    `score_temperature` is the paper's alpha. K = 2 and alpha -> 0: DPO.
    """
    v, mask = beta * _drifts(r), _mask(r)
    log_share = v - torch.where(mask, v, -torch.inf).logsumexp(-1, keepdim=True)
    loss = -_present(_targets(r, v, score_temperature) * log_share, mask).sum(-1)
    return Outcome(loss, _metrics(r, v))


@objective(
    "nca_list",
    needs=REFERENCED,
    formula="-sum_i (softmax(r / alpha)_i log sigma(v_i) + (1/K) log sigma(-v_i))",
    paper="Chen et al. 2024, arXiv 2402.05369, NCA",
)
def nca_list(r: Readings, *, beta: float = 0.1, score_temperature: float = 1.0) -> Outcome:
    """Noise contrastive alignment on absolute likelihoods: the best one stays likely. Policy = reference: 2 ln 2.

    `score_temperature` is the paper's alpha; alpha -> 0 puts all on the best, which for K = 2 is the pair's NCA.
    """
    v, mask = beta * _drifts(r), _mask(r)
    share = 1 / mask.sum(-1, keepdim=True).clamp(min=1)
    terms = _targets(r, v, score_temperature) * softplus(-v) + share * softplus(v)
    return Outcome(_present(terms, mask).sum(-1), _metrics(r, v))
