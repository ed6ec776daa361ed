"""Objectives over beliefs: hand-worked values, what they reduce to, where their gradients go, and a world of two."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given as draw
from hypothesis import strategies as st

from pluralign.objectives import OBJECTIVES, find
from pluralign.objectives.group import js_distance, kl, option_log_probs

from .pairs import PAIRWISE
from .toys import FIXTURE_A, Given, given, pairs

LN2 = math.log(2)


def listed(rows, *, grad=False, lengths=1) -> Given:
    """(B, K) log-probs, rows of different length padded as a collator does: 0 with the mask off."""
    wide = max(map(len, rows))
    pad = lambda row: [*row, *[0.0] * (wide - len(row))]
    total = torch.tensor([pad(row) for row in rows], dtype=torch.float64, requires_grad=grad)
    mask = torch.tensor([[i < len(row) for i in range(wide)] for row in rows])
    return Given(total, torch.full(total.shape, lengths), mask)


def shares(rows) -> torch.Tensor:
    wide = max(map(len, rows))
    return torch.tensor([[*row, *[0.0] * (wide - len(row))] for row in rows], dtype=torch.float64)


def beliefs(share, q, accept=0, belief=-4.0, n=3, grad=False) -> dict:
    """The readings of one example: q as probabilities, fixture A for the pair."""
    p = torch.tensor(share)
    return {
        **pairs(**FIXTURE_A, grad=grad),
        "b": listed([[math.log(x) for x in q]], grad=grad),
        "share": shares([share]),
        "belief": given([belief], [n], grad=grad),
        "accept": torch.tensor([float(accept)]),
        "majority": torch.tensor([float(p[accept] == p.max())]),
    }


def loss(name, r, **hyper) -> float:
    return float(find(name)(r, **hyper).loss.detach()[0])


# Calibration


def test_calibration_by_hand() -> None:
    """KL([.5, .5] || [.9, .1]) = .5 ln(.5/.9) + .5 ln(.5/.1) = -.293893 + .804719 = .510826."""
    r = beliefs([0.5, 0.5], [0.9, 0.1])
    assert loss("calibration", r) == pytest.approx(0.510826, abs=1e-6)
    assert loss("calibration", r, restricted=True) == pytest.approx(0.510826, abs=1e-6)  # q adds up to 1 already
    # a tenth of the mass on the options: ln 10 more, or the same where only the options are compared
    r = beliefs([0.5, 0.5], [0.09, 0.01])
    assert loss("calibration", r) == pytest.approx(0.510826 + math.log(10), abs=1e-6)
    assert loss("calibration", r, restricted=True) == pytest.approx(0.510826, abs=1e-6)


def test_one_option() -> None:
    """KL([1] || [q]) = -log q: a question with one belief is a likelihood; restricted, there is nothing to learn."""
    r = beliefs([1.0], [0.25])
    assert loss("calibration", r) == pytest.approx(math.log(4), abs=1e-6)
    assert loss("calibration", r, restricted=True) == pytest.approx(0, abs=1e-9)


def test_an_option_that_nobody_holds() -> None:
    """0 log 0 = 0, also where the model gives it nothing."""
    assert loss("calibration", beliefs([1.0, 0.0], [0.5, 0.5])) == pytest.approx(LN2, abs=1e-6)
    r = beliefs([1.0, 0.0], [0.5, 0.5], grad=True)
    r["b"].sum = torch.tensor([[math.log(0.5), -math.inf]], requires_grad=True)
    out = OBJECTIVES["calibration"](r).loss
    assert float(out.detach()) == pytest.approx(LN2, abs=1e-6)
    out.sum().backward()
    assert torch.isfinite(r["b"].sum.grad).all()


@pytest.mark.parametrize("restricted", [False, True])
def test_no_gradient_at_the_shares(restricted) -> None:
    """With logits over a vocabulary of options and other words: at q = p* every logit's gradient is 0."""
    share = [0.2, 0.5, 0.3]
    logits = torch.tensor([[*map(math.log, share), -80.0]], dtype=torch.float64, requires_grad=True)
    r = beliefs(share, share)
    r["b"].sum = torch.log_softmax(logits, -1)[:, :3]
    OBJECTIVES["calibration"](r, restricted=restricted).loss.sum().backward()
    torch.testing.assert_close(logits.grad, torch.zeros_like(logits), atol=1e-12, rtol=0)
    logits.grad = None
    moved = (logits.detach() + torch.tensor([0.5, 0.0, 0.0, 0.0])).requires_grad_()
    r["b"].sum = torch.log_softmax(moved, -1)[:, :3]
    OBJECTIVES["calibration"](r, restricted=restricted).loss.sum().backward()
    assert float(moved.grad[0, 0]) > 0  # too likely: the step lowers it


