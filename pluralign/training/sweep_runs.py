"""Running a sweep: what is left of it, one run after another, and what is kept of each."""

from __future__ import annotations

import contextlib
import gc
import json
import math
import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import RecordError, SettingsError
from ..objectives import find
from ..terms import Plan
from .callbacks import Say
from .grid import plain, short_key
from .settings import Settings
from .sweep import Point, Score, Sweep, Trial, check_metric, finite, write

__all__ = ["Job", "command_of", "execute", "jobs", "locked", "prune", "rows_of", "steps_of"]

Job = tuple[Point, Trial, bool]  # the last: whether the run goes on from what its folder holds
LARGE = 100e6  # bytes of a file that is not read merely to count its rows


def jobs(sweep: Sweep, *, retry_failed: bool = False) -> list[Job]:
    """What is left to run, in the order of the grid."""
    left = ("pending", "interrupted", *(["failed"] if retry_failed else []))
    return [
        (point, trial, (sweep.folder / trial.folder / "run.json").is_file())
        for point in sweep.points
        for trial in point.trials
        if trial.status in left
    ]


def execute(
    sweep: Sweep,
    todo: list[Job],
    *,
    plan: Plan | None,
    say: Say,
    begins: Callable[[int, Point, Trial], None],
    ended: Callable[[Point, Trial], None],
) -> bool:
    """Run the jobs one after another; False where a person stopped it. A run that fails is recorded, and on it goes.

    Every run loads its own policy: full fine-tuning has changed the weights of the last one. A mistake in settings or
    data is raised as long as nothing has finished, because every other point would meet it as well; so is a metric
    that the first finished run does not have.
    """
    from .run import align

    for i, (point, trial, resume) in enumerate(todo):
        begins(i, point, trial)
        started, status, trial.error = time.time(), "interrupted", ""
        settings = sweep.made(point.values, trial.seed, trial.folder)
        try:
            done = align(settings, plan=plan, resume=resume, say=say, command=command_of(sweep, point, trial.seed))
            status = "finished" if done.status == "finished" else "interrupted"
            trial.metrics = finite(done.metrics)
            del done  # and with it the policy
        except (SettingsError, RecordError) as error:
            if not any(t.status == "finished" for t in sweep.trials):
                status = trial.status
                raise
            status, trial.error = "failed", _line(error)
        except Exception as error:
            status, trial.error = "failed", _line(error)
        finally:
            trial.status = status
            trial.seconds = round(trial.seconds + time.time() - started, 2)
            write(sweep)
            _free()
        ended(point, trial)
        if trial.status == "interrupted":
            return False
        check_metric(sweep)
    return True


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    kind = "" if hasattr(error, "exit_code") else f"{type(error).__name__}: "
    return f"{kind}{text}"[:500]


def _free() -> None:
    """Give the last run's memory back before the next one loads its model."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def command_of(sweep: Sweep, point: Point, seed: int, output: str | None = None) -> str:
    """The `pluralign align` that makes this run again."""
    words = ["pluralign", "align", sweep.source]
    names = {"model": "--model", "data.source": "--data"}
    for key, value in sweep.given.items():
        if key in names and key not in point.values:
            words += [names[key], str(value)]
    words += [word for word in sweep.overrides if word.partition("=")[0] != "seed"]
    words += [f"{short_key(key)}={plain(value)}" for key, value in point.values.items()]
    words += [f"seed={seed}"] if seed != Settings().seed or sweep.settings.get("seed") else []
    return shlex.join([*words, "--output", output or f"{sweep.folder}-best"])


def prune(sweep: Sweep, ranked: list[Score]) -> None:
    """Remove the weights and checkpoints of every whole point but the best; metrics and settings stay."""
    whole = [score.point for score in ranked if not score.missing]
    if os.environ.get("RANK", "0") != "0":
        return
    for point in whole[1:]:
        for trial in point.trials:
            for name in ("model", "checkpoints"):
                shutil.rmtree(sweep.folder / trial.folder / name, ignore_errors=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process (of those that write) a folder; the lock dies with it. Raises SettingsError where another has it."""
    if os.name != "posix" or os.environ.get("RANK", "0") != "0":
        yield
        return
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SettingsError(f"another process runs the sweep in {folder}.") from None
        yield


# How long it would be


def steps_of(settings: Settings, rows: int | None) -> int | None:
    """Optimiser steps of a run over so many training rows; None where they are not known."""
    t = settings.training
    if t.max_steps > 0:
        return t.max_steps
    if rows is None:
        return None
    return math.ceil(max(1, math.ceil(rows / t.batch_size)) * t.epochs)


def rows_of(settings: Settings, known: dict[str, int | None]) -> int | None:
    """Training rows, counted where the source is a file of moderate size; `known` keeps counts between calls.

    Rows that cannot be rendered are counted as well: a run may set them aside.
    """
    from .run import KINDS, load_data

    d = settings.data
    path = Path(d.source)
    if d.source != "embedded" and not (path.is_file() and (path.stat().st_size < LARGE or d.limit)):
        return None
    kind = KINDS[find(settings.objective.name).data]
    key = json.dumps([d.model_dump(), settings.seed, kind.__name__], sort_keys=True, default=str)
    if key not in known:
        with tempfile.TemporaryDirectory() as folder:
            known[key] = sum(1 for _ in load_data(settings, kind, Path(folder) / "quarantine.jsonl").train)
    return known[key]
