"""What a safety classifier says of a conversation, and how its words are read."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..records import Messages

__all__ = ["Classifier", "Verdict", "parse_verdict"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`safe` is None where the classifier's answer could not be read; `answer` is then what it said instead."""

    safe: bool | None
    categories: tuple[str, ...] = ()
    answer: str = ""


Classifier = Callable[[Sequence[Messages]], list[Verdict]]  # one verdict for each conversation, about its last turn

_UNSAFE = re.compile(r"unsafe(?:\s*\n\s*([A-Z]\d{1,2}(?:\s*,\s*[A-Z]\d{1,2})*))?")


def parse_verdict(answer: str) -> Verdict:
    """`safe`, or `unsafe` and a line of categories (`S1,S10`), white space around them aside. Anything else is no
    verdict: a classifier that says more than it should has not understood."""
    text = answer.strip()
    if text == "safe":
        return Verdict(True)
    found = _UNSAFE.fullmatch(text)
    if found is None:
        return Verdict(None, answer=text[:200])
    return Verdict(False, tuple(c.strip() for c in (found.group(1) or "").split(",") if c.strip()))
