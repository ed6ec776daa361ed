"""KTO, BCO, APO on single responses, and underlying distribution matching."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given as over
from hypothesis import settings
from hypothesis import strategies as st

from pluralign.objectives import OBJECTIVES, matching, unpaired

from .toys import given, take

NAMES = ["apo_zero_unpaired", "bco", "kto"]


def readings(h=(2.0, -1.0), label=(True, False), kl=(0.0, 0.0), grad=False):
    """Fixture A of the specification, unpaired: h = 2 desirable, h = -1 undesirable."""
    ref = [-12.0, -13.0, -9.0, -7.0, -5.0][: len(h)]
    return {
        "y": given([a + b for a, b in zip(h, ref, strict=True)], grad=grad),
        "ref_y": given(ref),
        "label": torch.tensor(label),
        "mismatched": given([x - 20.0 for x in kl], grad=grad),
        "ref_mismatched": given([-20.0] * len(kl)),
    }


@pytest.mark.parametrize(("kl", "expected"), [(0.0, [0.450166, 0.475021]), (0.5, [0.462570, 0.462570])])
def test_kto_by_hand(kl, expected) -> None:
    assert unpaired.kto(readings(kl=(kl, kl))).loss.tolist() == pytest.approx(expected, abs=1e-6)


def test_kto_weighs_each_side() -> None:
    plain = unpaired.kto(readings()).loss
    weighed = unpaired.kto(readings(), desirable_weight=1.5, undesirable_weight=0.25).loss
    torch.testing.assert_close(weighed, plain * torch.tensor([1.5, 0.25]))


def test_kto_clamps_the_mean_and_not_its_terms() -> None:
    """Mean of (3, -2) is .5; clamping each term first would make it 1.5. All negative: 0."""
    assert unpaired.kto(readings(kl=(3.0, -2.0))).metrics["kl"].tolist() == pytest.approx([0.5, 0.5])
    assert unpaired.kto(readings(kl=(-3.0, -2.0))).metrics["kl"].tolist() == [0.0, 0.0]


def test_kto_passes_no_gradient_through_its_threshold() -> None:
    r = readings(kl=(1.0, 2.0), grad=True)
    unpaired.kto(r).loss.sum().backward()
    assert r["mismatched"].sum.grad is None
    assert float(r["y"].sum.grad[0]) < 0 < float(r["y"].sum.grad[1])


def test_kto_has_one_threshold_for_the_whole_step() -> None:
    """Not one a micro-batch, as where each computes its own: a batch of one would be its own threshold."""
    whole = readings(h=(2.0, -1.0, 0.5, 1.0), label=(True, False, False, True), kl=(4.0, 0.0, -1.0, 3.0))
    statistics = OBJECTIVES["kto"].statistics
    pieces = [take(whole, rows) for rows in ([0], [1, 2], [3])]
    batch = {"kl": torch.cat([statistics(piece)["kl"] for piece in pieces])}
    together = torch.cat([unpaired.kto(piece, batch=batch).loss for piece in pieces])
    torch.testing.assert_close(together, unpaired.kto(whole).loss)
    assert unpaired.kto(pieces[1]).loss.tolist() != pytest.approx(together[1:3].tolist(), abs=1e-4)


def test_kto_without_mismatched_pairs_says_so() -> None:
    r = readings()
    del r["mismatched"]
    with pytest.raises(KeyError, match="mismatched"):
        unpaired.kto(r)


def test_bco_by_hand() -> None:
    """r = .2 and -.1, delta = .05: both are ln(1 + e^-.15)."""
    outcome = unpaired.bco(readings())
    assert outcome.loss.tolist() == pytest.approx([0.620957, 0.620957], abs=1e-6)
    assert outcome.metrics["shift"].tolist() == pytest.approx([0.05, 0.05])


def test_bco_is_tightest_at_the_midpoint() -> None:
    """r_+ = 1, r_- = -.6: the bound is .742201 at delta .2, .750750 at 0, above DPO's .183901."""
    r = readings(h=(10.0, -6.0))
    total = lambda delta: float(unpaired.bco(r, running={"count": 1.0, "drift": 10 * delta}).loss.sum())
    assert total(0.2) == pytest.approx(0.742201, abs=1e-6)
    assert total(0.0) == pytest.approx(0.750750, abs=1e-6)
    assert min(total(0.2 + d) for d in (-0.05, 0.05)) > total(0.2) > math.log1p(math.exp(-1.6))


