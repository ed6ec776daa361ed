"""Figures of docs/studies/sga.md. See sga.py."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import numpy as np
from sga_data import NAMES
from sga_numbers import (
    LEVELS,
    Facts,
    Rows,
    by_lambda,
    fronts,
    pick,
    rated,
    rates,
    sensing,
    settings_of,
    steerable,
    steered,
)

from pluralign.judging.attributes import MACRO
from pluralign.judging.statistics import mean_interval
from pluralign.reports.steering_figures import Line, Profile, error_histogram, front, radar, sweep

__all__ = ["draw"]

FIGURES = Path(__file__).parent.parent / "figures"


def draw(rows: Rows, facts: Facts) -> None:
    made: dict[str, str] = {}
    order = [(t, s, c) for t, s, c in settings_of(rows) if s in ("plain", "sensed", "mean")][:7]
    profiles = [Profile(t, rates(c, s, "truth", facts), t.startswith("SGA_SFT")) for t, s, c in order]
    if profiles:
        made["radar"] = radar(profiles, names=NAMES, key="sga-radar", title="Win rates by attribute")
    if cells := pick(rows, "SGA_SFT"):
        made["errors"] = error_histogram(
            list(sensing(cells, facts).values()), key="sga-errors", title="Errors of sensing"
        )
    if cells := pick(rows, "just_eval"):
        made["rated"] = error_histogram(list(rated(cells).values()), key="sga-rated", title="Errors, rated data")
    swept = {v: c for v, c in by_lambda(rows, facts).items() if c and v > 0}
    if len(swept) > 1:
        lines = [Line(label, list(swept), [rates(c, "sensed", by, facts)[MACRO] for c in swept.values()])
                 for label, by in (("measured", "truth"), ("judged", "judge"))]  # fmt: skip
        made["lambda"] = sweep(
            lines, setting="lambda", unit="win rate, macro average", key="sga-lambda", title="lambda"
        )
    if steerable(rows):
        made["steering"] = _steering_figure(rows)
    if found := fronts(rows, facts):
        made["front"] = front({n: report for n, (_, report) in found.items()}, key="sga-front", title="Fronts")
    for name, svg in made.items():
        (FIGURES / f"sga_{name}.svg").write_text(standalone(svg), "utf-8")


def _steering_figure(rows: Rows) -> str:
    """Measured against requested scores, mean over the attributes, one line a method."""
    lines = []
    for name, cells in steerable(rows).items():
        got = np.stack([steered(cells)[:, k, :, k] for k in range(len(NAMES))]).mean(0)  # a missing one leaves it out
        prompts = list(range(len(got) // len(cells))) * len(cells)
        values = [mean_interval(got[:, i], clusters=prompts) for i in range(len(LEVELS))]
        lines.append(Line(name, LEVELS, values))
    return sweep(lines, setting="requested", unit="measured, mean of attributes", key="sga-steering", title="Steering")


def standalone(svg: str) -> str:
    """An inline figure as a file of its own: the report's variables become its colours in daylight, on paper."""
    css = files("pluralign.reports").joinpath("page.css").read_text("utf-8")
    colours = dict(reversed(re.findall(r"--(\w+): (#\w+);", css)))  # the first one counts
    plain = re.sub(r"var\(--(\w+)\)", lambda m: colours[m[1]], svg)
    width, height = (float(x) for x in re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', plain)[0])
    size = f'width="{1.6 * width:.0f}" height="{1.6 * height:.0f}"'
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    head = f'<svg {spaces} {size} font-family="DejaVu Sans, sans-serif" '
    paper = f'<rect width="100%" height="100%" fill="{colours["paper"]}"/>'
    return plain.replace("<svg ", head, 1).replace("</title>", "</title>\n" + paper, 1) + "\n"
