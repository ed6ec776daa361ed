"""Our settings as transformers' TrainingArguments."""

from __future__ import annotations

import math
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..errors import PluralignError, SettingsError
from ..policy import Policy
from .settings import Settings

__all__ = ["training_arguments"]

OPTIMIZERS = {"adamw": "adamw_torch_fused", "rmsprop": "rmsprop", "sgd": "sgd"}
SCHEDULES = {"linear": "linear", "cosine": "cosine_with_min_lr", "constant": "constant_with_warmup"}
TRACKERS = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio"}


def training_arguments(
    settings: Settings, output: Path, policy: Policy, rows: int, validates: bool, *, whole_batches: bool = False
) -> Any:
    """TrainingArguments for a run over `rows` examples. Raises SettingsError where a number cannot work out.

    `whole_batches`: leave out what is left of an epoch after its last whole batch (other rows each time).
    """
    from transformers import TrainingArguments

    t = settings.training
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if t.batch_size % world:
        raise SettingsError(f"training.batch_size {t.batch_size} cannot be split over {world} processes evenly.")
    per_epoch = max(1, math.ceil(rows / t.batch_size))
    total = t.max_steps if t.max_steps > 0 else math.ceil(per_epoch * t.epochs)
    eval_steps = _steps(t.eval_every, per_epoch, total)
    save_steps = _steps(t.save_every, per_epoch, total)
    best = validates and t.best_metric != "none" and eval_steps > 0
    if best:
        save_steps = eval_steps  # only what was saved can be the best that is kept
    options: dict[str, Any] = {}
    if t.schedule == "cosine":
        options["lr_scheduler_kwargs"] = {"min_lr_rate": t.min_lr_ratio}
    if t.gradient_checkpointing:
        known = {f.name for f in fields(TrainingArguments)}  # renamed on the way to transformers 6
        name = "activation_checkpointing" if "activation_checkpointing" in known else "gradient_checkpointing"
        options |= {name: True, f"{name}_kwargs": {"use_reentrant": False}}
    if best:
        metric = "loss" if t.best_metric == "auto" else t.best_metric.removeprefix("eval_")
        options |= {
            "load_best_model_at_end": True,
            "metric_for_best_model": f"eval_{metric}",
            "greater_is_better": metric not in ("loss", "kl", "nll_per_token"),
        }
    return TrainingArguments(
        output_dir=str(output / "checkpoints"),
        per_device_train_batch_size=t.batch_size // world,
        gradient_accumulation_steps=1,  # a step is split by tokens, not by count
        num_train_epochs=t.epochs,
        max_steps=t.max_steps,
        learning_rate=t.learning_rate,
        lr_scheduler_type=SCHEDULES[t.schedule],
        warmup_steps=t.warmup if t.warmup >= 1 else math.ceil(t.warmup * total),
        optim=OPTIMIZERS[t.optimizer],
        weight_decay=t.weight_decay,
        adam_beta1=t.adam_betas[0],
        adam_beta2=t.adam_betas[1],
        max_grad_norm=t.clip,
        bf16=policy.precision == "bf16",
        use_cpu=policy.device.type == "cpu",
        eval_strategy="steps" if validates and eval_steps else "no",
        eval_steps=eval_steps or None,
        save_strategy="steps" if save_steps else "no",
        save_steps=save_steps or 500,
        save_total_limit=t.keep_checkpoints + (1 if best else 0),
        logging_steps=t.log_every,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to=_trackers(t.track),
        remove_unused_columns=False,
        dataloader_num_workers=0,
        dataloader_drop_last=whole_batches and rows >= t.batch_size,
        seed=settings.seed,
        data_seed=settings.seed,
        full_determinism=False,
        ddp_find_unused_parameters=False,
        **options,
    )


def _steps(every: float, per_epoch: int, total: int) -> int:
    """A part of an epoch (below or equal to 1) or a number of steps, at least 1 and at most the whole run; 0: never."""
    if not every:
        return 0
    steps = round(every * per_epoch) if every <= 1 else round(every)
    return min(max(1, steps), total)


def _trackers(names: str) -> list[str]:
    wanted = [n.strip() for n in names.split(",") if n.strip() not in ("", "none")]
    for name in wanted:
        if name not in TRACKERS:
            raise SettingsError(f'unknown tracker "{name}".', remedy=f"Known: {', '.join(TRACKERS)}.")
        try:
            __import__(name)
        except ImportError:
            raise PluralignError(f"training.track={name} needs {name}.", remedy=f"pip install {name}") from None
    return [TRACKERS[n] for n in wanted] or ["none"]
