"""The objective of PARM, a preference-aware autoregressive reward model: K reward models trained as one policy.

Shapes: B pairs, K attributes in the order of the run. The columns "attributes_w" and "attributes_l" (B, K) hold the
attribute scores of the two responses, NaN where nobody gave one; which of them is called chosen does not matter.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from .core import Outcome, Readings, objective

__all__ = ["draw_preference", "parm"]


@objective(
    "parm",
    needs=("w", "l", "attributes_w", "attributes_l"),
    formula="sum_i alpha_i (-log sigma(beta_i (log pi(y_w^i) - log pi(y_l^i)) - gamma)), y_w^i better in attribute i",
    paper="Lin et al. 2025, arXiv 2505.06274; form of the authors' code",
)
def parm(r: Readings, *, beta: float | Sequence[float] = 0.01, gamma: float = 0.0) -> Outcome:
    """A reward model for every trade-off alpha at once: each attribute orders the pair for itself. Reference-free.

    The reading "preference" is alpha, (K,) or (B, K), the one that the policy is conditioned on in this step; without
    it (a policy that is not conditioned) all attributes count the same. `beta` is one number or one an attribute. Equal
    or missing scores order nothing: such an attribute adds 0 to an example. alpha one-hot: the loss of that attribute
    alone. Equal log-probs, all known, gamma 0: ln 2. `accuracy` is over the attributes that order the pair.
    Raises ValueError for betas or an alpha that do not fit the attributes.
    """
    side = torch.nan_to_num(r["attributes_w"] - r["attributes_l"], nan=0.0).sign()
    k = side.shape[-1]
    gap = (r["w"].sum - r["l"].sum)[:, None]
    margins = side * gap * _betas(beta, k).to(gap)
    alpha = r["preference"].to(gap) if "preference" in r else torch.full((k,), 1 / k).to(gap)
    if alpha.shape[-1] != k:
        raise ValueError(f"alpha has {alpha.shape[-1]} entries for {k} attributes.")
    orders = side != 0
    losses = torch.where(orders, -logsigmoid(margins - gamma), torch.zeros_like(margins))
    metrics = {
        "accuracy": ((margins > 0) & orders).sum(-1) / orders.sum(-1).clamp(min=1),
        "margin": (alpha * margins).sum(-1),
        "chosen_logp": r["w"].sum,
        "rejected_logp": r["l"].sum,
    }
    return Outcome((alpha * losses).sum(-1), {name: x.detach() for name, x in metrics.items()})


def _betas(beta: float | Sequence[float], k: int) -> Tensor:
    if not isinstance(beta, Sequence):
        return torch.full((k,), float(beta))
    if len(beta) != k:
        raise ValueError(f"beta has {len(beta)} entries for {k} attributes.")
    return torch.tensor([float(b) for b in beta])


def draw_preference(seed: int, step: int, k: int, concentration: float = 0.5) -> Tensor:
    """alpha (K,) of an optimiser step, Dirichlet(concentration, ...): the same on every process and after a resume.

    It depends on (seed, step) alone and uses up nobody's random numbers. Raises ValueError for a concentration that is
    not above 0.
    """
    if not concentration > 0:
        raise ValueError(f"concentration={concentration} must be above 0.")
    own = torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)
    wide = torch.full((k,), float(concentration), dtype=torch.float64)
    # Gamma(c) is Gamma(c + 1) U^(1/c): by logarithms, so that small concentrations do not round to 0 everywhere
    raised = torch._standard_gamma(wide + 1, generator=own)
    uniform = torch.rand(k, generator=own, dtype=torch.float64).clamp(min=torch.finfo(torch.float64).tiny)
    return (raised.log() + uniform.log() / wide).softmax(-1).float()