def test_the_whole_vocabulary_pulls_mass_onto_the_options_and_the_options_alone_do_not() -> None:
    logits = torch.tensor([[0.0, 0.0, 2.0]], dtype=torch.float64, requires_grad=True)  # two options, one other word
    for restricted in (False, True):
        logits.grad = None
        r = beliefs([0.5, 0.5], [0.5, 0.5])
        r["b"].sum = torch.log_softmax(logits, -1)[:, :2]
        out = OBJECTIVES["calibration"](r, restricted=restricted)
        out.loss.sum().backward()
        assert out.metrics["off_option"][0] == pytest.approx(math.e**2 / (2 + math.e**2))
        assert out.metrics["js_distance"][0] == pytest.approx(0, abs=1e-6)
        assert (float(logits.grad[0, 2]) > 1e-3) != restricted


@draw(
    st.lists(st.tuples(st.floats(0, 1), st.floats(1e-3, 1)), min_size=1, max_size=6).filter(
        lambda x: sum(a for a, _ in x) > 0.1
    )
)
def test_calibration_is_a_divergence(rows) -> None:
    """Not negative, restricted no larger than unrestricted (by -log of the mass on the options), 0 only at p*."""
    p, q = (torch.tensor([x], dtype=torch.float64) for x in zip(*rows, strict=True))
    p, q = p / p.sum(), q / max(float(q.sum()), 1.0)
    r = {"b": Given(q.log(), torch.ones_like(q), torch.ones_like(q, dtype=torch.bool)), "share": p}
    whole, near = (float(OBJECTIVES["calibration"](r, restricted=x).loss) for x in (False, True))
    assert near >= -1e-9
    assert whole == pytest.approx(near - math.log(float(q.sum())), abs=1e-9)


def test_distances_by_hand() -> None:
    """p = (.5, .5), q = (.9, .1), m = (.7, .3): JSD = (.5 ln(.5/.7)/2 + ...) = .101749, its root .318982."""
    p, q = torch.tensor([[0.5, 0.5]], dtype=torch.float64), torch.tensor([[0.9, 0.1]], dtype=torch.float64)
    assert float(js_distance(p, q)) == pytest.approx(0.318982, abs=1e-6)
    assert float(js_distance(p, q) ** 2) == pytest.approx(0.101749, abs=1e-6)
    assert float(js_distance(q, p)) == float(js_distance(p, q))
    assert float(js_distance(p, p)) == 0
    apart = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    assert float(js_distance(apart, 1 - apart)) == pytest.approx(math.sqrt(LN2))
    from scipy.spatial.distance import jensenshannon

    assert float(js_distance(p, q)) == pytest.approx(jensenshannon(p[0], q[0]))


def test_questions_of_different_size_share_a_batch() -> None:
    """Each example's own loss, whatever stands beside it: the authors' code adds the batch's mean to every one."""
    rows = [([0.5, 0.5], [0.9, 0.1]), ([1.0], [0.25]), ([0.2, 0.3, 0.5], [0.2, 0.3, 0.5])]
    r = {"b": listed([[math.log(x) for x in q] for _, q in rows]), "share": shares([p for p, _ in rows])}
    for restricted in (False, True):
        out = OBJECTIVES["calibration"](r, restricted=restricted)
        alone = [loss("calibration", beliefs(p, q), restricted=restricted) for p, q in rows]
        assert out.loss.tolist() == pytest.approx(alone, abs=1e-9)
        assert torch.isfinite(out.metrics["js_distance"]).all()
    assert option_log_probs(r)[1].tolist() == pytest.approx([math.log(0.25), -math.inf, -math.inf])


# The whole loss


