"""Two optimisers as one: the policy's and the intention module's, each with its own kind and learning rate (A-IPO)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

__all__ = ["Joint"]


class Joint(torch.optim.Optimizer):
    """Steps several optimisers together. Schedulers see all parameter groups; states are saved side by side."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = list(parts)
        self.defaults: dict[str, Any] = {}
        self._optimizer_step_pre_hooks = self.parts[0]._optimizer_step_pre_hooks
        self._optimizer_step_post_hooks = self.parts[0]._optimizer_step_post_hooks

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        return [group for part in self.parts for group in part.param_groups]

    @property
    def state(self) -> dict[Any, Any]:  # type: ignore[override]
        return {key: value for part in self.parts for key, value in part.state.items()}

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of each."""
        loss = None if closure is None else closure()
        for part in self.parts:
            part.step()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, own in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(own)
