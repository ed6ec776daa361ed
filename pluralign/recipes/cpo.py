"""Contrastive preference optimisation."""

from __future__ import annotations

from . import Recipe

RECIPE = Recipe(
    name="cpo",
    title="Contrastive preference optimisation",
    paper="Xu et al. 2024, arXiv 2401.08417",
    equations=("loss = -log sigma(beta (log pi(y_w|x) - log pi(y_l|x))) - c log pi(y_w|x) / |y_w|",),
    preset={
        "recipe": "cpo",
        "objective": {"name": "cpo", "beta": 0.1, "nll_weight": 1.0},
        "lora": {"rank": 16},
        "training": {
            "learning_rate": 0.0001,
            "batch_size": 128,
            "epochs": 1,
            "schedule": "linear",
            "warmup": 0.01,
            "weight_decay": 0.01,
        },
    },
    needs="Pairs: prompt, chosen, rejected; a fine-tuned model. No reference is kept. Made for translation, where a "
    "good and a nearly as good output differ in detail.",
    note="beta, learning rate, weight decay, warm-up and one epoch of a LoRA are those of the authors' script for "
    "ALMA-R; batch size 128 and rank 16 are its paper's; its inverse-square-root schedule is linear here. The "
    "likelihood is per token and weighs pairs alike, where TRL weighs tokens. For all weights take a rate of about "
    "1e-6. The grid holds what SimPO's authors searched for this baseline.",
    grid={"objective.beta": (0.01, 0.05, 0.1)},
)
