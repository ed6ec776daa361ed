"""Exact and near duplicates: which records count as the same, and which do not."""

from __future__ import annotations

import random
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from pluralign.curate import Step, curate, exact_duplicates, near_duplicates
from pluralign.curate.duplicates import OPPOSITE
from pluralign.curate.near import CROWDED, banding, shingles, signature
from pluralign.errors import SettingsError
from pluralign.records import Demonstration, Labelled, Message, Preference, Ranked, Record

from .toys import LISTS, many, pair, passed, says, user

STEPS = [exact_duplicates(), exact_duplicates(normalise="case"), near_duplicates(threshold=0.6)]


def kept(step: Step, *records: Record) -> int:
    return passed(step, records)[1].kept


@pytest.mark.parametrize("step", STEPS, ids=lambda s: s.name)
@given(rows=LISTS)
@settings(max_examples=25, deadline=None)
def test_removing_duplicates_twice_changes_nothing(step: Step, rows: list[Record]) -> None:
    once, _ = passed(step, rows)
    twice, count = passed(step, once)
    assert twice == once
    assert count.dropped.total() == 0
    assert passed(step, [*rows, *rows])[0] == once


@given(rows=LISTS)
@settings(max_examples=25, deadline=None)
def test_what_is_exact_is_near(rows: list[Record]) -> None:
    exact = passed(exact_duplicates(normalise="case"), rows)[1].kept
    assert passed(near_duplicates(threshold=1.0), rows)[1].kept <= exact


# Exact


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ({}, True),
        ({"margin": 2.0, "weight": 0.5, "source": "b", "meta": {"id": 7}}, True),  # what is said about it may differ
        ({"chosen": "Because!"}, False),
        ({"prompt": "Why? "}, False),
        ({"user": "anna"}, False),  # another person's judgement
        ({"group": "north"}, False),
        ({"tools": ({"name": "search"},)}, False),
        ({"chosen": "No.", "rejected": "Because."}, False),
    ],
)
def test_what_an_exact_duplicate_is(other: dict[str, Any], same: bool) -> None:
    assert kept(exact_duplicates(), pair(), pair(**other)) == (1 if same else 2)


def test_annotators_are_merged_on_demand() -> None:
    rows = [pair(user="anna"), pair(user="ben"), pair(group="north")]
    assert kept(exact_duplicates(), *rows) == 3
    assert kept(exact_duplicates(across_annotators=True), *rows) == 1


@pytest.mark.parametrize(("normalise", "n"), [("none", 3), ("space", 2), ("case", 1)])
def test_normalisation(normalise: Any, n: int) -> None:
    rows = [pair("Why  so?\n"), pair("Why so?"), pair("WHY SO?")]
    assert kept(exact_duplicates(normalise=normalise), *rows) == n


def test_a_contradiction_is_kept_and_noted() -> None:
    _, count = passed(exact_duplicates(), [pair("q", "a", "b"), pair("q", "b", "a"), pair("q", "b", "a")])
    assert (count.kept, count.dropped, count.noted) == (2, {"exact duplicate": 1}, {OPPOSITE: 1})


def test_the_first_is_kept_and_named() -> None:
    entries: list[Any] = []
    rows = [pair(where="a:1", meta={"n": 1}), pair(where="a:2", meta={"n": 2})]
    step = exact_duplicates()
    assert [r.meta for r in curate(rows, [step], dropped=entries.append)] == [{"n": 1}]
    assert (entries[0]["where"], entries[0]["of"], entries[0]["row"]["meta"]) == ("a:2", "a:1", {"n": 2})


def test_texts_do_not_run_together() -> None:
    rows = [pair("a", "bc", "d"), pair("ab", "c", "d"), pair("a", "b", "cd")]
    two_turns = Preference(prompt=(*user("a"), *says("b"), *user("c")), chosen=says("x"), rejected=says("y"))
    one_turn = Preference(prompt=user("abc"), chosen=says("x"), rejected=says("y"))
    call = Message("assistant", "", {"tool_calls": [{"function": {"name": "f"}}]})
    assert kept(exact_duplicates(), *rows, two_turns, one_turn) == 5
    assert kept(exact_duplicates(), pair(chosen=""), Preference(prompt=user("Why?"), chosen=(call,),
                rejected=says("No."))) == 2  # fmt: skip


