"""Calibration: bins and scores by hand, and what a true predictor looks like."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pluralign.errors import SettingsError
from pluralign.judging.calibration import calibration, calibration_error


def quick(*args, **options):
    return calibration(*args, **({"resamples": 100} | options))


def test_by_hand():
    # Bins of .1: .15 (outcome 0) alone: .15; .85 and .9 (outcomes 1 and 0): |.5 - .875| = .375 for two of three
    found = quick([0.15, 0.85, 0.9], [0, 1, 0])
    assert found.ece.value == pytest.approx((0.15 + 2 * 0.375) / 3)
    assert found.brier.value == pytest.approx((0.15**2 + 0.15**2 + 0.9**2) / 3)
    assert [(b.low, b.high, b.outcome.n) for b in found.bins] == [(0.1, 0.2, 1), (0.8, 0.9, 2)]
    assert found.bins[1].confidence == pytest.approx(0.875)


def test_equal_mass_by_hand():
    # two bins of two: (.1, .2 | 0, 1): |.5 - .15|; (.6, .8 | 1, 1): |1 - .7|
    assert calibration_error([0.1, 0.2, 0.6, 0.8], [0, 1, 1, 1], bins=2, by="mass") == pytest.approx((0.35 + 0.3) / 2)


def test_one_bin_is_the_gap_of_the_means():
    rng = np.random.default_rng(0)
    p, y = rng.random(50), rng.integers(0, 2, 50).astype(float)
    assert calibration_error(p, y, bins=1) == pytest.approx(abs(p.mean() - y.mean()))


def test_equal_predictions_share_a_bin():
    found = quick([0.5] * 10, [1] * 7 + [0] * 3, by="mass")
    assert len(found.bins) == 1
    assert found.ece.value == pytest.approx(0.2)


def test_a_true_predictor_is_not_at_zero_and_not_blamed():
    rng = np.random.default_rng(1)
    p = rng.random(300)
    found = quick(p, (rng.random(300) < p).astype(float))
    assert found.ece.value > 0.01
    assert found.if_calibrated == pytest.approx(found.ece.value, abs=0.03)
    assert found.p_value > 0.05


def test_an_overconfident_one_is():
    rng = np.random.default_rng(2)
    p = rng.choice([0.02, 0.98], 300)
    found = quick(p, (rng.random(300) < 0.5 + 0.3 * np.sign(p - 0.5)).astype(float))
    assert found.ece.value == pytest.approx(0.18, abs=0.05)
    assert found.p_value < 0.01
    assert found.ece.low < 0.18 < found.ece.high


def test_what_is_not_known_is_counted_and_shares_are_outcomes():
    found = quick([0.2, None, 0.4, 0.7], [0.25, 1, math.nan, 2 / 3])
    assert (found.ece.n, found.ece.missing, found.brier.missing) == (2, 2, 2)
    assert found.ece.value == pytest.approx((0.05 + 0.7 - 2 / 3) / 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: quick([1.2], [1]), "between 0 and 1"),
        (lambda: quick([None], [1]), "one of each"),
        (lambda: quick([0.1], [1, 0]), "needs an outcome"),
        (lambda: calibration_error([0.1], [1], bins=0), "a bin at least"),
        (lambda: calibration_error([0.1], [1], by="sigma"), '"width" or "mass"'),
    ],
)
def test_impossible_requests(call, message):
    with pytest.raises(SettingsError, match=message):
        call()
