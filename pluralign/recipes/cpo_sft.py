"""Controllable preference optimisation, first stage (CPSFT)."""

from __future__ import annotations

from . import Recipe

RECIPE = Recipe(
    name="cpo_sft",
    title="Controllable preference SFT: responses under a prefix with their own ratings (CPSFT)",
    paper="Guo et al. 2024, arXiv 2402.19085",
    equations=(
        'x\' = "<helpfulness: 5> <honesty: 3> " + x, the ratings of y',
        "loss = -(1/T) sum_t log pi(y_t | x', y_<t)",
    ),
    preset={
        "recipe": "cpo_sft",
        "objective": {"name": "sft"},
        "data": {"responses": "all"},
        "scores": {"show": "own", "wording": "cpo", "normal": "none"},
        "rendering": {"max_length": 1024},
        "training": {
            "learning_rate": 1e-5,
            "batch_size": 64,
            "epochs": 3,
            "schedule": "cosine",
            "min_lr_ratio": 0.0,
            "warmup": 0.1,
        },
    },
    needs="Responses with ratings, UltraFeedback for example: scores.attributes names which, [helpfulness, honesty] "
    "in the paper. Every response is imitated under its own.",
    note="Named cpo_sft because cpo is contrastive preference optimisation. Rate and epochs are the paper's, batch "
    "and schedule ours. Ratings are whole numbers as they are in the data, so that a prefix says what an annotator "
    "said. Its second stage is recipe=cdpo_control, in the same words.",
)
