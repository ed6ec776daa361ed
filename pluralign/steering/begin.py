"""Prefill: from requests to what the model continues, before any token of a response is drawn.

Shapes: B requests, T tokens of the longest context.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import SettingsError
from ..records import messages
from ..scoring.forward import text_config
from .padding import Begun, cut, pad_left
from .requests import Request
from .self_guided import begin_scored, scored_context

if TYPE_CHECKING:
    from ..policy import Policy

__all__ = ["begin", "contexts"]


def begin(policy: Policy, requests: Sequence[Request]) -> Begun:
    """The contexts of a batch as tensors on the policy's device; a policy with a sensing head has read them by then.

    Raises SettingsError where a request cannot be met, RenderError where the template cannot show it.
    """
    if _stated(policy, requests):
        _refuse_prefixes(policy, requests)
        return begin_scored(policy, requests)
    ids, mask = pad_left(policy, contexts(policy, requests)[0])
    return Begun(ids, mask, None, [{} for _ in requests], [() for _ in requests])


def contexts(policy: Policy, requests: Sequence[Request]) -> tuple[list[list[int]], list[int]]:
    """(what the model is shown for each request, the tokens each had before it was cut).

    A context is cut from the left to what the model's positions leave beside the response; BOS stays.
    Raises SettingsError where they leave nothing, and for attributes that the policy cannot be shown.
    """
    limit = getattr(text_config(policy.model), "max_position_embeddings", None)
    shown, before = [], []
    stated = _stated(policy, requests)
    for request in requests:
        if policy.scores is None:
            _refuse_attributes(policy, request)
        if stated:
            _refuse_prefixes(policy, [request])
            ids, length = scored_context(policy, request)
            before.append(length)
            shown.append(ids)
            continue
        room = limit - request.max_new_tokens if limit else None
        if room is not None and room < 1:
            raise SettingsError(
                f"max_new_tokens={request.max_new_tokens} leaves no room: the model has {limit} positions."
            )
        ids = policy.renderer.prompt(messages(request.turns), request.tools, prefix=request.prefix)
        before.append(len(ids))
        shown.append(cut(ids, room, policy.renderer.encoder.bos_id))
    return shown, before


def _stated(policy: Policy, requests: Sequence[Request]) -> bool:
    """Whether something is said beside the prompts: scores or an intent."""
    return policy.scores is not None or policy.intents is not None or any(r.intent for r in requests)


def _refuse_prefixes(policy: Policy, requests: Sequence[Request]) -> None:
    """Raises SettingsError where a response should begin with a given text behind what is sensed first."""
    if any(request.prefix for request in requests):
        shown = "scores" if policy.scores else "intents"
        raise SettingsError(f'the policy "{policy.name}" is shown {shown}, and cannot begin with a given text as well.')


def _refuse_attributes(policy: Policy, request: Request) -> None:
    """Raises SettingsError for scores that would be shown to a policy that was never shown any."""
    if request.attributes:
        raise SettingsError(
            f'the policy "{policy.name}" takes no attribute scores (given: {", ".join(request.attributes)}).',
            remedy="Leave them out, or train a policy with scores.",
        )
