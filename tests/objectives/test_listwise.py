"""Rankings: hand-worked values, two responses as a special case, padding and order that change nothing."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given as over
from hypothesis import settings
from hypothesis import strategies as st

from pluralign.objectives import OBJECTIVES, listwise, pairwise

from .toys import FIXTURE_A, Given, pairs

NAMES = ["info_nca", "lipo", "nca_list", "plackett_luce", "rrhf"]
REFERENCED = [n for n in NAMES if n != "rrhf"]


def lists(logp, scores, ref=None, length=None, grad=False, mask=None):
    """Rows of equal length; `mask` hides entries."""
    total = torch.tensor(logp, dtype=torch.float64, requires_grad=grad)
    there = torch.ones_like(total, dtype=torch.bool) if mask is None else torch.tensor(mask)
    n = torch.ones(total.shape, dtype=torch.long) if length is None else torch.tensor(length)
    reference = torch.zeros_like(total).detach() if ref is None else torch.tensor(ref, dtype=torch.float64)
    return {
        "ys": Given(total, n, there),
        "ref_ys": Given(reference, n, there),
        "scores": torch.tensor(scores, dtype=torch.float64),
    }


def value(name, r, **hyper) -> float:
    return float(OBJECTIVES[name](r, **hyper).loss[0].detach())


# RRHF


def test_rrhf_by_hand() -> None:
    """p = -1, -.5, -2 with scores 3, 2, 1: only the second is above a better one, by .5; NLL of the best is 4."""
    r = lists([[-4.0, -1.0, -6.0]], [[3.0, 2.0, 1.0]], length=[[4, 2, 3]])
    assert value("rrhf", r) == pytest.approx(4.5)
    assert value("rrhf", r, nll_average=True) == pytest.approx(1.5)
    assert value("rrhf", r, rank_weight=10.0, nll_weight=0.5) == pytest.approx(7.0)
    assert value("rrhf", r, nll_weight=0.0, length_power=0.0) == pytest.approx(3.0)  # -1 is above -4


def test_rrhf_of_a_list_in_order_is_the_nll_of_the_best() -> None:
    r = lists([[-6.0, -2.0, -4.0]], [[1.0, 3.0, 2.0]])
    assert value("rrhf", r) == pytest.approx(2.0)


def test_rrhf_of_two_is_the_pair_form() -> None:
    """max(0, p_l - p_w) + c NLL(y_w); p_l above p_w by .5: hinge .5."""
    r = lists([[-5.0, -3.5]], [[1.0, 0.0]], length=[[5, 7]])
    assert value("rrhf", r, nll_weight=0.0) == pytest.approx(0.5)
    assert value("rrhf", r, nll_weight=0.1) == pytest.approx(1.0)


def test_rrhf_ties_have_no_hinge_and_share_the_nll() -> None:
    r = lists([[-1.0, -3.0]], [[2.0, 2.0]], grad=True)
    loss = OBJECTIVES["rrhf"](r).loss
    assert loss.item() == pytest.approx(2.0)
    loss.sum().backward()
    assert r["ys"].sum.grad.tolist() == [[-0.5, -0.5]]


def test_rrhf_averages_over_the_tokens_of_the_response_and_not_of_the_padding() -> None:
    """The authors' code reads lengths after it has overwritten the mask: all candidates have the padded one."""
    r = lists([[-2.0, -6.0]], [[0.0, 1.0]], length=[[2, 12]])  # p = -1 and -.5: in order; over equal lengths it is not
    assert value("rrhf", r, nll_weight=0.0) == 0.0
    same = lists([[-2.0, -6.0]], [[0.0, 1.0]], length=[[12, 12]])
    assert value("rrhf", same, nll_weight=0.0) == pytest.approx(4 / 12)


# Plackett-Luce


def test_plackett_luce_by_hand() -> None:
    """v = 1, 0, -1 in this order: -log(e/(e + 1 + 1/e)) - log(1/(1 + 1/e)) = .407606 + .313262."""
    r = lists([[10.0, 0.0, -10.0]], [[3.0, 2.0, 1.0]])
    assert value("plackett_luce", r) == pytest.approx(0.407606 + 0.313262, abs=1e-6)
    worst = lists([[-10.0, 0.0, 10.0]], [[3.0, 2.0, 1.0]])
    assert value("plackett_luce", worst) == pytest.approx(2.407606 + 1.313262, abs=1e-6)


def test_plackett_luce_is_a_distribution_over_rankings() -> None:
    """The probabilities of the 24 orders of four responses add up to 1."""
    from itertools import permutations

    v = [3.0, -7.0, 0.5, 11.0]
    total = sum(math.exp(-value("plackett_luce", lists([v], [list(p)]))) for p in permutations([1.0, 2.0, 3.0, 4.0]))
    assert total == pytest.approx(1.0, abs=1e-9)


