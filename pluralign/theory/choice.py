"""The choice model of InSPO (arXiv 2512.23126, Eq. 6) and the closed form of Theorem 4.1.

With s(y, z) = r(x, y, z) - beta log Z(x, z) the model says P(y > z | x) = sigma(2 s(y, z)). Two things follow:

    symmetry        s(y, z) = -s(z, y) = log-odds of P(y > z) / 2, for any two responses that are compared
    normalisation   E over y ~ pi_ref of exp(s(y, z) / beta) = 1 for every z, because Z is defined by r itself

so that r is free only up to a function of (x, z), and P is bound by one equation for every z. Read for y = z as well,
where s = 0, the two allow indifference only (`excess`); read for distinct responses, s(z, z) is free and takes up the
slack (`admissible`). That second reading is the one used here.
"""

from __future__ import annotations

import numpy as np

from .worlds import PSI, Array, Mask, World

__all__ = [
    "admissible",
    "admissible_world",
    "excess",
    "gibbs",
    "half_log_odds",
    "off_diagonal_mass",
    "partition",
    "reward",
    "strength_bound",
]


def half_log_odds(world: World) -> Array:
    """(X, N, N) s(y, z), zero at y = z."""
    return PSI["log-odds"](world.preference) / 2


def excess(world: World, beta: float) -> Array:
    """(X,): by how much E over y, z ~ pi_ref of exp(s / beta) exceeds 1, which the model as printed makes it be.

    By symmetry the expectation is that of cosh(s / beta), at least 1, and 1 only where s = 0 throughout.
    """
    e = np.exp(half_log_odds(world) / beta)
    return np.einsum("xyz,xy,xz->x", e, world.reference, world.reference) - 1


def off_diagonal_mass(world: World, beta: float) -> Array:
    """(X, N): sum over y != z of pi_ref(y) exp(s(y, z) / beta), the probability that (11) gives to responses but z."""
    e = np.exp(half_log_odds(world) / beta) * (1 - np.eye(world.reference.shape[1]))
    return np.einsum("xyz,xy->xz", e, world.reference)


def admissible(world: World, beta: float) -> Mask:
    """(X,) bool: whether some reward gives these preferences between distinct responses under the choice model."""
    return np.asarray((off_diagonal_mass(world, beta) < 1).all(axis=1), dtype=np.bool_)


def strength_bound(reference: Array, beta: float) -> Array:
    """(X,): the largest root mean square of log-odds, over y, z ~ pi_ref, that any admissible world can have.

    From E[cosh(s / beta) - 1] <= sum_y pi_ref(y)^2, cosh(t) - 1 >= t^2 / 2 and log-odds = 2 s.
    """
    return 2 * beta * np.sqrt(2 * (reference**2).sum(axis=1))


def admissible_world(
    rng: np.random.Generator, prompts: int, responses: int, beta: float, strength: float = 0.8
) -> World:
    """A random world that the choice model allows: random log-odds at `strength` of the largest scale."""
    reference = 0.5 * rng.dirichlet(np.ones(responses), size=prompts) + 0.5 / responses
    upper = np.triu(rng.normal(size=(prompts, responses, responses)), 1)
    odds = upper - upper.swapaxes(1, 2)
    weights = np.full(prompts, 1 / prompts)

    def scaled(by: Array) -> World:
        p = np.triu(1 / (1 + np.exp(-odds * by[:, None, None])), 1)
        p = p + np.tril(1 - p.swapaxes(1, 2), -1) + 0.5 * np.eye(responses)
        return World(weights, reference, p)

    low, high = np.zeros(prompts), np.full(prompts, 8.0)
    for _ in range(50):  # the mass is convex in the scale and starts below 1: it crosses 1 once
        middle = (low + high) / 2
        fits = admissible(scaled(middle), beta)
        low, high = np.where(fits, middle, low), np.where(fits, high, middle)
    return scaled(strength * low)


def reward(world: World, beta: float, shift: Array) -> Array:
    """(X, N, N): r(x, y, z) that gives the world's preferences; `shift` (X, N) is the free function of (x, z).

    Raises ValueError where the world is not admissible.
    """
    mass = off_diagonal_mass(world, beta)
    if (mass >= 1).any():
        raise ValueError("the choice model allows no reward for these preferences at this beta.")
    own = np.einsum("xz,yz->xyz", beta * np.log((1 - mass) / world.reference), np.eye(mass.shape[1]))
    return half_log_odds(world) + own + shift[:, None, :]


def partition(reference: Array, r: Array, beta: float) -> Array:
    """(X, N): log Z(x, z)."""
    top = r.max(axis=1) / beta
    return np.log(np.einsum("xy,xyz->xz", reference, np.exp(r / beta - top[:, None, :]))) + top


def gibbs(reference: Array, r: Array, beta: float) -> Array:
    """(X, N, N): pi_r(y | x, z) = pi_ref(y | x) exp(r(x, y, z) / beta) / Z(x, z), the solution of (7). Eq. 11."""
    return reference[:, :, None] * np.exp(r / beta - partition(reference, r, beta)[:, None, :])
