"""What a divergence makes of a log-ratio: the implicit reward f'(pi / pi_ref), without its constant.

Wang et al. 2023, arXiv 2309.16240: a policy that is held to its reference by the f-divergence has the reward
beta f'(u) + const, u = pi / pi_ref = e^h. Constants cancel between two responses to one prompt.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

__all__ = ["DIVERGENCES", "power", "score"]

LARGEST = 80.0  # e^80 = 5.5e34 is still a number in fp32 and bf16


def power(h: Tensor, alpha: float) -> Tensor:
    """(1 - e^(-alpha h)) / alpha, which is h at alpha = 0. Exponents stop at 80, where the gradient stops too."""
    if alpha == 0:
        return h
    return -torch.expm1((-alpha * h).clamp(max=LARGEST)) / alpha


def _js(h: Tensor, alpha: float) -> Tensor:
    return logsigmoid(h)


DIVERGENCES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "reverse_kl": lambda h, alpha: h,
    "forward_kl": lambda h, alpha: power(h, 1.0),
    "js": _js,
    "alpha": power,
}


def score(h: Tensor, divergence: str, alpha: float) -> Tensor:
    """f'(e^h) up to a constant, (B,), rising in h; `alpha` in [0, 1] is read by "alpha" alone.

    "alpha" is reverse KL at 0 and forward KL at 1. Raises ValueError for another name or alpha.
    """
    if divergence not in DIVERGENCES:
        raise ValueError(f'unknown divergence "{divergence}": one of {", ".join(DIVERGENCES)}.')
    if not 0 <= alpha <= 1:
        raise ValueError(f"divergence_alpha={alpha}: it lies in [0, 1], from reverse to forward KL.")
    return DIVERGENCES[divergence](h, alpha)