def test_plackett_luce_ties_do_not_compete() -> None:
    """Two equal above one: each meets the third alone. All equal: nothing to learn."""
    r = lists([[5.0, 0.0, -5.0]], [[1.0, 1.0, 0.0]])
    expected = math.log1p(math.exp(-1.0)) + math.log1p(math.exp(-0.5))
    assert value("plackett_luce", r) == pytest.approx(expected)
    equal = lists([[5.0, 0.0, -5.0]], [[1.0, 1.0, 1.0]], grad=True)
    OBJECTIVES["plackett_luce"](equal).loss.sum().backward()
    assert equal["ys"].sum.grad.abs().max() == 0.0


def test_plackett_luce_where_policy_is_reference() -> None:
    r = lists([[-3.0, -9.0, -2.0, -5.0]], [[1.0, 4.0, 2.0, 3.0]], ref=[[-3.0, -9.0, -2.0, -5.0]])
    assert value("plackett_luce", r) == pytest.approx(math.log(24))
    assert float(OBJECTIVES["plackett_luce"](r).metrics["accuracy"]) == 0.0


# LiPO and noise contrastive alignment


def test_lipo_by_hand() -> None:
    """v = 0, .5 with scores 1, 0: gain 1, ranks 2 and 1, weight 1/ln 2 - 1/ln 3 = .532456; ln(1 + e^.5) = .974077."""
    r = lists([[0.0, 5.0]], [[1.0, 0.0]])
    assert value("lipo", r) == pytest.approx(0.532456 * 0.974077, abs=1e-6)


