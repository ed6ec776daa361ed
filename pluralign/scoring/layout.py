"""Layouts: how scored sequences lie in tensors.

`rows` is the reference layout: one sequence a row, padded on the right. `trie` computes every shared prefix once:
sequences are sorted, each one keeps only the tokens that its predecessor does not have, and all of them lie
in one flat row without padding. Token k may be attended by token q exactly where k <= q < end[k]: `end[k]` is the
first position that no longer descends from k, so that one integer a token describes the whole tree.

Shapes: S sequences, R rows, T tokens a row, M scored target tokens, P tokens of one path.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .last_layer import LastLayer

__all__ = [
    "Beside",
    "Layout",
    "Scored",
    "Trie",
    "flatten",
    "lay_rows",
    "lay_trie",
    "marks",
    "split_by_tokens",
    "targets",
    "trie_tokens",
]

# Shorter common prefixes (a BOS token, a template header) are not worth joining two trees for.
MIN_SHARED = 8


@dataclass(frozen=True, slots=True)
class Scored:
    """Token ids to score: log p(target | context). `scored` masks target tokens out (None: all count).

    `constant` is a range of the context, [start, stop), that is read without gradient (see `scoring.constant`). `mark`
    is the place in the context whose state a sensing head reads: the prompt's own last token.
    """

    context: Sequence[int]
    target: Sequence[int]
    scored: Sequence[bool] | None = None
    constant: tuple[int, int] | None = None
    mark: int | None = None


@dataclass(frozen=True, slots=True)
class Trie:
    """What attention needs to know: for every sequence its queries (start, stop) and the keys of its whole path."""

    queries: tuple[int, ...]  # tokens that each sequence is the first to hold; they lie in this order and add up to T
    paths: tuple[tuple[tuple[int, int], ...], ...]  # per sequence the flat ranges of all its tokens, its own last
    end: Tensor  # (T,) int64: token k is visible to q iff k <= q < end[k]
    kept: dict[int, tuple[Tensor, Tensor]] | None = None  # where layers leave keys and values of this pass, by module
    memory: dict[int, tuple[Tensor, Tensor]] | None = None  # keys and values of an earlier one, numbered from T on
    last: LastLayer | None = None  # which tokens the last layer keeps; None: all of them


@dataclass(frozen=True, slots=True)
class Beside:
    """What an intention module reads beside a layout's own tokens. B prompts, T tokens of the longest text.

    `intent` (S,) is each sequence's intent, -1 for none. `ids`, `mask` (B, T) are the texts of an encoder of its own,
    and `owner` (S,) says which of them belongs to each sequence.
    """

    intent: Tensor
    owner: Tensor
    ids: Tensor | None = None
    mask: Tensor | None = None

    def to(self, device: torch.device | str) -> Beside:
        each = (self.intent, self.owner, self.ids, self.mask)
        return Beside(*(None if x is None else x.to(device) for x in each))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Layout:
    """One forward pass. Flat indices run over R*T."""

    kind: str  # "rows" | "trie" | "constant" (two passes, see scoring.constant)
    input_ids: Tensor  # (R, T) int64
    position_ids: Tensor  # (R, T) int64
    attention_mask: Tensor | None  # (R, T) bool for rows, None for the trie
    predict: Tensor  # (M,) flat index of the state that predicts the token
    labels: Tensor  # (M,) the token predicted
    segment: Tensor  # (M,) sequence it belongs to, ascending
    states: Tensor  # (M,) flat index of the target token itself (for pooled hidden states)
    lengths: Tensor  # (S,) scored tokens of each sequence
    trie: Trie | None = None
    before: Layout | None = (
        None  # a pass without gradient that comes first; its tokens `remembered` are this one's memory
    )
    remembered: Tensor | None = None  # (F,)
    marks: Tensor | None = None  # (S,) flat index of each sequence's marked token; None where one has none
    beside: Beside | None = None

    @property
    def tokens(self) -> int:
        """Tokens computed, padding included."""
        return self.input_ids.numel()

    def to(self, device: torch.device | str) -> Layout:
        moved = {name: value.to(device) for name in (*_TENSORS, "beside") if (value := getattr(self, name)) is not None}
        if self.trie is not None:
            moved["trie"] = replace(self.trie, end=self.trie.end.to(device))
        if self.before is not None and self.remembered is not None:
            moved |= {"before": self.before.to(device), "remembered": self.remembered.to(device)}
        return replace(self, **moved)


_TENSORS = (
    "input_ids", "position_ids", "attention_mask", "predict", "labels", "segment", "states", "lengths", "marks",
)  # fmt: skip


def lay_rows(sequences: Sequence[Scored], *, pad: int = 0) -> Layout:
    """Padded rows: the layout every other one must equal. `pad` is any valid token id; masks never look at it.

    Raises ValueError for an empty context or an empty target.
    """
    _check(sequences)
    width = max(len(s.context) + len(s.target) for s in sequences)
    ids = torch.full((len(sequences), width), pad, dtype=torch.long)
    mask = torch.zeros((len(sequences), width), dtype=torch.bool)
    indices = []
    for i, s in enumerate(sequences):
        n = len(s.context) + len(s.target)
        ids[i, :n] = torch.tensor([*s.context, *s.target], dtype=torch.long)
        mask[i, :n] = True
        indices.append(torch.arange(i * width, i * width + n))
    positions = torch.arange(width).expand(len(sequences), width)
    return Layout("rows", ids, positions, mask, *targets(sequences, indices), marks=marks(sequences, indices))


def lay_trie(sequences: Sequence[Scored], *, min_shared: int = MIN_SHARED) -> Layout:
    """All sequences in one flat row, each shared prefix once.

    Raises ValueError for an empty context or an empty target.
    """
    return trie_and_paths(sequences, min_shared=min_shared)[0]


def trie_and_paths(sequences: Sequence[Scored], *, min_shared: int = MIN_SHARED) -> tuple[Layout, list[Tensor]]:
    """`lay_trie`, and for each sequence the flat positions of its tokens."""
    _check(sequences)
    ids, positions, paths, order, queries, end = flatten([(*s.context, *s.target) for s in sequences], min_shared)
    trie = Trie(queries, tuple(ranges(paths[i]) for i in order), end)
    aims, marked = targets(sequences, paths), marks(sequences, paths)
    return Layout("trie", ids[None], positions[None], None, *aims, trie, marks=marked), paths


def flatten(
    rows: Sequence[tuple[int, ...]], min_shared: int = MIN_SHARED
) -> tuple[Tensor, Tensor, list[Tensor], list[int], tuple[int, ...], Tensor]:
    """Sequences in one row of T tokens, each shared prefix once.

    Returns ids (T,), positions (T,), per sequence the flat positions of all its tokens, the order in which they lie,
    how many tokens each one adds (in that order), and `Trie.end`.
    """
    ids = [torch.tensor(row, dtype=torch.long) for row in rows]
    order = sorted(range(len(ids)), key=lambda i: rows[i])
    flat: list[Tensor] = []
    positions: list[Tensor] = []
    paths: list[Tensor] = [torch.empty(0)] * len(ids)
    queries: list[int] = []
    live: Tensor = torch.empty(0, dtype=torch.long)  # path of the previous sequence
    total, end = 0, torch.empty(sum(len(x) for x in ids), dtype=torch.long)
    for rank, i in enumerate(order):
        shared = _common_prefix(ids[order[rank - 1]], ids[i]) if rank else 0
        shared = shared if shared >= min_shared else 0
        own = len(ids[i]) - shared
        end[live[shared:]] = total  # the previous path's tail is invisible from here on
        live = torch.cat([live[:shared], torch.arange(total, total + own)])
        paths[i] = live
        flat.append(ids[i][shared:])
        positions.append(torch.arange(shared, len(ids[i])))
        queries.append(own)
        total += own
    end[live] = total
    return torch.cat(flat), torch.cat(positions), paths, order, tuple(queries), end[:total]


def trie_tokens(sequences: Sequence[Scored], *, min_shared: int = MIN_SHARED) -> int:
    """Tokens `lay_trie` would compute, without building it."""
    return tokens_in_trie([(*s.context, *s.target) for s in sequences], min_shared)


def tokens_in_trie(sequences: Iterable[tuple[int, ...]], min_shared: int = MIN_SHARED) -> int:
    """How many tokens `flatten` would leave of these sequences."""
    rows = sorted(sequences)
    total = sum(len(row) for row in rows)
    for a, b in itertools.pairwise(rows):
        shared = _common_prefix(torch.tensor(a), torch.tensor(b))
        total -= shared if shared >= min_shared else 0
    return total


def split_by_tokens(costs: Sequence[int], budget: int) -> list[list[int]]:
    """Indices in micro-batches of at most `budget` tokens; one item above the budget gets a batch of its own.

    First-fit on descending cost, so that batches are few and even; the order inside a batch is the original one.
    """
    bins: list[tuple[int, list[int]]] = []
    for i in sorted(range(len(costs)), key=lambda i: -costs[i]):
        for b, (used, members) in enumerate(bins):
            if used + costs[i] <= budget:
                bins[b] = (used + costs[i], [*members, i])
                break
        else:
            bins.append((costs[i], [i]))
    return [sorted(members) for _, members in bins]


def _common_prefix(a: Tensor, b: Tensor) -> int:
    n = min(len(a), len(b))
    different = (a[:n] != b[:n]).nonzero()
    return int(different[0]) if len(different) else n


def ranges(index: Tensor) -> tuple[tuple[int, int], ...]:
    """Ascending flat indices as maximal contiguous [start, stop) ranges."""
    starts = torch.cat([torch.zeros(1, dtype=torch.long), (index.diff() != 1).nonzero()[:, 0] + 1])
    stops = torch.cat([starts[1:], torch.tensor([len(index)])])
    return tuple((int(index[a]), int(index[b - 1]) + 1) for a, b in zip(starts, stops, strict=True))


def _check(sequences: Sequence[Scored]) -> None:
    if not sequences:
        raise ValueError("nothing to lay out: no sequences.")
    for i, s in enumerate(sequences):
        if not s.context:
            raise ValueError(f"sequence {i} has an empty context: nothing predicts its first token.")
        if not s.target:
            raise ValueError(f"sequence {i} has an empty target: there is nothing to score.")
        if s.mark is not None and not 0 <= s.mark < len(s.context):
            raise ValueError(f"sequence {i} marks token {s.mark} of a context of {len(s.context)}.")
        if s.scored is not None and (len(s.scored) != len(s.target) or not any(s.scored)):
            raise ValueError(f"sequence {i} scores none of its target tokens (or its mask has another length).")


def targets(sequences: Sequence[Scored], indices: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(predict, labels, segment, states, lengths). Shift by one: the state before a target token predicts it.

    `indices[i]` holds the flat positions of sequence i's tokens.
    """
    predict, labels, states = [], [], []
    for s, index in zip(sequences, indices, strict=True):
        start = len(s.context)
        before, at = index[start - 1 : -1], index[start:]
        label = torch.tensor(list(s.target), dtype=torch.long)
        if s.scored is not None:
            keep = torch.tensor(list(s.scored), dtype=torch.bool)
            before, at, label = before[keep], at[keep], label[keep]
        predict.append(before)
        states.append(at)
        labels.append(label)
    lengths = torch.tensor([len(label) for label in labels], dtype=torch.long)
    segment = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    return torch.cat(predict), torch.cat(labels), segment, torch.cat(states), lengths


def marks(sequences: Sequence[Scored], indices: Sequence[Tensor]) -> Tensor | None:
    """(S,) flat index of each sequence's marked token; None where a sequence has no mark."""
    at = [index[s.mark] for s, index in zip(sequences, indices, strict=True) if s.mark is not None]
    return torch.stack(at) if len(at) == len(sequences) else None
