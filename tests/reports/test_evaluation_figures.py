"""Figures of an evaluation: they hold the numbers, no words overlap, and what cannot be drawn is refused."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pluralign.errors import SettingsError
from pluralign.judging.position import position_report
from pluralign.judging.statistics import Estimate, mean_interval, proportion_interval
from pluralign.judging.verdicts import Judgement, Verdict
from pluralign.reports import matrices, scatter, win_bars
from pluralign.reports.matrices import agreement_heat, category_heat
from pluralign.reports.scatter import (
    Bin,
    Point,
    length_bins,
    length_effect,
    length_scatter,
    reliability,
    reliability_bins,
)
from pluralign.reports.win_bars import Tally, position_strip, tally
from pluralign.reports.win_bars import win_bars as draw_wins

from .drawing import check_words, keep_figures

NAN = math.nan
NOTHING = Estimate(NAN, NAN, NAN, 0, missing=805)
LONG = "pluralign-inspo-dpo-beta-0.1-seed-17-lora"


def about(value: float, half: float = 0.04, n: int = 805) -> Estimate:
    return Estimate(value, value - half, value + half, n)


TALLIES = [
    Tally(LONG, Estimate(0.63, 0.59, 0.66, 795, missing=10), 1402, 31, 40, 1322, 10),
    Tally("sft", about(0.37), 231, 20, 60, 494, 0),
    Tally("base", about(0.97, 0.03), 805, 0, 0, 0, 0),
    Tally("broken", NOTHING, 0, 0, 0, 0, 805),
]
POSITIONS = {
    "openai:gpt-4.1": position_report([1.0, 0.0, 1.0, 0.5] * 20, [1.0, 0.0, 0.0, 0.5] * 20),
    "always the first of the two": position_report([1.0] * 40, [0.0] * 40),
    "always the second": position_report([0.0] * 400, [1.0] * 400),
    "garbage": position_report([None] * 4, [None] * 4),
}
CATEGORIES = {
    name: {"base": proportion_interval(i, 20), "sft": proportion_interval(20, 20), LONG: about(0.5, n=20)}
    for i, name in enumerate(["writing", "mathematics and logic", "humanities", "stem"])
}
SIX = {c: {f"system number {k} of six": about(k / 6) for k in range(6)} for c in CATEGORIES}
JUDGES = ["openai:gpt-4.1", "embedded reward model", "length", "http://localhost:8000/v1#qwen3-4b"]
KAPPAS = {(a, b): about(0.2 * i - 0.3, 0.1) for i, a in enumerate(JUDGES) for b in JUDGES[i + 1 :]}
LENGTHS = [100 * 2 ** (i % 7) for i in range(70)]
POINTS = [Point(f"system {i}", about(1500.0 + 300 * i, 90), about(0.3 + 0.1 * i)) for i in range(4)]
EXAMPLES: dict[str, Any] = {
    "wins": lambda: draw_wins(TALLIES, key="k", title="<t>"),
    "wins of one": lambda: draw_wins(TALLIES[:1], key="k", title="<t>"),
    "nothing read": lambda: draw_wins(TALLIES[3:], key="k", title="<t>"),
    "position": lambda: position_strip(POSITIONS, key="k", title="<t>"),
    "agreement": lambda: agreement_heat(JUDGES, KAPPAS, key="k", title="<t>", unit="Cohen's kappa"),
    "categories": lambda: category_heat(
        CATEGORIES, ["base", "sft", LONG], key="k", title="<t>", limits=(0, 1), reference=0.5
    ),
    "six systems": lambda: category_heat(SIX, list(SIX["stem"]), key="k", title="<t>", reference=0.5),
    "lengths": lambda: length_scatter(POINTS, baseline=1700, key="k", title="<t>"),
    "length effect": lambda: length_effect(
        length_bins(LENGTHS, [800] * 70, [float(a > 800) for a in LENGTHS]), key="k", title="<t>"
    ),
    "reliability": lambda: reliability(
        [Bin(0.05 + 0.1 * i, proportion_interval(i, 10)) for i in range(10)], key="k", title="<t>", error=about(0.062)
    ),
}  # fmt: skip


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    keep_figures(monkeypatch, win_bars, matrices, scatter)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_figure_is_a_part_of_a_page_and_says_in_words_what_it_shows(name):
    svg = EXAMPLES[name]()
    assert svg.startswith("<svg viewBox=")
    assert "<title>&lt;t&gt;</title>" in svg
    assert re.findall(r"#0[12]0[12]\d\d", svg) == []  # every colour is a variable of the page
    assert not re.search(r"#[0-9a-f]{6}\b", svg)
    told = re.search(r"<desc>(.+?)</desc>", svg)
    assert told is not None
    assert "n = " in told[1] or name == "nothing read"
    assert EXAMPLES[name]() == svg
    ids = re.findall(r' id="([^"]+)"', svg)
    assert len(ids) == len(set(ids))
    assert all(i.startswith("k-") for i in ids)


@pytest.mark.parametrize("name", EXAMPLES)
def test_no_words_overlap_or_leave_the_figure(name, drawn):
    check_words(EXAMPLES[name]())


# --- win rates ------------------------------------------------------------------------------------------------


def game(outcome: Any, first: Any = "a") -> Verdict:
    return Verdict(outcome, first)


def test_a_tally_by_hand():
    said = [("win", "win"), ("win", "loss"), ("tie", "tie"), ("loss", "loss"), ("win", None), ("tie", "win")]
    found = tally("s", about(0.5), [Judgement(f"{i}", "j", (game(a), game(b, "b"))) for i, (a, b) in enumerate(said)])
    assert (found.wins, found.ties, found.split, found.losses, found.unread) == (1, 1, 2, 1, 1)
    single = tally("s", about(0.5), [Judgement("x", "j", (game("loss"),)), Judgement("y", "j", ())])
    assert (single.losses, single.unread) == (1, 1)


def test_win_bars_are_where_the_rates_are_and_strips_where_the_counts_are(drawn):
    one = Tally("s", Estimate(0.6, 0.5, 0.7, 10), 5, 2, 1, 2, 3)
    ax = draw_wins([one], key="k", title="t").axes[0]
    places = [(round(p.get_x(), 6), round(p.get_width(), 6)) for p in ax.patches]
    assert places == [(0, 0.6), (0, 0.5), (0.5, 0.2), (0.7, 0.1), (0.8, 0.2)]  # the rate; 5, 2, 1, 2 of 10
    interval = [c.get_segments()[0][:, 0].tolist() for c in ax.collections]
    assert [0.5, 0.7] in interval
    texts = [t.get_text() for t in ax.texts]
    assert texts == ["s", "n = 10, 3 not read", "5 won, 2 tied, 1 by order, 2 lost", ".60"]


def test_the_half_is_marked(drawn):
    ax = draw_wins(TALLIES[:1], key="k", title="t").axes[0]
    halves = [c for c in ax.collections if c.get_segments()[0][:, 0].tolist() == [0.5, 0.5]]
    assert len(halves) == 1


def test_a_bias_of_position_is_named_and_drawn_from_one_half(drawn):
    ax = position_strip(POSITIONS, key="k", title="t").axes[0]
    texts = [t.get_text() for t in ax.texts]
    findings = [t for t in texts if "bias" in t or t == "not known"]
    # 20 of the first judge's 80 comparisons went to the first twice, none to the second
    assert findings == ["biased to the first", "biased to the first", "biased to the second", "not known"]
    bars = [(round(p.get_x(), 6), round(p.get_width(), 6)) for p in ax.patches]
    assert bars[0] == (0.5, 0.125)  # of 80 comparisons 20 give the first 1, the others 1/2: .625
    assert (0.5, 0.5) in bars
    assert (0.5, -0.5) in bars
    assert "not scored" in texts


# --- matrices -------------------------------------------------------------------------------------------------


def cells(ax: Any) -> dict[tuple[int, int], tuple[str, float]]:
    """(row, column): (colour, opacity)."""
    return {
        (round(p.get_y() + 0.47), round(p.get_x() + 0.48)): (p.get_facecolor()[:3], round(p.get_alpha(), 4))
        for p in ax.patches
    }


def test_a_cell_is_the_deeper_the_farther_from_chance(drawn):
    found = {"c": {"a": about(1.0), "b": about(0.5), "d": about(0.25), "e": NOTHING}}
    ax = category_heat(found, list("abde"), key="k", title="t", limits=(0, 1), reference=0.5).axes[0]
    got = cells(ax)
    assert [got[0, k][1] for k in range(4)] == [0.6, 0.0, 0.3, 0.12]
    assert got[0, 0][0] == got[0, 1][0] != got[0, 2][0]
    assert [t.get_text() for t in ax.texts] == ["1.00", "± .04", ".50", "± .04", ".25", "± .04", "–"]
    plain = category_heat({"c": {"a": about(2.0), "b": about(8.0)}}, "ab", key="k", title="t").axes[0]
    assert [cells(plain)[0, k][1] for k in range(2)] == [0.0, 0.6]  # of one colour, from least to most


def test_an_agreement_stands_once_below_the_diagonal(drawn):
    found = {("x", "y"): about(0.5, 0.1), ("x", "z"): about(-0.25, 0.1), ("y", "z"): about(0.0, 0.1)}
    ax = agreement_heat(list("xyz"), found, key="k", title="t", unit="kappa").axes[0]
    assert {place: alpha for place, (_, alpha) in cells(ax).items()} == {(1, 0): 0.3, (2, 0): 0.15, (2, 1): 0.0}
    assert [t.get_text() for t in ax.texts][::2] == [".50", "−.25", ".00"]


def test_matrices_that_cannot_be_read_are_refused():
    with pytest.raises(SettingsError, match="2 to 8 judges"):
        agreement_heat(["one"], {}, key="k", title="t", unit="u")
    with pytest.raises(SettingsError, match="cannot be read"):
        category_heat({"c": {}}, list("abcdefgh"), key="k", title="t")
    with pytest.raises(SettingsError, match="nothing to draw"):
        category_heat({}, ["a"], key="k", title="t")


# --- lengths --------------------------------------------------------------------------------------------------


def test_length_bins_by_hand():
    """Ratios 1/2, 1, 2, 4 in two bins: log2 -1 and 0, then 1 and 2. One without a score, two without a ratio."""
    found = length_bins([50, 100, 200, 400, 100, 0, 100], [100] * 6 + [0], [0.0, 1.0, 1.0, 0.5, None, 1.0, 1.0], bins=2)
    assert [x for x, _ in found.bins] == [-0.5, 1.5]
    assert [e.value for _, e in found.bins] == [0.5, 0.75]
    assert found.dots == ((-1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (2.0, 0.5))
    assert found.left_out == 3
    assert length_bins([], [], []).bins == ()


@settings(deadline=None)  # the first example imports scipy
@given(
    st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500), st.sampled_from([0.0, 0.5, 1.0, None])), max_size=60)
)
def test_no_comparison_is_lost_or_counted_twice(rows):
    a, b, scores = ([row[k] for row in rows] for k in range(3))
    found = length_bins(a, b, scores)
    assert sum(e.n for _, e in found.bins) + found.left_out == len(rows)
    assert [x for x, _ in found.bins] == sorted(x for x, _ in found.bins)


def test_a_judge_that_likes_length_lets_the_line_rise(drawn):
    fig = EXAMPLES["length effect"]()
    line = next(line for line in fig.axes[0].lines if line.get_marker() == "o")
    rates = list(line.get_ydata())
    assert rates == sorted(rates)
    assert (rates[0], rates[-1]) == (0.0, 1.0)


def test_many_comparisons_are_thinned(drawn):
    a = [100 + i % 977 for i in range(2000)]
    fig = length_effect(length_bins(a, [500] * 2000, [1.0] * 2000), key="k", title="t")
    dots = next(line for line in fig.axes[0].lines if line.get_marker() == ".")
    assert len(dots.get_xdata()) == 400


def test_a_system_is_at_its_length_and_rate(drawn):
    fig = length_scatter([*POINTS[:2], Point("x", about(10), NOTHING)], baseline=1700, key="k", title="t")
    places = [(line.get_xdata()[0], line.get_ydata()[0]) for line in fig.axes[0].lines if line.get_marker() in "os^"]
    assert places == [(1500, 0.3), (1800, 0.4)]
    with pytest.raises(SettingsError, match="no system has"):
        length_scatter([Point("x", about(10), NOTHING)], baseline=None, key="k", title="t")


# --- reliability ----------------------------------------------------------------------------------------------


def test_reliability_bins_by_hand():
    found = reliability_bins([0.05, 0.07, 0.55, 1.0, None, 0.5], [0, 1, 1, 1, 1, None], bins=10)
    assert [b.confidence for b in found] == pytest.approx([0.06, 0.55, 1.0])
    assert [(b.share.value, b.share.n) for b in found] == [(0.5, 2), (1.0, 1), (1.0, 1)]
    with pytest.raises(SettingsError, match=r"not 1\.5"):
        reliability_bins([1.5], [1])
    with pytest.raises(SettingsError, match="nothing to draw"):
        reliability([], key="k", title="t")


def test_a_calibrated_judge_lies_on_the_diagonal(drawn):
    bins = reliability_bins([0.25] * 4 + [0.75] * 4, [1, 0, 0, 0, 1, 1, 1, 0], bins=2)
    ax, below = reliability(bins, key="k", title="t", error=mean_interval([0.0, 0.0])).axes
    line = next(line for line in ax.lines if line.get_marker() == "o")
    assert list(line.get_xdata()) == list(line.get_ydata()) == [0.25, 0.75]
    assert [s[1][1] for s in below.collections[0].get_segments()] == [4, 4]
    assert ax.get_title(loc="right") == "calibration error .000"