def test_gdpo_by_hand() -> None:
    """Fixture A: DPO .554355. Calibration .510826. Belief: number ln .9 and text -4 over 1 + 3 tokens: 1.026340."""
    r = beliefs([0.5, 0.5], [0.9, 0.1])
    prefix = -(math.log(0.9) - 4.0) / 4
    assert loss("belief_nll", r) == pytest.approx(prefix, abs=1e-6) == pytest.approx(1.026340, abs=1e-6)
    assert loss("gdpo", r) == pytest.approx(0.510826 + 0.554355 + prefix, abs=1e-6)
    assert loss("gdpo", r, calibration_weight=0.5, preference_weight=2.0, belief_weight=0.0) == pytest.approx(
        0.255413 + 1.108710, abs=1e-6
    )


def test_modes_are_weights() -> None:
    r = beliefs([0.5, 0.5], [0.9, 0.1], accept=1)
    off = {"calibration_weight": 0.0, "preference_weight": 0.0, "belief_weight": 0.0}
    assert loss("gdpo", r, **{**off, "preference_weight": 1.0}) == pytest.approx(loss("dpo", r))  # cdpo
    mft = loss("gdpo", r, **{**off, "calibration_weight": 1.0, "belief_weight": 1.0})
    assert mft == pytest.approx(loss("calibration", r) + loss("belief_nll", r))
    # sft: number ln .1, text -4, answer -10 over 1 + 3 + 1 tokens
    assert loss("gdpo", r, **off, imitation_weight=1.0) == pytest.approx((math.log(10) + 14) / 5, abs=1e-6)


def test_one_belief_is_dpo_and_the_likelihood_of_its_prefix() -> None:
    r = beliefs([1.0], [0.25])
    number = math.log(4)
    assert loss("gdpo", r) == pytest.approx(loss("dpo", r) + number + (number + 4) / 4, abs=1e-6)
    assert loss("gdpo", r, restricted=True) == pytest.approx(loss("dpo", r) + (number + 4) / 4, abs=1e-6)


def test_policy_equal_to_reference() -> None:
    r = beliefs([0.5, 0.5], [0.5, 0.5])
    r["ref_w"], r["ref_l"] = r["w"], r["l"]
    assert loss("gdpo", r, belief_weight=0.0) == pytest.approx(LN2, abs=1e-6)


@pytest.mark.parametrize("base", [n for n in PAIRWISE if not set(OBJECTIVES[n].needs) - {"w", "l", "ref_w", "ref_l"}])
def test_any_preference_in_place_of_dpo(base) -> None:
    r = beliefs([0.5, 0.5], [0.9, 0.1])
    sum_ = loss(f"{base} + 0.5*calibration + belief_nll", r)
    assert sum_ == pytest.approx(loss(base, r) + 0.5 * 0.510826 + loss("belief_nll", r), abs=1e-5)
    assert loss("dpo + calibration + belief_nll", r) == pytest.approx(loss("gdpo", r), abs=1e-6)


def test_each_part_has_its_own_gradients() -> None:
    """L_pref moves answers only; L_cal the numbers, each by q_k - p_k through its log-prob; L_belief the accepted."""
    names = ("w", "l", "b", "belief")
    moved = {}
    for part in ("calibration", "preference", "belief"):
        r = beliefs([0.5, 0.5], [0.9, 0.1], accept=1, grad=True)
        weights = {f"{p}_weight": float(p == part) for p in ("calibration", "preference", "belief")}
        OBJECTIVES["gdpo"](r, **weights).loss.sum().backward()
        moved[part] = {n: None if r[n].sum.grad is None else r[n].sum.grad.flatten().tolist() for n in names}
    rho = -torch.sigmoid(torch.tensor(-0.3)).item() * 0.1
    assert moved["preference"] == {"w": [pytest.approx(rho)], "l": [pytest.approx(-rho)], "b": None, "belief": None}
    assert moved["calibration"] == {"w": None, "l": None, "b": [-0.5, -0.5], "belief": None}
    assert moved["belief"] == {"w": None, "l": None, "b": [0.0, -0.25], "belief": [-0.25]}


def test_groups_have_metrics_of_their_own() -> None:
    """Two pairs that argue for the majority's belief, one for the other: each mean is over its own pairs."""
    r = {
        **pairs([-10.0, -10.0, -20.0], [-14.0, -14.0, -14.0], [-12.0, -12.0, -12.0], [-13.0, -13.0, -13.0]),
        "b": listed([[math.log(0.5)] * 2] * 3), "share": shares([[0.7, 0.3]] * 3), "belief": given([-4.0] * 3, [3] * 3),
        "accept": torch.tensor([0.0, 0.0, 1.0]), "majority": torch.tensor([1.0, 1.0, 0.0]),
    }  # fmt: skip
    m = OBJECTIVES["gdpo"](r).metrics
    assert m["margin"].tolist() == pytest.approx([0.3, 0.3, -0.7])
    assert m["majority_margin"].tolist() == pytest.approx([0.3, 0.3])
    assert m["minority_margin"].tolist() == pytest.approx([-0.7])
    assert (m["majority_accuracy"].mean(), m["minority_accuracy"].mean()) == (1.0, 0.0)


