"""Binary classifier optimisation."""

from __future__ import annotations

from . import USUAL, Recipe

RECIPE = Recipe(
    name="bco",
    title="Binary classifier optimisation, from thumbs up and down",
    paper="Jung et al. 2024, arXiv 2404.04656",
    equations=(
        "r(y) = beta (log pi(y|x) - log pi_ref(y|x)), delta = running mean of r",
        "thumb up: -log sigma(r(y) - delta), thumb down: -w(x) log sigma(-(r(y) - delta))",
    ),
    preset={
        "recipe": "bco",
        "objective": {"name": "bco", "beta": 0.1},
        "training": {**USUAL, "batch_size": 128},
    },
    needs="Responses with a thumb up or down, of any prompts. A fine-tuned model, which is its own reference.",
    note="The loss is the paper's; beta 0.1 and rate 5e-7 were the defaults of TRL's trainer, the rest is ours. delta "
    "is the mean over every example seen so far, each counting the same, and frozen in evaluation; the bound is "
    'tightest midway between the means of the two sides, which is the same where both are as many. A number "density" '
    "in each row weighs its thumb down: the ratio of prompt densities, which "
    "`pluralign curate --kind labelled --steps density` fits on states of a model.",
)
