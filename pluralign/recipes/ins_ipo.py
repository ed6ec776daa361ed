"""INS-IPO: IPO whose policy sees the other response."""

from __future__ import annotations

from . import Recipe
from .inspo import NEEDS, NOTE, PAPER, preset

RECIPE = Recipe(
    name="ins_ipo",
    title="InSPO with IPO's squared loss (INS-IPO)",
    paper=f"{PAPER}, Table 1",
    equations=("loss = (log pi(y_w|x,y_l)/pi_ref(y_w|x) - log pi(y_l|x,y_w)/pi_ref(y_l|x) - 1/(2 tau))^2",),
    preset=preset("ins_ipo", {"name": "ipo", "tau": 0.1}),
    needs=NEEDS,
    note=f"{NOTE} D.1 lists a beta for IPO beside tau; the loss of Table 1 has none.",
    grid={"objective.tau": (0.1, 0.2, 0.5)},
)