def test_rankings_are_the_same_in_any_order_of_the_row() -> None:
    texts = [says("a"), says("b"), says("c")]
    first = Ranked(prompt=user("q"), responses=tuple(texts), scores=(3.0, 1.0, 1.0))
    turned = Ranked(prompt=user("q"), responses=(texts[2], texts[0], texts[1]), scores=(2.0, 9.0, 2.0))
    other = Ranked(prompt=user("q"), responses=tuple(texts), scores=(3.0, 2.0, 1.0))
    assert kept(exact_duplicates(), first, turned) == 1
    assert kept(exact_duplicates(), first, other) == 2


def test_labels_and_kinds_count() -> None:
    up = Labelled(prompt=user("q"), response=says("a"), label=True)
    down = Labelled(prompt=user("q"), response=says("a"), label=False)
    shown = Demonstration(prompt=user("q"), response=says("a"))
    beside = Demonstration(prompt=user("q"), response=says("a"), alternative=says("b"))
    for step in (exact_duplicates(), near_duplicates()):
        assert kept(step, up, down, shown, beside, up, down, shown, beside) == 4


# Near


def jaccard(a: str, b: str, ngram: int = 3) -> float:
    one, two = set(shingles(a, ngram).tolist()), set(shingles(b, ngram).tolist())
    return len(one & two) / len(one | two)


def test_shingles_are_the_word_ngrams() -> None:
    assert len(shingles("a b c d e")) == 3
    assert len(shingles("a b a b a b")) == 2  # a set
    assert len(shingles("a b")) == 1  # shorter than an n-gram: the words there are
    assert jaccard("One, two; three!", "one two three") == 1.0
    assert jaccard("one two three", "three two one") == 0.0
    assert jaccard("a b c d", "a b c e") == pytest.approx(1 / 3)
    assert jaccard("?!", "?!") == 1.0  # no words: the text itself
    assert jaccard("?!", "...") == 0.0
    assert jaccard("", "") == 1.0
    assert len(shingles("我喜欢吃苹果")) == 4  # no spaces: a character is a word


def test_signatures_estimate_jaccard_similarity() -> None:
    rng = random.Random(0)
    errors = []
    for _ in range(300):
        shared = [f"w{rng.randrange(10**6)}" for _ in range(rng.randint(5, 200))]
        a = " ".join(shared + [f"a{i}" for i in range(rng.randint(0, 60))])
        b = " ".join(shared + [f"b{i}" for i in range(rng.randint(0, 60))])
        estimate = float((signature(shingles(a)) == signature(shingles(b))).mean())
        true = jaccard(a, b)
        errors.append((estimate - true) / max((true * (1 - true) / 128) ** 0.5, 1 / 128))
    assert abs(np.mean(errors)) < 0.2
    assert 0.8 < np.std(errors) < 1.2


def test_hash_functions_are_the_documented_ones_on_every_machine() -> None:
    """The same numbers from Python's whole numbers: crc32 of words, splitmix64, multiply and add modulo 2^64."""
    full = 2**64 - 1

    def mix(x: int) -> int:
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & full
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & full
        return x ^ (x >> 31)

    def scatter(i: int) -> int:
        return mix(i * 0x9E3779B97F4A7C15 & full)

    codes = [zlib.crc32(word.encode()) for word in ["the", "quick", "brown", "fox"]]
    hashes = []
    for gram in (codes[:3], codes[1:]):
        value = 3
        for code in gram:
            value = mix((value * 0x9E3779B97F4A7C15 + code) & full)
        hashes.append(value)
    assert shingles("The quick brown fox.").tolist() == sorted(hashes)
    least = [min(((h * (scatter(k + 1) | 1) + scatter(k + 129)) & full) >> 32 for h in hashes) for k in range(128)]
    assert signature(shingles("the quick brown fox")).tolist() == least


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 0.95])
def test_bands_find_nearly_every_pair_at_the_threshold(threshold: float) -> None:
    bands, rows = banding(threshold)
    assert bands * rows <= 128
    assert 1 - (1 - threshold**rows) ** bands >= 0.999


TEXT = " ".join(f"word{i}" for i in range(100))


def edited(text: str, places: list[int]) -> str:
    words = text.split()
    for place in places:
        words[place] = "changed"
    return " ".join(words)


