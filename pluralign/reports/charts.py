"""Which figures a run gets: what each panel shows, in which unit, and how to read it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

from ..judging.statistics import Estimate
from . import figures
from .figures import Bar, Curve
from .runs import Evaluation, EvaluationRow, Run, Series

__all__ = ["Chart", "Panel", "chart_of_groups", "chart_of_models", "charts", "headline", "other_charts", "overlays"]

DRAWN = 240  # points on a line; more are averaged, for a pixel holds no more
RAW = 60  # a train log longer than this is drawn as a faint line with its average on top
GROUPS_SHOWN = 16

HEADLINES = ("accuracy", "win_rate", "reward", "margin", "loss")
RISING = {"accuracy", "win_rate", "reward", "margin"}


@dataclass(frozen=True, slots=True)
class Panel:
    """One kind of figure. `keys` are the readings it overlays; the first panel that knows a reading owns it."""

    name: str
    title: str
    keys: tuple[str, ...]
    unit: str
    note: str = ""
    reference: float | None = None
    limits: tuple[float, float] | None = None
    from_zero: bool = False
    is_smoothed: bool = True


@dataclass(frozen=True, slots=True)
class Chart:
    """A finished figure: `svg` is safe to place in a page as it is."""

    title: str
    svg: str
    note: str = ""


class Frame(TypedDict):
    reference: float | None
    limits: tuple[float, float] | None


PANELS = (
    Panel("loss", "Loss", ("loss",), "mean per pair"),
    Panel(
        "accuracy",
        "Accuracy",
        ("accuracy",),
        "share of pairs with the chosen response ahead",
        "Dotted: chance.",
        reference=0.5,
        limits=(0, 1),
    ),
    Panel(
        "margin",
        "Margin",
        ("margin",),
        "nats, chosen minus rejected",
        "Dotted: policy and reference agree.",
        reference=0.0,
    ),
    Panel(
        "drift",
        "Log-probability drift",
        ("chosen_drift", "rejected_drift"),
        "nats, policy minus reference",
        "Below zero the response became less likely than under the reference. Both may fall while the margin grows.",
        reference=0.0,
    ),
    Panel("logp", "Log-probability", ("chosen_logp", "rejected_logp"), "nats per response"),
    Panel("kl", "KL to the reference", ("kl",), "nats", reference=0.0),
    Panel("length", "Length", ("chosen_length", "rejected_length", "response_length"), "tokens"),
    Panel(
        "sensing",
        "Sensed scores",
        ("sensing_error",),
        "mean absolute error, on the scale that is shown",
        "What the head makes of the prompt against the scores of the data.",
        from_zero=True,
    ),
    Panel("rating", "Rated scores", ("rating_error",), "mean absolute error, on the scale of the head", from_zero=True),
    Panel("learning_rate", "Learning rate", ("learning_rate",), "per update", from_zero=True, is_smoothed=False),
    Panel("grad_norm", "Gradient norm", ("grad_norm",), "L2 norm before clipping"),
    Panel("pairs_per_second", "Speed", ("pairs_per_second",), "pairs per second", from_zero=True),
    Panel("tokens_per_second", "Speed", ("tokens_per_second",), "tokens per second", from_zero=True),
)
UNITS = {"sft": {"loss": "nats per token"}}
OPTIMISER = {"learning_rate", "grad_norm", "pairs_per_second", "tokens_per_second"}


def charts(run: Run, prefix: str, *, optimiser: bool = False) -> list[Chart]:
    """The figures of one training run, without those of the optimiser, or (`optimiser`) these alone.

    `prefix` keeps the ids of several runs on one page apart.
    """
    chosen = [p for p in PANELS if (p.name in OPTIMISER) == optimiser]
    return [c for p in chosen if (c := _panel_chart(run, p, prefix)) is not None]


def other_charts(run: Run, prefix: str) -> list[Chart]:
    """One plain figure for every reading that no panel knows."""
    known = {key for p in PANELS for key in p.keys}
    extra = [name for name in run.names() if name not in known and name != "n"]
    panels = [Panel(f"other-{i}", name.replace("_", " "), (name,), "") for i, name in enumerate(extra)]
    return [c for p in panels if (c := _panel_chart(run, p, prefix)) is not None]


def overlays(runs: Mapping[str, Run]) -> list[Chart]:
    """One figure per reading with the same curve of every run: validation where all that log it have it."""
    found = []
    for panel in PANELS:
        for key in panel.keys:
            for phase in ("validation", "train"):
                series = {label: s for label, run in runs.items() if _is_drawable(s := run.series(key, phase))}
                if series:
                    break
            if len(series) < 2:
                continue
            lines = [_overlay(panel, i, len(runs), label, series.get(label)) for i, label in enumerate(runs)]
            word = key.partition("_")[0] if len(panel.keys) > 1 else ""
            title = f"{panel.title}, {word}" if word else panel.title
            note = f"{phase.capitalize()}. {panel.note}".strip()
            svg = figures.curves(
                [line for line in lines if line is not None],
                key=f"all-{key}",
                title=f"{title} over steps, by run",
                unit=panel.unit,
                reference=panel.reference,
                limits=panel.limits,
                from_zero=panel.from_zero,
            )
            found.append(Chart(title, svg, note))
    return found


def headline(evaluation: Evaluation) -> str:
    """The reading that leads: the best known name that any row has, else the first there is, else ""."""
    names = dict.fromkeys(name for row in evaluation.rows for name in row.values)
    return next((name for name in HEADLINES if name in names), next(iter(names), ""))


def chart_of_models(evaluation: Evaluation, name: str, key: str) -> Chart | None:
    """One bar per model for one reading."""
    rows = [row for row in evaluation.rows if name in row.values]
    if not rows:
        return None
    colours = model_colours([row.model for row in evaluation.rows])
    panel = _panel_of(name)
    bars = [Bar(row.model, row.values[name], colours[row.model]) for row in rows]
    title = panel.title if panel else name.replace("_", " ").capitalize()
    svg = figures.bars(bars, key=key, title=f"{title} by model", unit=_bar_unit(name), **_bar_frame(name, rows))
    return Chart(f"{title} by model", svg)


def chart_of_groups(evaluation: Evaluation, name: str, key: str) -> Chart | None:
    """Bars per group, the worst group of the last model first; the rest of a long list is in the table."""
    ordered = worst_first(evaluation, name)
    if not ordered:
        return None
    colours = model_colours([row.model for row in evaluation.rows])
    rows = [row for group in ordered for row in evaluation.groups[group]]
    bars = [
        Bar(
            row.model,
            row.values.get(name, Estimate(math.nan, math.nan, math.nan, 0)),
            colours.get(row.model, "s1"),
            _group_title(evaluation, name, group, is_worst=i == 0 and len(ordered) > 1),
            strong=i == 0,
        )
        for i, group in enumerate(ordered[:GROUPS_SHOWN])
        for row in evaluation.groups[group]
    ]
    title = f"{name.replace('_', ' ').capitalize()} by group"
    note = "Worst group of the last model first. The worst of several noisy numbers tends to look worse than it is."
    if len(ordered) > GROUPS_SHOWN:
        note += f" The {GROUPS_SHOWN} worst of {len(ordered)} groups; the table has them all."
    svg = figures.bars(bars, key=key, title=title, unit=_bar_unit(name), **_bar_frame(name, rows))
    return Chart(title, svg, note)


def _group_title(evaluation: Evaluation, name: str, group: str, *, is_worst: bool) -> str:
    sizes = {row.values[name].n for row in evaluation.groups[group] if name in row.values} - {0}
    known = f", n = {next(iter(sizes)):,}" if len(sizes) == 1 else ""
    return f"{figures.shorten(group, 24)}{' (worst)' if is_worst else ''}{known}"


def worst_first(evaluation: Evaluation, name: str) -> list[str]:
    """The groups ordered by the last model's value, the worst first; groups without one at the end."""

    def value(group: str) -> float:
        rows = [r for r in evaluation.groups[group] if name in r.values]
        x = rows[-1].values[name].value if rows else math.nan
        return math.inf if math.isnan(x) else (x if name in RISING else -x)

    return sorted((g for g in evaluation.groups if evaluation.groups[g]), key=lambda g: (value(g), g))


