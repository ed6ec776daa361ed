"""Attention over a trie in bf16 on a CPU: the flash kernel forward, plain matrix products backward.

torch's backward kernel multiplies no faster in bf16 than in fp32 on a CPU, while a plain product there runs on the
processor's matrix units. So the backward pass is five products a block of keys. Key k is seen by queries
k <= q < end[k], one range: a run of keys with one `end` is a node of the tree, and all its descendants follow it in
the row. Keys and queries are therefore slices, nothing is gathered, and each key's gradient is written once.

The processor's kernels are made for one shape each, which takes longer than most products themselves, and are kept.
So both sides of a block are rounded up to sizes that come again: what is added are tokens that follow in the row,
whose share is set to zero.

Shapes: H query heads, Hk key heads, G = H / Hk, T tokens, D head size, B keys of a block, N queries that see them.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .paths import lower_right, shortened

if TYPE_CHECKING:
    from .layout import Trie

__all__ = ["TrieProducts"]

BLOCK_KEYS = 256
NEVER = 1e4  # a log-normaliser that leaves a query nothing: exp(score - NEVER) = 0


class TrieProducts(torch.autograd.Function):
    """(1, H, T, D), (1, Hk, T, D) twice -> (1, H, T, D), all bf16; zeros for tokens outside `spans`.

    `spans` gives each sequence's (start, stop) among its own tokens, as in `LastLayer`.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, trie: Trie, scale: float, spans: Sequence[tuple[int, int]]
    ) -> Tensor:
        out = torch.zeros_like(query, memory_format=torch.contiguous_format)
        lse = torch.full(query.shape[1:3], NEVER, dtype=torch.float32)
        begin, read = 0, []
        for own, path, (start, stop) in zip(trie.queries, trie.paths, spans, strict=True):
            if stop:
                at = slice(begin + start, begin + stop)
                seen = shortened(path, own - stop)
                k, v = (torch.cat([x[:, :, a:b] for a, b in seen], dim=2) for x in (key, value))
                out[:, :, at], lse[:, at] = _flash(query[:, :, at], k, v, scale)
                read.append((at.start, at.stop))
            begin += own
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.end, ctx.scale, ctx.read = trie.end, scale, read
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, lse = ctx.saved_tensors
        (heads, tokens), keys = query.shape[1:3], key.shape[1]
        group = heads // keys
        delta = (grads[0].float() * out.float()).sum(-1)[0]
        room = _rounded(tokens) + _step(tokens)  # a block's rounding may reach past the row
        q, g, lse, delta = (_grouped(x, keys, room) for x in (query[0], grads[0][0], lse[..., None], delta[..., None]))
        k, v = (F.pad(x[0], (0, 0, 0, room - tokens)) for x in (key, value))
        # score - lse and dP - delta come out of the products' fp32 sums: rounded once, and least where P is largest
        q_lse, g_delta = _beside(q * ctx.scale, lse), _beside(g, delta)
        k_one, v_one = (torch.cat([x, x.new_full((*x.shape[:2], 2), -1.0)], dim=-1).transpose(1, 2) for x in (k, v))
        dq = torch.zeros(q.shape, dtype=torch.float32)
        dk, dv = torch.zeros_like(k), torch.zeros_like(v)
        for block in _blocks(ctx.end):
            start, end = block.start, block.end
            first = _first_read(ctx.read, start)
            if first >= end:
                continue  # no query that is read sees these keys
            many = slice(first * group, (first + _rounded(end - first)) * group)
            wide = slice(start, start + block.hidden.shape[1])
            p = torch.bmm(q_lse[:, many], k_one[:, :, wide]).exp_()  # (Hk, N G, B)
            p[:, (end - first) * group :] = 0
            if len(hide := block.hidden[first - start :]):
                p.unflatten(1, (-1, group))[:, : len(hide)].masked_fill_(hide[:, None], 0)
            torch.bmm(p.transpose(1, 2), g[:, many], out=dv[:, wide])  # zeros past `stop`, which the next block writes
            ds = torch.bmm(g_delta[:, many], v_one[:, :, wide]).mul_(p)
            torch.bmm(ds.transpose(1, 2), q[:, many], out=dk[:, wide])
            dq[:, many] += torch.bmm(ds, k[:, wide])
        dq = dq[:, : tokens * group].mul_(ctx.scale).to(q.dtype).unflatten(1, (-1, group)).transpose(1, 2).flatten(0, 1)
        return dq[None], dk[None, :, :tokens].mul_(ctx.scale), dv[None, :, :tokens], None, None, None


