"""Length-desensitised direct preference optimisation."""

from __future__ import annotations

from . import USUAL, Recipe

RECIPE = Recipe(
    name="ld_dpo",
    title="Length-desensitised direct preference optimisation",
    paper="Liu et al. 2024, arXiv 2409.06411",
    equations=(
        "n = min(|y_w|, |y_l|), l(y) = sum over t <= n of log pi(y_t) + a sum over t > n of log pi(y_t)",
        "loss = -log sigma(beta ((l(y_w) - l_ref(y_w)) - (l(y_l) - l_ref(y_l))))",
    ),
    preset={
        "recipe": "ld_dpo",
        "objective": {"name": "ld_dpo", "beta": 0.1, "ld_alpha": 0.5},
        "training": {**USUAL, "batch_size": 128},
    },
    needs="Pairs: prompt, chosen, rejected; a fine-tuned model, which is its own reference. The reference is read "
    "token by token beside the policy in every step, so that its cache does not help.",
    note="The decomposition is the paper's, applied to policy and reference alike, as TRL does. ld_alpha is to be "
    "tuned by model: 1 is DPO, 0 ignores all past the shorter length; 0.5, and every other setting, is ours, as is "
    "common for DPO.",
)
