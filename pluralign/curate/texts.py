"""What the steps compare and measure: the responses of a record, its words, and who judged it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from typing import Any, Literal, get_args

from ..errors import SettingsError, nearest
from ..records import Demonstration, Labelled, Message, Messages, Preference, Ranked, Record

__all__ = [
    "NORMALISATIONS",
    "Normalise",
    "digest",
    "identity",
    "normaliser",
    "ordered",
    "part_key",
    "responses",
    "said",
    "words",
]

Normalise = Literal["none", "space", "case"]
NORMALISATIONS = get_args(Normalise)
# One word a character for scripts that part no words (Han, kana, Thai, Lao, Khmer, Burmese), else runs of letters.
_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\U00020000-\U0003ffff]"
    r"|[^\W\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
    r"\U00020000-\U0003ffff]+"
)


def words(text: str) -> list[str]:
    """Runs of letters, digits and underscores; each character by itself in scripts without spaces."""
    return _WORD.findall(text)


def responses(record: Record) -> tuple[Messages, ...]:
    """The responses of a record, as it names them: chosen before rejected, a ranking in the order of the row."""
    if isinstance(record, Preference):
        return (record.chosen, record.rejected)
    if isinstance(record, Ranked):
        return record.responses
    if isinstance(record, Demonstration | Labelled):
        return (record.response,)
    return ()


def ordered(record: Record) -> tuple[tuple[Messages, ...], str]:
    """The responses from best to worst, and what is said of them: the same twice means the same preference.

    Responses of equal score are put in the order of their text, so that the order of the row does not matter.
    """
    if isinstance(record, Ranked):
        texts = [part_key(r) for r in record.responses]
        order = sorted(range(len(texts)), key=lambda i: (-record.scores[i], texts[i]))
        places = sorted(set(record.scores), reverse=True)
        ranks = " ".join(str(places.index(record.scores[i])) for i in order)
        return tuple(record.responses[i] for i in order), ranks
    if isinstance(record, Labelled):
        return _with_alternative(record), str(record.label)
    if isinstance(record, Demonstration):
        return _with_alternative(record), ""
    return responses(record), ""


def _with_alternative(record: Demonstration | Labelled) -> tuple[Messages, ...]:
    return (record.response, record.alternative) if record.alternative else (record.response,)


def said(turns: Messages) -> str:
    """The text of some turns, one after another; calls of tools are said, too."""
    calls = ((turn.content, turn.extra.get("tool_calls")) for turn in turns)
    texts = (part for content, call in calls for part in (content, json.dumps(call, default=str) if call else ""))
    return "\n\n".join(filter(None, texts))


def normaliser(how: str) -> Any:
    """The function that makes texts comparable. "none": as they are. "space": runs of white space are one space, none
    at the ends. "case": that, and without regard to case. Raises SettingsError for another word."""
    if how not in NORMALISATIONS:
        raise SettingsError(
            f'unknown normalisation "{how}".{nearest(how, NORMALISATIONS)}',
            remedy=f"Known: {', '.join(NORMALISATIONS)}.",
        )
    if how == "none":
        return lambda text: text
    if how == "space":
        return lambda text: " ".join(text.split())
    return lambda text: " ".join(text.split()).casefold()


def part_key(turns: Messages, normalise: Any = None) -> bytes:
    """16 bytes that are equal for equal turns: roles, texts and what else a turn carries (calls of tools)."""
    same = normalise or (lambda text: text)
    return digest(_turn(turn, same) for turn in turns)


def _turn(turn: Message, normalise: Any) -> str:
    extra = json.dumps(dict(turn.extra), sort_keys=True, default=str) if turn.extra else ""
    return f"{turn.role}\x00{normalise(turn.content)}\x00{extra}"


def digest(parts: Iterable[str | bytes]) -> bytes:
    """blake2b, 16 bytes, over the parts with their lengths, so that no two lists of parts run together."""
    out = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass")
        out.update(len(data).to_bytes(8, "big"))
        out.update(data)
    return out.digest()


def identity(record: Record, *, across: bool) -> bytes:
    """What must agree besides the texts: kind, tools and, unless `across` annotators, whose preference it is."""
    kept = [type(record).__name__, json.dumps(record.tools, sort_keys=True, default=str) if record.tools else ""]
    kept += [] if across else [repr(record.group), repr(record.user)]
    return digest(kept)
