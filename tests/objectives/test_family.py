"""Objectives over pairs: values worked by hand, what each reduces to, and what is particular to each."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given as over
from hypothesis import settings
from hypothesis import strategies as st

from pluralign.objectives import OBJECTIVES
from pluralign.objectives.divergences import DIVERGENCES, power, score
from pluralign.objectives.families import CURVES
from pluralign.objectives.likelihood import log1mexp, log_odds

from .pairs import ratios, readings, slopes, value
from .toys import Given

# Fixture A: z = .3, v_w = .2, v_l = -.1. ln(1 + e^x) at -.3, -.2, -.1: .554355, .598139, .644397; at x more by x

HAND = [
    ("dpo", {"beta": 0.1}, 0.554355),  # ln(1 + e^-.3)
    ("cdpo", {"label_smoothing": 0.1}, 0.584355),  # .9 x .554355 + .1 x .854355
    ("robust", {"label_smoothing": 0.1}, 0.516855),  # (.9 x .554355 - .1 x .854355) / .8
    ("r_dpo", {"length_alpha": 0.05}, 0.598139),  # .3 + .05 (5 - 7) = .2
    ("sigmoid_norm", {"beta": 5.0}, 0.064150),  # 5 x .542857 = 2.714286
    ("dpop", {}, 0.554355),  # h_w = 2 > 0: no penalty
    ("ipo", {"tau": 0.1}, 4.0),  # (3 - 5)^2
    ("ipo", {"tau": 0.1, "length_average": True}, 19.866122),  # (.542857 - 5)^2
    ("slic_norm", {}, 0.7),  # 1 - .3
    ("f_dpo", {"divergence": "reverse_kl"}, 0.554355),
    ("f_dpo", {"divergence": "forward_kl"}, 0.572316),  # e - e^-2 = 2.582947
    ("f_dpo", {"divergence": "js"}, 0.635589),  # -ln(1 + e^-2) + ln(1 + e) = 1.186334
    ("f_dpo", {"divergence": "alpha", "divergence_alpha": 0.5}, 0.573243),  # 2 (e^.5 - e^-1) = 2.561684
    ("discopop", {"tau": 0.05}, 0.740357),  # m = sigma(6) = .997527: .002473 x .554355 + m x .740818
    ("exo", {"label_smoothing": 1e-3}, 2.258199),  # .574443 (-.554355 + .001001) + .425557 (-.854355 + 6.907755)
    ("apo_zero", {}, 0.925187),  # sigma(-.2) + sigma(-.1) = .450166 + .475021
    ("apo_down", {}, 0.975391),  # sigma(.2) + sigma(-.3) = .549834 + .425557
    ("nca", {}, 1.319407),  # .598139 + (.798139 + .644397) / 2
    ("sppo", {"beta": 0.1}, 25.0),  # (2 - 5)^2 + (-1 + 5)^2
    ("bco_pair", {}, 1.241914),  # delta = (.2 - .1) / 2 = .05: twice ln(1 + e^-.15)
    ("bco_pair", {"reward_shift": False}, 1.242536),  # .598139 + .644397
    ("cpo", {"nll_weight": 1.0}, 2.513015),  # ln(1 + e^-.4) + 10/5
    ("cpo", {"nll_weight": 1.0, "nll_average": False}, 10.513015),
    ("slic", {"hinge_margin": 5.0}, 2.0),  # 5 - 4 + .1 x 10
    ("slic", {"hinge_margin": 1.0}, 1.0),  # 4 nats apart: the regulariser alone
    ("slic", {"hinge_margin": 5.0, "nll_average": True}, 1.2),
    ("nll", {}, 2.0),
]


@pytest.mark.parametrize(("name", "hyper", "expected"), HAND)
def test_hand_worked_values(name, hyper, expected) -> None:
    assert value(name, readings(), **hyper) == pytest.approx(expected, abs=2e-6)


FIXTURE_B = {"w": -2.5, "n_w": 5, "l": -7.0, "n_l": 7}  # -0.5 and -1 nats a token


@pytest.mark.parametrize(
    ("name", "hyper", "expected"),
    [
        ("simpo", {"beta": 2.0, "gamma": 0.0}, 0.313262),  # ln(1 + e^-1)
        ("simpo", {"beta": 2.0, "gamma": 1.0}, 0.693147),
        ("alphapo", {"beta": 2.0, "gamma": 0.0, "shape_alpha": 0.25}, 0.261662),  # 8 (e^.25 - e^.125) = 1.207016
        ("alphapo", {"beta": 2.0, "gamma": 0.0, "shape_alpha": -1.0}, 0.482707),  # 2 (e^-.5 - e^-1) = .477302
        ("orpo", {"odds_weight": 0.1}, 0.532030),  # .5 + .1 ln(1 + e^-.974077); odds 1/(e^.5 - 1), 1/(e - 1)
        ("nll", {}, 0.5),
    ],
)
def test_hand_worked_values_without_a_reference(name, hyper, expected) -> None:
    assert value(name, readings(**FIXTURE_B), **hyper) == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ("logistic", 0.474077),
        ("hinge", 0.5),
        ("square", 0.25),
        ("exponential", 0.606531),
        ("truncated_quadratic", 0.25),
        ("savage", 0.142537),
    ],
)
def test_gpo_by_hand(curve, expected) -> None:
    """z = 1/2."""
    outcome = OBJECTIVES["gpo"](readings(), beta=1 / 6, curve=curve)
    assert float(outcome.loss) == pytest.approx(expected, abs=1e-6)
    assert float(outcome.metrics["gap_squared"]) == pytest.approx(9.0)


@pytest.mark.parametrize(
    ("hyper", "offset"),
    [
        ({}, 0.5),
        ({"margin_weight": 0.4}, 0.2),
        ({"margin_weight": 0.0}, 0.0),
        ({"log_margin": True}, math.log(0.5)),
        ({"log_margin": True, "least_margin": 1.0}, 0.0),
    ],
)
def test_dpo_offset_by_hand(hyper, offset) -> None:
    outcome = OBJECTIVES["dpo_offset"](readings(margin=0.5), **hyper)
    assert float(outcome.loss) == pytest.approx(math.log1p(math.exp(offset - 0.3)), abs=1e-6)
    assert float(outcome.metrics["offset"]) == pytest.approx(offset)
    assert float(outcome.metrics["margin"]) == pytest.approx(0.3)  # the reward's, not the data's


def test_a_tie_in_the_data_is_no_infinite_offset() -> None:
    assert value("dpo_offset", readings(margin=0.0), log_margin=True) == pytest.approx(
        math.log1p(math.exp(math.log(0.01) - 0.3))
    )


def test_spce_by_hand() -> None:
    assert value("spce", readings(p=0.7)) == pytest.approx(0.644355, abs=1e-6)
    assert value("spce", readings(p=1.0)) == pytest.approx(value("dpo", readings()))
    assert slopes("spce", readings(w=-12.0, l=-13.0, p=0.5, grad=True)) == (0.0, 0.0)
    outcome = OBJECTIVES["spce"](readings(p=0.1))
    assert float(outcome.metrics["accuracy"]) == 1.0  # of y_w, whatever p says


def test_spce_with_one_probability_is_cdpo() -> None:
    assert value("spce", readings(p=0.9)) == pytest.approx(value("cdpo", readings(), label_smoothing=0.1))


def test_dpop_by_hand() -> None:
    """h_w = -1, h_l = -3, lambda 5: .1 (2 - 5 x 1) = -.3."""
    outcome = OBJECTIVES["dpop"](readings(w=-13.0, l=-16.0), positive_weight=5.0)
    assert float(outcome.loss) == pytest.approx(0.854355, abs=1e-6)
    assert float(outcome.metrics["penalty"]) == pytest.approx(0.5)
    assert float(outcome.metrics["margin"]) == pytest.approx(0.2)
    assert value("dpop", readings(w=-13.0), positive_weight=0.0) == pytest.approx(value("dpo", readings(w=-13.0)))


def test_dpop_holds_up_the_chosen_response_where_dpo_lets_it_fall() -> None:
    """Below the reference its gradient on y_w is (1 + lambda) times that on y_l; above, the same."""
    chosen, rejected = slopes("dpop", readings(w=-13.0, l=-16.0, grad=True), positive_weight=5.0)
    assert chosen == pytest.approx(-6 * rejected)
    chosen, rejected = slopes("dpop", readings(grad=True), positive_weight=5.0)
    assert chosen == pytest.approx(-rejected)


# Reductions

NATS = st.floats(-25, 25)
PAIRS = st.lists(st.tuples(NATS, NATS), min_size=1, max_size=4)


def wide(pairs, **more):
    return ratios([a for a, _ in pairs], [b for _, b in pairs], dtype=torch.float64, **more)


def losses(name, r, **hyper):
    return OBJECTIVES[name](r, **hyper).loss


SAME = [
    (("gpo", {"curve": "logistic"}), ("dpo", {}), 1.0),
    (("gpo", {"curve": "hinge"}), ("slic_norm", {}), 1.0),
    (("gpo", {"curve": "square", "beta": 0.2}), ("ipo", {"tau": 0.1}), 0.04),  # beta = 2 tau: 4 tau^2 IPO
    (("r_dpo", {"length_alpha": 0.0}), ("dpo", {}), 1.0),
    (("cdpo", {"label_smoothing": 0.0}), ("dpo", {}), 1.0),
    (("robust", {"label_smoothing": 0.0}), ("dpo", {}), 1.0),
    (("spce", {}), ("dpo", {}), 1.0),
    (("dpo_offset", {}), ("dpo", {}), 1.0),
    (("dpop", {"positive_weight": 0.0}), ("dpo", {}), 1.0),
    (("f_dpo", {"divergence": "reverse_kl"}), ("dpo", {}), 1.0),
    (("f_dpo", {"divergence": "alpha", "divergence_alpha": 0.0}), ("dpo", {}), 1.0),
    (("f_dpo", {"divergence": "alpha", "divergence_alpha": 1.0}), ("f_dpo", {"divergence": "forward_kl"}), 1.0),
]


@pytest.mark.parametrize(("one", "other", "factor"), SAME, ids=lambda x: x[0] if isinstance(x, tuple) else "")
@settings(max_examples=30)
@over(pairs=PAIRS)
def test_reductions(one, other, factor, pairs) -> None:
    r = wide(pairs)
    torch.testing.assert_close(losses(one[0], r, **one[1]), factor * losses(other[0], r, **other[1]))


@settings(max_examples=50)
@over(pairs=PAIRS, eps=st.floats(0.0, 0.45))
def test_robust_is_dpo_in_expectation_over_flipped_labels(pairs, eps) -> None:
    """(1 - eps) L(rho) + eps L(-rho) = DPO(rho)."""
    hyper = {"label_smoothing": eps}
    mixed = (1 - eps) * losses("robust", wide(pairs), **hyper) + eps * losses(
        "robust", wide([(b, a) for a, b in pairs]), **hyper
    )
    torch.testing.assert_close(mixed, losses("dpo", wide(pairs)), atol=1e-9, rtol=1e-9)


@settings(max_examples=50)
@over(pairs=PAIRS, eps=st.floats(0.01, 0.49))
def test_cdpo_mixes_both_labels(pairs, eps) -> None:
    mixed = (1 - eps) * losses("dpo", wide(pairs)) + eps * losses("dpo", wide([(b, a) for a, b in pairs]))
    torch.testing.assert_close(losses("cdpo", wide(pairs), label_smoothing=eps), mixed)


@pytest.mark.parametrize("name", ["cdpo", "exo"])
def test_the_best_gap_of_smoothed_labels_is_finite(name) -> None:
    """beta rho = ln(.9 / .1) = 2.197: flat there, falling before, rising past it."""
    best = math.log(9) / 0.1
    at = lambda gap: slopes(name, ratios(gap, 0.0, grad=True), label_smoothing=0.1)[0]
    assert at(best) == pytest.approx(0.0, abs=1e-6)
    assert at(best - 5) < -1e-4
    assert at(best + 5) > 1e-4


def test_robust_of_one_pair_has_no_lower_bound() -> None:
    """Why it wants early stopping: -eps / (1 - 2 eps) beta rho for a confident pair, here -.125 x 100."""
    assert value("robust", ratios(1000.0, 0.0)) == pytest.approx(-12.5, abs=1e-4)


@settings(max_examples=50)
@over(pairs=PAIRS)
def test_bco_pair_bounds_dpo(pairs) -> None:
    """-ls(v_w - d) - ls(-(v_l - d)) >= -ls(v_w - v_l), whatever the shift."""
    for shift in (True, False):
        assert (losses("bco_pair", wide(pairs), reward_shift=shift) >= losses("dpo", wide(pairs)) - 1e-12).all()


def test_bco_pair_shifts_by_the_mean_of_the_whole_step() -> None:
    """v = (.2, -.1) and (1, .6): the mean of the step is .425, that of each micro-batch is another."""
    step = ratios([2.0, 10.0], [-1.0, 6.0])
    objective = OBJECTIVES["bco_pair"]
    batch = objective.statistics(step)
    assert batch["drift"].tolist() == [0.5, 8.0]
    soft = lambda x: math.log1p(math.exp(x))
    expected = [soft(0.425 - v_w) + soft(v_l - 0.425) for v_w, v_l in ((0.2, -0.1), (1.0, 0.6))]
    assert objective(step).loss.tolist() == pytest.approx(expected, abs=1e-6)
    for i, (v_w, v_l) in enumerate(((2.0, -1.0), (10.0, 6.0))):
        outcome = objective(ratios(v_w, v_l), batch=batch)
        assert float(outcome.loss) == pytest.approx(expected[i], abs=1e-6)
        assert float(outcome.metrics["shift"]) == pytest.approx(0.425)


def test_the_shift_carries_no_gradient() -> None:
    """-beta sigma(-(v_w - d)) = -.1 / (1 + e^.15), and the mirror image below."""
    chosen, rejected = slopes("bco_pair", readings(grad=True))
    assert chosen == pytest.approx(-0.1 / (1 + math.exp(0.15)), abs=1e-6)
    assert rejected == pytest.approx(0.1 / (1 + math.exp(0.15)), abs=1e-6)


# R-DPO


def test_r_dpo_weighs_pairs_with_a_longer_winner_less() -> None:
    weights = [-slopes("r_dpo", readings(n_w=n, grad=True))[0] for n in (1, 7, 20, 60)]
    assert weights == sorted(weights, reverse=True)
    assert weights[1] == pytest.approx(0.042556, abs=1e-6)  # equal lengths: DPO


def test_r_dpo_says_when_lengths_alone_decide() -> None:
    """alpha .1 and 100 tokens: 10 nats."""
    outcome = OBJECTIVES["r_dpo"](readings(n_w=[107, 10], n_l=7), length_alpha=0.1)
    assert outcome.metrics["saturated"].tolist() == [1.0, 0.0]
    assert outcome.metrics["length_term"].tolist() == pytest.approx([10.0, 0.3])
    assert outcome.metrics["margin"].tolist() == pytest.approx([0.3, 0.3])


def test_r_dpo_recovers_quality_from_labels_that_like_length() -> None:
    """Labels follow sigma(quality + .02 dlen): R-DPO at alpha .02 finds the quality, DPO finds quality and length."""
    quality = torch.tensor([0.0, 0.8, 0.4], dtype=torch.float64)
    length = torch.tensor([100, 20, 60])
    i, j = torch.tensor([(a, b) for a in range(3) for b in range(3) if a != b]).T
    weight = torch.sigmoid(quality[i] - quality[j] + 0.02 * (length[i] - length[j]))

    def fitted(name: str, **hyper) -> torch.Tensor:
        h = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([h], max_iter=200, tolerance_grad=1e-12)
        zero = torch.zeros(len(i), dtype=torch.float64)

        def closure():
            optimizer.zero_grad()
            r = {"w": Given(h[i], length[i]), "l": Given(h[j], length[j])}
            r |= {"ref_w": Given(zero, length[i]), "ref_l": Given(zero, length[j])}
            loss = (weight * losses(name, r, beta=1.0, **hyper)).sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        return (h - h[0]).detach()

    torch.testing.assert_close(fitted("r_dpo", length_alpha=0.02), quality, atol=1e-4, rtol=0)
    torch.testing.assert_close(fitted("dpo"), quality + 0.02 * (length - 100), atol=1e-4, rtol=0)


# Divergences


@pytest.mark.parametrize("divergence", sorted(DIVERGENCES))
@settings(max_examples=50)
@over(a=st.floats(-20, 20), b=st.floats(-20, 20))
def test_scores_rise_with_the_log_ratio(divergence, a, b) -> None:
    low, high = (score(torch.tensor(x, dtype=torch.float64), divergence, 0.3) for x in sorted((a, b)))
    assert high >= low
    if abs(a - b) > 1e-3:
        assert high > low


DERIVATIVES = {  # f'(u) of the paper's table, by u = pi / pi_ref
    "reverse_kl": lambda u: math.log(u) + 1,
    "forward_kl": lambda u: -1 / u,
    "js": lambda u: math.log(2 * u / (1 + u)),
    "alpha": lambda u: (1 - u**-0.3) / 0.3,
}


@pytest.mark.parametrize("divergence", sorted(DERIVATIVES))
@settings(max_examples=30)
@over(u=st.floats(0.01, 100), v=st.floats(0.01, 100))
def test_scores_are_the_derivatives_of_the_divergences(divergence, u, v) -> None:
    """Up to a constant, so in differences."""
    s = lambda x: float(score(torch.tensor(math.log(x), dtype=torch.float64), divergence, 0.3))
    prime = DERIVATIVES[divergence]
    assert s(u) - s(v) == pytest.approx(prime(u) - prime(v), abs=1e-9, rel=1e-9)


def test_a_small_alpha_is_close_to_reverse_kl_even_in_fp32() -> None:
    assert float(power(torch.tensor(2.0), 1e-6)) == pytest.approx(2.0, abs=1e-5)


@pytest.mark.parametrize("divergence", ["forward_kl", "alpha"])
def test_exponents_stop_before_they_are_infinite(divergence) -> None:
    x = score(torch.tensor([-79.0, -200.0, -1e6]), divergence, 1.0)
    assert torch.isfinite(x).all()
    assert x[1] == x[2]


# The other curves


@pytest.mark.parametrize("curve", sorted(CURVES))
@settings(max_examples=40)
@over(a=st.floats(-8, 8), b=st.floats(-8, 8))
def test_curves_fall_until_the_gap_is_won(curve, a, b) -> None:
    """Up to z = 1 every one falls; (z - 1)^2 alone rises again. All but savage are convex."""
    low, high = sorted((a, b))
    f = lambda z: float(CURVES[curve](torch.tensor(z, dtype=torch.float64)))
    if high <= 1 or curve != "square":
        assert f(low) >= f(high) - 1e-12
    if curve != "savage":
        assert f((low + high) / 2) <= (f(low) + f(high)) / 2 + 1e-9


def test_which_curves_still_learn_from_a_won_pair() -> None:
    slope = lambda curve: slopes("gpo", ratios(20.0, 0.0, grad=True), curve=curve)[0]
    assert {c for c in CURVES if slope(c) == 0} == {"hinge", "truncated_quadratic"}


def test_discopop_rises_between_its_two_turning_points() -> None:
    """z = -.1186 and .0720 at tau = .05 (-2.3714 and 1.4401 in units of tau, as the paper has them)."""
    slope = lambda z: slopes("discopop", ratios(z, 0.0, grad=True), beta=1.0)[0]
    for z in (-2.3714 * 0.05, 1.4401 * 0.05):
        assert slope(z) == pytest.approx(0.0, abs=1e-3)
    assert slope(-0.13) < 0 < slope(-0.10)
    assert slope(0.06) > 0 > slope(0.08)


def test_discopop_far_out_is_its_parts() -> None:
    """Won by far: e^-z; lost by far: ln(1 + e^-z)."""
    assert value("discopop", ratios(20.0, 0.0), beta=1.0) == pytest.approx(math.exp(-20), rel=1e-5)
    assert value("discopop", ratios(-20.0, 0.0), beta=1.0) == pytest.approx(20.0, rel=1e-5)


def test_ipo_is_flat_exactly_at_its_target() -> None:
    r = ratios(5.0, 0.0, grad=True)  # rho = 1 / (2 tau)
    assert value("ipo", r, tau=0.1) == 0.0
    assert slopes("ipo", r, tau=0.1) == (0.0, 0.0)


def test_sppo_is_flat_exactly_at_its_targets() -> None:
    assert slopes("sppo", ratios(5.0, -5.0, grad=True), beta=0.1) == (0.0, 0.0)


def test_nca_holds_the_chosen_response_at_ln_2() -> None:
    at = lambda v: slopes("nca", ratios(v / 0.1, 0.0, grad=True))[0]
    assert at(math.log(2)) == pytest.approx(0.0, abs=1e-7)
    assert at(math.log(2) - 0.1) < 0 < at(math.log(2) + 0.1)


def test_apo_zero_is_half_kto_twice() -> None:
    """Each half is the KTO of that response at z0 = 0: .450166 and .475021."""
    assert value("apo_zero", ratios(2.0, -1e6)) == pytest.approx(0.450166, abs=1e-6)
    assert value("apo_zero", ratios(1e6, -1.0)) == pytest.approx(0.475021, abs=1e-6)


# Without a reference


def test_averages_do_not_change_when_every_token_is_doubled() -> None:
    once, twice = readings(), readings(w=-20.0, l=-28.0, ref_w=-24.0, ref_l=-26.0, n_w=10, n_l=14)
    for name in ("simpo", "alphapo", "orpo", "nll", "sigmoid_norm"):
        assert value(name, once) == pytest.approx(value(name, twice)), name
    assert value("ipo", once, length_average=True) == pytest.approx(value("ipo", twice, length_average=True))
    for name in ("ipo", "dpo", "cpo", "slic"):
        assert value(name, once) != pytest.approx(value(name, twice)), name


def test_reference_free_losses_are_dpo_on_single_tokens_or_equal_references() -> None:
    r = readings(ref_w=0.0, ref_l=0.0, n_w=1, n_l=1)
    assert value("simpo", r, beta=0.1, gamma=0.0) == pytest.approx(value("dpo", r, beta=0.1))
    equal = readings(ref_w=-12.5, ref_l=-12.5)
    assert value("cpo", equal, nll_weight=0.0) == pytest.approx(value("dpo", equal))


@settings(max_examples=30)
@over(w=st.floats(-40, -0.1), l=st.floats(-40, -0.1))
def test_alphapo_at_zero_is_simpo_and_close_to_it_near_zero(w, l) -> None:
    r = readings(w=w, l=l, dtype=torch.float64)
    assert value("alphapo", r, shape_alpha=0.0) == pytest.approx(value("simpo", r))
    assert value("alphapo", r, shape_alpha=1e-7) == pytest.approx(value("simpo", r), abs=1e-4)


def test_gamma_shifts_the_logit_and_nothing_else() -> None:
    """Twice the average gap of .571429 less gamma."""
    gap = 2 * (-10 / 5 + 14 / 7)
    for gamma in (0.0, 0.3, 2.0):
        assert value("simpo", readings(), gamma=gamma) == pytest.approx(math.log1p(math.exp(gamma - gap)))


def test_orpo_without_odds_is_the_likelihood() -> None:
    assert value("orpo", readings(), odds_weight=0.0) == value("nll", readings()) == 2.0


def test_orpo_of_a_certain_response_is_finite() -> None:
    """log p -> 0-: the odds are infinite, the loss and its gradient are not."""
    for w, l in ((0.0, -5.0), (-1e-9, -5.0), (-5.0, 0.0), (0.0, 0.0)):
        r = readings(w=w, l=l, grad=True)
        assert math.isfinite(value("orpo", r))
        chosen, rejected = slopes("orpo", r)
        assert math.isfinite(chosen)
        assert rejected >= 0


def test_orpo_computes_odds_in_fp32_whatever_it_is_given() -> None:
    r = readings(w=-0.01, n_w=1, l=-3.0, n_l=1, dtype=torch.bfloat16)
    assert OBJECTIVES["orpo"](r).metrics["margin"].dtype == torch.float32
    exact = math.log(math.exp(-0.01) / -math.expm1(-0.01)) - math.log(math.exp(-3.0) / -math.expm1(-3.0))
    assert float(OBJECTIVES["orpo"](r).metrics["margin"]) == pytest.approx(exact, abs=5e-3)  # the input's own rounding


@settings(max_examples=100)
@over(x=st.floats(-60, -1e-6))
def test_log1mexp_keeps_its_digits(x) -> None:
    """In fp32, both where 1 - e^x is close to 0 and where it is close to 1."""
    exact = -math.exp(x) if x < -20 else math.log(-math.expm1(x))
    assert float(log1mexp(torch.tensor(x, dtype=torch.float32))) == pytest.approx(exact, rel=1e-5)


def test_log_odds_have_a_gradient_on_both_branches() -> None:
    """1 / (1 - p)."""
    x = torch.tensor([-1e-3, -0.3, -math.log(2), -1.0, -30.0], dtype=torch.float64, requires_grad=True)
    log_odds(x).sum().backward()
    torch.testing.assert_close(x.grad, -1 / torch.expm1(x.detach()))


def test_slic_beyond_its_margin_is_the_regulariser_alone() -> None:
    chosen, rejected = slopes("slic", readings(grad=True), hinge_margin=1.0)
    assert (chosen, rejected) == (pytest.approx(-0.1), 0.0)
    assert slopes("slic", readings(grad=True), hinge_margin=5.0) == (pytest.approx(-1.1), 1.0)


# What is refused


@pytest.mark.parametrize(
    ("name", "hyper", "says"),
    [
        ("robust", {"label_smoothing": 0.5}, r"label_smoothing=0.5.*\[0, 0.5\)"),
        ("robust", {"label_smoothing": -0.1}, "label_smoothing=-0.1"),
        ("exo", {"label_smoothing": 0.0}, r"label_smoothing=0.0.*\(0, 0.5\)"),
        ("gpo", {"curve": "logistical"}, '"logistical".*exponential'),
        ("f_dpo", {"divergence": "kl"}, '"kl".*reverse_kl'),
        ("f_dpo", {"divergence": "alpha", "divergence_alpha": 1.5}, "divergence_alpha=1.5"),
    ],
)
def test_values_that_mean_nothing_are_refused(name, hyper, says) -> None:
    with pytest.raises(ValueError, match=says):
        OBJECTIVES[name](readings(), **hyper)


# Mistakes that others have made


def test_every_objective_is_a_loss_of_its_own() -> None:
    """A trainer that asked for hinge or IPO and ran the logistic loss: no two of ours agree on a lost pair."""
    r = readings(w=-15.0, l=-11.0, margin=0.7, p=0.8)
    names = [n for n in OBJECTIVES if OBJECTIVES[n].function.__module__.endswith(("pairwise", "families", "pointwise"))]
    found = {n: round(value(n, r), 5) for n in names}
    twins = {("dpo", "gpo"), ("dpo", "f_dpo")}  # members of a family at their defaults
    same = {(a, b) for a in found for b in found if a < b and found[a] == found[b]}
    assert same == twins | {("f_dpo", "gpo")}


@pytest.mark.parametrize(("name", "hyper"), [("ipo", {"length_average": True}), ("sigmoid_norm", {}), ("simpo", {})])
def test_lengths_count_tokens_and_not_tokens_that_changed(name, hyper) -> None:
    """Dividing by the number of non-zero log-ratios is 0/0 before the first step."""
    r = readings(w=-12.0, l=-13.0, grad=True)
    assert math.isfinite(value(name, r, **hyper))
    chosen, rejected = slopes(name, r, **hyper)
    assert chosen == pytest.approx(-rejected * 7 / 5)  # each by its own length


def test_slic_adds_one_number_an_example() -> None:
    """A hinge (B,) plus a token-wise NLL (B, L) has no shape."""
    r = readings(w=[-10.0, -3.0, -8.0], l=[-14.0, -6.0, -1.0], n_w=[5, 2, 9], n_l=[7, 3, 1])
    assert losses("slic", r).tolist() == pytest.approx([1.0, 0.3, 8.0 + 0.8])
