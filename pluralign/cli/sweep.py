"""`pluralign sweep`: a grid of runs, one after another, that can be stopped at any time, and their ranking."""

from __future__ import annotations

import contextlib
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import SettingsError, TrainingError
from .align import parse_words
from .console import Stopped, clock, console, is_first, note, print_json, quiet_libraries, warn

if TYPE_CHECKING:
    from rich.table import Table

    from ..judging.statistics import Estimate
    from ..training.sweep import Point, Score, Sweep, Trial
    from ..training.sweep_runs import Job

__all__ = ["EPILOG", "sweep"]

EPILOG = """\b
Examples:
  pluralign sweep inspo --data pairs.jsonl --model Qwen/Qwen3-0.6B          the recipe's own grid
  pluralign sweep dpo 'beta=[0.1,0.3]' 'learning_rate=[5e-7,1e-6]' --output runs/grid
  pluralign sweep simpo 'gamma=[0.3,0.5]' --seeds 0,1,2                     each point three times
  pluralign sweep dpo 'beta=[0.1,0.3]' --dry-run                            the points, and what each would cost
  pluralign sweep --resume runs/grid                                        go on where it stopped

\b
A list is an axis, several axes are every combination, anything else is a setting of all runs. Each run is an ordinary
run folder under --output, and runs share the readings of their reference. Ctrl-C or a crash at any time: the same
command goes on. More values or seeds in the same folder are added to it.
"""
CAUTION = "The best of several is flattered by the rows that picked it: judge it on others (`pluralign evaluate`)."
MODES = ("auto", "max", "min")
KEEP = ("all", "best")


