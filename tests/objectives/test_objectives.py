"""Hand-worked values, reductions, gradient signs and finite values at policy = reference, for every objective."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from pluralign.objectives import OBJECTIVES


@dataclass
class Given:
    sum: Tensor
    length: Tensor

    @property
    def mean(self) -> Tensor:
        return self.sum / self.length


def readings(w=-10.0, l=-14.0, ref_w=-12.0, ref_l=-13.0, n_w=5, n_l=7, grad=False):
    """Fixture A of the specification: h_w = 2, h_l = -1, rho = 3, per token 0.4 + 1/7 = 0.542857."""
    make = lambda x, n, g=False: Given(torch.tensor([x], requires_grad=g), torch.tensor([n]))
    return {"w": make(w, n_w, grad), "l": make(l, n_l, grad), "ref_w": make(ref_w, n_w), "ref_l": make(ref_l, n_l)}


def value(name: str, r, **hyper) -> float:
    return float(OBJECTIVES[name](r, **hyper).loss)


HAND = [
    ("dpo", {"beta": 0.1}, 0.554355),  # ln(1 + e^-.3)
    ("ipo", {"tau": 0.1}, 4.0),  # (3 - 5)^2
    ("ipo", {"tau": 0.1, "length_average": True}, 19.866122),  # (.542857 - 5)^2
]


@pytest.mark.parametrize(("name", "hyper", "expected"), HAND)
def test_hand_worked_values(name, hyper, expected) -> None:
    assert value(name, readings(), **hyper) == pytest.approx(expected, abs=1e-5)


def test_simpo_by_hand() -> None:
    """Fixture B: -0.5 and -1.0 nats a token, beta 2: the gap is 1."""
    r = readings(w=-2.5, n_w=5, l=-7.0, n_l=7)
    assert value("simpo", r, beta=2.0, gamma=0.0) == pytest.approx(0.313262, abs=1e-6)
    assert value("simpo", r, beta=2.0, gamma=1.0) == pytest.approx(0.693147, abs=1e-6)


def test_sft_is_the_negative_log_likelihood() -> None:
    r = {"y": Given(torch.tensor([-6.0, -1.5]), torch.tensor([3, 1]))}
    outcome = OBJECTIVES["sft"](r)
    assert outcome.loss.tolist() == [6.0, 1.5]
    assert outcome.metrics["nll_per_token"].tolist() == [2.0, 1.5]


def test_dpo_gradients_by_hand() -> None:
    """dL/d log pi(y_w) = -beta sigma(-beta rho) = -.1 / (1 + e^.3) = -.042556."""
    r = readings(grad=True)
    OBJECTIVES["dpo"](r, beta=0.1).loss.sum().backward()
    assert float(r["w"].sum.grad) == pytest.approx(-0.042556, abs=1e-6)
    assert float(r["l"].sum.grad) == pytest.approx(0.042556, abs=1e-6)


@pytest.mark.parametrize("name", ["dpo", "ipo", "simpo"])
def test_gradients_raise_the_chosen_and_lower_the_rejected(name) -> None:
    r = readings(grad=True)
    OBJECTIVES[name](r).loss.sum().backward()
    assert float(r["w"].sum.grad) < 0 < float(r["l"].sum.grad)


@pytest.mark.parametrize("name", ["dpo", "ipo"])
def test_policy_equal_to_reference(name) -> None:
    expected = {"dpo": math.log(2), "ipo": 25.0}[name]
    r = readings(w=-12.0, l=-13.0)
    outcome = OBJECTIVES[name](r)
    assert float(outcome.loss) == pytest.approx(expected, abs=1e-6)
    assert float(outcome.metrics["accuracy"]) == 0.0  # a tie is no win
    assert float(outcome.metrics["chosen_drift"]) == 0.0


def test_dpo_sums_with_its_mirror_image() -> None:
    """Swapping the responses negates the logit: -log s(z) - (-log s(-z)) = -z."""
    r = readings()
    swapped = {"w": r["l"], "l": r["w"], "ref_w": r["ref_l"], "ref_l": r["ref_w"]}
    assert value("dpo", r, beta=0.1) - value("dpo", swapped, beta=0.1) == pytest.approx(-0.3, abs=1e-6)


def test_ipo_is_flat_exactly_at_its_target() -> None:
    r = readings(w=-12.0 + 5.0, l=-13.0, grad=True)  # rho = 5 = 1 / (2 tau)
    outcome = OBJECTIVES["ipo"](r, tau=0.1)
    outcome.loss.sum().backward()
    assert float(outcome.loss) == 0.0
    assert float(r["w"].sum.grad) == 0.0


def test_averages_do_not_change_when_every_token_is_doubled() -> None:
    once, twice = readings(), readings(w=-20.0, l=-28.0, ref_w=-24.0, ref_l=-26.0, n_w=10, n_l=14)
    assert value("simpo", once) == pytest.approx(value("simpo", twice))
    assert value("ipo", once, length_average=True) == pytest.approx(value("ipo", twice, length_average=True))
    assert value("ipo", once) != pytest.approx(value("ipo", twice))


def test_simpo_is_dpo_without_reference_on_single_tokens() -> None:
    r = readings(ref_w=0.0, ref_l=0.0, n_w=1, n_l=1)
    assert value("simpo", r, beta=0.1, gamma=0.0) == pytest.approx(value("dpo", r, beta=0.1))


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_losses_are_one_per_example_and_metrics_carry_no_gradient(name) -> None:
    n = 4
    g = torch.Generator().manual_seed(0)
    make = lambda: Given(-20 * torch.rand(n, generator=g), torch.randint(1, 9, (n,), generator=g))
    objective = OBJECTIVES[name]
    r = {key: make() for key in objective.needs}
    for key in r:
        r[key].sum.requires_grad_()
    outcome = objective(r)
    assert outcome.loss.shape == (n,)
    assert torch.isfinite(outcome.loss).all()
    assert all(m.shape == (n,) and not m.requires_grad for m in outcome.metrics.values())
    assert objective.formula
    assert objective.paper


def test_tabular_dpo_recovers_the_closed_form() -> None:
    """Four responses, Bradley-Terry labels from a known r in expectation: the optimum is ref * exp(r / beta) / Z."""
    beta, r = 0.5, torch.tensor([0.0, 1.0, -0.5, 2.0], dtype=torch.float64)
    ref = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64).log()
    theta = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    i, j = (x.flatten() for x in torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij"))
    weight = torch.sigmoid(r[i] - r[j]) * (i != j)
    one = torch.ones_like(i)
    optimizer = torch.optim.LBFGS([theta], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-14)

    def closure() -> Tensor:
        optimizer.zero_grad()
        pi = theta.log_softmax(0)
        terms = {
            "w": Given(pi[i], one),
            "l": Given(pi[j], one),
            "ref_w": Given(ref[i], one),
            "ref_l": Given(ref[j], one),
        }
        loss = (OBJECTIVES["dpo"](terms, beta=beta).loss * weight).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    torch.testing.assert_close(theta.softmax(0), (ref + r / beta).softmax(0), atol=1e-4, rtol=0)
