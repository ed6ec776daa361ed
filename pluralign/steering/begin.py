"""Prefill: from requests to what the model continues, before any token of a response is drawn.

Shapes: B requests, T tokens of the longest context.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import SettingsError
from ..records import messages
from ..scoring.forward import text_config
from .requests import Request

if TYPE_CHECKING:
    from ..policy import Policy

__all__ = ["Begun", "begin", "contexts", "cut", "pad_id", "pad_left"]


@dataclass(frozen=True, slots=True)
class Begun:
    """A batch that is ready to be continued. Padding stands on the left; `mask` knows the structure, not the pad id.

    `cache` holds the keys and values of a prefix of `ids`, or is None where nothing has been computed yet.
    """

    ids: Tensor  # (B, T) int64
    mask: Tensor  # (B, T) 1 where a token of the context stands
    cache: Any | None
    attributes: list[dict[str, float]]  # the scores that stand in each context
    sensed: list[tuple[str, ...]]  # the names of those that the policy sensed


def begin(policy: Policy, requests: Sequence[Request]) -> Begun:
    """The contexts of a batch as tensors on the policy's device; a policy with a sensing head has read them by then.

    Raises SettingsError where a request cannot be met, RenderError where the template cannot show it.
    """
    if policy.scores is not None:
        from .self_guided import begin_scored

        return begin_scored(policy, requests)
    ids, mask = pad_left(policy, contexts(policy, requests)[0])
    return Begun(ids, mask, None, [{} for _ in requests], [() for _ in requests])


def pad_left(policy: Policy, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """(ids, mask) (B, T) of token lists, padded on the left, on the policy's device."""
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad_id(policy), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, width - len(row) :] = torch.tensor(row, dtype=torch.long)
        mask[i, width - len(row) :] = 1
    return ids.to(policy.device), mask.to(policy.device)


def pad_id(policy: Policy) -> int:
    """The id that fills rows up; no model looks at it."""
    pad = policy.tokenizer.pad_token_id
    return int(policy.renderer.stop_ids[0] if pad is None else pad)


def contexts(policy: Policy, requests: Sequence[Request]) -> tuple[list[list[int]], list[int]]:
    """(what the model is shown for each request, the tokens each had before it was cut).

    A context is cut from the left to what the model's positions leave beside the response; BOS stays.
    Raises SettingsError where they leave nothing, and for attributes that the policy cannot be shown.
    """
    limit = getattr(text_config(policy.model), "max_position_embeddings", None)
    shown, before = [], []
    for request in requests:
        if policy.scores is not None:
            from .self_guided import scored_context

            ids, length = scored_context(policy, request)
            before.append(length)
            shown.append(ids)
            continue
        _refuse_attributes(policy, request)
        room = limit - request.max_new_tokens if limit else None
        if room is not None and room < 1:
            raise SettingsError(
                f"max_new_tokens={request.max_new_tokens} leaves no room: the model has {limit} positions."
            )
        ids = policy.renderer.prompt(messages(request.turns), request.tools)
        before.append(len(ids))
        shown.append(cut(ids, room, policy.renderer.encoder.bos_id))
    return shown, before


def cut(ids: list[int], room: int | None, bos: int | None) -> list[int]:
    """The end of a context that fits into `room` tokens, after BOS."""
    if room is None or len(ids) <= room:
        return ids
    return [ids[0], *ids[len(ids) - room + 1 :]] if ids[0] == bos and room > 1 else ids[len(ids) - room :]


def _refuse_attributes(policy: Policy, request: Request) -> None:
    """Raises SettingsError for scores that would be shown to a policy that was never shown any."""
    if request.attributes:
        raise SettingsError(
            f'the policy "{policy.name}" takes no attribute scores (given: {", ".join(request.attributes)}).',
            remedy="Leave them out, or train a policy with scores.",
        )
