"""SteerLM."""

from __future__ import annotations

from . import Recipe

RECIPE = Recipe(
    name="steerlm",
    title="Attribute-conditioned fine-tuning (SteerLM, steps 3 and 4)",
    paper="Dong et al. 2023, arXiv 2310.05344",
    equations=(
        "c = \"quality:4,toxicity:0,...\", the response's own attributes, after the assistant's header",
        "loss = -(1/T) sum_t log pi(y_t | x, c, y_<t)",
    ),
    preset={
        "recipe": "steerlm",
        "objective": {"name": "sft"},
        "data": {"responses": "all"},
        "scores": {"show": "own", "wording": "steerlm", "normal": "none"},
        "rendering": {"max_length": 4096},
        "training": {
            "learning_rate": 6e-6,
            "batch_size": 128,
            "epochs": 1,
            "schedule": "cosine",
            "min_lr_ratio": 0.83,
            "warmup": 0.1,
        },
    },
    needs="Responses with attributes on a scale of 0 to 4, rated by people or by the attribute model of step 1 "
    "(objective=rating). scores.attributes fixes their order, the same in training and at inference; one that a "
    "response lacks is left out of its line.",
    note="Rate (6e-6 down to 5e-6), batch and length are those of NVIDIA's guide for a model of 70 billion "
    "parameters, whose run is 800 steps long; one of a few million wants a far higher rate. Attributes are rounded to "
    "whole numbers. Step 4, sampling under the best attributes and training once more on what is rated anew, is "
    "`pluralign rounds --goals best --keep-quantile 0`. The guide decodes greedily (temperature 0).",
)
