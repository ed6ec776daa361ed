"""What the kept exponentials and the narrowed last layer save of one DPO step: products counted, processor time paired.

    python bench/savings.py --workload hh long --pairs 8 --turns 12

The products are counted by torch (`aten.mm` of forward and backward; attention is not in it) and are the same anywhere.
The times are processor time of this process, so that a busy machine disturbs them less than a clock on the wall; every
turn runs all variants on one batch, the order alternates, and ratios are formed within a turn.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch
import torch.nn.functional as F
import workloads
from torch.utils.flop_counter import FlopCounterMode

from pluralign.scoring import forward as passes
from pluralign.scoring import logprobs
from pluralign.scoring.forward import autocast
from pluralign.scoring.last_layer import narrow
from pluralign.scoring.layout import Layout, Scored, lay_trie
from pluralign.scoring.support import keep_memory

KEPT = logprobs.KEPT_BYTES
VARIANTS = {"neither": (0, False), "kept": (KEPT, False), "narrowed": (0, True), "both": (KEPT, True)}


def choose(variant: str) -> None:
    kept, narrowed = VARIANTS[variant]
    logprobs.KEPT_BYTES = kept
    passes.narrow = narrow if narrowed else lambda model, kind, layout, reads: layout


def step(model: Any, optimizer: torch.optim.Optimizer, layout: Layout, precision: str) -> None:
    with autocast(precision, "cpu"):
        sums = passes.forward(model, layout).sum.view(-1, 2)
        loss = -F.logsigmoid(workloads.BETA * (sums[:, 0] - sums[:, 1])).mean()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


def measure(workload: str, precision: str, pairs: int, turns: int) -> None:
    model = workloads.make_model("fp32", perturbed=True).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, weight_decay=0.0, fused=True)
    layouts = [
        lay_trie([Scored(p.prompt, y) for p in batch for y in (p.chosen, p.rejected)])
        for batch in workloads.batches(workloads.make_pairs(workload), pairs)
    ]
    for variant in VARIANTS:
        choose(variant)
        with FlopCounterMode(display=False) as counter:
            step(model, optimizer, layouts[0], precision)
        print(
            f"{workload:5} {precision} {variant:9} {counter.get_total_flops() / 1e9:8.1f} GFLOP of products", flush=True
        )
    times: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    for turn in range(turns):
        for variant in list(VARIANTS)[:: 1 if turn % 2 == 0 else -1]:
            choose(variant)
            begun = time.process_time()
            step(model, optimizer, layouts[turn % len(layouts)], precision)
            times[variant].append(time.process_time() - begun)
    for variant in VARIANTS if turns > 1 else ():
        ratios = [a / b for a, b in zip(times[variant], times["neither"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        seconds = statistics.median(times[variant])
        print(
            f"{workload:5} {precision} {variant:9} {seconds:7.2f} s of processor time, "
            f"of neither's {middle:.3f} (quartiles {low:.3f} to {high:.3f}, n = {turns})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", nargs="+", choices=workloads.WORKLOADS, default=["hh"])
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--pairs", type=int, default=workloads.BATCH, help="pairs of a step")
    parser.add_argument("--turns", type=int, default=12, help="timed turns; 0 counts only")
    settings = parser.parse_args()
    keep_memory()
    for workload in settings.workload:
        measure(workload, settings.precision, settings.pairs, settings.turns)


if __name__ == "__main__":
    main()
