"""Rewards-in-context."""

from __future__ import annotations

from . import Recipe

RECIPE = Recipe(
    name="ric",
    title="Rewards-in-context: fine-tuning on prompts that state the response's scores (RiC)",
    paper="Yang et al. 2024, arXiv 2402.10207",
    equations=(
        "x' = x + \" <rm1_score> s_1 <rm2_score> s_2 ...\", s_k the response's z-score on attribute k, one decimal",
        "loss = -(1/T) sum_t log pi(y_t | x', y_<t)",
    ),
    preset={
        "recipe": "ric",
        "objective": {"name": "sft"},
        "data": {"responses": "all"},
        "scores": {"show": "own", "wording": "ric", "normal": "z"},
        "lora": {"rank": 64, "alpha": 128, "dropout": 0.05},
        "training": {
            "learning_rate": 1.414e-4,
            "batch_size": 8,
            "epochs": 1,
            "schedule": "linear",
            "warmup": 0,
        },
    },
    needs="Responses with attribute scores: pairs, rankings or demonstrations; good and bad ones are imitated alike, "
    "each under its own scores. `pluralign curate --steps score` scores a set with reward models.",
    note="The offline stage: rate, linear schedule, batch (2, accumulated 4 times) and adapter are the authors'; they "
    "take 20,000 steps (training.max_steps=20000) of an 8-bit Llama-2-7B (lora.quantize=8bit). A z-score is over the "
    "training rows. The online stage, 2 rounds of 4,000 steps at a constant 1e-5, is `pluralign rounds` "
    "(training.max_steps=4000), which keeps the scales. At inference "
    "steering.goals.target_scores turns a weighting of attributes into scores to ask for.",
)
