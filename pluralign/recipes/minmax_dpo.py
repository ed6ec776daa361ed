"""One policy that no kind of people regrets much: DPO on kinds weighted by an adversary."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import RecordError
from ..records import Preference
from ..terms import Term, pair
from . import Recipe

REGRET = "regret_weight"  # in a record's meta: sum_k w_k gamma_ik / mean gamma_k, which is its weight too


def weighed_pair(ex: Preference) -> Iterable[Term]:
    """DPO's four log-probs of a pair whose weight the adversary has set. Raises RecordError where it has not."""
    if REGRET not in ex.meta:
        raise RecordError(
            "nothing says how much this pair weighs under the least worst regret.",
            where=ex.where,
            remedy="Run `pluralign mixture minmax RUN --single` on the run of `pluralign mixture em`.",
        )
    yield from pair(ex)


RECIPE = Recipe(
    name="minmax_dpo",
    title="MinMax-DPO: the policy with the least worst regret over kinds of people (reconstruction)",
    paper="Chidambaram et al. 2024, arXiv 2405.15065; abstract and notes only",
    equations=(
        "R_k(pi) = E[r_k(pi*_k) - r_k(pi)], r_k = beta log(pi_k / pi_ref)",
        "w_k <- w_k exp(rate R_k(pi_t)), pi_t the best response to w; mixture: mean of pi_t",
        "one policy: loss = sum_k w_k E_gamma_k[-log sigma(beta (h(y_w) - h(y_l)))]",
    ),
    preset={
        "recipe": "minmax_dpo",
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
    needs="A run of `pluralign mixture em` and its pairs. `pluralign mixture minmax RUN` finds the mixture of its "
    "policies; with --single it trains one policy by this recipe.",
    note="The paper's text was not at hand: the regret is its abstract's, multiplicative weights over the finite set "
    "of the kinds' policies, the two measures of utility and the one-shot single policy are ours. The weights of pairs "
    "are normalised a kind, so that w equal to the kinds' shares is plain DPO.",
    plan=weighed_pair,
)
