"""Beliefs: the options of a question, how people are spread over them, and how one of them begins a response.

A record of beliefs is a pair whose `meta` holds `options` (K texts), `probabilities` (K shares, which add up to 1) and
`accept` (the option that the chosen response argues for, counted from 0); `reject` and `majority` where they are known.
In a response option k stands as `{number}<{text}>` before the answer (GDPO: Yao et al. 2025, arXiv 2412.20299):
ordinary text, no new tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import RecordError
from ..records import Record

__all__ = ["SUM_TOLERANCE", "Beliefs", "beliefs_of", "shares_of"]

SUM_TOLERANCE = 0.02  # published shares are rounded: 33 + 33 + 33 per cent


@dataclass(frozen=True, slots=True)
class Beliefs:
    """K options with their shares p*(b | x). `accept` is the option of the chosen response, `majority` whether no other
    option has a larger share (or what the data say of it)."""

    options: tuple[str, ...]
    shares: tuple[float, ...]
    accept: int
    majority: bool

    def __len__(self) -> int:
        return len(self.options)

    def number(self, k: int) -> str:
        """Option k as the response writes it: all numbers are of one length, so that none begins another."""
        return f"{k:0{len(str(len(self) - 1))}d}"

    def words(self, k: int) -> str:
        """The text of option k behind its number."""
        return f"<{self.options[k]}>"

    def pieces(self, k: int) -> tuple[str, str]:
        """What a response that holds option k begins with, tokenised apart."""
        return self.number(k), self.words(k)


def beliefs_of(record: Record) -> Beliefs:
    """The beliefs of a record. Raises RecordError where it has none, or where they do not fit together."""
    meta = record.meta
    missing = [name for name in ("options", "probabilities", "accept") if meta.get(name) is None]
    if missing:
        raise RecordError(
            f"the objective reads beliefs, and this row has no {' and no '.join(missing)}.",
            remedy="Give every row options, probabilities and accept_choice_id (docs/data-formats.md, beliefs).",
        )
    options = texts_of(meta["options"])
    shares = shares_of(meta["probabilities"], len(options))
    accept = option_number(meta["accept"], "accept", len(options))
    said = meta.get("majority")
    if said is not None and not isinstance(said, bool):
        raise RecordError(f'"majority" is {said!r}: expected true or false.')
    return Beliefs(options, shares, accept, shares[accept] == max(shares) if said is None else said)


def texts_of(value: Any, name: str = "options") -> tuple[str, ...]:
    """The texts of all options. Raises RecordError where there is none, one is empty, or two are the same."""
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise RecordError(f'expected a list of texts in "{name}".')
    if not all(isinstance(text, str) and text.strip() for text in value):
        raise RecordError(f'"{name}" holds an option that is no text, or empty.')
    if len(set(value)) < len(value):
        raise RecordError(f'"{name}" holds an option twice.')
    return tuple(value)


def shares_of(value: Any, options: int, name: str = "probabilities") -> tuple[float, ...]:
    """Shares that add up to 1, those of rounded tables made to. Raises RecordError for anything that is none."""
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != options:
        raise RecordError(f'expected {options} numbers in "{name}", one an option.')
    if not all(isinstance(p, int | float) and not isinstance(p, bool) and math.isfinite(p) and p >= 0 for p in value):
        raise RecordError(f'"{name}" holds what is no share: a finite number of at least 0.')
    total = math.fsum(value)
    if abs(total - 1) > SUM_TOLERANCE:
        raise RecordError(f'"{name}" adds up to {total:.4g}, not to 1.', remedy="Divide by the sum if it is a count.")
    return tuple(p / total for p in value)


def option_number(value: Any, name: str, options: int) -> int:
    """The number of an option. Raises RecordError where there is no such option."""
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < options:
        raise RecordError(f'"{name}" is {value!r}: expected the number of an option, 0 to {options - 1}.')
    return value
