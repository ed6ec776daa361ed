"""An attribute model: a regression head on the last token of a response scores it on every attribute."""

from __future__ import annotations

from . import Recipe

RECIPE = Recipe(
    name="attribute_model",
    title="Attribute model (multi-attribute reward model by regression)",
    paper="Dong et al. 2023, SteerLM, arXiv 2310.05344, step 1",
    equations=("loss = sum_k (s_k - r_k(x, y))^2 over the attributes that are known",),
    preset={
        "recipe": "attribute_model",
        "objective": {"name": "rating"},
        "scores": {"normal": "range", "layers": 1},
        "data": {"responses": "all"},
        "rendering": {"max_length": 4096},
        "training": {"learning_rate": 2e-6, "batch_size": 128, "epochs": 2, "schedule": "constant", "warmup": 0.1},
    },
    needs="Rated responses: demonstrations, pairs or rankings with attribute scores; every response counts.",
    note=(
        "Learning rate and batch are those reported for HelpSteer2's 70B model (317 steps), the rest is ours. The "
        "output is linear, on the scale of scores.normal. objective=rating_bt learns from which of two responses "
        "scores higher instead. Judge policies with a model trained on data that they have not seen."
    ),
)