def test_lipo_learns_where_policy_is_reference() -> None:
    """All v equal: ranked by score, or every weight would be 0. Weights of the ranks (1, 2), (1, 3), (2, 3)."""
    r = lists([[0.0, 0.0, 0.0]], [[0.0, 1.0, 0.5]], grad=True)
    d = [1 / math.log(k) for k in (2, 3, 4)]
    gain = [2.0, math.sqrt(2), 1.0]
    weights = [(gain[i] - gain[j]) * (d[i] - d[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    outcome = OBJECTIVES["lipo"](r)
    assert outcome.loss.item() == pytest.approx(sum(weights) * math.log(2))
    outcome.loss.sum().backward()
    assert float(r["ys"].sum.grad[0, 1]) < 0 < float(r["ys"].sum.grad[0, 0])


def test_lipo_weights_carry_no_gradient() -> None:
    """d loss / d v_w = -weight sigma(-gap): the rank's own change is left out."""
    r = lists([[0.0, 5.0]], [[1.0, 0.0]], grad=True)
    OBJECTIVES["lipo"](r).loss.sum().backward()
    expected = -0.1 * 0.532456 / (1 + math.exp(-0.5))
    assert float(r["ys"].sum.grad[0, 0]) == pytest.approx(expected, abs=1e-6)


def test_nca_by_hand() -> None:
    """Scores ln 3 apart: targets .75 and .25; v = .2 and -.1."""
    r = lists([[2.0, -1.0]], [[math.log(3.0), 0.0]])
    log_sigma = lambda x: -math.log1p(math.exp(-x))
    info = -(0.75 * log_sigma(0.3) + 0.25 * log_sigma(-0.3))
    absolute = -sum(t * log_sigma(v) + 0.5 * log_sigma(-v) for t, v in ((0.75, 0.2), (0.25, -0.1)))
    assert value("info_nca", r) == pytest.approx(info)
    assert value("nca_list", r) == pytest.approx(absolute)


def test_nca_where_policy_is_reference() -> None:
    r = lists([[0.0] * 3], [[3.0, 1.0, 2.0]])
    assert value("info_nca", r) == pytest.approx(math.log(3))
    assert value("nca_list", r) == pytest.approx(2 * math.log(2))


def test_nca_of_two_and_certain_scores_is_the_pair_form() -> None:
    """DPO, and -ls(v_w) - ls(-v_w)/2 - ls(-v_l)/2."""
    r = lists([[2.0, -1.0]], [[1.0, 0.0]])
    assert value("info_nca", r, score_temperature=1e-3) == pytest.approx(0.554355, abs=1e-6)
    s = lambda x: math.log1p(math.exp(-x))
    assert value("nca_list", r, score_temperature=1e-3) == pytest.approx(s(0.2) + s(-0.2) / 2 + s(0.1) / 2, abs=1e-6)


# What holds for all


@pytest.mark.parametrize(
    ("name", "scale"), [("plackett_luce", 1.0), ("lipo", 1 / math.log(2) - 1 / math.log(3))], ids=["pl", "lipo"]
)
def test_two_responses_are_a_pair(name, scale) -> None:
    """Value, gradient and metrics are those of DPO."""
    pair = pairs(**FIXTURE_A, grad=True)
    expected = pairwise.dpo(pair)
    expected.loss.sum().backward()
    for scores, order in (([1.0, 0.0], 1), ([0.0, 1.0], -1)):
        r = lists([[-10.0, -14.0][::order]], [scores], ref=[[-12.0, -13.0][::order]], grad=True)
        outcome = OBJECTIVES[name](r)
        outcome.loss.sum().backward()
        assert outcome.loss.item() == pytest.approx(scale * expected.loss.item(), abs=1e-6)
        assert r["ys"].sum.grad[0].tolist()[::order] == pytest.approx(
            [scale * float(pair["w"].sum.grad), scale * float(pair["l"].sum.grad)], abs=1e-6
        )
        for metric, x in expected.metrics.items():
            assert float(outcome.metrics[metric]) == pytest.approx(float(x), abs=1e-5), metric


SCORES = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
ROW = st.lists(st.tuples(st.floats(-40, -0.5), st.floats(-40, -0.5), SCORES, st.integers(1, 9)), min_size=1, max_size=5)


def one_list(row, grad=False, pad=0, hidden=math.nan):
    """A list of (log-prob, reference, score, length), then `pad` hidden entries."""
    logp, ref, scores, length = (list(x) for x in zip(*row, strict=True))
    mask = [[True] * len(row) + [False] * pad]
    more = [hidden] * pad
    return lists([logp + more], [scores + more], [ref + more], [length + [1] * pad], grad, mask)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("hidden", [0.0, math.nan, math.inf, 100.0])
@settings(max_examples=25, deadline=None)
@over(row=ROW, pad=st.integers(1, 3))
def test_padding_changes_nothing(name, hidden, row, pad) -> None:
    """Whatever stands under the mask: value, metrics and gradient stay the same, and finite."""
    plain, padded = one_list(row, grad=True), one_list(row, grad=True, pad=pad, hidden=hidden)
    a, b = OBJECTIVES[name](plain), OBJECTIVES[name](padded)
    torch.testing.assert_close(a.loss, b.loss)
    assert torch.isfinite(a.loss).all()
    for metric in a.metrics:
        torch.testing.assert_close(a.metrics[metric], b.metrics[metric])
    a.loss.sum().backward()
    b.loss.sum().backward()
    torch.testing.assert_close(plain["ys"].sum.grad, padded["ys"].sum.grad[:, : len(row)])
    assert (padded["ys"].sum.grad[:, len(row) :] == 0).all()


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25, deadline=None)
@over(row=ROW, data=st.data())
def test_the_order_of_the_list_does_not_matter(name, row, data) -> None:
    """Equal scores and equal log-probs included."""
    order = data.draw(st.permutations(range(len(row))))
    a, b = one_list(row), one_list([row[i] for i in order])
    torch.testing.assert_close(OBJECTIVES[name](a).loss, OBJECTIVES[name](b).loss)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25, deadline=None)
@over(row=ROW)
def test_equal_log_probs_in_every_place_do_not_break_ties_by_position(name, row) -> None:
    flat = [(-3.0, -3.0, score, 4) for _, _, score, _ in row]
    torch.testing.assert_close(OBJECTIVES[name](one_list(flat)).loss, OBJECTIVES[name](one_list(flat[::-1])).loss)


@pytest.mark.parametrize("name", NAMES)
def test_the_best_rises_and_the_worst_falls(name) -> None:
    r = lists([[-9.0, -3.0, -2.0]], [[2.0, 1.0, 0.0]], ref=[[-5.0] * 3], grad=True)
    OBJECTIVES[name](r).loss.sum().backward()
    gradient = r["ys"].sum.grad[0]
    assert float(gradient[0]) < 0 < float(gradient[2])


@pytest.mark.parametrize("name", REFERENCED)
def test_the_reference_counts_only_as_a_difference(name) -> None:
    near = lists([[-9.0, -3.0]], [[2.0, 1.0]], ref=[[-5.0, -1.0]])
    far = lists([[-19.0, -43.0]], [[2.0, 1.0]], ref=[[-15.0, -41.0]])
    assert value(name, near) == pytest.approx(value(name, far))


@pytest.mark.parametrize("name", NAMES)
def test_registered_as_learning_from_lists(name) -> None:
    objective = OBJECTIVES[name]
    assert objective.data == "lists"
    assert objective.reference == (name != "rrhf")
    outcome = objective(lists([[-1.0, -2.0]] * 3, [[1.0, 0.0]] * 3, grad=True))
    assert outcome.loss.shape == (3,)
    assert all(m.shape == (3,) and not m.requires_grad for m in outcome.metrics.values())


def test_lists_of_different_lengths_share_a_batch() -> None:
    r = lists(
        [[-1.0, -2.0, -3.0], [-4.0, -2.0, 0.0]],
        [[1.0, 2.0, 3.0], [1.0, 2.0, 0.0]],
        mask=[[True] * 3, [True, True, False]],
    )
    for name in NAMES:
        both = OBJECTIVES[name](r).loss
        assert float(both[0]) == pytest.approx(value(name, lists([[-1.0, -2.0, -3.0]], [[1.0, 2.0, 3.0]])))
        assert float(both[1]) == pytest.approx(value(name, lists([[-4.0, -2.0]], [[1.0, 2.0]])))


def test_metrics_of_a_list_without_any_order_are_zero() -> None:
    outcome = listwise.plackett_luce(lists([[-1.0, -2.0]], [[1.0, 1.0]]))
    assert outcome.metrics["accuracy"].item() == outcome.metrics["margin"].item() == 0.0
    assert outcome.metrics["chosen_logp"].item() == -1.5  # the mean of both, whichever stands first
