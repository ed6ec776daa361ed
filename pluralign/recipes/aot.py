"""Alignment via optimal transport."""

from __future__ import annotations

from . import USUAL, Recipe

RECIPE = Recipe(
    name="aot",
    title="Alignment via optimal transport: better at every quantile",
    paper="Melnyk et al. 2024, arXiv 2406.05882",
    equations=(
        "u = log pi(y_w|x) - log pi(y_l|x), v = log pi_ref(y_w|x) - log pi_ref(y_l|x), each sorted over the step",
        "loss = mean over ranks k of -log sigma(beta (u_(k) - v_(k)))",
    ),
    preset={
        "recipe": "aot",
        "objective": {"name": "aot", "beta": 0.1},
        "training": {**USUAL, "learning_rate": 1e-6, "batch_size": 128},
    },
    needs="Pairs: prompt, chosen, rejected; a fine-tuned model, which is its own reference. Quantiles are those of "
    "one step: the larger it is, the closer they are to those of the data.",
    note="The loss, with a logistic cost, is the paper's; settings are ours, as is common for DPO. Ranks are taken "
    "over the whole optimiser step and every process; others sort each micro-batch, which at a size of one is plain "
    "DPO. objective=aot_unpaired compares the chosen with the rejected and forgets who belongs to whom.",
)
