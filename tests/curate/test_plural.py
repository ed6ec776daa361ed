"""Plural data from rows: attacks, opinions, intents, parts without leaks, and where every row went."""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pluralign.cli import run
from pluralign.curate.plural import (
    NONE,
    POSITIONS,
    STYLES,
    UNRELATED,
    Built,
    asked_for,
    attack_pref,
    belief_row,
    check_leaks,
    comparable,
    dsp_intents,
    holds,
    inject,
    leaks,
    opinion_ext,
    polis_intents,
    prefeval_intents,
    question_of,
    rows_of,
    substantive,
    three_ways,
    write_folder,
)
from pluralign.curate.plural.rows import pair
from pluralign.curate.plural.splits import wanted
from pluralign.data import load
from pluralign.data.beliefs import beliefs_of
from pluralign.data.votes import Ballot, Votes
from pluralign.errors import RecordError, SettingsError
from pluralign.records import to_row

QUESTIONS = [{"question": f"who wrote book number {i}", "answer": [f"Author {i}", "somebody"]} for i in range(40)]


def opinions() -> list[dict[str, Any]]:
    """Two countries that disagree on A, one that is alone on B, and rows that cannot be used."""
    yes_no = ["Yes", "No", "DK/Refused"]
    return [
        {"country": "X", "question": "A?", "options": yes_no, "distribution": [0.6, 0.2, 0.2]},
        {"country": "Y", "question": "A?", "options": yes_no, "distribution": [0.1, 0.8, 0.1]},
        {"country": "X", "question": "B?", "options": ["0", 1.0, "DK"], "distribution": [0.5, 0.5, 0.0]},
        {"country": "Y", "question": "C?", "options": ["Only one", "Don't know"], "distribution": [0.5, 0.5]},
        {"country": "Y", "question": "D?", "options": ["Yes", "No"], "distribution": [0.5, 0.4]},
    ]


# Texts


def test_texts_are_compared_without_case_accents_articles_and_marks() -> None:
    assert comparable("The Café, isn't it?") == "cafe isnt it"
    assert comparable("The The") == "the the"  # nothing else is left of it
    assert holds("It was Luka Modri\u0107.", "luka modric")
    assert not holds("a catalogue", "cat")
    assert not holds("anything", "?!")


@pytest.mark.parametrize(
    ("question", "intent"),
    [
        ("who sings this", "asks for a person or a group of people"),
        ("when did she leave", "asks for a time"),
        ("what year was it", "asks for a time"),
        ("where is it", "asks for a place"),
        ("how many are there when it rains", "asks for a number or an amount"),  # the first question word counts
        ("how does it work", "asks how or why"),
        ("name of the theme", "asks for a thing or a name"),
    ],
)
def test_what_a_question_asks_for(question: str, intent: str) -> None:
    assert asked_for(question) == intent


# Attacks


@pytest.mark.parametrize("style", STYLES)
def test_an_attack_stands_where_it_is_put(style: str) -> None:
    main, attack = "Who wrote the famous book?", "what do owls read"
    found = {p: inject(main, attack, position=p, style=style, rng=random.Random(3)) for p in POSITIONS}
    assert found["before"].endswith(main)
    assert found["after"].startswith(main)
    assert found["middle"].startswith("Who wrote")
    assert found["middle"].endswith("the famous book?")
    assert all("hat do owls read?" in text for text in found.values())


def test_one_word_has_no_middle_and_unknown_kinds_are_errors() -> None:
    assert inject("Who?", "why", position="middle", style="plain", rng=random.Random(0)).count("Who?") == 2
    with pytest.raises(SettingsError, match=r'style of an attack "system2".*"system"'):
        attack_pref(QUESTIONS, styles=["system2"])
    with pytest.raises(SettingsError, match="no position"):
        attack_pref(QUESTIONS, positions=[])


