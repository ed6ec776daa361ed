"""How several things in one figure are told apart: colour, dash and marker together, and the legend above."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import SettingsError
from ..judging.statistics import format_number
from .figures import DASHES, PLACEHOLDERS, palette, shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["MARKERS", "few", "legend", "legend_of", "look", "number", "some"]

MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def look(i: int, of: int) -> tuple[str, int]:
    """(colour, dash) of the i-th of several equals, as matplotlib carries them; the marker is MARKERS[i]."""
    name, dash = palette(i, of)
    return PLACEHOLDERS[name], dash


def legend(fig: Figure, labels: Sequence[str], columns: int | None = None) -> None:
    """Above the figure, in as many columns as fit; none for a single thing without a name."""
    from matplotlib.lines import Line2D

    if len(labels) < 2 and columns is None:
        return
    signs = []
    for i, label in enumerate(labels):
        colour, dash = look(i, len(labels))
        style: dict[str, Any] = {"color": colour, "linestyle": DASHES[dash], "marker": MARKERS[i % len(MARKERS)]}
        text = shorten(label, 44 if columns else 22)
        signs.append(Line2D([], [], markersize=4.5, markeredgewidth=0, label=text, **style))
    longest = max(len(str(s.get_label())) for s in signs)
    legend_of(fig, signs, columns or max(1, min(len(signs), 4, 52 // (longest + 6))))


def legend_of(fig: Figure, signs: Sequence[Any], columns: int) -> None:
    """A legend of these signs above the figure, flush with its left edge."""
    options: dict[str, Any] = {"handlelength": 2.2, "columnspacing": 1.4, "borderaxespad": 0.3, "borderpad": 0.2}
    fig.legend(handles=list(signs), loc="outside upper left", ncols=columns, **options)


def number(value: float, digits: int) -> str:
    """Fixed decimals with the typographic minus; a dash where there is no number."""
    return "–" if math.isnan(value) else format_number(value, digits).replace("-", "−")


def some(things: Sequence[Any]) -> None:
    """Raises SettingsError for nothing."""
    if not things:
        raise SettingsError("there is nothing to draw.")


def few(things: Sequence[Any]) -> None:
    """Raises SettingsError for nothing, and for more things than signs tell apart."""
    some(things)
    if len(things) > len(MARKERS):
        raise SettingsError(f"{len(things)} lines in one figure cannot be told apart; {len(MARKERS)} can.")
