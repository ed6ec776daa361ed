"""`pluralign align`: where settings come from, what a run prints and leaves, and how it goes on after Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pluralign.api import settings_for
from pluralign.cli.align import parse_words
from pluralign.reports import read_run

from .conftest import Cli, environment


def settings_of(run: Path) -> dict:
    return json.loads((run / "run.json").read_text())["settings"]


# The command line as settings


def test_words_become_a_recipe_and_settings() -> None:
    words = ["--bad-rows", "quarantine", "dpo", "epochs=2", "--lora.rank=8", "--gradient-checkpointing"]
    expected = ["bad_rows=quarantine", "epochs=2", "lora.rank=8", "gradient_checkpointing=true"]
    assert parse_words(words) == ("dpo", expected)
    assert parse_words(["--deterministic", "--seed", "3"]) == (None, ["deterministic=true", "seed=3"])
    assert parse_words(["columns={prompt: question}"]) == (None, ["columns={prompt: question}"])


@given(st.lists(st.tuples(st.sampled_from(["seed", "epochs", "bad_rows"]), st.integers(0, 99)), max_size=5))
def test_the_three_ways_to_write_a_setting_are_one(pairs: list[tuple[str, int]]) -> None:
    plain = [f"{k}={v}" for k, v in pairs]
    options = [word for k, v in pairs for word in (f"--{k.replace('_', '-')}", str(v))]
    joined = [f"--{k.replace('_', '-')}={v}" for k, v in pairs]
    assert parse_words(plain) == parse_words(options) == parse_words(joined) == (None, plain)


def test_settings_come_from_recipe_file_and_command_line_in_this_order(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("recipe: dpo\nbeta: 0.3\ntraining: {epochs: 3, batch_size: 8}\ndata: pairs.jsonl\nseed: 5\n")
    made, recipe = settings_for(path, {"model": "m"}, ["epochs=4"])
    assert recipe is not None
    assert recipe.name == made.recipe == "dpo"
    assert made.objective.hyper == {"beta": 0.3}  # the file's
    assert (made.training.epochs, made.training.batch_size) == (4, 8)  # the command line's, the file's
    assert made.training.learning_rate == 1e-6  # the recipe's
    assert (made.model, made.data.source, made.seed) == ("m", "pairs.jsonl", 5)


def test_another_objective_drops_the_old_ones_numbers(tmp_path: Path) -> None:
    made, _ = settings_for("dpo", {}, ["gamma=0.7", "objective=simpo"])
    assert made.objective.name == "simpo"
    assert made.objective.hyper == {"gamma": 0.7}
    path = tmp_path / "mine.yaml"
    path.write_text("gamma: 0.2\nrecipe: dpo\nobjective: simpo\n")  # whatever the order
    assert settings_for(path)[0].objective.hyper == {"gamma": 0.2}


def test_a_file_without_a_recipe_is_named_after_itself(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("objective: ipo\n")
    made, recipe = settings_for(path)
    assert (made.recipe, made.objective.name, recipe) == ("mine", "ipo", None)


def test_what_a_recipe_prints_is_a_file_that_gives_the_same_settings(cli: Cli, tmp_path: Path) -> None:
    for name in ("sft", "dpo", "ipo", "simpo"):
        path = tmp_path / f"{name}.yaml"
        path.write_text(cli("recipes", name).out)
        assert settings_for(path)[0] == settings_for(name)[0]


def test_the_settings_of_a_run_give_themselves() -> None:
    made, _ = settings_for("simpo", {"lora": {"rank": 4}}, ["gamma=0.1", "columns={prompt: q}"])
    again, _ = settings_for(made.model_dump())
    assert again == made


# Runs


def test_a_run_says_what_it_does_and_leaves_a_report(cli: Cli, short: list[str], tmp_path: Path) -> None:
    done = cli("align", "dpo", *short, "--output", "run")
    assert done.code == 0
    assert done.err == ""
    lines = [line.split()[0] for line in done.out.splitlines()]
    assert [word for word in ("data", "dpo", "held", "policy", "report") if word not in lines] == []
    assert "dpo       2/2  accuracy" in done.out
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
    info = read_run(tmp_path / "run").info
    assert info["status"] == "finished"
    assert info["command"].startswith("pluralign ")
    assert settings_of(tmp_path / "run")["training"]["learning_rate"] == 1e-3


def test_json_is_all_there_is_on_stdout(cli: Cli, short: list[str]) -> None:
    done = cli("align", "sft", *short, "--output", "run", "--json")
    found = json.loads(done.out)
    assert (found["status"], found["output"]) == ("finished", "run")
    assert found["metrics"]["nll_per_token_low"] <= found["metrics"]["nll_per_token"]
    assert "sft       2/2" in done.err


def test_a_yaml_run_with_an_option_and_a_setting(cli: Cli, short: list[str], tmp_path: Path) -> None:
    text = yaml.safe_dump({"recipe": "simpo", "gamma": 0.25, "data": {"validation_fraction": 0.25}})
    (tmp_path / "mine.yaml").write_text(text)
    assert cli("align", "mine.yaml", *short, "--output", "run", "--eval-every", "2").code == 0
    settings = settings_of(tmp_path / "run")
    assert settings["objective"] == {"name": "simpo", "beta": 2.0, "gamma": 0.25}
    assert settings["training"]["eval_every"] == 2
    assert settings["recipe"] == "simpo"


def test_one_of_several_processes_speaks(shell: Cli, short: list[str], tmp_path: Path) -> None:
    quiet = shell("align", "dpo", "--data", "none.jsonl", RANK="1", WORLD_SIZE="2")
    assert quiet.code == 2
    assert quiet.err.startswith("[process 1] error: none.jsonl")
    assert quiet.out == ""


def test_progress_lines_show_the_mean_of_the_first_and_of_the_latest_steps(capfd: pytest.CaptureFixture[str]) -> None:
    from pluralign.cli.progress import Progress

    say = Progress(noun="pairs")
    for step in range(1, 31):
        say.step("dpo", step, 30, {"accuracy": 0.5 if step <= 10 else 0.75, "loss": 0.7})
    say.validated(
        30, {"accuracy": 0.6, "accuracy_low": 0.55, "accuracy_high": 0.65, "loss": 0.69, "kl": -1e-9, "rows": 40}
    )
    say.done()
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 11  # a few plain lines, not thirty
    assert lines[0].startswith("  dpo       3/30  accuracy .50  0:0")
    assert lines[9].startswith("  dpo       30/30  accuracy .50 → .75  0:0")
    assert lines[10] == "    held    step 30: accuracy .60 ± .05 · loss .69 · kl .000  (n = 40)"


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "pluralign", *arguments], cwd=folder, env=environment(folder),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for_steps(path: Path, steps: int, process: subprocess.Popen, seconds: float = 180) -> None:
    until = time.time() + seconds
    while time.time() < until and process.poll() is None:
        if path.is_file() and len(path.read_text().splitlines()) >= steps:
            return
        time.sleep(0.05)
    process.kill()
    pytest.fail(f"no {steps} steps: {process.communicate()}")


@pytest.mark.slow
def test_ctrl_c_leaves_a_run_that_goes_on(cli: Cli, short: list[str], tmp_path: Path) -> None:
    many = [a for a in short if not a.startswith("max_steps")] + ["max_steps=100000", "eval_every=0"]
    process = start(tmp_path, "align", "dpo", *many, "--output", "runs/x")
    wait_for_steps(tmp_path / "runs/x/metrics.jsonl", 3, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    step = json.loads((tmp_path / "runs/x/run.json").read_text())["step"]
    assert err.splitlines()[-1] == f"stopped at step {step}. Resume with: pluralign align --resume runs/x"
    assert "Traceback" not in out + err
    assert step >= 3
    done = cli("align", "--resume", "runs/x", f"max_steps={step + 2}")
    assert done.code == 0, done.err
    rows = [json.loads(line) for line in (tmp_path / "runs/x/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["phase"] == "train"] == list(range(1, step + 3))
    assert read_run(tmp_path / "runs/x").info["status"] == "finished"


@pytest.mark.slow
def test_a_run_killed_before_its_first_checkpoint_starts_anew(cli: Cli, short: list[str], tmp_path: Path) -> None:
    many = [a for a in short if not a.startswith("max_steps")] + [
        "max_steps=100000",
        "save_every=90000",
        "eval_every=0",
    ]
    process = start(tmp_path, "align", "dpo", *many, "--output", "runs/x")
    wait_for_steps(tmp_path / "runs/x/metrics.jsonl", 2, process)
    process.kill()
    process.communicate()
    assert not (tmp_path / "runs/x/checkpoints").exists() or not os.listdir(tmp_path / "runs/x/checkpoints")
    done = cli("align", "--resume", "runs/x", "max_steps=2")
    assert done.code == 0, done.err
    rows = [json.loads(line) for line in (tmp_path / "runs/x/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["phase"] == "train"] == [1, 2]
