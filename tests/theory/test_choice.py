"""Theorem 4.1 of InSPO: the closed form, the choice model it rests on, and what Eq. 10 determines."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pluralign.theory import choice, tabular
from pluralign.theory.worlds import World, world

quick = settings(max_examples=30, deadline=None, derandomize=True)
seeds = st.integers(0, 2**31)
betas = st.sampled_from([0.1, 1.0, 5.0])
N = 4


def allowed(beta: float, seed: int = 0) -> tuple[World, np.ndarray]:
    rng = np.random.default_rng(seed)
    w = choice.admissible_world(rng, 3, N, beta)
    return w, choice.reward(w, beta, rng.normal(size=(3, N)))


# The choice model


@quick
@given(seeds, betas)
def test_a_reward_gives_the_preferences_through_the_choice_model(seed: int, beta: float) -> None:
    w, r = allowed(beta, seed)
    s = r - beta * choice.partition(w.reference, r, beta)[:, None, :]
    off = ~np.eye(N, dtype=bool)
    assert np.allclose((1 / (1 + np.exp(-2 * s)))[:, off], w.preference[:, off], atol=1e-12)
    assert np.allclose((s + s.swapaxes(1, 2))[:, off], 0, atol=1e-12)
    assert np.abs(s).max() > 1e-3


@quick
@given(seeds, betas, st.sampled_from(["separable", "free", "grid"]))
def test_with_the_diagonal_the_model_allows_indifference_only(seed: int, beta: float, family: str) -> None:
    w = world(np.random.default_rng(seed), family, 4, N)
    e = np.cosh(choice.half_log_odds(w) / beta)
    mean = np.einsum("xyz,xy,xz->x", e, w.reference, w.reference)
    assert choice.excess(w, beta) == pytest.approx(mean - 1, rel=1e-9)
    told = np.abs(w.preference - 0.5).max(axis=(1, 2)) > 0
    assert (choice.excess(w, beta)[told] > 0).all()
    indifferent = World(w.prompts, w.reference, np.full_like(w.preference, 0.5))
    assert np.abs(choice.excess(indifferent, beta)).max() < 1e-12


@quick
@given(seeds, betas)
def test_without_it_preferences_stay_below_the_bound(seed: int, beta: float) -> None:
    w, _ = allowed(beta, seed)
    odds = 2 * choice.half_log_odds(w)
    rms = np.sqrt(np.einsum("xyz,xy,xz->x", odds**2, w.reference, w.reference))
    assert choice.admissible(w, beta).all()
    assert (rms < choice.strength_bound(w.reference, beta)).all()


def test_a_clear_winner_does_not_fit_at_small_beta() -> None:
    w = world(np.random.default_rng(0), "separable", 200, 8)
    assert not choice.admissible(w, 0.1).any()
    with pytest.raises(ValueError, match="no reward"):
        choice.reward(w, 0.1, np.zeros((200, 8)))


# The closed form


@pytest.mark.parametrize("beta", [1.0, 0.1])
def test_the_closed_form_maximises_the_regularised_objective(beta: float) -> None:
    w, r = allowed(beta)
    exact = choice.gibbs(w.reference, r, beta)
    assert exact.sum(1) == pytest.approx(1, abs=1e-12)
    assert np.abs(tabular.fit_regularised(w, r, beta) - exact).max() < 1e-6
    best = tabular.regularised(w, exact, r, beta)
    log_z = choice.partition(w.reference, r, beta)
    assert best == pytest.approx(beta * (w.reference * log_z).sum(1), abs=1e-12)
    rng = np.random.default_rng(1)
    for _ in range(20):
        near = exact * np.exp(0.3 * rng.normal(size=exact.shape))
        assert (tabular.regularised(w, near / near.sum(1, keepdims=True), r, beta) < best).all()


@pytest.mark.parametrize("beta", [1.0, 0.1])
def test_eq_10_recovers_the_closed_form_up_to_a_symmetric_part(beta: float) -> None:
    w, r = allowed(beta)
    exact = choice.gibbs(w.reference, r, beta)
    fitted, loss = tabular.fit_objective(w, "dpo", beta=beta)
    assert loss == pytest.approx(tabular.least_loss(w), abs=1e-12)
    assert np.abs(tabular.margins(w, fitted, beta) - 2 * choice.half_log_odds(w)).max() < 1e-6
    assert np.abs(tabular.antisymmetrised(w, fitted) - exact).max() < 1e-6
    assert np.abs(fitted - exact).max() > 0.05  # without the projection it is another minimiser


def test_another_start_ends_at_another_minimiser_with_the_same_antisymmetric_part() -> None:
    w, _ = allowed(1.0)
    start = np.log(w.reference)[:, :, None] + np.random.default_rng(5).normal(size=(3, N, N))
    one, loss = tabular.fit_objective(w, "dpo", beta=1.0)
    other, again = tabular.fit_objective(w, "dpo", start=start, beta=1.0)
    assert loss == pytest.approx(again, abs=1e-12)
    assert np.abs(one - other).max() > 0.05
    assert np.abs(tabular.antisymmetrised(w, one) - tabular.antisymmetrised(w, other)).max() < 1e-6


def test_the_closed_form_has_the_smallest_loss_there_is() -> None:
    w, r = allowed(1.0)
    exact = choice.gibbs(w.reference, r, 1.0)
    assert loss_of(w, exact, 1.0) == pytest.approx(tabular.least_loss(w), abs=1e-12)


def loss_of(w: World, policy: np.ndarray, beta: float) -> float:
    weight, log_ref = tabular.tensor(tabular.pair_weights(w)), tabular.tensor(np.log(w.reference))
    return float(tabular.expected_loss("dpo", tabular.tensor(np.log(policy)), log_ref, weight, beta=beta))


@quick
@given(seeds, st.sampled_from([1.0, 0.5]))
def test_a_symmetric_change_of_the_log_ratios_is_not_seen(seed: int, beta: float) -> None:
    w, r = allowed(beta, seed)
    exact = choice.gibbs(w.reference, r, beta)
    change = np.random.default_rng(seed).uniform(-1, 0, size=exact.shape)
    off = 1 - np.eye(N)
    moved = exact * np.exp(change + change.swapaxes(1, 2)) * off
    moved += np.eye(N) * (1 - moved.sum(1, keepdims=True))
    assert (moved > 0).all()
    assert np.abs(moved - exact).max() > 1e-3
    assert loss_of(w, moved, beta) == pytest.approx(loss_of(w, exact, beta), abs=1e-12)


def test_half_of_the_directions_are_flat() -> None:
    """N^2 logits: N of them are softmax's own, N(N - 1)/2 are seen, N(N - 1)/2 are not."""
    w, r = allowed(1.0)
    one = World(np.ones(1), w.reference[:1], w.preference[:1])
    weight, log_ref = tabular.tensor(tabular.pair_weights(one)), tabular.tensor(np.log(one.reference))
    start = tabular.tensor(np.log(choice.gibbs(w.reference, r, 1.0)[:1])).flatten()

    def loss(x: torch.Tensor) -> torch.Tensor:
        return tabular.expected_loss("dpo", torch.log_softmax(x.view(1, N, N), 1), log_ref, weight, beta=1.0)

    curvature = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, start))
    assert int((curvature > 1e-9).sum()) == N * (N - 1) // 2
    assert curvature.min() > -1e-12


