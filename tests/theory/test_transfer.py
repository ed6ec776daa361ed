"""What is learned in the sight of the alternative, and what of it reaches the prompt alone."""

from __future__ import annotations

import numpy as np
import pytest

from pluralign.objectives import OBJECTIVES
from pluralign.theory.tabular import expected_loss, pair_weights, tensor
from pluralign.theory.transfer import POLICIES, TABLE_1, setting, train

REGISTERED = [name for name in TABLE_1 if name in OBJECTIVES]
each = pytest.mark.parametrize("name", REGISTERED)
SMALL = {"prompts": 8, "held_out": 12, "responses": 4, "dim": 4}
STEPS = 60


def test_the_losses_of_table_1_are_there() -> None:
    assert {"dpo", "ipo", "simpo"} <= set(REGISTERED)


@each
def test_a_table_leaves_the_prompt_alone_exactly(name: str) -> None:
    course = train(setting(0, **SMALL), "tabular", name, steps=STEPS)
    assert course.moved == 0.0
    assert (course.alone == course.alone[0]).all()
    assert course.sighted[-1] > course.sighted[0] + 0.1


@each
def test_what_depends_on_the_alternative_stays_behind(name: str) -> None:
    course = train(setting(0, **SMALL), "reply", name, steps=STEPS)
    assert course.moved == 0.0
    assert course.held_alone[-1] == course.held_alone[0]
    assert course.sighted[-1] > course.sighted[0] + 0.01


@each
@pytest.mark.parametrize("policy", ["shared", "both"])
def test_shared_parameters_raise_the_prompt_level_margin_on_prompts_not_seen(policy: str, name: str) -> None:
    course = train(setting(0, **SMALL), policy, name, steps=STEPS)
    assert course.held_alone[0] == pytest.approx(0, abs=1e-12)
    assert course.held_alone[-1] > 0.1
    assert course.alone[-1] > 0.1


@each
def test_a_policy_blind_to_the_alternative_learns_exactly_the_plain_objective(name: str) -> None:
    s = setting(0, **SMALL)
    blind = type(s)(s.train, s.held_out, s.features, s.lengths, np.zeros_like(s.interaction))
    seen = train(blind, "shared", name, steps=STEPS)
    plain = train(blind, "shared", name, conditioned=False, steps=STEPS)
    assert np.abs(seen.held_alone - plain.held_alone).max() < 1e-9
    assert seen.value == plain.value


@each
def test_the_gradient_raises_the_chosen_and_lowers_the_rejected_in_the_sight_of_each_other(name: str) -> None:
    s = setting(0, **SMALL)
    weight = tensor(pair_weights(s.train) * np.triu(np.ones((4, 4)), 1))  # the smaller index is always chosen
    log_ref = tensor(np.log(s.train.reference))
    log_pi = (log_ref[:, :, None].expand(-1, -1, 4) - 0.1).clone().requires_grad_()
    expected_loss(name, log_pi, log_ref, weight, tensor(s.lengths)).backward()
    assert log_pi.grad is not None
    upper, lower = np.triu_indices(4, 1), np.tril_indices(4, -1)
    assert (log_pi.grad[:, upper[0], upper[1]] < 0).all()  # y < z: y is chosen over z
    assert (log_pi.grad[:, lower[0], lower[1]] > 0).all()
    assert (log_pi.grad[:, range(4), range(4)] == 0).all()


def test_every_policy_starts_at_the_same_place() -> None:
    s = setting(3, **SMALL)
    starts = [train(s, policy, "dpo", steps=0) for policy in POLICIES]
    for course in starts[1:]:
        assert course.sighted[0] == pytest.approx(starts[0].sighted[0], abs=1e-12)
        assert course.alone[0] == pytest.approx(starts[0].alone[0], abs=1e-12)
