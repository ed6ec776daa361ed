"""DPO under another divergence."""

from __future__ import annotations

from . import USUAL, Recipe

RECIPE = Recipe(
    name="f_dpo",
    title="DPO with another f-divergence (Jensen-Shannon)",
    paper="Wang et al. 2023, arXiv 2309.16240",
    equations=(
        "u = pi(y|x) / pi_ref(y|x), s = f'(u): log u, -1/u, log(u / (1 + u)) or (1 - u^-a) / a",
        "loss = -log sigma(beta (s(y_w) - s(y_l)))",
    ),
    preset={
        "recipe": "f_dpo",
        "objective": {"name": "f_dpo", "beta": 0.1, "divergence": "js"},
        "training": USUAL,
    },
    needs="Pairs: prompt, chosen, rejected; a fine-tuned model, which is its own reference.",
    note="The loss is the paper's. Jensen-Shannon is our choice among divergence=reverse_kl (DPO), forward_kl, js and "
    "alpha with divergence_alpha between 0 (reverse) and 1 (forward). Training settings are those common for DPO.",
)
