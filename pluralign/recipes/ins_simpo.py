"""INS-SimPO: SimPO whose policy sees the other response."""

from __future__ import annotations

from . import Recipe
from .inspo import NEEDS, NOTE, PAPER, preset

RECIPE = Recipe(
    name="ins_simpo",
    title="InSPO with SimPO's length-normalised margin (INS-SimPO)",
    paper=f"{PAPER}, Table 1",
    equations=("loss = -log sigma(beta log pi(y_w|x,y_l)/|y_w| - beta log pi(y_l|x,y_w)/|y_l| - gamma)",),
    preset=preset("ins_simpo", {"name": "simpo", "beta": 2.0, "gamma": 0.5}),
    needs=NEEDS.replace(", which is its own reference", "; no reference is kept"),
    note=NOTE,
    grid={"objective.beta": (0.5, 1.0, 2.0), "objective.gamma": (0.5, 1.0, 1.5)},
)
