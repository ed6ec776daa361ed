"""The other response in a context: its texts, its tokens, and how it gives way where room is short.

The alternative is rendered exactly as the target of x is (same texts, same tokens), so that x, y_l is a prefix of
x, y_l, y_w, and one pass reads both. What stands between it and the target is a separator, or what the chat template
prints for one more request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import RenderError
from ..records import Message, Messages
from ..terms import Alternative
from .controls import Controls
from .parts import Segment, Style, split
from .template import Tools

__all__ = ["Insert", "Middle", "fit", "insert", "separator"]

SEPARATORS = ("<|sep|>", "[SEP]", "<sep>", "<SEP>")  # as tokenizers name theirs


@dataclass(frozen=True, slots=True)
class Insert:
    """The texts between prompt and target. `turns` and `prompt`: the conversation that the target continues."""

    segments: tuple[Segment, ...]
    after: str
    turns: Messages
    prompt: str
    cap: float | None
    closes: bool  # whether a shortened alternative keeps its end of turn


@dataclass(frozen=True, slots=True)
class Middle:
    """Token ids of an Insert: the response's own, its end of turn, what follows; and its longest length as a part."""

    body: list[int]
    end: list[int]
    after: list[int]
    cap: float | None


def separator(name: str, sep_token: str | None, controls: Controls) -> str:
    """The text of a separator. "auto": the tokenizer's own, else a special token named like one, else plain "[SEP]"."""
    if name != "auto":
        return name
    return sep_token or next((s for s in SEPARATORS if s in controls.tokens), "[SEP]")


def insert(
    style: Style, prompt: str, turns: Messages, other: Alternative, response: Messages, after: str, tools: Tools
) -> Insert:
    """The texts that show `response` (veiled where the row is) after `prompt`, the rendering of `turns`.

    Raises RenderError where the template does not print a conversation as the beginning of a longer one.
    """
    segments = split(style, prompt, turns, response, tools).segments
    if other.style == "separator":
        bare = tuple(Segment(s.text.removesuffix(s.end) if s.end else s.text, s.scored) for s in segments)
        return Insert(bare, after, turns, prompt, other.cap, closes=False)
    more = (*turns, *response, Message("user", other.ask))
    following = style.template.write(more, tools, True)
    written = prompt + "".join(s.text for s in segments)
    if not following.startswith(written):
        raise RenderError(
            "the template prints a response differently once another turn follows it.",
            remedy="Set conditioning.style=separator.",
        )
    return Insert(segments, following[len(written) :], more, following, other.cap, closes=True)


def middle(parts: Insert, pieces: Sequence[list[int]], after: list[int]) -> Middle:
    """The ids of an insert from those of its segments; the end-of-turn token stands apart, so that it is never cut."""
    body = [i for piece in pieces for i in piece]
    end = body[-1:] if parts.closes and parts.segments[-1].end else []
    return Middle(body[: len(body) - len(end)], end, after, parts.cap)


def fit(m: Middle, prompt: int, target: int, max_length: int) -> tuple[list[int], int]:
    """(ids, tokens lost): the alternative capped, and shortened further where prompt and target leave less room."""
    fixed = len(m.end) + len(m.after)
    limit = max(0, max_length - prompt - target - fixed)
    if m.cap is not None:
        limit = min(limit, int(m.cap * max_length))
    return m.body[:limit] + m.end + m.after, max(0, len(m.body) - limit)
