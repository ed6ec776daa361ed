"""Untrusted text in a prompt, so that it cannot end the place it stands in, nor write what only the judge may write.

A delimiter with a mark that is a digest of the text itself is unknown to whoever wrote the text, and the same every
time: prompts stay equal, and so do the keys of stored replies. What chat templates use as control tokens loses its
form, because many servers read them in any text.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence

__all__ = ["escaped", "fenced", "inert", "mark_of", "quoted"]

MARK = 8  # hex digits
# ChatML, Llama, Phi, DeepSeek: <|...|>; Llama 2, Mistral: [INST], <<SYS>>; Gemma: <start_of_turn>; ends: </s>, <eos>
_CONTROL = re.compile(
    r"<(?=[|｜][^\s|｜<>]{1,60}[|｜]>)|<(?=/?(?:s|bos|eos|pad|unk|start_of_turn|end_of_turn|think)>)|<(?=</?SYS>>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_RESULTS|TOOL_CALLS)\])",
    re.IGNORECASE,
)


def inert(text: str) -> str:
    """The text with a blank in whatever is written like a control token: `<|im_end|>` becomes `< |im_end|>`."""
    return _CONTROL.sub(lambda found: f"{found[0]} ", text)


def escaped(json_text: str) -> str:
    """JSON with such signs as `\\u003c`: no control token, and the same value."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", json_text)


def quoted(text: str) -> str:
    """The text as one JSON string on one line."""
    return escaped(json.dumps(text, ensure_ascii=False)).replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def mark_of(texts: Sequence[str]) -> str:
    """A mark that occurs in none of the texts and is the same for the same texts."""
    seed = json.dumps(list(texts)).encode()
    for turn in range(1 << 16):
        mark = hashlib.sha256(seed + turn.to_bytes(2, "big")).hexdigest()[:MARK]
        if not any(mark in text for text in texts):
            return mark
    raise ValueError("no mark is free.")  # texts of gigabytes could hold them all


def fenced(text: str, label: str, mark: str) -> str:
    """The text between two lines that name it, `<<<label mark` and `mark label>>>`, its control tokens made inert."""
    if mark in text:
        raise ValueError(f"the mark {mark} occurs in the text.")
    return f"<<<{label} {mark}\n{inert(text)}\n{mark} {label}>>>"
