"""Multi-objective DPO."""

from __future__ import annotations

from . import Recipe

RECIPE = Recipe(
    name="modpo",
    title="Multi-objective DPO: pairs of one objective, rewards of the others as margins",
    paper="Zhou et al. 2024, arXiv 2310.03708",
    equations=(
        "rho = h(y_w) - h(y_l), h(y) = log pi(y|x) - log pi_ref(y|x); the pairs compare by objective k",
        "m = sum_{i != k} w_i (r_i(x,y_w) - r_i(x,y_l)), without gradient",
        "loss = -log sigma((beta rho - m) / w_k)",
    ),
    preset={
        "recipe": "modpo",
        "objective": {"name": "modpo", "beta": 0.1, "own_weight": 0.5},
        "scores": {"show": "none", "normal": "none"},
        "rendering": {"max_length": 512},
        "lora": {"rank": 64, "alpha": 1, "targets": "q_proj,k_proj,v_proj,o_proj"},
        "training": {
            "learning_rate": 5e-4,
            "batch_size": 96,
            "epochs": 3,
            "schedule": "cosine",
            "min_lr_ratio": 0.0,
            "warmup": 0.1,
        },
    },
    needs="Pairs with the scores of both responses on every other objective: prompt, chosen, rejected, attributes. "
    "scores.attributes names them; a fine-tuned model, which is its own reference. Where no reward model is at hand, "
    "a DPO policy of the other objective is one: judging.implicit.implicit_scorer makes its implicit reward an "
    "attribute.",
    note="beta, adapter, rate, length, epochs and the three weights of the grid are the authors' script for "
    "BeaverTails; the batch is its 6 pairs, twice accumulated, on 8 devices. objective.margin_weights gives each "
    "attribute its own weight; left out, they share 1 - own_weight. Margins count in their own units "
    "(scores.normal=none): rewards of unlike scale want weights to match, or scores.normal=z. One policy a weighting: "
    "`pluralign sweep modpo`.",
    grid={"objective.own_weight": (0.1, 0.5, 0.9)},
)
