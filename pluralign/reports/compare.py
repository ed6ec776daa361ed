"""Runs side by side: which settings differ, where they ended, and their curves on the same axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import SettingsError
from ..judging.statistics import Estimate
from .charts import overlays
from .files import write_atomically
from .page import Table, render
from .runs import Evaluation, Run, read_run
from .wording import flatten, show, words

if TYPE_CHECKING:
    from rich.table import Table as RichTable

__all__ = ["Comparison", "compare", "comparison_table"]

FINAL = ("accuracy", "margin", "loss", "kl")
ABSENT = "–"
CAUTION = (
    "Intervals are of each run alone. "
    "Whether two runs differ is a question for the paired difference on the same items."
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Several runs as tables. `names` labels the columns; `notes` says why numbers may not be comparable."""

    names: tuple[str, ...]
    settings: tuple[tuple[str, tuple[str, ...]], ...]
    finals: tuple[tuple[str, tuple[Estimate | None, ...]], ...]
    notes: tuple[str, ...]


def compare(runs: Sequence[str | Path | Run], out: str | Path | None = None) -> Comparison:
    """Compare two or more runs (folders or `Run`s); with `out`, also write the comparison as one HTML page there.

    Raises SettingsError for fewer than two runs, and whatever `read_run` raises.
    """
    named = _named(runs)
    found = _comparison(named)
    if out is not None:
        page = render(
            "compare.html.j2",
            names=found.names,
            finals=_final_table(found),
            settings=[(key, *values) for key, values in found.settings],
            notes=(*found.notes, CAUTION),
            charts=overlays({name: _final_stage(run) for name, run in named.items()}),
            commands=[(name, run.info["command"]) for name, run in named.items() if run.info.get("command")],
        )
        write_atomically(Path(out), page)
    return found


def comparison_table(runs: Sequence[str | Path | Run]) -> RichTable:
    """The comparison for a terminal: final numbers with intervals, then the settings that differ."""
    from rich.table import Table as RichTable
    from rich.text import Text

    found = _comparison(_named(runs))
    table = RichTable(box=None, pad_edge=False, caption="\n".join((*found.notes, CAUTION)), caption_justify="left")
    for name in ("", *found.names):
        table.add_column(Text(name), overflow="fold")
    for label, estimates in found.finals:
        table.add_row(Text(label, style="bold"), *(Text(str_of(e)) for e in estimates))
    if found.settings:
        table.add_section()
        table.add_row(Text("settings that differ", style="dim"))
    for key, values in found.settings:
        table.add_row(Text(key), *(Text(value) for value in values))
    return table


def str_of(estimate: Estimate | None) -> str:
    """An estimate for a table cell; the sample size only where it is known."""
    if estimate is None:
        return ABSENT
    return str(estimate) if estimate.n else estimate.short()


def _named(runs: Sequence[str | Path | Run]) -> dict[str, Run]:
    """The runs under the shortest names that tell them apart."""
    if len(runs) < 2:
        raise SettingsError(f"a comparison needs at least two runs, found {len(runs)}.")
    read = [run if isinstance(run, Run) else read_run(run) for run in runs]
    names = [run.name for run in read]
    if len(set(names)) < len(names):
        names = [f"{run.path.resolve().parent.name}/{run.name}" for run in read]
    if len(set(names)) < len(names):
        names = [f"{name} ({i})" for i, name in enumerate(names, start=1)]
    return dict(zip(names, read, strict=True))


def _final_stage(run: Run) -> Run:
    """The stage whose settings and curves stand for a run: a pipeline's last."""
    return run if run.metrics or not run.parts else run.parts[-1]


def _evaluation_of(run: Run) -> Evaluation | None:
    return run.evaluation or _final_stage(run).evaluation


def _comparison(named: Mapping[str, Run]) -> Comparison:
    runs = list(named.values())
    return Comparison(tuple(named), _differences(runs), _finals(runs), _notes(runs))


def _differences(runs: Sequence[Run]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    columns = [_described(_final_stage(run)) for run in runs]
    keys = dict.fromkeys(key for column in columns for key in column)
    rows = [(key, tuple(show(c[key]) if key in c else ABSENT for c in columns)) for key in keys]
    return tuple((key, values) for key, values in rows if len(set(values)) > 1)


def _described(run: Run) -> dict[str, Any]:
    """Everything that could make two runs differ, under dotted names; not when, how long or under what command."""
    info, data = run.info, run.info.get("data") or {}
    found = {key: info[key] for key in ("recipe", "stage", "status", "seed") if key in info}
    found |= flatten({"model": info.get("model") or {}})
    found |= {
        f"data.{key}": data[key] for key in ("source", "format", "fingerprint", "train", "validation") if key in data
    }
    return found | flatten(info.get("settings") or {}) | flatten({"versions": info.get("versions") or {}})


def _finals(runs: Sequence[Run]) -> tuple[tuple[str, tuple[Estimate | None, ...]], ...]:
    """The evaluation's last row (the model that the run was for), then the last validation values."""
    evaluated = [e.rows[-1].values if (e := _evaluation_of(run)) is not None and e.rows else {} for run in runs]
    names = dict.fromkeys(name for values in evaluated for name in values)
    rows = [(f"{words(name)}, evaluation", tuple(values.get(name) for values in evaluated)) for name in names]
    for name in FINAL:
        last = tuple(_final_stage(run).last(name) for run in runs)
        if any(e is not None for e in last):
            rows.append((f"{words(name)}, last validation", last))
    return tuple(rows)


def _notes(runs: Sequence[Run]) -> tuple[str, ...]:
    notes = []
    evaluations = [_evaluation_of(run) for run in runs]
    if len({(e.on, e.judge) for e in evaluations if e is not None}) > 1:
        notes.append("The runs were evaluated on different items or by different judges.")
    prints = {(_final_stage(run).info.get("data") or {}).get("fingerprint") for run in runs}
    if len(prints) > 1:
        notes.append("The runs were trained on different data: their validation values are of different items.")
    return tuple(notes)


def _final_table(found: Comparison) -> Table:
    sizes = {e.n for _, estimates in found.finals for e in estimates if e is not None and e.n}
    caption = f"n = {next(iter(sizes)):,}" if len(sizes) == 1 else ""
    rows = tuple((label, *estimates) for label, estimates in found.finals)
    return Table(("", *found.names), rows, caption, shared_n=len(sizes) == 1)
