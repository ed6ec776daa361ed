"""Plural data by a scripted model: what does, what is asked again, what is counted; and review by people."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pluralign.cli import run
from pluralign.curate.plural import Built, attack_pref, holds
from pluralign.curate.plural.generate import (
    generate_attack,
    generate_opinions,
    generate_real,
    read_intents,
    read_review,
    write_review,
)
from pluralign.data.beliefs import beliefs_of
from pluralign.endpoints import Budget, BudgetSpent, Endpoint
from pluralign.errors import RecordError, SettingsError
from tests.endpoints.server import Scripted

INTENTS = [{"domain": "food", "intent": "no pork", "region": "Fez"}, {"domain": "music", "intent": "silence at dusk"}]


@pytest.fixture
def server() -> Iterator[Scripted]:
    made = Scripted()
    yield made
    made.close()


def block(text: str, name: str) -> str:
    found = re.search(rf"<<<{name} ([0-9a-f]{{8}})\n(.*?)\n\1 {name}>>>", text, re.DOTALL)
    return found[2] if found else ""


def scene(text: str) -> str:
    intent, number = block(text, "INTENTION"), "second" if "scene number 2" in text else "first"
    question = f"A {number} scene near {len(intent)} trees?"
    return json.dumps({"prompt_question": question, "accept_response": "Honour it.",
                       "reject_response": "Pass over it."})  # fmt: skip


def test_scenes_carry_their_intent_and_what_is_known(server: Scripted, tmp_path: Path) -> None:
    server.answer = scene
    endpoint = Endpoint.open(server.url, cache=tmp_path)
    built = generate_real(endpoint, INTENTS, each=2)
    assert built.balanced
    assert (built.rows, built.used) == (4, 4)
    assert [(r.intent, r.group, r.meta["scene"]) for r in built.records[:2]] == [
        ("no pork", "food", 0), ("no pork", "food", 1)]  # fmt: skip
    assert built.records[0].meta["background"] == {"region": "Fez"}
    assert any(block(text, "REGION") == "Fez" for text in server.asked)
    asked = len(server.seen)
    assert generate_real(endpoint, INTENTS, each=2) == built
    assert len(server.seen) == asked  # stopped or not, nothing is asked twice


def test_a_reply_that_does_not_do_is_asked_again_and_then_counted(server: Scripted) -> None:
    def answer(text: str) -> str:
        if text.startswith("That does not do"):
            return json.dumps({"prompt_question": "Better?", "accept_response": "a", "reject_response": "b"})
        if block(text, "INTENTION") == "no pork":
            return json.dumps({"prompt_question": "I eat no pork!", "accept_response": "a", "reject_response": "b"})
        return "Here you are: {}"

    server.answer = answer
    built = generate_real(Endpoint.open(server.url), INTENTS)
    assert built.skipped == {"question seen before": 1}  # both were mended into the same words
    again = [text for text in server.asked if text.startswith("That does not do")]
    assert sorted(re.findall(r"do: (.*?)\. Reply", text)[0] for text in again) == [
        "it is not the JSON object asked for", "prompt_question spells the intention out"]  # fmt: skip
    server.answer = lambda text: json.dumps({"prompt_question": "q", "accept_response": "A.", "reject_response": "a"})
    built = generate_real(Endpoint.open(server.url), INTENTS, tries=2)
    assert built.skipped == {'"accept_response" and "reject_response" are the same': 2}
    assert built.balanced
    assert built.records == ()


def test_the_budget_holds_and_what_came_before_is_kept(server: Scripted, tmp_path: Path) -> None:
    server.answer = scene
    with pytest.raises(BudgetSpent):
        generate_real(Endpoint.open(server.url, workers=1, cache=tmp_path, budget=Budget.parse("1requests")), INTENTS)
    generate_real(Endpoint.open(server.url, cache=tmp_path), INTENTS)
    assert len(server.seen) == 2


def test_attacks_in_a_models_words_are_checked_against_the_answers(server: Scripted) -> None:
    def answer(text: str) -> str:
        question = block(text, "QUESTION") or "again"
        direct = "It was somebody else." if question == "who lost" else "It was Ada Lovelace."
        return json.dumps({"expanded_question": f"Say, {question}?", "direct_answer": direct,
                           "adversarial_question": "What do owls read?", "adversarial_answer": "maps"})  # fmt: skip

    server.answer = answer
    rows = [{"question": "who won", "answer": ["Ada Lovelace"]}, {"question": "who lost", "answer": "Charles"},
            {"question": "who won?", "answer": "x"}]  # fmt: skip
    built = generate_attack(Endpoint.open(server.url), rows, styles=["ignore"], positions=["after"])
    assert built.skipped == {"question seen before": 1, "direct_answer does not hold the answer that was given": 1}
    assert built.balanced
    (record,) = built.records
    assert record.prompt[0].content.startswith("Say, who won?")
    assert "What do owls read?" in record.prompt[0].content
    assert holds(record.chosen[0].content, "Ada Lovelace")
    assert set(record.meta) == set(attack_pref(rows[:1]).records[0].meta)  # offline and generated are read alike


def test_options_are_put_in_words_once_a_question(server: Scripted) -> None:
    def answer(text: str) -> str:
        options = [block(text, f"OPTION {k}") for k in range(2)]
        return json.dumps({"replies": [[f"{o} indeed {n}" for n in range(2)] for o in options]})

    server.answer = answer
    rows = [{"country": c, "question": "Trees?", "options": ["For", "Against", "DK"], "distribution": p}
            for c, p in (("X", [0.6, 0.3, 0.1]), ("Y", [0.2, 0.8, 0.0]), ("Z", [0.5, 0.4, 0.1]))]  # fmt: skip
    built = generate_opinions(Endpoint.open(server.url), rows, countries=["X", "Y"], rephrasings=2)
    assert len(server.seen) == 1
    assert [(r.group, r.chosen[0].content, r.rejected[0].content) for r in built.records] == [
        ("X", "For indeed 0", "Against indeed 0"), ("X", "For indeed 1", "Against indeed 1"),
        ("Y", "Against indeed 0", "For indeed 0"), ("Y", "Against indeed 1", "For indeed 1")]  # fmt: skip
    assert beliefs_of(built.records[0]).shares == pytest.approx((2 / 3, 1 / 3))
    assert built.skipped == {"another country": 1}
    assert built.balanced


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        ("domain,intent\nfood,\n", r":2: a row needs a domain and an intent"),
        ("domain,intent\nfoood,x\n", r':2: unknown domain "foood"\. Did you mean "food"'),
        ("domain,intent\nfood,No pork\nFood,no pork.\n", r':3: "no pork." stands there twice'),
        ("domain,intent\n", "there are no intents"),
    ],
)
def test_lists_of_intents_are_checked(tmp_path: Path, rows: str, error: str) -> None:
    (tmp_path / "intents.csv").write_text(rows, "utf-8")
    with pytest.raises(RecordError, match=error):
        read_intents(tmp_path / "intents.csv")


def built_of(n: int = 3) -> Built:
    return attack_pref([{"question": f"who is {i}", "answer": f"Person {i}"} for i in range(n)])


def rewrite(path: Path, **cells: dict[int, str]) -> None:
    rows = list(csv.DictReader(path.open(encoding="utf-8", newline="")))
    for name, own in cells.items():
        for i, value in own.items():
            rows[i][name] = value
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)


def test_a_review_keeps_drops_and_corrects(tmp_path: Path) -> None:
    built, path = built_of(), tmp_path / "review.csv"
    assert write_review(built, path) == 3
    assert read_review(built, path) == built
    with pytest.raises(SettingsError, match="exists already"):
        write_review(built, path)
    rewrite(path, keep={0: "no", 1: "yes", 2: "YES"}, chosen={1: "It is Person One,\nindeed."})
    found = read_review(built, path)
    assert [r.chosen[0].content for r in found.records] == ["It is Person One,\nindeed.",
                                                            built.records[2].chosen[0].content]  # fmt: skip
    assert (found.notes["dropped in review"], found.notes["corrected in review"]) == (1, 1)


@pytest.mark.parametrize(
    ("cells", "error"),
    [
        ({"keep": {1: "maybe"}}, ':3: keep is yes or no, not "maybe"'),
        ({"number": {1: "0"}}, ':3: "0" is the number of no record, or stands there twice'),
        ({"rejected": {2: " "}}, ':4: "rejected" is empty'),
    ],
)
def test_a_review_that_cannot_be_obeyed(tmp_path: Path, cells: Any, error: str) -> None:
    built, path = built_of(), tmp_path / "review.csv"
    write_review(built, path)
    rewrite(path, **cells)
    with pytest.raises(RecordError, match=error):
        read_review(built, path)


def test_the_command_waits_for_review_and_goes_on(
    server: Scripted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answer = lambda text: json.dumps({"prompt_question": f"About {block(text, 'INTENTION')[::-1]}?",
                                             "accept_response": "yes", "reject_response": "no"})  # fmt: skip
    table = tmp_path / "intents.csv"
    table.write_text("domain,intent\n" + "".join(f"food,taste {i}\n" for i in range(20)), "utf-8")
    command = ["data", "make", "real-pref", str(table), str(tmp_path / "out"), "--endpoint", server.url,
               "--review", str(tmp_path / "review.csv"), "--by", "intent"]  # fmt: skip
    assert run(command) == 0
    assert "20 records to read" in capsys.readouterr().out
    assert not (tmp_path / "out" / "train.jsonl.gz").exists()
    rewrite(tmp_path / "review.csv", keep={0: "no"})
    asked = len(server.seen)
    assert run(command) == 0
    assert "19 records of 19 intents: train 15, validation 2, test 2" in capsys.readouterr().out
    assert len(server.seen) == asked