def test_near_texts_are_dropped_and_far_ones_kept() -> None:
    near, far = edited(TEXT, [50]), edited(TEXT, [10, 20, 30, 40, 50, 60])
    assert jaccard(TEXT, near) > 0.93
    assert jaccard(TEXT, far) < 0.75
    whole = pair(TEXT, "yes " + TEXT, "no " + TEXT)
    assert kept(near_duplicates(), whole, pair(near, "yes " + near, "no " + near)) == 1
    assert kept(near_duplicates(), whole, pair(far, "yes " + far, "no " + far)) == 2
    assert kept(near_duplicates(threshold=0.6), whole, pair(far, "yes " + far, "no " + far)) == 1


def test_every_part_must_be_near() -> None:
    """A long prompt does not cover for other responses, nor equal responses for another prompt."""
    first, other = pair(TEXT, "yes", "no"), pair(TEXT, "no", "yes")
    assert kept(near_duplicates(), first, other) == 2
    assert kept(near_duplicates(on="prompt"), first, other) == 1
    elsewhere = pair("something else", "yes", "no")
    assert kept(near_duplicates(), first, elsewhere) == 2
    assert kept(near_duplicates(on="responses"), first, elsewhere) == 1


def test_nearness_is_symmetric() -> None:
    rng = random.Random(1)
    for _ in range(60):
        text = " ".join(rng.choices("abcdefghijklmnop", k=rng.randint(3, 60)))
        a = pair(text, "x y z " + text, text)
        changed = edited(text, rng.sample(range(len(text.split())), k=2))
        b = pair(changed, "x y z " + changed, changed)
        assert kept(near_duplicates(threshold=0.7), a, b) == kept(near_duplicates(threshold=0.7), b, a)


def test_the_index_agrees_with_comparing_all_with_all() -> None:
    """Against the same signatures without an index; enough records for the table to grow."""
    rng = random.Random(2)
    texts = [" ".join(rng.choices([f"w{i}" for i in range(300)], k=30)) for _ in range(900)]
    texts += [edited(t, rng.sample(range(30), k=rng.choice([1, 1, 2]))) for t in rng.choices(texts, k=700)]
    rng.shuffle(texts)
    step = near_duplicates(threshold=0.7, on="prompt")
    found, count = passed(step, [pair(t) for t in texts])
    signatures = np.stack([signature(shingles(t)) for t in texts])
    alone: list[int] = []
    for i in range(len(texts)):
        agree = (signatures[alone] == signatures[i]).sum(axis=1) if alone else np.zeros(1)
        if agree.max() < 0.7 * 128:
            alone.append(i)
    assert count.dropped.total() > 300
    assert [r.prompt[0].content for r in found] == [texts[i] for i in alone]


def test_a_crowd_of_candidates_is_noted() -> None:
    """Thousands of records from one template: each is compared with some of them only, and the report says so."""
    rows = [pair(f"{TEXT} {i} {i + 1} {i + 2} {i * 7} {i * 11} {i * 13} {i * 17} {i * 19} {i * 23} x{i} y{i} z{i}")
            for i in range(600)]  # fmt: skip
    _, count = passed(near_duplicates(threshold=0.95, on="prompt"), rows)
    assert count.noted[CROWDED] > 0


def test_calls_of_tools_are_compared() -> None:
    def call(city: str) -> Preference:
        turn = Message(
            "assistant", "", {"tool_calls": [{"function": {"name": "weather", "arguments": {"city": city}}}]}
        )
        return Preference(prompt=user("How is it there?"), chosen=(turn,), rejected=says("I do not know."))

    assert kept(near_duplicates(threshold=0.8), call("Oslo"), call("Lima")) == 2
    assert kept(near_duplicates(threshold=0.8), call("Oslo"), call("Oslo")) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": 0}, "above 0 and at most 1, not 0"),
        ({"threshold": 1.2}, "above 0 and at most 1, not 1.2"),
        ({"threshold": float("nan")}, "not nan"),
        ({"on": "prompts"}, 'Did you mean "prompt"?'),
        ({"ngram": 0}, "at least 1 word"),
    ],
)
def test_impossible_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message.replace("?", r"\?")):
        near_duplicates(**settings)


def test_unknown_normalisation() -> None:
    with pytest.raises(SettingsError, match='Did you mean "space"'):
        exact_duplicates(normalise="spaces")  # type: ignore[arg-type]


def test_distinct_records_all_stay() -> None:
    assert kept(near_duplicates(), *many(50)) == kept(exact_duplicates(), *many(50)) == 50