def model_colours(models: Sequence[str]) -> dict[str, str]:
    """The base is neutral, the last model (what the run was for) has the first accent, the rest follow."""
    names = list(dict.fromkeys(models))
    colours = {name: "s0" for name in names if name in ("base", "reference", "untrained")}
    rest = [name for name in names if name not in colours]
    accents = [figures.palette(i, len(rest))[0] for i in range(len(rest))]
    return colours | dict(zip(reversed(rest), accents, strict=True))


# ------------------------------------------------------------------------------------------------- internals


def _panel_of(name: str) -> Panel | None:
    return next((p for p in PANELS if name in p.keys), None)


def _bar_unit(name: str) -> str:
    panel = _panel_of(name)
    return panel.unit if panel else name.replace("_", " ")


def _bar_frame(name: str, rows: Sequence[EvaluationRow]) -> Frame:
    """Reference line and axis: a share runs from 0 to 1 with chance marked."""
    values = [row.values[name] for row in rows if name in row.values]
    if name in ("accuracy", "win_rate") and all(0 <= e.value <= 1 for e in values if math.isfinite(e.value)):
        return Frame(reference=0.5, limits=(0.0, 1.0))
    return Frame(reference=None, limits=None)


def _panel_chart(run: Run, panel: Panel, prefix: str) -> Chart | None:
    """A panel of one reading has train in grey behind validation; one of several readings has a colour for each,
    and train as thin lines of the same colours."""
    phases = [p for p in ("train", "validation") if any(_is_drawable(run.series(k, p)) for k in panel.keys)]
    keys = [k for k in panel.keys if any(_is_drawable(run.series(k, p)) for p in phases)]
    lines: list[Curve] = []
    several, average = len(keys) > 1, window(run) if panel.is_smoothed else 1
    for phase in phases:
        behind = phase == "train" and len(phases) > 1
        for i, key in enumerate(keys):
            series = run.series(key, phase)
            if not _is_drawable(series):
                continue
            label = phase if not several else "" if behind else key.partition("_")[0]
            curve = Curve(label, series, f"s{i + 1}" if several else "s0" if behind else "s1", i if several else 0)
            if phase == "validation":
                lines.append(replace(curve, series=thin(series), marked=len(series.steps) <= 40))
            else:
                lines += _train_lines(curve, average, thin_only=behind and several)
    if not lines:
        return None
    unit = UNITS.get(str(run.info.get("stage")), {}).get(panel.name, panel.unit)
    note = panel.note
    if several and len(phases) == 1:
        note = f"{note} {phases[0].capitalize()} values.".strip()
    svg = figures.curves(
        lines,
        key=f"{prefix}-{panel.name}",
        title=f"{panel.title} over steps",
        unit=unit,
        reference=panel.reference,
        limits=panel.limits,
        from_zero=panel.from_zero,
    )
    return Chart(panel.title, svg, note)


