"""Figures as matplotlib laid them out: what a test needs to see where things are, and that no words overlap."""

from __future__ import annotations

import itertools
from types import ModuleType
from typing import Any

import pytest


def keep_figures(monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> None:
    """The functions of `modules` give the matplotlib figure instead of its SVG, laid out."""

    def keep(fig: Any, *_: Any) -> Any:
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        FigureCanvasAgg(fig).draw()
        return fig

    for module in modules:
        monkeypatch.setattr(module, "_svg", keep)


def words(fig: Any) -> list[tuple[str, Any]]:
    """(text, box in pixels) of all that is written."""
    from matplotlib.text import Text

    # a tick outside of its axis' limits is not drawn
    shown = [t for t in fig.findobj(Text) if t.get_text().strip() and t.get_visible() and t.get_in_layout()]
    boxes = [(text.get_text(), text.get_window_extent()) for text in shown if not _is_hidden_tick(fig, text)]
    return [(text, box) for text, box in boxes if box.width and box.height]


def check_words(fig: Any, least: int = 5) -> None:
    """No two texts overlap, and none leaves the figure."""
    boxes = words(fig)
    assert len(boxes) > least
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        wide, tall = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert wide <= 1 or tall <= 2, (one, other)
    for text, box in boxes:
        assert box.x0 >= -1, text
        assert box.x1 <= fig.bbox.x1 + 1, text
        assert box.y0 >= -1, text
        assert box.y1 <= fig.bbox.y1 + 1, text


def _is_hidden_tick(fig: Any, text: Any) -> bool:
    for ax in fig.axes:
        if not ax.axison and any(text in axis.get_ticklabels() for axis in (ax.xaxis, ax.yaxis)):
            return True
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in axis.get_major_ticks():
                if tick.label1 is text and not low - 1e-9 <= tick.get_loc() <= high + 1e-9:
                    return True
    return False
