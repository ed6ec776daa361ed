"""Does what is learned in the sight of the alternative reach the policy that sees the prompt alone?

A policy is logits (X, N, 1 + N): of y under no alternative (column 0, what is deployed) and under every response z.

    tabular   a parameter for every (x, context, y); the context without an alternative has its own
    reply     pi_ref and g(z, y): only what depends on the alternative is learned
    shared    f(x, y) learned, g(z, y) fixed
    both      f and g learned

f and g are linear and bilinear in features of the responses, so that they also speak for prompts not trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .tabular import expected_loss, pair_weights, tensor
from .worlds import Array, World

__all__ = ["POLICIES", "TABLE_1", "Course", "Setting", "greedy_value", "margin", "setting", "train"]

TABLE_1 = ("dpo", "ipo", "r_dpo", "orpo", "simpo")


@dataclass(frozen=True)
class Setting:
    """Prompts to train on and others held out, with features (X, N, D), lengths (X, N) and a fixed g (D, D)."""

    train: World
    held_out: World
    features: tuple[Array, Array]
    lengths: Array
    interaction: Array


def setting(
    seed: int, *, prompts: int = 24, held_out: int = 48, responses: int = 5, dim: int = 6, circular: float = 0.0
) -> Setting:
    """Qualities linear in features; `circular` adds to the log-odds an antisymmetric interaction of that strength."""
    rng = np.random.default_rng(seed)
    taste, g = rng.normal(size=dim), 0.3 * rng.normal(size=(dim, dim))
    turn = rng.normal(size=(dim, dim))
    turn = circular * (turn - turn.T) / np.sqrt(2)

    def world(x: int) -> tuple[World, Array]:
        phi = rng.normal(size=(x, responses, dim)) / np.sqrt(dim)
        quality = 2 * phi @ taste
        odds = quality[:, :, None] - quality[:, None, :] + np.einsum("xyd,de,xze->xyz", phi, turn, phi)
        p = np.triu(1 / (1 + np.exp(-odds)), 1)
        p = p + np.tril(1 - p.swapaxes(1, 2), -1) + 0.5 * np.eye(responses)
        reference = 0.5 * rng.dirichlet(np.ones(responses), size=x) + 0.5 / responses
        return World(np.full(x, 1 / x), reference, p), phi

    (seen, phi), (unseen, psi) = world(prompts), world(held_out)
    return Setting(seen, unseen, (phi, psi), rng.integers(4, 12, size=(prompts, responses)).astype(np.float64), g)


Parameters = dict[str, Tensor]
Logits = Callable[[Parameters, World, Array], Tensor]


def _base(world: World) -> Tensor:
    n = world.reference.shape[1]
    return tensor(np.log(world.reference))[:, :, None].expand(-1, -1, 1 + n)


def _linear(p: Parameters, world: World, phi: Array) -> Tensor:
    """pi_ref exp(f(x, y) + g(z, y)); g is 0 where there is no alternative."""
    features = tensor(phi)
    out = _base(world) + (features @ p["f"])[:, :, None]
    reply = torch.einsum("xyd,de,xze->xyz", features, p["g"], features)
    return out + torch.cat([torch.zeros_like(reply[:, :, :1]), reply], dim=2)


def _tabular(p: Parameters, world: World, phi: Array) -> Tensor:
    return _base(world) + p["table"]


# name -> (which parameters are learned, logits)
POLICIES: Mapping[str, tuple[tuple[str, ...], Logits]] = {
    "tabular": (("table",), _tabular),
    "reply": (("g",), _linear),
    "shared": (("f",), _linear),
    "both": (("f", "g"), _linear),
}


def _start(policy: str, s: Setting) -> Parameters:
    if policy == "tabular":  # the same first values as the others', entry by entry
        zero = {"f": torch.zeros(len(s.interaction), dtype=torch.float64), "g": tensor(s.interaction)}
        return {"table": _linear(zero, s.train, s.features[0]) - _base(s.train)}
    return {"f": torch.zeros(len(s.interaction), dtype=torch.float64), "g": tensor(s.interaction).clone()}


def margin(world: World, log_pi: Tensor, *, sighted: bool) -> float:
    """Nats by which the policy's log-ratio to the reference favours the preferred response of a pair, on average.

    Pairs are drawn like the data, labels in expectation. `sighted`: each response in the sight of the other.
    """
    h = log_pi - _base(world)
    gap = h[:, :, 1:] if sighted else h[:, :, :1].expand(-1, -1, world.reference.shape[1])
    return float((tensor(pair_weights(world)) * (gap - gap.transpose(1, 2))).sum())


def greedy_value(world: World, log_pi: Tensor) -> float:
    """V of the most likely response to the prompt alone: its win rate against the reference."""
    at = log_pi[:, :, 0].argmax(1).numpy()
    wins = np.einsum("xyz,xz->xy", world.preference, world.reference)
    return float(world.prompts @ wins[np.arange(len(at)), at])


@dataclass(frozen=True)
class Course:
    """Margins (nats) after 0, 1, ... steps: in the sight of the other response, and at the prompt alone.

    `held_*`: on the prompts not trained on; a table has nothing to say about those, and its own are repeated.
    `moved`: how far any prompt-level logit of the training prompts moved. `value`: of the greedy deployed policy on the
    prompts not trained on, nan for a table.
    """

    sighted: Array
    alone: Array
    held_sighted: Array
    held_alone: Array
    moved: float
    value: float


def train(
    s: Setting,
    policy: str,
    objective: str,
    *,
    conditioned: bool = True,
    steps: int = 150,
    rate: float = 0.03,
    **hyper: Any,
) -> Course:
    """Adam on the expected loss of all pairs of the training prompts. `conditioned=False`: the plain objective."""
    learned, logits = POLICIES[policy]
    p = _start(policy, s)
    for name in learned:
        p[name].requires_grad_()
    log_ref, weight, lengths = tensor(np.log(s.train.reference)), tensor(pair_weights(s.train)), tensor(s.lengths)
    optimiser = torch.optim.Adam([p[name] for name in learned], lr=rate)
    read: Callable[[World, Array], Tensor] = lambda world, phi: torch.log_softmax(logits(p, world, phi), dim=1)
    unseen = (s.train, s.features[0]) if policy == "tabular" else (s.held_out, s.features[1])
    first = logits(p, s.train, s.features[0])[:, :, 0].detach().clone()
    track: list[tuple[float, ...]] = []
    for step in range(steps + 1):
        log_pi = read(s.train, s.features[0])
        with torch.no_grad():
            held = read(*unseen)
            both = ((s.train, log_pi), (unseen[0], held))
            track.append(tuple(margin(w, lp, sighted=sighted) for w, lp in both for sighted in (True, False)))
        if step < steps:
            shown = log_pi[:, :, 1:] if conditioned else log_pi[:, :, :1].expand_as(log_pi[:, :, 1:])
            optimiser.zero_grad()
            expected_loss(objective, shown, log_ref, weight, lengths, **hyper).backward()
            optimiser.step()
    moved = float((logits(p, s.train, s.features[0])[:, :, 0].detach() - first).abs().max())
    value = float("nan") if policy == "tabular" else greedy_value(s.held_out, held)
    sighted, alone, held_sighted, held_alone = np.array(track).T
    return Course(sighted, alone, held_sighted, held_alone, moved, value)
