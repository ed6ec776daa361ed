"""PARM's objective: hand-worked values, its reductions, and scores that order nothing."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given as drawn_from
from hypothesis import strategies as st

from pluralign.objectives.pairwise import dpo
from pluralign.objectives.parm import draw_preference, parm

from .toys import Given, given

NAN = math.nan


def readings(w: list[float], l: list[float], own: list[list[float]], other: list[list[float]], **more: object) -> dict:
    return {
        "w": given(w),
        "l": given(l),
        "attributes_w": torch.tensor(own),
        "attributes_l": torch.tensor(other),
        **more,
    }


def test_by_hand() -> None:
    """Scaled margins .02 and -.01 at alpha (.3, .7): .3 * .683197 + .7 * .698160 = .693671."""
    r = readings([-10.0], [-12.0], [[0.9, 0.2]], [[0.1, 0.6]], preference=torch.tensor([0.3, 0.7]))
    outcome = parm(r, beta=(0.01, 0.005))
    assert outcome.loss.tolist() == pytest.approx([0.693671], abs=1e-6)
    assert outcome.metrics["accuracy"].tolist() == [0.5]
    assert outcome.metrics["margin"].tolist() == pytest.approx([0.3 * 0.02 - 0.7 * 0.01])
    even = parm(readings([-10.0], [-10.0], [[0.9, 0.2]], [[0.1, 0.6]], preference=torch.tensor([0.3, 0.7])))
    assert even.loss.tolist() == pytest.approx([math.log(2)])
    shifted = parm(readings([-10.0], [-10.0], [[0.9, 0.2]], [[0.1, 0.6]]), gamma=0.5)
    assert shifted.loss.tolist() == pytest.approx([math.log1p(math.exp(0.5))])


def test_one_hot_is_that_attribute_alone() -> None:
    own, other = [[0.9, 0.2], [0.3, 0.1]], [[0.1, 0.6], [0.4, 0.9]]
    w, l = [-10.0, -7.0], [-14.0, -9.0]
    zero = given([0.0, 0.0])
    for k, better in ((0, (1, -1)), (1, (-1, -1))):
        r = readings(w, l, own, other, preference=torch.eye(2)[k])
        gaps = torch.tensor(better) * (r["w"].sum - r["l"].sum)
        plain = {"w": Given(gaps, zero.length), "l": zero, "ref_w": zero, "ref_l": zero}
        assert torch.allclose(parm(r, beta=0.1).loss, dpo(plain, beta=0.1).loss)
    without = parm(readings(w, l, own, other), beta=0.1).loss  # not conditioned: every attribute counts the same
    halves = [parm(readings(w, l, own, other, preference=torch.eye(2)[k]), beta=0.1).loss for k in (0, 1)]
    assert torch.allclose(without, (halves[0] + halves[1]) / 2)


def test_equal_and_missing_scores_order_nothing() -> None:
    r = readings([-10.0] * 3, [-12.0] * 3, [[0.5, 0.9], [NAN, 0.9], [NAN, 0.4]], [[0.5, 0.1], [0.2, 0.1], [0.1, NAN]])
    r["w"].sum.requires_grad_()
    outcome = parm(r, beta=1.0)
    one = 0.5 * math.log1p(math.exp(-2))
    assert outcome.loss.tolist() == pytest.approx([one, one, 0.0])
    outcome.loss.sum().backward()
    assert r["w"].sum.grad[2] == 0
    assert torch.isfinite(r["w"].sum.grad).all()
    assert outcome.metrics["accuracy"].tolist() == [1.0, 1.0, 0.0]


def test_gradient_raises_what_the_weighted_attributes_prefer() -> None:
    for alpha, sign in (((0.9, 0.1), -1), ((0.1, 0.9), 1)):
        r = readings([-10.0], [-10.0], [[0.9, 0.2]], [[0.1, 0.6]], preference=torch.tensor(alpha))
        r["w"].sum.requires_grad_()
        parm(r).loss.sum().backward()
        assert math.copysign(1, float(r["w"].sum.grad)) == sign  # descending raises w where the first one counts more


finite = st.floats(-50, 50, width=32)


@drawn_from(finite, finite, st.lists(st.tuples(finite, finite), min_size=3, max_size=3))
def test_which_response_is_called_chosen_does_not_matter(w: float, l: float, scores: list[tuple[float, float]]) -> None:
    own, other = [[a for a, _ in scores]], [[b for _, b in scores]]
    alpha = torch.tensor([0.2, 0.3, 0.5])
    one = parm(readings([w], [l], own, other, preference=alpha), beta=0.3)
    swapped = parm(readings([l], [w], other, own, preference=alpha), beta=0.3)
    assert torch.equal(one.loss, swapped.loss)


def test_every_example_may_have_an_alpha_of_its_own() -> None:
    own, other = [[0.9, 0.2]] * 2, [[0.1, 0.6]] * 2
    both = parm(readings([-9.0] * 2, [-12.0] * 2, own, other, preference=torch.eye(2)), beta=0.1).loss
    alone = [parm(readings([-9.0], [-12.0], own[:1], other[:1], preference=torch.eye(2)[k]), beta=0.1) for k in (0, 1)]
    assert both.tolist() == pytest.approx([float(x.loss) for x in alone])


def test_what_does_not_fit() -> None:
    r = readings([-1.0], [-2.0], [[0.9, 0.2]], [[0.1, 0.6]])
    with pytest.raises(ValueError, match="beta has 3 entries for 2 attributes"):
        parm(r, beta=(0.1, 0.1, 0.1))
    with pytest.raises(ValueError, match="alpha has 3 entries for 2 attributes"):
        parm({**r, "preference": torch.ones(3) / 3})
    with pytest.raises(ValueError, match="must be above 0"):
        draw_preference(0, 0, 2, 0.0)


# Preferences


def test_preferences_are_drawn_by_seed_and_step_and_by_nothing_else() -> None:
    state = torch.get_rng_state()
    first = draw_preference(1, 7, 3)
    torch.rand(5)
    assert torch.equal(draw_preference(1, 7, 3), first)
    assert not torch.equal(draw_preference(1, 8, 3), first)
    assert not torch.equal(draw_preference(2, 7, 3), first)
    torch.set_rng_state(state)
    draw_preference(1, 7, 3)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("k", "concentration"), [(2, 0.5), (3, 0.5), (2, 4.0), (3, 1e-3)])
def test_preferences_follow_the_dirichlet_distribution(k: int, concentration: float) -> None:
    """Mean 1/K, variance (1/K)(1 - 1/K)/(K c + 1): .125 for two attributes at the paper's .5."""
    drawn = torch.stack([draw_preference(0, step, k, concentration) for step in range(4000)])
    assert torch.allclose(drawn.sum(-1), torch.ones(4000), atol=1e-6)
    assert (drawn >= 0).all()
    variance = (1 / k) * (1 - 1 / k) / (k * concentration + 1)
    assert torch.allclose(drawn.mean(0), torch.full((k,), 1 / k), atol=4 * (variance / 4000) ** 0.5)
    assert torch.allclose(drawn.var(0), torch.full((k,), variance), rtol=0.1)
