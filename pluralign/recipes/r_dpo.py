"""Length-regularised DPO."""

from __future__ import annotations

from . import USUAL, Recipe

RECIPE = Recipe(
    name="r_dpo",
    title="Length-regularised DPO (R-DPO)",
    paper="Park et al. 2024, arXiv 2403.19159",
    equations=(
        "rho = h(y_w) - h(y_l), h(y) = log pi(y|x) - log pi_ref(y|x)",
        "loss = -log sigma(beta rho + alpha (|y_w| - |y_l|)), lengths in tokens",
    ),
    preset={
        "recipe": "r_dpo",
        "objective": {"name": "r_dpo", "beta": 0.1, "length_alpha": 0.01},
        "training": USUAL,
    },
    needs="Pairs: prompt, chosen, rejected; a fine-tuned model, which is its own reference. For data whose winners "
    "are longer than its losers.",
    note="The sign follows from a reward of quality less alpha |y|: pairs with a longer winner count less. alpha 0.01 "
    "is ours: 100 tokens of difference are one nat. The grid holds what SimPO's authors searched for this baseline; "
    "from alpha 0.05 on, differences of 100 tokens decide a pair by themselves: watch the metric saturated. Learning "
    "rate and schedule are those common for DPO.",
    grid={"objective.length_alpha": (0.05, 0.1, 0.5, 1.0), "objective.beta": (0.01, 0.05, 0.1)},
)
