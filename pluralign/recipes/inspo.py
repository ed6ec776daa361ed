"""Intrinsic self-reflective preference optimisation: DPO whose policy sees the other response (INS-DPO).

The siblings ins_ipo, ins_r_dpo, ins_orpo and ins_simpo differ in the objective alone and take the rest from here.
"""

from __future__ import annotations

from typing import Any

from . import Recipe

PAPER = "Li, Lan, Qi 2025, arXiv 2512.23126"
# Section 5.1 and appendix D.1: Mistral-7B-Instruct-v0.2 and Llama-3-8B-Instruct on UltraFeedback.
AT_SCALE: dict[str, Any] = {
    "conditioning": {"strategy": "cross", "style": "separator", "draft_cap": 0.4},
    "rendering": {"max_length": 4096},
    "data": {"validation_rows": 1000},
    "training": {
        "learning_rate": 5e-7,
        "schedule": "cosine",
        "min_lr_ratio": 0.1,
        "warmup": 0.1,
        "batch_size": 128,
        "epochs": 3,
        "optimizer": "adamw",
        "adam_betas": (0.9, 0.999),
        "weight_decay": 0.01,
        "clip": 1.0,
        "best_metric": "loss",
    },
}
NEEDS = (
    "Pairs: prompt, chosen, rejected; an instruction-tuned model, which is its own reference. At the paper's scale: "
    "`pluralign curate` prepares the data (D.2), and `accelerate launch` with a ZeRO-3 or FSDP2 file spreads the model."
)
NOTE = (
    "Settings are those of 5.1, C.2 and D.1 (bf16 where the machine has it); the draft cap of 40 % is Table 3's best. "
    "Where the paper's first [SEP] stands between prompt and context, the template's response header stands here, so "
    "that x, y_l is a prefix of x, y_l, y_w. conditioning=one-sided and conditioning=averaged are 5.3 (ii) and (iv). "
    "D.5 says that the other response needs no gradient: conditioning.context_gradient=false does that, for a cheaper "
    "step. D.1 selects by a judge's win rate; here it is held-out accuracy. No table of the paper has been reproduced "
    "here."
)


def preset(name: str, objective: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The settings at the paper's scale for one objective; `changes` replace whole sections."""
    return {"recipe": name, "objective": objective, **AT_SCALE, **changes}


RECIPE = Recipe(
    name="inspo",
    title="Intrinsic self-reflective preference optimisation (INS-DPO)",
    paper=f"{PAPER}, Algorithm 1, Eq. 10",
    equations=(
        "margin = beta [log pi(y_w|x,y_l) - log pi_ref(y_w|x) - log pi(y_l|x,y_w) + log pi_ref(y_l|x)]",
        "loss = -log sigma(margin)",
    ),
    preset=preset("inspo", {"name": "dpo", "beta": 0.1}),
    needs=NEEDS,
    note=NOTE,
    grid={"objective.beta": (0.1, 0.2, 0.3, 0.5)},
)
