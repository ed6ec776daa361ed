"""AlpacaEval 2's length control: its fixtures, its invariances, its fit, and the uncertainty that it leaves out."""

from __future__ import annotations

import math

import numpy as np
import pytest

import pluralign.judging.length_controlled as module
from pluralign.errors import SettingsError
from pluralign.judging.length_controlled import (
    Gamed,
    difficulty_from_predictions,
    gamed_from_sums,
    length_controlled_between,
    length_controlled_win_rate,
    length_feature,
)
from pluralign.judging.length_controlled_fit import fit_at

N = 805  # instructions


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def lengths(seed=0, longer=0.3):
    rng = np.random.default_rng(seed)
    baseline = rng.gamma(4, 500, N).round() + 1
    return baseline, (baseline * np.exp(rng.normal(longer, 0.4, N))).round() + 1


def gamed_rows(seed=1):
    rng = np.random.default_rng(seed)
    hard = rng.normal(size=N)
    delta = np.concatenate([rng.normal(0.8, 0.5, N), rng.normal(-0.8, 0.5, N)])
    return Gamed(np.tanh(delta), np.tile(hard, 2), sigmoid(rng.normal(-1.2 * np.tanh(delta), 1.0))), hard


def quick(*args, **options):
    return length_controlled_win_rate(*args, **({"resamples": 0} | options))


def test_raw_rate_of_the_specification():
    found = quick([0.9, 0.6, 0.2] * 2, [10, 20, 30, 40, 50, 60], [12, 18, 33, 30, 70, 61])
    assert 100 * found.raw.value == pytest.approx(56.667, abs=5e-4)


def test_feature_by_hand():
    # deltas 10, -10, 30: mean 10, sd 20 with n - 1, not centred: tanh(.5), tanh(-.5), tanh(1.5)
    assert length_feature([20, 10, 40], [10, 20, 10]).tolist() == pytest.approx(np.tanh([0.5, -0.5, 1.5]).tolist())
    assert length_feature([5, 6, 7], [4, 5, 6]).tolist() == [0, 0, 0]  # no spread: nothing to control for


def test_a_judge_of_length_alone_gives_half():
    """Spec D8: 805 rows, raw far above a half, controlled .499."""
    baseline, model = lengths()
    p = sigmoid(-2.5 * length_feature(baseline, model))
    found = length_controlled_win_rate(p, baseline, model, resamples=50)
    assert found.raw.value > 0.6
    assert found.rate.value == pytest.approx(0.5, abs=0.01)
    assert found.coefficients["length"] == pytest.approx(-2.5, abs=0.05)
    gamed, hard = gamed_rows()
    full = quick(p, baseline, model, difficulty=hard, gamed=gamed)
    assert full.variant == "length_controlled_v1"
    assert full.rate.value == pytest.approx(0.5, abs=0.06)  # the gamed rows hold the coefficient of length back


def test_model_is_baseline():
    found = quick([0.5] * 10, range(10, 20), range(10, 20), is_baseline=True)
    assert (found.rate.value, found.rate.low, found.rate.high) == (0.5, 0.5, 0.5)


def test_scale_of_lengths_changes_nothing():
    baseline, model = lengths()
    p = sigmoid(0.4 - length_feature(baseline, model))
    assert quick(p, 7 * baseline, 7 * model).rate.value == pytest.approx(quick(p, baseline, model).rate.value)


def test_order_of_rows_changes_nothing_where_difficulty_is_matched_by_instruction():
    baseline, model = lengths()
    gamed, hard = gamed_rows()
    rng = np.random.default_rng(2)
    p = sigmoid(0.3 - length_feature(baseline, model) + 0.8 * hard + rng.normal(0, 0.5, N))
    turn = rng.permutation(N)
    official = quick(p, baseline, model, difficulty=hard, gamed=gamed, resamples=3)
    again = quick(p[turn], baseline[turn], model[turn], difficulty=hard[turn], gamed=gamed, order=turn, resamples=3)
    assert again.rate.value == pytest.approx(official.rate.value, abs=1e-12)
    assert (again.rate.low, again.rate.high) == (pytest.approx(official.rate.low), pytest.approx(official.rate.high))
    assert again.predicted == pytest.approx(official.predicted[turn])
    by_place = quick(p[turn], baseline[turn], model[turn], difficulty=hard, gamed=gamed)  # as the original takes them
    assert by_place.coefficients["difficulty"] < 0.2 * official.coefficients["difficulty"]


def test_fit_is_the_minimum_of_its_objective():
    """Two coefficients on a grid around the solver's: |theta|_1 + C * weighted log-loss of soft labels."""
    import sklearn
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(3)
    x = np.column_stack([rng.normal(size=60), np.ones(60)])
    p, w, c = sigmoid(x @ [-1.0, 0.5]), rng.random(60) + 0.1, 0.5

    def objective(theta):
        z = x @ theta
        return np.abs(theta).sum() + c * float(w @ (p * np.log1p(np.exp(-z)) + (1 - p) * np.log1p(np.exp(z))))

    found = fit_at(x, p, w, c)
    penalty = {"l1_ratio": 1.0} if sklearn.__version__ >= "1.8" else {"penalty": "l1"}
    theirs = LogisticRegression(C=c, solver="liblinear", fit_intercept=False, tol=1e-8, max_iter=5000, **penalty)
    theirs.fit(np.tile(x, (2, 1)), np.repeat([1, 0], 60), sample_weight=np.concatenate([p * w, (1 - p) * w]))
    assert found == pytest.approx(theirs.coef_[0], abs=1e-4)
    best = objective(found)
    for a in np.linspace(-0.05, 0.05, 11):
        for b in np.linspace(-0.05, 0.05, 11):
            assert objective(found + np.array([a, b])) >= best - 1e-9


