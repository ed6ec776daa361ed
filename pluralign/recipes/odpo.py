"""DPO with an offset."""

from __future__ import annotations

from . import Recipe

RECIPE = Recipe(
    name="odpo",
    title="DPO with an offset by how much better the winner is (ODPO)",
    paper="Amini, Vieira, Cotterell 2024, arXiv 2402.10571",
    equations=(
        "rho = h(y_w) - h(y_l), h(y) = log pi(y|x) - log pi_ref(y|x)",
        "loss = -log sigma(beta rho - alpha log(score(y_w) - score(y_l)))",
    ),
    preset={
        "recipe": "odpo",
        "objective": {"name": "dpo_offset", "beta": 0.1, "margin_weight": 1.0, "log_margin": True},
        "training": {
            "learning_rate": 5e-7,
            "batch_size": 64,
            "epochs": 1,
            "optimizer": "rmsprop",
            "schedule": "constant",
            "warmup": 150,
        },
    },
    needs="Pairs with a margin, or with scores of which it is the difference: prompt, chosen, rejected, margin. A "
    "fine-tuned model, which is its own reference.",
    note="alpha 1, the logarithm, learning rate, RMSprop and 150 steps of warm-up are the authors'; beta 0.1 and the "
    "batch size are ours. Margins under 0.01 count as 0.01. log_margin=false takes the margin as it is.",
)
