"""`pluralign rounds`, from scored rows to a policy, and what it says of mistakes."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tests.training.conftest import sentence

from .conftest import Cli

SHORT = ["batch_size=8", "learning_rate=1e-3", "max_length=128", "kl_rows=0", "lora.rank=0", "precision=fp32"]


@pytest.fixture
def scored(cli: Cli, tiny_model: str, tmp_path: Path) -> Path:
    """Rows with measured attributes, and a policy in runs/ric that was trained on them."""
    rng = random.Random(0)
    rows = [
        {"prompt": f"{i} {sentence(rng, 3, 6)}", "chosen": f"{sentence(rng, 3, 9)}?", "rejected": sentence(rng, 3, 9)}
        for i in range(32)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli("curate", "pairs.jsonl", "--steps", "score", "--measure", "words,questions", "--output", "d").code == 0
    source = tmp_path / "d" / "train.jsonl.gz"
    done = cli("align", "ric", "--model", tiny_model, "--data", source, "--output", "runs/ric", "max_steps=2", *SHORT)
    assert done.code == 0, done.err
    return source


def test_rounds_from_the_command_line(cli: Cli, scored: Path, tmp_path: Path) -> None:
    words = ["rounds", "runs/ric", "--mix", scored, "--judge", "measured", "--samples", "8", "--mixed", "6",
             "--max-new-tokens", "5", "--rounds", "2", "--learning-rate", "1e-3", "--output", "on"]  # fmt: skip
    done = cli(*words, "training.max_steps=1")
    assert done.code == 0, done.err
    lines = [line.split() for line in done.out.splitlines()]
    at = next(i for i, line in enumerate(lines) if line[:1] == ["round"])
    header, first, second, *rest = lines[at:]
    assert header == ["round", "asked", "empty", "kept", "originals", "questions", "words"]
    assert (first[0], first[1], second[0]) == ("1", "8", "2")
    assert ["policy:", "on/round-2/run"] in rest
    assert "evaluate it with others" in done.err
    report = json.loads((tmp_path / "on" / "rounds.json").read_text())
    assert report["status"] == "finished"
    assert report["rounds"][0]["counts"]["asked"] == 8
    again = cli(*words, "training.max_steps=1", "--json")  # nothing is left to do
    assert json.loads(again.out)["rounds"] == report["rounds"]
    other = cli(*words, "training.max_steps=2")
    assert other.code == 2
    assert "on holds rounds with other overrides" in other.err
    assert (
        cli("generate", "on/round-2/run", "--prompt", "x", "--max-new-tokens", "3", "--attributes", "words=1").code == 0
    )


MISTAKES = [
        (["--measure", "words,questions"], "which prompts?"),
        (["--mix", "{data}"], "there is no judge"),
        (["--mix", "{data}", "--measure", "words"], 'no judge scores "questions"'),
        (["--mix", "pairs.jsonl", "--measure", "words"], "no row of pairs.jsonl has attribute scores"),
        (["--prompts", "asked.txt", "--measure", "words,questions"], 'how high goals of "questions" may be'),
        (["--mix", "{data}", "--judge", "runs/ric"], '"runs/ric" has no rating head'),
        (["--mix", "{data}", "--judge", "http://localhost:1/v1"], "--rubric go together"),
        (["--mix", "{data}", "--measure", "words", "--goals", "high"], 'unknown goals "high"'),
        (["--mix", "{data}", "--measure", "words", "--range", "words=3"], "is not NAME=LOW:HIGH"),
        (["--mix", "{data}", "--data", "{data}", "--prompts", "asked.txt"], "cannot go together"),
        (["--mix", "{data}", "--measure", "words,questions", "--recipe", "dpo"], "learns from pairs"),
]  # fmt: skip


def test_mistakes_are_told_before_anything_is_written(cli: Cli, scored: Path, tmp_path: Path) -> None:
    (tmp_path / "asked.txt").write_text("What is bread?\nWhy?\n")
    for words, says in MISTAKES:
        done = cli("rounds", "runs/ric", "--output", "on", *(word.format(data=scored) for word in words))
        assert done.code == 2, words
        assert says in done.err
        assert done.err.count("\n") == 1, "one line"
        assert not (tmp_path / "on").exists()


def test_a_round_that_is_stopped_says_how_to_go_on(cli: Cli, scored: Path, tmp_path: Path, monkeypatch) -> None:
    from pluralign.judging import answers
    from pluralign.training import run as training

    words = ["rounds", "runs/ric", "--mix", scored, "--measure", "words,questions", "--samples", "6", "--rounds", "1",
             "--max-new-tokens", "4", "--output", "on", "training.max_steps=1"]  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(answers, "answer", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt()))
        done = cli(*words)
    assert (done.code, done.err) == (130, "stopped. The same command goes on in on.\n")
    with monkeypatch.context() as patch:
        patch.setattr(
            training, "align", lambda given, **_: training.Finished(Path(given.output), None, status="stopped")
        )
        done = cli(*words)
    assert done.code == 130
    assert "stopped while round 1 was training. The same command goes on in on." in done.err
    assert json.loads((tmp_path / "on" / "rounds.json").read_text())["rounds"][0]["status"] == "stopped"
    assert cli(*words).code == 0


def test_how_long_the_rest_takes_is_told_by_what_was_done_now(capsys, monkeypatch) -> None:
    """10 of 100 were there before; 30 more in 60 s leave 60, which take 120 s."""
    from pluralign.cli import judges

    now = [0.0]
    monkeypatch.setattr(judges.time, "monotonic", lambda: now[0])
    with judges.Counting() as count:
        count("answers", 10, 100)
        now[0] = 60.0
        count("answers", 40, 100)
        now[0] = 70.0
        count("answers", 50, 100)  # too soon to say more
        now[0] = 100.0
        count("answers", 100, 100)
    assert capsys.readouterr().err == "answers 40/100  about 2:00 left\nanswers 100/100\n"
