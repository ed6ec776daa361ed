"""A text in sentences, and a long text in passages: what fact checking and the knowledge base work on.

English ends a sentence with one of . ! ? ; and white space, or with a line; Chinese and Japanese with their own marks.
A full stop ends none after an initial, a month, a title, "et al", other abbreviations, or the number of a list's item
(the splitter of ANAH-v2's annotation, with its exceptions).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..curate.texts import words

__all__ = ["passages_of", "sentences"]

PASSAGE = 100  # words
_END = re.compile(r"[.!?;]+[)\]\"'”’]*(?=\s)|[。！？；]+[」』”’）]*|\n+")
# what a full stop after it does not end, whatever follows
_ALWAYS_TEXT = (
    "jan feb mar apr jun jul aug sep sept oct nov dec mr mrs ms mx dr prof st mt ft rev hon gen gov sen rep lt col sgt "
    "capt cmdr adm al vs eg e.g ie i.e cf ca approx fig figs eq no nos vol pp ed eds dept"
)
_ALWAYS = frozenset(_ALWAYS_TEXT.split())
_SOMETIMES = frozenset(("etc", "inc", "ltd", "co", "corp", "jr", "sr", "bros", "est"))  # no end before a small letter
_WORD_BEFORE = re.compile(r"[\w.]+\Z")
_ITEM = re.compile(r"(?:\A|\n)[ \t]*(?:\d{1,3}|[a-zA-Z])\Z")


def sentences(text: str) -> list[str]:
    """The sentences of a text, in order, white space at their ends aside; none is empty."""
    found, start = [], 0
    for mark in _END.finditer(text):
        if mark[0].startswith(".") and not _ends(text[start : mark.start()], text[mark.end() :], mark[0]):
            continue
        found.append(text[start : mark.end()])
        start = mark.end()
    found.append(text[start:])
    return [" ".join(part.split()) for part in found if words(part)]


def _ends(before: str, after: str, mark: str) -> bool:
    """Whether a full stop ends a sentence."""
    if _ITEM.search(before):
        return False
    last = _WORD_BEFORE.search(before)
    word = last[0] if last else ""
    if mark != "." or not word:  # an ellipsis, or a quotation mark comes after the stop
        return True
    if (len(word) == 1 and word.isupper()) or word.lower() in _ALWAYS or "." in word:  # "J", "Jan", "U.S", "e.g"
        return "." in word and not word.replace(".", "").isalpha()  # "in 3.5." ends one
    return not (word.lower() in _SOMETIMES and after.lstrip()[:1].islower())


def passages_of(text: str, size: int = PASSAGE) -> Iterator[str]:
    """The text in passages of whole sentences, of about `size` words each and alike in length; line ends part none.

    A sentence longer than that is a passage by itself.
    """
    parts = [(sentence, len(words(sentence))) for sentence in sentences(text)]
    total = sum(n for _, n in parts)
    wanted = total / max(1, round(total / size))
    held: list[str] = []
    seen, ends = (
        0,
        1,
    )  # ends are counted from the text's beginning, so that shortfalls do not add up to one passage more
    for sentence, n in parts:
        if held and seen + n / 2 > wanted * ends:
            yield " ".join(held)
            held, ends = [], max(ends + 1, round(seen / wanted) + 1)
        held.append(sentence)
        seen += n
    if held:
        yield " ".join(held)
