"""Adaptive intent-driven preference optimisation: infer the intent behind a prompt, and align to it."""

from __future__ import annotations

from typing import Any

from . import Recipe

AT_SCALE: dict[str, Any] = {
    "intents": {
        "show": "infer", "expectation": "top", "candidates": 1, "similarity": 0.2, "kl": 0.01, "classify": 1.0,
        "prior": "uniform", "module_rate": 2e-5,
    },
    "rendering": {"max_length": 1024},
    "training": {
        "learning_rate": 5e-7,
        "batch_size": 16,
        "epochs": 3,
        "optimizer": "rmsprop",
        "schedule": "constant",
        "warmup": 150,
        "clip": 1.0,
        "eval_every": 1000,
    },
}  # fmt: skip

RECIPE = Recipe(
    name="a_ipo",
    title="Adaptive intent-driven preference optimisation",
    paper="A-IPO: Adaptive Intent-Driven Preference Optimization, arXiv 2510.10077, Eq. 5 to 10",
    equations=(
        "r'(x,y,I) = beta (log pi(y|x,I) - log pi_ref(y|x,I)) + lambda sim(y,I), sim = (1 + cos(E[I], h_y)) / 2",
        "loss = -sum_I q(I|x) log sigma(r'(x,y_w,I) - r'(x,y_l,I)) + gamma KL(q(I|x) || p(I)) + L_i",
    ),
    preset={"recipe": "a_ipo", "objective": {"name": "dpo", "beta": 0.1}, **AT_SCALE},
    needs='Pairs, a part of them with an "intent" in words (`pluralign intents` labels them), optionally "x_con"; a '
    "fine-tuned model, which is its own reference. `pluralign intents train` makes an intention module with an encoder "
    "of its own (intents.module=FOLDER); without one a linear head on the policy's states is fitted.",
    note="beta, lambda and gamma (the paper's grid), RMSprop at 5e-7 with 150 steps of warm-up for the policy, AdamW "
    "at 2e-5 for the module, clipping at 1 and validation every 1,000 steps are G.1.4's, as is bf16 where the machine "
    "has it; the batch is the upper end of its 8 to 16. The paper indexes E by the predicted label, which is K = 1 "
    "here; intents.expectation=sum, or intents.candidates above 1, is Eq. 10's expectation. intents.soft=N shows E[I] "
    "as N vectors besides. Ours, where the paper is silent: how an intent is worded and placed (end of the last user "
    "turn), vectors that start at the mean states of each intent's chosen responses (intents.table=random: at random), "
    "weight 1 of L_i. Ablations: "
    "intents.show=average is (-I), intents.similarity=0 is (-sim). No table of the paper has been reproduced here.",
    grid={"intents.similarity": (0.1, 0.2, 0.5), "intents.kl": (0.0, 0.01)},
)
