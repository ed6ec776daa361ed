"""Attributes that are measured: computed from the text of a response alone, so that what is true of it is known.

Word lists are English; counts of words, sentences, questions and list items hold for most languages.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from ..errors import SettingsError, nearest
from .texts import words

__all__ = ["FIRST_PERSON", "MEASURES", "POLITE", "check_measures", "measure"]

_ENDS = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s|$)|[。！？]+|\n+")
_QUESTIONS = re.compile(r"[?？؟]+")
_ITEMS = re.compile(r"^[ \t]*(?:[-*+•–]|\d{1,3}[.)]|[a-z][.)])[ \t]+\S", re.MULTILINE)

FIRST_PERSON = ("i", "me", "my", "mine", "myself", "we", "us", "our", "ours", "ourselves")
POLITE = (
    "please", "kindly", "thank you", "thanks", "thank you very much", "many thanks", "you're welcome",
    "you are welcome", "my pleasure", "sorry", "apologise", "apologize", "apologies", "excuse me", "pardon", "forgive",
    "appreciate", "grateful", "would you", "could you", "may i", "if you like", "if you wish", "if you don't mind",
    "would you mind", "happy to", "glad to", "of course", "with pleasure", "respectfully", "dear",
)  # fmt: skip
_POLITE = re.compile(
    r"\b(?:" + "|".join(sorted((re.escape(p) for p in POLITE), key=len, reverse=True)) + r")\b", re.IGNORECASE
)  # the longer marker counts once


def _sentences(text: str) -> int:
    """Pieces with a word between marks that end sentences, line breaks among them."""
    return sum(bool(words(piece)) for piece in _ENDS.split(text))


def _per_word(count: float, text: str) -> float | None:
    n = len(words(text))
    return count / n if n else None


def _letters(text: str) -> int:
    return sum(len(word) for word in words(text))


def _words_per_sentence(text: str) -> float | None:
    n = _sentences(text)
    return len(words(text)) / n if n else None


def _first_person(text: str) -> float | None:
    # "US" is a country more often than a shout
    return _per_word(sum(w.lower() in FIRST_PERSON and w != "US" for w in words(text)), text)


def _politeness(text: str) -> float | None:
    return _per_word(100.0 * len(_POLITE.findall(text.replace("’", "'"))), text)


def _textstat(name: str) -> Callable[[str], float | None]:
    """A formula of textstat; those taken here count characters, so that they need no dictionary of syllables."""

    def formula(text: str) -> float | None:
        return float(getattr(_library(), name)(text)) if words(text) else None

    return formula


def _library() -> Any:
    try:
        import textstat
    except ImportError:
        raise SettingsError(
            "readability is computed by textstat, which is not installed.", remedy="pip install 'pluralign[measure]'"
        ) from None
    return textstat


READABILITY = {
    "readability_grade": "automated_readability_index",
    "coleman_liau": "coleman_liau_index",
    "lix": "lix",
}  # ours: textstat's

# name: what it is, and the function from a text to it (None where it has no value)
MEASURES: dict[str, tuple[str, Callable[[str], float | None]]] = {
    "words": ("number of words; each character by itself in scripts without spaces", lambda t: float(len(words(t)))),
    "characters_per_word": ("letters and digits per word", lambda t: _per_word(_letters(t), t)),
    "sentences": ("number of sentences; a line break ends one", lambda t: float(_sentences(t))),
    "words_per_sentence": ("words per sentence", _words_per_sentence),
    "questions": ("number of question marks; several in a row are one", lambda t: float(len(_QUESTIONS.findall(t)))),
    "list_items": ("lines that begin with a bullet, a number or a letter", lambda t: float(len(_ITEMS.findall(t)))),
    "first_person": ("share of words that are I, we or a form of them (English)", _first_person),
    "politeness": ("markers of politeness per 100 words (English): please, thank you, sorry, ...", _politeness),
    "readability_grade": (
        "automated readability index, about a US school grade: 4.71 characters a word + 0.5 words a sentence - 21.43",
        _textstat(READABILITY["readability_grade"]),
    ),
    "coleman_liau": (
        "Coleman-Liau index, about a US school grade, from letters",
        _textstat(READABILITY["coleman_liau"]),
    ),
    "lix": ("LIX: words a sentence + percentage of words above six letters; for any language", _textstat("lix")),
}


def check_measures(names: Iterable[str]) -> tuple[str, ...]:
    """The names, if all of them can be measured here. Raises SettingsError."""
    names = tuple(names)
    for name in names:
        if name not in MEASURES:
            raise SettingsError(
                f'no measured attribute "{name}".{nearest(name, MEASURES)}', remedy=f"Known: {', '.join(MEASURES)}."
            )
    if any(name in READABILITY for name in names):
        _library()
    return names


def measure(names: Iterable[str], text: str) -> dict[str, float]:
    """{name: value} of a text. What has no value, such as letters per word of no words, is left out.

    Raises SettingsError for an unknown name, and where readability is asked for without the extra `measure`.
    """
    found = {name: MEASURES[name][1](text) for name in check_measures(names)}
    return {name: value for name, value in found.items() if value is not None}
