"""Several objectives at once: hand-worked values, reductions to one objective, and scores that are missing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given as over
from hypothesis import settings
from hypothesis import strategies as st

from pluralign.objectives import OBJECTIVES
from pluralign.objectives.multi import adaptive_weights, token_probabilities
from pluralign.objectives.rating import masked_squared_error
from pluralign.theory.tabular import Target, minimise

from .pairs import readings, value
from .toys import Given

NAN = math.nan
LN2 = math.log(2)


# Errors over known attributes (SteerLM's attribute model, SGA's sensing head)


def test_squared_error_of_known_attributes_by_hand() -> None:
    """Row 0: .1^2 + .3^2; row 1: one known, .5^2; row 2: none."""
    pred = torch.tensor([[0.6, 0.2], [0.9, 0.5], [0.1, 0.2]])
    target = torch.tensor([[0.5, 0.5], [NAN, 1.0], [NAN, NAN]])
    assert masked_squared_error(pred, target).tolist() == pytest.approx([0.1, 0.25, 0.0])


def test_a_missing_attribute_has_no_gradient_and_no_share_in_a_denominator() -> None:
    pred = torch.tensor([[0.6, math.inf], [0.9, NAN]], requires_grad=True)
    masked_squared_error(pred, torch.tensor([[0.5, NAN], [0.5, NAN]])).sum().backward()
    assert torch.allclose(pred.grad, torch.tensor([[0.2, 0.0], [0.8, 0.0]]))
    alone = masked_squared_error(torch.tensor([[0.6]]), torch.tensor([[0.5]]))
    beside = masked_squared_error(torch.tensor([[0.6, 7.0]]), torch.tensor([[0.5, NAN]]))
    assert torch.equal(alone, beside)


# MODPO


def margins(chosen, rejected, **more):
    """Fixture A with attribute scores (B, K)."""
    r = readings(**more)
    r["attributes_w"], r["attributes_l"] = torch.tensor(chosen), torch.tensor(rejected)
    return r


def test_modpo_by_hand() -> None:
    """w 1/2, margins 1.0 and 0.4: 2 (.3 - .5 x .6) = 0."""
    r = margins([[1.0]], [[0.4]])
    outcome = OBJECTIVES["modpo"](r, own_weight=0.5)
    assert float(outcome.loss) == pytest.approx(0.693147, abs=1e-6)
    assert float(outcome.metrics["margin"]) == pytest.approx(0.3)
    assert float(outcome.metrics["other_margin"]) == pytest.approx(0.3)
    assert value("modpo", r, own_weight=0.5, hinge=True) == pytest.approx(1.0)
    # weights that do not add up to one (the authors' length example): .3 - .1 x .6 = .24
    assert value("modpo", r, own_weight=1.0, margin_weights=(0.1,)) == pytest.approx(math.log1p(math.exp(-0.24)))
    assert value("modpo", r, own_weight=1.0, margin_weights=(0.1,), hinge=True) == pytest.approx(0.76)


def test_modpo_of_any_number_of_objectives_by_hand() -> None:
    """w = (.5, .3, .2), margins .6 and -1: 2 (.3 - .18 + .2) = .64."""
    r = margins([[1.0, 0.0]], [[0.4, 1.0]])
    expected = math.log1p(math.exp(-0.64))
    assert value("modpo", r, own_weight=0.5, margin_weights=(0.3, 0.2)) == pytest.approx(expected, abs=1e-6)
    # the rest in equal parts: 2 (.3 - .15 + .25) = .8
    assert value("modpo", r, own_weight=0.5) == pytest.approx(math.log1p(math.exp(-0.8)), abs=1e-6)


@over(st.floats(-30, 30), st.floats(-30, 30), st.floats(0.01, 1.0))
@settings(max_examples=50, deadline=None)
def test_modpo_of_one_objective_is_dpo(w, l, beta) -> None:
    r = margins([[0.7, -2.0]], [[0.7, -2.0]], w=w, l=l)
    other = margins([[9.0, NAN]], [[-3.0, NAN]], w=w, l=l)
    dpo = value("dpo", r, beta=beta)
    assert value("modpo", r, beta=beta, own_weight=1.0) == pytest.approx(dpo, abs=1e-7)
    # at weight 0 margins are not looked at, not even for whether they are there
    assert value("modpo", other, beta=beta, own_weight=1.0) == pytest.approx(dpo, abs=1e-7)


def test_modpo_at_the_reference_is_dpo_at_the_reference() -> None:
    r = margins([[0.7]], [[0.7]], w=-12.0, l=-13.0)
    assert value("modpo", r) == pytest.approx(LN2)
    assert value("modpo", r, hinge=True) == pytest.approx(1.0)


def test_margins_have_no_gradient_and_the_pair_has() -> None:
    r = margins([[1.0]], [[0.4]], grad=True)
    for name in ("attributes_w", "attributes_l"):
        r[name].requires_grad_(True)
    OBJECTIVES["modpo"](r).loss.sum().backward()
    assert r["attributes_w"].grad is None
    assert r["attributes_l"].grad is None
    # z = 0: -beta / w_k sigma(0) on y_w, the opposite on y_l
    assert float(r["w"].sum.grad) == pytest.approx(-0.1)
    assert float(r["l"].sum.grad) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("hyper", "said"),
    [
        ({"own_weight": 0.0}, "must be at least 0.05"),
        ({"own_weight": 0.04}, "must be at least 0.05"),
        ({"own_weight": NAN}, "must be at least 0.05"),
        ({"own_weight": 1.2}, "leaves nothing for the margins"),
        ({"margin_weights": (0.1, 0.2)}, "has 2 entries for 1 attributes"),
        ({"margin_weights": (-0.1,)}, "finite and not negative"),
    ],
)
def test_modpo_refuses_weights_that_cannot_be(hyper, said) -> None:
    with pytest.raises(ValueError, match=said):
        OBJECTIVES["modpo"](margins([[1.0]], [[0.4]]), **hyper)


def test_modpo_refuses_a_missing_margin() -> None:
    r = margins([[1.0, 2.0], [1.0, NAN]], [[0.4, 1.0], [0.0, 1.0]], w=[-10.0, -10.0])
    with pytest.raises(ValueError, match="1 of 2 pairs of this step lack a score of attribute 2"):
        OBJECTIVES["modpo"](r)


# MODPO in a tabular world: four responses, a uniform reference, infinitely many pairs compared by r_1

R1 = torch.tensor([1.0, 0.0, 0.5, 0.2], dtype=torch.float64)
R2 = torch.tensor([0.0, 1.0, 0.5, 0.8], dtype=torch.float64)
LEFT, RIGHT = (torch.tensor(ix) for ix in zip(*[(i, j) for i in range(4) for j in range(4) if i != j], strict=True))


def fitted(own: float, beta: float = 0.5) -> torch.Tensor:
    """The policy (4,) that minimises MODPO in expectation."""
    seen = torch.sigmoid(R1[LEFT] - R1[RIGHT])  # how often LEFT is chosen over RIGHT
    flat, length = torch.full_like(seen, -math.log(4)), torch.ones_like(seen)

    def loss(logits: torch.Tensor) -> torch.Tensor:
        logp = torch.log_softmax(logits, 0)
        r = {
            "w": Target(logp[LEFT], length),
            "l": Target(logp[RIGHT], length),
            "ref_w": Target(flat, length),
            "ref_l": Target(flat, length),
            "attributes_w": R2[LEFT][:, None],
            "attributes_l": R2[RIGHT][:, None],
        }
        return (OBJECTIVES["modpo"](r, beta=beta, own_weight=own).loss * seen).sum()

    return torch.softmax(minimise(loss, torch.zeros(4, dtype=torch.float64)), 0)


def test_modpo_finds_the_optimum_of_the_weighted_rewards() -> None:
    policy = fitted(0.3)
    assert policy.tolist() == pytest.approx([0.151198, 0.336497, 0.225561, 0.286744], abs=1e-5)
    assert policy.tolist() == pytest.approx(torch.softmax((0.3 * R1 + 0.7 * R2) / 0.5, 0).tolist(), abs=1e-5)


def test_modpo_sweeps_a_monotone_front() -> None:
    front = [(float(p @ R1), float(p @ R2)) for p in map(fitted, (0.1, 0.3, 0.5, 0.7, 0.9))]
    first, second = (np.array(x) for x in zip(*front, strict=True))
    assert (np.diff(first) > 0).all()
    assert (np.diff(second) < 0).all()


# AMoPO


def dimensions(rows, *, grad: bool = False, mask=None) -> Given:
    """A list (B, D) of responses, each given by its token log-probs; an empty one is not there."""
    width = max(len(row) for row in rows)
    cells = [list(row) + [[]] * (width - len(row)) for row in rows]
    flat = [torch.tensor(cell, dtype=torch.float64) for row in cells for cell in row]
    tokens = torch.cat(flat).requires_grad_(grad)
    length = torch.tensor([len(cell) for cell in flat])
    segment = torch.repeat_interleave(torch.arange(len(flat)), length)
    total = torch.zeros(len(flat), dtype=torch.float64).index_add(0, segment, tokens)
    shape = (len(rows), width)
    there = (length > 0).view(shape)
    return Given(total.view(shape), length.clamp(min=1).view(shape), there, tokens, segment)


def spread(w, l, noise=None, **more):
    r = {"w": dimensions(w, **more), "l": dimensions(l, **more)}
    return r if noise is None else r | {"noise": torch.tensor(noise)}


def simpo(w, l, beta=2.0, gamma=0.5) -> float:
    return float(np.log1p(np.exp(gamma - beta * (np.mean(w) - np.mean(l)))))


W, L = [-0.5, -0.5], [-1.0, -1.0, -1.0]


def test_amopo_of_one_dimension_is_simpo() -> None:
    flat = {"w": Given(torch.tensor([-1.0]), torch.tensor([2])), "l": Given(torch.tensor([-3.0]), torch.tensor([3]))}
    expected = value("simpo", flat)
    assert value("amopo", spread([[W]], [[L]])) == pytest.approx(expected)
    for reading, row in zip(flat.values(), (W, L), strict=True):  # a plain pair, as the trainer reads it
        reading.tokens, reading.segment = torch.tensor(row), torch.zeros(len(row), dtype=torch.long)
    assert value("amopo", flat) == pytest.approx(expected)
    assert float(OBJECTIVES["amopo"](flat).metrics["largest_weight"]) == 1.0


def test_amopo_by_hand_with_unequal_weights() -> None:
    """u = (2 e^-.5, e^-.5 + e^-2): omega is their softmax, over SimPO of (-.5, -.5) and of (-.5, -2)."""
    r = spread([[W, W]], [[[-0.5], [-2.0, -2.0]]])
    u = np.array([2 * np.exp(-0.5), np.exp(-0.5) + np.exp(-2.0)])
    omega = np.exp(u) / np.exp(u).sum()
    expected = omega @ [simpo(W, [-0.5]), simpo(W, [-2.0])]
    outcome = OBJECTIVES["amopo"](r)
    assert float(outcome.loss) == pytest.approx(expected)
    assert float(outcome.metrics["largest_weight"]) == pytest.approx(omega[0])
    assert float(outcome.metrics["accuracy"]) == 0.5
    # the chosen responses have .5 nats a token in both dimensions
    assert value("amopo", r, nll_weight=0.2) == pytest.approx(expected + 0.1)


def test_equal_u_is_the_mean_of_the_dimensions() -> None:
    """Chosen and rejected exchanged in two of the four: the same tokens, other losses."""
    outcome = OBJECTIVES["amopo"](spread([[W, L, W, L]], [[L, W, L, W]]))
    assert float(outcome.loss) == pytest.approx((simpo(W, L) + simpo(L, W)) / 2)
    assert float(outcome.metrics["largest_weight"]) == pytest.approx(0.25)


def test_weights_of_an_example_add_up_to_one_and_have_no_gradient() -> None:
    rows = [[[-0.1, -2.0], [-0.7], [-3.0, -0.2, -0.4]], [[-0.3], [-1.0, -1.1], []]]
    others = [[[-0.9], [-0.7, -0.1], [-1.0]], [[-0.3, -2.0], [-1.5], []]]
    r = spread(rows, others, noise=[[0.3, -1.2, 2.0], [1.0, 0.5, -0.5]], grad=True)
    omega = adaptive_weights(r, r["w"].mask)
    assert omega.sum(-1).tolist() == pytest.approx([1.0, 1.0])
    assert float(omega[1, 2]) == 0.0
    assert not omega.requires_grad
    OBJECTIVES["amopo"](r).loss.sum().backward()
    # where omega has no gradient, every token of a response has the same one: that of its mean
    for reading, sign in ((r["w"], -1), (r["l"], 1)):
        for at in range(6):
            own = reading.tokens.grad[reading.segment == at]
            assert len(own.unique()) <= 1
            assert (own.sign() == sign).all()


def test_a_batch_is_its_examples() -> None:
    """No weight competes across examples, whatever the batch."""
    rows, others = [[W, L, W], [[-0.1], [-4.0, -0.2], []]], [[L, W, L], [[-2.0, -0.3], [-0.6], []]]
    together = OBJECTIVES["amopo"](spread(rows, others)).loss
    singles = [value("amopo", spread([a], [b])) for a, b in zip(rows, others, strict=True)]
    assert together.tolist() == pytest.approx(singles)


def test_what_the_mask_hides_changes_nothing() -> None:
    short = spread([[W, L]], [[L, W]])
    long = spread([[W, L, []], [W, W, W]], [[L, W, []], [L, L, L]])
    for name in ("w", "l"):
        long[name].sum[0, 2] = -math.inf
    first = OBJECTIVES["amopo"](long)
    assert float(first.loss[0]) == pytest.approx(value("amopo", short))
    assert all(math.isfinite(float(v[0])) for v in first.metrics.values())


def test_lists_that_do_not_fit_are_refused() -> None:
    for w, l in (([[W, L]], [[W]]), ([[W, L]], [[W, []]]), ([[[], L]], [[[], W]])):
        with pytest.raises(ValueError, match="do not come in the same dimensions"):
            OBJECTIVES["amopo"](spread(w, l))


def test_token_probabilities_by_hand() -> None:
    """e^-.5 and e^-1 twice: mean, and the sample's deviation; one token has none; nothing where there is none."""
    mean, deviation = token_probabilities(dimensions([[[-0.5, -1.0, -1.0], [-0.5], []]]))
    p = np.exp([-0.5, -1.0, -1.0])
    assert mean.tolist()[0] == pytest.approx([p.mean(), p[0], 0.0])
    assert deviation.tolist()[0] == pytest.approx([p.std(ddof=1), 0.0, 0.0])


