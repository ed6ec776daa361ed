"""Proposition 3.1 and Theorem 3.2 of InSPO (arXiv 2512.23126), exactly, on finite worlds.

A policy that sees the prompt only is (X, N); one that also sees the alternative z is (X, N, N), a distribution over y
for every z. Sets of best responses are masks of the same shapes: a maximiser need not be unique.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .worlds import PSI, Array, Mask, Psi, World

__all__ = [
    "Comparison",
    "best_fixed",
    "best_replies",
    "common_best",
    "compare",
    "counter_example",
    "counter_scores",
    "deployed",
    "first",
    "scores",
    "transformed",
    "value",
]

IDENTITY = PSI["identity"]


def transformed(world: World, psi: Psi = IDENTITY) -> Array:
    """(X, N, N) Psi(P(y > z | x)); equal probabilities get equal values to the last bit, so that ties stay ties."""
    each, place = np.unique(world.preference, return_inverse=True)
    return np.asarray(psi(each), dtype=np.float64)[place].reshape(world.preference.shape)


def best_replies(world: World, psi: Psi = IDENTITY) -> Mask:
    """(X, N, N): whether y maximises Psi(P(y > z | x)). Every policy that stays inside is a pi*; y = z competes too."""
    t = transformed(world, psi)
    return t == t.max(axis=1, keepdims=True)


def scores(world: World, psi: Psi = IDENTITY) -> Array:
    """(X, N): E over z ~ pi_ref of Psi(P(y > z | x)), what pi-bar maximises."""
    return np.einsum("xyz,xz->xy", transformed(world, psi), world.reference)


def best_fixed(world: World, psi: Psi = IDENTITY, tolerance: float = 1e-12) -> Mask:
    """(X, N): whether y may be the response of pi-bar."""
    s = scores(world, psi)
    return s >= s.max(axis=1, keepdims=True) - tolerance


def common_best(world: World) -> Mask:
    """(X, N): whether y is a best reply to every alternative at once."""
    return np.asarray(best_replies(world).all(axis=2), dtype=np.bool_)


def value(world: World, policy: Array, psi: Psi = IDENTITY) -> Array:
    """(X,): V(pi) of each prompt; `world.prompts @ value(...)` is the whole."""
    seen = policy if policy.ndim == 3 else np.broadcast_to(policy[:, :, None], world.preference.shape)
    return np.einsum("xyz,xyz,xz->x", seen, transformed(world, psi), world.reference)


def first(mask: Mask) -> Array:
    """The deterministic policy that takes the first of the best responses (axis 1), and so stays inside the set."""
    return np.moveaxis(np.eye(mask.shape[1])[mask.argmax(axis=1)], -1, 1)


def deployed(world: World, conditional: Array) -> Array:
    """(X, N): the prompt-level policy that draws z from the reference, answers it, and forgets it."""
    return np.einsum("xyz,xz->xy", conditional, world.reference)


@dataclass(frozen=True)
class Comparison:
    """Per prompt (X,): V of pi*, of pi-bar and of pi* with z forgotten, and whether one response is best throughout."""

    star: Array
    bar: Array
    forgotten: Array
    common: Mask

    @property
    def gap(self) -> Array:
        return self.star - self.bar


def compare(world: World, psi: Psi = IDENTITY) -> Comparison:
    star, bar = first(best_replies(world, psi)), first(best_fixed(world, psi))
    return Comparison(
        value(world, star, psi),
        value(world, bar, psi),
        value(world, deployed(world, star), psi),
        np.asarray(common_best(world).any(axis=1), dtype=np.bool_),
    )


# Proposition 3.1

SKEWED = (0.9, 0.1)


def counter_example(between: float = 0.5, reference: tuple[float, float] = (0.5, 0.5)) -> World:
    """The paper's two candidates and two alternatives, in this order, as a whole world.

    The paper leaves P(alternative a > alternative b) open, which is `between`; the candidates among themselves never
    matter, because the reference draws only alternatives.
    """
    p = np.full((4, 4), 0.5)
    p[0, 2:], p[1, 2:], p[2, 3] = (0.9, 0.2), (0.56, 0.56), between
    p[2:, :2], p[3, 2] = 1 - p[:2, 2:].T, 1 - between
    return World(np.ones(1), np.array([[0.0, 0.0, *reference]]), p[None])


def counter_scores() -> dict[str, tuple[float, float]]:
    """The scores of both candidates: identity, log-odds, and identity under the skewed reference."""
    plain, skewed = counter_example(), counter_example(reference=SKEWED)
    rows = {
        "identity": scores(plain),
        "log-odds": scores(plain, PSI["log-odds"]),
        "identity, skewed": scores(skewed),
    }
    return {name: (float(s[0, 0]), float(s[0, 1])) for name, s in rows.items()}
