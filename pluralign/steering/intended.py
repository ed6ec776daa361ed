"""Intents at inference (A-IPO): what a prompt is after is inferred, or given, and stands at the end of the prompt.

Shapes: B requests, N intents, D hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..heads.intent import encoder_ids, log_posterior, logits_of, prompt_text
from ..intention import WORDS
from ..records import Record, messages
from .requests import Prompt, Request

if TYPE_CHECKING:
    from ..policy import Policy

__all__ = ["infer_intents", "intent_text", "intent_vectors", "intents_of", "longest_intent", "reads_state"]

Inferred = tuple[str, float | None]  # an intent (empty: none), and its posterior probability where it was inferred


def infers(policy: Policy, request: Request) -> bool:
    """Whether the policy has to find out what a request is after."""
    return request.intent is None and policy.intents is not None and policy.intention is not None


def reads_state(policy: Policy, request: Request) -> bool:
    """Whether it does so by its own state of the prompt."""
    module = policy.intention
    return infers(policy, request) and module is not None and module.encoder is None


def intent_text(policy: Policy, intent: str) -> str:
    """An intent in the policy's words; in the usual ones for a policy that was never shown any."""
    words = policy.intents.words if policy.intents else WORDS
    return words.format(intent=intent) if intent else ""


def intent_vectors(policy: Policy, intent: str) -> tuple[int, ...]:
    """The ids of an intent's vectors, where the policy has some."""
    return policy.intents.vectors(policy.intents.number(intent)) if policy.intents else ()


def longest_intent(policy: Policy, request: Request) -> str:
    """The longest intent that this request may have. Raises SettingsError for one it cannot be."""
    if request.intent is not None or policy.intents is None or policy.intention is None:
        return _given(policy, request)
    return max(policy.intents.names, key=len)


def intents_of(policy: Policy, requests: Sequence[Request], states: Tensor | None) -> list[Inferred]:
    """The intent of every request. `states` (B, D) are the policy's at the prompts' last tokens, where they were read.

    Raises SettingsError for an intent that is given and that the policy was not trained with.
    """
    found: list[Inferred] = [(_given(policy, r), None) for r in requests]
    at = [i for i, r in enumerate(requests) if infers(policy, r)]
    if at:
        posterior = _posterior(policy, [requests[i] for i in at], None if states is None else states[at])
        for i, q in zip(at, posterior.tolist(), strict=True):
            assert policy.intents is not None, "asked only where there are intents"
            best = policy.intents.pick(q)
            found[i] = ("", max(q)) if best is None else (policy.intents.names[best], q[best])
    return found


def _given(policy: Policy, request: Request) -> str:
    intent = request.intent or ""
    if intent and policy.intents is not None:
        policy.intents.number(intent)  # raises for one that is not known
    return intent


@torch.no_grad()
def _posterior(policy: Policy, requests: Sequence[Request], states: Tensor | None) -> Tensor:
    """(B, N) q(I | x, x_con)."""
    module = policy.intention
    assert module is not None, "asked only of policies that have one"
    if module.encoder is None:
        assert states is not None, "read before"
        logits = module.classify(states)
    else:
        texts = [prompt_text(messages(r.turns)) for r in requests]
        logits = logits_of(module, encoder_ids(module.tokenizer, texts, [r.x_con for r in requests]))
    return log_posterior(logits.float(), module.loss).exp()


def infer_intents(policy: Policy, prompts: Sequence[Prompt], *, x_con: Sequence[str] = ()) -> list[dict[str, float]]:
    """q(I | x, x_con) of each prompt by intent, likeliest first. Raises SettingsError where there is no module."""
    from ..training.intents import posterior

    known = x_con or [""] * len(prompts)
    records = [Record(prompt=messages(p), x_con=k) for p, k in zip(prompts, known, strict=True)]
    names = policy.intents.names if policy.intents else ()
    rows = posterior(policy, records).tolist()
    return [dict(sorted(zip(names, q, strict=True), key=lambda item: -item[1])) for q in rows]
