"""Attention over a trie: registered with transformers, so that any model using its attention interface can run it.

CPU and plain CUDA: one SDPA call a sequence, its own tokens against its whole path (exactly the arithmetic needed,
no mask over other branches); its backward pass in bf16 is that of `attention_bf16`. CUDA with compilation:
FlexAttention, whose block mask skips hidden blocks.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from .attention_bf16 import TrieProducts
from .layout import Trie
from .paths import GatherPaths, lower_right, shortened

if TYPE_CHECKING:
    from .last_layer import LastLayer

__all__ = ["TRIE_ATTENTION", "install", "trie_attention", "trie_mask"]

TRIE_ATTENTION = "pluralign_trie"


def install(config: Any) -> None:
    """Let the model of this configuration attend over tries. It stays so: layers recomputed in a backward pass
    (activation checkpointing) must attend as they did, and without a trie it is SDPA as before."""
    if config._attn_implementation != TRIE_ATTENTION:
        config._attn_implementation = TRIE_ATTENTION


def trie_mask(end: Tensor) -> Tensor:
    """(T, T) bool, True where query (row) may see key (column): k <= q < end[k]. The definition, for tests and flex."""
    at = torch.arange(len(end), device=end.device)
    return (at[None, :] <= at[:, None]) & (at[:, None] < end[None, :])


def trie_attention(
    module: nn.Module,
    query: Tensor,  # (1, H, T, Dh)
    key: Tensor,  # (1, Hk, T, Dh)
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    trie: Trie | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: returns ((B, T, H, Dh), None). Without a trie it is transformers' SDPA."""
    if trie is None:
        if attention_mask is not None and attention_mask.shape[-1] != key.shape[2]:
            raise RuntimeError(f"{type(module).__name__} does not hand keyword arguments to its attention: use rows.")
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, softcap=softcap, **others
        )
    if softcap is not None or dropout:
        raise RuntimeError("the trie knows neither attention soft-capping nor attention dropout: use rows.")
    query, key = query.to(value.dtype), key.to(value.dtype)
    if trie.kept is not None:
        trie.kept[id(module)] = key, value
    if trie.memory is not None:
        kept = trie.memory[id(module)]
        key, value = torch.cat([key, kept[0]], dim=2), torch.cat([value, kept[1]], dim=2)
    last = trie.last if trie.last is not None and trie.last.whole is not None else None
    if query.is_cuda and trie.memory is None:
        return _flex(query, key, value, trie, scaling, last), None
    spans = [(0, own) for own in trie.queries] if last is None else last.spans
    if query.dtype == torch.bfloat16 and query.shape[-1] == value.shape[-1] and trie.memory is None and query.is_cpu:
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        out: Tensor = TrieProducts.apply(query, key, value, trie, scale, spans)
        return out.transpose(1, 2).contiguous(), None
    return _by_path(query, key, value, trie, scaling, spans), None


def _by_path(
    query: Tensor, key: Tensor, value: Tensor, trie: Trie, scaling: float | None, spans: Sequence[tuple[int, int]]
) -> Tensor:
    """(1, T, H, Dh): each sequence's own tokens, those in its span, over its path; zeros for tokens in no span."""
    gqa = query.shape[1] != key.shape[1]
    paths = tuple(
        shortened(path, own - stop) if stop else ()
        for path, own, (_, stop) in zip(trie.paths, trie.queries, spans, strict=True)
    )
    lengths = [sum(b - a for a, b in path) for path in paths]
    keys, values = (GatherPaths.apply(x, paths).split(lengths, dim=2) for x in (key, value))
    outputs = []
    for own, k, v, (start, stop) in zip(query.split(list(trie.queries), dim=2), keys, values, spans, strict=True):
        q = own[:, :, start:stop]
        if stop:
            whole = q.shape[2] == k.shape[2]  # shares nothing with an earlier sequence: a plain causal block
            mask = None if whole else lower_right(q.shape[2], k.shape[2], q)
            q = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=whole, scale=scaling, enable_gqa=gqa)
        outputs.append(F.pad(q, (0, 0, start, own.shape[2] - stop)))
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous()


def _flex(
    query: Tensor, key: Tensor, value: Tensor, trie: Trie, scaling: float | None, last: LastLayer | None = None
) -> Tensor:
    from torch.nn.attention.flex_attention import flex_attention

    compiled = _compiled(flex_attention) if query.is_cuda else flex_attention
    gqa = query.shape[1] != key.shape[1]
    q = query if last is None else query[:, :, last.at]
    mask = _block_mask(trie.end, None if last is None else last.at)
    out = compiled(q, key, value, block_mask=mask, scale=scaling, enable_gqa=gqa)
    if last is not None:
        out = query.new_zeros(query.shape).index_copy(2, last.at, out)
    return out.transpose(1, 2).contiguous()


@functools.lru_cache(maxsize=1)
def _compiled(function: Any) -> Any:
    return torch.compile(function, dynamic=True)


_LAST_BLOCK_MASK: list[tuple[Tensor, Any]] = []  # every layer of one pass asks for the same mask, but the last


def _block_mask(end: Tensor, at: Tensor | None = None) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    if at is None and _LAST_BLOCK_MASK and _LAST_BLOCK_MASK[0][0] is end:
        return _LAST_BLOCK_MASK[0][1]
    place = torch.arange(len(end), device=end.device) if at is None else at

    def visible(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (place[q] >= k) & (place[q] < end[k])

    mask = create_block_mask(visible, None, None, len(place), len(end), device=end.device)
    if at is None:
        _LAST_BLOCK_MASK[:] = [(end, mask)]
    return mask


AttentionInterface.register(TRIE_ATTENTION, trie_attention)
AttentionMaskInterface.register(TRIE_ATTENTION, sdpa_mask)
