"""AOT: quantiles of the whole step, exact in value and gradient however the step is split."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given as over
from hypothesis import settings
from hypothesis import strategies as st
from torch.nn.functional import logsigmoid

from pluralign.objectives import OBJECTIVES, batchwise, pairwise

from .toys import FIXTURE_A, pairs, take

NAMES = ["aot", "aot_unpaired"]
F64 = torch.float64

# h(y_w) = 1, 4, 2 and h(y_l) = 3, 0, -1; gaps of the policy 2, 7, 1 and of the reference 4, 3, -2
THREE = {
    "w": [-9.0, -6.0, -8.0],
    "l": [-11.0, -13.0, -9.0],
    "ref_w": [-10.0, -10.0, -10.0],
    "ref_l": [-14.0, -13.0, -8.0],
}


def direct(name: str, r, beta: float = 0.1, smoothing: float = 0.0) -> torch.Tensor:
    """The mean over the step as it is printed: sort both sides, subtract."""
    if name == "aot":
        a, b = r["w"].sum - r["l"].sum, r["ref_w"].sum - r["ref_l"].sum
    else:
        a, b = r["w"].sum - r["ref_w"].sum, r["l"].sum - r["ref_l"].sum
    z = beta * (a.sort().values - b.sort().values)
    return -((1 - smoothing) * logsigmoid(z) + smoothing * logsigmoid(-z)).mean()


def split(name: str, r, sizes, **hyper) -> torch.Tensor:
    """The same in micro-batches: statistics of each, then the loss of each under the gathered batch."""
    objective = OBJECTIVES[name]
    n, pieces = 0, []
    for size in sizes:
        pieces.append(take(r, list(range(n, n + size))))
        n += size
    gathered = [objective.statistics(piece) for piece in pieces]
    batch = {key: torch.cat([g[key] for g in gathered]) for key in gathered[0]}
    assert all(not x.requires_grad for x in batch.values())
    return sum(objective(piece, batch=batch, **hyper).loss.sum() for piece in pieces) / n


def test_aot_by_hand() -> None:
    """Sorted 1, 2, 7 against -2, 3, 4: gaps 3, -1, 3. Pairwise they would be -2, 4, 3."""
    soft = lambda z: math.log1p(math.exp(-z))
    r = pairs(**THREE)
    assert batchwise.aot(r).loss.tolist() == pytest.approx([soft(-0.1), soft(0.3), soft(0.3)], abs=1e-6)
    assert float(pairwise.dpo(r).loss.mean()) == pytest.approx((soft(-0.2) + soft(0.4) + soft(0.3)) / 3, abs=1e-6)


def test_aot_unpaired_by_hand() -> None:
    """Sorted 1, 2, 4 against -1, 0, 3: gaps 2, 2, 1. An example's loss is half of what each of its sides pays."""
    soft = lambda z: math.log1p(math.exp(-z))
    loss = batchwise.aot_unpaired(pairs(**THREE)).loss
    expected = [(soft(0.2) + soft(0.1)) / 2, (soft(0.1) + soft(0.2)) / 2, (soft(0.2) + soft(0.2)) / 2]
    assert loss.tolist() == pytest.approx(expected, abs=1e-6)
    assert float(loss.sum()) == pytest.approx(2 * soft(0.2) + soft(0.1), abs=1e-6)


VALUES = st.lists(
    st.tuples(*[st.one_of(st.integers(-3, 0).map(float), st.floats(-30, 0).map(lambda x: round(x, 2)))] * 4),
    min_size=1,
    max_size=9,
)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=80, deadline=None)
@over(rows=VALUES, cuts=st.lists(st.integers(1, 4), min_size=9, max_size=9), smoothing=st.sampled_from([0.0, 0.2]))
def test_a_split_step_has_the_value_and_gradient_of_the_whole(name, rows, cuts, smoothing) -> None:
    """Ties included: their value is the printed one, and so is the sum of their gradients."""
    w, l, a, b = (list(x) for x in zip(*rows, strict=True))
    sizes = []
    while sum(sizes) < len(rows):
        sizes.append(min(cuts[len(sizes)], len(rows) - sum(sizes)))
    printed, whole, parts = (pairs(w, l, a, b, grad=True, dtype=F64) for _ in range(3))
    losses = [
        direct(name, printed, smoothing=smoothing),
        split(name, whole, [len(rows)], label_smoothing=smoothing),
        split(name, parts, sizes, label_smoothing=smoothing),
    ]
    for loss in losses:
        loss.backward()
        torch.testing.assert_close(loss, losses[0])
    for side in ("w", "l"):
        torch.testing.assert_close(parts[side].sum.grad, whole[side].sum.grad)
        torch.testing.assert_close(whole[side].sum.grad.sum(), printed[side].sum.grad.sum())
    values = lambda r, x, y: (r[x].sum - r[y].sum).tolist()
    sorted_by = [("w", "l")] if name == "aot" else [("w", "ref_w"), ("l", "ref_l")]
    if all(len({round(v, 9) for v in values(whole, *s)}) == len(rows) for s in sorted_by):  # without ties, each one's
        for side in ("w", "l"):
            torch.testing.assert_close(whole[side].sum.grad, printed[side].sum.grad)


