"""Self-play preference optimisation."""

from __future__ import annotations

from . import Recipe

RECIPE = Recipe(
    name="sppo",
    title="Self-play preference optimisation, one iteration, hard labels",
    paper="Wu et al. 2024, arXiv 2405.00675, Eq. 4.7",
    equations=(
        "h(y) = log pi(y|x) - log pi_ref(y|x)",
        "loss = (h(y_w) - 1/(2 beta))^2 + (h(y_l) + 1/(2 beta))^2",
    ),
    preset={
        "recipe": "sppo",
        "objective": {"name": "sppo", "beta": 0.001},
        "training": {
            "learning_rate": 5e-7,
            "batch_size": 64,
            "epochs": 1,
            "optimizer": "rmsprop",
            "schedule": "linear",
            "warmup": 0.1,
        },
    },
    needs="Pairs: prompt, chosen, rejected; a fine-tuned model, which is its own reference. Best and worst of several "
    "responses of the model itself, judged; the next iteration starts from the result.",
    note="beta, learning rate, RMSprop, linear schedule and warm-up are those of the authors' scripts; they take the "
    "judge's probabilities, here they are 1 and 0. One epoch is ours. Losses start near 500,000: gradients are "
    "clipped, so only their direction counts.",
)
