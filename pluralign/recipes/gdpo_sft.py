"""The fine-tuning that GDPO starts from."""

from __future__ import annotations

from . import Recipe
from .gdpo import NEEDS, PAPER, TRAINING, beliefs

RECIPE = Recipe(
    name="gdpo_sft",
    title="Fine-tuning on responses that begin with their belief (GDPO's first stage)",
    paper=PAPER,
    equations=("loss = -(1/(|b| + |y_w|)) log pi(b, y_w | x), b the accepted belief's number and text",),
    preset={
        "recipe": "gdpo_sft",
        "objective": {
            "name": "gdpo", "calibration_weight": 0.0, "preference_weight": 0.0, "belief_weight": 0.0,
            "imitation_weight": 1.0,
        },
        "rendering": {"max_length": 1024},
        "training": {**TRAINING, "best_metric": "loss"},
    },
    needs=f"{NEEDS} Any model.",
    note="The same plan as gdpo, so that belief and answer have the same ids in both stages. Each response weighs the "
    "same here (the authors' code weighs tokens). The rejected answer and the reference are read for the metrics only.",
    plan=beliefs,
)  # fmt: skip
