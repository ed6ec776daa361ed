"""A sequence's path through a trie's row: the flat ranges of its tokens, gathered or shortened, and its causal mask."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

__all__ = ["GatherPaths", "lower_right", "shortened"]


def shortened(path: tuple[tuple[int, int], ...], by: int) -> tuple[tuple[int, int], ...]:
    """The path without its last `by` tokens, which are the sequence's own."""
    return (*path[:-1], (path[-1][0], path[-1][1] - by))


class GatherPaths(torch.autograd.Function):
    """(1, H, T, Dh) -> (1, H, sum of path lengths, Dh). The backward adds slices: far fewer steps than index_add."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, paths: tuple[tuple[tuple[int, int], ...], ...]) -> Tensor:
        ctx.paths, ctx.tokens = paths, x.shape[2]
        return torch.cat([x[:, :, a:b] for path in paths for a, b in path], dim=2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grad,) = grads
        out = grad.new_zeros(*grad.shape[:2], ctx.tokens, grad.shape[3])
        at = 0
        for a, b in (r for path in ctx.paths for r in path):
            out[:, :, a:b] += grad[:, :, at : at + b - a]
            at += b - a
        return out, None


SQUARE = 2048  # tokens of the mask that is kept: 8 MiB in bf16


def lower_right(queries: int, keys: int, like: Tensor) -> Tensor:
    """(queries, keys), 0 where a query sees a key and -inf elsewhere: causal, aligned at the last key.

    A view of one kept square, of which every shorter mask is a part; longer ones are made anew.
    """
    if keys <= SQUARE:
        return _square(like.dtype, like.device)[keys - queries : keys, :keys]
    return _hidden(queries, keys, like.dtype, like.device)


@functools.lru_cache(maxsize=4)
def _square(dtype: torch.dtype, device: torch.device) -> Tensor:
    return _hidden(SQUARE, SQUARE, dtype, device)


def _hidden(queries: int, keys: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # it may be asked for first there, and later for a backward pass
        return torch.full((queries, keys), -torch.inf, dtype=dtype, device=device).triu_(keys - queries + 1)
