"""INS-RDPO: R-DPO whose policy sees the other response."""

from __future__ import annotations

from . import Recipe
from .inspo import NEEDS, NOTE, PAPER, preset

RECIPE = Recipe(
    name="ins_r_dpo",
    title="InSPO with R-DPO's length term (INS-RDPO)",
    paper=f"{PAPER}, Table 1",
    equations=(
        "rho = log pi(y_w|x,y_l)/pi_ref(y_w|x) - log pi(y_l|x,y_w)/pi_ref(y_l|x)",
        "loss = -log sigma(beta rho + alpha (|y_w| - |y_l|))",
    ),
    preset=preset("ins_r_dpo", {"name": "r_dpo", "beta": 0.1, "length_alpha": 0.1}),
    needs=NEEDS,
    note=f"{NOTE} The length term's sign is the paper's; alpha 0.1 and 50 tokens of difference are 5 nats.",
    grid={"objective.beta": (0.1, 0.2), "objective.length_alpha": (0.1, 0.5, 1.0)},
)