def test_weights_that_cannot_be() -> None:
    r = beliefs([0.5, 0.5], [0.9, 0.1])
    with pytest.raises(ValueError, match="below 0"):
        OBJECTIVES["gdpo"](r, belief_weight=-1.0)
    with pytest.raises(ValueError, match="one must be above"):
        OBJECTIVES["gdpo"](r, calibration_weight=0.0, preference_weight=0.0, belief_weight=0.0)


# A world of two beliefs


def fit(objective, start=(0.0, 0.0)) -> torch.Tensor:
    """The tabular policy over two beliefs that minimises `objective(log p)`, found by LBFGS in float64."""
    x = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [x], max_iter=500, tolerance_grad=1e-14, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure():
        optimiser.zero_grad()
        value = objective(torch.log_softmax(x, 0))
        value.backward()
        return value

    for _ in range(5):
        optimiser.step(closure)
    return torch.softmax(x.detach(), 0)


def test_dpo_collapses_to_the_majority_and_gdpo_keeps_both() -> None:
    """p* = (.7, .3), uniform reference, beta .1. DPO on 70 pairs against 30: its optimum has log-odds ln(7/3) / beta,
    p = (.99979, .00021), 0.3413 away from the people. Calibration alone is exact."""
    p = torch.tensor([0.7, 0.3], dtype=torch.float64)
    ref = torch.tensor(math.log(0.5), dtype=torch.float64)

    def dpo(log_p):
        reading = lambda x: Given(x[None], torch.ones(1))
        pair = lambda w, l: {
            "w": reading(log_p[w]),
            "l": reading(log_p[l]),
            "ref_w": reading(ref),
            "ref_l": reading(ref),
        }
        return sum(p[w] * OBJECTIVES["dpo"](pair(w, 1 - w), beta=0.1).loss.sum() for w in (0, 1))

    def gdpo(log_p):
        one = lambda a: {
            **beliefs([0.7, 0.3], [0.5, 0.5], accept=a),
            "b": Given(log_p[None], torch.ones(1, 2), torch.ones(1, 2)),
        }
        return sum(p[a] * OBJECTIVES["gdpo"](one(a)).loss.sum() for a in (0, 1))

    collapsed, kept = fit(dpo), fit(gdpo)
    assert collapsed.tolist() == pytest.approx([0.99979, 0.00021], abs=5e-6)
    assert float(js_distance(p, collapsed)) == pytest.approx(0.3413, abs=5e-5)
    assert float(js_distance(p, kept)) < 0.02
    assert kept.tolist() == pytest.approx([0.7, 0.3], abs=1e-6)  # L_belief, too, is drawn from p*: it agrees


def test_pairs_that_do_not_come_in_their_shares_move_the_optimum_by_the_beliefs_likelihood() -> None:
    """One pair a belief instead of 70 to 30: L_belief imitates the data's beliefs, and pulls q towards 50 to 50."""
    share = torch.tensor([0.7, 0.3], dtype=torch.float64)

    def loss_of(log_p, weight):
        one = lambda a: {
            **beliefs([0.7, 0.3], [0.5, 0.5], accept=a),
            "b": Given(log_p[None], torch.ones(1, 2), torch.ones(1, 2)),
        }
        return sum(OBJECTIVES["gdpo"](one(a), belief_weight=weight).loss.sum() / 2 for a in (0, 1))

    # -(.7 + w/8) ln q - (.3 + w/8) ln(1 - q), w/8: half the pairs, a quarter of the prefix's tokens
    assert fit(lambda x: loss_of(x, 1.0))[0].item() == pytest.approx(0.825 / 1.25, abs=1e-6)
    assert fit(lambda x: loss_of(x, 0.0)).tolist() == pytest.approx(share.tolist(), abs=1e-6)
    assert float(kl(share[None], share.log()[None])) == pytest.approx(0, abs=1e-12)
