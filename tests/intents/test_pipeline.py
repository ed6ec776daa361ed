"""The pipeline's stages: what comes out, kills at each stage, a base that is down, an endpoint of nonsense."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from pluralign.curate import curate
from pluralign.data import from_row
from pluralign.encoders import HashedWords
from pluralign.errors import PluralignError, RecordError, SettingsError
from pluralign.intents import (
    STAGES,
    Anah,
    BaseDown,
    Chain,
    Lexical,
    MemoryBase,
    Passage,
    Plan,
    check,
    knowledge_of,
    knowledge_steps,
    retrieve,
)
from pluralign.intents import stages as stages_module
from pluralign.intents.knowledge import Knowledge, with_knowledge
from pluralign.intents.support import FOUND, tally
from pluralign.kept import Kept
from pluralign.records import Message, Preference, messages, to_row

from .conftest import record, stage_of

PASSAGES = [
    Passage.of("Tea", "Tea is a drink of leaves. It was sold in 1657."),
    Passage.of("Moon", "The moon circles the earth."),
    Passage.of("Rice", "Rice is a plant that people eat."),
]
QUESTIONS = ["Who sells tea leaves?", "Who drinks black tea?", "Where is tea sold now?"]


class Base(MemoryBase):
    """Counts what it is asked, and fails as it is told to."""

    def search(self, texts, k):
        if self._held.get("log"):
            with Path(self._held["log"]).open("a") as file:
                file.writelines(f"{text}\n" for text in texts)
        action = self._held.get("action")
        if action:
            action(texts)
        return super().search(texts, k)


def base(**held) -> Base:
    return Base(PASSAGES, HashedWords(), _held=held)


def run(plan: Plan, questions=QUESTIONS):
    curated = curate([record(q) for q in questions], knowledge_steps(plan))
    return list(curated), curated.report()


def plan(asking, base_, **more) -> Plan:
    checker = Chain(None, Anah(asking)) if asking is not None else Chain(Lexical())
    return Plan(**{"who": asking, "base": base_, "checker": checker, "threshold": 0.1, **more})


def test_all_stages_by_an_endpoint(server, asking, tmp_path: Path) -> None:
    records, report = run(plan(asking(), base(), cache=tmp_path, set_intent=True), QUESTIONS[:1])
    known = knowledge_of(records[0])
    assert known.by == f"{server.url}#toy"
    assert known.dimensions == ("sells", "tea", "leaves")
    assert len(known.beliefs["tea"]) == 8
    assert known.calibrated
    assert (known.primary, known.secondary, records[0].intent) == ("learn", ("drink tea",), "learn")
    assert [p["title"] for p in known.passages] == ["Tea"]
    assert "text" not in known.passages[0]
    # x_aug: a question (nofact), a supported sentence, a contradicted one; x_ext: two sentences, quoted
    assert [(row["of"], row["label"], row["by"]) for row in known.checked] == [
        ("aug", "nofact", "rule"), ("aug", "ok", "anah"), ("aug", "contradictory", "anah"), ("ext", "ok", "quoted"),
        ("ext", "ok", "quoted")]  # fmt: skip
    assert records[0].x_con.split("\n") == [
        "Who sells tea leaves?", "Tea is a drink.", "Tea is a drink of leaves.", "It was sold in 1657."]  # fmt: skip
    assert [step["step"] for step in report["steps"]] == list(STAGES)
    assert all(step["read"] == step["kept"] == 1 for step in report["steps"])
    assert tally(records) == {"aug": Counter(nofact=1, ok=1, contradictory=1), "ext": Counter(ok=2)}
    again = from_row(json.loads(json.dumps(to_row(records[0]))))
    assert knowledge_of(again) == known
    assert again.x_con == records[0].x_con


def test_rules_alone(tmp_path: Path) -> None:
    records, report = run(plan(None, base(), cache=tmp_path), [*QUESTIONS, "Write a sad poem about Norway please."])
    first, last = knowledge_of(records[0]), knowledge_of(records[3])
    assert first.by == "rules"
    assert all(step["settings"].get("by", "rules") == "rules" for step in report["steps"])
    assert "What is known about tea leaves?" in records[0].x_con
    assert "It was sold in 1657." in records[0].x_con
    # nothing pertinent: retrieval and checking are skipped and noted; x_con is x_aug
    assert last.passages == ()
    assert last.notes["retrieve"] == "nothing pertinent"
    assert last.notes["check"] == "skipped: nothing pertinent"
    assert records[3].x_con.split("\n") == list(last.steps)
    noted = {step["step"]: step["noted"] for step in report["steps"]}
    assert noted["retrieve"] == {"nothing pertinent": 1}


def test_sentences_that_claim_nothing_may_be_dropped() -> None:
    kept, _ = run(plan(None, base()), QUESTIONS[:1])
    left, _ = run(plan(None, base(), keep_no_facts=False), QUESTIONS[:1])
    assert "?" in kept[0].x_con
    assert "?" not in left[0].x_con
    assert left[0].x_con.startswith("Tea is a drink")


def test_what_is_asked_does_not_hold_system_turns_and_equal_prompts_are_asked_once(server, asking) -> None:
    turns = (Message("system", "SECRET"), *messages("Who drinks tea?"))
    pair = Preference(prompt=turns, chosen=messages("a", role="assistant"), rejected=messages("b", role="assistant"))
    made = list(curate([pair, pair], knowledge_steps(plan(asking(), None, stages=STAGES[:4]))))
    assert made[0].chosen == pair.chosen
    assert len(server.seen) == 4
    assert not any("SECRET" in text for text in server.asked)


def test_a_field_of_somebody_else_is_an_error() -> None:
    with pytest.raises(RecordError, match="nothing of ours"):
        list(curate([record("x", meta={"knowledge": "mine"})], knowledge_steps(plan(None, base()))))
    assert Knowledge.from_dict(Knowledge(notes={"a": "b"}).as_dict()).notes == {"a": "b"}


def test_unknown_stages_and_numbers() -> None:
    with pytest.raises(SettingsError, match=r'unknown stage "bliefs".*"beliefs"'):
        knowledge_steps(plan(None, None, stages=("bliefs",)))
    with pytest.raises(SettingsError, match="takes one passage at least"):
        retrieve(None, k=0)
    odd = MemoryBase(PASSAGES, type("E", (), {"name": "mine", "key": "mine"})())
    with pytest.raises(SettingsError, match="Say it: --threshold"):
        knowledge_steps(Plan(None, odd, Lexical()))


# Proofs


def test_an_endpoint_of_nonsense_leaves_records_without_x_con(server, asking) -> None:
    server.answer = lambda text: "As an AI I like <tea> and {brackets}."
    records, report = run(plan(asking(again=1), None, go_on=True))
    assert [r.x_con for r in records] == [""] * 3
    noted = {step["step"]: step["noted"] for step in report["steps"]}
    assert noted["dimensions"] == {"unparsed": 3}
    assert noted["beliefs"] == {"skipped: no dimensions": 3}
    assert noted["core"] == {"skipped: no beliefs": 3}
    assert noted["check"] == {"skipped: no knowledge base, and no x_aug": 3}
    assert len(server.seen) == 6  # each asked twice, of one stage
    run(plan(asking(again=1), None, go_on=True))
    assert len(server.seen) == 6  # and never again


def test_unparsed_verdicts_support_nothing_and_are_asked_for_no_second_time(server, asking, tmp_path: Path) -> None:
    normal = server.answer
    server.answer = lambda text: "maybe" if stage_of(text) == "judgement" else normal(text)
    for _ in range(2):
        records, report = run(plan(asking(again=0), base(), cache=tmp_path), QUESTIONS[:1])
        rows = [row for row in knowledge_of(records[0]).checked if row["label"] is None]
        assert [(row["kept"], row["why"]) for row in rows] == [(False, "unparsed")] * 2
        assert report["steps"][-1]["noted"] == {"a verdict is unparsed": 1}
        seen = len(server.seen)
    assert len(server.seen) == seen == len({json.dumps(s["messages"]) for s in server.seen})


def test_a_base_that_is_down(server, asking, tmp_path: Path) -> None:
    def down(_) -> None:
        raise BaseDown("the base has gone.", remedy="--without-base")

    with pytest.raises(BaseDown, match="has gone"):
        run(plan(asking(), base(action=down), cache=tmp_path))
    asked = len(server.seen)
    assert asked == 12  # what comes before is done, and kept
    records, report = run(plan(asking(), base(action=down), cache=tmp_path, go_on=True))
    assert len(server.seen) == asked
    assert all(r.x_con.split("\n")[1] == "Tea is a drink." for r in records)  # x_aug, unchecked
    assert "the base has gone" in knowledge_of(records[0]).base
    assert report["steps"][4]["noted"] == {"skipped: the knowledge base does not answer": 3}
    records, _ = run(plan(asking(), base(), cache=tmp_path))  # and once it is back, the rest is made up for
    assert all(knowledge_of(r).passages for r in records)


def test_kept_answers_belong_to_base_number_and_question(tmp_path: Path) -> None:
    log = tmp_path / "log"
    one = [with_knowledge(record("tea leaves"), Knowledge())]
    for k in (1, 1, 2):
        list(curate(one, [retrieve(base(log=log), k=k, threshold=0, kept=Kept(tmp_path / FOUND))]))
    assert log.read_text().splitlines() == ["tea leaves"] * 2
    other = Base(PASSAGES[:2], HashedWords(), _held={"log": log})
    list(curate(one, [retrieve(other, k=1, threshold=0, kept=Kept(tmp_path / FOUND))]))
    assert len(log.read_text().splitlines()) == 3
    damaged = tmp_path / "damaged.sqlite"
    damaged.write_bytes(b"no database, certainly not one")
    with pytest.raises(PluralignError, match=r"damaged\.sqlite"):
        list(curate(one, [retrieve(base(), k=1, threshold=0, kept=Kept(damaged))]))


def test_statements_checked_before_are_not_checked_again(tmp_path: Path) -> None:
    asked = []

    class Checker(Lexical):
        def check(self, claims):
            asked.extend(claims)
            return super().check(claims)

    rows = ({"id": "1", "title": "Tea", "score": 0.5, "text": PASSAGES[0].text},)
    one = [with_knowledge(record("tea"), Knowledge(steps=("Tea is a drink.", "Tea is blue."), passages=rows))]
    for _ in range(2):
        made = list(curate(one, [check(Checker(), kept=Kept(tmp_path / FOUND))]))
    assert len(asked) == 4  # two statements of x_aug, two of x_ext
    assert made[0].x_con == "Tea is a drink.\nTea is a drink of leaves.\nIt was sold in 1657."
    assert next(iter(curate(made, [check(Checker())]))).x_con == made[0].x_con  # the same once more
    assert len(asked) == 4


KILLED = ("dimensions", "beliefs", "calibrate", "core", "retrieve", "facts", "references", "judgement")


def test_killed_at_each_stage_and_asked_nothing_twice(
    server, asking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process is killed without mercy when a stage has asked its second question; the next one goes on."""
    monkeypatch.setattr(stages_module, "BATCH", 1)
    who, log, output = asking(workers=1), tmp_path / "log", tmp_path / "done.json"
    normal, child, seen_of = server.answer, [0], Counter()
    target = [""]

    def answer(text: str) -> str:
        stage = stage_of(text)
        seen_of[stage] += 1
        if stage == target[0] and seen_of[stage] >= 2:
            target[0] = ""
            os.kill(child[0], signal.SIGKILL)
        return normal(text)

    server.answer = answer

    def search(texts) -> None:
        if target[0] == "retrieve" and len(log.read_text().splitlines()) >= 2:
            os.kill(os.getpid(), signal.SIGKILL)

    for stage in (*KILLED, ""):
        target[0] = stage
        child[0] = os.fork()
        if child[0] == 0:
            code = 1
            try:
                records, _ = run(plan(who, base(log=log, action=search), cache=tmp_path))
                output.write_text(json.dumps([r.x_con for r in records]))
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(child[0], 0)
        assert os.WIFSIGNALED(status) == bool(stage), stage
        assert output.exists() != bool(stage)
    bodies = Counter(json.dumps(sent, sort_keys=True) for sent in server.seen)
    # a question whose answer the killed process never had is asked once more; no other one is
    assert sum(n - 1 for n in bodies.values()) == len(KILLED) - 1
    assert max(bodies.values()) == 2
    searched = Counter(log.read_text().splitlines())
    assert sum(n - 1 for n in searched.values()) == 1
    server.answer = normal
    fresh, _ = run(plan(asking(), base(), cache=tmp_path / "other"))
    assert json.loads(output.read_text()) == [r.x_con for r in fresh]
