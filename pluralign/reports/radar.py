"""Radar charts: profiles over attributes, as inline SVG in the style of `figures`."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import SettingsError
from ..judging.statistics import Estimate
from .figures import DASHES, INKS, _figure, _style, _svg, shorten
from .signs import MARKERS, few, legend, look, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Profile", "radar"]

RINGS, MOST_RINGS = 4, 5
# What rings are drawn for. Below the smallest, floats thin out and powers of ten underflow; above the largest, the
# distance of two values overflows. Values closer than CLOSEST of their size cannot be told apart by ticks.
SMALLEST, LARGEST, CLOSEST = 1e-300, 1e300, 1e-9


@dataclass(frozen=True, slots=True)
class Profile:
    """One polygon of a radar chart: an estimate for each attribute by name. `strong` fills it."""

    label: str
    values: Mapping[str, Estimate]
    strong: bool = False


def radar(
    profiles: Sequence[Profile],
    *,
    names: Sequence[str],
    key: str,
    title: str,
    limits: tuple[float, float] | None = None,
) -> str:
    """Profiles over three or more attributes (Figures 3, 6 and 7 of SGA), outwards is more, as SVG text.

    `names` is the order of the axes, clockwise from the top; `limits` are the values of the centre and of the rim, by
    default round ones that hold every value (the centre is rarely zero: the rings bear their numbers). Intervals are
    thin lines along the axes. An attribute that was not scored breaks the polygon. Raises SettingsError for fewer than
    three attributes, for more than seven profiles, and where nothing was scored.
    """
    if len(names) < 3:
        raise SettingsError(f"a radar chart needs three attributes, not {len(names)}.", remedy="Draw bars.")
    few(profiles)
    low, high, rings = _rings([p.values[n] for p in profiles for n in names if n in p.values], limits)
    angles = np.pi / 2 - 2 * np.pi * np.arange(len(names)) / len(names)
    spokes = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    with _style():
        fig = _figure(4.1)
        ax = fig.add_subplot(aspect="equal")
        _web(ax, spokes, names, low, high, rings)
        for i, profile in enumerate(profiles):
            _polygon(ax, spokes, names, profile, i, len(profiles), low, high)
        ax.set_axis_off()
        legend(fig, [p.label for p in profiles])
        return _svg(fig, key, title)


def _web(ax: Axes, spokes: Any, names: Sequence[str], low: float, high: float, rings: int) -> None:
    """Rings with their values, axes with their names."""
    closed = np.vstack([spokes, spokes[:1]])
    for ring in range(1, rings + 1):
        share = ring / rings
        colour = INKS["muted"] if ring == rings else INKS["rule"]
        ax.plot(*(share * closed).T, color=colour, linewidth=0.7, zorder=1)
    # The numbers stand between two axes, where no polygon has a corner, on a ground of their own.
    middle = (spokes[0] + spokes[1]) / 2
    for ring, text in enumerate(_texts(low, high, rings)):
        ax.annotate(text, middle * ring / rings if ring else (0, 0), ha="center", va="center", fontsize=9,
                    color=INKS["muted"], zorder=9,
                    bbox={"facecolor": INKS["paper"], "edgecolor": "none", "pad": 0.6})  # fmt: skip
    for (x, y), name in zip(spokes, names, strict=True):
        ax.plot([0, x], [0, y], color=INKS["rule"], linewidth=0.7, zorder=1)
        words = "\n".join(textwrap.wrap(shorten(name.replace("_", " "), 30), 13))
        ax.annotate(words, (1.07 * x, 1.07 * y), ha="center" if abs(x) < 0.2 else "left" if x > 0 else "right",
                    va="center" if abs(y) < 0.5 else "bottom" if y > 0 else "top", fontsize=10,
                    linespacing=1.05, annotation_clip=False)  # fmt: skip
    ax.set_xlim(-1.1, 1.1)
    ax.set_ylim(-1.05 if len(names) % 2 == 0 else 1.15 * float(spokes[:, 1].min()), 1.05)


def _polygon(
    ax: Axes, spokes: Any, names: Sequence[str], profile: Profile, i: int, of: int, low: float, high: float
) -> None:
    colour, dash = look(i, of)
    nothing = Estimate(math.nan, math.nan, math.nan, 0)
    values = [profile.values.get(name, nothing) for name in names]
    radius = np.array([_share(e.value, low, high) for e in values])
    corners = spokes * radius[:, None]
    closed = np.vstack([corners, corners[:1]])
    ax.plot(*closed.T, color=colour, linestyle=DASHES[dash], marker=MARKERS[i % len(MARKERS)], markersize=4,
            markeredgewidth=0, linewidth=2.0 if profile.strong else 1.4, zorder=4 + profile.strong,
            clip_on=False)  # fmt: skip
    if profile.strong and np.isfinite(radius).all():
        ax.fill(*corners.T, color=colour, alpha=0.12, linewidth=0, zorder=2)
    for spoke, e in zip(spokes, values, strict=True):
        if e.has_interval:
            ends = np.array([_share(x, low, high) for x in (e.low, e.high)])[:, None] * spoke
            ax.plot(*ends.T, color=colour, linewidth=1.0, alpha=0.55, zorder=3, clip_on=False)


def _share(value: float, low: float, high: float) -> float:
    """The part of the way from the centre to the rim; nothing lies behind the centre."""
    return max(0.0, (value - low) / (high - low)) if math.isfinite(value) else math.nan


def _rings(values: Sequence[Estimate], limits: tuple[float, float] | None) -> tuple[float, float, int]:
    """(centre, rim, rings): the given limits, or round numbers that hold every value and interval with little to spare.

    Rings stand SMALLEST apart at least, and CLOSEST of the values' size: what is closer together lies between two of
    them. Raises SettingsError where nothing was scored, and for values beyond LARGEST.
    """
    ends = [x for e in values for x in (e.value, e.low, e.high) if math.isfinite(x)]
    if not ends:
        raise SettingsError("nothing was scored: there is no profile to draw.")
    if limits is not None:
        return (*limits, RINGS)
    low, high = min(ends), max(ends)
    size = max(abs(low), abs(high))
    if size > LARGEST:
        raise SettingsError(f"a value of {size:.3g} cannot be drawn.", remedy=f"Rescale: {LARGEST:g} is the largest.")
    least = max(SMALLEST, CLOSEST * size)
    width = max((high - low) or size or 1.0, least)
    power = math.floor(math.log10(width)) - 1
    for step in (factor * 10.0**p for p in range(power, power + 4) for factor in (1.0, 2.0, 2.5, 5.0)):
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if step >= least and last - first <= MOST_RINGS:
            last = max(last, first + 1)
            return first * step, last * step, last - first
    raise AssertionError("a step as wide as the values needs two rings at most")


def _texts(low: float, high: float, rings: int) -> list[str]:
    """What stands at the centre and at every ring: plain decimals, or powers of ten where these say nothing."""
    at = [low + (high - low) * ring / rings for ring in range(rings + 1)]
    if max(map(abs, at)) < 1e6 and (high - low) / rings >= 1e-6:
        digits = _digits((high - low) / rings)
        return [number(x, digits) for x in at]
    written = ([f"{x:.{digits}g}" for x in at] for digits in range(1, 18))
    return [text.replace("-", "−") for text in next(w for w in written if len(set(w)) == len(w))]


def _digits(step: float) -> int:
    """Decimals that tell neighbouring rings apart."""
    return next((d for d in range(7) if abs(step * 10**d - round(step * 10**d)) < 1e-6), 6)
