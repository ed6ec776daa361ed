"""An evaluation: rows of every system, the figures that are made of them, and what two systems differ by.

Everything that is shown follows from the rows; `rescored` makes it anew from a folder, without a model or a judge.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import SettingsError
from ...judging.lines import read_lines
from .core import Benchmark, Metric, Row

if TYPE_CHECKING:
    from ...judging.statistics import Estimate

__all__ = [
    "Evaluation",
    "evaluation_of",
    "figures",
    "headline",
    "no_value",
    "read_baseline",
    "read_rows_of",
    "write_rows",
]

ITEMS = "items.jsonl"
RESULT = "evaluation.json"
BASELINE = "baseline"


@dataclass
class Evaluation:
    """Figures by system: `figures` of all rows, `groups` of the headline by category, `differences` from the baseline
    (paired over the questions that both have). `failed` counts rows without a figure, by reason."""

    benchmark: str
    on: str
    figures: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    groups: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    differences: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    against: str = ""
    failed: dict[str, dict[str, int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""

        def plain(table: Mapping[str, Mapping[str, Estimate]]) -> dict[str, Any]:
            return {name: {key: e.as_dict() for key, e in row.items()} for name, row in table.items()}

        return {
            "benchmark": self.benchmark,
            "on": self.on,
            "figures": plain(self.figures),
            "groups": plain(self.groups),
            **({"differences": plain(self.differences), "against": self.against} if self.differences else {}),
            "failed": self.failed,
            "notes": self.notes,
        }


def evaluation_of(
    benchmark: Benchmark,
    rows: Mapping[str, Sequence[Row]],
    settings: Mapping[str, Any],
    *,
    baseline: tuple[str, Sequence[Row]] | None = None,
    on: str = "",
) -> Evaluation:
    """The figures of rows by system. Differences are against `baseline`, or else the first of several systems."""
    out = Evaluation(benchmark.name, on)
    names = list(rows)
    if baseline is None and len(names) > 1:
        baseline = (names[0], rows[names[0]])
    for name, own in rows.items():
        out.figures[name] = figures(benchmark.metrics, own)
        if benchmark.extra is not None:
            out.figures[name] |= benchmark.extra(own, settings)
        first = headline(benchmark.metrics, own)
        out.groups[name] = _groups(first, own)
        out.failed[name] = _failed(first, own)
        if baseline is not None and name != baseline[0]:
            out.differences[name] = _differences(benchmark.metrics, own, baseline[1])
    if out.differences and baseline is not None:
        out.against = baseline[0]
    return out


def figures(metrics: Sequence[Metric], rows: Sequence[Row]) -> dict[str, Estimate]:
    """Every metric of some rows; those that no row has are left out, but for the headline."""
    first = headline(metrics, rows)
    found = {metric.name: _estimate(metric, rows) for metric in metrics}
    return {name: e for name, e in found.items() if e.n or name == first.name}


def headline(metrics: Sequence[Metric], rows: Sequence[Row]) -> Metric:
    """The first metric that some row has a value of: a benchmark may be run in more than one way."""
    return next((m for m in metrics if any(m.value(row) is not None for row in rows)), metrics[0])


def no_value(why: str, missing: int) -> Estimate:
    """A figure that cannot be had, and why (as its method)."""
    from ...judging.statistics import Estimate

    return Estimate(math.nan, math.nan, math.nan, 0, method=f"none: {why}", missing=missing)


def _estimate(metric: Metric, rows: Sequence[Row]) -> Estimate:
    from ...judging.statistics import mean_interval, share_interval
    from ...judging.win_rates import win_rate

    values = [metric.value(row) for row in rows]
    clusters = _clusters(rows)
    if metric.kind == "wins":
        return win_rate(values, clusters=clusters).rate
    if metric.kind == "share" and clusters is None:
        return share_interval(values)
    found = mean_interval(values, clusters=clusters)
    if metric.kind == "share" and found.has_interval:  # a share's interval ends at 0 and 1
        return replace(found, low=max(0.0, found.low), high=min(1.0, found.high))
    return found


def _clusters(rows: Sequence[Row]) -> list[str] | None:
    """Labels of rows that belong together; None where every row stands alone."""
    labels = [str(row.get("cluster") or row["id"]) for row in rows]
    return labels if len(set(labels)) < len(labels) else None


def _groups(metric: Metric, rows: Sequence[Row]) -> dict[str, Estimate]:
    parts: dict[str, list[Row]] = {}
    for row in rows:
        parts.setdefault(str(row.get("category") or ""), []).append(row)
    return {name: _estimate(metric, part) for name, part in parts.items()} if len(parts) > 1 else {}


def _failed(metric: Metric, rows: Sequence[Row]) -> dict[str, int]:
    """Why rows have no figure, and how many."""
    out: dict[str, int] = {}
    for row in rows:
        if metric.value(row) is None:
            reason = str(row.get("failed") or "the judge's words could not be read")
            out[reason] = out.get(reason, 0) + 1
    return out


def _differences(metrics: Sequence[Metric], own: Sequence[Row], other: Sequence[Row]) -> dict[str, Estimate]:
    """own - other on the questions that both have, by metric."""
    from ...judging.statistics import paired_difference

    known = {str(row["id"]): row for row in other}
    both = [(row, known[str(row["id"])]) for row in own if str(row["id"]) in known]
    out: dict[str, Estimate] = {}
    for metric in metrics:
        found = paired_difference(
            [metric.value(row) for row, _ in both],
            [metric.value(row) for _, row in both],
            clusters=_clusters([row for row, _ in both]),
        )
        if found.n:
            out[metric.name] = found
    return out


# Folders


def write_rows(folder: Path, rows: Mapping[str, Sequence[Row]]) -> None:
    """items.jsonl, all at once."""
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f".{ITEMS}.unfinished"
    with unfinished.open("w", encoding="utf-8") as file:
        for own in rows.values():
            for row in own:
                file.write(json.dumps(_finite(row), ensure_ascii=False) + "\n")
    unfinished.replace(folder / ITEMS)


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value


def read_rows_of(folder: Path) -> dict[str, list[Row]]:
    """The rows of an evaluation's folder by system. Raises SettingsError where it is none."""
    out: dict[str, list[Row]] = {}
    for row in read_lines(folder / ITEMS, ("system", "id")):
        out.setdefault(str(row["system"]), []).append(row)
    if not out:
        raise SettingsError(f"{folder}: no evaluation in this folder.", remedy="It needs items.jsonl of --output.")
    return out


def read_baseline(folder: Path, name: str, benchmark: Benchmark, judge_key: str) -> tuple[str, list[Row]]:
    """(name, rows) of the system in an evaluation's folder: the one called `name`, or the only one.

    Raises SettingsError where there are several, and where it is another benchmark's or another judge's.
    """
    from .manifest import read_manifest

    kept = read_manifest(folder)
    if kept.get("benchmark") != benchmark.name:
        raise SettingsError(f'{folder} is an evaluation by "{kept.get("benchmark")}", not by "{benchmark.name}".')
    theirs = (kept.get("judge") or {}).get("key", "")
    if theirs != judge_key:
        raise SettingsError(
            f"{folder} was judged by another judge ({(kept.get('judge') or {}).get('name', 'none')}).",
            remedy="Only figures of one judge can be held against each other.",
        )
    rows = read_rows_of(folder)
    if name not in rows and len(rows) > 1:
        raise SettingsError(f"{folder} has several systems: {', '.join(rows)}.", remedy="Name one: NAME=FOLDER.")
    found = name if name in rows else next(iter(rows))
    return found, rows[found]
