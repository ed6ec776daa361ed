"""Untrusted text in a prompt, so that it cannot end the place it stands in, nor write what only the judge may write.

A delimiter with a mark that is a digest of the text itself is unknown to whoever wrote the text, and the same every
time: prompts stay equal, and so do the keys of stored replies.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

__all__ = ["fenced", "mark_of", "quoted"]

MARK = 8  # hex digits


def quoted(text: str) -> str:
    """The text as one JSON string on one line."""
    return json.dumps(text, ensure_ascii=False).replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def mark_of(texts: Sequence[str]) -> str:
    """A mark that occurs in none of the texts and is the same for the same texts."""
    seed = json.dumps(list(texts)).encode()
    for turn in range(1 << 16):
        mark = hashlib.sha256(seed + turn.to_bytes(2, "big")).hexdigest()[:MARK]
        if not any(mark in text for text in texts):
            return mark
    raise ValueError("no mark is free.")  # texts of gigabytes could hold them all


def fenced(text: str, label: str, mark: str) -> str:
    """The text between two lines that name it: `<<<label mark` and `mark label>>>`."""
    if mark in text:
        raise ValueError(f"the mark {mark} occurs in the text.")
    return f"<<<{label} {mark}\n{text}\n{mark} {label}>>>"
