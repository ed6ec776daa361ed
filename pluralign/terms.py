"""Terms and plans: which responses are scored, under which context, by whom.

A plan is a plain function from one record to a few terms. Names are the readings an objective asks for:
"w" and "l" (chosen, rejected by the policy), "ref_w" and "ref_l" (by the reference), "y" (a demonstration).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from .records import Demonstration, Labelled, Messages, Preference, Record

__all__ = ["Condition", "Plan", "Term", "demonstration", "pair", "reference_free_pair"]

By = Literal["policy", "reference"]


@runtime_checkable
class Condition(Protocol):
    """Anything placed in the context beside the prompt; it renders itself into the turns it is given."""

    def apply(self, turns: Messages) -> Messages: ...


@dataclass(frozen=True, slots=True)
class Term:
    """log pi(target | context), read by the policy or the reference. `context` is (prompt, *conditions)."""

    name: str
    context: tuple[Messages | Condition, ...]
    target: Messages
    by: By = "policy"

    def turns(self) -> Messages:
        """The context as one list of turns: the prompt with every condition applied in order."""
        first, *conditions = self.context
        assert isinstance(first, tuple), "the first entry of a context is the prompt"
        turns: Messages = first
        for condition in conditions:
            assert isinstance(condition, Condition)
            turns = condition.apply(turns)
        return turns


Plan = Callable[[Record], Iterable[Term]]


def demonstration(ex: Demonstration | Preference | Labelled) -> Iterable[Term]:
    """SFT: log pi(y | x), where y is the demonstration or the chosen response."""
    yield Term("y", (ex.prompt,), ex.chosen if isinstance(ex, Preference) else ex.response)


def reference_free_pair(ex: Preference) -> Iterable[Term]:
    """log pi(y_w | x) and log pi(y_l | x)."""
    yield Term("w", (ex.prompt,), ex.chosen)
    yield Term("l", (ex.prompt,), ex.rejected)


def pair(ex: Preference) -> Iterable[Term]:
    """The four log-probs of the DPO family: policy and reference, chosen and rejected."""
    yield from reference_free_pair(ex)
    yield Term("ref_w", (ex.prompt,), ex.chosen, by="reference")
    yield Term("ref_l", (ex.prompt,), ex.rejected, by="reference")
