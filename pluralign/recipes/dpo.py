"""Direct preference optimisation."""

from __future__ import annotations

from . import Recipe

RECIPE = Recipe(
    name="dpo",
    title="Direct preference optimisation",
    paper="Rafailov et al. 2023, arXiv 2305.18290, Eq. 7 and appendix B",
    equations=(
        "h(y) = log pi(y|x) - log pi_ref(y|x)",
        "loss = -log sigma(beta (h(y_w) - h(y_l)))",
    ),
    preset={
        "recipe": "dpo",
        "objective": {"name": "dpo", "beta": 0.1},
        "training": {
            "learning_rate": 1e-6,
            "batch_size": 64,
            "epochs": 1,
            "optimizer": "adamw",
            "schedule": "linear",
            "warmup": 0.1,
        },
    },
    needs="Pairs: prompt, chosen, rejected. A model that was fine-tuned on the chosen responses, or at least speaks "
    "the chat template; it is its own reference unless `reference` names another.",
    note="beta, batch size, learning rate (1e-6) and one epoch are the paper's. The paper used RMSprop with 150 steps "
    "of linear warm-up and then a constant rate; here it is AdamW with 10 % warm-up and linear decay, as most later "
    "work has it. For the paper's own: training.optimizer=rmsprop training.schedule=constant training.warmup=150.",
)
