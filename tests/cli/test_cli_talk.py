"""`pluralign generate` and `pluralign chat`."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from pluralign.attributes import Scale, ScoreForm
from pluralign.heads.regression import attach
from pluralign.policy import Policy
from pluralign.steering import Answer, Request

from .conftest import Cli, environment

QUICK = ["--max-new-tokens", "6"]


def test_one_prompt_streams_and_json_gives_the_same(cli: Cli, tiny_model: str) -> None:
    shown = cli("generate", tiny_model, "--prompt", "Hi", "--seed", "3", *QUICK)
    assert shown.code == 0
    row = json.loads(cli("generate", tiny_model, "--prompt", "Hi", "--seed", "3", "--json", *QUICK).out)
    assert shown.out.strip() == row["response"]
    assert row["prompt"] == [{"role": "user", "content": "Hi"}]
    assert shown.err == ""
    policy = Policy.load(tiny_model)
    assert row["response"] == policy.chat("Hi", seed=3, max_new_tokens=6)


def test_prompts_from_files_and_from_stdin(
    cli: Cli, tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "p.txt").write_text("Hi\n\nWhy is that?\n")
    turns = [{"role": "user", "content": "Hi"}]
    rows = [{"prompt": "Hi"}, {"messages": [*turns, {"role": "assistant", "content": "a"}, *turns]}]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    text = cli("generate", tiny_model, "--prompts", "p.txt", "--system", "Be kind.", *QUICK).out
    found = [json.loads(line) for line in text.splitlines()]
    assert [f["prompt"][-1]["content"] for f in found] == ["Hi", "Why is that?"]
    assert all(f["prompt"][0] == {"role": "system", "content": "Be kind."} for f in found)
    written = cli("generate", tiny_model, "--prompts", "p.jsonl", "--output", "out/a.jsonl", *QUICK)
    assert written.out == ""
    assert "2 responses written to out/a.jsonl" in written.err
    assert len((tmp_path / "out" / "a.jsonl").read_text().splitlines()) == 2
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hi\nHo\n"))
    assert len(cli("generate", tiny_model, "--prompts", "-", *QUICK).out.splitlines()) == 2


def test_greedy_ignores_the_seed(cli: Cli, tiny_model: str) -> None:
    answers = {
        cli("generate", tiny_model, "--prompt", "Hi", "--temperature", "0", "--seed", s, *QUICK).out for s in "012"
    }
    assert len(answers) == 1


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """Requests of a chat, each answered by "fine"."""
    seen: list[Request] = []

    def answer(policy: Policy, requests: list[Request], on_text=None, **options: object) -> list[Answer]:
        seen.extend(requests)
        on_text(0, "fine")
        return [Answer("fine", "stop", 1, 1, dict(requests[0].attributes))]

    monkeypatch.setattr("pluralign.steering.answer", answer)
    return seen


def test_chat_keeps_the_talk_until_it_is_reset(
    cli: Cli, tiny_model: str, asked: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "Hi\n\nAgain\n/what\n/reset\nNew\n/system Be kind.\nMore\n/system\nLast\n/quit\nnever\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(said))
    done = cli("chat", tiny_model)
    assert done.code == 0
    assert done.out == "fine\n" * 5
    assert 'no command "/what"' in done.err
    contents = [[turn["content"] for turn in request.turns] for request in asked]
    assert contents == [
        ["Hi"],
        ["Hi", "fine", "Again"],
        ["New"],
        ["Be kind.", "New", "fine", "More"],
        ["New", "fine", "More", "fine", "Last"],
    ]
    assert asked[3].turns[0]["role"] == "system"


def test_chat_ends_with_its_input(cli: Cli, tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hi\n"))
    done = cli("chat", tiny_model, *QUICK)
    assert done.code == 0
    assert done.err == ""


def test_ctrl_c_leaves_a_chat_without_a_word(tiny_model: str, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "pluralign", "chat", tiny_model, "--max-new-tokens", "4"], cwd=tmp_path,
        env=environment(tmp_path), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("Hi\n")
    process.stdin.flush()
    process.stdout.readline()  # it has answered
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert err == ""


# Scores


@pytest.fixture(scope="module")
def scored_model(tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny model as a policy that takes two scores and senses them."""
    policy = Policy.load(tiny_model, precision="fp32")
    policy.scores = ScoreForm((Scale("helpfulness", 0, 4), Scale("verbosity", 0, 4)))
    torch.manual_seed(0)
    attach(policy.model, "sensed", 2, layers=2, bounded=True).out.weight.data.normal_()
    return str(policy.save(tmp_path_factory.mktemp("scored") / "model"))


