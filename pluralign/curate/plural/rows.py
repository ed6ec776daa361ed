"""What the builders of plural data share: rows of a source file, what became of each, and texts made comparable.

A builder takes rows and gives a `Built`: its records and where every row went (rows = used + the skipped, by reason).
"""

from __future__ import annotations

import hashlib
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...data.readers import json_lines
from ...errors import RecordError, SettingsError
from ...records import Message, Messages, Preference, messages

__all__ = ["Built", "Row", "comparable", "drawn", "holds", "one_of", "pair", "rows_of", "sentence"]

Row = Mapping[str, Any]
_NOT_WORDS = re.compile(r"[^\w\s]", re.UNICODE)
_ARTICLES = {"a", "an", "the"}


@dataclass(frozen=True, slots=True)
class Built:
    """Records, and what became of the source's rows. `notes` counts what was done within rows that were used."""

    records: tuple[Preference, ...]
    rows: int
    used: int
    skipped: Mapping[str, int] = field(default_factory=dict)
    notes: Mapping[str, int] = field(default_factory=dict)

    @property
    def balanced(self) -> bool:
        """Whether every row is accounted for."""
        return self.rows == self.used + sum(self.skipped.values())

    @property
    def intents(self) -> tuple[str, ...]:
        """The intents of the records, the most frequent first, equal ones by name."""
        counts = Counter(record.intent for record in self.records if record.intent is not None)
        return tuple(sorted(counts, key=lambda intent: (-counts[intent], intent)))

    def report(self) -> dict[str, Any]:
        """A JSON-ready account."""
        groups = {record.group for record in self.records if record.group is not None}
        own = {"rows": self.rows, "used": self.used, "skipped": dict(self.skipped), "notes": dict(self.notes)}
        return {**own, "records": len(self.records), "intents": len(self.intents), "groups": len(groups)}


def rows_of(path: str | Path) -> Iterator[Row]:
    """The rows of a .jsonl or .jsonl.gz file. Raises SettingsError where there is none, RecordError for a bad line."""
    path = Path(path)
    if not path.is_file():
        raise SettingsError(f"there is no file {path}.", remedy="Name a .jsonl or .jsonl.gz file.")
    for raw in json_lines(path):
        if raw.error is not None:
            raise RecordError(raw.error, where=f"{path}:{raw.place}", remedy="Mend the line or take it out.")
        if raw.row is not None:
            yield raw.row


def pair(prompt: str | Messages, chosen: str, rejected: str, **known: Any) -> Preference:
    """A validated pair of a prompt (a text is one user turn) and two answers. Raises RecordError where they are one."""
    made = Preference(
        prompt=messages(prompt),
        chosen=(Message("assistant", chosen),),
        rejected=(Message("assistant", rejected),),
        **known,
    )
    return made.validate()


def comparable(text: str) -> str:
    """A text for comparison: small letters without accents, articles and punctuation, single spaces."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))
    words = _NOT_WORDS.sub(" ", plain.replace("'", "").replace("\N{RIGHT SINGLE QUOTATION MARK}", "")).split()
    return " ".join(word for word in words if word not in _ARTICLES) or " ".join(words)


def holds(text: str, part: str) -> bool:
    """Whether a text contains another as whole words, both made `comparable`. An empty part is contained in nothing."""
    sought = comparable(part)
    return bool(sought) and f" {sought} " in f" {comparable(text)} "


def sentence(text: str, end: str = ".") -> str:
    """A text with a capital at its beginning and a mark at its end."""
    text = " ".join(text.split()).strip()
    whole = text[:1].upper() + text[1:]
    return whole if whole.endswith((".", "!", "?")) else whole + end


def drawn(seed: int, *key: str) -> random.Random:
    """A source of draws that depends on the seed and a key alone, so that added rows move no draw of the others."""
    digest = hashlib.sha256("\n".join((str(seed), *key)).encode("utf-8", "surrogatepass")).digest()
    return random.Random(int.from_bytes(digest[:8], "big"))


def one_of(texts: Sequence[str], *, seed: int, key: str) -> str:
    """One of several texts, by seed and key."""
    return drawn(seed, "one of", key).choice(list(texts))
