"""How much likelier a prompt is among desirable examples, from a policy's own states (BCO, arXiv 2404.04656)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from ..errors import SettingsError
from ..heads.orchestrator import features
from ..objectives.matching import density_weights
from ..records import Labelled

if TYPE_CHECKING:
    from ..policy import Policy

__all__ = ["prompt_densities"]


def prompt_densities(
    policy: Policy, *, low: float = 0.5, high: float = 10.0, token_budget: int = 8192
) -> Callable[[Sequence[Labelled]], list[float]]:
    """A function from labelled records to their weights: 1 for thumbs up, for thumbs down the ratio of densities.

    Prompts are embedded by the policy's last hidden state at their last token; a balanced logistic regression on all
    records gives p(x | up) / p(x | down), clipped to [low, high]. The function raises SettingsError where one of the
    two labels does not occur.
    """

    def weigh(records: Sequence[Labelled]) -> list[float]:
        up = torch.tensor([record.label for record in records])
        states = features(policy, list(records), token_budget=token_budget)
        try:
            return density_weights(states, up, low=low, high=high).tolist()
        except ValueError as error:
            raise SettingsError(f"the step density: {error}") from None

    return weigh