def test_scores_are_given_sensed_and_shown(cli: Cli, scored_model: str) -> None:
    policy = Policy.load(scored_model)
    (sensed,) = policy.sense(["Hi"])
    command = ["generate", scored_model, "--prompt", "Hi", "--seed", "3", *QUICK]
    for options, attributes, named in (
        ([], sensed, ["helpfulness", "verbosity"]),
        (["--attributes", "helpfulness=0.9"], {**sensed, "helpfulness": 0.9}, ["verbosity"]),
        (["--attributes", "helpfulness=0.9,verbosity = 0.25"], {"helpfulness": 0.9, "verbosity": 0.25}, []),
        (["--attributes", "helpfulness=0.9", "--attributes", "verbosity=0.25"],
         {"helpfulness": 0.9, "verbosity": 0.25}, []),
    ):  # fmt: skip
        row = json.loads(cli(*command, "--json", *options).out)
        assert row["attributes"] == pytest.approx(attributes, abs=0.005)  # two decimals stand in the prompt
        assert row["sensed"] == named
        given = {name: value for name, value in attributes.items() if name not in named}
        assert row["response"] == policy.chat("Hi", seed=3, max_new_tokens=6, attributes=given)
        shown = cli(*command, *options)
        assert shown.out.strip() == row["response"]
        line = shown.err.strip().splitlines()[-1]
        assert line.startswith("scores: helpfulness ")
        assert line.count("(sensed)") == len(named)
        assert ("verbosity 0.25" in line) == ("verbosity" in given)


@pytest.mark.parametrize(
    ("given", "about"),
    [
        ("helpfulnes=0.9", 'known: helpfulness, verbosity). Did you mean "helpfulness"?'),
        ("helpfulness=9", "must lie between 0 and 1"),
        ("helpfulness=nan", "must be a number"),
        ("helpfulness", '--attributes "helpfulness" is no NAME=SCORE'),
        ("helpfulness=high", "is no NAME=SCORE"),
        ("=0.9", "is no NAME=SCORE"),
    ],
)  # fmt: skip
def test_scores_that_cannot_be(cli: Cli, scored_model: str, given: str, about: str) -> None:
    for command in (["generate", scored_model, "--prompt", "Hi"], ["chat", scored_model]):
        done = cli(*command, "--attributes", given)
        assert done.code == 2
        assert about in done.err
        assert done.out == ""


def test_a_policy_without_scores_says_so(cli: Cli, tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done = cli("generate", tiny_model, "--prompt", "Hi", "--attributes", "helpfulness=0.9")
    assert done.code == 2
    assert "takes no attribute scores" in done.err
    monkeypatch.setattr(sys, "stdin", io.StringIO("/scores\n/set helpfulness 0.9\n/unset\n"))
    assert cli("chat", tiny_model).err.count("takes no attribute scores") == 3
    row = json.loads(cli("generate", tiny_model, "--prompt", "Hi", "--json", *QUICK).out)
    assert set(row) == {"prompt", "response"}


def test_scores_are_set_in_a_chat(
    cli: Cli, scored_model: str, asked: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = ["Hi", "/set helpfulness 0.9", "Hi", "/set verbosity=0.1", "Hi", "/unset helpfulness", "/scores", "Hi",
            "/unset humour", "/set humour 1", "/set helpfulness high", "/set", "/set helpfulness 7", "/unset", "Hi",
            "/quit"]  # fmt: skip
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(said)))
    done = cli("chat", scored_model, "--attributes", "verbosity=0.5")
    assert done.code == 0
    assert [request.attributes for request in asked] == [
        {"verbosity": 0.5},
        {"verbosity": 0.5, "helpfulness": 0.9},
        {"verbosity": 0.1, "helpfulness": 0.9},
        {"verbosity": 0.1},
        {},
    ]
    assert done.err.splitlines() == [
        "scores: verbosity 0.5",
        "(helpfulness 0.9, verbosity 0.5)",
        "scores: verbosity 0.5, helpfulness 0.9",
        "(helpfulness 0.9, verbosity 0.1)",
        "scores: verbosity 0.1, helpfulness 0.9",
        "(helpfulness sensed, verbosity 0.1)",
        "(helpfulness sensed, verbosity 0.1)",
        "scores: verbosity 0.1",
        '("humour" is not set)',
        '(unknown attribute "humour" (known: helpfulness, verbosity))',
        '("helpfulness=high" is no NAME=SCORE, such as helpfulness=0.9)',
        "(/set takes a name and a score, such as /set helpfulness 0.9)",
        '(attribute "helpfulness" must lie between 0 and 1, not 7)',
        "(helpfulness sensed, verbosity sensed)",
    ]
