"""What an objective is: a pure function from named readings to one loss an example, with metrics.

Adding one: write the function under `@objective(...)` in a file of this folder, its hand-worked values in
tests/objectives, and its row in docs/papers.md. Nothing here knows of models, tokenizers, configuration or devices.

Shapes: B examples. Readings are duck-typed: `.sum` and `.mean` (B,) in nats, `.length` (B,) tokens.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

__all__ = ["OBJECTIVES", "Objective", "Outcome", "Reading", "Readings", "objective"]


class Reading(Protocol):
    """log pi(y | context) of B targets."""

    @property
    def sum(self) -> Tensor: ...

    @property
    def mean(self) -> Tensor: ...

    @property
    def length(self) -> Tensor: ...


Readings = Mapping[str, Reading]


@dataclass(frozen=True, slots=True)
class Outcome:
    """`loss` (B,), one value an example, and metrics (B,) that are averaged over examples and logged."""

    loss: Tensor
    metrics: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Objective:
    """A registered loss: what it computes, where it is printed, which readings it wants."""

    name: str
    function: Callable[..., Outcome]
    needs: tuple[str, ...]
    formula: str
    paper: str
    per_token: bool = False  # losses are summed over tokens and divided by the global number of tokens (SFT)

    @property
    def reference(self) -> bool:
        return any(n.startswith("ref_") for n in self.needs)

    @property
    def defaults(self) -> dict[str, Any]:
        """Hyper-parameters and their defaults, as the signature states them."""
        parameters = inspect.signature(self.function).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    def __call__(self, readings: Readings, **hyper: Any) -> Outcome:
        return self.function(readings, **hyper)


OBJECTIVES: dict[str, Objective] = {}


def objective(
    name: str, *, needs: tuple[str, ...], formula: str, paper: str, per_token: bool = False
) -> Callable[[Callable[..., Outcome]], Callable[..., Outcome]]:
    """Register a function as the objective `name`."""

    def register(function: Callable[..., Outcome]) -> Callable[..., Outcome]:
        OBJECTIVES[name] = Objective(name, function, needs, formula, paper, per_token)
        return function

    return register
