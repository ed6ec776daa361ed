"""Underlying distribution matching: how much likelier a prompt is among the desirable examples than among the others.

Jung et al. 2024 (BCO, arXiv 2404.04656). Thumbs down from other prompts than thumbs up teach the topic, not the
quality; weighing them by the ratio of densities p(x | up) / p(x | down) undoes that. A logistic regression whose two
classes weigh the same has exactly this ratio as its odds.

Shapes: N examples, D dimensions of a prompt's embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

__all__ = ["DensityRatio", "density_weights", "fit_density_ratio"]


@dataclass(frozen=True, slots=True)
class DensityRatio:
    """p(x | desirable) / p(x | undesirable) = exp(direction . e(x) + offset)."""

    direction: Tensor  # (D,) fp64
    offset: float

    def __call__(self, embeddings: Tensor, *, low: float = 0.5, high: float = 10.0) -> Tensor:
        """(N,) fp32 ratios of (N, D) embeddings, clipped to [low, high]."""
        logit = embeddings.to(self.direction) @ self.direction + self.offset
        return logit.clamp(-50, 50).exp().clamp(low, high).float()


def fit_density_ratio(embeddings: Tensor, desirable: Tensor, *, ridge: float = 1.0, steps: int = 500) -> DensityRatio:
    """A balanced logistic regression of `desirable` (N,) bool on embeddings (N, D); the same input, the same answer.

    Dimensions are standardised; `ridge` is half the squared norm of the slopes against the summed loss, and the
    intercept is free. Raises ValueError where a class has no example or an embedding is not finite.
    """
    x, up = embeddings.detach().double().cpu(), desirable.detach().cpu() > 0.5
    if not torch.isfinite(x).all():
        raise ValueError("an embedding is not finite.")
    if not 0 < int(up.sum()) < len(up):
        raise ValueError("distribution matching needs desirable and undesirable examples; one kind is missing.")
    centre, spread = x.mean(0), x.std(0, correction=0)
    # a dimension that never varies has slope 0 whatever its scale
    spread = torch.where(spread > 1e-9 * (1 + centre.abs()), spread, torch.inf)
    z = (x - centre) / spread
    sign = torch.where(up, 1.0, -1.0).double()
    weight = len(up) / (2 * torch.where(up, up.sum(), (~up).sum()).double())

    slopes = torch.zeros(x.shape[1], dtype=torch.float64, requires_grad=True)
    offset = torch.zeros((), dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS(
        [slopes, offset], max_iter=steps, tolerance_grad=1e-9, tolerance_change=0.0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        search.zero_grad()
        loss = (weight * softplus(-sign * (z @ slopes + offset))).sum() + ridge / 2 * slopes.square().sum()
        loss.backward()
        return loss

    search.step(closure)
    direction = slopes.detach() / spread
    return DensityRatio(direction, float(offset.detach() - centre @ direction))


def density_weights(embeddings: Tensor, desirable: Tensor, *, low: float = 0.5, high: float = 10.0) -> Tensor:
    """(N,) weights of examples with prompt embeddings (N, D): 1 for desirable ones, the clipped ratio for others."""
    ratio = fit_density_ratio(embeddings, desirable)(embeddings, low=low, high=high)
    return torch.where(desirable.to(ratio.device) > 0.5, torch.ones_like(ratio), ratio)
