"""Identity preference optimisation."""

from __future__ import annotations

from . import USUAL, Recipe

RECIPE = Recipe(
    name="ipo",
    title="Identity preference optimisation",
    paper="Azar et al. 2023, arXiv 2310.12036, Eq. 17",
    equations=(
        "rho = h(y_w) - h(y_l), h(y) = log pi(y|x) - log pi_ref(y|x)",
        "loss = (rho - 1/(2 tau))^2",
    ),
    preset={
        "recipe": "ipo",
        "objective": {"name": "ipo", "tau": 0.1},
        "training": USUAL,
    },
    needs="Pairs: prompt, chosen, rejected; a fine-tuned model, which is its own reference. Made for pairs whose label "
    "is certain: the target gap is finite, so that a pair seen once is not pushed apart without end.",
    note="The paper states the loss and studies it on bandits; it gives no settings for language models. tau 0.1 aims "
    "at a gap of 5 nats between whole responses. Learning rate and schedule are those common for DPO. "
    "objective.length_average=true takes log-ratios per token, as TRL does, which is another objective.",
)
