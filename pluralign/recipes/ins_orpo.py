"""INS-ORPO: ORPO whose policy sees the other response."""

from __future__ import annotations

from . import Recipe
from .inspo import NEEDS, NOTE, PAPER, preset

RECIPE = Recipe(
    name="ins_orpo",
    title="InSPO with ORPO's odds ratio (INS-ORPO)",
    paper=f"{PAPER}, Table 1",
    equations=(
        "loss = -log p(y_w|y_l,x) - lambda log sigma(logit p(y_w|y_l,x) - logit p(y_l|y_w,x)), p = exp(log pi / |y|)",
    ),
    preset=preset("ins_orpo", {"name": "orpo", "odds_weight": 0.1}),
    needs=NEEDS.replace(", which is its own reference", "; no reference is kept"),
    note=f"{NOTE} The likelihood term is conditioned too, as Table 1 prints it.",
    grid={"objective.odds_weight": (0.1, 0.5, 1.0)},
)
