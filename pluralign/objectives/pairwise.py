"""Objectives over one chosen and one rejected response.

h(y) = log pi(y|x) - log pi_ref(y|x), rho = h(y_w) - h(y_l); a bar means per token. The gradient raises y_w, lowers y_l.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from .core import Outcome, Readings, objective

__all__ = ["dpo", "ipo", "simpo"]

PAIR = ("w", "l")
REFERENCED = ("w", "l", "ref_w", "ref_l")


def log_ratios(r: Readings) -> tuple[Tensor, Tensor]:
    """(h(y_w), h(y_l)), each (B,) nats."""
    return r["w"].sum - r["ref_w"].sum, r["l"].sum - r["ref_l"].sum


def pair_metrics(r: Readings, margin: Tensor) -> dict[str, Tensor]:
    """Accuracy is strict: a tie is no win. `margin` is the implicit reward difference."""
    metrics = {
        "accuracy": (margin > 0).float(),
        "margin": margin,
        "chosen_logp": r["w"].sum,
        "rejected_logp": r["l"].sum,
    }
    if "ref_w" in r:
        chosen, rejected = log_ratios(r)
        metrics |= {"chosen_drift": chosen, "rejected_drift": rejected}
    return {name: value.detach() for name, value in metrics.items()}


@objective(
    "dpo",
    needs=REFERENCED,
    formula="-log sigma(beta rho)",
    paper="Rafailov et al. 2023, arXiv 2305.18290, Eq. 7",
)
def dpo(r: Readings, *, beta: float = 0.1) -> Outcome:
    """Direct preference optimisation. Policy = reference: ln 2."""
    chosen, rejected = log_ratios(r)
    margin = beta * (chosen - rejected)
    return Outcome(-logsigmoid(margin), pair_metrics(r, margin))


@objective(
    "ipo",
    needs=REFERENCED,
    formula="(rho - 1/(2 tau))^2, rho summed or per token",
    paper="Azar et al. 2023, arXiv 2310.12036, Eq. 17",
)
def ipo(r: Readings, *, tau: float = 0.1, length_average: bool = False) -> Outcome:
    """Identity preference optimisation: a bounded target 1/(2 tau) for the log-ratio gap.

    `length_average` divides each log-ratio by its own length, as TRL does; the target is then nats per token,
    which is another objective: 5 nats a token at tau = 0.1 can hardly be reached. Policy = reference: 1/(2 tau)^2.
    """
    chosen, rejected = log_ratios(r)
    if length_average:
        chosen, rejected = chosen / r["w"].length, rejected / r["l"].length
    gap = chosen - rejected
    return Outcome((gap - 1 / (2 * tau)) ** 2, pair_metrics(r, tau * gap))


@objective(
    "simpo",
    needs=PAIR,
    formula="-log sigma(beta (log pi(y_w)/|y_w| - log pi(y_l)/|y_l|) - gamma)",
    paper="Meng, Xia, Chen 2024, arXiv 2405.14734, Eq. 6",
)
def simpo(r: Readings, *, beta: float = 2.0, gamma: float = 0.5) -> Outcome:
    """Simple preference optimisation, reference-free. `gamma` is absolute (their gamma_beta_ratio times beta).

    Equal log-probs per token: ln(1 + e^gamma).
    """
    gap = beta * (r["w"].mean - r["l"].mean)
    return Outcome(-logsigmoid(gap - gamma), pair_metrics(r, gap))
