"""Fronts: hand-worked areas and volumes, brute force, and intervals that resample prompts."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pluralign.errors import SettingsError
from pluralign.judging.fronts import (
    compare_hypervolumes,
    controllability,
    dominated,
    evaluate_front,
    hypervolume,
    mean_inner_product,
    pareto_front,
    reference_point,
    share_dominated,
    simplex_grid,
    spread,
)


def by_subsets(points: list[tuple[float, ...]], reference: tuple[float, ...]) -> float:
    """Inclusion and exclusion over all subsets of boxes."""
    boxes = [np.maximum(np.array(p) - np.array(reference), 0) for p in points]
    return sum(
        (-1) ** (n + 1) * float(np.prod(np.minimum.reduce(chosen)))
        for n in range(1, len(boxes) + 1)
        for chosen in itertools.combinations(boxes, n)
    )


# --- grids ----------------------------------------------------------------------------------------------------


def test_grids_have_the_sizes_of_the_papers():
    assert simplex_grid(2).shape == (11, 2)
    assert simplex_grid(3).shape == (66, 3)
    for grid in (simplex_grid(2), simplex_grid(3), simplex_grid(4, 5)):
        assert np.allclose(grid.sum(1), 1)
        assert (grid >= 0).all()
        assert len({tuple(row) for row in grid.tolist()}) == len(grid)
    assert simplex_grid(2, 2).tolist() == [[0, 1], [0.5, 0.5], [1, 0]]
    assert simplex_grid(1).tolist() == [[1]]


def test_a_grid_without_steps_is_no_grid():
    with pytest.raises(SettingsError, match="at least one objective and one step"):
        simplex_grid(2, 0)


# --- fronts ---------------------------------------------------------------------------------------------------


def test_front_by_hand():
    points = [(3, 1), (1, 3), (2, 2), (1, 2), (2, 2), (0, 3)]
    assert dominated(points).tolist() == [False, False, False, True, False, True]  # equal points do not dominate
    assert pareto_front(points).tolist() == [1, 2, 4, 0]
    assert share_dominated(points) == pytest.approx(2 / 6)


def test_spread_is_the_diagonal_of_the_front_alone():
    assert spread([(0, 4), (3, 0), (-9, -9)]) == pytest.approx(5)
    assert spread([(1, 1)]) == 0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=8))
def test_a_point_is_on_the_front_or_below_one_that_is(points):
    front = set(pareto_front(points).tolist())
    for i, p in enumerate(points):
        above = [j for j in front if all(a >= b for a, b in zip(points[j], p, strict=True))]
        assert above
        assert (i in front) == all(points[j] == p for j in above)


# --- hypervolume ----------------------------------------------------------------------------------------------


def test_hypervolume_by_hand():
    assert hypervolume([(1, 3), (2, 2), (3, 1)], (0, 0)) == 6
    assert hypervolume([(1, 3), (2, 2), (3, 1), (1, 1), (2, 2)], (0, 0)) == 6  # dominated and equal ones add nothing
    assert hypervolume([(1, 3), (2, 2), (3, 1)], (1, 1)) == 1
    assert hypervolume([(1, 1)], (1, 0)) == 0
    assert hypervolume([(2, 3, 4)], (0, 0, 0)) == 24
    # two boxes 2x1x1 and 1x2x1 share a unit cube; 1x1x2 on top of it adds one more
    assert hypervolume([(2, 1, 1), (1, 2, 1), (1, 1, 2)], (0, 0, 0)) == 4
    assert hypervolume([(5.0,), (2.0,)], (1.0,)) == 4


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5).flatmap(lambda k: st.lists(st.tuples(*[st.integers(-1, 5)] * k), min_size=1, max_size=6)))
def test_hypervolume_is_inclusion_and_exclusion_in_any_dimension(points):
    reference = (0,) * len(points[0])
    assert hypervolume(points, reference) == pytest.approx(by_subsets(points, reference), abs=1e-9)


def test_hypervolume_of_a_sphere_in_three_dimensions():
    """A fine grid on the unit sphere approaches an eighth of its volume from below."""
    grid = simplex_grid(3, 40)
    points = np.sqrt(grid)
    exact = math.pi / 6
    assert 0.93 * exact < hypervolume(points, (0, 0, 0)) < exact


def test_hypervolume_needs_a_reference_that_fits():
    with pytest.raises(SettingsError, match="reference point of 2 objectives"):
        hypervolume([(1, 2)], (0, 0, 0))
    with pytest.raises(SettingsError, match="no finite number"):
        hypervolume([(1, math.nan)], (0, 0))


def test_reference_point_is_mean_minus_sd():
    base = [[1, 10], [3, math.nan], [5, 14]]
    assert reference_point(base).tolist() == pytest.approx([3 - 2, 12 - math.sqrt(8)])
    with pytest.raises(SettingsError, match="at least two scores"):
        reference_point([[1, 2]])


# --- asked for and got ----------------------------------------------------------------------------------------


def test_mean_inner_product_by_hand():
    assert mean_inner_product([(1, 0), (0.5, 0.5)], [(4, 0), (2, 6)]) == (4 + 4) / 2
    with pytest.raises(SettingsError, match="weights that asked for it"):
        mean_inner_product([(1, 0)], [(4, 0), (2, 6)])


def test_controllability_by_hand():
    weights = [(0, 1), (0.5, 0.5), (1, 0)]
    assert controllability(weights, [(0, 9), (5, 3), (9, 1)]).tolist() == pytest.approx([1, 1])
    assert controllability(weights, [(9, 9), (5, 3), (0, 1)]).tolist() == pytest.approx([-1, 1])
    # ranks 1 3 2 against 1 2 3: 1 - 6 (0 + 1 + 1) / (3 * 8) = .5
    assert controllability(weights, [(0, 9), (7, 3), (5, 1)])[0] == pytest.approx(0.5)
    assert math.isnan(controllability(weights, [(2, 9), (2, 3), (2, 1)])[0])


# --- reports --------------------------------------------------------------------------------------------------


def grid_rewards(n: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A concave front of two objectives with noise shared by all points of a prompt."""
    weights = simplex_grid(2)
    rng = np.random.default_rng(seed)
    means = np.sqrt(weights)
    return weights, means[:, None] + noise * rng.normal(size=(1, n, 2))


