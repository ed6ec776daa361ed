"""`pluralign evaluate BENCHMARK`: end to end without a network, on the embedded model, with judges of this machine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pluralign.records import messages
from pluralign.steering import Answer

from .conftest import Cli

SUBSET = ["--limit", "8"]
SHORT = [*SUBSET, "--max-new-tokens", "4"]


@pytest.fixture(autouse=True)
def data(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLURALIGN_SHARED", str(shared))
    monkeypatch.setattr("pluralign.benchmarks.arena_hard.RESAMPLES", 8)  # of style control, which takes its time


def result(cli: Cli, *arguments: str | Path) -> dict[str, Any]:
    done = cli("evaluate", *arguments, "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_the_list_says_what_there_is(cli: Cli) -> None:
    shown = cli("evaluate", "list")
    assert shown.code == 0
    for words in ("alpaca-eval", "truthful-qa", "CC BY-NC 4.0", "805 items", "a judge that compares", "harness:TASK"):
        assert words in shown.out
    rows = json.loads(cli("evaluate", "list", "--json").out)
    assert next(row for row in rows if row["name"] == "mt-bench")["settings"]["sga"]["max_new_tokens"] == 1024


def test_truthful_qa_end_to_end(cli: Cli, tmp_path: Path) -> None:
    found = result(cli, "truthful-qa", "embedded", *SUBSET, "--output", "judged")
    figures = found["figures"]["embedded"]
    assert set(figures) == {"mc1", "mc2", "mc3"}
    assert figures["mc1"]["n"] == 8
    assert figures["mc1"]["low"] <= figures["mc1"]["value"] <= figures["mc1"]["high"]
    manifest = json.loads((tmp_path / "judged" / "manifest.json").read_text())
    assert manifest["command"].startswith("pluralign")
    assert manifest["questions"]["from"] == {"questions": "truthfulqa_817.jsonl.gz"}
    before = (tmp_path / "judged" / "readings.jsonl").read_bytes()
    assert result(cli, "TruthfulQA", "embedded", *SUBSET, "--output", "judged") == found
    assert (tmp_path / "judged" / "readings.jsonl").read_bytes() == before
    assert result(cli, "truthful_qa", "--output", "judged") == found  # from the rows alone


def test_alpaca_eval_end_to_end_and_against_a_baseline(cli: Cli, tmp_path: Path) -> None:
    """A system against itself: every difference is 0, whatever the judge says."""
    own = ["alpaca-eval", "embedded", "--judge", "rule:shorter", *SHORT]
    shown = cli("evaluate", *own, "--output", "judged")
    assert shown.code == 0
    assert "8 of 805 items, 95 % intervals; n = 8" in shown.out
    assert "written to judged/evaluation.html" in shown.out
    assert {p.name for p in (tmp_path / "judged").iterdir()} >= {
        "answers.jsonl", "verdicts.jsonl", "items.jsonl", "evaluation.json", "evaluation.html", "manifest.json"
    }  # fmt: skip
    found = result(cli, *own, "--baseline", "judged")
    assert found["figures"]["embedded"]["win_rate"]["value"] == 1.0  # four tokens are shorter than GPT-4's answers
    assert found["figures"]["embedded"]["length_controlled"]["value"] is None
    assert found["differences"]["embedded"]["win_rate"]["value"] == 0
    again = result(cli, "alpaca-eval", "new=judged/answers.jsonl", "--judge", "rule:shorter", *SUBSET)
    assert again["figures"]["new"]["win_rate"] == found["figures"]["embedded"]["win_rate"]


def test_arena_hard_end_to_end(cli: Cli) -> None:
    found = result(cli, "arena-hard", "embedded", "--judge", "embedding:tfidf", *SHORT)
    figures = found["figures"]["embedded"]
    assert figures["score"]["n"] == 16  # a judge without an order: its one game stands for both
    assert figures["win_rate"]["n"] == 8
    assert "style_controlled" in figures


def test_mt_bench_end_to_end_rated_and_in_pairs(cli: Cli, tmp_path: Path) -> None:
    rated = result(cli, "mt-bench", "embedded", "--judge", "embedding:tfidf", *SHORT, "--output", "judged")
    figures = rated["figures"]["embedded"]
    assert [figures[name]["n"] for name in ("rating", "turn_1", "turn_2")] == [16, 8, 8]
    assert len(rated["groups"]["embedded"]) == 8  # the eight questions are spread over the eight categories
    same = [*SHORT, "--against", "judged/answers.jsonl"]
    pairs = result(cli, "mt-bench", "embedded", "--judge", "rule:longer", *same)
    assert pairs["figures"]["embedded"]["win_rate"]["value"] == 0.5  # against its own answers
    assert pairs["figures"]["embedded"]["win_rate"]["n"] == 16


def test_judges_are_judged(cli: Cli) -> None:
    found = result(cli, "llmbar", "--judge", "rule:first", *SUBSET)
    figures = found["figures"]["rule:first"]
    assert figures["accuracy"]["value"] == 0
    assert figures["accuracy_by_game"]["value"] == 0.5
    assert figures["consistent"]["value"] == 0


def test_ctrl_c_and_the_same_command_goes_on(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from pluralign.judging import rules

    command = ["evaluate", "alpaca-eval", "embedded", "--judge", "rule:longer", *SHORT, "--output", "judged"]
    with monkeypatch.context() as patch:
        patch.setattr(rules.RuleJudge, "compare", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt()))
        stopped = cli(*command)
    assert stopped.code == 130
    assert stopped.err.strip().endswith("stopped. The same command goes on in judged.")
    answers = (tmp_path / "judged" / "answers.jsonl").read_bytes()
    assert cli(*command).code == 0
    assert (tmp_path / "judged" / "answers.jsonl").read_bytes() == answers


# A language model as the judge, over HTTP


def blocks(text: str) -> dict[str, str]:
    """What stands in the blocks of a judge's question, by their label."""
    return dict(re.findall(r"<<<(ANSWER [AB])[^\n]*\n(.*?)\n[^\n]*>>>", text, re.S))