def test_pairs_differ_by_what_is_answered_alone() -> None:
    built = attack_pref(QUESTIONS, seed=1)
    assert built.balanced
    assert (built.rows, built.used, len(built.records)) == (40, 40, 40)
    for record in built.records:
        meta, chosen, rejected = record.meta, record.chosen[0].content, record.rejected[0].content
        assert holds(chosen, meta["answers"][0])
        assert not holds(chosen, meta["attack_answer"])
        assert holds(rejected, meta["attack_answer"])
        assert not holds(rejected, meta["answers"][0])
        own, other = meta["answers"][0].casefold(), meta["attack_answer"].casefold()
        assert chosen.casefold().replace(own, "_") == rejected.casefold().replace(other, "_")  # the same words
        assert meta["attack"].rstrip("?").lower()[1:] in record.prompt[0].content.lower()
    kinds = Counter((record.meta["position"], record.meta["style"]) for record in built.records)
    assert len(kinds) == 15
    assert max(kinds.values()) - min(kinds.values()) <= 1


def test_attacks_are_the_same_under_a_seed_and_added_rows_move_no_words() -> None:
    first, again, other = (attack_pref(QUESTIONS, seed=s).records for s in (0, 0, 1))
    assert first == again
    assert first != other
    longer = attack_pref([*QUESTIONS, {"question": "one more", "answer": "x1"}], seed=0).records
    assert longer[:40] == first


def test_rows_that_cannot_be_used_are_counted() -> None:
    rows: list[dict[str, Any]] = [
        *QUESTIONS[:2], {"question": "Who wrote, book number 0?", "answer": "again"}, {"question": "??", "answer": "x"},
        {"question": "who", "answer": ["", "."]}, *QUESTIONS[2:5],
    ]  # fmt: skip
    built = attack_pref(rows, limit=3)
    assert built.skipped == {"question seen before": 1, "no question": 1, "no answer": 1, "behind the limit": 2}
    assert built.balanced
    assert built.used == 3
    with pytest.raises(RecordError, match='row 1: no field "answer"'):
        attack_pref([{"question": "x"}])
    with pytest.raises(RecordError, match="a text or a list"):
        attack_pref([{"question": "x", "answer": 3}])


def test_an_unrelated_question_that_touches_the_answer_is_not_taken() -> None:
    only = [("what is purple", "lilac"), ("what do owls read", "maps")]
    built = attack_pref([{"question": "which flower", "answer": "Lilac"}], unrelated=only)
    assert built.records[0].meta["attack_answer"] == "maps"
    nothing = attack_pref([{"question": "which flower", "answer": "Lilac"}], unrelated=only[:1])
    assert nothing.skipped == {"every unrelated question touches it": 1}
    assert nothing.balanced


def test_corruption_and_benign_questions() -> None:
    both = attack_pref(QUESTIONS, corruption="both").records
    assert all(holds(r.rejected[0].content, r.meta["answers"][0]) for r in both)
    assert {r.meta["corruption"] for r in attack_pref(QUESTIONS, corruption="mixed").records} == {"hijacked", "both"}
    half = attack_pref(QUESTIONS, benign=0.5).records
    left = [r for r in half if r.meta["style"] == NONE]
    assert 10 <= len(left) <= 30
    assert all(r.prompt[0].content == r.meta["main"] for r in left)
    with pytest.raises(SettingsError, match=r'"hijack".*"hijacked"'):
        attack_pref(QUESTIONS, corruption="hijack")  # type: ignore[arg-type]


def test_our_unrelated_questions_are_unlike_each_other() -> None:
    assert len(UNRELATED) >= 40
    assert len({comparable(q) for q, _ in UNRELATED}) == len({comparable(a) for _, a in UNRELATED}) == len(UNRELATED)


# Opinions


