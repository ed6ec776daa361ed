"""Noise contrastive alignment."""

from __future__ import annotations

from . import Recipe

RECIPE = Recipe(
    name="nca",
    title="Noise contrastive alignment on pairs",
    paper="Chen et al. 2024, arXiv 2402.05369",
    equations=(
        "v(y) = beta (log pi(y|x) - log pi_ref(y|x))",
        "loss = -log sigma(v(y_w)) - (log sigma(-v(y_w)) + log sigma(-v(y_l))) / 2",
    ),
    preset={
        "recipe": "nca",
        "objective": {"name": "nca", "beta": 0.01},
        "rendering": {"max_length": 1024},
        "lora": {"rank": 16, "alpha": 16.0, "dropout": 0.05},
        "training": {
            "learning_rate": 5e-6,
            "batch_size": 32,
            "epochs": 1,
            "schedule": "cosine",
            "warmup": 0.1,
        },
    },
    needs="Pairs: prompt, chosen, rejected; a fine-tuned model, which is its own reference. Scored lists of "
    "responses: objective.name=nca_list.",
    note="All settings are those of the authors' script for Mistral-7B on UltraFeedback, which trains a LoRA of rank "
    "16 on a 4-bit base: lora.quantize=4bit for the same. With all weights a rate of 5e-7 is the safer one.",
)
