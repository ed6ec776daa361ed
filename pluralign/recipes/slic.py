"""Sequence likelihood calibration."""

from __future__ import annotations

from . import USUAL, Recipe

RECIPE = Recipe(
    name="slic",
    title="Sequence likelihood calibration with human feedback (SLiC-HF)",
    paper="Zhao et al. 2023, arXiv 2305.10425",
    equations=("loss = max(0, delta - log pi(y_w|x) + log pi(y_l|x)) - lambda log pi(y_w|x)",),
    preset={
        "recipe": "slic",
        "objective": {"name": "slic", "hinge_margin": 1.0, "nll_weight": 0.1},
        "training": USUAL,
    },
    needs="Pairs: prompt, chosen, rejected; a fine-tuned model. No reference is kept.",
    note="The loss is the paper's, with the chosen response as the regulariser's target. delta 1.0 and lambda 0.1 on "
    "whole responses, learning rate and schedule are ours. The grid holds what SimPO's authors searched for this "
    "baseline. objective.name=slic_norm is the hinge on log-ratios to a reference, another loss.",
    grid={"objective.hinge_margin": (0.1, 0.5, 1.0, 2.0), "objective.nll_weight": (0.1, 0.5, 1.0, 10.0)},
)
