"""What the figures draw."""

from __future__ import annotations

import math
import re

import pytest

from pluralign.judging import Estimate
from pluralign.reports import read_run
from pluralign.reports.charts import charts, other_charts, smooth, thin, window, worst_first
from pluralign.reports.figures import Bar, Curve, bars, curves, shorten
from pluralign.reports.runs import Evaluation, EvaluationRow, Series

from .conftest import write_run

NAN = math.nan


def series(*values: float, low: tuple[float, ...] = (), high: tuple[float, ...] = ()) -> Series:
    blank = (NAN,) * len(values)
    return Series(tuple(range(len(values))), values, low or blank, high or blank)


def marks(svg: str) -> list[tuple[float, float]]:
    """The places of the data marks (clipped to the axes, which ticks are not), from left to right."""
    clipped = re.findall(r'<g clip-path="[^"]+">(.*?)</g>', svg, flags=re.DOTALL)
    found = [re.findall(r'<use [^>]*?x="([\d.]+)" y="([\d.]+)"', group) for group in clipped]
    return sorted((float(x), float(y)) for group in found for x, y in group)


def test_a_curve_is_where_its_values_are():
    svg = curves([Curve("loss", series(0.0, 1.0, 3.0), marked=True)], key="k", title="t", unit="nats")
    (x0, y0), (x1, y1), (x2, y2) = marks(svg)
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.02)
    assert (y1 - y2) == pytest.approx(2 * (y0 - y1), abs=0.05)  # up is less y
    assert ">nats</text>" in svg
    assert ">step</text>" in svg


def test_a_band_is_drawn_only_where_there_is_an_interval():
    def with_(**bounds: tuple[float, ...]) -> str:
        return curves([Curve("x", series(1.0, 2.0, 3.0, **bounds))], key="k", title="t", unit="u")

    assert "fill-opacity: 0.16" not in with_()
    assert "fill-opacity: 0.16" in with_(low=(0.0, 1.0, 2.0), high=(2.0, 3.0, 4.0))


def test_an_accuracy_axis_stays_within_zero_and_one():
    svg = curves([Curve("x", series(0.9, 1.0))], key="k", title="t", unit="u", limits=(0, 1))
    labels = [float(t) for t in re.findall(r">(\d\.\d+)</text>", svg)]
    assert labels
    assert max(labels) <= 1


def test_names_are_drawn_as_they_are():
    svg = curves([Curve("$x_1$", series(1, 2)), Curve("a<b>&", series(2, 1))], key="k", title="<t>", unit="u")
    assert ">$x_1$</text>" in svg
    assert ">a&lt;b&gt;&amp;</text>" in svg
    assert "<title>&lt;t&gt;</title>" in svg


def test_a_glyph_that_the_measuring_font_lacks_is_no_warning():
    assert "日本語" in bars([Bar("日本語", Estimate(0.5, 0.4, 0.6, 9))], key="k", title="t", unit="u")


def test_a_bar_shows_value_and_interval():
    rows = [Bar("base", Estimate(0.5, 0.4, 0.6, 9)), Bar("dpo", Estimate(-0.25, NAN, NAN, 0))]
    svg = bars(rows, key="k", title="t", unit="share")
    for text in ("base", "dpo", ".50", "−.25", "share"):
        assert f">{text}</text>" in svg


@pytest.mark.parametrize(
    ("text", "short"),
    [("short", "short"), ("a\nb\x00c", "a b c"), ("x" * 9 + "y" * 9, "xxx…yyyy")],
)
def test_long_names_are_cut_in_the_middle(text, short):
    assert shorten(text, 8) == short


def test_smoothing_by_hand():
    found = smooth(series(1.0, 2.0, 6.0, NAN, 4.0), 3)
    assert found.values == (1.5, 3.0, 4.0, 5.0, 4.0)
    assert smooth(series(1.0, 2.0), 1).values == (1.0, 2.0)


def test_thinning_keeps_ends_and_spikes():
    values = [math.sin(i / 50) for i in range(5000)]
    values[1234], values[3210] = 99.0, -99.0
    found = thin(series(*values), 200)
    assert len(found.steps) <= 200
    assert (found.steps[0], found.steps[-1]) == (0, 4999)
    assert found.values[found.steps.index(1234)] == 99.0
    assert found.values[found.steps.index(3210)] == -99.0
    assert list(found.steps) == sorted(set(found.steps))


def test_the_panels_of_a_run(single):
    run = read_run(single)
    assert [c.title for c in charts(run, "a")] == [
        "Loss",
        "Accuracy",
        "Margin",
        "Log-probability drift",
        "Log-probability",
        "KL to the reference",
        "Length",
    ]
    assert [c.title for c in charts(run, "a", optimiser=True)] == ["Learning rate", "Gradient norm", "Speed"]
    assert [c.title for c in other_charts(run, "a")] == ["reference cache hits"]
    assert window(run) == 8


def test_a_learning_rate_schedule_is_not_smoothed(tmp_path):
    rows = [{"step": s, "phase": "train", "learning_rate": 1.0 if s == 50 else 0.0} for s in range(100)]
    svg = charts(read_run(write_run(tmp_path / "r", {}, rows)), "a", optimiser=True)[0].svg
    lines = [d for d in re.findall(r'<path d="([^"]+)" clip-path', svg) if d.count("L") > 2]
    assert len(lines) == 1  # no raw line behind an average
    heights = [float(y) for y in re.findall(r"[ML] [\d.]+ ([\d.]+)", lines[0])]
    assert len(set(heights)) == 2


def evaluation(**groups: float) -> Evaluation:
    def row(value: float) -> EvaluationRow:
        return EvaluationRow("dpo", {name: Estimate(value, NAN, NAN, 9) for name in ("accuracy", "loss")})

    return Evaluation((row(0.5),), groups={name: (row(v),) for name, v in groups.items()})


def test_the_worst_group_is_the_lowest_accuracy_or_the_highest_loss():
    found = evaluation(a=0.6, b=0.4, c=NAN, d=0.5)
    assert worst_first(found, "accuracy") == ["b", "d", "a", "c"]
    assert worst_first(found, "loss") == ["a", "d", "b", "c"]
