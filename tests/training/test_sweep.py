"""A grid as points, what a folder remembers of them, how they rank, and that one bad point stops nobody."""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import pluralign.training.run
from pluralign.api import settings_for
from pluralign.cli.align import parse_words
from pluralign.errors import RecordError, SettingsError, TrainingError
from pluralign.training.callbacks import Say
from pluralign.training.grid import axes_of, full_key, name_of, plain, short_key, split_axes
from pluralign.training.settings import keys
from pluralign.training.sweep import (
    Sweep,
    add_seeds,
    cautions,
    check_metric,
    combine,
    expand,
    read,
    reconcile,
    scores,
    write,
)
from pluralign.training.sweep_runs import command_of, execute, jobs, locked, prune, steps_of

SILENT = {"begins": lambda *_: None, "ended": lambda *_: None}


def sweep_of(folder: Path, *words: str, recipe: str = "dpo", seeds: tuple[int, ...] = (0,), metric: str = "accuracy"):
    fixed, axes = split_axes(words)
    base, _ = settings_for(recipe, {}, list(fixed.values()))
    tree = base.model_dump(mode="json")
    made = combine(read(folder), Sweep(folder, recipe, {}, list(fixed.values()), tree, axes, metric))
    add_seeds(made, seeds)
    return made


def finish(sweep: Sweep, *numbers: float | None, **more: list[float]) -> None:
    """The trials in order as finished runs with this accuracy."""
    for i, (trial, accuracy) in enumerate(zip(sweep.trials, numbers, strict=False)):
        if accuracy is not None:
            trial.status = "finished"
            trial.metrics = {"accuracy": accuracy, **{name: values[i] for name, values in more.items()}}


def leave_run(sweep: Sweep, number: int, status: str, **final: float) -> None:
    """A run folder as a run leaves it."""
    point = sweep.points[number - 1]
    folder = sweep.folder / point.trials[0].folder
    folder.mkdir(parents=True)
    made = sweep.made(point.values, point.trials[0].seed, point.trials[0].folder)
    about = {"status": status, "settings": made.model_dump(mode="json"), "seconds": 3.0, "final": final}
    (folder / "run.json").write_text(json.dumps(about))


def mean_interval(values):
    return min(values), max(values)


# The grid


def test_a_list_is_an_axis_unless_the_setting_takes_one() -> None:
    words = ["beta=[0.1, 1e-2]", "epochs=2", "adam_betas=[0.9,0.95]", "columns={prompt: q}"]
    fixed, axes = split_axes(words)
    assert axes == {"objective.beta": [0.1, "1e-2"]}  # what the text means is for the settings to say
    assert list(fixed) == ["training.epochs", "training.adam_betas", "data.columns"]
    _, axes = split_axes(["adam_betas=[[0.9,0.95],[0.9,0.999]]"])
    assert axes == {"training.adam_betas": [[0.9, 0.95], [0.9, 0.999]]}


def test_the_last_word_on_a_setting_counts() -> None:
    assert split_axes(["beta=[1,2]", "objective.beta=3"]) == ({"objective.beta": "objective.beta=3"}, {})
    assert split_axes(["beta=3", "beta=[1,2]"]) == ({}, {"objective.beta": [1, 2]})


@pytest.mark.parametrize("key", sorted({full for fulls in keys().values() for full in fulls}))
def test_short_and_full_keys_mean_the_same(key: str) -> None:
    assert full_key(short_key(key)) == key
    assert full_key(key) == key


def test_axes_multiply_in_the_order_they_are_given(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, "beta=[0.1,0.3]", "learning_rate=[5e-7,1e-6]")
    assert [p.name for p in sweep.points] == [
        "beta=0.1,learning_rate=5e-07",
        "beta=0.1,learning_rate=1e-06",
        "beta=0.3,learning_rate=5e-07",
        "beta=0.3,learning_rate=1e-06",
    ]
    made = sweep.made(sweep.points[2].values, 7, sweep.points[2].trials[0].folder)
    assert (made.objective.hyper["beta"], made.training.learning_rate, made.seed) == (0.3, 5e-7, 7)
    assert made.output == str(tmp_path / "003-beta=0.3,learning_rate=5e-07")


def test_equal_values_are_one_point(tmp_path: Path) -> None:
    assert [p.values for p in sweep_of(tmp_path, "beta=[1,1.0,1e0,2]").points] == [
        {"objective.beta": 1},
        {"objective.beta": 2},
    ]


def test_a_tuple_setting_and_an_objective_can_be_axes(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, "adam_betas=[[0.9,0.95],[0.9,0.999]]")
    assert [sweep.made(p.values).training.adam_betas for p in sweep.points] == [(0.9, 0.95), (0.9, 0.999)]
    sweep = sweep_of(tmp_path, "objective=[dpo,ipo,simpo]")
    made = [sweep.made(p.values).objective for p in sweep.points]
    assert [(o.name, o.hyper) for o in made] == [("dpo", {"beta": 0.1}), ("ipo", {}), ("simpo", {})]


