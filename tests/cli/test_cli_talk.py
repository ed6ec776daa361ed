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

from pluralign.policy import Policy

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


def test_chat_keeps_the_talk_until_it_is_reset(cli: Cli, tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[dict]] = []

    def answer(self: Policy, shown: list[dict], stream=None, **options: object) -> str:
        seen.append([dict(turn) for turn in shown])
        stream("fine")
        return "fine"

    monkeypatch.setattr(Policy, "chat", answer)
    said = "Hi\n\nAgain\n/what\n/reset\nNew\n/system Be kind.\nMore\n/system\nLast\n/quit\nnever\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(said))
    done = cli("chat", tiny_model)
    assert done.code == 0
    assert done.out == "fine\n" * 5
    assert 'no command "/what"' in done.err
    contents = [[turn["content"] for turn in shown] for shown in seen]
    assert contents == [
        ["Hi"],
        ["Hi", "fine", "Again"],
        ["New"],
        ["Be kind.", "New", "fine", "More"],
        ["New", "fine", "More", "fine", "Last"],
    ]
    assert seen[3][0]["role"] == "system"


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
