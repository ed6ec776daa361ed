"""Figures of steerable policies: where things are drawn, that no words overlap, and what is refused."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pluralign.errors import SettingsError
from pluralign.judging import Estimate
from pluralign.judging.attributes import judge_sensing
from pluralign.judging.fronts import evaluate_front, hypervolume, simplex_grid
from pluralign.reports import radar as radar_module
from pluralign.reports import steering_figures
from pluralign.reports.radar import _rings, _share, _texts
from pluralign.reports.steering_figures import Line, Profile, error_histogram, front, radar, sweep

from .drawing import check_words, keep_figures

NAN = math.nan
FIVE = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
FOUR = ("instruction_following", "truthfulness", "honesty", "helpfulness")
METHODS = {
    "RiC": (0.57, 0.55, 0.60, 0.54, 0.67),
    "CPO": (0.59, 0.60, 0.58, 0.56, 0.57),
    "SFT": (0.39, 0.40, 0.41, 0.50, 0.54),
    "MODPO": (0.64, 0.61, 0.62, 0.71, 0.62),
    "SGA-SFT": (0.71, 0.73, 0.72, 0.61, 0.57),
    "SGA-DPO": (0.75, 0.75, 0.75, 0.71, 0.50),
}


def about(value: float, half: float = 0.03) -> Estimate:
    return Estimate(value, value - half, value + half, 100)


def profiles(names: tuple[str, ...] = FIVE) -> list[Profile]:
    return [
        Profile(label, {n: about(v) for n, v in zip(names, values, strict=False)}, strong=label == "SGA-DPO")
        for label, values in METHODS.items()
    ]


def sensed(names: tuple[str, ...] = FIVE) -> list[Any]:
    rng = np.random.default_rng(0)
    truth = rng.choice([0, 0.25, 0.5, 0.75, 1], size=(200, len(names)))
    guess = np.clip(0.6 * truth + 0.2 + 0.1 * rng.normal(size=truth.shape), 0, 1)
    return list(judge_sensing(guess, truth, names, resamples=100).values())


def report(shift: float = 0.0, reference: tuple[float, ...] = (-0.3, -0.2), noise: float = 0.25, k: int = 2) -> Any:
    rng = np.random.default_rng(1)
    grid = simplex_grid(k, 10 if k == 2 else 4)
    rewards = (np.sqrt(grid) + shift)[:, None] + noise * rng.normal(size=(len(grid), 60, k))
    names = ("helpful", "harmless", "humour")[:k]
    return evaluate_front(grid, rewards, reference=reference[:k], names=names, resamples=100)


LAMBDAS = (1, 10, 100, 500, 1000)
LINES = [
    Line("Llama-3.2-3B", LAMBDAS, [about(v) for v in (0.50, 0.53, 0.56, 0.575, 0.583)]),
    Line("Qwen3-4B", LAMBDAS, [about(v) for v in (0.45, 0.47, 0.50, 0.525, 0.532)]),
]
EXAMPLES = {
    "radar": lambda: radar(profiles(), names=FIVE, key="k", title="<t>"),
    "radar of four": lambda: radar(profiles(FOUR)[:2], names=FOUR, key="k", title="<t>"),
    "radar of six": lambda: radar(
        [Profile("a", {f"attribute {i}": about(i) for i in range(6)})],
        names=[f"attribute {i}" for i in range(6)],
        key="k",
        title="<t>",
    ),
    "errors": lambda: error_histogram(sensed(), key="k", title="<t>"),
    "errors of one": lambda: error_histogram(sensed(FIVE[:1]), key="k", title="<t>"),
    "sweep": lambda: sweep(LINES, setting="λ", unit="macro win rate", key="k", title="<t>", reference=0.5),
    "front": lambda: front({"soup": report(), "SGA": report(0.1)}, key="k", title="<t>"),
}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    keep_figures(monkeypatch, radar_module, steering_figures)


# --- every figure ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_figure_is_a_part_of_a_page(name):
    svg = EXAMPLES[name]()
    assert svg.startswith("<svg viewBox=")
    assert "<title>&lt;t&gt;</title>" in svg
    assert "</text>" in svg
    assert re.findall(r"#0[12]0[12]\d\d", svg) == []  # every colour is a variable of the page
    assert "var(--s1)" in svg
    assert EXAMPLES[name]() == svg


@pytest.mark.parametrize("name", EXAMPLES)
def test_no_words_overlap_or_leave_the_figure(name, drawn):
    check_words(EXAMPLES[name]())


# --- profiles -------------------------------------------------------------------------------------------------


def test_a_profile_is_where_its_values_are(drawn):
    """Rim at the top for the first attribute, then clockwise; the lower limit is the centre."""
    values = {"a": about(1.0), "b": about(0.5), "c": about(0.0), "d": about(-3.0)}
    fig = radar([Profile("p", values)], names=("a", "b", "c", "d"), key="k", title="t", limits=(0, 1))
    line = next(line for line in fig.axes[0].lines if line.get_marker() == "o")
    corners = np.column_stack(line.get_data())
    assert corners == pytest.approx(np.array([(0, 1), (0.5, 0), (0, 0), (0, 0), (0, 1)]), abs=1e-9)


def test_an_attribute_that_was_not_scored_breaks_the_profile(drawn):
    values = {"a": about(1.0), "c": about(0.2), "d": Estimate(NAN, NAN, NAN, 0)}
    whole = {n: about(0.5) for n in "abcd"}
    fig = radar([Profile("p", values, strong=True), Profile("q", whole, strong=True)], names="abcd", key="k", title="t")
    broken = next(line for line in fig.axes[0].lines if line.get_marker() == "o")
    assert np.isnan(broken.get_xdata()).tolist() == [False, True, False, True, False]
    assert len(fig.axes[0].patches) == 1  # only the whole one is filled


ANY_SIZE = st.one_of(st.floats(-1e6, 1e6), st.floats(-1e300, 1e300), st.floats(-1e-290, 1e-290))


@given(st.lists(ANY_SIZE, min_size=1, max_size=8))
@example([5e-324])
@example([-5e-324, 5e-324])
@example([-1e300, 1e300])
@example([1e6, math.nextafter(1e6, 2e6)])
@example([0.0])
def test_rings_are_round_and_hold_the_values_with_little_to_spare(values):
    low, high, rings = _rings([Estimate(v, NAN, NAN, 1) for v in values], None)
    step = (high - low) / rings
    slack = 1e-6 * max(abs(low), abs(high))
    assert 1 <= rings <= 5
    assert low - slack <= min(values)
    assert high + slack >= max(values)
    if max(values) - min(values) > max(1e-6 * max(map(abs, values)), 1e-298):
        assert min(values) - low < step + slack
        assert high - max(values) < step + slack
        assert float(f"{step:.1e}") == pytest.approx(step, rel=1e-6)  # two digits: 2.5 is the finest factor


@given(st.lists(ANY_SIZE, min_size=3, max_size=3))
@example([5e-324] * 3)
def test_the_rings_of_any_values_have_texts_of_their_own_and_places_within(values):
    low, high, rings = _rings([Estimate(v, NAN, NAN, 1) for v in values], None)
    texts = _texts(low, high, rings)
    assert len(set(texts)) == rings + 1
    assert max(map(len, texts)) < 25
    places = [_share(v, low, high) for v in values]
    assert all(0 <= place < 1.001 for place in places)


def test_the_smallest_number_can_be_drawn_and_a_monstrous_one_is_refused():
    """5e-324 is the smallest double: its rings end at 1e-300."""
    tiny = [Profile("p", dict.fromkeys("abc", Estimate(5e-324, NAN, NAN, 1)))]
    assert ">1e−300</text>" in radar(tiny, names="abc", key="k", title="t")
    assert _texts(0.0, 1.0, 4) == [".00", ".25", ".50", ".75", "1.00"]
    huge = [Profile("p", dict.fromkeys("abc", Estimate(1e301, NAN, NAN, 1)))]
    with pytest.raises(SettingsError, match=r"1e\+301 cannot be drawn"):
        radar(huge, names="abc", key="k", title="t")


def test_profiles_that_cannot_be_drawn():
    with pytest.raises(SettingsError, match="three attributes"):
        radar(profiles(), names=FIVE[:2], key="k", title="t")
    with pytest.raises(SettingsError, match="nothing to draw"):
        radar([], names=FIVE, key="k", title="t")
    with pytest.raises(SettingsError, match="nothing was scored"):
        radar([Profile("p", {})], names=FIVE, key="k", title="t")
    with pytest.raises(SettingsError, match="told apart"):
        radar(profiles() * 2, names=FIVE, key="k", title="t")


# --- errors ---------------------------------------------------------------------------------------------------


def test_bars_are_shares_of_prompts(drawn):
    one = judge_sensing([[0.1], [0.35], [0.45], [0.5]], [[0.0], [0.25], [0.75], [1.0]], ("a",), resamples=100)["a"]
    ax = error_histogram([one], key="k", title="t").axes[0]
    assert [round(bar.get_height(), 6) for bar in ax.containers[0]] == [0, 0.5, 0, 0.25, 0, 0.25, 0, 0, 0, 0]
    outline = next(p for p in ax.patches if hasattr(p, "get_data"))
    assert outline.get_data().values.tolist() == [0, 0, 0.5, 0, 0, 0.5, 0, 0, 0, 0]
    assert ax.get_title(loc="right").startswith("error .25 (one score .38), R² .42")


def test_every_attribute_has_its_panel(drawn):
    fig = error_histogram(sensed(), key="k", title="t")
    assert [ax.get_title() or ax.get_title(loc="left") for ax in fig.axes] == list(FIVE)
    with pytest.raises(SettingsError, match="nothing to draw"):
        error_histogram([], key="k", title="t")


# --- sweeps ---------------------------------------------------------------------------------------------------


def test_lambda_has_a_logarithmic_axis_with_its_own_values(drawn):
    ax = sweep(LINES[:1], setting="λ", unit="u", key="k", title="t").axes[0]
    assert ax.lines[0].get_xdata() == pytest.approx([math.log10(x) for x in LAMBDAS])
    assert [t.get_text().strip() for t in ax.get_xticklabels()] == ["1", "10", "100", "500", "1000"]
    assert "logarithmic" in ax.get_xlabel()
    plain = sweep([Line("x", (0, 2, 4), [about(1.0)] * 3)], setting="s", unit="u", key="k", title="t").axes[0]
    assert plain.lines[0].get_xdata() == pytest.approx([0, 2, 4])
    assert plain.get_xlabel() == "s"


def test_an_estimate_without_an_interval_has_no_bar(drawn):
    values = [about(1.0), Estimate(2.0, NAN, NAN, 1), Estimate(NAN, NAN, NAN, 0)]
    ax = sweep([Line("x", (1, 2, 3), values)], setting="s", unit="u", key="k", title="t").axes[0]
    assert len(ax.collections[0].get_segments()) == 1
    with pytest.raises(SettingsError, match='"x" has 3 estimates for 2 values'):
        sweep([Line("x", (1, 2), values)], setting="s", unit="u", key="k", title="t")


# --- fronts ---------------------------------------------------------------------------------------------------


def test_the_shaded_area_is_the_hypervolume(drawn):
    made = report(noise=0.6)
    ax = front({"s": made}, key="k", title="t").axes[0]
    edge = next(line for line in ax.lines if len(line.get_xdata()) > 11)
    x, y = (np.asarray(v) for v in edge.get_data())
    area = float(((y[1:] + y[:-1]) / 2 - made.reference[1]) @ np.diff(x))
    means = [[p["helpful"].value, p["harmless"].value] for p in made.points]
    assert area == pytest.approx(hypervolume(means, made.reference))
    assert area == pytest.approx(made.hypervolume.value)


def test_dominated_points_are_hollow(drawn):
    made = report(noise=1.5)
    ax = front({"s": made}, key="k", title="t").axes[0]
    marks = [line for line in ax.lines if line.get_marker() == "o"]
    assert [len(m.get_xdata()) for m in marks] == [len(made.front), 11 - len(made.front)]
    assert 0 < len(made.front) < 11


def test_three_objectives_have_no_area(drawn):
    ax = front({"s": report(reference=(-0.3,) * 3, k=3)}, key="k", title="t", axes=(0, 2)).axes[0]
    assert ax.get_xlabel() == "helpful"
    assert ax.get_title(loc="left") == "humour"
    assert not any(line.get_marker() == "+" for line in ax.lines)


def test_fronts_that_cannot_share_a_figure():
    with pytest.raises(SettingsError, match="reference points"):
        front({"a": report(), "b": report(reference=(0.0, 0.0))}, key="k", title="t")
    with pytest.raises(SettingsError, match="two of 2 objectives"):
        front({"a": report()}, key="k", title="t", axes=(0, 2))
