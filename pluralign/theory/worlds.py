"""Finite worlds: prompts, responses, a reference, and how often each response is preferred to each other one.

Shapes: X prompts, N responses of each. Axis y is the response that is judged, axis z the alternative (the paper's y').
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["FAMILIES", "PSI", "STEPPED", "Array", "Mask", "Psi", "World", "monotone", "world"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Psi = Callable[[Array], Array]
FLOOR = 0.2  # share of the uniform distribution in a random reference: every response is possible


@dataclass(frozen=True)
class World:
    """`prompts` (X,) and `reference` (X, N) are distributions; `preference` (X, N, N) is P(y > z | x).

    Raises ValueError where P(y > z) + P(z > y) is not 1. A response against itself is at 1/2, therefore.
    """

    prompts: Array
    reference: Array
    preference: Array

    def __post_init__(self) -> None:
        x, n = self.reference.shape
        if self.prompts.shape != (x,) or self.preference.shape != (x, n, n):
            raise ValueError("prompts (X,), reference (X, N) and preference (X, N, N) do not fit together.")
        if np.abs(self.preference + self.preference.swapaxes(1, 2) - 1).max() > 1e-12:
            raise ValueError("P(y > z) + P(z > y) must be 1 for every pair.")
        if max(abs(self.prompts.sum() - 1), np.abs(self.reference.sum(1) - 1).max()) > 1e-9:
            raise ValueError("prompts and the reference must be distributions.")

    def under(self, reference: Array) -> World:
        """The same preferences with another reference."""
        return replace(self, reference=reference)


# Scalarisations


def _normal(f: Callable[[torch.Tensor], torch.Tensor]) -> Psi:
    return lambda q: f(torch.from_numpy(np.asarray(q, dtype=np.float64).copy())).numpy()


normal_cdf = _normal(torch.special.ndtr)
PSI: Mapping[str, Psi] = {  # strictly increasing
    "identity": lambda q: q,
    "log-odds": lambda q: np.log(q) - np.log1p(-q),
    "probit": _normal(torch.special.ndtri),
    "log": np.log,
    "cube": lambda q: q**3,
    "exponential": lambda q: np.exp(8 * q),
}
STEPPED: Mapping[str, Psi] = {  # non-decreasing only, which is all the paper asks for
    "majority": lambda q: (q > 0.5) + 0.5 * (q == 0.5),
    "clipped": lambda q: np.clip(q, 0.4, 0.6),
    "constant": np.zeros_like,
}


def monotone(rng: np.random.Generator, knots: int = 8) -> Psi:
    """A random strictly increasing, piecewise linear function on [0, 1]."""
    at = np.sort(np.concatenate([[0.0, 1.0], rng.random(knots)]))
    rise = np.cumsum(rng.exponential(size=knots + 2) + 0.02)
    return lambda q: np.interp(q, at, rise)


# Preferences


def _completed(p: Array) -> Array:
    """The pairs y < z of `p`, the others from P(y > z) + P(z > y) = 1."""
    return np.triu(p, 1) + np.tril(1 - p.swapaxes(1, 2), -1) + 0.5 * np.eye(p.shape[-1])


def _logistic(odds: Array) -> Array:
    return _completed(1 / (1 + np.exp(-odds)))


def _against(c: Array) -> Array:
    """c(y) - c(z)."""
    return c[..., :, None] - c[..., None, :]


def separable(rng: np.random.Generator, x: int, n: int) -> Array:
    """Bradley-Terry: the log-odds are a difference of qualities."""
    return _logistic(_against(rng.normal(size=(x, n))))


def thurstone(rng: np.random.Generator, x: int, n: int) -> Array:
    """A difference of qualities seen through the normal distribution: separable, but not for the log-odds."""
    return _completed(normal_cdf(_against(rng.normal(size=(x, n)))))


def unequal(rng: np.random.Generator, x: int, n: int) -> Array:
    """Every response is judged with a noise of its own: no circles, yet no common scale either."""
    noise = np.exp(rng.uniform(-1, 1, size=(x, n)))
    z = _against(rng.uniform(-1.7, 1.7, size=(x, n))) / np.sqrt(noise[..., :, None] ** 2 + noise[..., None, :] ** 2)
    return _completed(normal_cdf(z))


def crowd(rng: np.random.Generator, x: int, n: int) -> Array:
    """Two equally large groups, each of them Bradley-Terry with strong wishes of its own."""
    groups = [_logistic(3 * _against(rng.normal(size=(x, n)))) for _ in range(2)]
    return _completed((groups[0] + groups[1]) / 2)


def contextual(rng: np.random.Generator, x: int, n: int) -> Array:
    """Quality plus an interaction of the two responses of the same size."""
    return _logistic(_against(rng.normal(size=(x, n))) + rng.normal(size=(x, n, n)))


def free(rng: np.random.Generator, x: int, n: int) -> Array:
    """Every pair on its own: circles are as likely as orders."""
    return _logistic(2 * rng.normal(size=(x, n, n)))


def grid(rng: np.random.Generator, x: int, n: int) -> Array:
    """Every pair on its own, at tenths: many ties."""
    upper = np.triu(rng.integers(1, 10, size=(x, n, n)), 1)
    return (upper + np.tril(10 - upper.swapaxes(1, 2), -1) + 5 * np.eye(n)) / 10


FAMILIES: Mapping[str, Callable[[np.random.Generator, int, int], Array]] = {
    f.__name__: f for f in (separable, thurstone, unequal, crowd, contextual, free, grid)
}


def world(rng: np.random.Generator, family: str, prompts: int, responses: int) -> World:
    """A random world: preferences of `family`, a random reference of full support, random weights of the prompts."""
    reference = (1 - FLOOR) * rng.dirichlet(np.ones(responses), size=prompts) + FLOOR / responses
    preference = FAMILIES[family](rng, prompts, responses)
    return World(rng.dirichlet(np.ones(prompts)), reference, preference)
