"""What holds for every objective over pairs: shapes, values at policy = reference, gradient signs, limits."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given as over
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from pluralign.objectives import OBJECTIVES
from pluralign.objectives.core import GIVEN

from .pairs import PAIRWISE, REFERENCED, ratios, readings, slopes, value
from .toys import Given

LN2 = math.log(2)


def test_sft_is_the_negative_log_likelihood() -> None:
    r = {"y": Given(torch.tensor([-6.0, -1.5]), torch.tensor([3, 1]))}
    outcome = OBJECTIVES["sft"](r)
    assert outcome.loss.tolist() == [6.0, 1.5]
    assert outcome.metrics["nll_per_token"].tolist() == [2.0, 1.5]


# Values where the policy is the reference, as the docstrings state them

AT_REFERENCE = {  # |y_w| = 5, |y_l| = 7, log-probs of -12 and -13
    "apo_down": 1.0,
    "apo_zero": 1.0,
    "bco_pair": 2 * LN2,
    "cdpo": LN2,
    "discopop": (1 + LN2) / 2,
    "dpo": LN2,
    "dpo_offset": math.log(1 + math.exp(0.4)),  # margin .4
    "dpop": LN2,
    "exo": -math.log(4 * 0.001 * 0.999) / 2,
    "f_dpo": LN2,
    "gpo": LN2,
    "ipo": 25.0,
    "nca": 2 * LN2,
    "r_dpo": math.log(1 + math.exp(0.1)),  # -.05 (5 - 7)
    "robust": LN2,
    "sigmoid_norm": LN2,
    "slic_norm": 1.0,
    "spce": LN2,
    "sppo": 500_000.0,
}
ALIKE = {  # without a reference: log-probs of -3 each, of 6 tokens each
    "alphapo": math.log(1 + math.exp(0.5)),
    "cpo": LN2 + 0.5,
    "nll": 0.5,
    "orpo": 0.5 + 0.1 * LN2,
    "simpo": math.log(1 + math.exp(0.5)),
    "slic": 1.0 + 0.3,
}


@pytest.mark.parametrize("name", PAIRWISE)
def test_policy_equal_to_reference(name) -> None:
    """Finite and as documented; a tie is no win; the gradient is finite too, before the first step of any run."""
    if name in REFERENCED:
        r = readings(w=-12.0, l=-13.0, margin=0.4, p=0.8, grad=True)
        expected = AT_REFERENCE[name]
    else:
        r = readings(w=-3.0, l=-3.0, n_w=6, n_l=6, grad=True)
        expected = ALIKE[name]
    outcome = OBJECTIVES[name](r)
    assert float(outcome.loss.detach()) == pytest.approx(expected, rel=1e-6)
    assert float(outcome.metrics["accuracy"]) == 0.0
    assert float(outcome.metrics["margin"]) == 0.0
    assert all(math.isfinite(g) for g in slopes(name, r))
    if name in REFERENCED:
        assert float(outcome.metrics["chosen_drift"]) == float(outcome.metrics["rejected_drift"]) == 0.0


@pytest.mark.parametrize("name", PAIRWISE)
def test_docstrings_state_that_value(name) -> None:
    text = OBJECTIVES[name].function.__doc__
    assert name == "nll" or "Policy = reference" in text or "Equal" in text


# Gradients

# (chosen falls here, rejected stays) by design; see the docstrings
LOWERS_THE_CHOSEN = {"apo_down"}
IGNORES_THE_REJECTED = {"nll"}
POINTS = [{}, {"w": -12.5, "l": -12.7}, {"w": -15.0, "l": -11.0}]
NOT_THERE = {("discopop", 1)}  # z = .02 lies in the stretch where the published loss rises


@pytest.mark.parametrize("point", range(len(POINTS)))
@pytest.mark.parametrize("name", PAIRWISE)
def test_gradients_raise_the_chosen_and_lower_the_rejected(name, point) -> None:
    """At a won pair, a near tie and a lost pair."""
    if (name, point) in NOT_THERE:
        assert slopes(name, readings(**POINTS[point], grad=True))[0] > 0
        return
    hyper = {"hinge_margin": 5.0} if name == "slic" else {}
    chosen, rejected = slopes(name, readings(**POINTS[point], grad=True), **hyper)
    assert chosen < 0 or name in LOWERS_THE_CHOSEN
    assert rejected > 0 or name in IGNORES_THE_REJECTED


def test_the_exceptions_are_ones() -> None:
    chosen, rejected = slopes("apo_down", readings(grad=True))  # s'(.2) - s'(.3), s'(.3)
    assert chosen == pytest.approx(0.1 * (0.247517 - 0.244458), abs=1e-7)
    assert rejected == pytest.approx(0.1 * 0.244458, abs=1e-7)
    assert slopes("nll", readings(grad=True)) == (pytest.approx(-0.2), 0.0)


def test_dpo_gradients_by_hand() -> None:
    """dL/d log pi(y_w) = -beta sigma(-beta rho) = -.1 / (1 + e^.3) = -.042556."""
    chosen, rejected = slopes("dpo", readings(grad=True), beta=0.1)
    assert chosen == pytest.approx(-0.042556, abs=1e-6)
    assert rejected == pytest.approx(0.042556, abs=1e-6)


def test_dpo_sums_with_its_mirror_image() -> None:
    """Swapping the responses negates the logit: -log s(z) - (-log s(-z)) = -z."""
    r = readings()
    swapped = {"w": r["l"], "l": r["w"], "ref_w": r["ref_l"], "ref_l": r["ref_w"]}
    assert value("dpo", r, beta=0.1) - value("dpo", swapped, beta=0.1) == pytest.approx(-0.3, abs=1e-6)


# What every one promises


def some(name: str, n: int, seed: int = 0, grad: bool = False):
    g = torch.Generator().manual_seed(seed)
    draw = lambda low, high: (low + (high - low) * torch.rand(n, generator=g)).tolist()
    whole = lambda: torch.randint(1, 9, (n,), generator=g).tolist()
    r = readings(
        w=draw(-20, -1), l=draw(-20, -1), ref_w=draw(-20, -1), ref_l=draw(-20, -1), n_w=whole(), n_l=whole(),
        margin=draw(0.1, 2.0), p=draw(0.0, 1.0), grad=grad,
    )  # fmt: skip
    return {key: r[key] for key in OBJECTIVES[name].needs}


def rows(r, at: list[int]):
    index = torch.tensor(at)
    return {k: x[index] if isinstance(x, Tensor) else Given(x.sum[index], x.length[index]) for k, x in r.items()}


@pytest.mark.parametrize("name", PAIRWISE)
def test_losses_are_one_per_example_and_metrics_carry_no_gradient(name) -> None:
    objective = OBJECTIVES[name]
    outcome = objective(some(name, 4, grad=True))
    assert outcome.loss.shape == (4,)
    assert outcome.loss.requires_grad
    assert torch.isfinite(outcome.loss).all()
    assert {"accuracy", "margin", "chosen_logp", "rejected_logp"} <= set(outcome.metrics)
    assert all(m.shape == (4,) and not m.requires_grad for m in outcome.metrics.values())
    assert objective.formula
    assert objective.paper


@pytest.mark.parametrize("name", PAIRWISE)
def test_an_example_does_not_see_its_neighbours(name) -> None:
    """A batch of responses of different lengths is what its examples are one by one, or for `bco_pair`, with the
    statistics of the whole."""
    objective, r = OBJECTIVES[name], some(name, 5)
    together = objective(r).loss
    extra = {"batch": objective.statistics(r)} if objective.statistics else {}
    alone = [objective(rows(r, [i]), **extra).loss for i in range(5)]
    torch.testing.assert_close(together, torch.cat(alone))


@pytest.mark.parametrize("name", PAIRWISE)
def test_the_reference_is_not_differentiated(name) -> None:
    r = some(name, 3, grad=True)
    for key in r:
        if key.startswith("ref_"):
            r[key].sum.requires_grad_()
    outcome = OBJECTIVES[name](r)
    assert not {key for key in r if key not in OBJECTIVES[name].needs}
    outcome.loss.sum().backward()
    assert torch.isfinite(r["w"].sum.grad).all()


@pytest.mark.parametrize("name", REFERENCED)
@settings(max_examples=20)
@over(shift=st.floats(-30, 30))
def test_only_differences_to_the_reference_count(name, shift) -> None:
    """What both models give to a response, a prompt's difficulty say, is no preference."""
    here = readings(dtype=torch.float64)
    there = readings(w=-10 + shift, ref_w=-12 + shift, l=-14 - shift, ref_l=-13 - shift, dtype=torch.float64)
    assert value(name, here) == pytest.approx(value(name, there))