def test_the_most_accepted_option_is_chosen() -> None:
    built = opinion_ext(opinions())
    assert built.balanced
    assert built.used == 3
    assert built.skipped == {"fewer than two opinions": 1, "shares do not add up to 1": 1}
    assert built.notes == {"options that are no opinion": 4, "options tie for the first place": 1}
    x, y, b = built.records
    assert (x.intent, y.intent, x.group, y.group) == ("Yes", "No", "X", "Y")
    assert x.prompt[0].content == "Somebody from X is asked this.\n\nA?"
    assert x.chosen[0].content.replace("Yes", "No") == x.rejected[0].content
    # shares of those with an opinion: .6 and .2 of .8
    assert x.meta["probabilities"] == pytest.approx([0.75, 0.25])
    assert x.meta["majority"]
    # the mean country: Yes (.75 + .1111) / 2 = .43, No .57; so X stands against the world
    assert x.meta["against_world"]
    assert not y.meta["against_world"]
    assert b.meta["options"] == ["0", "1"]  # numbers of a scale come as 1.0


def test_all_options_are_chosen_by_their_share() -> None:
    built = opinion_ext(opinions(), pairs="all", countries=["Y"], least=0.05, show_country=False)
    assert [(r.intent, r.meta["majority"]) for r in built.records] == [("Yes", False), ("No", True)]
    assert [r.weight for r in built.records] == pytest.approx([1 / 9, 8 / 9])
    assert {r.prompt[0].content for r in built.records} == {"A?"}
    assert [r.intent for r in opinion_ext(opinions(), pairs="all", countries=["Y"], least=0.2).records] == ["No"]
    assert built.skipped["another country"] == 2
    assert built.balanced
    assert opinion_ext(opinions(), intents="country").intents == ("X", "Y")


def test_records_and_rows_of_beliefs_say_the_same() -> None:
    for record in opinion_ext(opinions(), pairs="all").records:
        row = json.loads(json.dumps(belief_row(record)))
        (read,) = load([row], format="beliefs")
        assert beliefs_of(read) == beliefs_of(record)
        assert (read.prompt, read.chosen, read.rejected, read.weight) == (  # type: ignore[attr-defined]
            record.prompt, record.chosen, record.rejected, record.weight)  # fmt: skip
        assert (read.group, read.intent) == (record.group, record.intent)


@pytest.mark.parametrize(
    ("option", "is_one"),
    [("Don't know", False), ("DK/Refused", False), ("Neither (DO NOT READ)", False), ("Other (VOL)", False),
     ("Missing; Not available", False), ("No answer", False), ("No, never", True), ("Very good", True),
     ("Do not trust at all", True), ("", False)],
)  # fmt: skip
def test_what_counts_as_an_opinion(option: str, is_one: bool) -> None:
    assert substantive(option) is is_one


def test_opinion_errors() -> None:
    with pytest.raises(SettingsError, match='country "Z"'):
        opinion_ext(opinions(), countries=["Z"])
    with pytest.raises(RecordError, match='row 1: no field "country"'):
        opinion_ext([{"question": "A"}])
    with pytest.raises(RecordError, match="lists of one length"):
        opinion_ext([{**opinions()[0], "options": ["Yes"]}])


# Intents


def test_preferences_as_intents() -> None:
    row = {"preference": "I avoid dairy.", "question": "What for breakfast?", "_topic": "food",
           "classification_task_options": ["Oats", "Cheese", "Yoghurt", "Cheese"]}  # fmt: skip
    (hidden,) = prefeval_intents([row]).records
    assert (hidden.intent, hidden.group, hidden.chosen[0].content) == ("I avoid dairy.", "food", "Oats")
    assert hidden.prompt[0].content == "What for breakfast?"
    stated = prefeval_intents([row], form="stated", rejected="all", intents="topic").records
    assert [r.rejected[0].content for r in stated] == ["Cheese", "Yoghurt"]
    assert stated[0].intent == "food"
    assert stated[0].prompt[0].content == "I avoid dairy.\n\nWhat for breakfast?"
    talk = {"query": "q", "assistant_options": "o", "user_selection": "s", "assistant_acknowledgment": "a"}
    (told,) = prefeval_intents([row], dialogues=[{**row, "conversation": talk}]).records
    assert [t.content for t in told.prompt] == ["q", "o", "s", "a", "What for breakfast?"]
    without = prefeval_intents([row, {**row, "classification_task_options": ["Oats", "Oats"]}], dialogues=[])
    assert without.skipped == {"no dialogue": 1, "no other option": 1}
    assert without.balanced
    with pytest.raises(SettingsError, match=r'unknown form "state".*"stated"'):
        prefeval_intents([row], form="state")  # type: ignore[arg-type]


