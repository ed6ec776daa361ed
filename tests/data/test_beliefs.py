"""Rows of beliefs: what they become, and what is wrong with those that cannot."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluralign.data import FORMATS, load
from pluralign.data.beliefs import Beliefs, beliefs_of, shares_of
from pluralign.errors import RecordError
from pluralign.records import Message, Preference, messages, to_row

ROW = FORMATS["beliefs"].example[0]


def only(**changes):
    row = {name: value for name, value in {**ROW, **changes}.items() if value is not None}
    (record,) = load([row], format="beliefs")
    return record


def test_a_row_becomes_a_pair_with_its_beliefs() -> None:
    assert only() == Preference(
        prompt=(Message("user", "Two neighbours talk about their town.\n\nShould shops open on Sundays?"),),
        chosen=(Message("assistant", "One quiet day a week does everybody good."),),
        rejected=(Message("assistant", "People should shop when they have the time."),),
        meta={"options": ["Yes", "No"], "probabilities": [0.7, 0.3], "accept": 1, "reject": 0},
    )
    assert beliefs_of(only()) == Beliefs(("Yes", "No"), (0.7, 0.3), accept=1, majority=False)
    assert beliefs_of(only()).pieces(1) == ("1", "<No>")


def test_it_reads_back_from_a_native_row() -> None:
    (again,) = load([to_row(only(majority=True, topic="town"))])
    assert again == only(majority=True, topic="town")
    assert again.meta["topic"] == "town"
    assert beliefs_of(again).majority  # what the data say goes before the shares


def test_lists_as_texts_and_numbers_as_texts() -> None:
    """As a CSV file has them."""
    texts = only(options='["Yes", "No"]', probabilities="[0.7, 0.3]", accept_choice_id="1", reject_choice_id="0")
    assert texts == only()


def test_contexts() -> None:
    assert only(context=None).prompt == messages("Should shops open on Sundays?")
    assert only(context="").prompt == messages("Should shops open on Sundays?")
    talk = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]
    assert [m.content for m in only(context=talk).prompt] == ["Hi.", "Hello.", "Should shops open on Sundays?"]
    assert [m.content for m in only(context=talk[:1]).prompt] == ["Hi.\n\nShould shops open on Sundays?"]


def test_rounded_shares_add_up_to_one() -> None:
    record = only(options=["a", "b", "c"], probabilities=[0.33, 0.33, 0.33], accept_choice=None, reject_choice=None)
    assert beliefs_of(record).shares == pytest.approx((1 / 3,) * 3)
    assert beliefs_of(record).majority  # none is larger


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"probabilities": [0.7]}, 'expected 2 numbers in "probabilities"'),
        ({"probabilities": [70, 30]}, "adds up to 100, not to 1"),
        ({"probabilities": [1.2, -0.2]}, "no share"),
        ({"probabilities": [0.7, True]}, "no share"),
        ({"options": "Yes or no"}, "no JSON list"),
        ({"options": []}, 'expected a list of texts in "options"'),
        ({"options": ["Yes", " "]}, "no text, or empty"),
        ({"options": ["Yes", "Yes"], "accept_choice": "Yes"}, "an option twice"),
        ({"accept_choice_id": 2}, "the number of an option, 0 to 1"),
        ({"accept_choice_id": "No"}, "the number of an option, 0 to 1"),
        ({"accept_choice_id": True}, "the number of an option, 0 to 1"),
        ({"accept_choice": "Yes"}, "is not the option"),
        ({"majority": "mostly"}, "majority"),
        ({"question": None}, "question"),
        ({"reject_response": " "}, "empty"),
    ],
)
def test_bad_rows(changes, reason) -> None:
    with pytest.raises(RecordError, match=reason):
        only(**changes)


def test_records_without_beliefs_say_what_is_missing() -> None:
    bare = Preference(prompt=messages("q"), chosen=messages("a"), rejected=messages("b"), meta={"options": ["x"]})
    with pytest.raises(RecordError, match="no probabilities and no accept"):
        beliefs_of(bare)


@given(st.integers(1, 120))
def test_no_number_begins_another(k) -> None:
    beliefs = Beliefs(tuple(map(str, range(k))), (1 / k,) * k, 0, True)
    numbers = [beliefs.number(i) for i in range(k)]
    assert len(set(numbers)) == k
    assert len({len(n) for n in numbers}) == 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8).filter(lambda x: sum(x) > 0.01))
def test_shares_are_a_distribution(values) -> None:
    total = sum(values)
    assert sum(shares_of([v / total for v in values], len(values))) == pytest.approx(1, abs=1e-12)
