"""Token-level direct preference optimisation."""

from __future__ import annotations

from . import Recipe

RECIPE = Recipe(
    name="tdpo",
    title="Token-level direct preference optimisation (TDPO2)",
    paper="Zeng et al. 2024, arXiv 2404.11999",
    equations=(
        "rho = h(y_w) - h(y_l), h(y) = log pi(y|x) - log pi_ref(y|x)",
        "KL(y) = sum_t KL(pi_ref(.|x, y_<t) || pi(.|x, y_<t))",
        "loss = -log sigma(beta (rho - c (KL(y_l) - sg KL(y_w))))",
    ),
    preset={
        "recipe": "tdpo",
        "objective": {"name": "tdpo2", "beta": 0.1, "kl_weight": 0.5},
        "training": {
            "learning_rate": 5e-6,
            "batch_size": 64,
            "epochs": 1,
            "optimizer": "rmsprop",
            "schedule": "constant",
            "warmup": 150,
        },
    },
    needs="Pairs: prompt, chosen, rejected; a fine-tuned model, which is its own reference. The reference is read "
    "over the whole vocabulary beside the policy in every step: no cache helps, and a sharded run cannot do it.",
    note="beta 0.1, kl_weight (its alpha) 0.5 and RMSprop at 5e-6 are those of the paper's code, constant rate and "
    "warm-up those of the DPO code it grew from, the batch size is ours. objective=tdpo1 keeps both KLs in the "
    "gradient. 5e-6 is five times the rate of DPO: watch the KL.",
)
