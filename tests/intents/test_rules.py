"""The pipeline's rules: elements that occur in the question, candidates from titles, kinds of requests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluralign.encoders import HashedWords
from pluralign.intents.bases import MemoryBase, Passage
from pluralign.intents.prompts import occurs
from pluralign.intents.rules import (
    beliefs_by_rules,
    calibrated_by_rules,
    core_by_rules,
    elements,
    request_kind,
)


@pytest.mark.parametrize(
    ("question", "wanted"),
    [
        ("Which drink caused Ali Khalid’s fatty liver disease?", ("drink", "Ali Khalid", "fatty liver disease")),
        ("If Gallu is a demon Lilu is what?", ("Gallu", "demon", "Lilu")),
        ("How many people lived in Paris on 5 May 1990?", ("people", "Paris", "5 May 1990")),
        ("Write a poem about New York.", ("poem", "New York")),
        ('Who sang "Cool Blue" in 2015?', ("Cool Blue", "2015")),
        ("What should I do?", ()),
    ],
)
def test_elements(question: str, wanted: tuple[str, ...]) -> None:
    assert elements(question) == wanted


@given(st.text(alphabet="abc ABC.,'?!59\"’\n", max_size=80) | st.text(max_size=60))
def test_elements_occur_in_the_question(question: str) -> None:
    found = elements(question)
    assert len(found) <= 5
    assert all(occurs(element, question) for element in found)
    assert len({e.casefold() for e in found}) == len(found)


@pytest.mark.parametrize(
    ("question", "kind"),
    [("Translate this into French", "translate"), ("Write a song", "write"), ("Why is the sky blue?", "why"),
     ("Who wrote Emma?", "fact"), ("Which is better, tea or coffee? Compare them.", "compare"),
     ("How do I boil an egg?", "how"), ("Hm.", "other")],
)  # fmt: skip
def test_kinds_of_requests(question: str, kind: str) -> None:
    assert request_kind(question)[0] == kind


def test_candidates_are_titles_that_the_whole_question_is_near() -> None:
    titles = ["Green tea", "Black tea", "Tea ceremony", "Moon"]
    base = MemoryBase([Passage.of(t, f"{t} is a thing.") for t in titles], HashedWords())
    found = beliefs_by_rules(("tea", "Moon"), base)
    assert set(found["tea"][:3]) == {"Green tea", "Black tea", "Tea ceremony"}
    assert "Moon" not in found["Moon"]  # its own name
    kept = calibrated_by_rules("Which tea?", {"tea": ("Green tea", "Elsewhere")}, base)
    assert kept == {"tea": ("Green tea",)}


def test_sub_questions() -> None:
    steps, intent, further = core_by_rules("Who is Ann Lee, friend of Bo Ek?", ("Ann Lee", "friend", "Bo Ek"))
    assert len(steps) == 5
    assert all(step.endswith("?") for step in steps)
    assert (intent, further) == ("find a fact", ())
