"""Anchored preference optimisation."""

from __future__ import annotations

from . import Recipe

RECIPE = Recipe(
    name="apo",
    title="Anchored preference optimisation (APO-zero)",
    paper="D'Oosterlinck et al. 2024, arXiv 2408.06266, Eq. 7",
    equations=(
        "h(y) = log pi(y|x) - log pi_ref(y|x)",
        "loss = 1 - sigma(beta h(y_w)) + sigma(beta h(y_l))",
    ),
    preset={
        "recipe": "apo",
        "objective": {"name": "apo_zero", "beta": 0.05},
        "training": {
            "learning_rate": 1e-6,
            "batch_size": 64,
            "epochs": 1,
            "schedule": "cosine",
            "warmup": 0.1,
            "clip": 0.2,
        },
    },
    needs="Pairs: prompt, chosen, rejected; a fine-tuned model, which is its own reference. For chosen responses "
    "better than the model's own; if the model is the better one, objective.name=apo_down.",
    note="The loss is the paper's. beta 0.05, rate 1e-6, one epoch and a gradient norm of 0.2 are those SmolLM3 was "
    "trained with; batch size and schedule are ours.",
)
