"""Controllable preference optimisation, second stage (CDPO)."""

from __future__ import annotations

from . import Recipe

RECIPE = Recipe(
    name="cdpo_control",
    title="Controllable DPO: the response that is nearer to a requested rating wins (CDPO)",
    paper="Guo et al. 2024, arXiv 2402.19085",
    equations=(
        "R(y) = sum_{i in S} -lambda_i |g_i(y) - c_i| + sum_{i not in S} w_i g_i(y), c the target in the prompt",
        "y_w the response with the larger R",
        "loss = -log sigma(beta rho), rho = h(y_w) - h(y_l), h(y) = log pi(y|x') - log pi_ref(y|x')",
    ),
    preset={
        "recipe": "cdpo_control",
        "objective": {"name": "dpo", "beta": 0.1},
        "scores": {"show": "none"},
        "rendering": {"max_length": 1024},
        "lora": {"rank": 64, "alpha": 64},
        "training": {
            "learning_rate": 5e-6,
            "batch_size": 32,
            "epochs": 3,
            "schedule": "cosine",
            "min_lr_ratio": 0.0,
            "warmup": 0.1,
        },
    },
    needs="Pairs whose prompts state a target: the curation step curate.controlled.control makes them of rated rows, "
    "by quotas. The model is a policy of recipe=cpo_sft, which is its own reference.",
    note="Named cdpo_control because cdpo is conservative DPO. The loss is plain DPO: what is controlled is in the "
    "pairs and their prompts. beta, adapter, batch (4, accumulated 8 times), epochs and length are the authors'; they "
    "load the base in 4 bits (lora.quantize=4bit). The rate is ours. The targets stand in the prompts already, so "
    "that scores.show is none; the policy keeps the words of its first stage and is steered by "
    "generate(attributes=...).",
)
