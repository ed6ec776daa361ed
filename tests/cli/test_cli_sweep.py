"""`pluralign sweep`: what it runs and prints, that it goes on after anything, and that the reference is read once."""

from __future__ import annotations

import json
import shlex
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file

import pluralign.api
import pluralign.training.run
from pluralign.api import settings_for
from pluralign.training.trainer import AlignTrainer

from .conftest import Cli
from .test_cli_align import start, wait_for_steps


@pytest.fixture
def filled(monkeypatch) -> list[str]:
    """Of which splits references were computed."""
    seen: list[str] = []
    original = AlignTrainer._fill

    def watch(self, store, examples, missing, model, split):
        seen.append(split)
        original(self, store, examples, missing, model, split)

    monkeypatch.setattr(AlignTrainer, "_fill", watch)
    return seen


def runs_of(folder: Path) -> dict[str, str]:
    """Status by run folder, as the run folders have it."""
    return {p.parent.name: json.loads(p.read_text())["status"] for p in sorted(folder.glob("*/run.json"))}


def state_of(folder: Path) -> dict[str, str]:
    tree = json.loads((folder / "sweep.json").read_text())
    return {t["folder"]: t["status"] for p in tree["points"] for t in p["trials"]}


def steps_of(run: Path) -> list[int]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row["step"] for row in rows if row["phase"] == "train"]


def without(short: list[str], *names: str) -> list[str]:
    return [word for word in short if word.partition("=")[0] not in names]


def test_a_grid_is_run_ranked_and_its_best_can_be_made_again(
    cli: Cli, short: list[str], filled: list[str], tmp_path: Path
) -> None:
    done = cli("sweep", "dpo", "beta=[0.1,0.5]", *short, "--output", "grid")
    assert done.code == 0, done.err
    assert runs_of(tmp_path / "grid") == {"001-beta=0.1": "finished", "002-beta=0.5": "finished"}
    assert state_of(tmp_path / "grid") == runs_of(tmp_path / "grid")
    assert filled == ["train", "validation"]  # the second point read what the first had computed
    assert "[1/2] beta=0.1" in done.out
    assert "[2/2] beta=0.5  about 0:0" in done.out  # with the time that is left
    page = (tmp_path / "grid" / "sweep.md").read_text()
    finals = {p.parent.name: json.loads(p.read_text())["final"] for p in (tmp_path / "grid").glob("*/run.json")}
    order = sorted(finals, key=lambda n: (-finals[n]["accuracy"], finals[n]["kl"], n))
    best = next(line for line in page.splitlines() if line.startswith("| best"))
    assert best.split(" | ")[1] == order[0].partition("=")[2]
    command = next(line.strip() for line in page.splitlines() if line.startswith("    pluralign align dpo"))
    assert f"again     {command}" in done.out
    assert cli(*shlex.split(command)[1:]).code == 0
    again, first = (load_file(tmp_path / p / "model/model.safetensors") for p in ("grid-best", f"grid/{order[0]}"))
    assert all(again[name].equal(first[name]) for name in first)  # nothing of the point before was left over


def test_the_same_command_runs_nothing_twice_and_adds_what_is_new(
    cli: Cli, short: list[str], monkeypatch, tmp_path: Path
) -> None:
    command = ["sweep", "dpo", "beta=[0.1,0.5]", *short, "--output", "grid"]
    assert cli(*command, "--limit-runs", "1").code == 0
    assert state_of(tmp_path / "grid") == {"001-beta=0.1": "finished", "002-beta=0.5": "pending"}
    before = (tmp_path / "grid/001-beta=0.1/run.json").stat().st_mtime_ns
    done = cli("sweep", "--resume", "grid")
    assert "[1/1] beta=0.5" in done.out
    more = cli("sweep", "dpo", "beta=[0.5,0.9]", *short, "--output", "grid", "--json")
    assert [p["values"] for p in json.loads(more.out)["points"]].count({"objective.beta": 0.9}) == 1
    assert len(json.loads(more.out)["points"]) == 3
    assert (tmp_path / "grid/001-beta=0.1/run.json").stat().st_mtime_ns == before
    monkeypatch.setattr(pluralign.training.run, "align", None)  # there is nothing left to call it for
    last = cli(*command)
    assert last.code == 0
    assert "[1/" not in last.out
    wrong = cli("sweep", "dpo", "beta=[0.1]", *without(short, "max_steps"), "max_steps=3", "--output", "grid")
    assert wrong.code == 2
    assert "grid was begun with training.max_steps=2, not 3" in wrong.err


