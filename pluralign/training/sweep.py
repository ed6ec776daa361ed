"""A grid search as data: which points there are, where each of them stands, and how they rank.

`FOLDER/sweep.json` holds the plan and the record. The run folders beside it are ordinary ones and decide: a run whose
folder was removed is run again, one that ended while nobody wrote it down is finished.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import SettingsError, nearest
from ..objectives import find
from .grid import flat, identity, name_of, plain, short_key
from .settings import Settings, build, hyper_parameters

__all__ = [
    "Point", "Score", "Sweep", "Trial", "add_seeds", "cautions", "check_metric", "combine", "expand", "finite",
    "lower_is_better", "read", "reconcile", "scores", "write",
]  # fmt: skip

STATE = "sweep.json"
LOWER = ("loss", "kl", "nll_per_token")
# What changes neither what a run learns nor how it is measured: free to differ when a sweep goes on.
FREE = ("output", "seed", "training.token_budget", "training.gradient_checkpointing", "training.keep_checkpoints",
        "training.log_every", "training.track", "training.collapse_nats")  # fmt: skip
Values = dict[str, Any]


@dataclass
class Trial:
    """One run of a point. `metrics` are those of its last validation, `error` the line it failed with."""

    seed: int
    folder: str
    status: str = "pending"  # pending, interrupted, finished, failed
    seconds: float = 0.0
    metrics: dict[str, float | None] = field(default_factory=dict)
    error: str = ""


@dataclass
class Point:
    """One place of the grid: the value of every axis by its full key."""

    number: int
    name: str
    values: Values
    trials: list[Trial] = field(default_factory=list)


@dataclass
class Sweep:
    """A grid over the settings `settings`; `source`, `given` and `overrides` are how they were asked for."""

    folder: Path
    source: str
    given: dict[str, Any]
    overrides: list[str]
    settings: dict[str, Any]
    grid: dict[str, list[Any]]
    metric: str
    mode: str = "auto"
    seeds: list[int] = field(default_factory=lambda: [0])
    points: list[Point] = field(default_factory=list)

    @property
    def trials(self) -> list[Trial]:
        return [trial for point in self.points for trial in point.trials]

    def made(self, values: Mapping[str, Any], seed: int | None = None, folder: str | None = None) -> Settings:
        """The settings of a point. Raises SettingsError for a value that cannot be."""
        words = [*self.overrides, *(f"{key}={plain(value)}" for key, value in values.items())]
        made = build(self.settings, words, hyper=hyper_parameters())
        made.output = str(self.folder / folder) if folder else None
        made.seed = made.seed if seed is None else seed
        return made


# The points


def expand(sweep: Sweep) -> list[Values]:
    """The points of the grid, each value as the settings read it, the last axis running fastest, without doubles.

    Raises SettingsError for an unknown setting and for a value that cannot be.
    """
    points: dict[str, Values] = {}
    for combination in itertools.product(*sweep.grid.values()):
        asked = dict(zip(sweep.grid, combination, strict=True))
        values = _resolved(sweep, asked, list(asked))
        _check_numbers(values, sweep.made(asked).objective.name)
        points.setdefault(identity(values), values)
    return list(points.values())


def _check_numbers(values: Values, objective: str) -> None:
    defaults = find(objective).defaults
    for key, value in values.items():
        default = defaults.get(key.removeprefix("objective."))
        if isinstance(value, str) and isinstance(default, int | float):
            raise SettingsError(f'the axis "{short_key(key)}" holds {value!r}, which is not a number.')


def _resolved(sweep: Sweep, values: Mapping[str, Any], names: Iterable[str]) -> Values:
    """What these settings are at a point, whether or not they are axes; an objective may lack some of them."""
    every = flat(sweep.made(values).model_dump(mode="json"))
    return {name: every[name] for name in names if name in every}


# The record


def read(folder: Path) -> Sweep | None:
    """The sweep of a folder, None where there is none. Raises SettingsError for a file that is none of ours."""
    path = folder / STATE
    if not path.is_file():
        return None
    try:
        tree = json.loads(path.read_text("utf-8"))
        tree.pop("version")
        tree["points"] = [Point(**{**p, "trials": [Trial(**t) for t in p["trials"]]}) for p in tree["points"]]
        return Sweep(folder=folder, **tree)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SettingsError(f"{path} cannot be read ({error}).", remedy="Move it away to start anew.") from None


def write(sweep: Sweep) -> None:
    """Record where the sweep stands, at once or not at all."""
    if os.environ.get("RANK", "0") != "0":
        return
    sweep.folder.mkdir(parents=True, exist_ok=True)
    tree = {"version": 1, **{k: v for k, v in asdict(sweep).items() if k != "folder"}}
    part = sweep.folder / f"{STATE}.part"
    part.write_text(json.dumps(tree, indent=1, ensure_ascii=False, default=str), "utf-8")
    os.replace(part, sweep.folder / STATE)


def combine(old: Sweep | None, new: Sweep) -> Sweep:
    """`new` with its points and all of `old`: points are added to those of a folder, none is taken away.

    The trials of new points are for `add_seeds` to make.
    Raises SettingsError where a setting outside of the axes differs, so that the runs could not be held together.
    """
    asked = expand(new)
    axes = list(dict.fromkeys([*(old.grid if old else ()), *new.grid]))
    other = _differences(old.settings, new.settings, axes) if old else []
    if old is not None and other:
        if any((old.folder / trial.folder / "run.json").is_file() for trial in old.trials):
            key, before, now = other[0]
            more = f" ({len(other) - 1} more settings differ)" if other[1:] else ""
            raise SettingsError(
                f"{old.folder} was begun with {key}={plain(before)}, not {plain(now)}{more}.",
                remedy="Give the same settings, or another --output.",
            )
        old, axes = None, list(new.grid)  # nothing was trained under them
    found: dict[str, Point] = {}
    for point in old.points if old else ():
        values = _resolved(old, point.values, axes)  # type: ignore[arg-type]
        found[identity(values)] = Point(point.number, point.name, values, point.trials)
    for one in asked:
        values = _resolved(new, one, axes)
        number = 1 + max((point.number for point in found.values()), default=0)
        found.setdefault(identity(values), Point(number, name_of(values), values))
    new.points = list(found.values())
    every = [(key, point.values[key]) for point in new.points for key in axes if key in point.values]
    new.grid = {key: list({identity({key: v}): v for k, v in every if k == key}.values()) for key in axes}
    new.seeds = list(old.seeds) if old else []
    return new


def add_seeds(sweep: Sweep, seeds: Sequence[int]) -> None:
    """A trial of every point for each of these seeds and of those that the sweep had before."""
    sweep.seeds = list(dict.fromkeys([*sweep.seeds, *seeds]))
    for point in sweep.points:
        known = {trial.seed for trial in point.trials}
        for seed in sweep.seeds:
            if seed not in known:
                suffix = f",seed={seed}" if len(sweep.seeds) > 1 else ""
                point.trials.append(Trial(seed, f"{point.number:03d}-{point.name}{suffix}"))


def _differences(a: Mapping[str, Any], b: Mapping[str, Any], apart: Iterable[str]) -> list[tuple[str, Any, Any]]:
    """Settings of both trees that differ, but for what is free to differ and what is named in `apart`."""
    left, right, apart = flat(a), flat(b), {*apart, *FREE}
    if "objective.name" in apart:
        apart |= {key for key in {**left, **right} if key.startswith("objective.")}
    names = [key for key in left if key in right or key.startswith("objective.")]
    names += [key for key in right if key.startswith("objective.") and key not in left]
    pairs = [(key, left.get(key), right.get(key)) for key in names if key not in apart]
    return [(key, x, y) for key, x, y in pairs if identity({key: x}) != identity({key: y})]


def reconcile(sweep: Sweep) -> None:
    """Take over what the run folders say. Raises SettingsError for a folder that holds another run."""
    for point in sweep.points:
        for trial in point.trials:
            info = _run(sweep.folder / trial.folder)
            if info is None:
                if trial.status != "failed":
                    trial.status, trial.seconds, trial.metrics = "pending", 0.0, {}
                continue
            made = sweep.made(point.values, trial.seed).model_dump(mode="json")
            other = _differences(info.get("settings") or {}, made, ())
            if other:
                key, found, wanted = other[0]
                raise SettingsError(
                    f"{sweep.folder / trial.folder} holds a run with {key}={plain(found)}, not {plain(wanted)}.",
                    remedy="Move it away, or choose another --output.",
                )
            if info.get("status") == "finished":
                trial.status, trial.error, trial.metrics = "finished", "", finite(info.get("final") or {})
                trial.seconds = trial.seconds or float(info.get("seconds", 0.0))
            elif trial.status != "failed":
                trial.status = "interrupted"


def _run(folder: Path) -> dict[str, Any] | None:
    try:
        info = json.loads((folder / "run.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return info if isinstance(info, dict) else None


def finite(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Metrics for a JSON file: what is no number is null."""
    return {name: float(value) if math.isfinite(value) else None for name, value in metrics.items()}


