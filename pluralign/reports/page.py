"""One self-contained HTML page per run: what came of it, how it went, what went in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..judging.statistics import Estimate
from .charts import (
    Chart,
    chart_of_groups,
    chart_of_models,
    charts,
    headline,
    model_colours,
    other_charts,
    window,
    worst_first,
)
from .files import write_atomically
from .runs import Evaluation, EvaluationRow, Run, read_run
from .wording import details, duration, flatten, magnitude, moment, short, show, spaced, words

if TYPE_CHECKING:
    import jinja2

__all__ = ["Table", "page", "render", "report"]

SAMPLES_OPEN, SAMPLES_SHOWN = 4, 40
MISSING = object()


@dataclass(frozen=True, slots=True)
class Card:
    """One headline number."""

    label: str
    value: str
    detail: str
    colour: str = "muted"


@dataclass(frozen=True, slots=True)
class Table:
    """Cells are text or estimates; the first column names the row."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str | Estimate | None, ...], ...]
    caption: str = ""
    shared_n: bool = False


@dataclass(frozen=True, slots=True)
class Results:
    """An evaluation, ready to be laid out."""

    of: str
    caption: str
    cards: tuple[Card, ...]
    charts: tuple[Chart, ...]
    table: Table
    groups: Table | None


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts by reason; `total` is what they are a share of (0: of nothing that is known)."""

    title: str
    unit: str
    by_reason: Mapping[str, int]
    total: int


@dataclass(frozen=True, slots=True)
class DataView:
    """The data of one or more stages, ready to be laid out."""

    of: str
    rows: tuple[tuple[str, str], ...]
    counts: tuple[Counts, ...]


@dataclass(frozen=True, slots=True)
class Stage:
    """One training run, ready to be laid out."""

    run: Run
    title: str
    anchor: str
    facts: tuple[str, ...]
    is_trained: bool
    note: str
    charts: tuple[Chart, ...]
    optimiser: tuple[Chart, ...]
    others: tuple[Chart, ...]
    changed: tuple[tuple[str, str, str], ...]
    settings: tuple[tuple[str, str], ...]
    has_defaults: bool
    origin: tuple[tuple[str, str], ...]


def report(run_dir: str | Path) -> Path:
    """Write `report.html` into the run folder, all at once, and return its path.

    The page needs no network and no script. The same files give the same bytes. Raises SettingsError where the
    folder is no run, RecordError (file and line) where one of its files is malformed.
    """
    run = read_run(run_dir)
    return write_atomically(run.path / "report.html", page(run))


def page(run: Run) -> str:
    """The report of a run as HTML text."""
    stages = tuple(_stage(stage, i, run) for i, stage in enumerate((run, *run.parts)))
    results = tuple(_results(r, f"e{i}", run) for i, r in enumerate((run, *run.parts)) if r.evaluation is not None)
    first = run.info or (run.parts[-1].info if run.parts else {})
    return render(
        "report.html.j2",
        run=run,
        title=f"{first.get('recipe') or run.name}",
        status=first.get("status", ""),
        created=moment(run.info.get("created")),
        facts=_facts(run),
        stages=stages,
        results=results,
        cards=results[0].cards if results else _last_cards(run),
        samples=[(r, r.samples[:SAMPLES_SHOWN]) for r in (run, *run.parts) if r.samples],
        samples_open=SAMPLES_OPEN,
        data=_data(run),
        notes=[f"{r.name}: {note}" if r is not run else note for r in (run, *run.parts) for note in r.notes],
    )


def render(template: str, **values: Any) -> str:
    """A template of this folder with every value escaped. Our own figures and style sheet are the only exceptions."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> jinja2.Environment:
    import jinja2
    from markupsafe import Markup

    here = files(__package__)
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: here.joinpath(name).read_text("utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["style"] = Markup(here.joinpath("page.css").read_text("utf-8"))
    environment.filters.update(count=lambda n: f"{n:,}", short=short, details=details, figure=Markup, spaced=spaced)
    return environment


# -------------------------------------------------------------------------------------------------- results


def _results(run: Run, key: str, top: Run) -> Results:
    evaluation = run.evaluation
    assert evaluation is not None
    name = headline(evaluation)
    found = [chart_of_models(evaluation, name, f"{key}-models"), chart_of_groups(evaluation, name, f"{key}-groups")]
    on = [f"on {evaluation.on}" if evaluation.on else "", f"judged by {evaluation.judge}" if evaluation.judge else ""]
    return Results(
        of="" if run is top else run.name,
        caption=", ".join(filter(None, on)),
        cards=_evaluation_cards(evaluation, name),
        charts=tuple(chart for chart in found if chart is not None),
        table=_table(("model",), [((row.model,), row) for row in evaluation.rows]),
        groups=_group_table(evaluation, name),
    )


def _evaluation_cards(evaluation: Evaluation, name: str) -> tuple[Card, ...]:
    rows = [row for row in evaluation.rows if name in row.values]
    label, colours = words(name), model_colours([row.model for row in evaluation.rows])
    cards = [
        Card(f"{row.model}: {label}", short(e := row.values[name]), details(e), colours[row.model]) for row in rows
    ]
    worst = worst_first(evaluation, name)
    if len(worst) > 1:
        row = next((r for r in reversed(evaluation.groups[worst[0]]) if name in r.values), None)
        if row is not None:
            e = row.values[name]
            cards.append(Card(f"worst of {len(worst)} groups", short(e), f"{worst[0]}, {row.model}, {details(e)}"))
    return tuple(cards)


def _last_cards(run: Run) -> tuple[Card, ...]:
    """Without an evaluation the last validation values lead."""
    cards = []
    for stage in run.stages:
        for name in ("accuracy", "margin", "loss"):
            e = stage.last(name)
            if e is not None:
                step = max(r.step for r in stage.metrics if r.phase == "validation" and name in r.numbers)
                where = f"{stage.name}: " if run.parts else ""
                detail = ", ".join(filter(None, [f"validation, step {step:,}", details(e)]))
                cards.append(Card(f"{where}{name}", short(e), detail))
    return tuple(cards)


def _group_table(evaluation: Evaluation, name: str) -> Table | None:
    ordered = worst_first(evaluation, name)
    entries = [((group, row.model), row) for group in ordered for row in evaluation.groups[group]]
    return _table(("group", "model"), entries) if entries else None


def _table(heads: tuple[str, ...], entries: Sequence[tuple[tuple[str, ...], EvaluationRow]]) -> Table:
    rows = [row for _, row in entries]
    names = list(dict.fromkeys(name for row in rows for name in row.values))
    remarks = list(dict.fromkeys(name for row in rows for name in row.remarks))
    estimates = [e for row in rows for e in row.values.values() if e.n]
    sizes, levels = {e.n for e in estimates}, {e.level for e in estimates if e.has_interval}
    caption = [f"{next(iter(levels)) * 100:g} % intervals"] if len(levels) == 1 else []
    if len(sizes) == 1:
        caption.append(f"n = {next(iter(sizes)):,}")
    methods = sorted({e.method for e in estimates if e.method})
    if methods:
        caption.append("; ".join(methods))
    return Table(
        columns=(*heads, *map(words, names), *map(words, remarks)),
        rows=tuple(
            (*labels, *(row.values.get(n) for n in names), *(row.remarks.get(n, "") for n in remarks))
            for labels, row in entries
        ),
        caption=", ".join(caption),
        shared_n=len(sizes) == 1,
    )


# --------------------------------------------------------------------------------------------------- stages


def _stage(run: Run, i: int, top: Run) -> Stage:
    info, prefix = run.info, f"r{i}"
    settings, defaults = flatten(info.get("settings") or {}), flatten(info.get("defaults") or {})
    changed = tuple(
        (key, show(value), show(defaults[key]) if key in defaults else "not a default")
        for key, value in settings.items()
        if defaults and value != defaults.get(key, MISSING)
    )
    rest = {key: value for key, value in settings.items() if key not in {row[0] for row in changed}}
    return Stage(
        run=run,
        title=run.name if top.parts else "",
        anchor=f"stage-{i}",
        facts=tuple(fact for fact in _facts(run) if run is top or fact not in _facts(top)),
        is_trained=run in top.stages,
        note=_legend(run),
        charts=tuple(charts(run, prefix)),
        optimiser=tuple(charts(run, prefix, optimiser=True)),
        others=tuple(other_charts(run, prefix)),
        changed=changed,
        settings=tuple((key, show(value)) for key, value in rest.items()),
        has_defaults=bool(defaults),
        origin=tuple(row for row in _origin(info) if run is top or row not in _origin(top.info)),
    )


def _legend(run: Run) -> str:
    """How to read the curves of a run, said once."""
    phases = {row.phase for row in run.metrics}
    average = f"averaged over {window(run)} logged steps" if window(run) > 1 else ""
    if phases == {"train"}:
        return f"Train values, {average}; behind them the raw ones." if average else ""
    if "train" not in phases:
        return ""
    shaded = " Shaded: the interval of the validation value." if any("_low" in n for n in _all_names(run)) else ""
    return f"Grey or thin: train{f', {average}' if average else ''}. Marked lines: validation.{shaded}"


def _all_names(run: Run) -> set[str]:
    return {name for row in run.metrics for name in row.numbers}


def _origin(info: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Recipe, stage, model, seed, fingerprint and versions as (name, value), and whatever else the run wrote down."""
    shown = ("command", "settings", "defaults", "data", "status", "model", "versions")
    model = info.get("model")
    found = {k: v for k, v in info.items() if k not in shown and v is not None}
    found |= {f"model.{k}": v for k, v in flatten(model).items()} if isinstance(model, Mapping) else {"model": model}
    data = info.get("data") or {}
    if data.get("fingerprint"):
        found["data fingerprint"] = data["fingerprint"]
    found |= {f"{k} (version)": v for k, v in flatten(info.get("versions") or {}).items()}
    return tuple((key, show(value)) for key, value in found.items() if value is not None)


def _facts(run: Run) -> tuple[str, ...]:
    info, data = run.info, run.info.get("data") or {}
    aside = sum((data.get("set_aside") or {}).values())
    facts = [
        f"model {name}" if (name := _model_name(info.get("model"))) else "",
        f"{data['train']:,} rows for training" if data.get("train") is not None else "",
        f"{data['validation']:,} held out" if data.get("validation") is not None else "",
        f"{aside:,} set aside" if aside else "",
        duration(info["seconds"]) if info.get("seconds") is not None else "",
        f"{magnitude(info['tokens'])} tokens" if info.get("tokens") is not None else "",
        f"seed {info['seed']}" if info.get("seed") is not None else "",
    ]
    return tuple(fact for fact in facts if fact)


def _model_name(model: Any) -> str:
    if isinstance(model, Mapping):
        return str(model.get("name") or model.get("path") or "")
    return str(model or "")


def _data(run: Run) -> list[DataView]:
    """What went in, with the same data said once."""
    found: list[tuple[list[str], Mapping[str, Any]]] = []
    for part in (run, *run.parts):
        data = part.info.get("data")
        if not data:
            continue
        same = next((names for names, other in found if other == data), None)
        if same is not None:
            same.append(part.name)
        else:
            found.append(([part.name], data))
    return [_data_view(", ".join(names) if len(found) > 1 else "", data) for names, data in found]


def _data_view(of: str, data: Mapping[str, Any]) -> DataView:
    names = {"train": "training", "validation": "held out"}
    tables = [("set_aside", "Set aside", "rows"), ("truncated", "Truncated", "count")]
    known = {key for key, _, _ in tables}
    rows = [
        (names.get(k, words(k)), f"{v:,}" if isinstance(v, int) and not isinstance(v, bool) else show(v))
        for k, v in data.items()
        if k not in known and v is not None
    ]
    aside = data.get("set_aside")
    if aside is not None:
        rows.append(("set aside", f"{sum(aside.values()):,}"))
    total = (data.get("train") or 0) + (data.get("validation") or 0) + sum((aside or {}).values())
    counts = tuple(
        Counts(title, unit, data[key], total if key == "set_aside" else 0)
        for key, title, unit in tables
        if data.get(key)
    )
    return DataView(of, tuple(rows), counts)
