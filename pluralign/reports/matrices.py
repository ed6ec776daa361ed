"""Tables one can see: agreement of judges, and scores by category and system, as inline SVG in the style of `figures`.

Blue is above the reference and orange below, the deeper the farther; every cell bears its number, so that the colour
only helps to find it. The ground of a cell is never so deep that its number cannot be read, in light, dark and print.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import SettingsError
from ..judging.statistics import Estimate
from .figures import INKS, PLACEHOLDERS, _figure, _style, _svg, shorten
from .signs import number, some
from .wording import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["agreement_heat", "category_heat"]

DEEPEST = 0.6  # opacity of the farthest cell
MOST_JUDGES, MOST_SYSTEMS, MOST_CATEGORIES = 8, 7, 40


def agreement_heat(
    judges: Sequence[str], found: Mapping[tuple[str, str], Estimate], *, key: str, title: str, unit: str
) -> str:
    """A judge by judge matrix, each pair once, from what `judging.agreement.agreement_matrix` gives, as SVG text.

    Colours run from -1 over 0 (no more than chance, where `unit` is a kappa) to 1. Raises SettingsError for fewer than
    two judges or more than eight.
    """
    if not 2 <= len(judges) <= MOST_JUDGES:
        raise SettingsError(f"a matrix of agreement shows 2 to {MOST_JUDGES} judges, not {len(judges)}.")
    pairs = {pair: e for (a, b), e in found.items() for pair in ((a, b), (b, a))}
    cells = [[pairs.get((a, b)) if j < i else None for j, b in enumerate(judges[:-1])] for i, a in enumerate(judges)]
    names = [f"{i}  {shorten(judge, 22)}" for i, judge in enumerate(judges, start=1)]
    with _style():
        fig = _figure(0.8 + 0.42 * len(judges))
        ax = fig.add_subplot()
        _grid(ax, cells, names, [f"{i}" for i in range(1, len(judges))], (-1.0, 1.0), 0.0)
        ax.set_title(unit, pad=6)
        told = [f"{a} and {b}: {e}" for (a, b), e in found.items()]
        return _svg(fig, key, title, "; ".join(told))


def category_heat(
    found: Mapping[str, Mapping[str, Estimate]],
    systems: Sequence[str],
    *,
    key: str,
    title: str,
    limits: tuple[float, float] | None = None,
    reference: float | None = None,
) -> str:
    """Scores by category (rows, in the order of `found`) and system (columns), as SVG text.

    `limits`: the values of the deepest colours, by default those of the scores; `reference`: where the colour turns
    (chance), by default everything is one colour. The interval stands below its value where there are at most four
    columns. Raises SettingsError for nothing to draw, for more than seven systems and for more
    than forty categories.
    """
    some(list(found))
    some(systems)
    if len(systems) > MOST_SYSTEMS or len(found) > MOST_CATEGORIES:
        raise SettingsError(
            f"{len(found)} categories by {len(systems)} systems cannot be read in one figure.",
            remedy=f"Draw at most {MOST_CATEGORIES} by {MOST_SYSTEMS}; the table has them all.",
        )
    values = [e.value for row in found.values() for e in row.values() if math.isfinite(e.value)]
    low, high = limits or (min(values, default=0.0), max(values, default=1.0))
    wide = len(systems) <= 4
    with _style():
        fig = _figure(0.55 + (0.3 if wide else 0.95) + (0.4 if wide else 0.27) * len(found))
        ax = fig.add_subplot()
        cells = [[row.get(s) for s in systems] for row in found.values()]
        rows = [_row_name(name, row) for name, row in found.items()]
        _grid(ax, cells, rows, [shorten(s, 12 if wide else 16) for s in systems], (low, high), reference, wide)
        if not wide:
            ax.tick_params(axis="x", rotation=90)
        told = [f"{name}, {s}: {row[s]}" for name, row in found.items() for s in systems if s in row]
        return _svg(fig, key, title, "; ".join(told))


def _row_name(name: str, row: Mapping[str, Estimate]) -> str:
    sizes = {e.n for e in row.values() if e.n}
    return shorten(name, 20) + (f"\nn = {next(iter(sizes)):,}" if len(sizes) == 1 else "")


def _grid(
    ax: Axes,
    cells: Sequence[Sequence[Estimate | None]],
    rows: Sequence[str],
    columns: Sequence[str],
    limits: tuple[float, float],
    reference: float | None,
    wide: bool = True,
) -> None:
    from matplotlib.patches import Rectangle

    for y, row in enumerate(cells):
        for x, e in enumerate(row):
            if e is None:
                continue
            colour, alpha = _colour(e.value, limits, reference)
            look: dict[str, Any] = {"facecolor": PLACEHOLDERS[colour], "alpha": alpha, "linewidth": 0}
            ax.add_patch(Rectangle((x - 0.48, y - 0.47), 0.96, 0.94, zorder=2, **look))
            _cell(ax, x, y, e, wide)
    ax.set_xlim(-0.5, len(columns) - 0.5)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xticks(range(len(columns)), columns, color=INKS["ink"])
    ax.set_yticks(range(len(rows)), [r if wide else r.replace("\n", ", ") for r in rows], color=INKS["ink"],
                  fontsize=9)  # fmt: skip
    ax.tick_params(axis="x", length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    ax.grid(visible=False)
    ax.spines["bottom"].set_visible(False)


def _cell(ax: Axes, x: int, y: int, e: Estimate, wide: bool) -> None:
    style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 10, "zorder": 4}
    if not math.isfinite(e.value):
        ax.annotate("–", (x, y), color=INKS["muted"], **style)
        return
    value, _, interval = short(e).partition(" ")
    if not wide or not interval:
        ax.annotate(value if wide else number(e.value, 2 if abs(e.value) < 10 else 1), (x, y), **style)
        return
    ax.annotate(value, (x, y - 0.17), **style)
    ax.annotate(interval, (x, y + 0.24), **{**style, "fontsize": 8})


def _colour(value: float, limits: tuple[float, float], reference: float | None) -> tuple[str, float]:
    """(palette name, opacity) of a value; a faint neutral ground where there is none."""
    low, high = limits
    if not math.isfinite(value):
        return "s0", 0.12
    if reference is None:
        share = (value - low) / (high - low) if high > low else 0.5
        return "s1", DEEPEST * min(1.0, max(0.0, share))
    reach = max(abs(high - reference), abs(low - reference)) or 1.0
    return "s1" if value >= reference else "s2", DEEPEST * min(1.0, abs(value - reference) / reach)