def test_a_point_that_diverges_does_not_stop_the_others(cli: Cli, short: list[str], tmp_path: Path) -> None:
    words = [*without(short, "max_steps", "learning_rate"), "max_steps=5", "schedule=constant", "warmup=0"]
    command = ["sweep", "dpo", "learning_rate=[1e30,1e-3]", *words, "--output", "grid"]
    done = cli(*command)
    assert done.code == 0
    assert list(state_of(tmp_path / "grid").values()) == ["failed", "finished"]
    assert "warning: 001-learning_rate=1e+30 failed: the loss is " in done.err
    assert "001-learning_rate=1e+30 failed" in (tmp_path / "grid/sweep.md").read_text()
    assert "[1/" not in cli(*command).out
    assert "[1/1] learning_rate=1e+30" in cli(*command, "--retry-failed").out


def test_where_every_run_fails_the_sweep_has_failed(cli: Cli, short: list[str]) -> None:
    words = [*without(short, "max_steps", "learning_rate"), "max_steps=5", "schedule=constant", "warmup=0"]
    done = cli("sweep", "dpo", "learning_rate=[1e30]", *words, "--output", "grid")
    assert done.code == 4
    assert "no run finished; the first one failed with: the loss is " in done.err


def test_seeds_repeat_each_point(cli: Cli, short: list[str], tmp_path: Path) -> None:
    done = cli("sweep", "dpo", "beta=[0.1]", *short, "--output", "grid", "--seeds", "0,1", "--metric", "loss", "--json")
    assert done.code == 0, done.err
    assert list(runs_of(tmp_path / "grid")) == ["001-beta=0.1,seed=0", "001-beta=0.1,seed=1"]
    (point,) = json.loads(done.out)["points"]
    each = [json.loads((tmp_path / run / "run.json").read_text())["final"]["loss"] for run in point["runs"]]
    assert point["loss"]["value"] == pytest.approx(sum(each) / 2)
    half = 12.7062 * abs(each[0] - each[1]) / 2  # Student t with one degree of freedom
    assert point["loss"]["high"] - point["loss"]["value"] == pytest.approx(half, rel=1e-3)
    assert "loss is not comparable over beta" in done.err


def test_a_dry_run_counts_the_steps_and_writes_nothing(cli: Cli, short: list[str], tmp_path: Path) -> None:
    words = without(short, "max_steps")
    done = cli("sweep", "dpo", "beta=[0.1,0.3]", "batch_size=[4,8]", *without(words, "batch_size"), "--dry-run")
    assert done.code == 0, done.err
    assert "4 runs to go, 42 optimiser steps; nothing was run." in done.out  # 2 * 14 + 2 * 7
    assert not (tmp_path / "runs").exists()


def test_the_recipe_s_grid_is_the_default(cli: Cli, short: list[str], monkeypatch) -> None:
    own = SimpleNamespace(grid={"beta": [0.1, 0.2], "learning_rate": [1e-6, 2e-6]}, plan=None)
    monkeypatch.setattr(pluralign.api, "settings_for", lambda *a: (settings_for(*a)[0], own))
    done = cli("sweep", "dpo", *without(short, "learning_rate"), "--dry-run", "--json")
    assert len(json.loads(done.out)["points"]) == 4
    done = cli("sweep", "dpo", *short, "--dry-run", "--json")  # which give one learning rate
    assert [p["name"] for p in json.loads(done.out)["points"]] == ["beta=0.1", "beta=0.2"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "which recipe?"),
        (["dpo", "epochs=2"], "nothing to search"),
        (["dppo", "beta=[1,2]"], 'unknown recipe "dppo". Did you mean "dpo"?'),
        (["dpo", "betta=[1,2]"], 'unknown setting "betta". Did you mean "beta"?'),
        (["dpo", "beta=[]"], 'the axis "beta" is empty.'),
        (["dpo", "seed=[1,2]"], "--seeds 0,1,2"),
        (["dpo", "beta=[1,2]", "--seeds", "a"], "--seeds a: expected whole numbers"),
        (["dpo", "beta=[1,2]", "--mode", "best"], 'unknown mode "best"'),
        (["dpo", "beta=[1,2]", "validation_fraction=0"], "nothing is held out to rank by"),
        (["dpo", f"beta={list(range(501))}"], "501 points are more than 500"),
        (["dpo", "beta=[1,2]", "--data", "none.jsonl"], "none.jsonl"),
        (["--resume", "none"], "none is no folder of a sweep"),
        (["dpo", "--resume", "none"], "--resume takes no settings"),
    ],
)
def test_mistakes_are_one_line(cli: Cli, words: list[str], message: str, tmp_path: Path) -> None:
    done = cli("sweep", *words)
    assert done.code == 2
    lines = done.err.splitlines()
    assert len(lines) == 1, done.err
    assert lines[0].startswith("error: ")
    assert message in lines[0]


