"""Filters on what a record is like: how long its responses are, how sure its annotator was."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Literal, TypeVar, get_args

from ..errors import SettingsError, nearest
from ..records import Preference, Record
from .pipeline import Count, Step, judged
from .texts import responses, said, words

__all__ = [
    "Counter",
    "Missing",
    "batches",
    "chosen_of",
    "length_filter",
    "quality_filter",
    "token_counter",
    "word_counter",
]

Counter = Callable[[list[str]], list[int]]  # the length of each text
Missing = Literal["keep", "drop"]
T = TypeVar("T")
BATCH = 256


def batches(records: Iterable[T], size: int = BATCH) -> Iterator[list[T]]:
    """The records, so many at a time."""
    stream = iter(records)
    while batch := list(islice(stream, size)):
        yield batch


def chosen_of(value: str, known: Iterable[str], what: str) -> None:
    """Raises SettingsError where a word is none of the known ones."""
    known = tuple(known)
    if value not in known:
        raise SettingsError(f'unknown {what} "{value}".{nearest(value, known)}', remedy=f"Known: {', '.join(known)}.")


# Length


def word_counter(texts: list[str]) -> list[int]:
    """Words of each text; in scripts without spaces each character is one."""
    return [len(words(text)) for text in texts]


def token_counter(tokenizer: Any) -> Counter:
    """Tokens of each text by a tokenizer of transformers, without special tokens and without a chat template."""

    def count(texts: list[str]) -> list[int]:
        encoded = tokenizer(texts, add_special_tokens=False, verbose=False)
        return [len(ids) for ids in encoded["input_ids"]]

    return count


def length_filter(
    *, longest: int = 2048, shortest: int = 32, counter: Counter = word_counter, unit: str = "words"
) -> Step:
    """Drop records with a response above `longest`, or with all responses below `shortest` (InSPO, D.2, in tokens).

    `counter` measures texts in `unit`; the default counts words. A response of several turns is measured as a whole.
    Raises SettingsError for limits that cross.
    """
    if not 0 <= shortest <= longest:
        raise SettingsError(f"a response cannot have at least {shortest:,} and at most {longest:,} {unit}.")

    def run(records: Iterable[Record], count: Count) -> Iterator[Record]:
        for batch in batches(records):
            found = [responses(record) for record in batch]
            lengths = iter(counter([said(response) for many in found for response in many]))
            for record, many in zip(batch, found, strict=True):
                own = list(islice(lengths, len(many)))
                if own and max(own) > longest:
                    count.drop(record, "too long", lengths=own, unit=unit)
                elif own and max(own) < shortest:
                    count.drop(record, "too short", lengths=own, unit=unit)
                else:
                    yield record

    return Step("length", run, {"longest": longest, "shortest": shortest, "unit": unit})


# Quality


def quality_filter(
    *, least: float = 0.6, field: str = "confidence", from_margin: bool = False, missing: Missing = "keep"
) -> Step:
    """Drop records whose annotator was less sure than `least` (InSPO, D.2).

    The confidence is `meta[field]` (dots reach inside objects), a number from 0 to 1. With `from_margin` it is
    sigma(margin) of the pair instead: the probability of its order under Bradley-Terry, if margins are log odds.
    Records without a number there are counted apart, and kept unless `missing` is "drop".

    Raises SettingsError for a confidence outside [0, 1], which no threshold here could judge.
    """
    chosen_of(missing, get_args(Missing), "treatment of records without a confidence")
    if not 0 <= least <= 1:
        raise SettingsError(f"a confidence lies between 0 and 1, not at {least}.")
    name = "margin" if from_margin else field

    def judge(record: Record, count: Count) -> Mapping[str, Any] | None:
        value = _sigma(record) if from_margin else _number(_reach(record.meta, field))
        if value is None:
            absent = f"no {name}"
            if missing == "drop":
                return {"reason": absent}
            count.noted[absent] += 1
            return None
        if not 0 <= value <= 1:
            raise SettingsError(
                f'{record.where or "a record"}: "{field}" is {value:g}, and a confidence lies between 0 and 1.',
                remedy="Name another field, or rescale it.",
            )
        return {"reason": "unsure", "confidence": round(value, 4)} if value < least else None

    stated = {"least": least, "field": None if from_margin else field, "from_margin": from_margin, "missing": missing}
    return Step("quality", judged(judge), stated)


def _sigma(record: Record) -> float | None:
    margin = _number(record.margin) if isinstance(record, Preference) else None
    return None if margin is None else 0.5 * (1 + math.tanh(margin / 2))


def _reach(meta: Any, path: str) -> Any:
    if isinstance(meta, Mapping) and path in meta:
        return meta[path]
    first, dot, rest = path.partition(".")
    return _reach(meta.get(first), rest) if dot and isinstance(meta, Mapping) else None


def _number(value: Any) -> float | None:
    """A finite number, or text that spells one; anything else is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None
