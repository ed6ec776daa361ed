"""Supervised fine-tuning: the first half of most pipelines, and the honest baseline of every method."""

from __future__ import annotations

from . import Recipe

RECIPE = Recipe(
    name="sft",
    title="Supervised fine-tuning on responses",
    paper="maximum likelihood; no one paper",
    equations=("loss = -(1/T) sum_t log pi(y_t | x, y_<t), T response tokens of the whole step",),
    preset={
        "recipe": "sft",
        "objective": {"name": "sft"},
        "rendering": {"max_length": 2048},
        "training": {
            "learning_rate": 2e-5,
            "batch_size": 64,
            "epochs": 1,
            "schedule": "cosine",
            "min_lr_ratio": 0.0,
            "warmup": 0.1,
        },
    },
    needs="A prompt and a response a row. Pairs and rankings work too: the chosen or best response is imitated.",
    note="Rate, schedule and batch size are those in common use for models of 1 to 10 billion parameters; one of a few "
    "million wants about ten times the rate. Only response tokens and the end of the turn count, and every token of a "
    "step weighs the same, however the step is split.",
)
