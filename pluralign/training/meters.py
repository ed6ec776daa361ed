"""What a run counts while it trains: means over every process, and states to measure the KL with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

__all__ = ["KLProbe", "Tally"]


@dataclass
class KLProbe:
    """Reference states of some validation rows, from which KL(reference || policy) is computed exactly."""

    rows: tuple[int, ...]
    states: list[Tensor]  # (tokens, D) each
    head: Tensor  # (V, D)


class Tally:
    """Sums and counts of metrics over micro-batches and processes."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.counts: dict[str, float] = {}

    def add(self, name: str, values: Tensor, count: float | None = None) -> None:
        self.sums[name] = self.sums.get(name, 0.0) + float(values.detach().double().sum())
        self.counts[name] = self.counts.get(name, 0.0) + (values.numel() if count is None else count)

    def means(self, gather: Callable[[list[Any]], list[Any]]) -> dict[str, float]:
        """Means over every process; the tally starts anew."""
        parts = gather([(self.sums, self.counts)])
        total: dict[str, float] = {}
        count: dict[str, float] = {}
        for sums, counts in parts:
            for name in sums:
                total[name] = total.get(name, 0.0) + sums[name]
                count[name] = count.get(name, 0.0) + counts[name]
        self.sums, self.counts = {}, {}
        return {name: total[name] / count[name] for name in total if count[name]}
