"""InSPO at the scale of the embedded model: the paper's method with settings that a laptop's processor can run."""

from __future__ import annotations

from . import Recipe
from .inspo import PAPER

RECIPE = Recipe(
    name="inspo_small",
    title="InSPO (INS-DPO) for the embedded model, on a processor",
    paper=f"{PAPER}, Algorithm 1, Eq. 10; the scale is ours",
    equations=("as inspo",),
    preset={
        "recipe": "inspo_small",
        "objective": {"name": "dpo", "beta": 0.1},
        "conditioning": {"strategy": "cross", "style": "separator", "draft_cap": 0.4},
        "rendering": {"max_length": 512},
        "training": {
            "learning_rate": 5e-5,
            "schedule": "cosine",
            "min_lr_ratio": 0.1,
            "warmup": 0.1,
            "batch_size": 16,
            "max_steps": 40,
            "weight_decay": 0.01,
            "best_metric": "none",
        },
    },
    needs="Nothing: the embedded model and the pairs that ship with it. Fine-tune it first (`pluralign align sft`).",
    note="The twin of `inspo` that docs/studies/inspo.md is made with: a rate a hundred times the paper's for a model "
    "a thousand times smaller, 512 tokens, 40 steps of 16 pairs. Everything else is the same.",
    grid={"objective.beta": (0.1, 0.2, 0.3, 0.5)},
)