def test_a_metric_that_is_not_there(cli: Cli, short: list[str], tmp_path: Path) -> None:
    done = cli("sweep", "dpo", "beta=[0.1,0.5]", *short, "--output", "grid", "--metric", "acuracy")
    assert done.code == 2
    assert 'no validation metric "acuracy". Did you mean "accuracy"' in done.err
    assert state_of(tmp_path / "grid") == {"001-beta=0.1": "finished", "002-beta=0.5": "pending"}


LONG = ("max_steps", "eval_every", "save_every")


@pytest.mark.slow
def test_a_killed_sweep_goes_on_from_the_checkpoint(cli: Cli, short: list[str], monkeypatch, tmp_path: Path) -> None:
    command = ["sweep", "dpo", "beta=[0.1,0.5]", *without(short, *LONG), "max_steps=40", "eval_every=10",
               "--output", "grid"]  # fmt: skip
    process = start(tmp_path, *command)
    second = tmp_path / "grid/002-beta=0.5"
    wait_for_steps(second / "metrics.jsonl", 12, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert list(runs_of(tmp_path / "grid").values()) == ["finished", "running"]
    before = (tmp_path / "grid/001-beta=0.1/run.json").stat().st_mtime_ns
    checkpoints: list[str | None] = []
    original = pluralign.training.run._last_checkpoint
    monkeypatch.setattr(
        pluralign.training.run, "_last_checkpoint", lambda out: checkpoints.append(original(out)) or checkpoints[-1]
    )
    done = cli(*command)
    assert done.code == 0, done.err
    assert "[1/1] beta=0.5" in done.out
    assert list(runs_of(tmp_path / "grid").values()) == ["finished"] * 2
    assert (tmp_path / "grid/001-beta=0.1/run.json").stat().st_mtime_ns == before
    assert len(checkpoints) == 1
    assert str(checkpoints[0]).startswith("grid/002-beta=0.5/checkpoints/checkpoint-")
    assert steps_of(second) == list(range(1, 41))


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(cli: Cli, short: list[str], tmp_path: Path) -> None:
    words = [*without(short, *LONG), "max_steps=100000", "eval_every=0"]
    process = start(tmp_path, "sweep", "dpo", "beta=[0.1,0.5]", *words, "--output", "grid")
    wait_for_steps(tmp_path / "grid/001-beta=0.1/metrics.jsonl", 3, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert err.splitlines()[-1] == "stopped with 0 of 2 runs finished. Resume with: pluralign sweep --resume grid"
    assert "Traceback" not in out + err
    assert state_of(tmp_path / "grid") == {"001-beta=0.1": "interrupted", "002-beta=0.5": "pending"}
    assert "interrupted" in cli("sweep", "--resume", "grid", "--dry-run").out


@pytest.mark.slow
def test_the_embedded_model_and_its_pairs(cli: Cli, tmp_path: Path) -> None:
    words = ["limit=32", "max_steps=2", "training.batch_size=4", "rendering.max_length=128", "kl_rows=2"]
    done = cli("sweep", "ipo", "tau=[0.1,0.5]", *words, "--keep", "best")
    assert done.code == 0, done.err
    assert list(runs_of(tmp_path / "runs/sweep-ipo").values()) == ["finished"] * 2
    assert len(list((tmp_path / "runs/sweep-ipo").glob("*/model"))) == 1
