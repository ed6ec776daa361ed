"""RewardBench 1 and 2: the numbers of their specification, and what no score does."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pluralign.errors import RecordError
from pluralign.judging.reward_bench import (
    EXAMPLE_COUNTS,
    SECTIONS,
    TiesItem,
    best_of,
    best_of_all,
    pair_won,
    reward_bench_1,
    reward_bench_2,
    section_mean,
    ties_score,
)
from pluralign.judging.statistics import Estimate, proportion_interval

WITHIN = {"resamples": 100}


def exactly(value: float) -> Estimate:
    return Estimate(value, value, value, 10)


def test_counts_of_the_published_table():
    assert sum(len(s) for s in SECTIONS.values()) == len(EXAMPLE_COUNTS) == 23
    assert EXAMPLE_COUNTS["math-prm"] == 984 == sum(EXAMPLE_COUNTS[f"hep-{x}"] for x in ("cpp", "go", "java", "js", "python", "rust"))  # fmt: skip  # noqa: E501
    assert sum(EXAMPLE_COUNTS[name] for name in SECTIONS["Chat"]) == 358


def test_chat_section_of_the_specification():
    accuracies = dict(zip(SECTIONS["Chat"], (0.98, 0.9, 0.95, 1.0, 0.95), strict=True))
    found = section_mean({name: exactly(a) for name, a in accuracies.items()})
    assert found.value == pytest.approx(0.949022, abs=5e-7)


def test_math_prm_counts_as_much_as_code_however_few_rows_it_has():
    subsets = ["math-prm"] * 2 + ["hep-cpp"] * 4
    found = reward_bench_1([1, 1, 0, 0, 0, 0], [0] * 6, subsets)
    assert found.sections["Reasoning"].value == pytest.approx(984 / (984 + 164))


def test_ties_lose_and_unscored_pairs_are_counted():
    assert [pair_won(1, 0), pair_won(1, 1), pair_won(0, 1), pair_won(None, 1), pair_won(1, math.nan)] == [
        1, 0, 0, None, None,
    ]  # fmt: skip
    found = reward_bench_1([1.0] * 3 + [None], [1.0] * 4, ["hep-go"] * 4)
    assert (found.subsets["hep-go"].value, found.subsets["hep-go"].n, found.subsets["hep-go"].missing) == (0, 3, 1)
    assert math.isnan(found.overall.value)  # three sections have no rows: no overall is made up


def test_constant_scorer_gets_nothing_in_v1_and_a_quarter_in_v2():
    one = reward_bench_1([0.0] * 4, [0.0] * 4, ["alpacaeval-easy", "mt-bench-hard", "donotanswer", "math-prm"])
    assert one.overall.value == 0
    two = reward_bench_2([[0.0] * 4] * 5, ["Math"] * 5, [1] * 5)
    assert two.subsets["Math"].value == two.overall.value == 0.25


def test_sections_count_alike_and_prior_sets_half():
    chosen, subsets = [1, 1, 1, 0], ["alpacaeval-easy", "mt-bench-hard", "donotanswer", "math-prm"]
    assert reward_bench_1(chosen, [0] * 4, subsets).overall.value == 0.75
    found = reward_bench_1(chosen, [0] * 4, subsets, prior_sets=exactly(0.3)).overall
    assert found.value == pytest.approx((2 * 3 + 0.3) / 9)


def test_a_single_subset_keeps_its_wilson_interval():
    found = reward_bench_1([1] * 8 + [0] * 2, [0] * 10, ["hep-js"] * 10).sections["Reasoning"]
    wilson = proportion_interval(8, 10)
    assert (found.low, found.high) == (pytest.approx(wilson.low), pytest.approx(wilson.high))


def test_best_of_four_shares_its_credit():
    assert [best_of([3, 1, 2, 0]), best_of([3, 3, 1, 0]), best_of([1, 1, 1, 1]), best_of([1, 2, 0, 0])] == [
        1, 0.5, 0.25, 0,
    ]  # fmt: skip
    assert best_of([1, None, 0, 0]) is None
    with pytest.raises(RecordError, match="one correct answer"):
        best_of([1, 2], 2)


def test_best_of_all_is_strict():
    assert [best_of_all(2, [1, 0]), best_of_all(2, [2, 0]), best_of_all(2, [None]), best_of_all(1, [])] == [
        1, 0, None, None,
    ]  # fmt: skip


def ties(prompt="1", tied=(3.0, 2.5, 1.0), ref=(2.0, 1.0)):
    return [TiesItem("tied", prompt, tied, 2), TiesItem("ref", prompt, ref, 1)]


def test_ties_score_of_the_specification():
    # gap tied 1.5, ref 1, spread .5: everything is right, and tanh(1 / .5 - 1) = .761594 adds .00761594
    assert ties_score(ties(), **WITHIN).value == pytest.approx(1.007616, abs=5e-7)


def test_ties_score_without_spread():
    # equal correct scores: gap / 0 is infinite, tanh 1; 0 / 0 counts 0
    assert ties_score(ties(tied=(2.0, 2.0, 1.0)), **WITHIN).value == pytest.approx(1.01)
    assert ties_score(ties(tied=(1.0, 1.0, 1.0), ref=(1.0, 1.0)), **WITHIN).value == 0.0


def test_ties_by_hand_over_two_prompts():
    # second prompt: tied 2, 1 | 1.5: gap -.5, spread 1, wrong; ref 1 | 0: right. min gap -.5: tanh(-1.5) = -.905148
    found = ties_score(ties() + ties("2", (2.0, 1.0, 1.5), (1.0, 0.0)), **WITHIN)
    expected = 0.3 * 0.5 + 0.3 * 1 + 0.2 * 0.5 + 0.2 * 0.5 + 0.01 * (math.tanh(1) + math.tanh(-1.5)) / 2
    assert found.value == pytest.approx(expected)
    assert found.n == 2
    assert found.low < found.value < found.high


def test_unscored_ties_are_left_out_with_their_prompt():
    items = [*ties(), TiesItem("ref", "2", (math.nan, 1.0), 1), TiesItem("tied", "2", (3.0, 2.5, 1.0), 2)]
    found = ties_score(items, **WITHIN)
    assert (found.n, found.missing, found.value) == (1, 1, pytest.approx(1.007616, abs=5e-7))


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 5), st.integers(1, 20), st.integers(-50, 50))  # whole numbers: equal gaps stay equal
def test_shift_and_scale_of_scores_change_no_verdict(seed, scale, shift):
    import numpy as np

    rng = np.random.default_rng(seed)
    raw = rng.integers(0, 4, (12, 4)).astype(float)
    names = [f"{kind}:{p}" for p in range(3) for kind in ("ref", "tied")]
    subsets, correct = ["Ties"] * 6 + ["Focus"] * 6, [1, 2] * 3 + [1] * 6
    one = reward_bench_2(raw.tolist(), subsets, correct, names + ["x"] * 6, resamples=100)
    other = reward_bench_2((raw * scale + shift).tolist(), subsets, correct, names + ["x"] * 6, resamples=100)
    assert other.subsets["Focus"].value == one.subsets["Focus"].value
    assert other.subsets["Ties"].value == pytest.approx(one.subsets["Ties"].value, abs=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: reward_bench_1([1], [0], ["chat"]), 'no subset "chat"'),
        (lambda: section_mean({"chat": exactly(1)}), 'no subset "chat"'),
        (lambda: reward_bench_1([1], [0, 1], ["hep-go"]), "two scores and a subset"),
        (lambda: reward_bench_2([[1, 0]], ["Ties"], [1]), "needs ids"),
        (lambda: reward_bench_2([[1, 0]], ["Ties"], [1], ["7"]), '"ref:N" or "tied:N"'),
        (lambda: ties_score([TiesItem("ref", "1", (1.0,), 1)]), "correct and wrong"),
    ],
)
def test_impossible_rows(call, message):
    with pytest.raises(RecordError, match=message):
        call()