def test_bco_running_shift_is_a_count_weighted_mean() -> None:
    """Steps of 2 and 1: (2 - 1 + 5) / 3 = 2, not the mean of the steps' means."""
    update = OBJECTIVES["bco"].update
    state = update({}, {"drift": torch.tensor([2.0, -1.0])})
    assert state == {"count": 2.0, "drift": 0.5}
    state = update(state, {"drift": torch.tensor([5.0])})
    assert state == {"count": 3.0, "drift": 2.0}
    assert update(state, {"drift": torch.tensor([])}) == state


def test_bco_moves_its_shift_in_training_and_freezes_it_in_evaluation() -> None:
    """The state goes over the batch: what an example is worth must not depend on who else is evaluated."""
    frozen = {"count": 8.0, "drift": 1.0}
    alone, beside = (unpaired.bco(take(readings(), rows), running=frozen).loss[0] for rows in ([0], [0, 1]))
    assert [float(alone), float(beside)] == pytest.approx([math.log1p(math.exp(-0.1))] * 2, abs=1e-6)
    batch = {"drift": torch.tensor([2.0, -1.0])}
    assert unpaired.bco(readings(), running=frozen, batch=batch).metrics["shift"].tolist() == pytest.approx([0.1, 0.1])
    assert unpaired.bco(readings(), batch=batch).metrics["shift"].tolist() == pytest.approx([0.05, 0.05])


def test_bco_before_any_training_has_no_shift() -> None:
    assert unpaired.bco(readings(), running={}).metrics["shift"].tolist() == [0.0, 0.0]


def test_bco_with_density_weighs_undesirable_examples_only() -> None:
    plain = unpaired.bco(readings()).loss
    weighed = unpaired.bco(readings() | {"density": torch.tensor([10.0, 0.5])}).loss
    torch.testing.assert_close(weighed, plain * torch.tensor([1.0, 0.5]))


def test_bco_passes_no_gradient_through_its_shift() -> None:
    r = readings(grad=True)
    unpaired.bco(r).loss[0].backward()
    assert r["y"].sum.grad[1] == 0.0


def test_apo_is_kto_without_a_threshold() -> None:
    outcome = unpaired.apo_zero_unpaired(readings(kl=(5.0, 5.0)))
    assert outcome.loss.tolist() == pytest.approx([0.450166, 0.475021], abs=1e-6)
    torch.testing.assert_close(outcome.loss, unpaired.kto(readings(kl=(-1.0, -1.0))).loss)


@pytest.mark.parametrize(("name", "expected"), [("kto", 0.5), ("bco", math.log(2)), ("apo_zero_unpaired", 0.5)])
def test_policy_equal_to_reference(name, expected) -> None:
    outcome = OBJECTIVES[name](readings(h=(0.0, 0.0)))
    assert outcome.loss.tolist() == pytest.approx([expected] * 2, abs=1e-6)
    assert outcome.metrics["accuracy"].tolist() == [0.0, 0.0]  # a tie is no win


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@over(
    h=st.lists(st.floats(-30, 30), min_size=2, max_size=5),
    label=st.lists(st.booleans(), min_size=5, max_size=5),
    kl=st.floats(-3, 3),
)
def test_desirable_responses_rise_and_others_fall(name, h, label, kl) -> None:
    """For every h, label and threshold; a bool column and one of 0 and 1 are the same."""
    r = readings(h=h, label=label[: len(h)], kl=(kl,) * len(h), grad=True)
    outcome = OBJECTIVES[name](r)
    outcome.loss.sum().backward()
    assert torch.isfinite(outcome.loss).all()
    sign = torch.where(r["label"], -1.0, 1.0)
    assert (r["y"].sum.grad * sign > 0).all()
    as_numbers = OBJECTIVES[name](r | {"label": r["label"].float()})
    torch.testing.assert_close(as_numbers.loss, outcome.loss)
    assert all(m.shape == outcome.loss.shape and not m.requires_grad for m in outcome.metrics.values())