# The ranking


@dataclass(frozen=True, slots=True)
class Score:
    """A point's metric: the mean over its finished seeds, `missing` of which are not there (yet)."""

    point: Point
    values: tuple[float, ...]
    mean: float
    low: float
    high: float
    kl: float
    missing: int


def lower_is_better(metric: str) -> bool:
    """Whether a smaller value wins where nobody says."""
    return metric.removeprefix("conditioned_") in LOWER


def scores(sweep: Sweep, interval: Callable[[Sequence[float]], tuple[float, float]]) -> list[Score]:
    """Every point with a finished run, the best one first: by the mean, then the lower KL, then the order of the grid.

    A point of which a seed is missing stands behind those that are whole: a mean over fewer, easier seeds wins nothing.
    `interval` gives the ends for the means of several seeds; one seed has its metric's own.
    """
    down = sweep.mode == "min" or (sweep.mode == "auto" and lower_is_better(sweep.metric))

    def order(score: Score) -> tuple[Any, ...]:
        mean = score.mean if down else -score.mean
        lost = math.isnan(mean)
        return score.missing > 0, lost, 0.0 if lost else mean, score.kl, score.point.number

    found = [_score(sweep, point, interval) for point in sweep.points]
    return sorted((score for score in found if score is not None), key=order)