@pytest.mark.parametrize("name", PAIRWISE)
@pytest.mark.parametrize(("chosen", "rejected"), [(3000.0, -3000.0), (-3000.0, 3000.0), (-3000.0, -3000.0), (0.0, 0.0)])
def test_nothing_overflows(name, chosen, rejected) -> None:
    """Log-ratios of thousands of nats, in fp32: no infinity, no NaN, in value and gradient."""
    r = readings(w=chosen - 4000, l=rejected - 4000, ref_w=-4000.0, ref_l=-4000.0, n_w=900, n_l=700, grad=True)
    assert math.isfinite(value(name, r))
    assert all(math.isfinite(g) for g in slopes(name, r))


@pytest.mark.parametrize(
    ("name", "hyper"),
    [("f_dpo", {"divergence": d}) for d in ("forward_kl", "js", "alpha")]
    + [("gpo", {"curve": c}) for c in ("hinge", "square", "exponential", "truncated_quadratic", "savage")],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_nothing_overflows_in_any_member_of_a_family(name, hyper, sign) -> None:
    r = ratios(sign * 3000.0, -sign * 3000.0, grad=True)
    assert math.isfinite(value(name, r, **hyper))
    assert all(math.isfinite(g) for g in slopes(name, r, **hyper))


ANOTHER = {"curve": "square", "divergence": "js"}
NEEDED = {  # what the others must be for a hyper-parameter to matter
    "divergence_alpha": {"divergence": "alpha"},
    "least_margin": {"log_margin": True},
    "length_average": {},
}


@pytest.mark.parametrize(
    ("name", "parameter"), [(n, p) for n in PAIRWISE for p in OBJECTIVES[n].defaults], ids=lambda x: x
)
def test_no_hyper_parameter_is_inert(name, parameter) -> None:
    """A peer has had a label smoothing that nothing read since its rewrite."""
    objective = OBJECTIVES[name]
    before = objective.defaults[parameter]
    other = NEEDED.get(parameter, {})
    if isinstance(before, bool):
        after = not before
    else:
        after = ANOTHER[parameter] if isinstance(before, str) else before / 2 + 0.01
    # a lost pair, too close for the hinges, with a margin of the data under `least_margin`
    r = readings(w=[-14.0, -12.9], l=[-12.0, -13.3], n_w=5, n_l=7, margin=[0.001, 0.5], p=[0.2, 0.7])
    changed = objective(r, **other, **{parameter: after}).loss
    assert not torch.allclose(objective(r, **other).loss, changed, rtol=1e-4)


def test_arguments_that_are_no_hyper_parameters_are_not_listed() -> None:
    assert not any(set(o.defaults) & set(GIVEN) for o in OBJECTIVES.values())


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
