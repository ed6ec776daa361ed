"""Kahneman-Tversky optimisation."""

from __future__ import annotations

from . import Recipe

RECIPE = Recipe(
    name="kto",
    title="Kahneman-Tversky optimisation, from thumbs up and down",
    paper="Ethayarajh et al. 2024, arXiv 2402.01306, Eq. 7",
    equations=(
        "h(y) = log pi(y|x) - log pi_ref(y|x), z0 = max(0, mean of h(y') over prompts with another prompt's response)",
        "thumb up: u sigma(-beta (h(y) - z0)), thumb down: v sigma(beta (h(y) - z0))",
    ),
    preset={
        "recipe": "kto",
        "objective": {"name": "kto", "beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.0},
        "training": {
            "learning_rate": 5e-7,
            "batch_size": 32,
            "epochs": 1,
            "schedule": "linear",
            "warmup": 0.1,
        },
    },
    needs="Responses with a thumb up or down, of any prompts. A fine-tuned model, which is its own reference and is "
    "read beside the policy in every step. Steps of at least 4 examples: z0 comes from a step's responses, each under "
    "another prompt.",
    note="The loss is the paper's. beta 0.1 and weights of 1 are its code's defaults; rate and batch size are from "
    "the range that TRL recommends (5e-7 to 5e-6, 16 to 128), the rest is ours. Where thumbs up are rarer, raise "
    "desirable_weight until weight times number is 1 to 4/3 of that of thumbs down. z0 is one number for the whole "
    "step, over every micro-batch and process (ours; others estimate it in each micro-batch).",
)
