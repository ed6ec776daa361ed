"""What of a run is saved and loaded besides transformers' own: our heads, and what an objective carries on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer

from ..heads.regression import load_heads, save_heads, take_heads, without_heads
from .goal import Goal

__all__ = ["Checkpoints", "keep_readings_whole"]

RUNNING = "running.json"  # what an objective carries from step to step, in every checkpoint


class Checkpoints(Trainer):
    """transformers' Trainer whose checkpoints stay plain, with ours in files beside the weights."""

    goal: Goal

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.goal.running and self.accelerator.is_main_process:
            (Path(output_dir) / RUNNING).write_text(json.dumps(self.goal.running))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """A checkpoint that transformers and peft can read, and our heads beside it."""
        folder = Path(output_dir or str(self.args.output_dir))
        whole = None if state_dict is None else dict(state_dict)
        if state_dict is not None:
            take_heads(state_dict)
        with without_heads(self.model):
            super()._save(output_dir, state_dict)
        if self.args.should_save:
            save_heads(self.model, folder, whole)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        with without_heads(self.model):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        load_heads(self.model, Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        self._load_running(checkpoint)

    def _load_best_model(self) -> None:
        with without_heads(self.model):
            super()._load_best_model()
        best = self.state.best_model_checkpoint
        if best is not None:
            load_heads(self.model, Path(best))
        self._load_running(best)

    def _load_running(self, checkpoint: str | None) -> None:
        if checkpoint is not None and (Path(checkpoint) / RUNNING).is_file():
            self.goal.running = json.loads((Path(checkpoint) / RUNNING).read_text())


def keep_readings_whole(accelerator: Any) -> None:
    """accelerate has FSDP2 cast a model's output to bf16: log-probs would come back with eight significant bits."""
    plugin: Any = getattr(accelerator.state, "fsdp_plugin", None)
    policy: Any = getattr(plugin, "mixed_precision_policy", None)
    if getattr(plugin, "fsdp_version", 1) == 2 and getattr(policy, "output_dtype", None) is not None:
        from torch.distributed.fsdp import MixedPrecisionPolicy

        plugin.mixed_precision_policy = MixedPrecisionPolicy(param_dtype=policy.param_dtype, reduce_dtype=torch.float32)
