"""Figures of steerable policies, as inline SVG in the style of `figures`: profiles over attributes, errors of sensed
scores, a sweep of one setting, and the front of a trade-off.

Colours are the page's variables; lines differ by dash and marker too, so that colour is never the only sign. Every
figure is one column wide, the whole width of a phone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import SettingsError
from ..judging.attributes import NEAR, Sensed
from ..judging.fronts import FrontReport
from ..judging.statistics import Estimate
from .figures import DASHES, INKS, PLACEHOLDERS, _figure, _style, _svg, shorten
from .radar import Profile, radar
from .signs import MARKERS, few, legend, legend_of, look, number, some
from .wording import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Line", "Profile", "error_histogram", "front", "radar", "sweep"]


@dataclass(frozen=True, slots=True)
class Line:
    """One line over a setting (lambda, a temperature): its values in `at`, an estimate for each."""

    label: str
    at: Sequence[float]
    values: Sequence[Estimate]


# Errors of sensed scores


def error_histogram(sensed: Sequence[Sensed], *, key: str, title: str) -> str:
    """The distribution of |s - s_hat| of each attribute (Figure 4 of SGA), one panel below the other, as SVG text.

    Bars are shares of prompts; the outline is the same for one score given to every prompt, the dotted line is where
    near ends (NEAR). Beside the name: mean error against that of the constant, and R squared with its interval.
    Raises SettingsError where there is nothing to draw.
    """
    some(sensed)
    with _style():
        fig = _figure(0.75 + 0.95 * len(sensed))
        axes: Any = fig.subplots(len(sensed), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for ax, one in zip(axes, sensed, strict=True):
            _errors(ax, one)
        axes[-1].set_xlabel("absolute error of the sensed score", loc="right")
        axes[-1].set_xlim(0, 1)
        axes[-1].set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1], ["0", ".2", ".4", ".6", ".8", "1"])
        axes[0].set_ylim(bottom=0)
        from matplotlib.lines import Line2D
        from matplotlib.patches import Patch

        dotted: Any = {"color": INKS["muted"], "linewidth": 0.9, "linestyle": (0, (2, 2))}
        signs: list[Any] = [
            Patch(facecolor=PLACEHOLDERS["s1"], alpha=0.55, linewidth=0, label="sensed"),
            Line2D([], [], color=PLACEHOLDERS["s2"], linewidth=1.5, label="one score for all"),
            Line2D([], [], label=f"near: < {number(NEAR, 1)}", **dotted),
        ]
        legend_of(fig, signs, 3)
        return _svg(fig, key, title)


def _errors(ax: Axes, one: Sensed) -> None:
    from matplotlib.ticker import MaxNLocator

    n = max(sum(one.histogram), 1)
    edges = np.array(one.edges)
    shares, constant = (np.array(counts) / n for counts in (one.histogram, one.constant_histogram))
    gap = 0.006
    ax.bar(edges[:-1] + gap, shares, np.diff(edges) - 2 * gap, align="edge", color=PLACEHOLDERS["s1"], alpha=0.55,
           linewidth=0, zorder=3)  # fmt: skip
    ax.stairs(constant, edges, color=PLACEHOLDERS["s2"], linewidth=1.5, zorder=4)
    ax.axvline(NEAR, color=INKS["muted"], linewidth=0.9, linestyle=(0, (2, 2)), zorder=2)
    ax.set_title(shorten(one.name.replace("_", " "), 22), color=INKS["ink"], pad=3)
    facts = f"error {number(one.error.value, 2)} (one score {number(one.constant.value, 2)})"
    if math.isfinite(one.r2.value):
        facts += f", R² {short(one.r2)}"
    ax.set_title(facts, loc="right", fontsize=9, pad=3)
    ax.yaxis.set_major_locator(MaxNLocator(nbins=3, steps=[1, 2, 5, 10]))
    ax.yaxis.set_major_formatter(lambda y, _: f"{100 * y:.0f} %")


# A setting, swept


def sweep(
    lines: Sequence[Line],
    *,
    setting: str,
    unit: str,
    key: str,
    title: str,
    reference: float | None = None,
) -> str:
    """Estimates over the values of one setting (Figure 5 of SGA: lambda), with interval bars, as SVG text.

    The axis is logarithmic where the values are positive and span more than a factor of ten, and ticks stand at the
    values themselves. `reference` marks a value (chance). Raises SettingsError where a line has not one estimate for
    each value.
    """
    few(lines)
    for line in lines:
        if len(line.at) != len(line.values) or not line.at:
            raise SettingsError(f'"{line.label}" has {len(line.values)} estimates for {len(line.at)} values.')
    values = sorted({float(x) for line in lines for x in line.at})
    is_log = values[0] > 0 and values[-1] > 10 * values[0]
    place = math.log10 if is_log else float
    room = (place(values[-1]) - place(values[0]) or 1.0) * 0.012  # lines of one value stand beside each other
    with _style():
        fig = _figure(2.75)
        ax = fig.add_subplot()
        for i, line in enumerate(lines):
            colour, dash = look(i, len(lines))
            x = [place(v) + (i - (len(lines) - 1) / 2) * room for v in line.at]
            ax.plot(x, [e.value for e in line.values], color=colour, linestyle=DASHES[dash],
                    marker=MARKERS[i % len(MARKERS)], markersize=4.5, markeredgewidth=0, zorder=4)  # fmt: skip
            known = [(at, e) for at, e in zip(x, line.values, strict=True) if e.has_interval]
            ax.vlines([at for at, _ in known], [e.low for _, e in known], [e.high for _, e in known], color=colour,
                      linewidth=1.1, alpha=0.7, zorder=3)  # fmt: skip
        if reference is not None:
            ax.axhline(reference, color=INKS["muted"], linewidth=0.9, linestyle=(0, (2, 2)), zorder=2)
        _ticks_at(ax, values, place)
        ax.set_title(unit)
        ax.set_xlabel(f"{setting}, on a logarithmic axis" if is_log else setting, loc="right")
        legend(fig, [line.label for line in lines])
        return _svg(fig, key, title)


def _ticks_at(ax: Axes, values: Sequence[float], place: Any) -> None:
    """A tick at every value; one whose text would touch another goes a line lower, a third has none. Ends go first."""
    places = [place(v) for v in values]
    width = (places[-1] - places[0]) or 1.0
    taken: tuple[list[tuple[float, float]], ...] = ([], [])  # what the texts of the two rows cover
    texts = [""] * len(values)
    for i in dict.fromkeys((0, len(values) - 1, *range(len(values)))):
        half = 0.012 * (len(f"{values[i]:g}") + 1) * width
        left, right = places[i] - half, places[i] + half
        row = next((r for r in (0, 1) if all(right < a or left > b for a, b in taken[r])), None)
        if row is not None:
            texts[i] = "\n" * row + f"{values[i]:g}".replace("-", "−")
            taken[row].append((left, right))
    ax.set_xticks(places, texts)
    ax.set_xlim(places[0] - 0.06 * width, places[-1] + 0.06 * width)


# Fronts


def front(
    systems: Mapping[str, FrontReport],
    *,
    key: str,
    title: str,
    axes: tuple[int, int] = (0, 1),
) -> str:
    """Mean rewards of every point of the grids in two objectives, with intervals, as SVG text.

    Filled marks lie on a system's front, hollow ones are dominated (in all objectives). With two objectives the steps
    bound what a front attains, shaded down to the reference point: the area is the hypervolume. The weights of the
    first objective stand at the ends of the first system's grid. Raises SettingsError where the systems differ in
    objectives or reference point, which makes areas incomparable.
    """
    few(list(systems))
    reports = list(systems.values())
    names, reference = reports[0].names, reports[0].reference
    if any((r.names, r.reference) != (names, reference) for r in reports):
        raise SettingsError("the fronts have other objectives or reference points: they cannot share a figure.")
    if not all(0 <= k < len(names) for k in axes) or axes[0] == axes[1]:
        raise SettingsError(f"axes {axes} do not name two of {len(names)} objectives.")
    x, y = axes
    with _style():
        fig = _figure(3.7)
        ax = fig.add_subplot()
        for i, report in enumerate(reports):
            _front(ax, report, i, len(reports), (x, y))
        ax.grid(axis="x", visible=True)
        ax.spines["bottom"].set_visible(False)
        ax.tick_params(axis="x", length=0)
        if len(names) == 2:
            floor, muted = (reference[x], reference[y]), INKS["muted"]
            ax.plot(*floor, marker="+", color=muted, markersize=9, markeredgewidth=1.4, zorder=6)
            ax.annotate("reference", floor, xytext=(7, 3), textcoords="offset points", fontsize=9, color=muted)
            _ends(ax, reports[0], (x, y))
        ax.set_title(shorten(names[y].replace("_", " "), 40))
        ax.set_xlabel(shorten(names[x].replace("_", " "), 40), loc="right")
        ax.margins(0.09)
        volumes = [f"{shorten(name, 18)}, volume {short(r.hypervolume)}" for name, r in systems.items()]
        legend(fig, volumes, columns=1)
        return _svg(fig, key, title)


def _front(ax: Axes, report: FrontReport, i: int, of: int, axes: tuple[int, int]) -> None:
    colour, dash = look(i, of)
    x, y = ([point[report.names[k]] for point in report.points] for k in axes)
    on = np.zeros(len(x), dtype=bool)
    on[list(report.front)] = True
    px, py = np.array([e.value for e in x]), np.array([e.value for e in y])
    if len(report.names) == 2:
        above = on & (px > report.reference[axes[0]]) & (py > report.reference[axes[1]])
        if above.any():
            _steps(ax, px[above], py[above], (report.reference[axes[0]], report.reference[axes[1]]), colour, dash)
    for e, f in zip(x, y, strict=True):
        if e.has_interval and f.has_interval:
            ax.hlines(f.value, e.low, e.high, color=colour, linewidth=0.9, alpha=0.45, zorder=3)
            ax.vlines(e.value, f.low, f.high, color=colour, linewidth=0.9, alpha=0.45, zorder=3)
    marker: dict[str, Any] = {"marker": MARKERS[i % len(MARKERS)], "linestyle": "", "color": colour}
    ax.plot(px[on], py[on], markersize=5, markeredgewidth=0, zorder=5, **marker)
    ax.plot(px[~on], py[~on], markersize=4.5, markeredgewidth=1.2, markerfacecolor=INKS["paper"], zorder=4, **marker)


def _steps(ax: Axes, px: Any, py: Any, floor: tuple[float, float], colour: str, dash: int) -> None:
    """The boundary of what the points attain, and the area between it and the reference point."""
    order = np.argsort(px, kind="stable")
    px, py = px[order], py[order]
    across = np.concatenate([[floor[0]], np.repeat(px, 2)])
    up = np.concatenate([np.repeat(py, 2), [floor[1]]])  # from each point's height down to the next one's
    ax.fill_between(across, floor[1], up, color=colour, alpha=0.12, linewidth=0, zorder=1)
    ax.plot(across, up, color=colour, linewidth=1.0, linestyle=DASHES[dash], alpha=0.8, zorder=2)


def _ends(ax: Axes, report: FrontReport, axes: tuple[int, int]) -> None:
    """The weight on the x objective where it is least and where it is most."""
    weights = [w[axes[0]] for w in report.weights]
    for i in dict.fromkeys((weights.index(min(weights)), weights.index(max(weights)))):
        px, py = (report.points[i][report.names[k]].value for k in axes)
        # Below and to the left of a point lies only what it dominates: the shaded area, where nothing is drawn.
        ax.annotate(f"weight {weights[i]:g}", (px, py), xytext=(-6, -5), textcoords="offset points", ha="right",
                    va="top", fontsize=9, color=look(0, 1)[0], zorder=8)  # fmt: skip
