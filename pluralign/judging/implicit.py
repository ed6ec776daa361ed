"""The reward that a trained policy implies, as a scorer of responses: r(x, y) = beta log pi(y|x) / pi_ref(y|x).

A policy that DPO trained on one objective *is* a reward model of that objective (Rafailov et al. 2023, Eq. 5). MODPO
takes it as the margin of another objective's pairs (Zhou et al. 2024). As a `Scorer` it is one for the curation step
`score_responses`, which writes it as an attribute and asks for no response twice.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..curate.score import Asked, Scored, Scorer
from ..curate.scorers import model_digest
from ..errors import RenderError, SettingsError
from ..scoring.layout import Scored as Sequenced
from ..terms import Term

if TYPE_CHECKING:
    from ..policy import Policy

__all__ = ["implicit_rewards", "implicit_scorer"]


def implicit_scorer(
    policy: Policy, name: str, *, reference: Policy | None = None, beta: float = 0.1, token_budget: int = 8192
) -> Scorer:
    """A scorer that gives responses the policy's implicit reward as the attribute `name`, in nats times beta.

    `reference` is what the policy was trained against; None: the base under the policy's own LoRA. Each is shown the
    prompt through its own renderer, the prompt alone (no attribute scores).
    Raises SettingsError for a beta that is no positive number, and where there is no reference.
    """
    _check(policy, reference, beta)
    rendering = json.dumps([p.rendering for p in (policy, reference) if p], sort_keys=True, default=str)
    key = ["implicit", model_digest(policy.model, policy.tokenizer), rendering, f"{beta!r}", policy.precision]
    if reference is not None:
        key.append(model_digest(reference.model, reference.tokenizer))
    against = "the base of its adapter" if reference is None else reference.name
    return Scorer(
        (name,),
        lambda asked: implicit_rewards(policy, asked, reference=reference, beta=beta, token_budget=token_budget),
        key=" ".join(key),
        title=f"implicit reward of {policy.name} against {against}, beta {beta:g}",
    )


def implicit_rewards(
    policy: Policy,
    asked: Sequence[Asked],
    *,
    reference: Policy | None = None,
    beta: float = 0.1,
    token_budget: int = 8192,
) -> list[Scored]:
    """beta (log pi(y|x) - log pi_ref(y|x)) of every response, as scores of one attribute; see `implicit_scorer`.

    A response that cannot be rendered has none, with the reason as its note; one that was cut to fit says so.
    """
    _check(policy, reference, beta)
    own = _sums(policy, asked, token_budget)
    if reference is not None:
        base = _sums(reference, asked, token_budget)
    else:
        with policy.model.disable_adapter():
            base = _sums(policy, asked, token_budget)
    out = []
    for (ours, note), (theirs, other) in zip(own, base, strict=True):
        reward = None if ours is None or theirs is None else beta * (ours - theirs)
        out.append(Scored((reward,), note or other))
    return out


def _check(policy: Policy, reference: Policy | None, beta: float) -> None:
    if not (beta > 0 and math.isfinite(beta)):
        raise SettingsError(f"beta must be a positive number, not {beta:g}.")
    if reference is None and not hasattr(policy.model, "disable_adapter"):
        raise SettingsError(
            f"{policy.name} has no adapter, so that its reference must be named.",
            remedy="Give the model that it was trained from.",
        )
    if reference is not None and reference.model is policy.model:
        raise SettingsError("policy and reference are one model: every reward would be 0.")


def _sums(policy: Policy, asked: Sequence[Asked], token_budget: int) -> list[tuple[float | None, str]]:
    """(log pi(y|x) or None, note) of every response; responses to one prompt that stand together are read together."""
    rows = [([Term("y", (prompt,), response)], (), "") for prompt, response in asked]
    rendered = policy.renderer.try_batch(rows)
    at = [i for i, row in enumerate(rendered) if not isinstance(row, RenderError)]
    place = {i: k for k, i in enumerate(at)}
    sequences = [Sequenced(r.context, r.target, r.scored) for row in rendered if isinstance(row, list) for r in row]
    groups = [[place[i] for i in same] for _, same in itertools.groupby(at, key=lambda i: asked[i][0])]
    readings = policy.score(sequences, groups=groups, token_budget=token_budget) if sequences else []
    out: list[tuple[float | None, str]] = []
    for i, row in enumerate(rendered):
        if isinstance(row, RenderError):
            out.append((None, row.reason))
        else:
            note = "cut to fit" if row[0].cut_context or row[0].cut_target else ""
            out.append((float(readings[place[i]].sum[0]), note))
    return out
