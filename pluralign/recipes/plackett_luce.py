"""DPO over rankings of more than two responses."""

from __future__ import annotations

from . import Recipe

RECIPE = Recipe(
    name="plackett_luce",
    title="Direct preference optimisation over rankings",
    paper="Rafailov et al. 2023, arXiv 2305.18290, appendix A.3",
    equations=(
        "v_i = beta (log pi(y_i|x) - log pi_ref(y_i|x))",
        "loss = -sum_i log(e^{v_i} / (e^{v_i} + sum over r_j < r_i of e^{v_j}))",
    ),
    preset={
        "recipe": "plackett_luce",
        "objective": {"name": "plackett_luce", "beta": 0.1},
        "training": {
            "learning_rate": 1e-6,
            "batch_size": 32,
            "epochs": 1,
            "schedule": "linear",
            "warmup": 0.1,
        },
    },
    needs="Two or more responses a prompt, each with a score. A fine-tuned model, which is its own reference. Of two "
    "responses the loss is that of DPO.",
    note="The paper derives the loss and runs pairs only: settings are those of its DPO (AdamW for RMSprop), with "
    "half the prompts a step since a list holds more than two responses (ours). It has no ties; here equal scores do "
    "not compete with each other, and a list of equal scores teaches nothing.",
)
