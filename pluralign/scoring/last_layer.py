"""The last layer, where it is read: prompt tokens but the last feed no log-prob there, only keys and values.

A trie's pass therefore attends, projects and transforms in its last layer only what the head will read. Nothing else
depends on the rest, so values and gradients are the same. It is done by hooks, which a copied model keeps and which
activation checkpointing runs again: the layer is given the tokens that are read, its attention the whole row.

Shapes: T tokens of the row, N tokens kept in the last layer, M scored tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from .layout import Layout, Trie
from .paths import GatherPaths

__all__ = ["LAST_LAYERS", "PREDICTING", "LastLayer", "narrow"]

# Architectures whose last layer may be handed fewer tokens: its attention, and the norm that comes before it.
LAST_LAYERS = {
    **dict.fromkeys(
        ("gemma", "gemma3_text", "llama", "mistral", "olmo", "phi3", "qwen2", "qwen3", "smollm3"),
        ("self_attn", "input_layernorm"),
    ),
    "gpt_neox": ("attention", "input_layernorm"),
    "olmo2": ("self_attn", ""),
}

PREDICTING = frozenset(("sum", "length", "tokens", "kl", "collision"))  # readings of predicting states alone


@dataclass(frozen=True, slots=True)
class LastLayer:
    """Which tokens the last layer keeps. Each sequence's are one range, so that attention stays a call a sequence."""

    at: Tensor  # (N,) their flat positions, ascending
    spans: tuple[tuple[int, int], ...]  # per sequence of the trie (start, stop) among its own tokens
    ranges: tuple[tuple[int, int], ...]  # the same in flat positions, without empty ones
    whole: Tensor | None = None  # (1, T, D) what the last layer's attention reads; None above it

    def pick(self, x: Tensor) -> Tensor:
        """(1, T, D) -> (1, N, D), by slices: the backward pass of an index adds row by row on a CPU."""
        picked: Tensor = GatherPaths.apply(x[:, None], (self.ranges,))
        return picked[:, 0]


def narrow(model: Any, kind: str, layout: Layout, reads: Sequence[str]) -> Layout:
    """The layout with its last layer narrowed to what `reads` needs, and flat indices into what is left of it.

    `model` is transformers' own, of type `kind`. Unchanged where the architecture is not listed in LAST_LAYERS.
    """
    trie = layout.trie
    if trie is None or kind not in LAST_LAYERS:
        return layout
    _install(model, *LAST_LAYERS[kind])
    last = _needed(layout, trie, reads)
    at = last.at
    place = torch.full((layout.tokens,), layout.tokens, dtype=torch.long, device=at.device)  # out of range: never read
    place[at] = torch.arange(len(at), device=at.device)
    return replace(
        layout,
        trie=replace(trie, last=last),
        predict=place[layout.predict],
        states=place[layout.states],
        marks=None if layout.marks is None else place[layout.marks],
    )


def _needed(layout: Layout, trie: Trie, reads: Sequence[str]) -> LastLayer:
    """The smallest range of each sequence's own tokens with all that is read."""
    read = [layout.predict]
    if not PREDICTING.issuperset(reads):
        read += [layout.states] if layout.marks is None else [layout.states, layout.marks]
    wanted = torch.zeros(layout.tokens, dtype=torch.bool)
    wanted[torch.cat(read).cpu()] = True
    begin, spans, ranges = 0, [], []
    for own in trie.queries:
        places = wanted[begin : begin + own].nonzero()[:, 0]
        first, stop = (int(places[0]), int(places[-1]) + 1) if len(places) else (0, 0)
        spans.append((first, stop))
        ranges += [(begin + first, begin + stop)] if stop else []
        begin += own
    at = torch.cat([torch.arange(a, b) for a, b in ranges]).to(layout.input_ids.device)
    return LastLayer(at, tuple(spans), tuple(ranges))


def _install(model: Any, attention: str, norm: str) -> None:
    """Hooks on the last layer and its attention, once. Without a narrowed trie they do nothing."""
    layer = model.get_decoder().layers[-1]  # of the language model, where a multimodal one holds it
    if _enter in layer._forward_pre_hooks.values():
        return
    layer.register_forward_pre_hook(_enter, with_kwargs=True)
    layer._pluralign_norm = norm
    inner: nn.Module = getattr(layer, attention)
    inner.register_forward_pre_hook(_widen, with_kwargs=True)
    inner.register_forward_hook(_read, with_kwargs=True)


def _enter(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Hand the layer the tokens that are read, and its attention, beside them, all of them after the norm."""
    trie: Trie | None = kwargs.get("trie")
    if trie is None or trie.last is None:
        return None
    hidden, rest = (args[0], args[1:]) if args else (kwargs["hidden_states"], ())
    whole = getattr(layer, layer._pluralign_norm)(hidden) if layer._pluralign_norm else hidden
    given = {**kwargs, "trie": replace(trie, last=replace(trie.last, whole=whole))}
    given.pop("hidden_states", None)
    return (trie.last.pick(hidden), *rest), given


def _widen(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    last = _last(kwargs)
    if last is None:
        return None
    if args:
        return (last.whole, *args[1:]), kwargs
    return (), {**kwargs, "hidden_states": last.whole}


def _read(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    last = _last(kwargs)
    return output if last is None else (last.pick(output[0]), *output[1:])


def _last(kwargs: dict[str, Any]) -> LastLayer | None:
    trie: Trie | None = kwargs.get("trie")
    return None if trie is None or trie.last is None or trie.last.whole is None else trie.last
