"""Which intents there are, and how one stands in a prompt (A-IPO). Imports nothing of ours but the errors.

An intent I is one of N labels, each a few words of text. An `IntentForm` is what a policy that was trained with them
keeps: the labels in their order, the words around one, the prior p(I), and how sure the intention module has to be.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import SettingsError, nearest

__all__ = ["WORDS", "IntentForm", "fit_intents"]

WORDS = "\n\nIntent: {intent}"  # stands at the end of the last user turn


@dataclass(frozen=True, slots=True)
class IntentForm:
    """N intents. `words` is the text around one, with {intent} in it; `prior` (N,) is p(I), empty: uniform.

    `threshold`: an inferred intent less probable than that is none ("no clear intent"), and nothing is shown.
    `soft`: so many vectors of its own stand ahead of an intent's words, or, where `words` is empty, in their place.
    Raises SettingsError for a form that cannot be.
    """

    names: tuple[str, ...]
    words: str = WORDS
    prior: tuple[float, ...] = ()
    threshold: float = 0.0
    soft: int = 0

    def __post_init__(self) -> None:
        if not self.names or len(set(self.names)) < len(self.names) or not all(n.strip() for n in self.names):
            raise SettingsError(f"intents must be given once each and have a text, not {list(self.names)[:5]}.")
        if self.words.count("{intent}") != 1 and not (self.soft and not self.words):
            raise SettingsError(
                f'the words around an intent need one "{{intent}}", not {self.words!r}.',
                remedy="" if self.words else "Or give it vectors instead: intents.soft=4.",
            )
        if not 0 <= self.threshold <= 1:
            raise SettingsError(f"the threshold of an intent lies between 0 and 1, not {self.threshold:g}.")
        whole = math.isclose(sum(self.prior), 1.0, abs_tol=1e-6) and all(p > 0 for p in self.prior)
        if self.prior and (len(self.prior) != len(self.names) or not whole):
            raise SettingsError("a prior gives every intent a share above 0, and the shares add up to 1.")

    def number(self, intent: str | None) -> int | None:
        """The place of an intent; None for none. Raises SettingsError for one that is not known."""
        if intent is None or not intent.strip():
            return None
        if intent not in self.names:
            few = ", ".join(self.names[:8]) + (", ..." if len(self.names) > 8 else "")
            raise SettingsError(f'unknown intent "{intent}" (known: {few}).{nearest(intent, self.names)}')
        return self.names.index(intent)

    def text(self, number: int | None) -> str:
        """An intent in its words; nothing for none."""
        return "" if number is None or number < 0 else self.words.format(intent=self.names[number])

    def vectors(self, number: int | None) -> tuple[int, ...]:
        """The ids, below 0, of an intent's vectors: -1, -2, ... for the first one; none for none."""
        first = -1 if number is None or number < 0 else number * self.soft
        return () if first < 0 else tuple(-1 - first - p for p in range(self.soft))

    def shares(self) -> tuple[float, ...]:
        """p(I), (N,)."""
        return self.prior or tuple(1 / len(self.names) for _ in self.names)

    def pick(self, posterior: Sequence[float]) -> int | None:
        """The likeliest intent of q(I | x), (N,); None where it is not likely enough."""
        best = max(range(len(self.names)), key=lambda i: posterior[i])
        return best if posterior[best] >= self.threshold else None

    def as_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping that `from_dict` reads back."""
        own = {"names": list(self.names), "words": self.words, "threshold": self.threshold}
        own |= {"soft": self.soft} if self.soft else {}
        return {**own, "prior": list(self.prior)} if self.prior else own

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> IntentForm:
        prior = tuple(kept.get("prior", ()))
        return cls(tuple(kept["names"]), kept["words"], prior, kept["threshold"], kept.get("soft", 0))


def fit_intents(
    intents: Iterable[str | None], names: Sequence[str] = (), *, prior: str = "uniform", **form: Any
) -> IntentForm:
    """The form of the intents that data have: `names`, or all that occur, in alphabetical order.

    `prior` "uniform" (the paper's) or "data", the share of each intent among the rows that have one, every count raised
    by one. `form`: further fields of IntentForm. Raises SettingsError for data without intents, and for one that
    `names` lacks.
    """
    counts: dict[str, int] = {}
    for intent in intents:
        if intent is not None and intent.strip():
            counts[intent] = counts.get(intent, 0) + 1
    strange = next((intent for intent in counts if names and intent not in names), None)
    if strange is not None:
        raise SettingsError(f'the data have the intent "{strange}", which is not listed.{nearest(strange, names)}')
    known = tuple(names) or tuple(sorted(counts))
    if not known:
        raise SettingsError(
            "the data have no intents.", remedy='Give rows a field "intent", or label them: `pluralign intents`.'
        )
    if prior not in ("uniform", "data"):
        raise SettingsError(f'a prior is "uniform" or "data", not "{prior}".')
    total = sum(counts.values()) + len(known)
    shares = tuple((counts.get(name, 0) + 1) / total for name in known) if prior == "data" else ()
    return IntentForm(known, prior=shares, **form)
