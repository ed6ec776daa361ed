"""Robust DPO (rDPO)."""

from __future__ import annotations

from . import USUAL, Recipe

RECIPE = Recipe(
    name="robust",
    title="Robust DPO: unbiased under a known rate of flipped labels",
    paper="Chowdhury et al. 2024, arXiv 2403.00409",
    equations=(
        "rho = h(y_w) - h(y_l), h(y) = log pi(y|x) - log pi_ref(y|x)",
        "loss = (-(1 - eps) log sigma(beta rho) + eps log sigma(-beta rho)) / (1 - 2 eps)",
    ),
    preset={
        "recipe": "robust",
        "objective": {"name": "robust", "beta": 0.1, "label_smoothing": 0.1},
        "training": {**USUAL, "best_metric": "accuracy"},
    },
    needs="Pairs: prompt, chosen, rejected; a fine-tuned model, which is its own reference. The rate of flipped "
    "labels eps must be known, or estimated from below.",
    note="The loss is the paper's; eps 0.1 is the rate it is commonly run with. The loss of one pair has no lower "
    "bound, so the checkpoint is picked by held-out accuracy, not by the loss (ours). Never give an eps above the "
    "true one. Learning rate and schedule are those common for DPO.",
)
