"""`pluralign intents` from the shell's side: a base, knowledge, labels, a module; and one line for what cannot be."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from pluralign.cli import intents_labels
from tests.endpoints.server import Scripted
from tests.intents.conftest import sensible
from tests.training.test_intention_module import bert, rows  # noqa: F401 - a fixture

from .conftest import Cli

QUESTIONS = ("Who sells tea leaves?", "Who drinks black tea?", "Write a sad poem about Norway please.")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    rows = [{"prompt": q, "chosen": "yes", "rejected": "no", "user": f"u{i}"} for i, q in enumerate(QUESTIONS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def passages(tmp_path: Path) -> Path:
    path = tmp_path / "p.jsonl"
    rows = [{"title": "Tea", "text": "Tea is a drink of leaves."}, {"title": "Moon", "text": "The moon is far."}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch):
    for name in ("PLURALIGN_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    made = Scripted(sensible)
    yield made
    made.close()


def test_a_base_in_a_folder(cli: Cli, passages: Path) -> None:
    pytest.importorskip("lancedb")
    made = cli("intents", "ingest", passages, "--base", "base", "--encoder", "tfidf")
    assert (made.code, made.out) == (0, "2 passages of p.jsonl in base, embedded by hashed words\n")
    found = json.loads(cli("intents", "search", "base", "drink of leaves", "--passages", "1", "--json").out)
    assert [row["title"] for row in found] == ["Tea"]
    again = cli("intents", "ingest", passages, "--base", "base")
    assert again.code == 2
    assert "already" in again.err


def test_the_pipeline_by_rules(cli: Cli, data: Path, passages: Path) -> None:
    options = ["--rules", "--base", f"memory:{passages}", "--encoder", "tfidf"]
    shown = cli("intents", "run", data, "--output", "known.jsonl", *options)
    assert shown.code == 0, shown.err
    for words in ("dimensions", "rules", "1 nothing pertinent", "x_ext: 2 ok", "3 of 3 records have x_con"):
        assert words in shown.out
    rows = [json.loads(line) for line in Path("known.jsonl").read_text().splitlines()]
    assert "Tea is a drink of leaves." in rows[0]["x_con"]
    assert rows[0]["meta"]["knowledge"]["by"] == "rules"
    report = json.loads(Path("known.jsonl.report.json").read_text())
    assert report["statements"]["ext"] == {"ok": 2}
    assert "exists already" in cli("intents", "run", data, "--output", "known.jsonl", *options).err


def test_the_pipeline_by_an_endpoint(cli: Cli, data: Path, passages: Path, server: Scripted) -> None:
    options = ["--endpoint", server.url, "--base", f"memory:{passages}", "--encoder", "tfidf", "--checker", "anah"]
    short = cli("intents", "run", data, "--output", "a.jsonl", *options, "--budget", "5requests", "--workers", "1")
    assert short.code == 5
    assert "nothing is asked twice" in short.err
    assert not Path("a.jsonl").exists()
    done = cli("intents", "run", data, "--output", "a.jsonl", *options, "--json")
    said = json.loads(done.out)
    assert said["x_con"] == 3
    asked = len(server.seen)
    assert asked == len({json.dumps(sent) for sent in server.seen})  # five of them by the first command
    assert json.loads(cli("intents", "run", data, "--output", "b.jsonl", *options, "--json").out)["spent"].startswith(
        "0 "
    )
    assert Path("a.jsonl").read_bytes() == Path("b.jsonl").read_bytes()


def test_without_a_base(cli: Cli, data: Path) -> None:
    lacking = cli("intents", "run", data, "--output", "a.jsonl", "--rules")
    assert lacking.code == 2
    assert "--without-base" in lacking.err
    gone = cli("intents", "run", data, "--output", "a.jsonl", "--rules", "--base", "nowhere")
    assert "holds no knowledge base" in gone.err
    done = cli("intents", "run", data, "--output", "a.jsonl", "--rules", "--base", "nowhere", "--without-base")
    assert done.code == 0
    assert "note: without a knowledge base: nowhere holds no" in done.err
    assert "3 skipped: no knowledge base" in done.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "nobody is named who could be asked"),
        (("--rules", "--endpoint", "http://x/v1"), "an endpoint or rules"),
        (("--rules", "--budget", "5requests"), "rules cost nothing"),
        (("--rules", "--checker", "anah"), "anah asks an endpoint"),
        (("--rules", "--stages", "bliefs"), 'Did you mean "beliefs"'),
        (("--rules", "--checker", "/nowhere/model"), "cannot load the fact checker"),
    ],
)
def test_one_line_for_what_cannot_be(cli: Cli, data: Path, options: tuple[str, ...], said: str) -> None:
    found = cli("intents", "run", data, "--output", "a.jsonl", "--without-base", *options)
    assert found.code == 2
    assert said in found.err
    assert len(found.err.strip().splitlines()) == 1


def test_proposed_reviewed_and_given(cli: Cli, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = cli("intents", "propose", data, "--prompts", "3", "--rules", "--output", "i.csv")
    assert made.code == 0
    keys = iter(["a", "e", "q"])
    monkeypatch.setattr(intents_labels, "_key", lambda asked: next(keys))
    monkeypatch.setattr("sys.stdin.readline", lambda: " be  kind \n")
    assert "2 decided, 1 undecided" in cli("intents", "review", "i.csv").out
    from pluralign.intents.labels import read_labels

    rows = read_labels(Path("i.csv"))
    assert [(bool(r.corrected), r.keep) for r in rows] == [(False, "yes"), (True, "yes"), (False, "")]
    assert rows[1].intent == "be kind"
    again = cli("intents", "propose", data, "--prompts", "3", "--rules", "--output", "i.csv")
    assert "0 prompts added to i.csv (3 were there)" in again.out
    assert read_labels(Path("i.csv")) == rows  # nobody's decisions are lost
    shown = cli("intents", "label", data, "--labels", "i.csv", "--output", "l.jsonl")
    for words in ("1 by person,", "1 by person, as proposed", "1 undecided"):
        assert words in shown.out
    given = cli("intents", "label", data, "--from", "user", "--output", "u.jsonl")
    assert given.code == 0
    assert [json.loads(line)["intent"] for line in Path("u.jsonl").read_text().splitlines()] == ["u0", "u1", "u2"]
    assert "no intents to give" in cli("intents", "label", data, "--output", "n.jsonl").err


def test_reviewed_from_a_pipe(cli: Cli, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("intents", "propose", data, "--prompts", "3", "--rules", "--output", "i.csv")
    monkeypatch.setattr("sys.stdin", io.StringIO("\ns\nd\n"))  # Enter, later, drop
    assert "2 decided, 1 undecided" in cli("intents", "review", "i.csv").out
    monkeypatch.setattr("sys.stdin", io.StringIO(""))  # its end stops
    assert "0 decided, 1 undecided" in cli("intents", "review", "i.csv").out


def test_a_module_trained_and_used(cli: Cli, bert: str) -> None:  # noqa: F811 - the fixture
    known = [{"prompt": row["prompt"], "response": "ok", "intent": row["intent"]} for row in rows(160)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in known))
    options = ["--encoder", bert, "--learning-rate", "5e-3", "--epochs", "8", "--output"]
    made = cli("intents", "train", "rows.jsonl", *options, "module", "--json")
    assert made.code == 0, made.err
    said = json.loads(made.out)
    accuracy = said["figures"]["accuracy"]
    assert accuracy["value"] == 1.0
    assert accuracy["low"] < 1.0
    assert accuracy["n"] + said["rows"] + said["held_out"] == 160
    assert 0 <= said["figures"]["calibration"]["ece"]["value"] <= 1
    bare = [{**row, "intent": None} for row in known[:6]]
    Path("bare.jsonl").write_text("".join(json.dumps(row) + "\n" for row in bare))
    shown = cli("intents", "label", "bare.jsonl", "--module", "module", "--output", "l.jsonl", "--threshold", "0.5")
    assert "6 by the module" in shown.out
    found = [json.loads(line) for line in Path("l.jsonl").read_text().splitlines()]
    assert [row["intent"] for row in found] == [row["intent"] for row in known[:6]]
    assert "holds an intention module already" in cli("intents", "train", "rows.jsonl", "--output", "module").err
    shown = cli("intents", "train", "rows.jsonl", *options, "other", "--test", "rows.jsonl", "--frozen")
    assert "held-out accuracy" in shown.out
    assert "(n = 160)" in shown.out
