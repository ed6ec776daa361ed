"""Whatever goes wrong: one line that says what, where and the remedy; the right exit code; never a traceback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pluralign.cli import info

from .conftest import Cli, Result

ROW = {"prompt": "How are you?", "chosen": "Very well, thank you.", "rejected": "No."}


def error_of(result: Result, code: int) -> str:
    """The one error line. Everything else on stderr must be a remark of ours."""
    assert result.code == code, result.err
    lines = result.err.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1, result.err
    assert all(line.startswith(("error: ", "note: ", "warning: ")) for line in lines), result.err
    assert "Traceback" not in result.out + result.err
    return errors[0]


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str, *rows: object) -> Path:
        path = tmp_path / name
        lines = [row if isinstance(row, str | bytes) else json.dumps(row) for row in rows]
        path.write_bytes(b"\n".join(x if isinstance(x, bytes) else x.encode() for x in lines) + b"\n")
        return path

    return write


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["align"], ["which recipe"]),
        (["align", "dppo"], ['unknown recipe "dppo"', 'Did you mean "dpo"']),
        (["align", "dpo", "trainning.lr=1e-6"], ['"trainning.lr"', 'Did you mean "training.learning_rate"']),
        (["align", "dpo", "--bad-row", "quarantine"], ['"bad_row"', 'Did you mean "data.bad_rows"']),
        (["align", "dpo", "gamma=1"], ['"gamma"']),
        (["align", "dpo", "objective=dopo"], ['"dopo"', 'Did you mean "dpo"']),
        (["align", "dpo", "epochs=many"], ['"training.epochs"', "number"]),
        (["align", "dpo", "batch_size=0"], ['"training.batch_size"', "greater than or equal to 1"]),
        (["align", "dpo", "sft"], ['"sft" is neither the recipe nor a setting']),
        (["align", "missing.yaml"], ["missing.yaml: no such file"]),
        (["align", "dpo", "--data", "missing.jsonl"], ["missing.jsonl: no such file"]),
        (["align", "dpo", "--model", "missing/model"], ['cannot load the model "missing/model"']),
        (["align", "--resume", "runs/none"], ["runs/none is no run folder"]),
        (["align", "dpo", "--resume", "runs/none"], ["cannot go together"]),
        (["alin"], ["No such command 'alin'", "'align'"]),
        (["recipes", "--jsn"], ["--jsn", "--json"]),
        (["generate", "embedded"], ["--prompt", "--prompts"]),
        (["generate", "embedded", "--prompts", "none.txt"], ["none.txt: no such file"]),
        (["generate", "embedded", "--prompt", "x", "--top-p", "2"], ["top_p must be above 0 and at most 1"]),
        (["evaluate", "preferences", "missing/model"], ['cannot load the model "missing/model"']),
        (["evaluate", "preferences", "a=embedded", "a=embedded"], ['two models are called "a"']),
        (["evaluate", "preferences", "embedded", "--data", "none.jsonl"], ["none.jsonl: no such file"]),
        (["compare", "runs/a", "runs/b"], ['no run folder "runs/a"']),
        (["compare", "runs/a", "runs/b", "--limit", "3"], ["belong to --on"]),
        (["report", "runs/a"], ['no run folder "runs/a"']),
        (["data", "inspect", "none.jsonl"], ["none.jsonl: no such file"]),
        (["data", "inspect", "a.jsonl", "--columns", "prompt"], ["is not OURS=THEIRS"]),
        (["quickstart", "--limit", "1"], ["--limit"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_settings(cli: Cli, arguments: list[str], words: list[str]) -> None:
    line = error_of(cli(*arguments), 2)
    for word in words:
        assert word in line
    assert not Path("runs").exists()  # nothing was begun


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([ROW, '{"prompt": "a", "chosen": "b", "rej'], [":2", "not JSON"]),
        ([ROW, {**ROW, "rejected": ROW["chosen"]}], [":2", '"chosen" equals "rejected"', "1 of 2 rows"]),
        ([ROW, {**ROW, "rejected": "  "}], [":2", '"rejected" is empty', "--bad-rows quarantine"]),
        ([ROW, b'{"prompt": "\xff\xfe", "chosen": "b", "rejected": "c"}'], [":2", "UTF-8"]),
        ([{"a": 1}], [":1", "no known format"]),
        (["not json at all"], [":1"]),
    ],
    ids=["truncated", "equal", "empty", "not UTF-8", "unknown format", "no JSON"],
)
def test_wrong_data(cli: Cli, file: Callable[..., Path], rows: list[object], words: list[str], tiny_model: str) -> None:
    path = file("pairs.jsonl", *rows)
    line = error_of(cli("align", "dpo", "--model", tiny_model, "--data", path), 3)
    for word in [path.name, *words]:
        assert word in line, line
    # who only looks is not stopped, but told of the same row; where nothing is left to look at, it is an error too
    for command in (["data", "audit", path, "--model", tiny_model, "--json"], ["data", "inspect", path, "--json"]):
        looked = cli(*command)
        if len(rows) == 1:
            assert path.name in error_of(looked, 3)
        else:
            assert looked.code == 0
            assert f"{path.name}:2" in looked.err + looked.out
        assert "Traceback" not in looked.err


def test_bad_rows_set_aside_are_counted_and_kept(
    cli: Cli, file: Callable[..., Path], short: list[str], tmp_path: Path
) -> None:
    good = [{**ROW, "prompt": f"Question {i}?"} for i in range(12)]
    path = file("pairs.jsonl", *good, {**ROW, "rejected": ""}, "{")
    done = cli("align", "dpo", *short[:2], "--data", path, "--output", "run", "--bad-rows", "quarantine", *short[4:])
    assert done.code == 0
    assert "2 rows skipped: 1 empty, 1 not JSON" in done.out
    kept = (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()
    assert [json.loads(line)["where"].rpartition(":")[2] for line in kept] == ["13", "14"]


def test_data_that_ends_in_nothing_usable(cli: Cli, file: Callable[..., Path], tiny_model: str) -> None:
    empty = file("empty.jsonl")
    line = error_of(cli("align", "dpo", "--model", tiny_model, "--data", empty), 3)
    assert "there are no rows" in line
    all_bad = file("bad.jsonl", {**ROW, "rejected": ""})
    line = error_of(cli("align", "dpo", "--model", tiny_model, "--data", all_bad, "--bad-rows", "quarantine"), 3)
    assert "no record" in line


def test_a_prompt_of_200_000_tokens_is_cut_and_said_so(cli: Cli, file: Callable[..., Path], short: list[str]) -> None:
    huge = {**ROW, "prompt": "word and more " * 70_000}
    path = file("huge.jsonl", *[{**ROW, "prompt": f"Question {i}?"} for i in range(12)], huge)
    done = cli("align", "dpo", *short[:2], "--data", path, "--output", "run", *short[4:])
    assert done.code == 0
    assert "truncated: 1 prompts, 0 responses" in done.out
    audit = cli("data", "audit", path, *short[:2], "--max-length", "128", "--json")
    found = json.loads(audit.out)
    assert found["truncated"] == 1
    assert found["tokens"] > 200_000
    written = cli("generate", short[1], "--prompts", path, "--max-new-tokens", "4", "--temperature", "0")
    assert written.code == 0
    assert "the beginning is left out" in written.err
    assert len(written.out.splitlines()) == 13


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("training: [1", ["my.yaml:", "not valid YAML"]),
        ("- a\n- b\n", ["my.yaml", "expected settings", "list"]),
        ("recipe: dppo\n", ["my.yaml", 'unknown recipe "dppo"', '"dpo"']),
        ("recipe: dpo\ntraining:\n  learning_rat: 1\n", ['"training.learning_rat"', "training.learning_rate"]),
        ("recipe: simpo\nobjective: {beta: 1, gama: 2}\n", ['no hyper-parameter "gama"', '"gamma"']),
    ],
)
def test_wrong_yaml(cli: Cli, file: Callable[..., Path], text: str, words: list[str]) -> None:
    line = error_of(cli("align", file("my.yaml", text)), 2)
    for word in words:
        assert word in line


def test_wrong_prompts(cli: Cli, file: Callable[..., Path]) -> None:
    assert "the prompt is empty" in error_of(cli("generate", "embedded", "--prompt", "  "), 3)
    bad = file("prompts.jsonl", {"prompt": "a"}, {"text": "b"})
    assert f"{bad}:2" in error_of(cli("generate", "embedded", "--prompts", bad), 3)
    cut = file("prompts.jsonl", '{"prompt": "a')
    assert f"{cut}:1: not valid JSON" in error_of(cli("generate", "embedded", "--prompts", cut), 3)
    foreign = file("prompts.txt", b"\xff\xfea")
    assert "not UTF-8" in error_of(cli("generate", "embedded", "--prompts", foreign), 3)
    assert "there are no prompts" in error_of(cli("generate", "embedded", "--prompts", file("none.txt", " ")), 3)


def test_a_second_run_does_not_overwrite_the_first(cli: Cli, short: list[str]) -> None:
    assert cli("align", "dpo", *short, "--output", "run").code == 0
    again = error_of(cli("align", "dpo", *short, "--output", "run"), 2)
    assert "run holds a run already" in again
    assert "pluralign align --resume run" in again
    finished = error_of(cli("align", "--resume", "run"), 2)
    assert "run has finished" in finished


def test_a_fault_of_ours_is_one_line_too(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("divided by nothing")

    monkeypatch.setattr(info, "_list", broken)
    line = error_of(cli("recipes"), 1)
    assert "ZeroDivisionError: divided by nothing" in line
    assert "PLURALIGN_DEBUG=1" in line
    monkeypatch.setenv("PLURALIGN_DEBUG", "1")
    shown = cli("recipes")
    assert "Traceback" in shown.err
    assert "in broken" in shown.err


def test_debug_shows_where_a_mistake_was_found(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLURALIGN_DEBUG", "1")
    shown = cli("recipes", "dppo")
    assert shown.code == 2
    assert "Traceback" in shown.err
    assert shown.err.rstrip().endswith('error: unknown recipe "dppo". Did you mean "dpo"?')


def test_a_reader_that_leaves_is_no_fault() -> None:
    import subprocess
    import sys

    from .conftest import ROOT

    line = f"{sys.executable} -m pluralign recipes dpo | head -n 1 >/dev/null; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=ROOT)
    assert "Traceback" not in done.stderr
    assert done.stderr == ""
