"""Eq. 7 and Eq. 10 of InSPO minimised in full expectation over policies with a parameter for every (x, z, y).

The losses are the registered objectives themselves: readings "w" and "l" hold log pi(y_w | x, y_l) and
log pi(y_l | x, y_w), "ref_w" and "ref_l" the log-probs of the prompt alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pluralign.objectives import OBJECTIVES

from .worlds import Array, World

__all__ = [
    "Target",
    "antisymmetrised",
    "expected_loss",
    "fit_objective",
    "fit_regularised",
    "least_loss",
    "margins",
    "mimic",
    "regularised",
    "tensor",
]


@dataclass(frozen=True)
class Target:
    """A reading: log-probs of whole responses (B,) nats, and their lengths (B,) tokens."""

    sum: Tensor
    length: Tensor

    @property
    def mean(self) -> Tensor:
        return self.sum / self.length


def tensor(a: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(a))


def log_policy(logits: Tensor) -> Tensor:
    """(X, N, Z) logits of y under every alternative to log-probs."""
    return torch.log_softmax(logits, dim=1)


def expected_loss(
    name: str, log_pi: Tensor, log_ref: Tensor, weight: Tensor, lengths: Tensor | None = None, **hyper: Any
) -> Tensor:
    """The objective `name` in expectation: log_pi (X, N, N) is log pi(y | x, z), log_ref (X, N).

    `weight` (X, N, N) is the probability that the data show y chosen over z, zero at y = z; lengths (X, N) are 1 if
    left out.
    """
    length = torch.ones_like(log_ref) if lengths is None else lengths
    seen = weight > 0
    by_y: Callable[[Tensor], Tensor] = lambda a: a[:, :, None].expand_as(weight)[seen]
    by_z: Callable[[Tensor], Tensor] = lambda a: a[:, None, :].expand_as(weight)[seen]
    readings = {
        "w": Target(log_pi[seen], by_y(length)),
        "l": Target(log_pi.transpose(1, 2)[seen], by_z(length)),
        "ref_w": Target(by_y(log_ref), by_y(length)),
        "ref_l": Target(by_z(log_ref), by_z(length)),
    }
    return (OBJECTIVES[name](readings, **hyper).loss * weight[seen]).sum()


def pair_weights(world: World) -> Array:
    """(X, N, N): how often data whose two distinct responses come from the reference show y chosen over z."""
    n = world.reference.shape[1]
    drawn = world.reference[:, :, None] * world.reference[:, None, :] * (1 - np.eye(n))
    drawn /= drawn.sum(axis=(1, 2), keepdims=True)
    return world.prompts[:, None, None] * drawn * world.preference


def minimise(loss: Callable[[Tensor], Tensor], start: Tensor, *, rounds: int = 40) -> Tensor:
    """LBFGS in float64 from `start`, restarted while it gains."""
    x = start.clone().requires_grad_()
    before = float("inf")
    for _ in range(rounds):
        optimiser = torch.optim.LBFGS(
            [x],
            max_iter=400,
            history_size=40,
            tolerance_grad=1e-15,
            tolerance_change=0.0,
            line_search_fn="strong_wolfe",
        )

        def closure(optimiser: torch.optim.Optimizer = optimiser) -> Tensor:
            optimiser.zero_grad()
            value = loss(x)
            value.backward()
            return value

        optimiser.step(closure)
        after = float(loss(x).detach())
        if before - after < 1e-16:
            break
        before = after
    return x.detach()


def fit_objective(world: World, name: str = "dpo", *, start: Array | None = None, **hyper: Any) -> tuple[Array, float]:
    """(pi (X, N, N), loss) that minimise the objective in expectation, cross-conditioned, from pi_ref or `start`."""
    log_ref, weight = tensor(np.log(world.reference)), tensor(pair_weights(world))
    n = world.reference.shape[1]
    first = log_ref[:, :, None].expand(-1, -1, n) if start is None else tensor(start)
    loss: Callable[[Tensor], Tensor] = lambda x: expected_loss(name, log_policy(x), log_ref, weight, **hyper)
    x = minimise(loss, first)
    return log_policy(x).exp().numpy(), float(loss(x))


def least_loss(world: World) -> float:
    """The entropy of the labels, which no policy's logistic loss undercuts."""
    weight = pair_weights(world)
    seen = weight > 0
    return float(-(weight[seen] * np.log(world.preference[seen])).sum())


def regularised(world: World, policy: Array, r: Array, beta: float) -> Array:
    """(X,): the objective of (7), E[r] - beta KL(pi || pi_ref), of each prompt."""
    inner = r - beta * (np.log(policy) - np.log(world.reference)[:, :, None])
    return np.einsum("xyz,xyz,xz->x", policy, inner, world.reference)


def fit_regularised(world: World, r: Array, beta: float) -> Array:
    """The policy that maximises (7), found numerically from the uniform one."""
    log_ref, reward, w = tensor(np.log(world.reference)), tensor(r), tensor(world.reference)

    def loss(x: Tensor) -> Tensor:
        log_pi = log_policy(x)
        inner = log_pi.exp() * (beta * (log_pi - log_ref[:, :, None]) - reward)
        return (inner.sum(1) * w).sum()

    return log_policy(minimise(loss, torch.zeros_like(reward))).exp().numpy()


def log_ratios(world: World, policy: Array) -> Array:
    """(X, N, N) h(y, z) = log pi(y | x, z) / pi_ref(y | x)."""
    return np.log(policy) - np.log(world.reference)[:, :, None]


def margins(world: World, policy: Array, beta: float) -> Array:
    """(X, N, N) beta (h(y, z) - h(z, y)), all that Eq. 10 sees of a policy."""
    h = log_ratios(world, policy)
    return beta * (h - h.swapaxes(1, 2))


def antisymmetrised(world: World, policy: Array) -> Array:
    """The policy with the same margins and h(y, z) = -h(z, y) for y != z; what is left goes to y = z.

    Under the choice model this is pi_r. Elsewhere it may be no policy: negative at y = z.
    """
    h = log_ratios(world, policy)
    eye = np.eye(h.shape[1])
    out = world.reference[:, :, None] * np.exp((h - h.swapaxes(1, 2)) / 2) * (1 - eye)
    return out + eye * (1 - out.sum(axis=1, keepdims=True))


def mimic(world: World, beta: float, own: float = 0.99) -> Array:
    """A policy that repeats the alternative with probability `own` at least, and yet minimises Eq. 10 exactly.

    It adds the same constant to h(y, z) of all y != z, which no margin notices.
    """
    h = np.log(world.preference / (1 - world.preference)) / (2 * beta)
    eye = np.eye(h.shape[1])
    rest = world.reference[:, :, None] * np.exp(h) * (1 - eye)
    rest *= (1 - own) / rest.sum(axis=1, keepdims=True).max(axis=2, keepdims=True)
    return rest + eye * (1 - rest.sum(axis=1, keepdims=True))
