"""Rank responses to align human feedback."""

from __future__ import annotations

from . import Recipe

RECIPE = Recipe(
    name="rrhf",
    title="Rank responses to align human feedback, without a reference",
    paper="Yuan et al. 2023, arXiv 2304.05302, section 3",
    equations=(
        "p_i = log pi(y_i|x) / |y_i|",
        "loss = sum over r_i < r_j of max(0, p_i - p_j) - log pi(y_best|x) / |y_best|",
    ),
    preset={
        "recipe": "rrhf",
        "objective": {"name": "rrhf", "rank_weight": 1.0, "nll_weight": 1.0, "nll_average": True},
        "training": {
            "learning_rate": 2e-5,
            "batch_size": 64,
            "epochs": 3,
            "schedule": "cosine",
            "min_lr_ratio": 0.0,
            "warmup": 0.03,
        },
    },
    needs="Two or more responses a prompt, each with a score. No reference is kept.",
    note="Both terms are the paper's; rate 2e-5, three epochs and equal weights are its code's. It prints the "
    "likelihood term as a sum; its code, and this recipe, take it per token (objective.nll_average=false for the "
    "sum). Batch size, schedule and warm-up are ours. Equal scores make no pair.",
)
