"""Conservative DPO."""

from __future__ import annotations

from . import USUAL, Recipe

RECIPE = Recipe(
    name="cdpo",
    title="Conservative DPO, with labels that may be wrong",
    paper="Mitchell 2023, A note on DPO with noisy preferences and its relationship to IPO",
    equations=(
        "rho = h(y_w) - h(y_l), h(y) = log pi(y|x) - log pi_ref(y|x)",
        "loss = -(1 - eps) log sigma(beta rho) - eps log sigma(-beta rho)",
    ),
    preset={
        "recipe": "cdpo",
        "objective": {"name": "cdpo", "beta": 0.1, "label_smoothing": 0.1},
        "training": USUAL,
    },
    needs="Pairs: prompt, chosen, rejected; a fine-tuned model, which is its own reference. Made for labels of which "
    "a part, eps, is wrong.",
    note="The note states the loss and no settings. eps 0.1 stops the gap at beta rho = 2.2; learning rate and "
    "schedule are those common for DPO. If the rate of wrong labels is known, recipe=robust has the unbiased form.",
)