def test_gamed_rows_enter_by_two_sums():
    """Other verdicts with the same sums of y tanh and y difficulty give the same coefficients at a fixed C."""
    gamed, hard = gamed_rows()
    sums = (float(gamed.length @ gamed.wins), float(gamed.difficulty @ gamed.wins))
    made = gamed_from_sums(gamed.length, gamed.difficulty, sums)
    assert (made.length @ made.wins, made.difficulty @ made.wins) == pytest.approx(sums, abs=1e-5)
    assert np.abs(made.wins - gamed.wins).max() > 0.01
    baseline, model = lengths()
    own = np.column_stack([length_feature(baseline, model), hard, np.ones(N)])
    wins = sigmoid(0.3 - own[:, 0])

    def fitted(rows):
        x = np.concatenate([np.column_stack([rows.length, rows.difficulty, np.zeros(2 * N)]), own])
        w = np.concatenate([np.full(2 * N, 0.1), np.ones(N)])
        return fit_at(x, np.concatenate([rows.wins, wins]), w, 20.0)

    assert fitted(made) == pytest.approx(fitted(gamed), abs=1e-6)
    with pytest.raises(SettingsError, match="no verdicts have the sums"):
        gamed_from_sums(gamed.length, gamed.difficulty, (1e4, 0.0))


def test_difficulties_are_recovered_from_predictions():
    hard = np.array([-1.0, 0.0, 2.5])
    assert difficulty_from_predictions(sigmoid(0.2 + 0.9 * hard), 0.2, 0.9) == pytest.approx(hard)
    with pytest.raises(SettingsError, match="says nothing"):
        difficulty_from_predictions([0.5], 0.2, 0)


def test_interval_of_the_fit_covers_and_the_published_one_does_not(monkeypatch):
    """Hard verdicts of a known model, the rate at equal length is .6: 60 draws of 200 instructions, one C."""
    monkeypatch.setattr(module, "fit_by_cross_validation", lambda x, y, w: (fit_at(x, y, np.ones(len(y)), 20.0), 20.0))
    rng = np.random.default_rng(4)
    truth, hits, published = 0.6, 0, 0
    for seed in range(60):
        baseline = rng.gamma(4, 500, 200)
        model = baseline * np.exp(rng.normal(0.1, 0.4, 200))
        p = sigmoid(math.log(1.5) - 1.5 * length_feature(baseline, model))
        y = (rng.random(200) < p).astype(float)
        found = length_controlled_win_rate(y, baseline, model, resamples=40, seed=seed)
        hits += found.rate.low <= truth <= found.rate.high
        published += found.published.low <= truth <= found.published.high
    assert hits >= 52  # 40 resamples give about .92: fewer have a chance of 3 %
    assert published <= 12  # without difficulty all predictions are the same, and their sd is none at all


def test_between_two_models():
    baseline, one = lengths(0)
    _, other = lengths(0, longer=-0.2)
    rng = np.random.default_rng(6)
    first = quick(rng.random(N) < sigmoid(0.5 - length_feature(baseline, one)), baseline, one, resamples=30)
    second = quick(rng.random(N) < sigmoid(-0.2 - length_feature(baseline, other)), baseline, other, resamples=30)
    gap = length_controlled_between(first, second)
    # without difficulty: sigma of the difference of the models' coefficients, and the other way round the rest
    assert gap.value == pytest.approx(float(sigmoid(first.coefficients["model"] - second.coefficients["model"])))
    assert length_controlled_between(second, first).value == pytest.approx(1 - gap.value)
    assert gap.low < gap.value < gap.high
    itself = quick([0.5] * N, baseline, baseline, is_baseline=True)
    assert length_controlled_between(first, itself).value == pytest.approx(first.rate.value)
    assert length_controlled_between(first, first).high == 0.5  # what both share cancels


def test_unread_verdicts_take_no_part_in_the_fit_and_are_counted():
    baseline, model = lengths()
    p = sigmoid(0.3 - length_feature(baseline, model)).tolist()
    gaps = [None if i % 10 == 0 else v for i, v in enumerate(p)]
    found = quick(gaps, baseline, model, resamples=5)
    assert (found.raw.missing, found.rate.n, len(found.predicted)) == (81, N - 81, N)
    assert found.rate.value == pytest.approx(quick(p, baseline, model).rate.value, abs=0.01)


def test_extreme_changes_are_flagged_as_alpaca_eval_does():
    baseline, model = lengths(longer=1.2)
    assert quick(sigmoid(-3 * length_feature(baseline, model)), baseline, model).extreme
    assert not quick(np.full(N, 0.5), baseline, model).extreme


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "length_controlled_v1"}, "needs the difficulty"),
        ({"variant": "length_controlled_v1", "difficulty": np.zeros(6)}, "needs the gamed rows"),
        ({"variant": "v3"}, "a variant is one of"),
        ({"difficulty": np.zeros(5)}, "needs a difficulty"),
        ({"order": [0, 1]}, "a place in the question set"),
    ],
)
def test_impossible_requests(options, message):
    with pytest.raises(SettingsError, match=message):
        quick([0.5] * 6, range(6), range(0, 12, 2), **options)


def test_too_few_or_impossible_verdicts():
    with pytest.raises(SettingsError, match="shares between 0 and 1"):
        quick([1.5, 2.0], [1, 2], [3, 5])
    with pytest.raises(SettingsError, match="at least five"):
        quick([0.5, 0.2], [1, 2], [3, 5])
