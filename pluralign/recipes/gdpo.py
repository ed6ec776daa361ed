"""Group distributional preference optimisation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..data.beliefs import beliefs_of
from ..records import Message, Preference
from ..terms import Column, Prefix, Term
from . import Recipe

PAPER = "Yao et al. 2025, arXiv 2412.20299"
EQUATIONS = (
    "p(y|x) = sum_b p(b|x) p(y|x,b); b stands before the answer as {number}<{text}>",
    "L_cal = KL(p*(.|x) || q), q(k) = pi(number k | x)",
    "L_pref = -log sigma(beta (h(y_w|x,b) - h(y_l|x,b))), b the accepted belief in both, its tokens unscored",
    "L_belief = -(1/|b|) log pi(b|x), b the accepted belief's number and text",
)
TRAINING: dict[str, Any] = {  # the authors' scripts, GPT-2 large
    "learning_rate": 5e-7, "batch_size": 32, "epochs": 20, "optimizer": "rmsprop", "schedule": "constant",
    "warmup": 150, "clip": 10.0, "patience": 4,
}  # fmt: skip
NEEDS = (
    "Pairs with beliefs (format `beliefs`): question, options, probabilities, accept_choice_id, accept_response, "
    "reject_response."
)


def said(text: str) -> tuple[Message, ...]:
    return (Message("assistant", text),)


def beliefs(ex: Preference) -> Iterable[Term | Column]:
    """The pair behind the accepted belief, every option's number and the accepted one's text.

    "b.k" log pi(number k | x), "belief" log pi(text | x, number), "w" and "l" log pi(y | x, b): all of them begin with
    the same ids, so that a pass reads the prompt once. Raises RecordError for a row without beliefs.
    """
    found = beliefs_of(ex)
    number, words = found.pieces(found.accept)
    shown = (ex.prompt, Prefix((number, words)))
    yield Term("w", shown, ex.chosen)
    yield Term("l", shown, ex.rejected)
    yield Term("ref_w", shown, ex.chosen, by="reference")
    yield Term("ref_l", shown, ex.rejected, by="reference")
    yield Term("belief", (ex.prompt, Prefix((number,))), said(words), ended=False)
    for k, share in enumerate(found.shares):
        yield Term(f"b.{k}", (ex.prompt,), said(found.number(k)), ended=False)
        yield Column(f"share.{k}", share)
    yield Column("accept", float(found.accept))
    yield Column("majority", float(found.majority))


RECIPE = Recipe(
    name="gdpo",
    title="Group distributional preference optimisation: beliefs in their shares, answers by belief (GDPO)",
    paper=PAPER,
    equations=(*EQUATIONS, "loss = L_cal + L_pref + L_belief"),
    preset={
        "recipe": "gdpo",
        "objective": {"name": "gdpo", "beta": 0.1},
        "rendering": {"max_length": 1024},
        "training": TRAINING,
    },
    needs=f"{NEEDS} A model fine-tuned by gdpo_sft, which is its own reference.",
    note="Settings are those of the authors' scripts (mode mpo); the constant schedule after warm-up and the clipping "
    "are those of the DPO code that they extend. As there, the rejected answer stands behind the chosen belief. Ours: "
    "numbers and texts are tokenised apart and the mask is counted, never searched for; a number may have several "
    "tokens; the calibration is each example's own; numbers of more than ten options have two digits. The context and "
    "the question are a user turn of the model's own template. objective.restricted=true compares the options with one "
    'another only. Another preference: objective="ipo + calibration + belief_nll". The kto mode is not here.',
    plan=beliefs,
)
