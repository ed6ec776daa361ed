"""Win rates, sensing and steering from tables of scores, by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from pluralign.errors import SettingsError
from pluralign.judging.attributes import (
    MACRO,
    judge_sensing,
    judge_weights,
    plain_rows,
    steering_scores,
    steering_table,
    win_rates,
    wins,
)
from pluralign.judging.statistics import Estimate

NAN = math.nan


# --- win rates ------------------------------------------------------------------------------------------------


def test_wins_by_hand():
    system = [[1.0, 0.2], [0.5, 0.5], [0.0, NAN]]
    reference = [[0.5, 0.4], [0.5, 0.1], [1.0, 0.3]]
    found = wins(system, reference)
    assert found[:, 0].tolist() == [1, 0.5, 0]
    assert found[:2, 1].tolist() == [0, 1]
    assert math.isnan(found[2, 1])
    assert wins(system, reference, tie=0.5)[:2].tolist() == [[0.5, 0.5], [0.5, 0.5]]
    assert np.nansum(wins(system, reference) + wins(reference, system)) == 5  # a win of one is a loss of the other


def test_win_rates_by_hand():
    """helpful: wins in 3 of 4 and a tie: .875; honest: 1 of 2 scored: .5; macro .6875, not the mean over cells."""
    system = [[1, 1], [1, 0], [1, NAN], [0, NAN]]
    reference = [[0, 0], [0, 1], [0, 1], [0, 1]]
    found = win_rates(system, reference, ("helpful", "honest"), resamples=200)
    assert list(found) == ["helpful", "honest", MACRO]
    assert (found["helpful"].value, found["helpful"].n) == (0.875, 4)
    assert (found["honest"].value, found["honest"].n, found["honest"].missing) == (0.5, 2, 2)
    assert found[MACRO].value == 0.6875


def test_an_attribute_without_scores_has_no_rate_and_no_macro():
    found = win_rates([[1, NAN], [1, NAN]], [[0, 0], [1, 1]], ("a", "b"), resamples=100)
    assert (found["b"].n, found["b"].missing) == (0, 2)
    assert math.isnan(found[MACRO].value)
    assert found["a"].value == 0.75


def test_intervals_are_over_prompts():
    rng = np.random.default_rng(0)
    system, reference = rng.normal(size=(40, 3)), rng.normal(size=(40, 3))
    copies = [np.repeat(x, 5, axis=0) for x in (system, reference)]
    names = ("a", "b", "c")
    once = win_rates(system, reference, names, resamples=400)
    many = win_rates(*copies, names, resamples=400, clusters=[i // 5 for i in range(200)])
    plain = win_rates(*copies, names, resamples=400)
    for name in ("a", MACRO):
        width = many[name].high - many[name].low
        assert width == pytest.approx(once[name].high - once[name].low, rel=0.15)
        assert plain[name].high - plain[name].low < 0.6 * width
    # three independent attributes: their mean is surer than each
    assert once[MACRO].high - once[MACRO].low < 0.8 * (once["a"].high - once["a"].low)


def test_rates_need_the_same_prompts_and_a_name_for_each_attribute():
    with pytest.raises(SettingsError, match="the same prompts"):
        win_rates(np.ones((3, 2)), np.ones((4, 2)), ("a", "b"))
    with pytest.raises(SettingsError, match="different names"):
        win_rates(np.ones((3, 2)), np.ones((3, 2)), ("a", "a"))
    with pytest.raises(SettingsError, match="table of"):
        win_rates([1, 2], [1, 2], ("a",))


# --- sensing --------------------------------------------------------------------------------------------------


def test_sensing_by_hand():
    """errors .1 .1 .3 .5: mean .25; the median .5 misses by .5 .25 .25 .5: .375; SSE .36, SST .65625 about .5625."""
    truth = [[0.0], [0.25], [0.75], [1.0], [NAN]]
    sensed = [[0.1], [0.35], [0.45], [0.5], [0.9]]
    found = judge_sensing(sensed, truth, ("helpful",), resamples=200)["helpful"]
    assert found.error.value == pytest.approx(0.25)
    assert found.constant.value == pytest.approx(0.375)
    assert found.gain.value == pytest.approx(0.125)
    assert found.r2.value == pytest.approx(1 - 0.36 / 0.625)
    assert (found.near.value, found.near.n, found.near.missing) == (0.5, 4, 1)
    assert found.histogram == (0, 2, 0, 1, 0, 1, 0, 0, 0, 0)
    assert found.constant_histogram == (0, 0, 2, 0, 0, 2, 0, 0, 0, 0)
    assert (found.error.n, found.error.missing) == (4, 1)


def test_a_constant_from_elsewhere_is_held_to_what_it_says():
    found = judge_sensing([[0.5], [0.5]], [[0.0], [1.0]], ("a",), constant=[0.0], resamples=100)["a"]
    assert (found.constant.value, found.error.value, found.gain.value) == (0.5, 0.5, 0)


def test_predicting_the_mean_explains_nothing_and_the_truth_everything():
    truth = np.array([[0.0, 0.3], [0.5, 0.4], [1.0, 0.8]])
    mean = np.broadcast_to(truth.mean(0), truth.shape)
    assert judge_sensing(mean, truth, ("a", "b"), resamples=100)["b"].r2.value == pytest.approx(0, abs=1e-12)
    exact = judge_sensing(truth, truth, ("a", "b"), resamples=100)["a"]
    assert exact.r2.value == 1
    assert exact.histogram == (3, *(0,) * 9)


def test_an_error_beyond_the_unit_scale_is_counted():
    assert judge_sensing([[1.4], [0.3]], [[0.0], [0.0]], ("a",), resamples=100)["a"].histogram[-1] == 1
    assert judge_sensing([[1.4], [0.3]], [[0.0], [0.0]], ("a",), resamples=100)["a"].histogram[3] == 1
    with pytest.raises(SettingsError, match="not of the same rows"):
        judge_sensing([[1.0]], [[1.0], [0.0]], ("a",))
    with pytest.raises(SettingsError, match="constant predictor"):
        judge_sensing([[1.0]], [[1.0]], ("a",), constant=[0.1, 0.2])


# --- steering -------------------------------------------------------------------------------------------------


def test_what_the_strategies_ask_for():
    truth, sensed = np.array([[0.25, 1.0], [0.5, 0.0]]), np.array([[0.3, 0.9], [0.6, 0.2]])
    asked = steering_scores(truth, sensed, fixed=(0.25, 1.0))
    assert list(asked) == ["0.25", "1", "gt", "sensed"]
    assert asked["0.25"].tolist() == [[0.25, 0.25], [0.25, 0.25]]
    assert asked["gt"] is not sensed
    assert (asked["gt"] == truth).all()
    assert "sensed" not in steering_scores(truth)


def test_the_table_of_strategies_by_hand():
    reference = np.zeros((8, 2))
    best = np.ones((8, 2))
    half = np.array([[1, -1]] * 8)
    rows = steering_table({"1": half, "sensed": best}, reference, ("a", "b"), resamples=200)
    assert [row["scores"] for row in rows] == ["1", "sensed"]
    assert isinstance(rows[0][MACRO], Estimate)
    assert rows[0][MACRO].value == 0.5
    assert rows[1][MACRO].value == 1
    assert rows[0]["difference"].value == -0.5
    assert "difference" not in rows[1]
    found = json.loads(json.dumps(plain_rows(rows)))
    assert found[0]["scores"] == "1"
    assert found[0]["b"]["value"] == 0


def test_strategies_are_held_against_one_that_is_there():
    with pytest.raises(SettingsError, match='no strategy "sensed"'):
        steering_table({"1": np.ones((2, 1))}, np.zeros((2, 1)), ("a",))
    with pytest.raises(SettingsError, match="cannot be called"):
        steering_table({"sensed": np.ones((2, 1))}, np.zeros((2, 1)), (MACRO,))


# --- weights --------------------------------------------------------------------------------------------------


def test_weights_by_hand():
    """KL((.597922, .133414, .268664) || uniform) = .169265, the value of the specification."""
    targets = [[0.597922, 0.133414, 0.268664]] * 3
    found = judge_weights(targets, targets, [1 / 3] * 3)
    assert found.constant.value == pytest.approx(0.169265, abs=1e-6)
    assert found.kl.value == pytest.approx(0)
    assert found.gain.value == pytest.approx(0.169265, abs=1e-6)
    assert found.entropy.value == pytest.approx(math.log(3) - 0.169265, abs=1e-6)
    assert found.retest.n == 0


def test_unknown_objectives_are_left_out_of_both_sides():
    found = judge_weights([[0.5, 0.5, 0.0]], [[0.2, 0.2, 0.6]], [0.25, 0.5, 0.25], known=[[True, True, False]])
    assert found.kl.value == pytest.approx(0)
    assert found.constant.value == pytest.approx(0.5 * math.log(0.5 * 3) + 0.5 * math.log(0.75))


def test_noise_of_the_targets_is_measured_where_a_prompt_has_two():
    targets = [[1.0, 0.0], [0.5, 0.5], [0.3, 0.7]]
    found = judge_weights(targets, [[0.5, 0.5]] * 3, [0.5, 0.5], clusters=["a", "a", "b"])
    assert (found.retest.value, found.retest.n) == (0.5, 1)


def test_the_verdict_claims_no_more_than_the_interval():
    rng = np.random.default_rng(0)
    targets = rng.dirichlet([1, 1, 1], size=200)
    blind = np.broadcast_to(targets.mean(0), targets.shape)
    same = judge_weights(targets, blind + 0, targets.mean(0))
    assert not same.is_better
    assert same.verdict.startswith("Not shown")
    near = judge_weights(targets, 0.5 * targets + 0.5 * blind, targets.mean(0))
    assert near.is_better
    assert near.verdict.startswith("Nearer to the targets")
    assert "says nothing about responses" in near.verdict
    assert judge_weights(targets[:1], blind[:1], targets.mean(0)).verdict.startswith("Too few")
    assert json.loads(json.dumps(near.as_dict()))["gain"]["n"] == 200
