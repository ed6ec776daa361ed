"""The draw of a token: temperature, top-p, and random numbers that no other row of the batch can change.

Shapes: B rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor

from .requests import Request

__all__ = ["Draw"]


class Draw(LogitsProcessor):
    """Temperature, top-p and the draw itself, with one uniform number a row and step, seeded by (seed, place).

    `width` is the number of tokens that stood before the first one drawn.
    """

    def __init__(self, requests: Sequence[Request], width: int, device: torch.device) -> None:
        self.width = width
        temperature = torch.tensor([r.temperature for r in requests], dtype=torch.float64, device=device)[:, None]
        self.greedy = temperature == 0  # (B, 1): such rows keep their scores
        self.temperature = temperature.masked_fill(self.greedy, 1.0)
        self.top_p = torch.tensor([r.top_p for r in requests], dtype=torch.float64, device=device)[:, None]
        self.uniform = torch.zeros(len(requests), max(r.max_new_tokens for r in requests), dtype=torch.float64)
        for row, request in zip(self.uniform, requests, strict=True):
            own = torch.Generator().manual_seed((request.seed * 1_000_003 + request.place) % 2**63)
            row[: request.max_new_tokens] = torch.rand(request.max_new_tokens, generator=own, dtype=torch.float64)
        self.uniform = self.uniform.to(device)  # (B, max_new_tokens)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """(B, V) scores with all but the drawn token at -inf."""
        mass = (scores.double() / self.temperature).softmax(-1)
        ordered, tokens = mass.sort(dim=-1, descending=True)
        cut = ordered.cumsum(-1) - ordered >= self.top_p  # the first token always stays
        # walked in the vocabulary's order, not by size: rounding may swap equals, and must not move the goal
        total = mass.masked_fill(cut.scatter(-1, tokens, cut), 0.0).cumsum(-1)
        goal = self.uniform[:, input_ids.shape[1] - self.width, None] * total[:, -1:]
        at = torch.searchsorted(total, goal, right=True).clamp(max=mass.shape[-1] - 1)
        drawn = torch.full_like(scores, -torch.inf).scatter(-1, at, 0.0)
        return torch.where(self.greedy, scores, drawn)

    def keep(self, rows: Tensor) -> None:
        """Go on with some rows only: `rows` are their numbers."""
        self.greedy, self.temperature = self.greedy[rows], self.temperature[rows]
        self.top_p, self.uniform = self.top_p[rows], self.uniform[rows]
