"""What policies are asked, and what the judges' tables are worth, by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from pluralign.attributes import Scale, ScoreForm
from pluralign.curate.score import Scored, Scorer
from pluralign.errors import SettingsError
from pluralign.judging.answers import spoken
from pluralign.judging.asking import HeldOut, Steered, grid_of, held_out, ways
from pluralign.judging.statistics import Estimate
from pluralign.judging.steered import judge_answers, sweep_correlation
from pluralign.records import Demonstration, messages

FORM = ScoreForm((Scale("wit", 0.0, 4.0), Scale("length", 0.0, 100.0)))


class Shown:
    """What is read of a policy before anything is generated."""

    def __init__(self, scores: ScoreForm | None, *, senses: bool = False) -> None:
        self.name, self.scores, self.sensing = "p", scores, object() if senses else None


def of(policy: Shown, held: HeldOut, **how: Any) -> Any:
    return ways(policy, held, **how)  # type: ignore[arg-type]


def held(*attributes: dict[str, float]) -> HeldOut:
    rows = [
        Demonstration(prompt=messages(f"question {i}"), response=spoken("x" * i), attributes=row)
        for i, row in enumerate(attributes)
    ]
    return held_out(rows)


def test_a_prompt_is_asked_once_with_its_first_response() -> None:
    rows = [
        Demonstration(prompt=messages(p), response=spoken(r))
        for p, r in (("a", "1"), ("b", "2"), ("a", "3"), ("c", "4"))
    ]
    found = held_out(rows)
    assert [r[0].content for r in found.responses] == ["1", "2", "4"]
    assert found.clusters == ["a", "b", "c"]
    assert len(held_out(rows, limit=2).prompts) == 2
    with pytest.raises(SettingsError, match="no reference responses"):
        held_out([])


def test_ways_by_hand() -> None:
    """wit 3 of 0..4 is .75; length 50 of 0..100 is .5; a prompt without any score is not answered under gt."""
    three = held({"wit": 3.0, "length": 50.0}, {"wit": 4.0}, {"joy": 1.0})
    found = of(Shown(FORM, senses=True), three, fixed=(0.25, 1.0), ground_truth=True)
    assert list(found) == ["sensed", "0.25", "1", "gt"]
    assert found["sensed"] == [{}, {}, {}]
    assert found["0.25"] == [{"wit": 0.25, "length": 0.25}] * 3
    assert found["gt"] == [{"wit": 0.75, "length": 0.5}, {"wit": 1.0}, None]
    assert list(of(Shown(FORM), three)) == ["none"]
    assert of(Shown(FORM), three, given={"wit": 1.0}) == {"wit=1": [{"wit": 1.0}] * 3}
    assert of(Shown(None), three) == {"none": [{}, {}, {}]}


def test_what_cannot_be_asked_is_told() -> None:
    one = held({"joy": 1.0})
    for how in ({"fixed": (1.0,)}, {"given": {"wit": 1.0}}, {"ground_truth": True}):
        with pytest.raises(SettingsError, match="takes no attribute scores"):
            of(Shown(None), one, **how)
    with pytest.raises(SettingsError, match=r"have no score on wit, length \(they have: joy\)"):
        of(Shown(FORM), one, ground_truth=True)
    with pytest.raises(SettingsError, match="between 0 and 1"):
        of(Shown(FORM), one, fixed=(2.0,))
    free = ScoreForm((Scale("wit"),), "ric", "z")
    with pytest.raises(SettingsError, match="have no ends"):
        grid_of(Shown(free), ["wit"], ())  # type: ignore[arg-type]
    assert grid_of(Shown(free), ["wit"], (1.0, -1.0)) == {"wit": {-1.0: {"wit": -1.0}, 1.0: {"wit": 1.0}}}  # type: ignore[arg-type]


def test_sweep_correlation_by_hand() -> None:
    """Obeyed: 1. Turned round: -1. Two prompts, scores (0, 1) and (3, 2) for 0 and 1 asked: ranks asked
    (1.5, 3.5, 1.5, 3.5), given (1, 2, 4, 3); covariance -1 * -1.5 + 1 * -.5 + -1 * 1.5 + 1 * .5 = 0."""
    at = (0.0, 0.5, 1.0)
    assert sweep_correlation(at, np.array([[1, 2, 3]] * 4), resamples=200).value == 1
    assert sweep_correlation(at, np.array([[3, 2, 1]] * 4), resamples=200).value == -1
    assert sweep_correlation((0.0, 1.0), np.array([[0, 1], [3, 2]]), resamples=200).value == pytest.approx(0)
    assert math.isnan(sweep_correlation(at, np.ones((4, 3)), resamples=200).value)
    holed = sweep_correlation(at, np.array([[1, 2, 3], [1, math.nan, 3], [2, 3, 4]]), resamples=200)
    assert (holed.n, holed.missing) == (2, 1)


LENGTH = Scorer(("length",), lambda asked: [Scored((float(len(r[0].content)),)) for _, r in asked])


def test_judging_by_hand() -> None:
    """References of 0, 1, 2 characters; answers of 1, 1, 1: a win, a tie, a loss. Nothing: three losses but a tie."""
    three = held({}, {}, {})
    system = Steered("p", {"sensed": ["a", "a", "a"], "1": ["", "", None]})
    system.sweeps = {"length": {0.0: ["", "", "a"], 1.0: ["aaa", "aa", "aa"]}}
    found = judge_answers([system], three, [LENGTH], resamples=100)
    first, second = found.rows
    assert (first["scores"], second["scores"]) == ("sensed", "1")
    rates = [row["length"] for row in found.rows]
    assert all(isinstance(rate, Estimate) for rate in rates)
    assert [(r.value, r.n, r.missing) for r in rates if isinstance(r, Estimate)] == [(0.5, 3, 0), (0.25, 2, 1)]
    difference = second["difference"]
    assert isinstance(difference, Estimate)
    assert (difference.value, difference.n) == (-0.5, 2)  # (.5, 0) against (1, .5)
    assert found.means["reference"]["length"].value == 1
    (sweep,) = found.sweeps["p"]
    assert [e.value for e in sweep.means] == pytest.approx([1 / 3, 7 / 3])
    assert sweep.of_means == 1
    assert found.as_dict()["sweeps"]["p"][0]["at"] == [0, 1]
    with pytest.raises(SettingsError, match=r'no judge scores "wit" \(they score: length\)'):
        judge_answers([Steered("p", sweeps={"wit": {}})], three, [LENGTH])


def test_sensing_is_held_against_what_the_references_have() -> None:
    three = held({"wit": 4.0}, {"wit": 0.0}, {})
    truth = np.array([FORM.unit(row) for row in three.attributes])
    system = Steered("p", {"sensed": ["", "", ""]}, sensed=np.full((3, 2), 0.75), truth=truth, names=FORM.names)
    found = judge_answers([system], three, [LENGTH], resamples=100).sensing["p"]
    assert (found["wit"].error.value, found["wit"].error.n) == (0.5, 2)  # |.75 - 1| and |.75 - 0|
    assert found["length"].error.n == 0
