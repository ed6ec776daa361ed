"""Simple preference optimisation."""

from __future__ import annotations

from . import Recipe

RECIPE = Recipe(
    name="simpo",
    title="Simple preference optimisation, without a reference",
    paper="Meng, Xia, Chen 2024, arXiv 2405.14734, Eq. 6 and section 3",
    equations=("loss = -log sigma(beta (log pi(y_w|x)/|y_w| - log pi(y_l|x)/|y_l|) - gamma)",),
    preset={
        "recipe": "simpo",
        "objective": {"name": "simpo", "beta": 2.0, "gamma": 0.5},
        "rendering": {"max_length": 2048},
        "training": {
            "learning_rate": 1e-6,
            "batch_size": 128,
            "epochs": 1,
            "schedule": "cosine",
            "min_lr_ratio": 0.0,
            "warmup": 0.1,
        },
    },
    needs="Pairs: prompt, chosen, rejected; a fine-tuned model. No reference is kept, so memory and time are those of "
    "plain fine-tuning.",
    note="Batch size, schedule, warm-up and length are the paper's; it tunes the rest for each model (beta 2.0 to 10, "
    "gamma/beta 0.1 to 0.8, learning rate 3e-7 to 1e-6). gamma is absolute: their gamma_beta_ratio times beta. With "
    "nothing that holds the policy to a reference a rate that is too high ruins it; watch chosen_logp.",
)
