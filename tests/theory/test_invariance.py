"""Proposition 3.1 and Theorem 3.2 of InSPO on finite worlds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pluralign.theory.invariance import (
    SKEWED,
    best_fixed,
    best_replies,
    common_best,
    compare,
    counter_example,
    counter_scores,
    deployed,
    first,
    scores,
    value,
)
from pluralign.theory.worlds import FAMILIES, PSI, STEPPED, World, monotone, world

quick = settings(max_examples=40, deadline=None, derandomize=True)
seeds = st.integers(0, 2**31)
sizes = st.integers(2, 6)
families = st.sampled_from(sorted(FAMILIES))


def made(seed: int, family: str, n: int, prompts: int = 5) -> World:
    return world(np.random.default_rng(seed), family, prompts, n)


# Proposition 3.1


def test_the_counter_examples_have_the_paper_s_numbers() -> None:
    found = counter_scores()
    assert found["identity"] == pytest.approx((0.55, 0.56), abs=1e-12)
    assert found["log-odds"] == pytest.approx((0.41, 0.24), abs=5e-3)
    assert found["log-odds"] == pytest.approx((0.5 * np.log(9 / 4), np.log(56 / 44)), abs=1e-12)
    assert found["identity, skewed"] == pytest.approx((0.83, 0.56), abs=1e-12)


def test_pi_bar_flips_among_all_four_responses() -> None:
    chosen = lambda w, psi="identity": best_fixed(w, PSI[psi])[0].nonzero()[0].tolist()
    assert chosen(counter_example()) == [1]
    assert chosen(counter_example(), "log-odds") == [0]
    assert chosen(counter_example(reference=SKEWED)) == [0]


@pytest.mark.parametrize(("between", "best"), [(0.37, 3), (0.39, 1), (0.61, 1), (0.63, 2)])
def test_the_example_needs_the_preference_that_the_paper_leaves_open(between: float, best: int) -> None:
    assert best_fixed(counter_example(between))[0].nonzero()[0].tolist() == [best]


# Theorem 3.2


@quick
@given(seeds, families, sizes)
def test_pi_star_is_the_same_set_for_strictly_increasing_psi(seed: int, family: str, n: int) -> None:
    w, rng = made(seed, family, n), np.random.default_rng(seed + 1)
    for psi in (*PSI.values(), monotone(rng), monotone(rng)):
        assert (best_replies(w, psi) == best_replies(w)).all()


@quick
@given(seeds, families, sizes)
def test_without_strict_increase_the_set_may_only_grow(seed: int, family: str, n: int) -> None:
    w = made(seed, family, n)
    for psi in STEPPED.values():
        assert best_replies(w, psi)[best_replies(w)].all()


def test_without_strict_increase_pi_star_is_not_determined() -> None:
    w = made(0, "free", 5)
    assert best_replies(w, STEPPED["constant"]).all()
    assert best_replies(w, STEPPED["majority"]).sum() > best_replies(w).sum()


@quick
@given(seeds, families, sizes, seeds)
def test_one_policy_is_optimal_for_every_psi_and_reference(seed: int, family: str, n: int, other: int) -> None:
    """No policy that sees y' beats a best reply, under any of the scalarisations and any reference."""
    w, rng = made(seed, family, n), np.random.default_rng(other)
    star = first(best_replies(w))
    w = w.under(rng.dirichlet(np.full(n, 0.2), size=len(w.prompts)))  # nearly without support here and there
    rival = rng.dirichlet(np.ones(n), size=(len(w.prompts), n)).swapaxes(1, 2)
    for psi in (*PSI.values(), *STEPPED.values(), monotone(rng)):
        assert (value(w, star, psi) >= value(w, rival, psi) - 1e-9).all()


@quick
@given(seeds, families, sizes)
def test_pi_star_is_worth_at_least_pi_bar_and_pi_bar_at_least_what_is_deployed(seed: int, family: str, n: int) -> None:
    w = made(seed, family, n)
    for psi in PSI.values():
        c = compare(w, psi)
        assert (c.gap >= -1e-9).all()
        assert (c.forgotten <= c.bar + 1e-9).all()
    assert (c.star >= psi(np.array([0.5])) - 1e-9).all()  # y' itself is among the replies


