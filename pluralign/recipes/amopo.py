"""Adaptive multi-objective preference optimisation."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import RecordError
from ..records import Preference
from ..terms import Plan, Scores, Term
from . import Recipe

DIMENSIONS = ("helpfulness", "correctness", "instruction_following")  # the paper's, beside the pair as it is


def dimensions(*names: str) -> Plan:
    """A plan that reads a pair once as it is and once in each attribute that tells its responses apart.

    "w.0" and "l.0" are chosen and rejected under the bare prompt. "w.d" and "l.d" are the response with the higher and
    that with the lower score on the d-th name, under a prompt that states it. A tie or a missing score leaves the
    dimension out. Raises RecordError for a row with none of the attributes.
    """

    def plan(ex: Preference) -> Iterable[Term]:
        if not set(names) & set(ex.attributes):
            raise RecordError(
                f"the pair has no scores on {', '.join(names)}.",
                remedy="`pluralign curate --steps score` adds them; recipes.amopo.dimensions(...) reads others.",
            )
        yield Term("w.0", (ex.prompt,), ex.chosen)
        yield Term("l.0", (ex.prompt,), ex.rejected)
        for d, name in enumerate(names, start=1):
            chosen, rejected = ex.attributes.get(name, (None, None))
            if chosen is None or rejected is None or chosen == rejected:
                continue
            best, worst = (ex.chosen, ex.rejected) if chosen > rejected else (ex.rejected, ex.chosen)
            context = (ex.prompt, aim(name))
            yield Term(f"w.{d}", context, best)
            yield Term(f"l.{d}", context, worst)

    return plan


def aim(name: str) -> Scores:
    """The sentence that states the objective in the prompt, ours."""
    return Scores(f" Your response must be as good as possible in this respect: {name.replace('_', ' ')}.")


RECIPE = Recipe(
    name="amopo",
    title="Adaptive multi-objective preference optimisation, without reward or reference (AMoPO)",
    paper="Liu et al. 2025, arXiv 2506.07165",
    equations=(
        "l_d = -log sigma(beta (log pi(y_w^d|x^d)/|y_w^d| - log pi(y_l^d|x^d)/|y_l^d|) - gamma), d a dimension",
        "u_d = n_w^d + n_l^d, n ~ N(mean, std^2) of the response's token probabilities, without gradient",
        "loss = sum_d softmax(u)_d l_d, over the dimensions of one example",
    ),
    preset={
        "recipe": "amopo",
        "objective": {"name": "amopo", "beta": 0.8, "gamma": 2.0},
        "rendering": {"max_length": 1024},
        "training": {
            "learning_rate": 3e-7,
            "batch_size": 64,
            "epochs": 3,
            "schedule": "cosine",
            "min_lr_ratio": 0.0,
            "warmup": 0.1,
            "clip": 3.0,
        },
    },
    needs="Pairs with attribute scores of both responses, HelpSteer2 for example; a fine-tuned model. An example is "
    "up to eight sequences: the pair as it is, and one pair for each of helpfulness, correctness and "
    "instruction_following that it has and that tells its responses apart. recipes.amopo.dimensions(...) makes the "
    "plan for other attributes.",
    note="beta, gamma (absolute), rate, schedule, clipping and length are the authors' script; its batch is 2, ours "
    "64. Their softmax runs over the whole batch, where examples compete for weight and the step shrinks with the "
    "batch; ours runs over one example's dimensions. Weights are drawn in training and take their mean in validation. "
    "The sentence that states a dimension is ours. It does not go together with conditioning.",
    plan=dimensions(*DIMENSIONS),
)
