"""Dialogues: transcripts written as one string, and where two conversations part."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..errors import RecordError
from ..records import Message, Messages

_HH = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
_HEADED = re.compile(r"(?:\A\s*|\n)## (Human|Assistant):")
_TURN = re.compile(r"\n?<extra_id_1>(User|Assistant)\n")
_ROLE = {"Human": "user", "User": "user", "Assistant": "assistant"}


def is_transcript(value: object) -> bool:
    """Whether a text begins like `\\n\\nHuman: ...` (HH-RLHF) or `## Human:` (DSP)."""
    return isinstance(value, str) and bool(_HH.match(value) or _HEADED.match(value))


def split_transcript(transcript: str) -> list[tuple[str, str, str]]:
    """(role, marker, body) of every turn, verbatim: the joined markers and bodies are the transcript again."""
    marker = _HEADED if _HEADED.match(transcript) else _HH
    found = list(marker.finditer(transcript))
    if not found or found[0].start() > 0:
        raise RecordError('the transcript does not begin with "Human:" or "Assistant:".')
    ends = [m.start() for m in found[1:]] + [len(transcript)]
    return [(_ROLE[m.group(1)], m.group(), transcript[m.end() : end]) for m, end in zip(found, ends, strict=True)]


def read_transcript(transcript: str) -> Messages:
    """The turns of a transcript with the white space around them removed.

    Turns in a row by one speaker become one turn of several paragraphs: HH-RLHF has a few such rows, and chat
    templates insist on speakers who alternate.
    """
    turns: list[Message] = []
    for role, _, body in split_transcript(transcript):
        body = body.strip()
        if turns and turns[-1].role == role:
            body = f"{turns.pop().content}\n\n{body}".strip()
        turns.append(Message(role, body))
    return tuple(turns)


def read_marked_prompt(prompt: str) -> Messages:
    """HelpSteer's prompts: plain text, or turns parted by `<extra_id_1>User` and `<extra_id_1>Assistant` lines."""
    first, *rest = _TURN.split(prompt)
    turns = [Message("user", first)] if first else []
    turns += [Message(_ROLE[who], body) for who, body in zip(rest[::2], rest[1::2], strict=True)]
    if turns and turns[-1].role == "assistant" and not turns[-1].content.strip():
        turns.pop()  # an open assistant turn only says who speaks next
    return tuple(turns)


def split_prefix(conversations: Sequence[Messages], *, at_least: int = 0) -> tuple[Messages, tuple[Messages, ...]]:
    """The shared prompt of several conversations, and the response each of them gives to it.

    The prompt is the longest common prefix of turns (at least `at_least` of them) that leaves each conversation
    a response beginning and ending with the assistant. Raises RecordError where they part at somebody else's turn.
    """
    shortest = min(len(c) for c in conversations)
    common = 0
    while common < shortest and all(c[common] == conversations[0][common] for c in conversations):
        common += 1
    common = max(at_least, min(common, shortest - 1))
    while common > at_least and any(c[common].role == "tool" for c in conversations if common < len(c)):
        common -= 1
    responses = tuple(c[common:] for c in conversations)
    for response in responses:
        if response and response[0].role not in ("assistant", "tool"):
            raise RecordError(f"the conversations part at turn {common}, a {response[0].role} turn: no common prompt.")
        if response and response[-1].role != "assistant":
            raise RecordError(f"a response ends with a {response[-1].role} turn instead of the assistant's.")
    return conversations[0][:common], responses
