"""Does length win, and is a judge as sure as it is right? Points with intervals, as inline SVG like `figures`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import SettingsError
from ..judging.statistics import Estimate, Item, share_interval
from ..judging.win_rates import win_rate
from .figures import DASHES, INKS, PLACEHOLDERS, _figure, _style, _svg
from .signs import MARKERS, few, legend, look, number, some

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "Bin",
    "LengthBins",
    "Point",
    "length_bins",
    "length_effect",
    "length_scatter",
    "reliability",
    "reliability_bins",
]

DOTS = 400  # single comparisons that are drawn; a column of the page holds no more
DOTTED: dict[str, Any] = {"color": INKS["muted"], "linewidth": 0.9, "linestyle": (0, (2, 2)), "zorder": 2}


@dataclass(frozen=True, slots=True)
class Point:
    """A system: the mean length of its answers and its win rate."""

    label: str
    length: Estimate
    rate: Estimate


@dataclass(frozen=True, slots=True)
class LengthBins:
    """Comparisons by the ratio of lengths, answer over baseline: in `bins` of about equal size, and one by one.

    `bins`: (mean log2 ratio, win rate); `dots`: (log2 ratio, score). `left_out`: comparisons that were not scored, or
    with an empty response, which has no ratio.
    """

    bins: tuple[tuple[float, Estimate], ...]
    dots: tuple[tuple[float, float], ...]
    left_out: int


@dataclass(frozen=True, slots=True)
class Bin:
    """What a judge gave about the same probability: their mean, and how often it came true."""

    confidence: float
    share: Estimate


def length_scatter(
    points: Sequence[Point], *, baseline: float | None, key: str, title: str, unit: str = "mean length, characters"
) -> str:
    """Win rates over mean lengths, one point a system, as SVG text; `baseline` is the mean length of its answers.

    Raises SettingsError for nothing, for more than seven systems, and where no system has both numbers.
    """
    few(points)
    known = [p for p in points if math.isfinite(p.length.value) and math.isfinite(p.rate.value)]
    if not known:
        raise SettingsError("no system has a length and a win rate: there is nothing to draw.")
    with _style():
        fig = _figure(3.0)
        ax = fig.add_subplot()
        for i, p in enumerate(points):
            if p not in known:
                continue
            colour, _ = look(i, len(points))
            if p.rate.has_interval:
                ax.vlines(p.length.value, p.rate.low, p.rate.high, color=colour, linewidth=1.1, alpha=0.7, zorder=3)
            if p.length.has_interval:
                ax.hlines(p.rate.value, p.length.low, p.length.high, color=colour, linewidth=1.1, alpha=0.7, zorder=3)
            ax.plot([p.length.value], [p.rate.value], marker=MARKERS[i], color=colour, markersize=6, linestyle="",
                    markeredgewidth=0, zorder=4)  # fmt: skip
        ax.axhline(0.5, **DOTTED)
        if baseline is not None:
            ax.axvline(baseline, **DOTTED)
            ax.annotate("baseline", (baseline, 1), xycoords=("data", "axes fraction"), xytext=(3, -3), va="top",
                        textcoords="offset points", fontsize=9, color=INKS["muted"])  # fmt: skip
        ax.margins(x=0.12)
        _share_axis(ax)
        ax.set_title("win rate")
        ax.set_xlabel(unit, loc="right")
        legend(fig, [p.label for p in points], columns=None if len(points) > 1 else 1)
        told = [f"{p.label}: length {p.length}, win rate {p.rate}" for p in points]
        return _svg(fig, key, title, "; ".join(told))


def length_bins(
    a: Sequence[int | float], b: Sequence[int | float], scores: Sequence[Item], bins: int = 5
) -> LengthBins:
    """Comparisons by the ratio of lengths `a` over `b`, (N,) each in any unit, with `scores` of `a` (N,).

    Equal ratios are kept in one bin, so bins may be fewer. Raises SettingsError for unequal numbers of items.
    """
    if not len(a) == len(b) == len(scores):
        raise SettingsError(f"lengths and scores belong together: {len(a)}, {len(b)} and {len(scores)}.")
    kept = [
        (math.log2(x / y), float(s))
        for x, y, s in zip(a, b, scores, strict=True)
        if x > 0 and y > 0 and s is not None and math.isfinite(s)
    ]
    kept.sort()
    ratios = np.array([r for r, _ in kept])
    edges = np.unique(np.quantile(ratios, np.linspace(0, 1, bins + 1)[1:-1])) if kept else np.zeros(0)
    index = np.searchsorted(edges, ratios, side="left")
    found = []
    for i in dict.fromkeys(index.tolist()):
        inside = [pair for pair, k in zip(kept, index, strict=True) if k == i]
        rate = win_rate([s for _, s in inside]).rate
        found.append((sum(r for r, _ in inside) / len(inside), rate))
    return LengthBins(tuple(found), tuple(kept), len(scores) - len(kept))


def length_effect(found: LengthBins, *, key: str, title: str) -> str:
    """Win rates over the ratio of lengths, with intervals, above and below the single comparisons, as SVG text.

    Of many comparisons every k-th is drawn. A judge that likes length lets the line rise. Raises SettingsError for
    nothing to draw.
    """
    some(found.bins)
    with _style():
        fig = _figure(2.75)
        ax = fig.add_subplot()
        colour, step = PLACEHOLDERS["s1"], math.ceil(len(found.dots) / DOTS)
        # single scores are mostly 0, 1/2 or 1: spread by a golden-ratio sequence, they do not hide each other
        dots = found.dots[::step]
        spread = [score + 0.07 * (i * 0.618034 % 1 - 0.5) for i, (_, score) in enumerate(dots)]
        ax.plot([ratio for ratio, _ in dots], spread, ".", color=PLACEHOLDERS["s0"], alpha=0.45, markersize=4,
                markeredgewidth=0, zorder=2)  # fmt: skip
        ax.plot([x for x, _ in found.bins], [e.value for _, e in found.bins], color=colour, marker="o", markersize=5,
                markeredgewidth=0, zorder=5)  # fmt: skip
        for x, e in found.bins:
            if e.has_interval:
                ax.vlines(x, max(0.0, e.low), min(1.0, e.high), color=colour, linewidth=1.4, zorder=4)
        ax.axhline(0.5, **DOTTED)
        ax.axvline(0, **DOTTED)
        _ratio_axis(ax, [r for r, _ in found.dots])
        _share_axis(ax, dots=True)
        ax.set_title("win rate")
        ax.set_xlabel("length, times that of the baseline's answer", loc="right")
        told = [f"{2**x:.2g} times as long: {e}" for x, e in found.bins]
        return _svg(fig, key, title, "; ".join(told))


def reliability_bins(probabilities: Sequence[Item], outcomes: Sequence[Item], bins: int = 10) -> list[Bin]:
    """Bins of equal width over [0, 1] with the share of ones among `outcomes` (N,), Wilson; empty bins are left out.

    A pair that lacks either number is left out. Raises SettingsError for a probability outside [0, 1].
    """
    if len(probabilities) != len(outcomes):
        raise SettingsError(f"{len(probabilities)} probabilities for {len(outcomes)} outcomes.")
    filled: dict[int, list[tuple[float, Item]]] = {}
    for p, y in zip(probabilities, outcomes, strict=True):
        if p is None or y is None or math.isnan(p) or math.isnan(y):
            continue
        if not 0 <= p <= 1:
            raise SettingsError(f"a probability lies between 0 and 1, not {p:g}.")
        filled.setdefault(min(bins - 1, int(p * bins)), []).append((float(p), y))
    return [Bin(sum(p for p, _ in b) / len(b), share_interval([y for _, y in b])) for _, b in sorted(filled.items())]


def reliability(bins: Sequence[Bin], *, key: str, title: str, error: Estimate | None = None) -> str:
    """How often what a judge gave a probability came true, with intervals, over how many there are, as SVG text.

    Dotted: as sure as right. `error` is the expected calibration error, which stands above. Raises SettingsError for
    nothing to draw.
    """
    some(bins)
    with _style():
        fig = _figure(3.7)
        axes: Any = fig.subplots(2, 1, sharex=True, height_ratios=[4, 1])
        ax, below = axes
        colour, x = PLACEHOLDERS["s1"], [b.confidence for b in bins]
        ax.plot([0, 1], [0, 1], **DOTTED)
        ax.plot(x, [b.share.value for b in bins], color=colour, marker="o", markersize=5, markeredgewidth=0,
                linestyle=DASHES[0], zorder=4)  # fmt: skip
        for b in bins:
            if b.share.has_interval:
                ax.vlines(b.confidence, b.share.low, b.share.high, color=colour, linewidth=1.4, zorder=3)
        _share_axis(ax)
        below.vlines(x, 0, [b.share.n for b in bins], color=colour, linewidth=7, alpha=0.5)
        below.set_ylim(bottom=0)
        below.set_yticks([0, max(b.share.n for b in bins)], ["0", f"{max(b.share.n for b in bins):,}"])
        below.set_xlim(-0.03, 1.03)
        below.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".50", ".75", "1"])
        below.set_xlabel("probability given", loc="right")
        below.set_title("verdicts")
        ax.set_title("share that came true")
        if error is not None and math.isfinite(error.value):
            ax.set_title(f"calibration error {number(error.value, 3)}", loc="right", fontsize=9)
        told = [f"given {b.confidence:.2f}: {b.share}" for b in bins]
        return _svg(fig, key, title, "; ".join(told))


def _share_axis(ax: Axes, dots: bool = False) -> None:
    ax.set_ylim(-0.06 if dots else -0.02, 1.06 if dots else 1.02)
    ax.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".50", ".75", "1"])


def _ratio_axis(ax: Axes, ratios: Sequence[float]) -> None:
    """Powers of two, as few as can be read: the values are log2 of a ratio."""
    low, high = math.floor(min(ratios)), math.ceil(max(ratios))
    step = max(1, math.ceil((high - low) / 7))
    places = [k for k in range(low, high + 1) if k % step == 0]
    ax.set_xticks(places, [f"{2**k}" if k >= 0 else f"1/{2**-k}" for k in places])
    ax.set_xlim(min(ratios) - 0.25, max(ratios) + 0.25)
