"""MT-Bench: the fixtures of its specification, ratings and pairs."""

from __future__ import annotations

import pytest

from pluralign.errors import PluralignError
from pluralign.judging.mt_bench import mt_bench_pairs, mt_bench_score, rated_winner
from pluralign.judging.statistics import mean_interval


def test_score_is_the_mean_of_rows_not_of_turns():
    # turn 1 {8, 6}: 7; turn 2 {4, -1}: 4; rows 8, 6, 4: 6.0, where the mean of the turns is 5.5
    found = mt_bench_score([8, 6, 4, -1], ["q1", "q2", "q1", "q2"], [1, 1, 2, 2], ["math", "stem", "math", "stem"])
    assert (found.turns[1].value, found.turns[2].value, found.score.value) == (7, 4, 6)
    assert (found.score.n, found.score.missing, found.turns[2].missing) == (3, 1, 1)
    assert (found.categories["math"].value, found.categories["stem"].value) == (6, 6)


def test_turns_of_a_question_are_one_cluster():
    ratings, questions = [8, 6, 4, 7, 9, 3], ["a", "b", "c"] * 2
    assert mt_bench_score(ratings, questions, [1] * 3 + [2] * 3).score == mean_interval(ratings, clusters=questions)


def test_tie_delta_is_inclusive_whatever_rounding_says():
    assert [rated_winner(7.4, 7.3), rated_winner(7.3, 7.4), rated_winner(8, 8.1)] == ["tie"] * 3
    assert 7.4 - 7.3 > 0.1
    assert (rated_winner(7.5, 7.3), rated_winner(7, 9)) == ("model_1", "model_2")


def test_both_orders_must_agree():
    first = ["model_1", "model_1", "model_2", "tie", "error", "model_1"]
    second = ["model_1", "model_2", "model_2", "model_1", "model_1", None]
    found = mt_bench_pairs(first, second)
    # a win, a loss, two ties; errors in either game are left out and counted
    assert (found.rate.wins, found.rate.ties, found.rate.losses, found.errors) == (1, 2, 1, 2)
    assert (found.rate.rate.value, found.rate.rate.n, found.rate.rate.missing) == (0.5, 4, 2)
    assert (found.position.consistency.value, found.position.biased) == (0.5, False)


def test_a_judge_of_places_gives_ties_and_is_flagged():
    found = mt_bench_pairs(["model_1"] * 12, ["model_2"] * 12)
    assert (found.rate.rate.value, found.rate.ties, found.position.biased) == (0.5, 12, True)


def test_winners_by_ratings_know_no_order():
    assert mt_bench_pairs(["tie"], ["tie"], ordered=False).position is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mt_bench_score([11], ["q"], [1]), "between 1 and 10"),
        (lambda: mt_bench_score([1], ["q"], [1, 2]), "a question and a turn"),
        (lambda: mt_bench_pairs(["A"], ["A"]), 'not "A"'),
        (lambda: mt_bench_pairs(["tie"], []), "has two games"),
    ],
)
def test_impossible_rows(call, message):
    with pytest.raises(PluralignError, match=message):
        call()
