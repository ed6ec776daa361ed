"""A preference-aware autoregressive reward model, which guides another policy at inference."""

from __future__ import annotations

from . import Recipe

RECIPE = Recipe(
    name="parm",
    title="PARM: one small policy that guides a frozen one towards any trade-off between attributes",
    paper="Lin et al. 2025, arXiv 2505.06274; form of the authors' code",
    equations=(
        "dW(alpha) = s (B_1 W_1 A_1 + B_2 W_2(alpha) A_2), W_2(alpha) = reshape(alpha^T V), alpha ~ Dirichlet(1/2)",
        "loss = sum_i alpha_i (-log sigma(beta_i (log pi(y_w^i|x) - log pi(y_l^i|x)) - gamma)), y_w^i better in i",
        "decoding: log pi_base(y_t) + (1/beta) log pi_alpha(y_t)",
    ),
    preset={
        "recipe": "parm",
        "objective": {"name": "parm", "beta": 0.01, "gamma": 0.0},
        "scores": {"show": "none", "normal": "none"},
        "rendering": {"max_length": 1024},
        "lora": {"rank": 4, "alpha": 8, "targets": "q_proj,k_proj,v_proj"},
        "training": {
            "learning_rate": 5e-4,
            "batch_size": 32,
            "epochs": 2,
            "schedule": "cosine",
            "min_lr_ratio": 0.0,
            "warmup": 20,
            "weight_decay": 0.05,
        },
    },
    needs="Pairs with scores of both responses on two or more attributes (higher is better; for a cost, give "
    "scores.ranges and normal=range, with the larger number first). scores.attributes names them and sets their order.",
    note="beta, gamma, ranks, layers, rate, warm-up, weight decay, batch, epochs and the Dirichlet are the authors' "
    "code's. lora.rank is both r_1 and r_2. alpha is drawn once an optimiser step, the same on all processes (the "
    "authors draw one a process and micro-batch); validation is at equal weights. W_1 and V start at the identity "
    "(ours). In Python: heads.pblora.set_preference, then steering.mixture.guided.",
)
