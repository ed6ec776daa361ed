"""Pluralign's own trainer on one workload, in a process of its own; prints one JSON object as its last line.

`AlignTrainer` with the `dpo` objective is given the workload's ids as rendered examples; settings that both sides
have (optimiser, clipping, schedule, order of the data, no saving or logging) are those of the rival's side.
Reference log-probs are precomputed by the trainer's own `prepare_reference`, in the layout and precision of training.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import meters
import pyarrow as pa
import torch
import workloads
from transformers import TrainingArguments

from pluralign.conditioning import STRATEGIES, Conditioning
from pluralign.objectives import OBJECTIVES
from pluralign.scoring.reference import ReadingStore
from pluralign.scoring.support import keep_memory
from pluralign.training.examples import SCHEMA, Examples
from pluralign.training.goal import Goal
from pluralign.training.trainer import AlignTrainer

TERMS = {"w": "policy", "l": "policy", "ref_w": "reference", "ref_l": "reference", "w|": "policy", "l|": "policy"}
SEPARATOR = workloads.UNKNOWN  # no word of a pair


class Recorded(AlignTrainer):
    """Our trainer, keeping the loss of every step (a detached scalar; nothing else changes)."""

    def __init__(self, **kwargs: Any) -> None:
        self.step_losses: list[torch.Tensor] = []
        super().__init__(**kwargs)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        self.step_losses.append(loss)
        return loss


def examples(pairs: Sequence[workloads.Pair], strategy: str) -> Examples:
    """The pairs as the rows that rendering would have written: contexts, two targets, four or six terms."""
    rows = []
    for i, pair in enumerate(pairs):
        shown = [pair.rejected, pair.rejected if strategy == "one-sided" else pair.chosen]
        rows.append(
            {
                "contexts": [list(pair.prompt), *([*pair.prompt, *other[:-1], SEPARATOR] for other in shown)],
                "targets": [list(pair.chosen), list(pair.rejected)],
                "scored": [[], []],
                "terms": [0, 0, 0, 1, 0, 1, 2, 0, 0, 3, 0, 1, 4, 1, 0, 5, 2, 1],  # name, context, target
                "inserted": [0, *(len(other) for other in shown)],
                "marks": [-1, -1, -1],
                "columns": [],
                "values": [],
                "aside": [],
                "weight": 1.0,
                "where": f"pair {i}",
            }
        )
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    return Examples(Path(os.devnull), tuple(TERMS), tuple(TERMS.values()), table=table)


def arguments(precision: str, folder: str, learning_rate: float) -> TrainingArguments:
    return TrainingArguments(
        output_dir=folder,
        use_cpu=not torch.cuda.is_available(),
        bf16=precision == "bf16-autocast",
        per_device_train_batch_size=workloads.BATCH,
        num_train_epochs=1,
        learning_rate=learning_rate,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        optim="adamw_torch_fused",
        train_sampling_strategy="sequential",
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=workloads.SEED,
    )


@contextlib.contextmanager
def as_reference(model: Any) -> Any:
    model.eval()
    with torch.no_grad():
        yield model
    model.train()


def step_times(
    workload: str,
    precision: str,
    layout: str,
    *,
    steps: int,
    perturbed: bool,
    learning_rate: float,
    token_budget: int,
    conditioning: str,
) -> dict[str, Any]:
    """Train for one warm-up step and `steps` timed ones; the JSON object of this side."""
    keep_memory()  # as loading a policy does
    pairs = workloads.schedule(workloads.make_pairs(workload), steps)
    model = workloads.make_model(precision, perturbed=perturbed)
    how = Conditioning(conditioning.removesuffix("-constant"), context_gradient=not conditioning.endswith("-constant"))
    base = meters.resident()
    clock = meters.StepClock()
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        trainer = Recorded(
            model=model,
            args=arguments(precision, folder, learning_rate),
            goal=Goal(OBJECTIVES["dpo"], {"beta": workloads.BETA}, how),
            train=examples(pairs, how.strategy),
            validation=None,
            layout=layout,
            token_budget=token_budget,
            stores={"train": ReadingStore(Path(folder) / "reference", "bench", len(pairs))},
            reference_model=lambda: as_reference(workloads.make_model(precision) if perturbed else model),
            live_reference=contextlib.nullcontext,
            callbacks=[clock],
        )
        trainer.prepare_reference()
        prepared = time.perf_counter() - begun
        covers = "training" if meters.reset_peak() else "the whole process"
        trainer.train()
    losses = [float(loss) for loss in trainer.step_losses]
    return meters.result(
        "pluralign",
        workload,
        precision,
        layout=layout,
        perturbed=perturbed,
        learning_rate=learning_rate,
        token_budget=token_budget,
        prepare_seconds=prepared,
        conditioning=conditioning,
        **meters.summary(clock, losses, batch=workloads.BATCH, base_mib=base, peak_covers=covers),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=workloads.WORKLOADS, required=True)
    parser.add_argument("--precision", choices=workloads.PRECISIONS, required=True)
    parser.add_argument("--layout", choices=("trie", "rows"), default="trie")
    parser.add_argument("--steps", type=int, default=workloads.PAIRS // workloads.BATCH)
    parser.add_argument("--perturbed", action="store_true", help="a policy that differs from its reference")
    parser.add_argument("--learning-rate", type=float, default=1e-6)
    parser.add_argument("--conditioning", choices=(*STRATEGIES, "cross-constant"), default="none")
    parser.add_argument("--token-budget", type=int, default=8192, help="tokens of one forward pass")
    print(json.dumps(step_times(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
