"""Self-guided alignment: a second head senses what scores a prompt asks for, and the policy writes to them (SGA_SFT).

`sga_dpo` differs in the objective alone and takes the rest from here.
"""

from __future__ import annotations

from typing import Any

from . import Recipe

PAPER = "Wang, Liu, Zhou, Zhang, Shao, Zhou, Self-Guided Alignment (SGA)"
# Table 6 and B.2: Llama-3 and Qwen models of 1B to 8B on HelpSteer2, UltraFeedback and HH-RLHF.
AT_SCALE: dict[str, Any] = {
    "scores": {"show": "chosen", "wording": "sga", "normal": "range", "sense": 1000.0, "layers": 3},
    "rendering": {"max_length": 1024},
    "lora": {"rank": 32, "alpha": 64, "dropout": 0.05},
    "training": {
        "learning_rate": 1e-5,
        "schedule": "cosine",
        "min_lr_ratio": 0.0,
        "warmup": 0.0,
        "batch_size": 16,
        "epochs": 2,
        "optimizer": "adamw",
        "precision": "auto",  # the paper's bf16 where the hardware multiplies it; elsewhere it is emulated, and slow
    },
}
NEEDS = (
    "Pairs or rankings with attribute scores: HelpSteer2 and raw UltraFeedback with data.by=mean, which is B.2's "
    "order; any other data after `pluralign curate --steps score,reorder`. An instruction-tuned model."
)
NOTE = (
    "Settings are those of Table 6 (batch 2, accumulated 8 times) and B.2: the scores of the chosen response, which "
    "has the highest mean over attributes, stand on [0, 1] in one sentence at the end of the last user turn, for "
    "policy and reference. lambda = 1 / (2 sigma^2), so that 1000 is sigma 0.022; the loss is the joint likelihood as "
    "printed, both terms sums, over tokens and attributes. Ours, where the paper is silent: the scores' format (name: "
    "0.75, in a fixed order), missing scores left out, GELU and a sigmoid in the head, which begins at the mean of the "
    "data. No table of the paper has been reproduced here."
)

RECIPE = Recipe(
    name="sga",
    title="Self-guided alignment by imitation (SGA_SFT)",
    paper=f"{PAPER}, Eq. 7",
    equations=(
        "loss = -sum_t log pi(y_t | x, s, y_<t) + lambda ||s - mu(x)||^2",
        "at inference: s = mu(x), then y ~ pi(. | x, s), from the same keys and values",
    ),
    preset={"recipe": "sga", "objective": {"name": "sft"}, **AT_SCALE},
    needs=NEEDS,
    note=NOTE,
    grid={"scores.sense": (1, 10, 100, 500, 1000)},
)
