"""Weighted preference optimisation."""

from __future__ import annotations

from . import USUAL, Recipe

RECIPE = Recipe(
    name="wpo",
    title="Weighted preference optimisation: off-policy pairs as if on-policy",
    paper="Zhou et al. 2024, arXiv 2406.11827, Eq. 2, sampled alignment",
    equations=(
        "log w(y) = (1/|y|) sum_t (log pi(y_t|x, y_<t) - log sum_v pi(v|x, y_<t)^2)",
        "loss = -sg(w(y_w) w(y_l)) log sigma(beta (h(y_w) - h(y_l)))",
    ),
    preset={
        "recipe": "wpo",
        "objective": {"name": "wpo", "beta": 0.01},
        "training": {**USUAL, "learning_rate": 1e-6, "batch_size": 128},
    },
    needs="Pairs: prompt, chosen, rejected, from whatever models; a fine-tuned model, which is its own reference.",
    note="The weights are the paper's, per token and by sampled alignment, its better variant. beta and optimiser are "
    "ours, as is common for DPO on instruction data. Weights are low where the policy would not write the data, so "
    "that the same rate moves it less: watch pair_weight. objective.max_weight=1 caps the product.",
)
