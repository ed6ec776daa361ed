"""The loss that a language model discovered."""

from __future__ import annotations

from . import USUAL, Recipe

RECIPE = Recipe(
    name="discopop",
    title="Log-ratio modulated loss (DiscoPOP)",
    paper="Lu et al. 2024, arXiv 2406.08414, Eq. 5",
    equations=(
        "z = beta (h(y_w) - h(y_l)), m = sigma(z / tau)",
        "loss = (1 - m) log(1 + e^-z) + m e^-z",
    ),
    preset={
        "recipe": "discopop",
        "objective": {"name": "discopop", "beta": 0.05, "tau": 0.05},
        "training": USUAL,
    },
    needs="Pairs: prompt, chosen, rejected; a fine-tuned model, which is its own reference.",
    note="tau is the paper's; beta and the training settings are ours. The loss rises between z = -0.119 and z = "
    "0.072: near the reference its gradient lowers the chosen response, until noise has carried a pair out of there.",
)