def _score(sweep: Sweep, point: Point, interval: Callable[[Sequence[float]], tuple[float, float]]) -> Score | None:
    done = [trial for trial in point.trials if trial.status == "finished"]
    if not done:
        return None
    values = tuple(_number(trial.metrics.get(sweep.metric)) for trial in done)
    kl = [_number(trial.metrics.get("kl"), math.inf) for trial in done]
    if len(values) > 1:
        low, high = interval(values)
    else:
        low, high = (_number(done[0].metrics.get(f"{sweep.metric}{end}")) for end in ("_low", "_high"))
    missing = len(point.trials) - len(done)
    return Score(point, values, sum(values) / len(values), low, high, sum(kl) / len(kl), missing)


def _number(value: float | None, absent: float = math.nan) -> float:
    return absent if value is None else value


def check_metric(sweep: Sweep) -> None:
    """Raises SettingsError where runs have finished and none has the metric; points that lack it rank last."""
    done = [trial.metrics for trial in sweep.trials if trial.status == "finished"]
    if not done or any(sweep.metric in metrics for metrics in done):
        return
    known = [m for m in dict.fromkeys(itertools.chain(*done)) if not m.endswith(("_low", "_high")) and m != "rows"]
    remedy = f"Known: {', '.join(known)}." if known else "Nothing was validated: see data.validation_fraction."
    raise SettingsError(
        f'the runs have no validation metric "{sweep.metric}".{nearest(sweep.metric, known)}', remedy=remedy
    )


def cautions(sweep: Sweep) -> list[str]:
    """Why the ranking of this grid by this metric may mean little, one line each."""
    found = []
    searched = [short_key(key) for key in sweep.grid if key.startswith(("objective.", "conditioning."))]
    if searched and sweep.metric.endswith(("loss", "margin")):
        found.append(
            f"{sweep.metric} is not comparable over {', '.join(searched)}: each value makes another scale of the same "
            "policy. accuracy is."
        )
    rows = [short_key(key) for key in sweep.grid if key.startswith(("data.", "rendering."))]
    if rows:
        found.append(f"{', '.join(rows)} may change the validation rows too: such points are not judged on the same.")
    return found
