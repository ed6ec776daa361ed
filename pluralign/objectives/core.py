"""What an objective is: a pure function from named readings to one loss an example, with metrics.

Adding one: write the function under `@objective(...)` in a file of this folder, its hand-worked values in
tests/objectives, and its row in docs/papers.md. Nothing here knows of models, tokenizers, configuration or devices.

Shapes: B examples, K responses of a list (padded), M tokens of all examples end to end. Readings are duck-typed:

    pairs      "w", "l"                    chosen and rejected: `.sum`, `.mean` (B,) nats, `.length` (B,) tokens
    unpaired   "y" with column "label"     one response, (B,) bool; "mismatched": log pi(y'|x), y' of another example
    lists      "ys" with column "scores"   `.sum`, `.mean`, `.length`, `.mask` (B, K), higher scores are better
    reference  "ref_" before any of them   the same target read by the reference
    column     "margin", "label", "scores" a plain tensor from the data

An objective that asks for more than sums names it in `reads`: "tokens" (`.tokens`, `.segment` (M,)), "kl" (`.kl` (M,),
KL(pi_ref || pi) of each token, with gradient), "collision" (`.collision` (M,), log sum_v pi(v)^2, without gradient).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

__all__ = ["OBJECTIVES", "Batch", "Objective", "Outcome", "Reading", "Readings", "as_objective", "objective"]


class Reading(Protocol):
    """log pi(y | context) of B targets."""

    @property
    def sum(self) -> Tensor: ...

    @property
    def mean(self) -> Tensor: ...

    @property
    def length(self) -> Tensor: ...


Readings = Mapping[str, Any]  # a Reading under the name of each term, a Tensor under the name of each column
Batch = Mapping[str, Tensor]  # detached values of every example of the whole optimiser step, (N,) each
GIVEN = ("batch", "running")  # arguments that are no hyper-parameters


@dataclass(frozen=True, slots=True)
class Outcome:
    """`loss` (B,), one value an example, and metrics (B,) that are averaged over examples and logged (fewer where one
    concerns some examples only)."""

    loss: Tensor
    metrics: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Objective:
    """A registered loss: what it computes, where it is printed, which readings it wants.

    `statistics` maps readings to detached (B,) values. The trainer gathers them over every micro-batch and process of
    the optimiser step and hands them over as `batch`; left alone, the function takes those of its own B examples.
    `update` carries numbers from step to step (a running mean): (state, batch) -> state, handed over as `running`.
    """

    name: str
    function: Callable[..., Outcome]
    needs: tuple[str, ...]
    formula: str
    paper: str
    per_token: bool = False  # losses are summed over tokens and divided by the global number of tokens (SFT)
    reads: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()  # columns that it makes use of where the data have them
    statistics: Callable[..., Batch] | None = None
    update: Callable[[Mapping[str, float], Batch], dict[str, float]] | None = None

    @property
    def reference(self) -> bool:
        return any(n.startswith("ref_") for n in self.needs) or "kl" in self.reads

    @property
    def data(self) -> str:
        """The kind of record it learns from: "demonstrations", "pairs", "labels" or "lists"."""
        if "ys" in self.needs:
            return "lists"
        if "label" in self.needs:
            return "labels"
        return "demonstrations" if "y" in self.needs else "pairs"

    @property
    def defaults(self) -> dict[str, Any]:
        """Hyper-parameters and their defaults, as the signature states them."""
        parameters = inspect.signature(self.function).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in GIVEN}

    def __call__(self, readings: Readings, **hyper: Any) -> Outcome:
        return self.function(readings, **hyper)


OBJECTIVES: dict[str, Objective] = {}


def as_objective(function: Callable[..., Outcome] | Objective) -> Objective:
    """A function of one's own as an objective; its keyword-only parameters are its hyper-parameters."""
    if isinstance(function, Objective):
        return function
    name = getattr(function, "__name__", type(function).__name__)
    return Objective(name, function, needs=(), formula="", paper="")


def objective(
    name: str, *, needs: tuple[str, ...], formula: str, paper: str, **more: Any
) -> Callable[[Callable[..., Outcome]], Callable[..., Outcome]]:
    """Register a function as the objective `name`; `more` are further fields of `Objective`."""

    def register(function: Callable[..., Outcome]) -> Callable[..., Outcome]:
        OBJECTIVES[name] = Objective(name, function, needs, formula, paper, **more)
        return function

    return register
