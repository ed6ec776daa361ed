"""From examples to one optimiser step: micro-batches under a token budget, each with its layout and given readings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..scoring.forward import Readings
from ..scoring.layout import Layout, split_by_tokens, trie_tokens
from ..scoring.support import lay_out
from .examples import Example

__all__ = ["Batch", "Collator", "Given", "Micro", "by_name"]


@dataclass(frozen=True, slots=True)
class Given:
    """A reading that was computed before: the reference's, or a column of the data."""

    sum: Tensor  # (B,)
    length: Tensor  # (B,)

    @property
    def mean(self) -> Tensor:
        return self.sum / self.length


@dataclass(frozen=True, slots=True)
class Micro:
    """One forward pass: B examples, their policy terms in one layout (example by example, term by term)."""

    layout: Layout
    names: tuple[str, ...]
    weight: Tensor  # (B,)
    given: dict[str, Given]
    wheres: tuple[str, ...]

    def to(self, device: Any) -> Micro:
        given = {n: Given(g.sum.to(device), g.length.to(device)) for n, g in self.given.items()}
        return replace(self, layout=self.layout.to(device), weight=self.weight.to(device), given=given)


@dataclass(frozen=True, slots=True)
class Batch:
    """What one process contributes to an optimiser step."""

    micro: tuple[Micro, ...]
    examples: int
    tokens: int  # scored tokens, for per-token objectives

    def to(self, device: Any, non_blocking: bool = False) -> Batch:
        return replace(self, micro=tuple(m.to(device) for m in self.micro))


def by_name(readings: Readings, micro: Micro) -> dict[str, Any]:
    """The readings an objective asks for by name, policy and given ones together."""
    k = len(micro.names)
    out: dict[str, Any] = {
        name: readings[torch.arange(j, len(micro.weight) * k, k)] for j, name in enumerate(micro.names)
    }
    return out | dict(micro.given)


@dataclass
class Collator:
    """Examples -> Batch. `reference` maps reference terms to (N,) sums over the whole table, by row."""

    names: tuple[str, ...]  # policy terms
    layout: str
    token_budget: int
    reference: Mapping[str, np.ndarray]

    def __call__(self, examples: Sequence[Example]) -> Batch:
        costs = [self.cost(ex) for ex in examples]
        groups = split_by_tokens(costs, self.token_budget)
        micro = tuple(self.micro([examples[i] for i in group]) for group in groups)
        return Batch(micro, len(examples), sum(int(m.layout.lengths.sum()) for m in micro))

    def cost(self, ex: Example) -> int:
        """Tokens one example adds to a forward pass."""
        own = [ex.sequences[n] for n in self.names]
        if self.layout == "trie":
            return trie_tokens(own)
        return len(own) * max(len(s.context) + len(s.target) for s in own)

    def micro(self, examples: Sequence[Example]) -> Micro:
        """One forward pass over these examples."""
        laid = lay_out(self.layout, [ex.sequences[n] for ex in examples for n in self.names])
        rows = np.array([ex.row for ex in examples])
        given = {}
        for name, column in self.reference.items():
            lengths = [len(s.target) if s.scored is None else sum(s.scored) for s in _each(examples, name)]
            given[name] = Given(torch.from_numpy(column[rows]), torch.tensor(lengths))
        weight = torch.tensor([ex.weight for ex in examples], dtype=torch.float32)
        return Micro(laid, self.names, weight, given, tuple(ex.where for ex in examples))


def _each(examples: Sequence[Example], name: str) -> list[Any]:
    return [ex.sequences[name] for ex in examples]
