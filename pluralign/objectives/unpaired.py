"""Objectives over single responses with a thumb up or down.

h(y) = log pi(y|x) - log pi_ref(y|x), r = beta h. The gradient raises a desirable response, lowers an undesirable one.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from .core import Batch, Outcome, Readings, objective

__all__ = ["apo_zero_unpaired", "bco", "kto"]

LABELLED = ("y", "ref_y", "label")


def _drift(r: Readings) -> Tensor:
    """h(y), (B,) nats."""
    return r["y"].sum - r["ref_y"].sum


def _sides(r: Readings, like: Tensor) -> tuple[Tensor, Tensor]:
    """(desirable (B,) bool, +1 or -1 (B,)). The column may be bool or 0/1."""
    desirable = r["label"] > 0.5
    return desirable, torch.where(desirable, 1.0, -1.0).to(like)


def _metrics(r: Readings, margin: Tensor, **more: Tensor) -> dict[str, Tensor]:
    """`margin` (B,) is the reward beyond the threshold, signed so that more is better; a tie is no win."""
    found = {"accuracy": (margin > 0).float(), "margin": margin, "logp": r["y"].sum, "drift": _drift(r), **more}
    return {name: value.detach() for name, value in found.items()}


def _mismatched_drift(r: Readings) -> Batch:
    return {"kl": (r["mismatched"].sum - r["ref_mismatched"].sum).detach()}


@objective(
    "kto",
    needs=(*LABELLED, "mismatched", "ref_mismatched"),
    formula="up: u sigma(-beta (h - z0)); down: v sigma(beta (h - z0)); z0 = max(0, mean h(y'|x)), y' of another x",
    paper="Ethayarajh et al. 2024, arXiv 2402.01306, Eq. 7",
    statistics=_mismatched_drift,
)
def kto(
    r: Readings,
    *,
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
    batch: Batch | None = None,
) -> Outcome:
    """Kahneman-Tversky optimisation. Policy = reference: z0 = 0 and half the weight of the example's side.

    z0 estimates KL(pi || pi_ref) from mismatched pairs. It is one number for the whole optimiser step, clamped at 0
    only after the mean was taken, and gets no gradient.
    """
    h = _drift(r)
    known = batch["kl"] if batch is not None else _mismatched_drift(r)["kl"]
    z0 = known.to(h).mean().clamp(min=0).detach()
    desirable, sign = _sides(r, h)
    margin = beta * sign * (h - z0)
    weight = torch.where(desirable, desirable_weight, undesirable_weight).to(h)
    return Outcome(weight * torch.sigmoid(-margin), _metrics(r, margin, kl=z0.expand_as(h)))


def _drift_statistics(r: Readings) -> Batch:
    return {"drift": _drift(r).detach()}


def _cumulative(state: Mapping[str, float], batch: Batch) -> dict[str, float]:
    """The mean of every h seen so far, each example of each step counting the same."""
    n, seen = len(batch["drift"]), state.get("count", 0.0)
    total = state.get("drift", 0.0) * seen + float(batch["drift"].double().sum())
    return {"count": seen + n, "drift": total / (seen + n)} if seen + n else dict(state)


@objective(
    "bco",
    needs=LABELLED,
    formula="up: -log sigma(r - delta); down: -w(x) log sigma(-(r - delta)); delta: running mean of r",
    paper="Jung et al. 2024, arXiv 2404.04656, with reward shift",
    statistics=_drift_statistics,
    update=_cumulative,
    optional=("density",),
)
def bco(
    r: Readings,
    *,
    beta: float = 0.1,
    batch: Batch | None = None,
    running: Mapping[str, float] | None = None,
) -> Outcome:
    """Binary classifier optimisation with reward shift. Policy = reference: ln 2, times w(x) for undesirable examples.

    delta is beta times `running["drift"]`. Training updates that state with the step's batch before it calls this;
    evaluation hands over the state as training left it. A state without numbers (nothing was trained yet) is delta 0,
    which is exact where the policy is the reference. Without any state delta is the mean over `batch`, or over these B
    examples. It gets no gradient.

    The column "density" (B,), where there is one, holds w(x) of underlying distribution matching (`matching`): the
    ratio of prompt densities p(x | up) / p(x | down), which weighs undesirable examples only.
    """
    h = _drift(r)
    if running is not None:
        shift = h.new_tensor(running.get("drift", 0.0))
    else:
        known = batch["drift"] if batch is not None else h.detach()
        shift = known.to(h).mean()
    desirable, sign = _sides(r, h)
    margin = beta * sign * (h - shift)
    loss = -logsigmoid(margin)
    density = r.get("density")
    if density is not None:
        loss = torch.where(desirable, loss, density.detach().to(h) * loss)
    return Outcome(loss, _metrics(r, margin, shift=(beta * shift).expand_as(h)))


@objective(
    "apo_zero_unpaired",
    needs=LABELLED,
    formula="up: sigma(-beta h); down: sigma(beta h)",
    paper="D'Oosterlinck et al. 2024, arXiv 2408.06266, Eq. 7, each half on its own",
)
def apo_zero_unpaired(r: Readings, *, beta: float = 0.1) -> Outcome:
    """Anchored preference optimisation, zero variant, on single responses: KTO with z0 = 0. Policy = reference: 1/2."""
    h = _drift(r)
    margin = beta * _sides(r, h)[1] * h
    return Outcome(torch.sigmoid(-margin), _metrics(r, margin))