def test_the_recipe_s_grid_is_used_where_nothing_else_is_asked() -> None:
    grid = {"beta": [0.1, 0.2], "objective.tau": [1.0]}
    assert axes_of({}, grid, [], "x") == {"objective.beta": [0.1, 0.2], "objective.tau": [1.0]}
    assert axes_of({}, grid, ["objective.beta"], "x") == {"objective.tau": [1.0]}
    assert axes_of({"seed2": [1]}, grid, [], "x") == {"seed2": [1]}


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({}, "nothing to search"),
        ({"objective.beta": []}, 'the axis "beta" is empty'),
        ({"seed": [0, 1]}, "--seeds 0,1,2"),
        ({"output": ["a"]}, "its own folder"),
        ({"objective.beta": list(range(26)), "training.epochs": list(range(20))}, "520 points are more than 500"),
    ],
)
def test_what_is_no_grid(axes: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        axes_of(axes, {}, [], "dpo")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("betta=[1,2]", 'unknown setting "betta". Did you mean'),
        ("gamma=[1,2]", 'objective "dpo" has no hyper-parameter "gamma"'),
        ("beta=[0.1,high]", "'high', which is not a number"),
        ("epochs=[1,-1]", 'setting "training.epochs"'),
    ],
)
def test_a_point_that_cannot_be_is_found_at_once(tmp_path: Path, word: str, message: str) -> None:
    with pytest.raises(SettingsError) as error:
        sweep_of(tmp_path, word)
    assert message in str(error.value)


@given(st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8) | st.booleans() | st.integers())
def test_values_survive_the_way_over_a_command_line(value) -> None:
    found = yaml.safe_load(plain(value))
    assert (float(found) if isinstance(value, float) else found) == value


def test_names_are_folders(tmp_path: Path) -> None:
    assert name_of({"data.source": "some/where/a b.jsonl", "objective.beta": 0.1}) == "data=a-b.jsonl,beta=0.1"
    assert len(name_of({"data.source": "x" * 500})) == 100


# The record


def test_a_sweep_is_read_as_it_was_written(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, "beta=[0.1,0.3]", seeds=(0, 1))
    finish(sweep, 0.5, None, 0.75)
    write(sweep)
    assert read(tmp_path) == sweep
    assert not list(tmp_path.glob("*.part"))
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(SettingsError, match=r"sweep\.json cannot be read"):
        read(tmp_path)


def test_points_are_added_and_none_is_taken_away(tmp_path: Path) -> None:
    first = sweep_of(tmp_path, "beta=[0.1,0.3]")
    finish(first, 0.5, 0.6)
    write(first)
    again = sweep_of(tmp_path, "beta=[0.3,0.5]", "epochs=[1,2]")  # an axis that was a setting, epochs=1
    assert [p.trials[0].folder for p in again.points] == [
        "001-beta=0.1",
        "002-beta=0.3",
        "003-beta=0.3,epochs=2",
        "004-beta=0.5,epochs=1",
        "005-beta=0.5,epochs=2",
    ]
    assert [t.status for t in again.trials] == ["finished", "finished", "pending", "pending", "pending"]
    assert again.points[0].values == {"objective.beta": 0.1, "training.epochs": 1}
    assert again.grid == {"objective.beta": [0.1, 0.3, 0.5], "training.epochs": [1, 2]}


def test_seeds_are_added(tmp_path: Path) -> None:
    write(sweep_of(tmp_path, "beta=[0.1,0.3]"))
    again = sweep_of(tmp_path, "beta=[0.1,0.3]", seeds=(1,))
    assert [t.folder for t in again.trials] == [
        "001-beta=0.1",
        "001-beta=0.1,seed=1",
        "002-beta=0.3",
        "002-beta=0.3,seed=1",
    ]
    assert [again.made(p.values, t.seed).seed for p in again.points for t in p.trials] == [0, 1, 0, 1]


def test_another_base_setting_is_refused_once_something_was_trained(tmp_path: Path) -> None:
    first = sweep_of(tmp_path, "beta=[0.1,0.3]")
    write(first)
    assert sweep_of(tmp_path, "beta=[0.1,0.3]", "epochs=2").settings["training"]["epochs"] == 2  # nothing was yet
    leave_run(first, 1, "running")
    with pytest.raises(SettingsError, match=r"was begun with training.epochs=1, not 2"):
        sweep_of(tmp_path, "beta=[0.1,0.3]", "epochs=2")
    sweep_of(tmp_path, "beta=[0.1,0.3]", "token_budget=512")  # changes no result


