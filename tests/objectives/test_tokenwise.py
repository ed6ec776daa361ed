"""TDPO, LD-DPO and WPO: hand-worked values, reductions to DPO, which gradients flow and which do not."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given as over
from hypothesis import settings
from hypothesis import strategies as st

from pluralign.objectives import OBJECTIVES, pairwise, tokenwise

from .toys import Given, given, tokens


def with_kl(kl_w=(0.1, 0.2), kl_l=(0.5, 0.2, 0.1), grad=False):
    """Fixture A with KL(y_w) = .3 and KL(y_l) = .8."""
    r = {
        "w": tokens([[-6.0, -4.0]], kl=[kl_w]),
        "l": tokens([[-6.0, -4.0, -4.0]], kl=[kl_l]),
        "ref_w": given([-12.0], [2]),
        "ref_l": given([-13.0], [3]),
    }
    for name in ("w", "l"):
        r[name].sum = r[name].sum.detach().requires_grad_(grad)
        r[name].kl.requires_grad_(grad)
    return r


def flat_grad(x: torch.Tensor) -> list[float]:
    return [0.0] * len(x) if x.grad is None else x.grad.tolist()


# TDPO


def test_tdpo_by_hand() -> None:
    assert tokenwise.tdpo1(with_kl()).loss.item() == pytest.approx(0.575939, abs=1e-6)  # margin .1 (3 - .5)
    assert tokenwise.tdpo2(with_kl()).loss.item() == pytest.approx(0.565071, abs=1e-6)  # margin .1 (3 - .25)
    metrics = tokenwise.tdpo2(with_kl()).metrics
    assert [metrics["chosen_kl"].item(), metrics["rejected_kl"].item()] == pytest.approx([0.3, 0.8])


def test_tdpo_without_kl_is_dpo() -> None:
    r = with_kl((0.0, 0.0), (0.0, 0.0, 0.0))
    for f in (tokenwise.tdpo1, tokenwise.tdpo2):
        torch.testing.assert_close(f(r).loss, pairwise.dpo(r).loss)
    torch.testing.assert_close(tokenwise.tdpo2(with_kl(), kl_weight=0.0).loss, pairwise.dpo(with_kl()).loss)


def test_tdpo2_equals_tdpo1_in_value_and_stops_the_chosen_kl_only() -> None:
    """d loss / d KL(y_l) = beta c sigma(-margin) at each token; KL(y_w) gets the opposite in TDPO1, none in TDPO2."""
    one, two = with_kl(grad=True), with_kl(grad=True)
    loss1, loss2 = tokenwise.tdpo1(one).loss, tokenwise.tdpo2(two, kl_weight=1.0).loss
    torch.testing.assert_close(loss1, loss2)
    (loss1 + loss2).sum().backward()
    slope = 0.1 / (1 + math.exp(0.25))
    assert flat_grad(one["w"].kl) == pytest.approx([-slope] * 2)
    assert flat_grad(two["w"].kl) == [0.0, 0.0]
    for r in (one, two):
        assert flat_grad(r["l"].kl) == pytest.approx([slope] * 3)
        assert float(r["w"].sum.grad) == pytest.approx(-slope)
        assert float(r["l"].sum.grad) == pytest.approx(slope)


def test_tdpo_value_does_use_the_chosen_kl() -> None:
    assert tokenwise.tdpo2(with_kl((2.0, 2.0))).loss.item() < tokenwise.tdpo2(with_kl()).loss.item()


# LD-DPO


def pair_of_tokens(w, l, ref_w, ref_l, grad=False):
    return {
        "w": tokens(w, grad=grad),
        "l": tokens(l, grad=grad),
        "ref_w": tokens(ref_w),
        "ref_l": tokens(ref_l),
    }


def test_ld_dpo_by_hand() -> None:
    """Shared length 2. h_w = (1 + 2) + a 4, h_l = -1: at a = .5 the margin is .1 (5 + 1)."""
    r = pair_of_tokens([[-1.0, -1.0, -1.0]], [[-2.0, -2.0]], [[-2.0, -3.0, -5.0]], [[-1.0, -2.0]])
    for a, rho in ((1.0, 8.0), (0.5, 6.0), (0.0, 4.0)):
        expected = math.log1p(math.exp(-0.1 * rho))
        assert tokenwise.ld_dpo(r, ld_alpha=a).loss.item() == pytest.approx(expected, abs=1e-6)


def test_ld_dpo_cuts_the_reference_like_the_policy() -> None:
    """Where the policy alone is cut, a longer response starts with a reward: here there is none, for any a."""
    rows = ([[-1.0, -2.0, -3.0, -4.0]], [[-2.0]])
    for a in (0.0, 0.3, 1.0):
        loss = tokenwise.ld_dpo(pair_of_tokens(*rows, *rows), ld_alpha=a).loss
        assert loss.item() == pytest.approx(math.log(2), abs=1e-7)


def test_ld_dpo_weighs_the_tail_in_the_gradient() -> None:
    r = pair_of_tokens([[-1.0]], [[-1.0, -1.0, -1.0]], [[-1.0]], [[-1.0, -1.0, -1.0]], grad=True)
    tokenwise.ld_dpo(r, ld_alpha=0.25).loss.sum().backward()
    assert r["w"].tokens.grad.tolist() == pytest.approx([-0.05])
    assert r["l"].tokens.grad.tolist() == pytest.approx([0.05, 0.0125, 0.0125])


ROWS = st.lists(st.lists(st.floats(-8, 0), min_size=1, max_size=6), min_size=4, max_size=4)


@settings(max_examples=40, deadline=None)
@over(first=ROWS, second=ROWS)
def test_ld_dpo_at_one_is_dpo_and_examples_do_not_mix(first, second) -> None:
    """References have the lengths of their responses; the value of an example does not depend on its neighbours."""

    def four(row, *more):
        w, l, a, b = ([row[i], *(m[i] for m in more)] for i in range(4))
        fit = lambda ref, own: [(r * 6)[: len(o)] for r, o in zip(ref, own, strict=True)]
        return pair_of_tokens(w, l, fit(a, w), fit(b, l))

    together = four(first, second)
    torch.testing.assert_close(tokenwise.ld_dpo(together, ld_alpha=1.0).loss, pairwise.dpo(together).loss)
    cut = tokenwise.ld_dpo(together, ld_alpha=0.3).loss
    torch.testing.assert_close(cut[1:], tokenwise.ld_dpo(four(second), ld_alpha=0.3).loss)
    torch.testing.assert_close(cut[:1], tokenwise.ld_dpo(four(first), ld_alpha=0.3).loss)


# WPO


def weighed(w_gap=(-0.2, -0.4), l_gap=(0.1,), grad=False):
    """Fixture A, whose tokens are that far above the collision log-probability: weight e^-.3 e^.1 = e^-.2."""
    r = {
        "w": tokens([[-6.0, -4.0]], collision=[[-6.0 - w_gap[0], -4.0 - w_gap[1]]], grad=grad),
        "l": tokens([[-14.0]], collision=[[-14.0 - l_gap[0]]], grad=grad),
        "ref_w": given([-12.0]),
        "ref_l": given([-13.0]),
    }
    return r


def test_wpo_by_hand() -> None:
    outcome = tokenwise.wpo(weighed())
    assert outcome.metrics["pair_weight"].item() == pytest.approx(math.exp(-0.2), abs=1e-6)
    assert outcome.loss.item() == pytest.approx(math.exp(-0.2) * 0.554355, abs=1e-6)


def test_wpo_weight_is_detached() -> None:
    """The gradient is the weight times that of DPO, the same at every token: lengths enter the weight only."""
    r = weighed(grad=True)
    tokenwise.wpo(r).loss.sum().backward()
    assert r["w"].tokens.grad.tolist() == pytest.approx([-0.042556 * math.exp(-0.2)] * 2, abs=1e-6)
    assert r["l"].tokens.grad.tolist() == pytest.approx([0.042556 * math.exp(-0.2)], abs=1e-6)


def test_wpo_weighs_tokens_and_not_sums() -> None:
    """A weight of sequence sums would be one number of one token: a batch of one had loss 0 in another code."""
    assert tokenwise.wpo(weighed()).loss.item() > 0.1
    longer = {**weighed(), "w": tokens([[-2.5] * 4], collision=[[-2.2] * 4])}  # -.3 a token, whatever the length
    torch.testing.assert_close(tokenwise.wpo(longer).loss, tokenwise.wpo(weighed()).loss)


def test_wpo_weight_is_one_where_the_policy_is_uniform() -> None:
    """log pi = log sum pi^2 = -log V at every token: every response is as likely as a sample."""
    u = -math.log(50)
    r = {
        "w": tokens([[u, u, u]], collision=[[u, u, u]]),
        "l": tokens([[u]], collision=[[u]]),
        "ref_w": given([3 * u]),
        "ref_l": given([u]),
    }
    assert tokenwise.wpo(r).loss.item() == pytest.approx(math.log(2), abs=1e-6)


def test_wpo_weight_can_be_capped() -> None:
    r = weighed((0.5, 0.7), (0.2,))
    assert tokenwise.wpo(r).metrics["pair_weight"].item() == pytest.approx(math.exp(0.8), abs=1e-5)
    assert tokenwise.wpo(r, max_weight=1.0).loss.item() == pytest.approx(0.554355, abs=1e-6)
    assert tokenwise.wpo(weighed(), max_weight=1.0).loss.item() == pytest.approx(0.453870, abs=1e-5)


# Sums


def test_segment_sums_are_fp32_under_bf16() -> None:
    """256 + 1 is 256 in bf16."""
    r = Given(torch.zeros(2), torch.tensor([3, 1]), segment=torch.tensor([0, 0, 0, 1]))
    total = tokenwise.segment_sum(torch.tensor([256.0, 1.0, 1.0, 5.0], dtype=torch.bfloat16), r)
    assert total.dtype == torch.float32
    assert total.tolist() == [258.0, 5.0]


@pytest.mark.parametrize(
    ("name", "reads"),
    [("tdpo1", ("kl",)), ("tdpo2", ("kl",)), ("ld_dpo", ("tokens",)), ("wpo", ("tokens", "collision"))],
)
def test_registered_as_pairs_with_a_reference(name, reads) -> None:
    objective = OBJECTIVES[name]
    assert objective.data == "pairs"
    assert objective.reference
    assert objective.reads == reads
    assert objective.formula
    assert objective.paper
