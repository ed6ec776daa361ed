"""Contexts without gradient: part of a context is read once, gradient-free, and attended to as constants.

InSPO, appendix D.5: the activations of the conditioning response need no gradient. A first pass without gradient reads
each x, y_l and keeps the keys and values of y_l; the pass that learns holds x and the targets alone, and its targets
attend to x, to what was kept, and to themselves. Log-probs are the same; the gradient lacks the way through y_l.

Shapes: S sequences, T tokens of the learning pass, F kept tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .layout import Layout, Scored, Trie, flatten, marks, ranges, targets, tokens_in_trie, trie_and_paths, trie_tokens

__all__ = ["lay_constant", "remember", "tokens_of"]


def lay_constant(sequences: Sequence[Scored]) -> Layout:
    """Both passes. Sequences without a constant part are laid out beside the others, as in the trie.

    Raises ValueError for a constant part that reaches to the end of the context: its last token predicts the target.
    """
    cuts = [s.constant or (len(s.context), len(s.context)) for s in sequences]
    for s, (a, b) in zip(sequences, cuts, strict=True):
        if s.constant and not 0 < a < b < len(s.context):
            raise ValueError(f"the constant part [{a}, {b}) must lie inside the context of {len(s.context)} tokens.")
    before, remembered, kept = _before(sequences)
    prompts = list(dict.fromkeys(tuple(s.context[:a]) for s, (a, _) in zip(sequences, cuts, strict=True)))
    ids, positions, paths, order, queries, end = flatten(prompts)
    tails = [torch.tensor([*s.context[b:], *s.target]) for s, (_, b) in zip(sequences, cuts, strict=True)]
    total = len(ids) + sum(map(len, tails))
    at, indices, spans = len(ids), [], [ranges(paths[i]) for i in order]
    depths = [positions]
    for s, tail, (a, b) in zip(sequences, tails, cuts, strict=True):
        path = paths[prompts.index(tuple(s.context[:a]))]
        own = torch.arange(at, at + len(tail))
        middle = tuple((total + x, total + y) for x, y in kept.get((tuple(s.context[:b]), a), ()))
        spans.append((*ranges(path), *middle, (at, at + len(tail))))
        indices.append(torch.cat([path, torch.full((b - a,), -1), own]))
        depths.append(torch.arange(b, b + len(tail)))
        at += len(tail)
    trie = Trie((*queries, *map(len, tails)), tuple(spans), end)
    flat, depth = torch.cat([ids, *tails])[None], torch.cat(depths)[None]
    aims = targets(sequences, indices)
    return Layout("constant", flat, depth, None, *aims, trie, before, remembered, marks(sequences, indices))


def _before(sequences: Sequence[Scored]) -> tuple[Layout, Tensor, dict[Any, tuple[tuple[int, int], ...]]]:
    """(the first pass, flat positions of what is kept of it, where each constant part lies among that)."""
    wanted = {(tuple(s.context[: s.constant[1]]), s.constant[0]): s for s in sequences if s.constant}
    parts = [Scored(ids[:a], ids[a:]) for ids, a in wanted]
    if not parts:
        raise ValueError("no sequence has a constant part: use the trie.")
    layout, paths = trie_and_paths(parts)
    kept: list[Tensor] = []
    found: dict[Any, tuple[tuple[int, int], ...]] = {}
    at = 0
    for key, path in zip(wanted, paths, strict=True):
        own = path[key[1] :]
        kept.append(own)
        found[key] = ((at, at + len(own)),)
        at += len(own)
    return layout, torch.cat(kept), found


@torch.no_grad()
def remember(core: Any, layout: Layout, **kwargs: Any) -> Trie:
    """Run the first pass; the second one's trie with its keys and values. `core` is the model without wrappers."""
    before = layout.before
    kept: dict[int, tuple[Tensor, Tensor]] = {}
    assert before is not None
    assert before.trie is not None
    assert layout.trie is not None
    device = layout.input_ids.device.type
    # a cast that autocast caches while no gradient is recorded would be handed to the pass that learns
    with torch.autocast(
        device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device), cache_enabled=False
    ):
        core.base_model(
            input_ids=before.input_ids,
            position_ids=before.position_ids,
            use_cache=False,
            **{**kwargs, "trie": replace(before.trie, kept=kept)},
        )
    memory = {m: (k[:, :, layout.remembered], v[:, :, layout.remembered]) for m, (k, v) in kept.items()}
    return replace(layout.trie, memory=memory)


def tokens_of(sequences: Sequence[Scored]) -> int:
    """What the two passes cost, in tokens of a learning pass (a pass without gradient costs about a third)."""
    cuts = [s.constant or (len(s.context), len(s.context)) for s in sequences]
    prompts = {tuple(s.context[:a]) for s, (a, _) in zip(sequences, cuts, strict=True)}
    tails = sum(len(s.context) - b + len(s.target) for s, (_, b) in zip(sequences, cuts, strict=True))
    before = trie_tokens([Scored(s.context[: s.constant[1]], ()) for s in sequences if s.constant])
    return tokens_in_trie(prompts) + tails + before // 3
