"""Self-guided alignment on pairs: DPO under scores, and the head that senses them (SGA_DPO)."""

from __future__ import annotations

from . import Recipe
from .sga import AT_SCALE, NEEDS, NOTE, PAPER

RECIPE = Recipe(
    name="sga_dpo",
    title="Self-guided alignment on pairs (SGA_DPO)",
    paper=f"{PAPER}, Eq. 8, 9",
    equations=(
        "loss = -log sigma(beta [log pi(y_w|x,s) / pi_ref(y_w|x,s) - log pi(y_l|x,s) / pi_ref(y_l|x,s)])",
        "       + lambda ||s - mu(x)||^2, s: the scores of y_w",
    ),
    preset={"recipe": "sga_dpo", "objective": {"name": "dpo", "beta": 0.1}, **AT_SCALE},
    needs=NEEDS,
    note=NOTE + " Any objective and any conditioning can take DPO's place: objective=simpo, conditioning=cross.",
    grid={"scores.sense": (1, 10, 100, 500, 1000)},
)