@quick
@given(seeds, sizes, st.sampled_from(["free", "grid", "crowd", "contextual"]))
def test_strict_exactly_where_no_response_is_best_throughout(seed: int, n: int, family: str) -> None:
    w = made(seed, family, n)
    for psi in (PSI["identity"], PSI["log-odds"]):
        c = compare(w, psi)
        assert ((c.gap > 1e-10) == ~c.common).all()


@quick
@given(seeds, sizes, st.sampled_from(["grid", "separable"]))
def test_pi_bar_is_invariant_exactly_where_it_needs_no_sight_of_the_alternative(seed: int, n: int, family: str) -> None:
    w = made(seed, family, n)
    always = np.ones(w.reference.shape, dtype=bool)
    for z in range(n):  # references that nearly only draw z
        near = np.full(w.reference.shape, 1e-4 / n)
        near[:, z] = 1 - near[:, 0] * (n - 1)
        always &= best_fixed(w.under(near))
    if family == "grid":  # steps of a tenth: 1e-4 of a reference cannot outweigh one
        assert (always.any(1) == common_best(w).any(1)).all()
    else:
        assert always.any(1).all()
        assert common_best(w).any(1).all()


@pytest.mark.parametrize("family", ["separable", "thurstone"])
def test_equality_wherever_preferences_are_strongly_transitive(family: str) -> None:
    """Thurstone's worlds are not separable for the log-odds, and equality holds for the log-odds all the same."""
    w = made(3, family, 7, prompts=200)
    for psi in PSI.values():
        c = compare(w, psi)
        assert c.common.all()
        assert np.abs(c.gap).max() < 1e-9
        assert (best_fixed(w, psi) == best_fixed(w)).all()
    odds = PSI["log-odds"](w.preference)
    circle = odds[:, 0, 1] + odds[:, 1, 2] + odds[:, 2, 0]
    assert (np.abs(circle).max() < 1e-9) == (family == "separable")


def test_equality_need_not_hold_elsewhere_and_two_responses_never_suffice() -> None:
    assert compare(made(0, "free", 6, prompts=500)).gap.mean() > 0.1
    assert (~compare(made(0, "unequal", 8, prompts=500)).common).mean() > 0.2  # ordered, not strongly transitive
    assert compare(made(0, "free", 2, prompts=500)).common.all()


def test_a_circle_by_hand() -> None:
    """Rock, paper, scissors at 0.9: replies win 0.9, any fixed response and the replies with y' forgotten 1/2."""
    p = np.array([[0.5, 0.1, 0.9], [0.9, 0.5, 0.1], [0.1, 0.9, 0.5]])
    w = World(np.ones(1), np.full((1, 3), 1 / 3), p[None])
    c = compare(w)
    assert (c.star[0], c.bar[0], c.forgotten[0]) == pytest.approx((0.9, 0.5, 0.5))
    assert deployed(w, first(best_replies(w)))[0] == pytest.approx([1 / 3] * 3)
    assert scores(w)[0] == pytest.approx([0.5] * 3)


def test_a_policy_that_must_not_repeat_the_alternative_can_fall_below_pi_bar() -> None:
    w = made(0, "separable", 6, prompts=50)
    other = np.where(np.eye(6, dtype=bool), -np.inf, w.preference).max(axis=1)
    assert ((other * w.reference).sum(1) < compare(w).bar).all()


@pytest.mark.parametrize("broken", ["prompts", "reference", "preference"])
def test_worlds_that_are_none_are_refused(broken: str) -> None:
    w = made(0, "free", 3)
    parts = {"prompts": w.prompts, "reference": w.reference, "preference": w.preference}
    with pytest.raises(ValueError, match=r"distributions|must be 1"):
        World(**{**parts, broken: parts[broken] * 1.1})
