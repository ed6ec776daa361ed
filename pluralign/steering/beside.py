"""What a policy is shown beside a prompt where nobody says anything: the scores that it senses, the intent it infers.

Text that was not written by the policy (the responses of a held-out pair) is read under the same, so that a judgement
is one of the policy as it is deployed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ..errors import RenderError
from ..records import Record
from ..scoring.forward import autocast
from ..terms import Scores
from .intended import intent_text, intent_vectors
from .requests import Request
from .self_guided import begin_scored

if TYPE_CHECKING:
    from ..policy import Policy

__all__ = ["beside", "said_beside"]

BATCH = 32


def said_beside(policy: Policy) -> str:
    """In words what `beside` finds for this policy; empty for one that is shown its prompts alone."""
    parts = []
    if policy.scores is not None and policy.sensing is not None:
        parts.append("the scores that it senses")
    if policy.intents is not None and policy.intention is not None:
        parts.append("the intent that it infers")
    return " and ".join(parts)


@torch.no_grad()
def beside(policy: Policy, records: Sequence[Record]) -> list[Scores | None]:
    """For each record's prompt what stands beside it in the policy's context; None for nothing, and for a prompt that
    the template cannot show."""
    out: list[Scores | None] = [None] * len(records)
    if not said_beside(policy):
        return out
    form = policy.scores
    requests = [Request(r.prompt, tools=r.tools, x_con=r.x_con, max_new_tokens=1) for r in records]
    length = [sum(len(t.content) for t in r.prompt) for r in records]
    order = sorted((i for i, r in enumerate(records) if _can_be_shown(policy, r)), key=lambda i: length[i])
    policy.model.eval()
    for first in range(0, len(order), BATCH):
        batch = order[first : first + BATCH]
        with autocast(policy.precision if policy.device.type != "cpu" else "fp32", policy.device):
            begun = begin_scored(policy, [requests[i] for i in batch])
        for i, given, (intent, _) in zip(batch, begun.attributes, begun.intents, strict=True):
            text = intent_text(policy, intent) + (form.text(given) if form else "")
            out[i] = Scores(text, form.place if form else "after", intent_vectors(policy, intent))
    return out


def _can_be_shown(policy: Policy, record: Record) -> bool:
    try:
        policy.renderer.opened(record.prompt, record.tools)
    except RenderError:
        return False
    return True
