"""Objectives over one chosen and one rejected response: functions of the log-ratio gap, with or without a reference.

h(y) = log pi(y|x) - log pi_ref(y|x), rho = h(y_w) - h(y_l); a bar means per token. The gradient raises y_w, lowers y_l.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from .core import Outcome, Readings, objective
from .divergences import power

__all__ = [
    "alphapo",
    "cdpo",
    "dpo",
    "dpo_offset",
    "dpop",
    "ipo",
    "r_dpo",
    "robust",
    "sigmoid_norm",
    "simpo",
    "spce",
]

PAIR = ("w", "l")
REFERENCED = ("w", "l", "ref_w", "ref_l")
SATURATED = 4.6  # nats: beyond it the other label has less than 1 % in the eyes of a logistic loss


def log_ratios(r: Readings) -> tuple[Tensor, Tensor]:
    """(h(y_w), h(y_l)), each (B,) nats."""
    return r["w"].sum - r["ref_w"].sum, r["l"].sum - r["ref_l"].sum


def gap(r: Readings) -> Tensor:
    """rho, (B,) nats."""
    chosen, rejected = log_ratios(r)
    return chosen - rejected


def gap_per_token(r: Readings) -> Tensor:
    """The gap of log-ratios that are each divided by their own length, (B,) nats a token."""
    return (r["w"].mean - r["ref_w"].mean) - (r["l"].mean - r["ref_l"].mean)


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
    margin = beta * gap(r)
    return Outcome(-logsigmoid(margin), pair_metrics(r, margin))


# Labels that may be wrong, or that are more than a label


def _soft(r: Readings, beta: float, right: Tensor | float) -> Outcome:
    """Cross-entropy with a label that is right with probability `right`."""
    margin = beta * gap(r)
    loss = -right * logsigmoid(margin) - (1 - right) * logsigmoid(-margin)
    return Outcome(loss, pair_metrics(r, margin))


@objective(
    "cdpo",
    needs=REFERENCED,
    formula="-(1 - eps) log sigma(beta rho) - eps log sigma(-beta rho)",
    paper="Mitchell 2023, A note on DPO with noisy preferences and its relationship to IPO",
)
def cdpo(r: Readings, *, beta: float = 0.1, label_smoothing: float = 0.1) -> Outcome:
    """Conservative DPO: the label is wrong with probability eps (`label_smoothing`). Policy = reference: ln 2.

    The best gap is finite, beta rho = ln((1 - eps) / eps); past it the chosen response is lowered. eps 0 is DPO.
    """
    return _soft(r, beta, 1 - label_smoothing)


@objective(
    "spce",
    needs=(*REFERENCED, "p"),
    formula="-p log sigma(beta rho) - (1 - p) log sigma(-beta rho), p the probability that y_w is better",
    paper="Soft-preference cross-entropy of online self-preferring models; form ours",
)
def spce(r: Readings, *, beta: float = 0.1) -> Outcome:
    """Soft labels: the column "p" (B,) in [0, 1] says how sure the annotator is of y_w. Policy = reference: ln 2.

    p = 1 is DPO, p = 1/2 holds the gap at 0, p < 1/2 turns the pair round (accuracy still counts y_w as the better).
    """
    return _soft(r, beta, r["p"].detach())


@objective(
    "robust",
    needs=REFERENCED,
    formula="(-(1 - eps) log sigma(beta rho) + eps log sigma(-beta rho)) / (1 - 2 eps)",
    paper="Chowdhury et al. 2024, arXiv 2403.00409",
)
def robust(r: Readings, *, beta: float = 0.1, label_smoothing: float = 0.1) -> Outcome:
    """Robust DPO: where labels are flipped with probability eps, its expectation is the DPO of the clean labels.

    Policy = reference: ln 2. eps 0 is DPO. The loss of one pair has no lower bound (only the expectation over flips
    has): for a confident pair it falls like -eps / (1 - 2 eps) beta rho. Raises ValueError for eps outside [0, 1/2).
    """
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing={label_smoothing}: robust takes the rate of wrong labels, in [0, 0.5).")
    margin = beta * gap(r)
    wrong, right = label_smoothing, 1 - label_smoothing
    loss = (-right * logsigmoid(margin) + wrong * logsigmoid(-margin)) / (right - wrong)
    return Outcome(loss, pair_metrics(r, margin))


@objective(
    "dpo_offset",
    needs=(*REFERENCED, "margin"),
    formula="-log sigma(beta rho - alpha m), m the margin of the data (or its logarithm)",
    paper="Amini, Vieira, Cotterell 2024, arXiv 2402.10571",
)
def dpo_offset(
    r: Readings, *, beta: float = 0.1, margin_weight: float = 1.0, log_margin: bool = False, least_margin: float = 0.01
) -> Outcome:
    """DPO with an offset: a pair that is clearly better must be clearly likelier. alpha is `margin_weight`, 0 is DPO.

    The column "margin" is in the data's own units. `log_margin` takes its logarithm, as the paper's runs do; margins
    under `least_margin` count as that much then (ours: a tie would be an infinite offset).
    Policy = reference: ln(1 + e^(alpha m)).
    """
    given = r["margin"].detach()
    offset = margin_weight * (given.clamp(min=least_margin).log() if log_margin else given)
    margin = beta * gap(r)
    return Outcome(-logsigmoid(margin - offset), pair_metrics(r, margin) | {"offset": offset})


# Length and likelihood


@objective(
    "r_dpo",
    needs=REFERENCED,
    formula="-log sigma(beta rho + alpha (|y_w| - |y_l|))",
    paper="Park et al. 2024, arXiv 2403.19159",
)
def r_dpo(r: Readings, *, beta: float = 0.1, length_alpha: float = 0.05) -> Outcome:
    """Length-regularised DPO: the reward is quality less alpha |y|, so a longer winner has less left to prove.

    alpha (`length_alpha`) is in nats a token; 0 is DPO. Policy = reference: ln(1 + e^(-alpha (|y_w| - |y_l|))).
    `saturated` is the share of pairs that lengths alone decide to 99 %: much of it, and alpha is too large.
    """
    margin = beta * gap(r)
    lengths = length_alpha * (r["w"].length - r["l"].length).to(margin)
    more = {"length_term": lengths, "saturated": (lengths.abs() > SATURATED).float()}
    return Outcome(-logsigmoid(margin + lengths), pair_metrics(r, margin) | more)


@objective(
    "sigmoid_norm",
    needs=REFERENCED,
    formula="-log sigma(beta (h(y_w)/|y_w| - h(y_l)/|y_l|))",
    paper="Lambert et al. 2024, arXiv 2411.15124 (Tulu 3)",
)
def sigmoid_norm(r: Readings, *, beta: float = 5.0) -> Outcome:
    """Length-normalised DPO. Policy = reference: ln 2."""
    margin = beta * gap_per_token(r)
    return Outcome(-logsigmoid(margin), pair_metrics(r, margin))


@objective(
    "dpop",
    needs=REFERENCED,
    formula="-log sigma(beta (rho - lambda max(0, -h(y_w))))",
    paper="Pal et al. 2024, arXiv 2402.13228",
)
def dpop(r: Readings, *, beta: float = 0.1, positive_weight: float = 50.0) -> Outcome:
    """DPO-Positive: a chosen response below the reference is penalised; `positive_weight` is lambda, 0 is DPO.

    Policy = reference: ln 2. The penalty's kink lies there: an h(y_w) below 0 by a rounding error already has
    1 + lambda times the gradient of DPO on y_w. `penalty` is beta lambda max(0, -h(y_w)), before the sigmoid.
    """
    chosen, rejected = log_ratios(r)
    margin = beta * (chosen - rejected)
    penalty = beta * positive_weight * relu(-chosen)
    return Outcome(-logsigmoid(margin - penalty), pair_metrics(r, margin) | {"penalty": penalty.detach()})


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
    rho = gap_per_token(r) if length_average else gap(r)
    return Outcome((rho - 1 / (2 * tau)) ** 2, pair_metrics(r, tau * rho))


# Without a reference


def tilt(r: Readings) -> Tensor | float:
    """What the run adds to the logit besides, (B,): lambda (sim(y_w, I) - sim(y_l, I)) of A-IPO; 0 without intents."""
    return r.get("tilt", 0.0)


@objective(
    "simpo",
    needs=PAIR,
    formula="-log sigma(beta (log pi(y_w)/|y_w| - log pi(y_l)/|y_l|) - gamma)",
    paper="Meng, Xia, Chen 2024, arXiv 2405.14734, Eq. 6",
    optional=("tilt",),
)
def simpo(r: Readings, *, beta: float = 2.0, gamma: float = 0.5) -> Outcome:
    """Simple preference optimisation, reference-free. `gamma` is absolute (their gamma_beta_ratio times beta).

    Equal log-probs per token: ln(1 + e^gamma).
    """
    margin = beta * (r["w"].mean - r["l"].mean) + tilt(r)
    return Outcome(-logsigmoid(margin - gamma), pair_metrics(r, margin))


@objective(
    "alphapo",
    needs=PAIR,
    formula="-log sigma(beta (s(y_w) - s(y_l)) - gamma), s(y) = (1 - p(y)^-a) / a, p(y) = pi(y)^(1/|y|)",
    paper="Gupta et al. 2025, arXiv 2501.03884",
    optional=("tilt",),
)
def alphapo(r: Readings, *, beta: float = 2.0, gamma: float = 0.5, shape_alpha: float = 0.25) -> Outcome:
    """SimPO with another shape of reward: a (`shape_alpha`) 0 is its logarithm, -1 the probability itself less 1.

    Always on log-probs per token: of whole responses, the power overflows. Equal ones: ln(1 + e^gamma).
    """
    margin = beta * (power(r["w"].mean, shape_alpha) - power(r["l"].mean, shape_alpha)) + tilt(r)
    return Outcome(-logsigmoid(margin - gamma), pair_metrics(r, margin))
