"""What a format is: a function from a row to records, and how its rows are recognised."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..records import Record
from .fields import Row


@dataclass(frozen=True, slots=True)
class Skip:
    """A row (or a part of one) that is sound but makes no record, a tie for example. Counted by reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class Options:
    """What a person may choose about reading. `group`: whose response is preferred in rows with one response per
    group ("all" for each group in turn). `by`: the score that orders the responses ("mean" for their average)."""

    group: str | None = None
    by: str | None = None


Read = Callable[[Row, Options], Iterable[Record | Skip]]
ReadTogether = Callable[[Sequence[Row], Options], Iterable[Record | Skip]]


@dataclass(frozen=True, slots=True)
class Format:
    """One public layout of rows.

    `needs` names the fields that mark the format (for "nearest format" in messages); `recognise` looks at one row.
    A format with `key` reads consecutive rows of equal key together; `key` raises RecordError for a bad row.
    `orders` are the values `Options.by` may take; `groups` names the groups of a row where one must be chosen.
    """

    name: str
    title: str
    describe: str
    needs: tuple[str, ...]
    recognise: Callable[[Row], bool]
    example: tuple[dict[str, Any], ...]
    read: Read | None = None
    key: Callable[[Row], Hashable] | None = None
    read_together: ReadTogether | None = None
    orders: tuple[str, ...] = ()
    groups: Callable[[Row], tuple[str, ...]] | None = None
