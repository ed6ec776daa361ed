"""A small reward model for studies: a Bradley-Terry head on frozen states of the embedded model.

P(y_w > y_l | x) = sigma(u . (f(x, y_w) - f(x, y_l))), f: mean and last hidden state over the response. It is trained on
pairs that share no prompt with those the policies learn from or are judged on, and says how often it is right.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pluralign import load
from pluralign.policy import Policy
from pluralign.records import Messages, Preference, messages
from pluralign.scoring.layout import Scored
from pluralign.terms import Term

__all__ = ["RewardModel", "train_reward_model"]

SOURCES = ("hh_rlhf/helpful.jsonl.gz", "hh_rlhf/harmless_base.jsonl.gz", "ultrafeedback_slice/clean_1000.jsonl.gz")
MOST = 1500  # pairs a source
PENALTIES = (1.0, 10.0, 100.0, 1000.0)


@dataclass
class RewardModel:
    """Scores responses; higher is better. `about` says what it was trained on and how often it is right."""

    policy: Policy
    weight: np.ndarray
    scale: np.ndarray
    about: dict[str, Any]

    def score(self, prompts: Sequence[Messages], texts: Sequence[str]) -> np.ndarray:
        """(N,) rewards of texts; an empty text gets the end of turn alone as its response."""
        return (features(self.policy, prompts, [messages(t or " .", role="assistant") for t in texts]) / self.scale) @ (
            self.weight
        )


def features(policy: Policy, prompts: Sequence[Messages], responses: Sequence[Messages]) -> np.ndarray:
    """(N, 2 D) mean and last hidden state of each response."""
    terms = [Term("y", (x,), y) for x, y in zip(prompts, responses, strict=True)]
    rendered = [policy.renderer.render([t])[0] for t in terms]
    read = policy.score([Scored(r.context, r.target) for r in rendered], reads=("last_hidden", "mean_hidden"))
    both = [torch.cat([r.mean_hidden[0], r.last_hidden[0]]) for r in read]  # type: ignore[index]
    return torch.stack(both).double().numpy()


def train_reward_model(shared: Path, kept_apart: Iterable[Preference]) -> RewardModel:
    """Train on the shared sources without any first prompt of `kept_apart`; every tenth pair measures it."""
    policy = Policy.load("embedded", rendering={"max_length": 768})
    known = {ex.prompt[0].content.strip().lower() for ex in kept_apart}
    pairs: list[Preference] = []
    for name in SOURCES:
        loaded: Any = load(str(shared / name), kind=Preference, bad_rows="quarantine")
        own = [ex for ex in loaded if ex.prompt[0].content.strip().lower() not in known]
        pairs += own[:MOST]
    prompts = [ex.prompt for ex in pairs]
    delta = features(policy, prompts, [ex.chosen for ex in pairs]) - features(
        policy, prompts, [ex.rejected for ex in pairs]
    )
    test = np.arange(len(pairs)) % 10 == 0
    scale = delta[~test].std(0) + 1e-9
    x, held = delta[~test] / scale, delta[test] / scale
    fits = {penalty: _fit(x[::2], penalty) for penalty in PENALTIES}
    best = max(PENALTIES, key=lambda p: float((x[1::2] @ fits[p] > 0).mean()))
    weight = _fit(x, best)
    right = int((held @ weight > 0).sum())
    about = {"pairs": int((~test).sum()), "held_out": int(test.sum()), "right": right, "penalty": best,
             "sources": list(SOURCES)}  # fmt: skip
    return RewardModel(policy, weight, scale, about)


def _fit(delta: np.ndarray, penalty: float) -> np.ndarray:
    """Minimise mean log(1 + exp(-u . delta)) + penalty |u|^2 / 2N."""
    from scipy.optimize import minimize

    n = len(delta)

    def loss(u: np.ndarray) -> tuple[float, np.ndarray]:
        z = delta @ u
        value = np.logaddexp(0, -z).mean() + penalty * u @ u / (2 * n)
        grad = -(delta * (1 / (1 + np.exp(z)))[:, None]).mean(0) + penalty * u / n
        return value, grad

    return np.asarray(minimize(loss, np.zeros(delta.shape[1]), jac=True, method="L-BFGS-B").x)
