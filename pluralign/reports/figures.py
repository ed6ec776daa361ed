"""Figures as inline SVG: text stays text, colours are the page's CSS variables, the same input gives the same bytes.

matplotlib draws (no pyplot, no global state); the SVG is then made fit for a page: no fixed size, no metadata, no
namespaces, ids of its own. Because the colours are variables, one figure serves light, dark and print.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..judging.statistics import Estimate, format_number
from .runs import Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["PALETTE", "Bar", "Curve", "bars", "curves", "palette", "shorten"]

# Placeholders that matplotlib carries through and the page's style sheet gives a value, per colour scheme.
INKS = {"ink": "#010101", "muted": "#010102", "rule": "#010103", "paper": "#010104"}
PALETTE = ("s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7")  # s0 is the neutral one: the base, the raw values
PLACEHOLDERS = {**INKS, **{name: f"#0202{i:02d}" for i, name in enumerate(PALETTE, start=10)}}
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
WIDTH = 4.6  # inches at 72 per inch: about 330 px, one column of the page and the whole width of a phone

STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a run may be called "$x$"
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": INKS["muted"],
    "axes.labelcolor": INKS["muted"],
    "axes.titlecolor": INKS["muted"],
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "axes.unicode_minus": True,
    "grid.color": INKS["rule"],
    "grid.linewidth": 0.7,
    "xtick.color": INKS["muted"],
    "ytick.color": INKS["muted"],
    "ytick.major.size": 0,
    "text.color": INKS["ink"],
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
}


@dataclass(frozen=True, slots=True)
class Curve:
    """One line over steps. `faint` draws it as background (the raw values behind an average)."""

    label: str
    series: Series
    colour: str = "s1"
    dash: int = 0
    marked: bool = False
    faint: bool = False


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar with its interval; bars of one `section` (a group) stand together under its name."""

    label: str
    estimate: Estimate
    colour: str = "s1"
    section: str = ""
    strong: bool = False


