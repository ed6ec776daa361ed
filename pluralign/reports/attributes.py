"""An evaluation by attributes as one self-contained page: win rates, a radar chart, sensed scores, sweeps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..judging.attributes import MACRO
from ..judging.statistics import Estimate
from .charts import Chart
from .files import write_atomically
from .page import Table, render
from .radar import Profile, radar
from .steering_figures import Line, error_histogram, sweep

if TYPE_CHECKING:
    from ..judging.attributes import Row
    from ..judging.steered import AttributeEvaluation

__all__ = ["attribute_charts", "write_attributes"]

PROFILES = 7  # a radar chart with more cannot be read


def write_attributes(found: AttributeEvaluation, path: str | Path) -> Path:
    """The page of an evaluation, written all at once."""
    columns = (*found.names, *((MACRO,) if len(found.names) > 1 else ()))
    columns += ("difference",) if len(found.rows) > 1 else ()
    page = render(
        "attributes.html.j2",
        on=found.on,
        prompts=found.prompts,
        judges=list(found.judges.items()),
        rates=_table("win rate", columns, found.rows),
        means=_table("mean score", found.names, [{"scores": way, **row} for way, row in found.means.items()]),
        sensing=[
            Table(
                (f"sensed by {model}", "error", "one score for all", "better by", "R²", "near"),
                tuple((s.name, s.error, s.constant, s.gain, s.r2, s.near) for s in sensed.values()),
                "|s - s_hat| on a scale of 0 to 1; near: below 0.2",
            )
            for model, sensed in found.sensing.items()
        ],
        correlations=[
            (f"{one.attribute}, {model}", str(one.spearman)) for model, sweeps in found.sweeps.items() for one in sweeps
        ],
        charts=attribute_charts(found),
        notes=found.notes,
    )
    return write_atomically(Path(path), page)


def attribute_charts(found: AttributeEvaluation) -> list[Chart]:
    """The figures that there is something to draw for: a radar needs three attributes, and every one a rate."""
    out = []
    rates = [row for row in found.rows if any(_known(row.get(name)) for name in found.names)]
    if len(found.names) >= 3 and rates:
        profiles = [
            Profile(str(row["scores"]), {n: e for n in found.names if isinstance(e := row[n], Estimate)}, strong=i == 0)
            for i, row in enumerate(rates[:PROFILES])
        ]
        note = f"The first {PROFILES} of {len(rates)} rows." if len(rates) > PROFILES else ""
        svg = radar(profiles, names=found.names, key="radar", title="Win rates by attribute")
        out.append(Chart("Win rates by attribute", svg, note))
    for i, (model, sensed) in enumerate(found.sensing.items()):
        known = [s for s in sensed.values() if sum(s.histogram)]
        if known:
            title = f"Errors of sensed scores, {model}"
            out.append(Chart(title, error_histogram(known, key=f"sensed-{i}", title=title)))
    for i, (model, sweeps) in enumerate(found.sweeps.items()):
        for k, one in enumerate(sweeps):
            if any(_known(e) for e in one.means):
                title = f"{one.attribute}: asked for and given, {model}"
                line = Line(one.attribute, one.at, one.means)
                svg = sweep(
                    [line], setting="score asked for", unit="mean score given", key=f"sweep-{i}-{k}", title=title
                )
                out.append(Chart(title, svg, f"Rank correlation over all answers: {one.spearman}"))
    return out


def _known(value: Estimate | str | None) -> bool:
    return isinstance(value, Estimate) and value.value == value.value


def _table(head: str, columns: tuple[str, ...], rows: list[Row] | list[dict[str, str | Estimate]]) -> Table:
    return Table((head, *columns), tuple((row["scores"], *(row.get(name) for name in columns)) for row in rows))