def test_a_report_holds_the_figures_of_its_means():
    weights, rewards = grid_rewards(60, 0.2)
    found = evaluate_front(weights, rewards, reference=(0, 0), names=("a", "b"), resamples=200,
                           others={"length": np.full((11, 60), 7.0)})  # fmt: skip
    means = rewards.mean(1)
    assert found.hypervolume.value == pytest.approx(hypervolume(means, (0, 0)))
    assert found.mean_inner_product.value == pytest.approx(mean_inner_product(weights, means))
    assert found.hypervolume.low < found.hypervolume.value < found.hypervolume.high
    assert found.share_dominated.value == 0
    assert found.front == tuple(range(11))
    assert found.controllability["a"].value == pytest.approx(1)
    assert found.points[3]["a"].value == pytest.approx(means[3, 0])
    assert found.points[3]["length"].value == 7
    assert found.as_dict()["points"][0]["weights"] == [0, 1]
    again = evaluate_front(weights, rewards, reference=(0, 0), names=("a", "b"), resamples=200)
    assert again.hypervolume == found.hypervolume  # seeded


def test_shared_noise_does_not_hide_the_difference_of_two_systems():
    """Paired over prompts: noise that both systems share moves each front, and not their difference."""
    _, rewards = grid_rewards(40, 1.0)
    gap = compare_hypervolumes(rewards, rewards + 0.1, reference=(-5, -5), resamples=200)
    alone = evaluate_front(simplex_grid(2), rewards, reference=(-5, -5), resamples=200).hypervolume
    assert gap.low > 0
    assert gap.high - gap.low < 0.2 * (alone.high - alone.low)


def test_a_prompt_without_a_score_is_left_out_and_counted():
    weights, rewards = grid_rewards(20, 0.2)
    rewards[4, 7, 1] = math.nan
    found = evaluate_front(weights, rewards, reference=(0, 0), resamples=100)
    rest = np.delete(rewards, 7, axis=1)
    assert found.hypervolume.value == pytest.approx(hypervolume(rest.mean(1), (0, 0)))
    assert (found.prompts, found.hypervolume.missing) == (19, 1)
    assert found.points[0]["objective 1"].n == 19


def test_clusters_are_resampled_whole():
    weights, rewards = grid_rewards(15, 0.5)
    many = np.repeat(rewards, 4, axis=1)
    once = evaluate_front(weights, rewards, reference=(-2, -2), resamples=300).hypervolume
    clustered = evaluate_front(weights, many, reference=(-2, -2), resamples=300, clusters=[i // 4 for i in range(60)])
    plain = evaluate_front(weights, many, reference=(-2, -2), resamples=300).hypervolume
    width = clustered.hypervolume.high - clustered.hypervolume.low
    assert width == pytest.approx(once.high - once.low, rel=0.15)
    assert plain.high - plain.low < 0.7 * width


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": np.ones((3, 2))}, "weights"),
        ({"names": ("a",)}, "2 objectives but 1 names"),
        ({"reference": (0, 0, 0)}, "reference point"),
        ({"others": {"kl": np.ones(4)}}, '"kl" is'),
        ({"rewards": np.full((11, 5, 2), math.nan)}, "nothing to compare"),
    ],
)
def test_what_does_not_fit_is_told(change, message):
    weights, rewards = grid_rewards(5, 0.1)
    given_ = {"weights": weights, "rewards": rewards, "reference": (0, 0), "resamples": 100, **change}
    with pytest.raises(SettingsError, match=message):
        evaluate_front(given_.pop("weights"), given_.pop("rewards"), **given_)
