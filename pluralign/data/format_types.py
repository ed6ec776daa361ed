"""What a format is: a function from a row to records, and how its rows are recognised."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
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
    `orders` are the values `Options.by` may take, or a function from a row to them; `groups` names the groups of a row
    where one must be chosen. `ranges` are the scales that its attributes are known to have: {name: (lowest, highest)}.
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
    orders: tuple[str, ...] | Callable[[Row], tuple[str, ...]] = ()
    groups: Callable[[Row], tuple[str, ...]] | None = None
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def unit_mean(values: Mapping[str, float | None], ranges: Mapping[str, tuple[float, float]]) -> float | None:
    """The mean of the values that are known, each on its range: the lowest is 0, the highest 1 (SGA, B.2). Values of no
    known range count as they are. None where no value is known."""
    known = [(v - low) / (high - low) for v, (low, high) in _with_ranges(values, ranges)]
    return sum(known) / len(known) if known else None


def _with_ranges(
    values: Mapping[str, float | None], ranges: Mapping[str, tuple[float, float]]
) -> Iterable[tuple[float, tuple[float, float]]]:
    return ((v, ranges.get(name, (0.0, 1.0))) for name, v in values.items() if v is not None)