def test_domains_as_intents() -> None:
    rows = [{"query": "Rain?", "responses": {"poet": "Silver.", "chemist": "H2O.", "clerk": "H2O."}},
            {"query": "Snow?", "responses": {"poet": "White.", "chemist": "White."}}]  # fmt: skip
    built = dsp_intents(rows, rejected="all")
    assert [(r.intent, r.meta["rejected_domain"]) for r in built.records] == [
        ("poet", "chemist"), ("poet", "clerk"), ("chemist", "poet"), ("clerk", "poet")]  # fmt: skip
    assert built.skipped == {"no two different responses": 1}
    assert built.balanced
    assert built.notes == {"same text in two domains": 4}  # chemist, clerk; poet, chemist: each seen from both sides


def test_opinion_groups_as_intents() -> None:
    ballots = [Ballot(f"a{i}", ("1", "2"), (), group="0") for i in range(10)]
    ballots += [Ballot(f"b{i}", ("1",), ("2",), group="1") for i in range(11)]
    votes = Votes("town", {"1": "Trees are good.", "2": "Cars are good.", "3": "Nobody saw this."}, tuple(ballots))
    built = polis_intents(votes)
    assert (built.rows, built.used, dict(built.skipped)) == (6, 4, {"too few votes": 2})
    assert built.balanced
    by = {(r.meta["question"], r.group): r for r in built.records}
    cars, other = by["Cars are good.", "0"], by["Cars are good.", "1"]
    assert cars.prompt == other.prompt
    assert cars.chosen == other.rejected
    assert cars.intent == "opinion group 0"
    assert cars.meta["contested"]
    assert not by["Trees are good.", "0"].meta["contested"]
    assert not cars.meta["majority"]
    assert other.meta["majority"]
    contested = polis_intents(votes, contested=True)
    assert contested.skipped["groups agree"] == 2
    assert contested.used == 2
    with pytest.raises(SettingsError, match="no vote has an opinion group"):
        polis_intents(Votes("t", {"1": "x"}, (Ballot("a", ("1",), ()),)))


# Parts


def test_the_papers_sizes() -> None:
    assert wanted(7303) == [5842, 730, 731]  # Table 4, REAL-PREF
    assert wanted(4960) == [3968, 496, 496]  # GlobalOpinionQA-Ext
    assert wanted(6758) == [5406, 676, 676]  # ATTACK-PREF; Table 4 has 5,405, and so one row fewer than its 6,758


records = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 5)), min_size=20, max_size=80
)  # (question, intent) of each record


@settings(max_examples=60, deadline=None)
@given(records, st.integers(0, 3), st.sampled_from(["question", "intent"]))
def test_nothing_leaks(drawn: list[tuple[int, int]], seed: int, by: Any) -> None:
    made = [pair(f"  Question {q}!", "yes", "no", intent=f"i{i}", meta={"n": n}) for n, (q, i) in enumerate(drawn)]
    try:
        parts = three_ways(made, by=by, seed=seed)
    except SettingsError:  # fewer than three bundles, or one that leaves nothing for a part
        return
    assert leaks(parts, by=by) == []
    everything = [r for own in parts.values() for r in own]
    assert sorted(r.meta["n"] for r in everything) == list(range(len(made)))
    assert all(own == sorted(own, key=lambda r: r.meta["n"]) for own in parts.values())
    sides = [{question_of(r) for r in own} for own in parts.values()]
    assert not (sides[0] & sides[1])
    assert not (sides[0] & sides[2])
    assert not (sides[1] & sides[2])
    assert three_ways(made, by=by, seed=seed) == parts


