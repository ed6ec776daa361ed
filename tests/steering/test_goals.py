"""RiC: preferences to target scores, the wording and its inverse, and what an online round keeps."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given as over
from hypothesis import settings
from hypothesis import strategies as st

from pluralign.attributes import ScoreForm, fit_scales
from pluralign.errors import PluralignError, SettingsError
from pluralign.records import Demonstration, Message, messages
from pluralign.steering.goals import CODE_RANGE, draw_goals, keep, online_round, ranges_of, target_scores
from pluralign.terms import Scores

TWO = {"harmless": CODE_RANGE, "helpful": CODE_RANGE}


def weights(*p: float) -> dict[str, float]:
    return dict(zip(("harmless", "helpful", "humour"), p, strict=False))


# Preferences to target scores


@pytest.mark.parametrize(
    ("p", "expected"), [((0.3, 0.7), (0.88, 4.4)), ((0.1, 0.9), (-2.64, 4.4)), ((0.5, 0.5), (4.4, 4.4))]
)
def test_linf_by_hand(p, expected) -> None:
    """lo + min(2 p, 1) x 8.8."""
    assert tuple(target_scores(weights(*p), TWO).values()) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("l2", (0.6, 0.8 * 10 - 5)),  # .3/.5, .4/.5 of (0, 1) and (-5, 5); 0 of the third
        ("linear", (3 / 7, 40 / 7 - 5)),
        ("linf", (1.0, 5.0)),  # 3 x 3/7 > 1
    ],
)
def test_the_other_maps_by_hand(how, expected) -> None:
    ranges = {"harmless": (0.0, 1.0), "helpful": (-5.0, 5.0), "humour": (2.0, 3.0)}
    found = target_scores(weights(3 / 7, 4 / 7, 0.0), ranges, how)
    assert tuple(found.values()) == pytest.approx((*expected, 2.0))


@over(st.lists(st.floats(0.001, 1), min_size=1, max_size=3), st.sampled_from(["linf", "l2", "linear"]))
@settings(max_examples=60, deadline=None)
def test_targets_lie_in_their_ranges_and_follow_the_weights(raw, how) -> None:
    p = weights(*(x / sum(raw) for x in raw))
    ranges = dict.fromkeys(p, (-1.0, 2.0))
    found = target_scores(p, ranges, how)
    assert all(-1.0 <= s <= 2.0 + 1e-9 for s in found.values())
    order = sorted(p, key=lambda n: p[n])
    asked = [found[n] for n in order]
    assert all(a <= b + 1e-9 for a, b in itertools.pairwise(asked))
    if how == "linf":
        assert found[order[-1]] == pytest.approx(2.0)


@pytest.mark.parametrize(
    "p", [weights(0.5, 0.6), weights(-0.5, 1.5), weights(1.0), {"harmless": 0.5, "helpfull": 0.5}, {}]
)
def test_what_is_no_preference_is_refused(p) -> None:
    with pytest.raises(SettingsError, match="preference"):
        target_scores(p, TWO)


def test_ranges_are_those_of_the_data() -> None:
    """A standard normal's 1 % quantiles, and no 4.4; what is missing counts for nothing."""
    draws = np.random.default_rng(0).normal(size=20_000)
    rows = [{"a": float(x), "b": None if i % 2 else 3.0, "c": math.nan} for i, x in enumerate(draws)]
    found = ranges_of(rows)
    assert found["a"] == pytest.approx((-2.326, 2.326), abs=0.08)
    assert found["b"] == (3.0, 3.0)
    assert "c" not in found
    assert ranges_of(rows, (0.0, 1.0))["a"] == (draws.min(), draws.max())
    with pytest.raises(SettingsError, match="no row has a score"):
        ranges_of([{"a": None}])
    with pytest.raises(SettingsError, match="quantiles"):
        ranges_of(rows, (0.9, 0.1))


# The prompt: z-scores with one decimal, written and read back


def form(*names: str) -> ScoreForm:
    rows = [{n: (float(i), float(i + 1)) for n in names} for i in range(3)]  # 0, 1, 1, 2, 2, 3: mean 1.5
    return ScoreForm(fit_scales(rows, names, normal="z"), "ric", "z")


def test_z_scores_with_one_decimal() -> None:
    own = form("harmless", "helpful")
    deviation = math.sqrt((2 * 1.5**2 + 4 * 0.5**2) / 6)
    assert own.unit({"harmless": 3.0, "helpful": 1.5}) == pytest.approx((1.5 / deviation, 0.0))
    assert own.text(own.unit({"harmless": 3.0, "helpful": 1.5})) == " <rm1_score> 1.6 <rm2_score> 0.0"


# a prompt that ends in letters of the assistant's header must keep them: stripping a set of characters would not
TAIL = st.text(alphabet="\nAsistan:", max_size=12)


@over(st.text(min_size=1, max_size=30), TAIL, st.lists(st.integers(-44, 44), min_size=2, max_size=2))
@settings(max_examples=100, deadline=None)
def test_scores_in_a_prompt_are_read_back_and_the_prompt_survives(start, tail, tenths) -> None:
    own = form("harmless", "helpful")
    text = start + tail
    wanted = [t / 10 for t in tenths]
    (turn,) = Scores(own.text(wanted), own.place).apply(messages(text))
    assert own.read(turn.content) == pytest.approx(dict(zip(own.names, wanted, strict=True)))
    assert turn.content.removesuffix(own.text(wanted)) == text.rstrip()


