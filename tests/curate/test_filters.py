"""Length, quality and the validation split."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pluralign.curate import hold_out, length_filter, quality_filter, token_counter, word_counter
from pluralign.data import prompt_hash, split
from pluralign.errors import SettingsError
from pluralign.records import Demonstration, Message, Preference, Ranked, Record

from .toys import many, pair, passed, says, user


def words(n: int) -> str:
    return "word " * n


# Length


@pytest.mark.parametrize(
    ("chosen", "rejected", "why"),
    [
        (2048, 32, None),
        (2049, 100, "too long"),
        (100, 2049, "too long"),
        (31, 31, "too short"),
        (31, 32, None),
        (32, 1, None),
        (2049, 1, "too long"),
    ],
)
def test_the_papers_limits(chosen: int, rejected: int, why: str | None) -> None:
    _, count = passed(length_filter(), [pair("q", words(chosen), words(rejected))])
    assert dict(count.dropped) == ({why: 1} if why else {})


def test_one_response_is_too_short_by_itself_and_of_many_all_must_be() -> None:
    step = length_filter(shortest=3)
    ranked = Ranked(prompt=user("q"), responses=(says("a"), says("a b c"), says("b")), scores=(1.0, 2.0, 3.0))
    assert passed(step, [Demonstration(prompt=user("q"), response=says("a b"))])[1].dropped == {"too short": 1}
    assert passed(step, [ranked])[1].kept == 1


def test_a_response_of_several_turns_is_measured_as_a_whole() -> None:
    turns = (*says("a b c"), Message("user", "d e"), *says("f"))
    record = Preference(prompt=user("q"), chosen=turns, rejected=says("a"))
    assert passed(length_filter(shortest=6, longest=6), [record])[1].kept == 1


def test_words_of_scripts_without_spaces() -> None:
    assert word_counter(["one two, three", "我喜欢吃苹果", "Ceci n'est pas", "", "สวัสดี"]) == [3, 6, 4, 0, 6]


def test_tokens_are_the_tokenizers(tiny_model: str) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    texts = ["An apple a day.", "", "unbelievably antidisestablishmentarian"]
    counts = token_counter(tokenizer)(texts)
    assert counts == [len(tokenizer.encode(t, add_special_tokens=False)) for t in texts]
    assert counts[2] > 2
    step = length_filter(longest=counts[2], shortest=counts[0], counter=token_counter(tokenizer), unit="tokens")
    rows = [pair("q", texts[0], texts[2]), pair("q", texts[0], texts[2] + " more"), pair("q", "An", "apple")]
    _, count = passed(step, rows)
    assert (count.kept, dict(count.dropped)) == (1, {"too long": 1, "too short": 1})


def test_batches_keep_the_order() -> None:
    rows: list[Record] = [pair(f"{i}", words(i % 7), words(i % 5)) for i in range(700)]
    kept, _ = passed(length_filter(longest=5, shortest=2), rows)
    assert kept == [r for i, r in enumerate(rows) if max(i % 7, i % 5) in (2, 3, 4, 5)]


def test_limits_that_cross() -> None:
    with pytest.raises(SettingsError, match="at least 40 and at most 20 words"):
        length_filter(longest=20, shortest=40)


# Quality


@pytest.mark.parametrize(
    ("meta", "kept", "noted"),
    [
        ({"confidence": 0.6}, 1, 0),
        ({"confidence": 0.5999}, 0, 0),
        ({"confidence": "0.7"}, 1, 0),
        ({"confidence": 1}, 1, 0),
        ({}, 1, 1),
        ({"confidence": None}, 1, 1),
        ({"confidence": "high"}, 1, 1),
        ({"confidence": True}, 1, 1),
        ({"confidence": math.nan}, 1, 1),
        ({"other": 0.1}, 1, 1),
    ],
)
def test_confidence(meta: dict[str, Any], kept: int, noted: int) -> None:
    _, count = passed(quality_filter(), [pair(meta=meta)])
    assert (count.kept, count.noted["no confidence"]) == (kept, noted)
    _, strict = passed(quality_filter(missing="drop"), [pair(meta=meta)])
    assert strict.dropped["no confidence"] == noted


def test_a_named_field_and_a_nested_one() -> None:
    row = pair(meta={"judge": {"sure": 0.4}, "a.b": 0.9})
    assert passed(quality_filter(field="judge.sure"), [row])[1].dropped == {"unsure": 1}
    assert passed(quality_filter(field="a.b"), [row])[1].kept == 1
    assert passed(quality_filter(field="judge.none"), [row])[1].noted == {"no judge.none": 1}
    assert passed(quality_filter(field="judge"), [row])[1].noted == {"no judge": 1}


def test_margins_as_log_odds() -> None:
    """sigma(0.4) = 0.5987, sigma(0.41) = 0.6011."""
    rows = [pair(margin=m) for m in (0.4, 0.41, -2.0, 1e4, -1e4, None)]
    kept, count = passed(quality_filter(from_margin=True), rows)
    assert [r.margin for r in kept if isinstance(r, Preference)] == [0.41, 1e4, None]
    assert (dict(count.dropped), dict(count.noted)) == ({"unsure": 3}, {"no margin": 1})


@pytest.mark.parametrize("value", [85, 1.01, -0.2, "7"])
def test_a_confidence_on_another_scale_stops(value: Any) -> None:
    with pytest.raises(SettingsError, match=r'rows:7: "confidence" is .* lies between 0 and 1'):
        passed(quality_filter(), [pair(meta={"confidence": value}, where="rows:7")])


def test_impossible_settings() -> None:
    with pytest.raises(SettingsError, match="not at 60"):
        quality_filter(least=60)
    with pytest.raises(SettingsError, match='Did you mean "drop"'):
        quality_filter(missing="dropped")  # type: ignore[arg-type]


# Hold-out


def first_turns(rows: list[Record]) -> set[str]:
    return {row.prompt[0].content for row in rows}


PROMPTS = st.lists(st.sampled_from([f"prompt {i}" for i in range(12)]), min_size=1, max_size=40)


@given(prompts=PROMPTS, n=st.integers(1, 20), seed=st.integers(0, 3), shuffle=st.randoms())
@settings(max_examples=150, deadline=None)
def test_the_hold_out_is_the_split_of_the_data_room(
    prompts: list[str], n: int, seed: int, shuffle: random.Random
) -> None:
    rows = [pair(p, f"good {i}", f"bad {i}") for i, p in enumerate(prompts)]
    try:
        train, held = split(rows, n, seed=seed)
    except SettingsError:
        with pytest.raises(SettingsError, match="none would be left"):
            passed(hold_out(n, seed=seed), rows)
        return
    for _ in range(2):
        kept, count = passed(hold_out(n, seed=seed), rows)
        assert sorted(map(repr, kept)) == sorted(map(repr, train))
        assert sorted(map(repr, count.validation)) == sorted(map(repr, held))
        assert not first_turns(kept) & first_turns(count.validation)
        assert count.held_out >= n
        shuffle.shuffle(rows)


def test_a_thousand_of_many_exactly() -> None:
    rows = many(5000)
    kept, count = passed(hold_out(1000), rows)
    assert (len(kept), count.held_out) == (4000, 1000)
    places = sorted(prompt_hash(r) for r in rows)
    assert max(prompt_hash(r) for r in count.validation) == places[999]
    assert count.validation != passed(hold_out(1000, seed=1), rows)[1].validation


def test_only_the_validation_part_is_held() -> None:
    """The training part flows: after 2,000 records all but 10 have been handed on."""
    read = 0

    def rows() -> Any:
        nonlocal read
        for record in many(2000):
            read += 1
            yield record

    most, given_on = 0, 0
    for _ in hold_out(10)(rows()):
        given_on += 1
        most = max(most, read - given_on)
    assert given_on == 1990
    assert most <= 11


def test_follow_up_turns_do_not_leak() -> None:
    """Dialogues that begin alike are on the same side, whatever comes after."""
    rows = [replace(pair(), prompt=(*user(f"start {i % 10}"), *says("yes?"), *user(f"more {i}"))) for i in range(200)]
    kept, count = passed(hold_out(30), rows)
    assert count.held_out == 40
    assert not first_turns(kept) & first_turns(count.validation)


@pytest.mark.parametrize("n", [0, -1, True, 0.5])
def test_impossible_numbers(n: Any) -> None:
    with pytest.raises(SettingsError, match="whole number of at least 1"):
        hold_out(n)


def test_more_than_there_are() -> None:
    with pytest.raises(SettingsError, match="1,000 records are to be held out of 50: none would be left"):
        passed(hold_out(1000), many(50))
