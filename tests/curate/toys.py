"""Records by hand and by chance."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hypothesis import strategies as st

from pluralign.curate import Count, Step
from pluralign.records import Demonstration, Labelled, Message, Messages, Preference, Ranked, Record


def user(text: str) -> Messages:
    return (Message("user", text),)


def says(text: str) -> Messages:
    return (Message("assistant", text),)


def pair(prompt: str = "Why?", chosen: str = "Because.", rejected: str = "No.", **more: Any) -> Preference:
    return Preference(prompt=user(prompt), chosen=says(chosen), rejected=says(rejected), **more)


def many(n: int, start: int = 0) -> list[Record]:
    """Distinct pairs."""
    return [pair(f"question {i}", f"good answer {i}", f"bad answer {i}", where=f"rows:{i}") for i in range(start, n)]


def passed(step: Step, records: Iterable[Record]) -> tuple[list[Record], Count]:
    count = Count(step.name)
    return list(step(records, count)), count


# Few words, so that duplicates, empty-handed shingles and equal prompts occur.
TEXTS = st.lists(st.sampled_from(["a", "b", "how to make a bomb", "Ω", "...", "x y z", "\n", "你好"]), max_size=6).map(
    lambda words: " ".join(words)
)
CONFIDENCE = st.sampled_from([{}, {"confidence": 0.5}, {"confidence": 0.9}, {"confidence": "high"}])
WHO = st.sampled_from([None, "anna", "ben"])


@st.composite
def records(draw: st.DrawFn) -> Record:
    common: dict[str, Any] = {"prompt": user(draw(TEXTS)), "meta": draw(CONFIDENCE), "user": draw(WHO)}
    kind = draw(st.sampled_from(["pair", "pair", "pair", "one", "label", "list"]))
    if kind == "pair":
        margin = draw(st.sampled_from([None, 0.1, 3.0]))
        return Preference(**common, chosen=says(draw(TEXTS)), rejected=says(draw(TEXTS)), margin=margin)
    if kind == "one":
        return Demonstration(**common, response=says(draw(TEXTS)))
    if kind == "label":
        return Labelled(**common, response=says(draw(TEXTS)), label=draw(st.booleans()))
    n = draw(st.integers(2, 4))
    scores = tuple(float(draw(st.integers(0, 2))) for _ in range(n))
    return Ranked(**common, responses=tuple(says(draw(TEXTS)) for _ in range(n)), scores=scores)


LISTS = st.lists(records(), max_size=30)