@pytest.mark.parametrize("family", ["separable", "free"])
def test_repeating_the_alternative_minimises_eq_10_for_any_preferences(family: str) -> None:
    w = world(np.random.default_rng(0), family, 3, 5)
    mimic = tabular.mimic(w, beta=0.5)
    assert mimic.sum(1) == pytest.approx(1)
    assert (mimic > 0).all()
    assert np.einsum("xyy->xy", mimic).min() >= 0.99 - 1e-12
    assert loss_of(w, mimic, 0.5) == pytest.approx(tabular.least_loss(w), abs=1e-12)


def test_any_preferences_have_a_tabular_policy_with_their_log_odds() -> None:
    w = world(np.random.default_rng(2), "free", 3, 4)
    fitted, loss = tabular.fit_objective(w, "dpo", beta=1.0)
    assert loss == pytest.approx(tabular.least_loss(w), abs=1e-10)
    assert np.abs(tabular.margins(w, fitted, 1.0) - 2 * choice.half_log_odds(w)).max() < 1e-4


def test_ipo_fits_probabilities_instead_of_log_odds() -> None:
    """The mean target of (gap - 1/(2 tau))^2 under both labels is (P - (1 - P)) / (2 tau)."""
    w = world(np.random.default_rng(2), "free", 3, 4)
    fitted, _ = tabular.fit_objective(w, "ipo", tau=0.5)
    off = ~np.eye(4, dtype=bool)
    assert np.abs(tabular.margins(w, fitted, 1.0) - (2 * w.preference - 1) / (2 * 0.5))[:, off].max() < 1e-5
