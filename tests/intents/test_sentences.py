"""Sentences by ANAH-v2's exceptions, and passages of whole sentences."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pluralign.curate.texts import words
from pluralign.intents.sentences import passages_of, sentences


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("J. K. Rowling wrote it. It sold well.", ["J. K. Rowling wrote it.", "It sold well."]),
        ("He left in Jan. 1990. See Li et al. (2020)!", ["He left in Jan. 1990.", "See Li et al. (2020)!"]),
        ("1. Boil water. Wait.\n2. Pour it.", ["1. Boil water.", "Wait.", "2. Pour it."]),
        ("It cost 3.5. He paid; she did not.", ["It cost 3.5.", "He paid;", "she did not."]),
        ("The U.S. Army came, e.g. by sea.", ["The U.S. Army came, e.g. by sea."]),
        ("Acme Inc. makes tea etc. and coffee. Yes.", ["Acme Inc. makes tea etc. and coffee.", "Yes."]),
        ('He said "No." Then he left... Really?!', ['He said "No."', "Then he left...", "Really?!"]),
        ("他走了。她来了！好", ["他走了。", "她来了！", "好"]),
        ("...\n\n--", []),
    ],
)
def test_where_a_sentence_ends(text: str, wanted: list[str]) -> None:
    assert sentences(text) == wanted


@given(st.text(alphabet="ab. J!?;\n1。", max_size=80))
def test_no_word_is_lost(text: str) -> None:
    assert words(" ".join(sentences(text))) == words(text)


@given(st.lists(st.integers(1, 30), max_size=40), st.integers(20, 120))
@example([1, 26, 22, 6, 20], 50)
def test_passages_hold_every_sentence_once_and_are_alike(lengths: list[int], size: int) -> None:
    text = " ".join(" ".join(["word"] * n) + "." for n in lengths)
    made = list(passages_of(text, size))
    assert [s for passage in made for s in sentences(passage)] == sentences(text)
    assert all(len(words(passage)) <= 1.5 * size + 30 for passage in made)  # a share of the whole, and one sentence
    assert len(made) <= max(1, round(sum(lengths) / size))