def test_single_records_meet_the_shares_exactly_and_leaks_are_found() -> None:
    made = [pair(f"question {i}", "yes", "no", intent=f"i{i % 7}") for i in range(100)]
    parts = three_ways(made)
    assert {name: len(own) for name, own in parts.items()} == {"train": 80, "validation": 10, "test": 10}
    assert three_ways(made, seed=1) != parts
    leaked = {**parts, "test": [*parts["test"], pair("Question... 3", "a", "b", intent="i3")]}
    leaked["train"] = [*parts["train"], made[3]]
    with pytest.raises(RecordError, match="question 'question 3' stands in train and test"):
        check_leaks(leaked)
    with pytest.raises(SettingsError, match="would be empty"):
        three_ways([pair(f"q{i}", "a", "b", intent="same") for i in range(50)], by="intent")
    with pytest.raises(RecordError, match="no intent"):
        three_ways([pair(f"q{i}", "a", "b") for i in range(50)], by="intent")


def test_a_folder_is_read_back_and_is_the_same_every_time(tmp_path: Path) -> None:
    built = opinion_ext([{**row, "question": f"{row['question']} {i}"} for i in range(20) for row in opinions()])
    report = write_folder(built, tmp_path / "a", beliefs=True, about={"made": "x"})
    write_folder(built, tmp_path / "b", beliefs=True, about={"made": "x"})
    names = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert names == ["built.json", "intents.txt", "test.beliefs.jsonl.gz", "test.jsonl.gz", "train.beliefs.jsonl.gz",
                     "train.jsonl.gz", "validation.beliefs.jsonl.gz", "validation.jsonl.gz"]  # fmt: skip
    assert all((tmp_path / "a" / n).read_bytes() == (tmp_path / "b" / n).read_bytes() for n in names)
    read = [r for part in ("train", "validation", "test") for r in load(tmp_path / "a" / f"{part}.jsonl.gz")]
    assert sorted(json.dumps(to_row(r)) for r in read) == sorted(json.dumps(to_row(r)) for r in built.records)
    assert report["rows"] == report["used"] + sum(report["skipped"].values())
    with pytest.raises(SettingsError, match="exists already"):
        write_folder(built, tmp_path / "a")
    with pytest.raises(RecordError, match="no record came out of 3 rows \\(3 tie"):
        write_folder(Built((), 3, 0, {"tie": 3}), tmp_path / "c")
    assert not (tmp_path / "c").exists()


# Real rows


def test_every_row_of_the_real_sets_is_accounted_for(shared: Path) -> None:
    built = opinion_ext(rows_of(shared / "opinion_distributions" / "globalopinionqa_eval.jsonl.gz"))
    assert built.balanced
    assert built.rows == 4062
    assert built.used == 4053
    asked = list(rows_of(shared / "mkqa_nq" / "nq_open_dev.jsonl.gz"))[:300]
    attacked = attack_pref(asked)
    assert attacked.balanced
    assert attacked.used == 299
    assert attacked.skipped == {"no answer": 1}  # an answer that holds no letter
    domains = dsp_intents(rows_of(shared / "dsp_domain" / "dsp.jsonl.gz"))
    assert domains.balanced
    assert domains.rows == 513
    assert len(domains.intents) == 5
    preferences = prefeval_intents(rows_of(shared / "prefeval" / "mcq_options.jsonl.gz"))
    assert preferences.balanced
    assert preferences.used == 827
    for one in (built, attacked, domains, preferences):
        assert leaks(three_ways(one.records)) == []
    assert leaks(three_ways(preferences.records, by="intent"), by="intent") == []


def test_commands_make_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "questions.jsonl.gz"
    source.write_bytes(gzip.compress("\n".join(map(json.dumps, QUESTIONS)).encode()))
    assert run(["data", "make", "attack-pref", str(source), str(tmp_path / "out"), "--style", "ignore"]) == 0
    assert "train 32, validation 4, test 4" in capsys.readouterr().out
    assert run(["data", "make", "attack-pref", str(source), str(tmp_path / "out")]) == 2
    assert "exists already" in capsys.readouterr().err
    assert run(["data", "make", "dsp", str(tmp_path / "none.jsonl"), str(tmp_path / "x")]) == 2
    assert "there is no file" in capsys.readouterr().err
