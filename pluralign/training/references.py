"""The reference of a run: the policy as it began, the base under its adapters, or a model of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from ..heads.soft import as_reference, give_start
from ..policy import Policy
from .settings import Settings
from .trainer import AlignTrainer

__all__ = ["load_reference", "reference_context"]


def load_reference(settings: Settings, policy: Policy) -> Policy:
    """The model that the settings name, else what the policy began as, with the vectors that its run began with."""
    found = Policy.load(
        settings.reference or settings.model,
        precision=policy.precision,
        device=str(policy.device),
        trust_remote_code=settings.trust_remote_code,
        rendering=policy.rendering,
    )
    give_start(found.model, policy.model)
    return found


@contextlib.contextmanager
def reference_context(settings: Settings, policy: Policy, trainer: AlignTrainer) -> Iterator[Any]:
    """The reference in evaluation mode: a given model, the base under its adapters, or the untrained policy."""
    model = trainer.whole_model
    if settings.reference is not None or (trainer.state.global_step and not hasattr(policy.model, "disable_adapter")):
        model = load_reference(settings, policy).model
    core = trainer.accelerator.unwrap_model(model)
    training = model.training
    model.eval()
    try:
        with (
            core.disable_adapter() if hasattr(core, "disable_adapter") else contextlib.nullcontext(),
            as_reference(model),
        ):
            yield model
    finally:
        model.train(training)