@pytest.fixture
def judge_url(tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """`pluralign serve`, whose model prefers the longer answer in words that can be read, but for every question with
    "matrices" in it, where it rambles."""
    pytest.importorskip("fastapi")
    from pluralign.policy import Policy
    from pluralign.serve import engine
    from tests.serve.conftest import running

    def scripted(policy: Any, requests: Any, *, on_answer: Any, **_: Any) -> list[Answer]:
        for i, request in enumerate(requests):
            asked = messages(request.turns)[1].content
            tag = re.search(r"<(verdict-\w+)>", asked)
            assert tag is not None
            shown = blocks(asked)
            assert set(shown) == {"ANSWER A", "ANSWER B"}
            label = "A>B" if len(shown["ANSWER A"]) > len(shown["ANSWER B"]) else "B>>A"
            said = "I like both." if "matrices" in asked else f"Longer.\n<{tag[1]}>{label}</{tag[1]}>"
            on_answer(i, Answer(said, "stop", 1, 1))
        return []

    monkeypatch.setattr(engine, "answer", scripted)
    policy = Policy.load(tiny_model, precision="fp32")
    policy.model.config.max_position_embeddings = 1_000_000
    with running(policy, max_tokens=8192, body_bytes=1 << 24, queue=1024) as server:
        yield f"{server.url}/v1#tiny"


def test_a_served_model_judges_over_loopback(
    cli: Cli, judge_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = tmp_path / "questions.jsonl"
    asked = ["What ran?", "Multiply two matrices.", "Who sat?"]
    questions.write_text("".join(json.dumps({"uid": str(i), "prompt": q}) + "\n" for i, q in enumerate(asked)))
    for name, texts in (("mine", ["a very long answer", "x", "short"]), ("theirs", ["brief", "y", "a longer one"])):
        rows = [{"prompt": q, "response": t} for q, t in zip(asked, texts, strict=True)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = ["arena-hard", "mine.jsonl", "--questions", questions, "--against", "theirs.jsonl", "--judge", judge_url]
    found = result(cli, *own, "--output", "judged")
    figures = found["figures"]["mine.jsonl"]
    assert (figures["win_rate"]["value"], figures["win_rate"]["n"], figures["win_rate"]["missing"]) == (0.5, 2, 1)
    # won: A>B where it is A, B>>A (three times) where it is B; lost the same way: 4 of 8
    assert (figures["score"]["value"], figures["score"]["n"]) == (0.5, 8)
    assert found["failed"]["mine.jsonl"] == {"the judge's words could not be read": 1}
    rows = [json.loads(line) for line in (tmp_path / "judged" / "items.jsonl").read_text().splitlines()]
    assert [row["outcome"] for row in rows] == ["win", None, "loss"]
    assert "I like both." in rows[1]["games"][0]["raw"]
    from pluralign.endpoints import Endpoint

    monkeypatch.setattr(Endpoint, "ask", lambda *_, **__: pytest.fail("nothing is asked twice"))
    assert result(cli, *own, "--output", "judged") == found


# Wrong inputs


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["alpca-eval", "embedded"], 'unknown benchmark or evaluation "alpca-eval". Did you mean "alpaca-eval"?'),
        (["alpaca-eval", "embedded"], "alpaca-eval needs a judge."),
        (["truthful-qa", "embedded", "--judge", "rule:longer"], "truthful-qa has no use for a judge."),
        (["truthful-qa"], "there is nothing to measure."),
        (["llmbar"], "there is nothing to measure."),
        (["mt-bench", "embedded", "--judge", "rule:longer"], "cannot rate responses"),
        (["alpaca-eval", "embedded", "--judge", "rule:loudest"], 'no rule is called "loudest"'),
        (["alpaca-eval", "none.jsonl", "--judge", "rule:longer"], "none.jsonl: no such file."),
        (["alpaca-eval", "embedded", "--judge", "rule:longer", "--against", "no.jsonl"], "no.jsonl: no such file."),
        (["truthful-qa", "embedded", "--set", "form"], "is no KEY=VALUE"),
        (["truthful-qa", "embedded", "--set", "shape=plain"], 'has no setting "shape"'),
        (["truthful-qa", "embedded", "--settings", "sga"], 'has no settings "sga"'),
        (["truthful-qa", "embedded", "--max-new-tokens", "4"], 'has no setting "max_new_tokens"'),
        (["truthful-qa", "embedded", "--reference", "embedded"], "takes no log-ratios"),
        (["truthful-qa", "embedded", "--questions", "no.jsonl"], "no.jsonl: no such file"),
        (["truthful-qa", "embedded", "--skip", "817"], "no question is left"),
        (["truthful-qa", "--output", "nowhere"], "nowhere: no evaluation in this folder"),
        (["alpaca-eval", "embedded", "--judge", "rule:longer", "--temperature", "hot"], 'a number, not "hot"'),
        (["arena-hard-v2", "embedded", "--judge", "rule:longer", "--limit", "1"], "Name a file: --against ANSWERS."),
    ],
)  # fmt: skip
def test_wrong_inputs_get_one_line(cli: Cli, arguments: list[str], says: str) -> None:
    done = cli("evaluate", *arguments)
    assert done.code in (1, 2, 3)
    lines = [line for line in done.err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    assert says in lines[0]
    assert done.out == ""
