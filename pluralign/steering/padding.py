"""Rows of different lengths as one batch that is continued: padding stands on the left.

Shapes: B rows, T tokens of the longest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ..policy import Policy

__all__ = ["Begun", "cut", "pad_id", "pad_left"]


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
    intents: list[tuple[str, float | None]] = field(default_factory=list)  # each one's intent, and q(I | x) if inferred


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


def cut(ids: list[int], room: int | None, bos: int | None) -> list[int]:
    """The end of a context that fits into `room` tokens, after BOS."""
    if room is None or len(ids) <= room:
        return ids
    return [ids[0], *ids[len(ids) - room + 1 :]] if ids[0] == bos and room > 1 else ids[len(ids) - room :]
