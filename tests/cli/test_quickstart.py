"""The quickstart from end to end, with a model and steps so few that only the way is tested, not the result."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pluralign.cli import quickstart
from pluralign.reports import read_run

from .conftest import Cli, environment
from .test_cli_align import wait_for_steps


@pytest.fixture
def few(tiny_model: str, pairs_file: str) -> list[str]:
    return ["quickstart", "--model", tiny_model, "--data", pairs_file, "--steps-sft", "3", "--steps-dpo", "3",
            "--output", "runs/quick"]  # fmt: skip


@pytest.mark.slow
def test_the_whole_way_and_again(cli: Cli, few: list[str], tmp_path: Path) -> None:
    done = cli(*few)
    assert done.code == 0, done.err
    assert done.err == ""
    labels = [line[:12].strip() for line in done.out.splitlines()]
    assert [word for word in ("data", "sft", "dpo", "judge", "report") if word not in labels] == []
    assert "base ." in done.out or "base 1" in done.out
    folder = tmp_path / "runs" / "quick"
    run = read_run(folder)
    assert run.info["status"] == "finished"
    assert [part.name for part in run.parts] == ["sft", "dpo"]
    assert [part.info["status"] for part in run.parts] == ["finished", "finished"]
    assert run.evaluation is not None
    assert [row.model for row in run.evaluation.rows] == ["base", "sft", "dpo"]
    assert "implicit_accuracy" in run.evaluation.rows[2].values
    assert run.evaluation.rows[2].remarks["reference"] == "sft"
    assert [s.prompt[0].content for s in run.samples] == list(quickstart.PROMPTS)
    assert all(set(s.responses) == {"base", "sft", "dpo"} for s in run.samples)
    assert not list(folder.glob("*/checkpoints"))
    page = (folder / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    # the pairs judged on were neither trained on nor validated on
    train, held = ({json.loads(x)["prompt"][0]["content"] for x in (folder / f).read_text().splitlines()}
                   for f in ("train.jsonl", "heldout.jsonl"))  # fmt: skip
    assert not train & held
    assert len(train) + len(held) == 64
    data = run.parts[1].info["data"]
    assert data["train"] + data["validation"] == len(train)
    assert run.evaluation.rows[0].values["accuracy"].n == len(held)

    again = cli(*few)
    assert again.code == 0
    assert "has finished" in again.out
    assert "--fresh" in again.out
    assert json.loads(cli(*few, "--json").out)["evaluation"]["rows"][0]["model"] == "base"
    other = cli(*few, "--steps-dpo", "4")
    assert other.code == 2
    assert "steps_dpo 3, now 4" in other.err
    before = (folder / "sft" / "run.json").stat().st_mtime
    (folder / "mine.txt").write_text("kept")
    anew = cli(*few, "--fresh", "--json")
    assert anew.code == 0
    assert json.loads(anew.out)["evaluation"]["rows"][2]["model"] == "dpo"
    assert (folder / "sft" / "run.json").stat().st_mtime > before
    assert (folder / "mine.txt").read_text() == "kept"


@pytest.mark.slow
def test_what_was_stopped_is_gone_on_with(cli: Cli, few: list[str], tmp_path: Path) -> None:
    many = [*few[:5], "--steps-sft", "3", "--steps-dpo", "20", "--output", "runs/quick"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pluralign", *many], cwd=tmp_path, env=environment(tmp_path),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for_steps(tmp_path / "runs/quick/dpo/metrics.jsonl", 2, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("stopped in dpo at step ")
    assert read_run(tmp_path / "runs/quick").info["status"] == "stopped"
    made = (tmp_path / "runs/quick/sft/run.json").stat().st_mtime
    done = cli(*many)
    assert done.code == 0, done.err
    assert "sft       done before" in done.out
    assert (tmp_path / "runs/quick/sft/run.json").stat().st_mtime == made
    rows = [json.loads(x) for x in (tmp_path / "runs/quick/dpo/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["phase"] == "train"] == list(range(1, 21))


def test_a_folder_of_another_run_is_left_alone(cli: Cli, short: list[str]) -> None:
    assert cli("align", "dpo", *short, "--output", "run").code == 0
    refused = cli("quickstart", "--output", "run")
    assert refused.code == 2
    assert "run holds another run" in refused.err
    refused = cli("quickstart", "--output", "run", "--fresh")
    assert refused.code == 2
    assert Path("run/model").is_dir()