def sweep(
    recipe: str | None = typer.Argument(None, help="A recipe (`pluralign recipes`) or a YAML file of settings."),
    settings: list[str] | None = typer.Argument(
        None, metavar="[KEY=VALUE | KEY=[V1,V2,...]]...", help="Settings of all runs, and the axes of the grid."
    ),
    model: str | None = typer.Option(None, help="Hub model, folder, run folder, or `embedded`."),
    data: str | None = typer.Option(None, help="File, folder or hub data set, or `embedded`."),
    output: str | None = typer.Option(None, help="Folder of the sweep (default: runs/sweep-RECIPE)."),
    metric: str | None = typer.Option(None, help="Validation metric that ranks (accuracy; of sft: nll_per_token)."),
    mode: str | None = typer.Option(None, help="Which end of it is best: auto, max or min."),
    seeds: str | None = typer.Option(None, metavar="0,1,2", help="Repeat each point with these seeds; ranks by means."),
    limit_runs: int | None = typer.Option(None, min=1, help="Stop after so many runs; the same command goes on."),
    keep: str = typer.Option("all", help="Weights and checkpoints that stay: all, or best (of the best point only)."),
    retry_failed: bool = typer.Option(False, "--retry-failed", help="Try runs that failed once more."),
    resume: str | None = typer.Option(None, metavar="FOLDER", help="Go on with a sweep that was stopped."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Print the points and what would run; train nothing."),
    as_json: bool = typer.Option(False, "--json", help="The ranking as JSON on stdout."),
) -> None:
    """Search a grid of settings; ranked by a validation metric."""
    source, words = parse_words([*([recipe] if recipe else []), *(settings or [])])
    for name, value, known in (("mode", mode or "auto", MODES), ("keep", keep, KEEP)):
        if value not in known:
            raise SettingsError(f'unknown {name} "{value}".', remedy=f"Known: {', '.join(known)}.")
    given = {key: value for key, value in (("model", model), ("data.source", data)) if value is not None}
    quiet_libraries()
    from ..training.sweep import add_seeds, check_metric, combine, read, reconcile, write
    from ..training.sweep_runs import jobs, locked

    if resume:
        if source or words or given or output:
            raise SettingsError("--resume takes no settings.", remedy="To add points, give the whole command again.")
        asked = _begun(Path(resume))
    else:
        asked = _asked(source, words, given, output)
    asked.metric, asked.mode = metric or asked.metric, mode or asked.mode
    repeats = _numbers(seeds) if seeds else asked.seeds
    with contextlib.nullcontext() if dry_run else locked(asked.folder):
        whole = asked if resume else combine(read(asked.folder), asked)
        add_seeds(whole, repeats)
        reconcile(whole)
        check_metric(whole)
        todo = jobs(whole, retry_failed=retry_failed)
        if dry_run:
            _show_plan(whole, todo, as_json)
            return
        write(whole)
        _run(whole, todo[:limit_runs], keep, as_json)
        _conclude(whole, as_json)


# What was asked for


def _asked(source: str | None, words: list[str], given: dict[str, Any], output: str | None) -> Sweep:
    """The sweep of a command line. Raises SettingsError for what cannot be searched, set or judged."""
    from ..api import settings_for
    from ..objectives import find
    from ..training.grid import axes_of, plain, split_axes
    from ..training.sweep import Sweep, expand

    if source is None:
        raise SettingsError(
            "which recipe?", remedy="For example: pluralign sweep dpo beta=[0.1,0.3] --data pairs.jsonl"
        )
    fixed, axes = split_axes(words)
    overrides = [word for key, word in fixed.items() if key != "output"]
    first = [f"{key}={plain(values[0])}" for key, values in axes.items() if key == "objective.name" and values]
    base, own = settings_for(source, given, [*fixed.values(), *first])
    if base.data.validation is None and not (base.data.validation_fraction and base.data.validation_rows):
        raise SettingsError("nothing is held out to rank by.", remedy="Set data.validation_fraction above 0.")
    grid = axes_of(axes, getattr(own, "grid", {}), [*fixed, *given], source)
    folder = Path(output or base.output or f"runs/sweep-{base.recipe}")
    imitates = find(base.objective.name).data == "demonstrations"
    metric = "nll_per_token" if imitates else "accuracy"
    made = Sweep(folder, source, given, overrides, base.model_dump(mode="json"), grid, metric, seeds=[base.seed])
    expand(made)  # a point that cannot be is found before there is a folder
    return made


def _begun(folder: Path) -> Sweep:
    """The sweep of a folder. Raises SettingsError where it holds none."""
    from ..training.sweep import read

    found = read(folder)
    if found is None:
        raise SettingsError(f"{folder} is no folder of a sweep: it has no sweep.json.")
    return found


def _numbers(text: str) -> list[int]:
    try:
        return list(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise SettingsError(f'--seeds {text}: expected whole numbers, for example "0,1,2".') from None


# Running


def _run(sweep: Sweep, todo: list[Job], keep: str, as_json: bool) -> None:
    """The runs, each under its own headline. Raises Stopped after Ctrl-C."""
    from ..objectives import find
    from ..recipes import recipes
    from ..training.sweep import cautions
    from ..training.sweep_runs import execute, prune
    from .progress import Progress

    for text in cautions(sweep):
        warn(text)
    imitates = find(sweep.settings["objective"]["name"]).data == "demonstrations"
    say = Progress(noun="responses" if imitates else "pairs", err=as_json)
    own = recipes().get(sweep.settings["recipe"])
    ends = time.time()

    def begins(i: int, point: Point, trial: Trial) -> None:
        nonlocal ends
        ends = time.time()
        say.brief = i > 0  # data and model are those of the first
        seed = f"  seed {trial.seed}" if len(sweep.seeds) > 1 else ""
        text = f"[{i + 1}/{len(todo)}] {point.name}{seed}{_left(sweep, len(todo) - i)}"
        if is_first():
            say.console.print(text, markup=False, style="bold")

    def ended(point: Point, trial: Trial) -> None:
        if trial.status == "failed":
            warn(f"{trial.folder} failed: {trial.error}")
        elif trial.status == "finished":
            say.line("  took", clock(time.time() - ends))
        if keep == "best":
            prune(sweep, _ranked(sweep))

    try:
        whole = execute(sweep, todo, plan=own.plan if own else None, say=say, begins=begins, ended=ended)
    except KeyboardInterrupt:  # outside of a run's own steps, which listen for it themselves
        whole = False
    if not whole:
        done = sum(trial.status == "finished" for trial in sweep.trials)
        again = f"pluralign sweep --resume {shlex.quote(str(sweep.folder))}{' --keep best' if keep == 'best' else ''}"
        raise Stopped(f"stopped with {done} of {len(sweep.trials)} runs finished. Resume with: {again}")


def _left(sweep: Sweep, runs: int) -> str:
    seconds = [trial.seconds for trial in sweep.trials if trial.status == "finished"]
    return f"  about {clock(runs * sum(seconds) / len(seconds))} left" if seconds else ""


def _ranked(sweep: Sweep) -> list[Score]:
    from ..judging.statistics import mean_interval
    from ..training.sweep import scores

    def interval(values: Any) -> tuple[float, float]:
        found = mean_interval(list(values))
        return found.low, found.high

    return scores(sweep, interval)


# What is said of it


def _show_plan(sweep: Sweep, todo: list[Job], as_json: bool) -> None:
    """The points, where they stand and how many optimiser steps are left, without training any."""
    from ..training.sweep import cautions
    from ..training.sweep_runs import rows_of, steps_of

    known: dict[str, int | None] = {}
    waiting = {id(trial) for _, trial, _ in todo}
    rows, total = [], 0
    for point in sweep.points:
        made = sweep.made(point.values, point.trials[0].seed)
        steps = steps_of(made, rows_of(made, known) if made.training.max_steps <= 0 else None)
        own = [trial for trial in point.trials if id(trial) in waiting]
        total += (steps or 0) * len(own)
        states = ", ".join(dict.fromkeys(trial.status for trial in point.trials))
        rows.append((point, states, len(own), steps))
    if as_json:
        points = [{"name": p.name, "values": p.values, "status": s, "runs": n, "steps": k} for p, s, n, k in rows]
        print_json({"folder": sweep.folder, "points": points, "runs": len(todo), "steps": total})
        return
    lines = [[f"{p.number:03d}", *_values(sweep, p), s, str(n), f"{k:,}" if k else "?"] for p, s, n, k in rows]
    console().print(_table(["point", *_axes(sweep), "status", "runs", "steps"], lines))
    unknown = "" if all(k for *_, k in rows) else " and what cannot be known before"
    print(f"\n{len(todo)} runs to go, {total:,} optimiser steps{unknown}; nothing was run.")
    for text in cautions(sweep):
        warn(text)


def _conclude(sweep: Sweep, as_json: bool) -> None:
    """The ranking on the terminal and in sweep.md. Raises TrainingError where every run failed."""
    from ..training.sweep_runs import command_of

    ranked = _ranked(sweep)
    failed = [trial for trial in sweep.trials if trial.status == "failed"]
    left = sum(trial.status in ("pending", "interrupted") for trial in sweep.trials)
    if not ranked and failed:
        raise TrainingError(f"no run finished; the first one failed with: {failed[0].error}")
    best = ranked[0] if ranked else None
    command = command_of(sweep, best.point, best.point.trials[0].seed) if best else ""
    if is_first():
        (sweep.folder / "sweep.md").write_text(_page(sweep, ranked, failed, left, command), "utf-8")
    if as_json:
        print_json({
            "folder": sweep.folder, "metric": sweep.metric, "finished": sum(len(s.values) for s in ranked),
            "failed": {trial.folder: trial.error for trial in failed}, "left": left, "command": command,
            "points": [_as_dict(sweep, score) for score in ranked],
        })  # fmt: skip
        return
    if not is_first():
        return
    out = console()
    out.print()
    out.print(_table(_head(sweep), _rows(sweep, ranked)))
    for text in _remarks(sweep, failed, left):
        note(text)
    if best:
        out.print(f"\nbest      {best.point.name}  {sweep.metric} {_estimate(best).short()}", markup=False)
        out.print(f"again     {command}", markup=False)
    out.print(f"written   {sweep.folder / 'sweep.md'}", markup=False)


def _remarks(sweep: Sweep, failed: list[Trial], left: int) -> list[str]:
    lines = [f"{trial.folder} failed: {trial.error}" for trial in failed]
    lines += [f"{left} of {len(sweep.trials)} runs are left: the same command goes on."] if left else []
    return [*lines, CAUTION] if len(sweep.points) > 1 else lines


def _page(sweep: Sweep, ranked: list[Score], failed: list[Trial], left: int, command: str) -> str:
    """sweep.md: the ranking, what failed, and the best point's command."""
    from ..training.sweep import cautions

    cells = [_head(sweep), ["---"] * len(_head(sweep)), *_rows(sweep, ranked)]
    lines = [f"# Sweep of {sweep.source} by {sweep.metric}", ""]
    lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in cells]
    several = f"Means over the seeds {', '.join(map(str, sweep.seeds))} with 95 % t intervals over them."
    one = "95 % intervals over the validation rows of each run."
    lines += ["", several if len(sweep.seeds) > 1 else one, *cautions(sweep), *_remarks(sweep, failed, left)]
    return "\n".join([*lines, "", *(["The best point again:", "", f"    {command}"] if command else []), ""])


def _head(sweep: Sweep) -> list[str]:
    seeds = ["seeds"] if len(sweep.seeds) > 1 else []
    return ["", *_axes(sweep), sweep.metric, "kl", *seeds, "time", "run"]


def _rows(sweep: Sweep, ranked: list[Score]) -> list[list[str]]:
    from ..judging.statistics import format_number

    rows = []
    for i, score in enumerate(ranked):
        kl = format_number(score.kl, 3) if score.kl != float("inf") else "–"
        seeds = [f"{len(score.values)}/{len(score.values) + score.missing}"] if len(sweep.seeds) > 1 else []
        seconds = sum(trial.seconds for trial in score.point.trials)
        rank = "best" if i == 0 else str(i + 1)
        rows.append([rank, *_values(sweep, score.point), _estimate(score).short(), kl, *seeds, clock(seconds),
                     f"{score.point.number:03d}"])  # fmt: skip
    return rows


def _axes(sweep: Sweep) -> list[str]:
    from ..training.grid import short_key

    return [short_key(key) for key in sweep.grid]


def _values(sweep: Sweep, point: Point) -> list[str]:
    from ..training.grid import plain

    return [plain(point.values[key]) if key in point.values else "–" for key in sweep.grid]


def _estimate(score: Score) -> Estimate:
    from ..judging.statistics import Estimate

    rows = [trial.metrics.get("rows") for trial in score.point.trials if trial.status == "finished"]
    n = len(rows) if len(rows) > 1 else int(rows[0] or 0)
    return Estimate(score.mean, score.low, score.high, n)


def _as_dict(sweep: Sweep, score: Score) -> dict[str, Any]:
    folders = [str(sweep.folder / trial.folder) for trial in score.point.trials if trial.status == "finished"]
    estimate = _estimate(score).as_dict()
    return {"values": score.point.values, sweep.metric: estimate, "missing": score.missing, "runs": folders}


def _table(head: list[str], rows: list[list[str]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in head:
        table.add_column(Text(name), overflow="fold")
    for i, row in enumerate(rows):
        table.add_row(*map(Text, row), style="bold" if row[0] == "best" and i == 0 else "")
    return table