def palette(i: int, of: int) -> tuple[str, int]:
    """(colour, dash) of the i-th of several equals; the dashes tell them apart beyond the colours, and in print."""
    accents = PALETTE[1:]
    return accents[i % len(accents)], (i // len(accents) + (i if of <= len(DASHES) else 0)) % len(DASHES)


def shorten(text: str, width: int = 28) -> str:
    """One line of at most `width` characters, cut in the middle: both ends of a run's name tell something."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if len(line) <= width:
        return line
    head = (width - 1) // 2
    return f"{line[:head]}…{line[len(line) - (width - 1 - head) :]}"


def curves(
    lines: Sequence[Curve],
    *,
    key: str,
    title: str,
    unit: str,
    reference: float | None = None,
    limits: tuple[float, float] | None = None,
    from_zero: bool = False,
) -> str:
    """Lines over steps with interval bands, as SVG text.

    `key`: prefix of the ids, unique on a page; `title`: the accessible name; `unit`: of the y axis;
    `reference`: a value to mark (chance, zero); `limits`: y values that the axis must not leave;
    `from_zero`: the axis starts at zero.
    """
    with _style():
        fig = _figure(2.75)
        ax = fig.add_subplot()
        for z, line in enumerate(lines, start=3):
            _line(ax, line, z)
        if reference is not None:
            ax.axhline(reference, color=INKS["muted"], linewidth=0.9, linestyle=(0, (2, 2)), zorder=2)
        ax.set_title(unit)
        ax.set_xlabel("step", loc="right")
        _axes_limits(ax, lines, limits, from_zero)
        named = [c for c in lines if c.label]
        if len(named) > 1:
            _legend(ax, len(named), max(len(shorten(c.label)) for c in named))
        return _svg(fig, key, title)


def bars(
    rows: Sequence[Bar],
    *,
    key: str,
    title: str,
    unit: str,
    reference: float | None = None,
    limits: tuple[float, float] | None = None,
) -> str:
    """Horizontal bars with intervals, the values written at their ends, as SVG text."""
    places, headings = _places(rows)
    with _style():
        fig = _figure(0.62 + 0.27 * (max(places + [h for h, _, _ in headings], default=0) + 1))
        ax = fig.add_subplot()
        for y, row in zip(places, rows, strict=True):
            _bar(ax, y, row)
        for y, section, strong in headings:
            ax.annotate(
                shorten(section, 40),
                (0, y),
                xycoords=("axes fraction", "data"),
                va="center",
                fontsize=10,
                fontweight="bold" if strong else "normal",
                color=INKS["ink"],
                bbox={"facecolor": INKS["paper"], "edgecolor": "none", "pad": 1.5},
                zorder=8,
            )
        if reference is not None:
            ax.axvline(reference, color=INKS["muted"], linewidth=0.9, linestyle=(0, (2, 2)), zorder=4)
        ax.set_yticks(places, [shorten(r.label, 18) for r in rows], color=INKS["ink"])
        ax.set_ylim(max(places, default=0) + 0.7, -0.7)
        ax.grid(axis="y", visible=False)
        ax.grid(axis="x", visible=True)
        ax.spines["bottom"].set_visible(False)
        ax.tick_params(axis="x", length=0)
        ax.set_xlabel(unit, loc="left")
        _bar_limits(ax, rows, limits)
        return _svg(fig, key, title)


def _line(ax: Axes, line: Curve, z: int) -> None:
    colour, s = PLACEHOLDERS[line.colour], line.series
    ax.plot(
        s.steps,
        s.values,
        color=colour,
        linestyle=DASHES[line.dash],
        linewidth=0.8 if line.faint else 1.6,
        alpha=0.5 if line.faint else 1.0,
        marker="o" if line.marked or len(s.steps) == 1 else None,
        markersize=3.2,
        markeredgewidth=0,
        label=shorten(line.label) if line.label else "_",
        zorder=z,
    )
    if any(math.isfinite(x) for x in s.low) and len(s.steps) > 1:
        ax.fill_between(s.steps, s.low, s.high, color=colour, alpha=0.16, linewidth=0, zorder=z - 0.5)
    elif s.steps and math.isfinite(s.low[0]):
        ax.vlines(s.steps, s.low, s.high, color=colour, linewidth=1.2, zorder=z)


def _axes_limits(ax: Axes, lines: Sequence[Curve], limits: tuple[float, float] | None, from_zero: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=[1, 2, 5, 10]))
    ax.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    low, high = ax.get_ylim()
    if from_zero:
        ax.set_ylim(min(0.0, low), high)
    if not 1e-3 <= max(abs(low), abs(high)) < 1e6:  # plain ticks instead of a power of ten at the axis' end
        ax.yaxis.set_major_formatter(lambda y, _: f"{y:.3g}".replace("-", "−"))
    if limits is not None:
        room = 0.02 * (high - low)  # so that a line on the limit itself is not cut in half
        ax.set_ylim(max(low, limits[0] - room), min(high, limits[1] + room))
    steps = [step for c in lines for step in c.series.steps]
    if steps and min(steps) == max(steps):
        ax.set_xlim(min(steps) - 1, max(steps) + 1)


def _legend(ax: Axes, entries: int, longest: int) -> None:
    """Above the unit, flush with the axis, in as many columns as fit."""
    columns = max(1, min(entries, 4, 52 // (longest + 6)))
    options: dict[str, Any] = {"handlelength": 1.8, "columnspacing": 1.4, "borderaxespad": 0, "borderpad": 0}
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1.14), ncols=columns, **options)


def _places(rows: Sequence[Bar]) -> tuple[list[float], list[tuple[float, str, bool]]]:
    """The y place of every bar, and (y, name, strong) of every section's heading."""
    places: list[float] = []
    headings: list[tuple[float, str, bool]] = []
    y, section = 0.0, ""
    for row in rows:
        if row.section and row.section != section:
            y += 0.35 if places else 0.0
            headings.append((y, row.section, row.strong))
            section, y = row.section, y + 0.9
        places.append(y)
        y += 1.0
    return places, headings


def _bar(ax: Axes, y: float, row: Bar) -> None:
    e = row.estimate
    if not math.isfinite(e.value):
        ax.annotate("not scored", (0, y), va="center", fontsize=10, color=INKS["muted"])
        return
    ax.barh(y, e.value, height=0.62, color=PLACEHOLDERS[row.colour], alpha=0.42, linewidth=0, zorder=3)
    end = e.value
    if e.has_interval:
        ax.hlines(y, e.low, e.high, color=PLACEHOLDERS[row.colour], linewidth=2.2, zorder=5)
        end = e.high if e.value >= 0 else e.low
    ax.plot([e.value], [y], "o", color=PLACEHOLDERS[row.colour], markersize=4.5, markeredgewidth=0, zorder=6)
    ax.annotate(
        format_number(e.value, 2).replace("-", "−"),
        (end, y),
        xytext=(5 if e.value >= 0 else -5, 0),
        textcoords="offset points",
        ha="left" if e.value >= 0 else "right",
        va="center",
        fontsize=10,
        zorder=7,
    )


def _bar_limits(ax: Axes, rows: Sequence[Bar], limits: tuple[float, float] | None) -> None:
    from matplotlib.ticker import MaxNLocator

    ends = [x for r in rows for x in (r.estimate.value, r.estimate.low, r.estimate.high) if math.isfinite(x)] or [0, 1]
    low, high = min(0.0, *ends), max(0.0, *ends)
    if limits is not None:
        low, high = limits
    room = 0.14 * ((high - low) or 1.0)  # for the value at the bar's end
    ax.set_xlim(low - (room if low < 0 else 0), high + (room if limits is None else 0.08 * (high - low)))
    ax.xaxis.set_major_locator(MaxNLocator(nbins=5))
    if limits is not None:
        ticks = [low + (high - low) * i / 4 for i in range(5)]
        ax.set_xticks(ticks, [format_number(t, 2) if t not in (0, 1) else f"{t:g}" for t in ticks])


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib as mpl

    # A person's own matplotlibrc must not change a report, so everything starts from the defaults.
    settings: Any = {k: v for k, v in mpl.rcParamsDefault.items() if not k.startswith("backend")} | STYLE
    with mpl.rc_context(settings), warnings.catch_warnings():
        # The browser's fonts draw the text; that the measuring font lacks a glyph does not matter.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield


def _figure(height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), layout="constrained")


