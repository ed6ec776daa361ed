"""Order bias: judges with known habits."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pluralign.errors import PluralignError
from pluralign.judging.position import games_by_order, position_report
from pluralign.judging.verdicts import Judgement, Verdict


def test_a_judge_that_always_picks_the_first_is_flagged():
    found = position_report([1] * 10, [0] * 10)
    assert (found.first_preferred.value, found.consistency.value, found.always_first) == (1.0, 0.0, 10)
    assert found.advantage.value == 1.0
    assert found.advantage.p_value == pytest.approx(2 / 1024)  # the exact test of 10 against 0
    assert found.biased


def test_a_judge_that_looks_at_the_responses_is_not():
    scores = [1, 0, 1, 1, 0, 0.5]
    found = position_report(scores, scores)
    assert (found.first_preferred.value, found.consistency.value, found.biased) == (0.5, 1.0, False)
    assert (found.always_first, found.always_second) == (0, 0)


def test_by_hand_with_unread_games():
    # (1, 0) first twice; (0, 1) second twice; (1, 1) and (0, 0) consistent; (.5, 0): 3/4 of the points to the first
    found = position_report([1, 0, 1, 0, 0.5, None], [0, 1, 1, 0, 0, 1])
    assert found.first_preferred.value == pytest.approx((1 + 0 + 0.5 + 0.5 + 0.75) / 5)
    assert (found.consistency.value, found.consistency.n, found.consistency.missing) == (0.4, 5, 1)
    assert (found.always_first, found.always_second) == (1, 1)


def test_a_judge_without_bias_is_flagged_one_time_in_twenty_at_most():
    rng = np.random.default_rng(1)
    flags = [position_report(rng.integers(0, 2, 60), rng.integers(0, 2, 60)).biased for _ in range(400)]
    assert 0.01 <= np.mean(flags) <= 0.06  # exact tests of counts stay below their level


def test_games_of_judgements():
    def judged(name: str, *games: Verdict) -> Judgement:
        return Judgement(name, "judge", games)

    rows = [
        judged("1", Verdict("win"), Verdict("loss", first="b")),
        judged("2", Verdict("win", first="b"), Verdict(None)),
        judged("3", Verdict("win", share=0.8), Verdict("win", first="b", share=0.6)),
    ]
    assert games_by_order(rows) == ([1.0, None, 0.8], [0.0, 1.0, 0.6])
    assert position_report(*games_by_order(rows)).first_preferred.value == pytest.approx((1 + 0.6) / 2)
    with pytest.raises(PluralignError, match="not judged in both orders"):
        games_by_order([judged("4", Verdict("win"))])


def test_nothing_read():
    found = position_report([None], [1])
    assert math.isnan(found.first_preferred.value)
    assert not found.biased
