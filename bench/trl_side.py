"""TRL's `DPOTrainer` on one workload, in a process of its own; prints one JSON object as its last line.

TRL tokenises text itself, so it is given words that its own path maps one-to-one to the workload's ids, and the ids
it arrives at are compared with them before anything is timed.

Its settings are the fastest it has on a processor: reference log-probs precomputed, no gradient checkpointing, SDPA,
fused AdamW, no logging, saving or evaluation. `padding_free` is inert in TRL 1.16 (it warns and is ignored).

`--head response` is no setting of TRL's. Its chunked language-model head scores response positions only where Triton
runs; on a processor it scores every position of every row, padding included. That switch is turned here by hand, to
tell how much of a difference is due to it.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

import meters
import torch
import trl.trainer.utils
import workloads
from datasets import Dataset
from datasets.utils.logging import disable_progress_bar
from trl import DPOConfig, DPOTrainer


class Recorded(DPOTrainer):
    """TRL's trainer, keeping the loss of every step (a detached scalar; nothing else changes)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.step_losses: list[torch.Tensor] = []
        super().__init__(*args, **kwargs)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        self.step_losses.append(loss)
        return loss


def configuration(precision: str, folder: str, *, learning_rate: float, compiled: bool) -> DPOConfig:
    return DPOConfig(
        output_dir=folder,
        use_cpu=not torch.cuda.is_available(),
        bf16=precision == "bf16-autocast",
        per_device_train_batch_size=workloads.BATCH,
        num_train_epochs=1,
        learning_rate=learning_rate,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_length=None,
        beta=workloads.BETA,
        precompute_ref_log_probs=True,
        gradient_checkpointing=False,
        torch_compile=compiled,
        optim="adamw_torch_fused",
        train_sampling_strategy="sequential",
        dataloader_pin_memory=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=workloads.SEED,
    )


def check_ids(trainer: DPOTrainer, pairs: Sequence[workloads.Pair]) -> None:
    """Raises ValueError unless TRL's own preparation arrived at exactly the ids of the workload, row by row."""
    rows = trainer.train_dataset
    if len(rows) != len(pairs):
        raise ValueError(f"TRL kept {len(rows)} of {len(pairs)} pairs.")
    for i, (row, pair) in enumerate(zip(rows, pairs, strict=True)):
        found = tuple(row["prompt_ids"]), tuple(row["chosen_ids"]), tuple(row["rejected_ids"])
        if found != (pair.prompt, pair.chosen, pair.rejected):
            raise ValueError(f"pair {i}: TRL's token ids differ from the workload's.")


def run(workload: str, precision: str, *, steps: int, perturbed: bool, head: str, **settings: Any) -> dict[str, Any]:
    """Train for one warm-up step and `steps` timed ones; the JSON object of this side."""
    disable_progress_bar()
    if head == "response":
        trl.trainer.utils._use_triton = lambda device: True
    pairs = workloads.schedule(workloads.make_pairs(workload), steps)
    model = workloads.make_model(precision, perturbed=perturbed)
    base = meters.resident()
    clock = meters.StepClock()
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        trainer = Recorded(
            model=model,
            ref_model=workloads.make_model(precision) if perturbed else None,
            args=configuration(precision, folder, **settings),
            train_dataset=Dataset.from_list([workloads.as_text(pair) for pair in pairs]),
            processing_class=workloads.word_tokenizer(),
            callbacks=[clock],
        )
        prepared = time.perf_counter() - begun
        check_ids(trainer, pairs)
        trainer.ref_model = None  # its log-probs are in the data set by now
        covers = "training" if meters.reset_peak() else "the whole process"
        trainer.train()
    losses = [float(loss) for loss in trainer.step_losses]
    return meters.result(
        "trl",
        workload,
        precision,
        head=head,
        perturbed=perturbed,
        **settings,
        prepare_seconds=prepared,
        **meters.summary(clock, losses, batch=workloads.BATCH, base_mib=base, peak_covers=covers),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=workloads.WORKLOADS, required=True)
    parser.add_argument("--precision", choices=workloads.PRECISIONS, required=True)
    parser.add_argument("--steps", type=int, default=workloads.PAIRS // workloads.BATCH)
    parser.add_argument("--perturbed", action="store_true", help="a policy that differs from its reference")
    parser.add_argument("--head", choices=("all", "response"), default="all", help="positions the head scores")
    parser.add_argument("--learning-rate", type=float, default=1e-6)
    parser.add_argument("--compiled", action="store_true", help="torch_compile=True")
    print(json.dumps(run(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