def test_a_prompt_that_ends_like_the_header_keeps_its_letters() -> None:
    own = form("harmless", "helpful")
    (turn,) = Scores(own.text([0.5, -1.2]), own.place).apply(messages("Who are its Assistants"))
    assert turn.content == "Who are its Assistants <rm1_score> 0.5 <rm2_score> -1.2"


def test_steerlm_line_has_one_order_and_whole_numbers() -> None:
    rows = [{"quality": (0.0, 4.0), "humor": (1.0, 2.0)}]
    line = ScoreForm(fit_scales(rows, ("quality", "humor"), normal="none"), "steerlm", "none")
    assert (
        line.text({"humor": 1.4, "quality": 3.6}) == line.text({"quality": 3.6, "humor": 1.4}) == "quality:4,humor:1\n"
    )
    assert line.read(line.text({"humor": 1.4, "quality": 3.6})) == {"quality": 4.0, "humor": 1.0}
    assert line.text({"humor": 2.0}) == "humor:2\n"  # one that is missing is not said


# Goals and the quantile rule


def test_goals_leave_one_attribute_free() -> None:
    ranges = {"a": (-2.0, 2.0), "b": (0.0, 1.0), "c": (5.0, 6.0)}
    goals = draw_goals(600, ranges, seed=3)
    assert goals == draw_goals(600, ranges, seed=3)
    assert goals != draw_goals(600, ranges, seed=4)
    below = [[name for name, value in goal.items() if value < ranges[name][1]] for goal in goals]
    assert all(len(names) == 1 for names in below)
    assert all(ranges[n][0] <= goal[n] for goal in goals for n in ranges)
    counts = [sum(names == [n] for names in below) for n in ranges]
    assert min(counts) > 150
    free = [goal["a"] for goal, names in zip(goals, below, strict=True) if names == ["a"]]
    assert min(free) < -1.8
    assert max(free) > 1.8


def test_quantile_rule_any_and_all() -> None:
    """Four rows, quantile 1/2 of (1, 2, 3, 4) taken from the data: 3 and up."""
    rows = [{"a": a, "b": b} for a, b in ((1.0, 4.0), (2.0, 1.0), (3.0, 3.0), (4.0, 2.0))]
    assert keep(rows, 0.5) == [True, False, True, True]
    assert keep(rows, 0.5, "all") == [False, False, True, False]
    assert keep(rows, 0.0, "all") == [True] * 4
    assert keep(rows, bars={"a": 4.0}) == [False, False, False, True]


def test_a_missing_score_reaches_no_bar() -> None:
    rows = [{"a": 1.0}, {"a": 2.0, "b": None}, {"a": 0.0, "b": math.nan}, {"a": 2.0, "b": 1.0}]
    assert keep(rows, 0.5) == [False, True, False, True]
    assert keep(rows, 0.5, "all") == [False, False, False, True]
    with pytest.raises(SettingsError, match='unknown rule "or"'):
        keep(rows, rule="or")


# An online round in a toy world: what a response is worth is its length


def scored(record: Demonstration) -> Demonstration:
    n = float(len(record.response[0].content))
    return Demonstration(prompt=record.prompt, response=record.response, attributes={"long": n, "short": -n})


def original(n: int) -> Demonstration:
    return scored(Demonstration(prompt=messages("old"), response=(Message("assistant", "y" * n),)))


def test_an_online_round_keeps_the_best_of_both_sources() -> None:
    prompts = [messages(f"question {i}") for i in range(7)]
    seen: list = []

    def respond(asked, goals):
        seen.extend(zip(asked, goals, strict=True))
        return ["" if i == 0 else "x" * (1 + i % 10) for i in range(len(asked))]

    rate = lambda rows: [scored(r) for r in rows]
    ranges = {"long": (0.0, 9.0), "short": (-9.0, 0.0)}
    olds = [original(n) for n in range(1, 41)]
    made = online_round(prompts, ranges, respond, rate, olds, samples=30, quantile=0.9, mixed=3, seed=5)
    assert len(seen) == 30
    assert {p[0].content for p, _ in seen} == {f"question {i}" for i in range(7)}
    new = [r for r in made.records if r.prompt[0].content != "old"]
    old = [r for r in made.records if r.prompt[0].content == "old"]
    # quantile .9 of 29 answers is the 27th in order: 10 letters on "long", and on "short" 2 (two answers have 1)
    assert sorted(len(r.response[0].content) for r in new) == [1, 1, 2, 2, 2, 10, 10, 10]
    assert all(r.attributes["long"] == len(r.response[0].content) for r in new)  # what they are, not what was asked
    assert len(old) == 3
    assert all(len(r.response[0].content) in {1, 2, 3, 4, 37, 38, 39, 40} for r in old)
    assert made.counts["asked"] == 30
    assert made.counts["empty"] == 1
    assert made.counts["kept"] + made.counts["below"] == 29
    again = online_round(prompts, ranges, respond, rate, olds, samples=30, quantile=0.9, mixed=3, seed=5)
    assert again.records == made.records
    every = online_round(prompts, ranges, respond, rate, samples=30, quantile=0.9, rule="all", seed=5)
    assert every.records == []  # none is both long and short


def test_a_round_that_loses_rows_is_refused() -> None:
    respond = lambda asked, goals: ["x"] * (len(asked) - 1)
    with pytest.raises(PluralignError, match="3 answers came back for 4 rows"):
        online_round([messages("q")], TWO, respond, lambda rows: rows, samples=4)
    with pytest.raises(SettingsError, match="needs prompts"):
        online_round([], TWO, respond, lambda rows: rows)