@pytest.mark.parametrize("name", NAMES)
def test_registered_as_learning_from_labels_with_a_reference(name) -> None:
    objective = OBJECTIVES[name]
    assert objective.data == "labels"
    assert objective.reference
    assert objective.formula
    assert objective.paper


@pytest.mark.parametrize("name", ["kto", "bco"])
def test_statistics_are_detached(name) -> None:
    gathered = OBJECTIVES[name].statistics(readings(grad=True))
    assert all(x.shape == (2,) and not x.requires_grad for x in gathered.values())


# Underlying distribution matching


def clusters(gap: float, n: int = 60):
    """Desirable prompts around +gap, undesirable ones around -gap, in four dimensions."""
    g = torch.Generator().manual_seed(3)
    noise = torch.randn(2 * n, 4, generator=g)
    desirable = torch.arange(2 * n) < n
    noise[:, 0] += torch.where(desirable, gap, -gap)
    return noise, desirable


def test_identical_prompts_weigh_one() -> None:
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    weights = matching.density_weights(torch.cat([x, x]), torch.arange(80) < 40)
    torch.testing.assert_close(weights, torch.ones(80), atol=1e-4, rtol=0)


def test_disjoint_prompts_are_clipped() -> None:
    x, desirable = clusters(8.0)
    weights = matching.density_weights(x, desirable)
    assert (weights[desirable] == 1).all()
    assert (weights[~desirable] == 0.5).all()
    ratio = matching.fit_density_ratio(x, desirable)
    assert (ratio(x[desirable]) == 10).all()


def test_weights_are_the_ratio_of_two_known_densities() -> None:
    """Two unit normals at +-.5 on a line: log p(x|+) / p(x|-) = x."""
    g = torch.Generator().manual_seed(1)
    n = 20_000
    x = torch.randn(2 * n, 1, generator=g) + torch.where(torch.arange(2 * n) < n, 0.5, -0.5)[:, None]
    ratio = matching.fit_density_ratio(x, torch.arange(2 * n) < n)
    assert float(ratio.direction) == pytest.approx(1.0, abs=0.05)
    assert ratio.offset == pytest.approx(0.0, abs=0.05)
    assert ratio(torch.tensor([[1.0]])).item() == pytest.approx(math.e, rel=0.06)


def test_uneven_classes_are_balanced() -> None:
    """Copying each undesirable row three times changes the class sizes and nothing else (up to the ridge)."""
    x, desirable = clusters(0.7)
    once = matching.fit_density_ratio(x, desirable, ridge=1e-6)(x, low=0, high=1e9)
    more = torch.cat([x, x[~desirable], x[~desirable]])
    label = torch.cat([desirable, torch.zeros(2 * int((~desirable).sum()), dtype=torch.bool)])
    thrice = matching.fit_density_ratio(more, label, ridge=1e-6)(x, low=0, high=1e9)
    torch.testing.assert_close(once, thrice, rtol=1e-3, atol=1e-4)


def test_matching_is_deterministic_and_ignores_constant_dimensions() -> None:
    x, desirable = clusters(0.7)
    first, second = (matching.fit_density_ratio(x, desirable) for _ in range(2))
    assert torch.equal(first.direction, second.direction)
    with_constant = matching.fit_density_ratio(torch.cat([x, torch.full((len(x), 1), 7.0)], 1), desirable)
    assert float(with_constant.direction[-1]) == 0.0
    torch.testing.assert_close(with_constant.direction[:-1], first.direction)


def test_matching_refuses_what_it_cannot_fit() -> None:
    with pytest.raises(ValueError, match="one kind is missing"):
        matching.fit_density_ratio(torch.randn(4, 2), torch.ones(4, dtype=torch.bool))
    with pytest.raises(ValueError, match="not finite"):
        matching.fit_density_ratio(torch.tensor([[torch.nan], [0.0]]), torch.tensor([True, False]))
