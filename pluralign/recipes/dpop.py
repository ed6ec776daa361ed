"""DPO-Positive."""

from __future__ import annotations

from . import USUAL, Recipe

RECIPE = Recipe(
    name="dpop",
    title="DPO-Positive: the chosen response shall not become less likely",
    paper="Pal et al. 2024, arXiv 2402.13228",
    equations=(
        "rho = h(y_w) - h(y_l), h(y) = log pi(y|x) - log pi_ref(y|x)",
        "loss = -log sigma(beta (rho - lambda max(0, -h(y_w))))",
    ),
    preset={
        "recipe": "dpop",
        "objective": {"name": "dpop", "beta": 0.3, "positive_weight": 50.0},
        "training": USUAL,
    },
    needs="Pairs: prompt, chosen, rejected; a fine-tuned model, which is its own reference. Made for pairs that "
    "differ in few tokens, where DPO lowers both.",
    note="beta 0.3 and lambda 50 are those reported for Smaug. Learning rate, batch size and schedule are ours, as "
    "common for DPO.",
)
