"""Efficient exact optimisation."""

from __future__ import annotations

from . import Recipe

RECIPE = Recipe(
    name="exo",
    title="Efficient exact optimisation on pairs (EXO)",
    paper="Ji et al. 2024, arXiv 2402.00856, Eq. 16",
    equations=(
        "rho = h(y_w) - h(y_l), h(y) = log pi(y|x) - log pi_ref(y|x)",
        "q = (sigma(beta rho), sigma(-beta rho))",
        "loss = KL(q || (1 - eps, eps))",
    ),
    preset={
        "recipe": "exo",
        "objective": {"name": "exo", "beta": 0.5, "label_smoothing": 0.001},
        "training": {
            "learning_rate": 1e-6,
            "batch_size": 64,
            "epochs": 1,
            "schedule": "constant",
            "warmup": 0,
        },
    },
    needs="Pairs: prompt, chosen, rejected; a fine-tuned model, which is its own reference.",
    note="beta 0.5, learning rate, one epoch and no warm-up are those of the authors' script for HH; the constant "
    "rate and 64 pairs a step are ours. eps 0.001 is the value TRL gives as the paper's; the authors' code sets its "
    "logarithm to -10.",
)