def test_the_run_folders_say_where_a_sweep_stands(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, "beta=[0.1,0.2,0.3,0.4]")
    sweep.trials[3].status = "finished"  # whose folder somebody removed
    leave_run(sweep, 1, "finished", accuracy=0.7, loss=math.nan)
    leave_run(sweep, 2, "running")
    reconcile(sweep)
    assert [t.status for t in sweep.trials] == ["finished", "interrupted", "pending", "pending"]
    assert sweep.trials[0].metrics == {"accuracy": 0.7, "loss": None}
    assert [(p.number, resume) for p, _, resume in jobs(sweep)] == [(2, True), (3, False), (4, False)]
    sweep.trials[1].status = "failed"
    reconcile(sweep)
    assert [p.number for p, _, _ in jobs(sweep)] == [3, 4]
    assert [p.number for p, _, _ in jobs(sweep, retry_failed=True)] == [2, 3, 4]


def test_a_folder_with_another_run_in_it_is_not_taken_for_this_one(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, "beta=[0.1,0.3]")
    leave_run(sweep, 1, "finished", accuracy=0.7)
    other = sweep_of(tmp_path, "beta=[0.1,0.3]", "epochs=2")  # sweep.json is not there any more
    with pytest.raises(SettingsError, match=r"001-beta=0.1 holds a run with training.epochs=1"):
        reconcile(other)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(SettingsError, match="another process"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


# The ranking


def test_points_rank_by_the_metric_then_by_kl_then_by_order(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, "beta=[0.1,0.2,0.3,0.4,0.5]")
    finish(sweep, 0.6, 0.7, 0.7, 0.7, None, kl=[0.0, 0.2, 0.1, 0.1])
    assert [s.point.number for s in scores(sweep, mean_interval)] == [3, 4, 2, 1]
    sweep.mode = "min"
    assert [s.point.number for s in scores(sweep, mean_interval)] == [1, 3, 4, 2]
    sweep.metric, sweep.mode = "kl", "auto"  # of kl the lower is better
    assert [s.point.number for s in scores(sweep, mean_interval)] == [1, 3, 4, 2]


def test_a_mean_over_fewer_seeds_wins_nothing(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, "beta=[0.1,0.2]", seeds=(0, 1))
    finish(sweep, 0.9, None, 0.5, 0.7)
    best, second = scores(sweep, mean_interval)
    assert (best.point.number, best.values, best.missing) == (2, (0.5, 0.7), 0)
    assert best.mean == pytest.approx(0.6)
    assert (best.low, best.high) == (0.5, 0.7)
    assert (second.point.number, second.missing) == (1, 1)


def test_what_is_no_number_ranks_last(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, "beta=[0.1,0.2]")
    finish(sweep, 0.1, 0.2)
    sweep.trials[1].metrics["accuracy"] = None
    ranked = scores(sweep, mean_interval)
    assert [s.point.number for s in ranked] == [1, 2]
    assert math.isnan(ranked[1].mean)


def test_one_seed_keeps_its_own_interval(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, "beta=[0.1,0.2]")
    finish(sweep, 0.6, accuracy_low=[0.5], accuracy_high=[0.7])
    (only,) = scores(sweep, mean_interval)
    assert (only.low, only.mean, only.high) == (0.5, 0.6, 0.7)


def test_a_metric_that_the_runs_lack_names_the_nearest(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, "beta=[0.1,0.2]", metric="acuracy")
    check_metric(sweep)  # nothing is known yet
    finish(sweep, 0.6)
    with pytest.raises(SettingsError, match=r'no validation metric "acuracy"\. Did you mean "accuracy"'):
        check_metric(sweep)
    sweep.metric = "conditioned_accuracy"  # which a point without conditioning does not have
    finish(sweep, 0.6, 0.7)
    sweep.trials[1].metrics["conditioned_accuracy"] = 0.2
    check_metric(sweep)
    assert [s.point.number for s in scores(sweep, mean_interval)] == [2, 1]


def test_losses_of_different_objectives_are_cautioned_against(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, "beta=[0.1,0.2]", metric="loss")
    assert "loss is not comparable over beta" in cautions(sweep)[0]
    sweep.metric = "accuracy"
    assert cautions(sweep) == []
    assert cautions(sweep_of(tmp_path / "b", "learning_rate=[1e-6,2e-6]", metric="loss")) == []
    assert "max_length may change" in cautions(sweep_of(tmp_path / "c", "max_length=[64,128]"))[0]


# Running


@pytest.fixture
def runs(monkeypatch) -> list[str]:
    """`align` replaced: the accuracy of a point is its beta; what was run, in order."""
    seen: list[str] = []

    def align(settings, *, resume, **_):
        beta = settings.objective.hyper["beta"]
        seen.append(f"{beta}{' resumed' if resume else ''}")
        if beta == 0.66:
            raise TrainingError("the loss is nan at step 3.")
        if beta == 0.67:
            raise RuntimeError("out of\nmemory")
        if beta == 0.68:
            raise RecordError("no such column.")
        if beta == 0.69:
            return SimpleNamespace(status="stopped", metrics={})
        if beta == 0.7:
            raise KeyboardInterrupt
        return SimpleNamespace(status="finished", metrics={"accuracy": beta})

    monkeypatch.setattr(pluralign.training.run, "align", align)
    return seen


def go(sweep: Sweep, **more) -> bool:
    return execute(sweep, jobs(sweep, **more), plan=None, say=Say(), **SILENT)


def test_a_point_that_fails_is_recorded_and_the_rest_goes_on(tmp_path: Path, runs: list[str]) -> None:
    sweep = sweep_of(tmp_path, "beta=[0.66,0.1,0.67,0.68,0.2]")
    assert go(sweep)
    assert [t.status for t in sweep.trials] == ["failed", "finished", "failed", "failed", "finished"]
    assert sweep.trials[0].error == "the loss is nan at step 3."
    assert sweep.trials[2].error == "RuntimeError: out of memory"
    assert read(tmp_path) == sweep
    assert jobs(sweep) == []
    go(sweep, retry_failed=True)
    assert runs == ["0.66", "0.1", "0.67", "0.68", "0.2", "0.66", "0.67", "0.68"]


def test_a_mistake_that_every_point_would_meet_ends_it(tmp_path: Path, runs: list[str]) -> None:
    sweep = sweep_of(tmp_path, "beta=[0.68,0.1]")
    with pytest.raises(RecordError):
        go(sweep)
    assert runs == ["0.68"]
    assert [t.status for t in sweep.trials] == ["pending", "pending"]


@pytest.mark.parametrize("beta", [0.69, 0.7])
def test_a_stopped_run_stops_the_sweep(tmp_path: Path, runs: list[str], beta: float) -> None:
    sweep = sweep_of(tmp_path, f"beta=[0.1,{beta},0.2]")
    try:
        assert not go(sweep)
    except KeyboardInterrupt:
        assert beta == 0.7
    recorded = read(tmp_path)
    assert recorded is not None
    assert [t.status for t in recorded.trials] == ["finished", "interrupted", "pending"]


def test_a_wrong_metric_costs_one_run_and_loses_none(tmp_path: Path, runs: list[str]) -> None:
    sweep = sweep_of(tmp_path, "beta=[0.1,0.2]", metric="acc")
    with pytest.raises(SettingsError, match="accuracy"):
        go(sweep)
    assert runs == ["0.1"]
    recorded = read(tmp_path)
    assert recorded is not None
    assert recorded.trials[0].status == "finished"


def test_only_the_best_keeps_its_weights_where_that_is_asked(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, "beta=[0.1,0.2,0.3]", seeds=(0, 1))
    finish(sweep, 0.6, 0.6, 0.7, 0.7, 0.9)  # of the last one a seed is to come
    for trial in sweep.trials:
        for name in ("model", "checkpoints"):
            (tmp_path / trial.folder / name).mkdir(parents=True)
    prune(sweep, scores(sweep, mean_interval))
    kept = [sorted(p.name for p in (tmp_path / trial.folder).iterdir()) for trial in sweep.trials]
    assert kept == [[], [], *[["checkpoints", "model"]] * 4]


def test_the_command_of_a_point_gives_its_settings(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, "beta=[0.1,1e-3]", "objective.name=[dpo]", "epochs=2", "columns={prompt: a b}")
    sweep.given = {"model": "some/model", "data.source": "a.jsonl"}
    words = shlex.split(command_of(sweep, sweep.points[1], 3, "runs/again"))
    assert words[:2] == ["pluralign", "align"]
    assert words[3:7] == ["--model", "some/model", "--data", "a.jsonl"]
    assert words[-2:] == ["--output", "runs/again"]
    recipe, settings = parse_words([words[2], *words[7:-2]])
    made, _ = settings_for(recipe or "", {}, settings)
    made.output = None
    assert made == sweep.made(sweep.points[1].values, 3)


@pytest.mark.parametrize(
    "overrides", [("epochs=2",), ("epochs=0.4", "batch_size=16"), ("max_steps=3",), ("batch_size=64",)]
)
def test_the_steps_that_are_foretold_are_the_steps_of_the_run(settings, overrides) -> None:
    made = settings(*overrides, "eval_every=0", "save_every=0")
    about = json.loads((pluralign.training.run.align(made).output / "run.json").read_text())
    assert steps_of(made, about["data"]["train"]) == about["step"]


def test_expand_does_not_need_a_folder(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path / "none", "beta=[0.1,0.2]")
    assert [v["objective.beta"] for v in expand(sweep)] == [0.1, 0.2]
    assert not (tmp_path / "none").exists()
