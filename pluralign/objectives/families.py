"""Families over a chosen and a rejected response: another curve over the gap, or another divergence in the reward.

h(y) = log pi(y|x) - log pi_ref(y|x), rho = h(y_w) - h(y_l), z = beta rho. A curve is a function of z alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from .core import Outcome, Readings, objective
from .divergences import LARGEST, score
from .pairwise import REFERENCED, gap, log_ratios, pair_metrics

__all__ = ["CURVES", "discopop", "exo", "f_dpo", "gpo", "slic_norm"]

CURVES: dict[str, Callable[[Tensor], Tensor]] = {
    "logistic": lambda z: -logsigmoid(z),
    "hinge": lambda z: relu(1 - z),
    "square": lambda z: (z - 1) ** 2,
    "exponential": lambda z: torch.exp((-z).clamp(max=LARGEST)),
    "truncated_quadratic": lambda z: relu(1 - z) ** 2,
    "savage": lambda z: torch.sigmoid(-z) ** 2,
}


@objective(
    "gpo",
    needs=REFERENCED,
    formula="f(z), z = beta rho: log(1 + e^-z), max(0, 1 - z), (z - 1)^2, e^-z, max(0, 1 - z)^2 or 1/(1 + e^z)^2",
    paper="Tang et al. 2024, arXiv 2402.05749",
)
def gpo(r: Readings, *, beta: float = 0.1, curve: str = "logistic") -> Outcome:
    """Generalised preference optimisation: any falling curve over the scaled gap, by name.

    "logistic" is DPO, "hinge" is `slic_norm`, "square" at beta = 2 tau is 4 tau^2 IPO. Policy = reference: ln 2, or 1
    for hinge, square, exponential and truncated_quadratic, or 1/4 for savage. Savage is not convex. Exponents stop at
    80. `gap_squared` is rho^2: the second term of the loss's series, which alone holds the policy to the reference.
    Raises ValueError for an unknown curve.
    """
    if curve not in CURVES:
        raise ValueError(f'unknown curve "{curve}": one of {", ".join(CURVES)}.')
    rho = gap(r)
    margin = beta * rho
    return Outcome(CURVES[curve](margin), pair_metrics(r, margin) | {"gap_squared": (rho**2).detach()})


@objective(
    "slic_norm",
    needs=REFERENCED,
    formula="max(0, 1 - beta rho)",
    paper="Liu et al. 2023, arXiv 2309.06657, hinge-norm",
)
def slic_norm(r: Readings, *, beta: float = 0.1) -> Outcome:
    """The hinge of SLiC on log-ratios to a reference (TRL's "hinge"); `slic` is the paper's own. Policy = reference: 1.

    Pairs with beta rho > 1 have no gradient.
    """
    margin = beta * gap(r)
    return Outcome(CURVES["hinge"](margin), pair_metrics(r, margin))


@objective(
    "f_dpo",
    needs=REFERENCED,
    formula="-log sigma(beta (s(h(y_w)) - s(h(y_l)))), s(h) = h, -e^-h, log sigma(h) or (1 - e^(-a h)) / a",
    paper="Wang et al. 2023, arXiv 2309.16240",
)
def f_dpo(r: Readings, *, beta: float = 0.1, divergence: str = "reverse_kl", divergence_alpha: float = 0.5) -> Outcome:
    """DPO under another f-divergence: reverse_kl (DPO), forward_kl, js, or alpha with `divergence_alpha` in [0, 1].

    The alpha-divergence is reverse KL at 0 and forward KL at 1 (TRL's coefficient is one less our alpha). Exponents
    stop at 80, so that a response e^80 times less likely than before does not become a NaN. Policy = reference: ln 2.
    Raises ValueError for an unknown divergence, or an alpha outside [0, 1].
    """
    chosen, rejected = (score(h, divergence, divergence_alpha) for h in log_ratios(r))
    margin = beta * (chosen - rejected)
    return Outcome(-logsigmoid(margin), pair_metrics(r, margin))


@objective(
    "discopop",
    needs=REFERENCED,
    formula="(1 - m) log(1 + e^-z) + m e^-z, m = sigma(z / tau), z = beta rho",
    paper="Lu et al. 2024, arXiv 2406.08414, Eq. 5",
)
def discopop(r: Readings, *, beta: float = 0.1, tau: float = 0.05) -> Outcome:
    """Log-ratio modulated loss, the one that a language model discovered. Policy = reference: (1 + ln 2) / 2.

    Not monotonic: at tau = 0.05 it rises from z = -0.1186 to z = 0.0720, and in between the gradient lowers the chosen
    response, at policy = reference too. That is the published loss, not a slip.
    """
    margin = beta * gap(r)
    logistic = -logsigmoid(margin) * torch.sigmoid(-margin / tau)
    # one exponent for m e^-z: it falls on both sides, where its factors overflow
    exponential = torch.exp((logsigmoid(margin / tau) - margin).clamp(max=LARGEST))
    return Outcome(logistic + exponential, pair_metrics(r, margin))


@objective(
    "exo",
    needs=REFERENCED,
    formula="KL((sigma(z), sigma(-z)) || (1 - eps, eps)), z = beta rho",
    paper="Ji et al. 2024, arXiv 2402.00856, Eq. 16",
)
def exo(r: Readings, *, beta: float = 0.1, label_smoothing: float = 1e-3) -> Outcome:
    """Efficient exact optimisation on pairs: the KL of DPO the other way round, which seeks a mode.

    `beta` is the policy's (their beta_pi); eps (`label_smoothing`) must be in (0, 1/2): at 0 the KL is infinite.
    The best gap is beta rho = ln((1 - eps) / eps). Policy = reference: -ln(4 eps (1 - eps)) / 2, 2.761 at eps = 0.001.
    Raises ValueError for another eps.
    """
    if not 0 < label_smoothing < 0.5:
        raise ValueError(f"label_smoothing={label_smoothing}: exo takes a probability in (0, 0.5), 0.001 in the paper.")
    margin = beta * gap(r)
    win, lose = logsigmoid(margin), logsigmoid(-margin)
    right, wrong = math.log1p(-label_smoothing), math.log(label_smoothing)
    return Outcome(win.exp() * (win - right) + lose.exp() * (lose - wrong), pair_metrics(r, margin))
