"""Odds ratio preference optimisation."""

from __future__ import annotations

from . import Recipe

RECIPE = Recipe(
    name="orpo",
    title="Odds ratio preference optimisation: one stage, no reference",
    paper="Hong, Lee, Thorne 2024, arXiv 2403.07691, Eq. 6 and 7",
    equations=(
        "p(y) = exp(log pi(y|x) / |y|), odds(y) = p(y) / (1 - p(y))",
        "loss = -log p(y_w) - lambda log sigma(log odds(y_w) - log odds(y_l))",
    ),
    preset={
        "recipe": "orpo",
        "objective": {"name": "orpo", "odds_weight": 0.1},
        "rendering": {"max_length": 2048},
        "training": {
            "learning_rate": 5e-6,
            "batch_size": 32,
            "epochs": 5,
            "schedule": "linear",
            "warmup": 200,
        },
    },
    needs="Pairs: prompt, chosen, rejected; a base model or a fine-tuned one. No reference is kept.",
    note="lambda, learning rate, 200 steps of warm-up, 5 epochs and 32 pairs a step are those of the authors' script "
    "for Mistral-ORPO-beta, which starts from a base model; its inverse-square-root schedule is linear here. The "
    "likelihood is of response tokens; the authors and TRL add the prompt's. The grid holds what SimPO's authors "
    "searched for this baseline.",
    grid={"objective.odds_weight": (0.1, 0.5, 1.0, 2.0)},
)