def test_noise_is_the_deviation_of_both_responses() -> None:
    """One draw of the sum of two normals: u moves by sqrt(s_w^2 + s_l^2) z."""
    w, l = [[[-0.5, -1.0], [-1.0]]], [[[-0.2, -2.0, -0.4], [-1.0]]]
    z = 1.5
    s = math.hypot(np.exp(w[0][0]).std(ddof=1), np.exp(l[0][0]).std(ddof=1))
    u = np.array([np.exp(w[0][0]).mean() + np.exp(l[0][0]).mean() + s * z, 2 * np.exp(-1.0)])
    r = spread(w, l, noise=[[z, 7.0]])
    expected = np.exp(u) / np.exp(u).sum()
    assert adaptive_weights(r, r["w"].mask)[0].tolist() == pytest.approx(expected.tolist(), abs=1e-6)


def test_noise_moves_nothing_where_there_is_no_deviation() -> None:
    """Single tokens, or tokens alike: validation (no noise) and training agree."""
    w, l = [[W, [-0.3]]], [[L, [-0.9]]]
    still = value("amopo", spread(w, l))
    assert value("amopo", spread(w, l, noise=[[2.0, -3.0]])) == pytest.approx(still)
    moved = [[[-0.1, -3.0], [-0.3]]]
    assert value("amopo", spread(moved, l, noise=[[2.0, 0.0]])) != pytest.approx(value("amopo", spread(moved, l)))
