"""Policies of kinds of people that nobody named: DPO inside expectation-maximisation."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import RecordError
from ..records import Preference
from ..terms import Term, pair
from . import Recipe

RESPONSIBILITIES = "responsibilities"  # in a record's meta: the kinds' shares in its person, written by the E-step


def typed_pair(ex: Preference) -> Iterable[Term]:
    """DPO's four log-probs of a pair whose person's kinds are known. Raises RecordError where they are not."""
    if RESPONSIBILITIES not in ex.meta:
        raise RecordError(
            "nothing says of which kind this pair's person is, which EM-DPO infers from all pairs of a person.",
            where=ex.where,
            remedy="Run `pluralign mixture em`, which trains by this recipe in its M-steps.",
        )
    yield from pair(ex)


RECIPE = Recipe(
    name="em_dpo",
    title="EM-DPO: one policy for each latent kind of people (reconstruction)",
    paper="Chidambaram et al. 2024, arXiv 2405.15065; abstract and notes only",
    equations=(
        "P_k(w > l | x) = sigma(beta (h_k(y_w) - h_k(y_l)))",
        "E: gamma_ik proportional to eta_k prod_j P_k(pair_ij)",
        "M: eta_k = mean_i gamma_ik; loss_k = sum_ij gamma_ik (-log sigma(beta (h_k(y_w) - h_k(y_l))))",
    ),
    preset={
        "recipe": "em_dpo",
        "objective": {"name": "dpo", "beta": 0.1},
        "lora": {"rank": 16},
        "training": {
            "learning_rate": 1e-4,
            "batch_size": 32,
            "epochs": 1,
            "schedule": "constant",
            "warmup": 0,
            "best_metric": "none",
            "kl_rows": 0,
        },
    },
    needs="Pairs with a `user`, two or more of each: one pair a person identifies no kinds. Run it as "
    "`pluralign mixture em`, which finds the kinds and trains a policy of each; its files hold the responsibilities.",
    note="The paper's text was not at hand: formulas are from its abstract and notes, every setting is ours (a LoRA a "
    "kind, one epoch a round, constant rate, annealing from T = 2 to 1, restarts compared by held-out people). An "
    "M-step goes on from the last round's policies, against the policy that all began with.",
    plan=typed_pair,
)
