"""REAL-PREF, ATTACK-PREF and GlobalOpinionQA-Ext: items, rows and figures, on known answers and a tiny model."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from bench_toys import InMemory, LongerJudge

from pluralign.benchmarks import attack_pref, benchmark, opinion_ext, real_pref
from pluralign.benchmarks.kinds.core import Task, settings_of
from pluralign.benchmarks.kinds.evaluation import evaluation_of
from pluralign.benchmarks.kinds.intended import to_items
from pluralign.benchmarks.kinds.systems import Saved, System
from pluralign.cli import run
from pluralign.curate.plural import attack_pref as attack
from pluralign.curate.plural import three_ways, write_folder
from pluralign.endpoints import Endpoint
from pluralign.errors import SettingsError
from pluralign.heads.intent import attach_intention
from pluralign.intention import IntentForm
from pluralign.judging.language import LanguageJudge
from pluralign.policy import Policy
from pluralign.records import to_row
from tests.endpoints.server import Scripted

QUESTIONS = [{"question": f"who wrote book number {i}", "answer": f"Author {i}"} for i in range(60)]
SURVEY = [{"country": c, "question": f"Is {w} good?", "options": ["Yes", "No", "DK"], "distribution": p}
          for w in ("bread", "rain", "red", "blue", "a tree", "a dog", "a cat", "a house", "night", "noon")
          for c, p in (("X", [0.7, 0.2, 0.1]), ("Y", [0.1, 0.7, 0.2]))]  # fmt: skip
OFFLINE = {"encoder": "tfidf", "max_new_tokens": 5}


@pytest.fixture
def server() -> Iterator[Scripted]:
    made = Scripted()
    yield made
    made.close()


def setting(name: str, **given: Any) -> dict[str, Any]:
    return settings_of(benchmark(name), "default", {**OFFLINE, **given})


def saved(items: list[Any], *texts: str) -> System:
    return System("saved", "file", Saved({item.id: (text,) for item, text in zip(items, texts, strict=False)}))


def attacked(**given: Any) -> tuple[list[Any], dict[str, Any]]:
    chosen = setting("attack-pref", **given)
    return attack_pref.read(InMemory(source=QUESTIONS), chosen), chosen


def test_attack_figures_by_hand() -> None:
    items, chosen = attacked()
    assert len(items) == 6
    right, wrong = ([getattr(i, name) for i in items] for name in ("answers", "attack_answer"))
    # answered; hijacked; both; neither; answered; no answer at all
    texts = [f"It is {right[0][0]}.", f"It is {wrong[1]}.", f"{right[2][0]}, {wrong[2]}", "Who knows.", right[4][0]]
    warned: list[str] = []
    rows = list(attack_pref.run(Task(items, chosen, saved(items, *texts), warn=warned.append)))
    assert [row.get("dsr_contained") for row in rows] == [1.0, 0.0, 0.0, 0.0, 1.0, None]
    assert rows[5]["failed"] == "an answer lacks"
    assert warned == ["saved lacks answers to 1 of 6 questions"]
    found = evaluation_of(attack_pref.BENCHMARK, {"saved": rows}, chosen)
    figure = found.figures["saved"]["dsr_contained"]
    assert (figure.value, figure.n, figure.missing) == (0.4, 5, 1)
    assert "dsr" not in found.figures["saved"]  # that is a judge's
    by_position = [
        e for name, e in found.figures["saved"].items() if re.match("dsr_contained (before|after|middle)", name)
    ]
    assert sum(e.n for e in by_position) == 5
    assert sum(e.n * e.value for e in by_position) == pytest.approx(2)
    assert set(found.groups["saved"]) == {item.category for item in items}
    assert rows[0]["rs"] > rows[3]["rs"]
    assert [row["ric_contrast"] for row in (rows[0], rows[1])] == [1.0, 0.0]
    assert rows[0]["ics_exact"] is None  # nothing inferred an intent


def test_a_language_model_judges_all_four(server: Scripted, tmp_path: Path) -> None:
    def answer(text: str) -> str:
        tag = re.search(r"verdict-[0-9a-f]{8}", text)
        if tag:
            better = "A" if "Author" in text.split("<<<ANSWER A")[1].split("<<<ANSWER B")[0] else "B"
            return f"so\n<{tag[0]}>{better}</{tag[0]}>"
        if "gibberish" in text or "could not be read" in text:
            return "maybe"
        return json.dumps({"verdict": int("Author" in text.split("<<<ANSWER ")[1])})

    server.answer = answer
    items, chosen = attacked()
    system = saved(items, "Author it is", "no", "gibberish", "no", "no", "no")
    judge = LanguageJudge(Endpoint.open(server.url))
    rows = list(attack_pref.run(Task(items, chosen, system, judge, folder=tmp_path)))
    assert [row["dsr"] for row in rows] == [1.0, 0.0, None, 0.0, 0.0, 0.0]
    assert rows[2]["dsr_said"]["reason"] == "not in the form asked for"
    assert [row["ric"] for row in rows] == [1.0, 0.0, None, 0.0, 0.0, 0.0]
    assert [row["score"] for row in rows] == [0.5, 0.0, 0.0, 0.0, 0.0, 0.0]  # both hold it: the first place wins, a tie
    figures = evaluation_of(attack_pref.BENCHMARK, {"saved": rows}, chosen).figures["saved"]
    assert next(iter(figures)) == "dsr"
    assert (figures["dsr"].value, figures["dsr"].n, figures["dsr"].missing) == (0.2, 5, 1)
    assert figures["dsr attacked"].n == 5
    asked = len(server.seen)
    assert list(attack_pref.run(Task(items, chosen, system, judge, folder=tmp_path))) == rows
    assert len(server.seen) == asked


def test_shots_come_from_the_training_part_and_the_same_stand_before_all() -> None:
    items, _ = attacked(shots=3)
    bare, _ = attacked()
    parts = three_ways(attack(QUESTIONS).records)
    train = {record.prompt[0].content: record.chosen[0].content for record in parts["train"]}
    for item, own in zip(items, bare, strict=True):
        before = item.prompt[:-1]
        assert [turn.role for turn in before] == ["user", "assistant"] * 3
        assert all(train[before[k].content] == before[k + 1].content for k in (0, 2, 4))
        assert before == items[0].prompt[:-1]
        assert item.prompt[-1:] == own.prompt
    with pytest.raises(SettingsError, match="shots must lie between 0 and the 48"):
        attacked(shots=49)


def test_opinions_are_told_apart_from_the_questions_other_options() -> None:
    chosen = setting("opinion-ext", country="X")
    items = opinion_ext.read(InMemory(source=SURVEY), chosen)
    assert {item.category for item in items} == {"X"}
    assert all((item.intent, item.rivals) == ("Yes", ("No",)) for item in items)
    rows = list(opinion_ext.run(Task(items, chosen, saved(items, *["Yes"] * len(items)), LongerJudge())))
    assert all(row["ric_nearest"] == 1.0 for row in rows)
    both = opinion_ext.read(InMemory(source=SURVEY), setting("opinion-ext", pairs="all"))
    rows = list(opinion_ext.run(Task(both, chosen, saved(both, *["No"] * len(both)))))
    figures = evaluation_of(opinion_ext.BENCHMARK, {"s": rows}, chosen).figures["s"]
    assert [row["ric_nearest"] == float(row["intent"] == "No") for row in rows] == [True] * len(rows)
    assert figures["ric_nearest majority"].n + figures["ric_nearest minority"].n == len(rows)
    with pytest.raises(SettingsError, match='"Z"'):
        opinion_ext.read(InMemory(source=SURVEY), setting("opinion-ext", country="Z"))


def test_intents_are_shown_as_asked(system: System, server: Scripted, tmp_path: Path) -> None:
    rows = [{"preference": f"I avoid {w}.", "question": f"What with the {w}?", "_topic": w[0],
             "classification_task_options": ["bread", "a cat"]}
            for w in ("dog", "red", "blue", "tree", "house", "cat", "bread", "a", "then", "and")]  # fmt: skip
    server.answer = lambda text: json.dumps({"intent": "I avoid it"}) if "I avoid" in text else "no"
    for mode, inferred in (("none", None), ("gold", None), ("auto", None), (server.url, "I avoid it")):
        chosen = setting("real-pref", intents=mode)
        items = real_pref.read(InMemory(source=rows), chosen)
        (row,) = real_pref.run(Task(items, chosen, system, folder=tmp_path / mode.replace("/", "_")))
        assert row["inferred"] == inferred
        kept = json.loads(next((tmp_path / mode.replace("/", "_") / "answers.jsonl").open()))
        assert kept.get("intent", "") == {"gold": items[0].intent, server.url: "I avoid it"}.get(mode, "")
        assert row["ics_exact"] == (0.0 if inferred else None)
    for mode, error in (("infer", "no intention module"), ("guess", 'auto, gold, infer, none or a URL, not "guess"')):
        chosen = setting("real-pref", intents=mode)
        with pytest.raises(SettingsError, match=error):
            list(real_pref.run(Task(real_pref.read(InMemory(source=rows), chosen), chosen, system)))


def test_a_policy_infers_intents_and_abstains(policy: Policy) -> None:
    items, chosen = attacked(intents="infer", benign=0.5)
    names = tuple(sorted({item.intent for item in items} | {"asks for a time", "asks for a place"}))
    torch.manual_seed(0)
    module = attach_intention(policy.model, "intent", len(names))
    torch.nn.init.normal_(module.classifier.weight, std=2.0)
    for threshold, unsure in ((0.0, 0.0), (1.0, 1.0)):
        policy.intents = IntentForm(names, threshold=threshold)
        rows = list(attack_pref.run(Task(items, chosen, System("tiny", "tiny", loaded=policy))))
        assert all(row["inferred"] in (names if threshold == 0 else [""]) for row in rows)
        assert [row["unsure"] for row in rows] == [unsure] * len(items)
        assert [row["ics_exact"] for row in rows] == [float(row["inferred"] == row["intent"]) for row in rows]
        assert all(0 < row["intent_share"] <= 1 for row in rows)
        figures = evaluation_of(attack_pref.BENCHMARK, {"tiny": rows}, chosen).figures["tiny"]
        sides = figures["unsure attacked"], figures["unsure benign"]
        assert [side.value for side in sides] == [unsure, unsure]
        assert sum(side.n for side in sides) == len(items)


def test_the_defence_stands_before_the_answers(system: System, server: Scripted) -> None:
    server.answer = lambda text: "no JSON"
    items, chosen = attacked(defence=server.url)
    rows = list(attack_pref.run(Task(items[:2], chosen, system)))
    assert [row["branch"] for row in rows] == ["unread"] * 2  # it fails closed
    assert all(row["refused"] == 1.0 and row["first"] != row["answer"] for row in rows)


def test_a_folder_is_measured_by_command(tiny_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(attack(QUESTIONS), tmp_path / "data")
    command = ["evaluate", "attack-pref", f"tiny={tiny_model}", "--questions", str(tmp_path / "data"), "--limit", "3",
               "--output", str(tmp_path / "out"), "--max-new-tokens", "4", "--set", "encoder=tfidf", "--shots", "1",
               "--intents", "none", "--judge", "rule:longer"]  # fmt: skip
    assert run(command) == 0
    said = capsys.readouterr().out
    assert "dsr contained" in said
    assert "win rate" in said
    assert "3 of 361 items" in said
    assert (tmp_path / "out" / "evaluation.html").is_file()
    assert run(["evaluate", "attack-pref", "--output", str(tmp_path / "out")]) == 0  # from its rows
    assert run([*command[:-2], "--judge", "rule:longr"]) == 2


def test_rivals_are_at_most_twenty() -> None:
    records = list(three_ways(attack(QUESTIONS).records)["train"])
    many = [type(r)(**{**{f: getattr(r, f) for f in r.__dataclass_fields__}, "intent": f"i{n}"})
            for n, r in enumerate(records)]  # fmt: skip
    items = to_items({"test": many}, setting("attack-pref"), category=lambda r: "")
    assert all(len(item.rivals) == 20 and item.intent not in item.rivals for item in items)
    assert to_row(records[0])["record"] == "preference"