def _train_lines(curve: Curve, average: int, *, thin_only: bool) -> list[Curve]:
    """The line, or for a long log its average over the raw values."""
    smoothed = replace(curve, series=thin(smooth(curve.series, average)), faint=thin_only)
    if average == 1 or thin_only:
        return [smoothed]
    return [replace(curve, label="", series=thin(curve.series), dash=0, faint=True), smoothed]


def _overlay(panel: Panel, i: int, of: int, label: str, series: Series | None) -> Curve | None:
    if series is None:
        return None
    colour, dash = figures.palette(i, of)
    average = _window_of(len(series.steps)) if panel.is_smoothed else 1
    return Curve(label, thin(smooth(series, average)), colour, dash, marked=len(series.steps) <= 40)


def window(run: Run) -> int:
    """How many logged train steps one drawn average holds (1: the log is short and drawn as it is)."""
    return _window_of(sum(row.phase == "train" for row in run.metrics))


def _window_of(n: int) -> int:
    return max(3, n // 20) if n > RAW else 1


def smooth(series: Series, window: int) -> Series:
    """A centred moving average over `window` values, shorter at the ends; NaN and infinite values are left out."""
    if window < 2:
        return series
    reach = window // 2

    def average(values: Sequence[float], i: int) -> float:
        near = [x for x in values[max(0, i - reach) : i + reach + 1] if math.isfinite(x)]
        return sum(near) / len(near) if near else math.nan

    def column(values: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(average(values, i) for i in range(len(values)))

    return Series(series.steps, column(series.values), column(series.low), column(series.high))


def thin(series: Series, most: int = DRAWN) -> Series:
    """At most `most` points as they are: the ends, and the lowest and highest of every bucket, so no spike is lost."""
    n = len(series.steps)
    if n <= most:
        return series
    buckets = (most - 2) // 2
    kept = {0, n - 1}
    for b in range(buckets):
        places = [i for i in range(b * n // buckets, (b + 1) * n // buckets) if math.isfinite(series.values[i])]
        if places:
            kept |= {min(places, key=series.values.__getitem__), max(places, key=series.values.__getitem__)}
    steps, values, low, high = (
        tuple(column[i] for i in sorted(kept)) for column in (series.steps, series.values, series.low, series.high)
    )
    return Series(steps, values, low, high)  # type: ignore[arg-type]


def _is_drawable(series: Series) -> bool:
    return any(math.isfinite(x) for x in series.values)