@pytest.mark.parametrize("name", NAMES)
def test_ties_share_ranks_whatever_their_order(name) -> None:
    """The first two examples are equal in what is sorted, and so are their losses and gradients."""
    r = pairs([-9.0, -9.0, -6.0], [-11.0, -11.0, -9.0], [-10.0, -10.0, -9.0], [-14.0, -14.0, -8.0], grad=True)
    loss = OBJECTIVES[name](r).loss
    loss.sum().backward()
    assert loss[0] == loss[1]
    assert r["w"].sum.grad[0] == r["w"].sum.grad[1]
    assert loss.mean().item() == pytest.approx(direct(name, r).item(), abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_second_pass_need_not_repeat_every_bit(name) -> None:
    """The gathered values come from a pass of their own: rounding must not lose an example its rank."""
    r = pairs(**THREE)
    noisy = {key: x * (1 + 1e-6) for key, x in OBJECTIVES[name].statistics(r).items()}
    torch.testing.assert_close(OBJECTIVES[name](r, batch=noisy).loss, OBJECTIVES[name](r).loss, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_one_pair_is_dpo(name) -> None:
    ours, theirs = pairs(**FIXTURE_A, grad=True), pairs(**FIXTURE_A, grad=True)
    outcome, expected = OBJECTIVES[name](ours), pairwise.dpo(theirs)
    torch.testing.assert_close(outcome.loss, expected.loss)
    outcome.loss.sum().backward()
    expected.loss.sum().backward()
    for side in ("w", "l"):
        torch.testing.assert_close(ours[side].sum.grad, theirs[side].sum.grad)
    assert outcome.metrics.keys() == expected.metrics.keys()


@pytest.mark.parametrize("name", NAMES)
def test_policy_equal_to_reference(name) -> None:
    r = pairs(THREE["w"], THREE["l"], THREE["w"], THREE["l"])
    assert OBJECTIVES[name](r).loss.tolist() == pytest.approx([math.log(2)] * 3, abs=1e-6)
    assert OBJECTIVES[name](r).metrics["accuracy"].tolist() == [0.0] * 3


@pytest.mark.parametrize("name", NAMES)
def test_the_chosen_rise_and_the_rejected_fall(name) -> None:
    r = pairs(**THREE, grad=True)
    OBJECTIVES[name](r).loss.sum().backward()
    assert (r["w"].sum.grad < 0).all()
    assert (r["l"].sum.grad > 0).all()


def test_unpaired_does_not_see_who_belongs_to_whom() -> None:
    """Turning the rejected side by one moves shares between examples and leaves their sum."""
    turned = {**THREE, "l": THREE["l"][1:] + THREE["l"][:1], "ref_l": THREE["ref_l"][1:] + THREE["ref_l"][:1]}
    a, b = (batchwise.aot_unpaired(pairs(**rows)).loss.sum() for rows in (THREE, turned))
    torch.testing.assert_close(a, b)
    paired = [batchwise.aot(pairs(**rows)).loss.sum() for rows in (THREE, turned)]
    assert abs(float(paired[0] - paired[1])) > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_label_smoothing_stops_at_its_odds(name) -> None:
    """Flat at beta gap = ln((1 - e) / e), one pair."""
    gap = 10 * math.log(0.9 / 0.1)
    r = pairs([-10.0 + gap], [-10.0], [-10.0], [-10.0], grad=True, dtype=F64)
    OBJECTIVES[name](r, label_smoothing=0.1).loss.sum().backward()
    assert float(r["w"].sum.grad) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_registered_as_pairs_with_statistics(name) -> None:
    objective = OBJECTIVES[name]
    assert objective.data == "pairs"
    assert objective.reference
    assert "batch" not in objective.defaults
    assert objective.update is None