def _svg(fig: Figure, key: str, title: str, text: str = "") -> str:
    """`title` is the figure's name, `text` what it shows, in words, for who cannot see it."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": key}):
        FigureCanvasSVG(fig).print_svg(buffer, metadata={"Date": None, "Creator": None})
    return _inline(buffer.getvalue(), key, title, text)


def _inline(text: str, key: str, title: str, words: str = "") -> str:
    """The bare <svg> element: own ids, variables for colours, no size, metadata, comments or namespaces."""
    from markupsafe import escape

    body = text[text.index("<svg") :]
    # The style element goes too: inside a page its `*` would be the whole page.
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", body, flags=re.DOTALL)
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', body))

    def tag(match: re.Match[str]) -> str:
        inside = re.sub(r' id="([^"]+)"', lambda m: f' id="{key}-{m[1]}"' if m[1] in used else "", match[0])
        inside = re.sub(r'(?:xlink:)?(href="#|url\(#)', rf"\g<1>{key}-", inside)
        inside = re.sub(r" font-family: [^;]*;", "", inside)
        inside = re.sub(r"\d+\.\d{3,}", lambda m: f"{float(m[0]):.2f}", inside)
        return re.sub(r"#0[12]0[12]\d\d", lambda m: COLOURS.get(m[0], m[0]), inside)

    body = re.sub(r"<[^>]+>", tag, body)
    view = re.search(r'viewBox="([^"]+)"', body)
    assert view is not None, "matplotlib writes a viewBox"
    name = escape(title)
    head = f'<svg viewBox="{view[1]}" role="img" aria-label="{name}">\n<title>{name}</title>'
    head += f"\n<desc>{escape(words)}</desc>" if words else ""
    body = re.sub(r"\n[ \t]+", "\n", re.sub(r"^<svg[^>]*>", "", body, count=1))
    return head + re.sub(r"\n\n+", "\n", body).rstrip()


COLOURS: Mapping[str, str] = {placeholder: f"var(--{name})" for name, placeholder in PLACEHOLDERS.items()}