def _flash(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """((1, H, N, D), log-normalisers (H, N) fp32) of torch's own kernel, the last query at the last key."""
    group, queries, keys = query.shape[1] // key.shape[1], query.shape[2], key.shape[2]
    if group > 1:
        key, value = (x.repeat_interleave(group, dim=1) for x in (key, value))
    mask = None if queries == keys else lower_right(queries, keys, query)  # the kernel adds it
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, queries == keys, attn_mask=mask, scale=scale
    )
    return out, lse[0]


def _grouped(x: Tensor, keys: int, room: int) -> Tensor:
    """(H, T, D) -> (Hk, R G, D), zeros from T on: the G heads that share keys lie side by side, token after token."""
    x = x.unflatten(0, (keys, -1)).transpose(1, 2)
    return F.pad(x, (0, 0, 0, 0, 0, room - x.shape[1])).flatten(1, 2)


def _step(size: int) -> int:
    """What sizes near this one are multiples of: an eighth of the power of two below, and 32 at least."""
    return max(32, (1 << size.bit_length()) // 16)


def _rounded(size: int) -> int:
    """The size from which a product's kernel comes again: at most 31 or an eighth more."""
    return size + -size % _step(size)


def _beside(x: Tensor, number: Tensor) -> Tensor:
    """(Hk, N, D), fp32 (Hk, N, 1) -> (Hk, N, D + 2): the number beside the row, in two parts that bf16 can hold."""
    high = number.to(x.dtype)
    return torch.cat([x, high, (number - high.float()).to(x.dtype)], dim=-1)


@dataclass(frozen=True, slots=True)
class Block:
    """Keys [start, stop), seen by queries [start, end) but where `hidden`, (R, B), says so of the first R of them.

    B is stop - start rounded up; keys from `stop` on are hidden.
    """

    start: int
    stop: int
    end: int
    hidden: Tensor


@functools.lru_cache(maxsize=1)  # every layer of one pass asks for the same; a tensor is told by its identity
def _blocks(end: Tensor) -> tuple[Block, ...]:
    """The row cut into at most BLOCK_KEYS keys: parts of one node, or a small tree's nodes together."""
    return tuple(_block(end, start, stop) for start, stop in _cuts(end))


def _cuts(end: Tensor) -> Iterator[tuple[int, int]]:
    """Nodes that follow are joined where few queries see them: a prompt that all share is not worth masking for all."""
    nodes = [*((end.diff() != 0).nonzero()[:, 0] + 1).tolist(), len(end)]
    start = 0
    for stop, following in itertools.pairwise([*nodes, len(end)]):
        last = int(end[start])
        small = last - start <= 2 * BLOCK_KEYS
        if small and stop < following <= min(start + BLOCK_KEYS, last):
            continue
        yield from ((at, min(at + BLOCK_KEYS, stop)) for at in range(start, stop, BLOCK_KEYS))
        start = stop


def _block(end: Tensor, start: int, stop: int) -> Block:
    last, key = int(end[start]), torch.arange(start, start + _rounded(stop - start))
    full = len(key) == stop - start and bool((end[start:stop] == last).all())
    query = torch.arange(start, stop if full else last)[:, None]  # one node: only keys after their query are hidden
    sees = torch.zeros_like(key)
    sees[: stop - start] = end[start:stop]
    return Block(start, stop, last, (query < key) | (query >= sees))


def _first_read(read: Sequence[tuple[int, int]], at: int) -> int:
    """The first query at or after `at` that is read."""
    i = bisect.bisect_right(read, at, key=lambda r: r[1])
    return max(at, read[i][0]) if i < len(read) else sys.maxsize
