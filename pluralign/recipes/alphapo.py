"""SimPO with another shape of reward."""

from __future__ import annotations

from . import Recipe

RECIPE = Recipe(
    name="alphapo",
    title="SimPO with another shape of reward (AlphaPO)",
    paper="Gupta et al. 2025, arXiv 2501.03884",
    equations=(
        "p(y) = exp(log pi(y|x) / |y|), s(y) = (1 - p(y)^-a) / a",
        "loss = -log sigma(beta (s(y_w) - s(y_l)) - gamma)",
    ),
    preset={
        "recipe": "alphapo",
        "objective": {"name": "alphapo", "beta": 2.0, "gamma": 0.5, "shape_alpha": 0.25},
        "rendering": {"max_length": 2048},
        "training": {
            "learning_rate": 1e-6,
            "batch_size": 128,
            "epochs": 1,
            "schedule": "cosine",
            "min_lr_ratio": 0.0,
            "warmup": 0.1,
        },
    },
    needs="Pairs: prompt, chosen, rejected; a fine-tuned model. No reference is kept.",
    note="The loss is the paper's. a 0.25 is ours, beta, gamma and the training settings are those of recipe=simpo, "
    "which is a = 0.",
)
