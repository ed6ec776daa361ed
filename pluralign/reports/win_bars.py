"""Win rates and what they are made of, and how far the order of showing decides, as inline SVG like that of `figures`.

Each system or judge has three lines: its name and n, a bar with an interval, and a thin strip with the counts behind
the number. The counts stand there as text too, so that no colour has to be told from another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..judging.statistics import Estimate
from ..judging.verdicts import Judgement
from .figures import INKS, PLACEHOLDERS, _figure, _style, _svg, shorten
from .signs import number, some
from .wording import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..judging.position import PositionReport

__all__ = ["Tally", "position_strip", "tally", "win_bars"]

HEIGHT = 0.52  # inches of one system
NAME, BAR, COUNTS, STRIP, NEXT = 0.0, 0.62, 1.2, 1.64, 2.4  # where its lines stand, and the next one begins
Look = tuple[str, float, bool]  # colour, opacity, hatched
Part = tuple[str, int, Look]  # label, size


@dataclass(frozen=True, slots=True)
class Tally:
    """The comparisons of one system by outcome. `split`: games that contradict each other, a tie in the rate.

    `unread`: comparisons with a game that could not be read; they are no part of the rate.
    """

    label: str
    rate: Estimate
    wins: int
    ties: int
    split: int
    losses: int
    unread: int


def tally(label: str, rate: Estimate, judgements: Sequence[Judgement]) -> Tally:
    """The counts behind a rate."""
    outcomes = [j.outcome if j.consistent is not False else "split" for j in judgements]
    won, tied, split, lost, unread = (outcomes.count(o) for o in ("win", "tie", "split", "loss", None))
    return Tally(label, rate, won, tied, split, lost, unread)


def win_bars(tallies: Sequence[Tally], *, key: str, title: str, unit: str = "win rate, ties half") -> str:
    """Win rates with their intervals, half marked, over the counts of wins, ties and losses, as SVG text.

    Raises SettingsError for nothing to draw.
    """
    some(tallies)
    with _style():
        fig = _figure(1.05 + HEIGHT * (len(tallies) * NEXT - 0.4) / NEXT * 1.45)
        ax = fig.add_subplot()
        for i, t in enumerate(tallies):
            top = i * NEXT
            counts = [f"{t.wins:,} won", f"{t.ties:,} tied", f"{t.split:,} by order" if t.split else "",
                      f"{t.losses:,} lost"]  # fmt: skip
            _words(ax, top, t.label, _sizes(t.rate.n, t.unread), ", ".join(filter(None, counts)))
            _rate(ax, top + BAR, t.rate, 0.0, "s1")
            _strip(ax, top + STRIP, _won(t))
        _frame(ax, len(tallies), unit)
        parts = _won(Tally("", tallies[0].rate, 1, 1, any(t.split for t in tallies), 1, 0))
        _legend(fig, [p for p in parts if p[1]])
        told = [f"{t.label}: {t.rate}; {t.wins} won, {t.ties} tied, {t.split} tied because the order decided, "
                f"{t.losses} lost, {t.unread} not read" for t in tallies]  # fmt: skip
        return _svg(fig, key, title, "; ".join(told))


def position_strip(reports: Mapping[str, PositionReport], *, key: str, title: str) -> str:
    """How often each judge preferred what it was shown first, from one half, and how its two games ended, as SVG text.

    Raises SettingsError for nothing to draw.
    """
    some(list(reports))
    with _style():
        fig = _figure(1.05 + HEIGHT * (len(reports) * NEXT - 0.4) / NEXT * 1.45)
        ax = fig.add_subplot()
        told = []
        for i, (judge, r) in enumerate(reports.items()):
            top, finding = i * NEXT, _finding(r)
            counts = f"same verdict {short(r.consistency)}; {r.always_first:,} always first, {r.always_second:,} second"
            _words(ax, top, judge, finding, counts)
            _rate(ax, top + BAR, r.first_preferred, 0.5, "s2" if r.biased else "s1")
            _strip(ax, top + STRIP, _ordered(r))
            told.append(f"{judge}: first preferred {r.first_preferred}, same verdict {r.consistency}, {finding}, "
                        f"{r.always_first} always first, {r.always_second} always second")  # fmt: skip
        _frame(ax, len(reports), "share of the points for the response shown first")
        _legend(fig, _ordered(next(iter(reports.values()))))
        return _svg(fig, key, title, "; ".join(told))


def _sizes(n: int, unread: int) -> str:
    return f"n = {n:,}" + (f", {unread:,} not read" if unread else "")


def _finding(r: PositionReport) -> str:
    if not r.first_preferred.n:
        return "not known"
    if not r.biased:
        return "no bias found"
    return f"biased to the {'first' if r.advantage.value > 0 else 'second'}"


def _won(t: Tally) -> list[Part]:
    return [
        ("won", t.wins, ("s1", 0.9, False)),
        ("tied", t.ties, ("s0", 0.55, False)),
        ("by order", t.split, ("s0", 0.9, True)),
        ("lost", t.losses, ("s2", 0.9, False)),
    ]


def _ordered(r: PositionReport) -> list[Part]:
    n = r.consistency.n
    same = round(r.consistency.value * n) if n else 0
    return [
        ("same", same, ("s1", 0.9, False)),
        ("first twice", r.always_first, ("s2", 0.9, False)),
        ("second twice", r.always_second, ("s3", 0.9, True)),
        ("other", max(0, n - same - r.always_first - r.always_second), ("s0", 0.55, False)),
    ]


def _words(ax: Axes, top: float, label: str, right: str, counts: str) -> None:
    place: Any = ("axes fraction", "data")
    ax.annotate(shorten(label, 48 - len(right)), (0, top), xycoords=place, va="center", fontsize=10)
    ax.annotate(right, (1, top), xycoords=place, va="center", ha="right", fontsize=9, color=INKS["muted"])
    ax.annotate(counts, (0, top + COUNTS), xycoords=place, va="center", fontsize=9, color=INKS["muted"])


def _rate(ax: Axes, y: float, e: Estimate, start: float, colour: str) -> None:
    ink = PLACEHOLDERS[colour]
    if not math.isfinite(e.value):
        ax.annotate("not scored", (start, y), xytext=(4, 0), textcoords="offset points", va="center", fontsize=10,
                    color=INKS["muted"])  # fmt: skip
        return
    ax.barh(y, e.value - start, left=start, height=0.5, color=ink, alpha=0.42, linewidth=0, zorder=3)
    if e.has_interval:
        ax.hlines(y, e.low, e.high, color=ink, linewidth=2.2, zorder=5)
    ax.plot([e.value], [y], "o", color=ink, markersize=4.5, markeredgewidth=0, zorder=6)
    ax.annotate(number(e.value, 2), (e.high if e.has_interval else e.value, y), xytext=(6, 0), va="center",
                textcoords="offset points", fontsize=10, zorder=7)  # fmt: skip


def _strip(ax: Axes, y: float, parts: Sequence[Part]) -> None:
    """Shares of one whole, side by side from 0 to 1; nothing where there is nothing to share."""
    whole, at = sum(size for _, size, _ in parts), 0.0
    for _, size, look in parts:
        if size:
            ax.barh(y, size / whole, left=at, height=0.2, zorder=3, **_paint(look))
            at += size / whole


def _paint(look: Look) -> dict[str, Any]:
    colour, alpha, hatched = look
    ink = PLACEHOLDERS[colour]
    if hatched:
        return {"facecolor": "none", "edgecolor": ink, "hatch": "//////", "linewidth": 0.6}
    return {"facecolor": ink, "alpha": alpha, "linewidth": 0}


def _frame(ax: Axes, rows: int, unit: str) -> None:
    ax.set_ylim(rows * NEXT - 0.55, -0.5)
    ax.set_xlim(0, 1.09)
    ax.set_yticks([])
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".50", ".75", "1"])
    ax.grid(axis="y", visible=False)
    for i in range(rows):  # only through the bars: a line through the words would be noise
        ax.vlines([0, 0.25, 0.75, 1], i * NEXT + BAR - 0.3, i * NEXT + BAR + 0.3, color=INKS["rule"], linewidth=0.7)
        ax.vlines(0.5, i * NEXT + BAR - 0.36, i * NEXT + BAR + 0.36, color=INKS["muted"], linewidth=0.9,
                  linestyle=(0, (2, 2)), zorder=4)  # fmt: skip
    ax.spines["bottom"].set_visible(False)
    ax.tick_params(axis="x", length=0)
    ax.set_xlabel(unit, loc="left")


def _legend(fig: Any, parts: Sequence[Part]) -> None:
    from matplotlib.patches import Patch

    signs = [Patch(label=label, **_paint(look)) for label, _, look in parts]
    options: dict[str, Any] = {"columnspacing": 1.2, "borderaxespad": 0.3, "borderpad": 0.2}
    fig.legend(handles=signs, loc="outside upper left", ncols=len(signs), handlelength=1.5, **options)
