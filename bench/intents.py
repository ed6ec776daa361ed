"""What an intent costs in training: a step of A-IPO beside a step of our own DPO, on the same real pairs.

    python bench/intents.py                          # the embedded model on the shipped pairs
    python bench/intents.py --candidates 1 2 4 --rounds 20

A step is the forward and backward pass of one batch (the optimiser's is the same for both). The sides take turns in one
process; the table gives the median of the paired ratios of processor time with its quartiles, so that other work on the
machine matters little. The intention module is a linear head; lambda, gamma and L_i are on.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch

from pluralign.conditioning import Conditioning, intended
from pluralign.data import load
from pluralign.heads.intent import attach_intention
from pluralign.intention import IntentForm
from pluralign.objectives import find
from pluralign.policy import EMBEDDED, Policy
from pluralign.records import Preference
from pluralign.scoring.forward import autocast
from pluralign.scoring.support import choose_layout
from pluralign.terms import Plan, pair
from pluralign.training.batch import Collator, Micro
from pluralign.training.examples import render_examples
from pluralign.training.goal import Goal, observe
from pluralign.training.intent_goal import IntentGoal

NAMES = ("advice on health", "a recipe for dinner", "help with a machine", "something to read", "a plan for a trip")


def batches(policy: Policy, plan: Plan, goal: Goal, records: Sequence[Preference], size: int) -> list[list[Micro]]:
    """The micro-batches of every step; reference readings are zeros: they are read from a cache, whatever they are."""
    examples = render_examples(records, plan, policy.renderer)
    layout = choose_layout(policy.model, max_length=policy.renderer.max_length)[0]
    reference = {n: np.zeros(len(examples), np.float32) for n in examples.named("reference")}
    intents = goal.intents is not None
    collator = Collator(examples.named("policy"), layout, 8192, reference, intents=intents)
    rows = list(examples)
    return [list(collator(rows[i : i + size]).micro) for i in range(0, len(rows) - size + 1, size)]


def step(policy: Policy, goal: Goal, micros: Sequence[Micro]) -> float:
    """Seconds of processor time of one step."""
    live: Callable[[], Any] = lambda: contextlib.nullcontext(policy.model)
    begun = time.process_time()
    for micro in micros:
        with autocast(policy.precision, policy.device):
            outcome = goal.outcome(observe(policy.model, micro, goal, live), goal.views())
        (outcome.loss.sum() / 16).backward()
    taken = time.process_time() - begun
    policy.model.zero_grad()
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--candidates", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--batch", type=int, default=16)
    given = parser.parse_args()
    policy = Policy.load(given.model, rendering={"max_length": 512})
    form = IntentForm(NAMES)
    attach_intention(policy.model, "intent", len(NAMES))
    source = EMBEDDED.parent / "pairs" / "train.jsonl.gz"
    records = [
        r for r in islice(load(source, kind=Preference), given.batch * given.rounds) if isinstance(r, Preference)
    ]
    plain = Goal(find("dpo"), {}, Conditioning())
    sides: list[tuple[str, Goal, list[list[Micro]]]] = [
        ("DPO", plain, batches(policy, pair, plain, records, given.batch))
    ]
    for k in given.candidates:
        goal = Goal(find("dpo"), {}, Conditioning(), intents=IntentGoal(
            k, "fixed" if k == 1 else "posterior", similarity=0.2, kl=0.01, classify=1.0,
        ))  # fmt: skip
        shares = [(i, 1 / k) for i in range(k)]
        plan = intended(pair, form, lambda _, shares=shares: shares)  # type: ignore[misc]
        sides.append((f"A-IPO, K = {k}", goal, batches(policy, plan, goal, records, given.batch)))
    policy.model.train()
    for _, goal, each in sides:
        step(policy, goal, each[0])  # warm
    taken = np.array([[step(policy, goal, each[i]) for _, goal, each in sides] for i in range(len(sides[0][2]))])
    tokens = [sum(m.layout.tokens for ms in each for m in ms) for _, _, each in sides]
    print(f"{policy.name}, {policy.precision}, {torch.get_num_threads()} threads, {len(taken)} steps of {given.batch}")
    print("side          tokens / DPO's  processor time / DPO's (quartiles)")
    for j, (name, _, _) in enumerate(sides):
        ratio = np.quantile(taken[:, j] / taken[:, 0], [0.5, 0.25, 0.75])
        print(
            f"{name:12s}  {tokens[j] / tokens[0]:14.3f}  {ratio[0]:.3f} ({ratio[1]:.3f} to {ratio[2]:.3f})", flush=True
        )


if __name__ == "__main__":
    main()
