"""`load`: any source of rows as validated records, every row accounted for."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

from ..errors import RecordError, SettingsError, nearest
from ..records import Record
from .conversions import HOWS, How, Responses, as_kind
from .fields import Row, need, one_line
from .format_types import Format, Options, Skip
from .formats import COLUMNS, check_options, named_format, recognise_most, unrecognised
from .formats_native import KINDS
from .locate import Part, locate
from .quarantine import DEFAULT_QUARANTINE, Quarantine, category
from .readers import Raw

BadRows = Literal["stop", "quarantine"]
PEEK_ROWS = 64
SURVEY_SECONDS = 5.0  # of computing time, so that a busy machine does not change the message
_NOUNS = {
    "Preference": ("pair", "pairs"),
    "Demonstration": ("demonstration", "demonstrations"),
    "Labelled": ("labelled response", "labelled responses"),
    "Ranked": ("ranking", "rankings"),
}


@dataclass(slots=True)
class Counts:
    """What one pass over a source met. Every row read is used, set aside (bad) or made no record (skipped).

    At the end of a pass `rows` = `used` + the sum of `bad` + the sum of `skipped`. `records` may exceed `used`, since
    a row may make several; `partial` counts what rows that did make records left out (a tie in a ranked list).
    Blank lines are no rows.
    """

    rows: int = 0
    used: int = 0
    records: int = 0
    blank: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    bad: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    partial: Counter[str] = field(default_factory=Counter)
    first_bad: str = ""
    complete: bool = False
    limited: bool = False

    @property
    def balanced(self) -> bool:
        return self.rows == self.used + self.bad.total() + self.skipped.total()


def load(
    source: str | Path | Iterable[Any],
    *,
    format: str = "auto",
    split: str | None = None,
    streaming: bool = False,
    bad_rows: BadRows = "stop",
    quarantine: str | Path | None = None,
    limit: int | None = None,
    kind: type[Record] | str | None = None,
    columns: Mapping[str, str] | None = None,
    group: str | None = None,
    by: str | None = None,
    pairs: How = "best_worst",
    responses: Responses = "best",
) -> Loaded:
    """Records from a hub data set (`org/name`, `org/name:config`), a file, a folder of files, or rows in memory.

    Nothing is held: each iteration of the result reads the source again. `streaming` streams hub data sets instead
    of downloading them, and reads an iterator once instead of keeping its rows. `kind` ("preference", ...) is what
    the caller needs: records of other kinds are converted where that has a meaning (`pairs`: how rankings make
    pairs; `responses`: whether the "best" of several responses makes a demonstration, or "all" of them do).
    `columns` maps our field names to the source's ("chosen": "best", dots reach inside objects), `group` and `by`
    are the choices some formats leave to a person. `limit` stops after so many records.

    A bad row raises RecordError (`bad_rows="stop"`) with its place and the remedy, or is written to `quarantine`
    (default runs/quarantine.jsonl) and counted. Raises SettingsError for a source or option that does not exist.
    """
    if bad_rows not in get_args(BadRows):
        known = ", ".join(get_args(BadRows))
        raise SettingsError(f'unknown treatment of bad rows "{bad_rows}".', remedy=f"Known: {known}.")
    if limit is not None and limit < 1:
        raise SettingsError(f"limit must be at least 1, not {limit}.")
    if pairs not in HOWS:
        raise SettingsError(f'unknown way to make pairs "{pairs}".{nearest(pairs, HOWS)}', remedy=", ".join(HOWS) + ".")
    if responses not in get_args(Responses):
        raise SettingsError(f'unknown choice of responses "{responses}".', remedy="Known: best, all.")
    if columns:
        for name in columns:
            if name not in COLUMNS:
                raise SettingsError(f'no format reads a field "{name}".{nearest(name, COLUMNS)}')
    name, parts = locate(source, split=split, streaming=streaming)
    return Loaded(
        name,
        parts,
        format=None if format == "auto" else named_format(format),
        options=Options(group, by),
        columns=dict(columns or {}),
        kind=_kind(kind),
        pairs=pairs,
        responses=responses,
        limit=limit,
        quarantine=Quarantine(quarantine or DEFAULT_QUARANTINE, name) if bad_rows == "quarantine" else None,
    )


def _kind(kind: type[Record] | str | None) -> type[Record] | None:
    if kind is None or (isinstance(kind, type) and kind in KINDS.values()):
        return kind
    if isinstance(kind, str) and kind.lower() in KINDS:
        return KINDS[kind.lower()]
    raise SettingsError(f"unknown kind of record {kind!r}.", remedy=f"Known: {', '.join(KINDS)}.")


class Loaded:
    """Records of a source. Iterating reads the source again from its start; `counts` is about the latest pass."""

    def __init__(
        self,
        name: str,
        parts: Sequence[Part],
        *,
        format: Format | None,
        options: Options,
        columns: Mapping[str, str],
        kind: type[Record] | None,
        pairs: How,
        responses: Responses,
        limit: int | None,
        quarantine: Quarantine | None,
    ) -> None:
        self.name = name
        self.counts = Counts()
        self.quarantine = quarantine
        self._parts, self._options, self._columns = list(parts), options, columns
        self._kind, self._pairs, self._responses, self._limit = kind, pairs, responses, limit
        self._formats = [self._detect(part, format) for part in self._parts]

    @property
    def format(self) -> str:
        """The name of the format, or the names where the files of a folder differ."""
        return ", ".join(dict.fromkeys(f.name for f in self._formats))

    @property
    def title(self) -> str:
        return ", ".join(dict.fromkeys(f.title for f in self._formats))

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """The scales that attributes are known to have: {name: (lowest, highest)}. Where the files of a folder differ
        in a scale, none is known."""
        known: dict[str, set[tuple[float, float]]] = {}
        for form in self._formats:
            for name, (low, high) in form.ranges.items():
                known.setdefault(name, set()).add((float(low), float(high)))
        return {name: next(iter(scales)) for name, scales in known.items() if len(scales) == 1}

    def __iter__(self) -> Iterator[Record]:
        self.counts = counts = Counts()
        for record in islice(self._pass(counts), self._limit):
            counts.records += 1
            counts.kinds[type(record).__name__] += 1
            yield record
        counts.complete = True
        counts.limited = counts.records == self._limit
        if not counts.records:
            raise RecordError(f"no record in {_many(counts.rows, 'row')} ({_reasons(counts)}).", where=self.name)

    def records(self) -> list[Record]:
        """All records at once, in memory."""
        return list(self)

    def count(self) -> Counts:
        """The counts of a complete pass, read now if none has been."""
        if not self.counts.complete:
            for _ in self:
                pass
        return self.counts

    def describe(self) -> str:
        """One line: how many records of what, how many rows were set aside and why. Reads the source if need be."""
        counts = self.count()
        made = " and ".join(_many(n, *_NOUNS[kind]) for kind, n in counts.kinds.most_common())
        line = [f"{made} ({self.title})"]
        if counts.limited:
            line[0] += f", stopped at the limit of {counts.records:,}"
        if counts.bad:
            place = f" ({self.quarantine.path})" if self.quarantine else ""
            line.append(f"{_many(counts.bad.total(), 'row')} set aside: {_listed(counts.bad)}{place}")
        if counts.skipped:
            line.append(f"{_many(counts.skipped.total(), 'row')} without a record: {_listed(counts.skipped)}")
        if counts.partial:
            line.append(f"left out within rows: {_listed(counts.partial)}")
        return " · ".join(line)

    # --- one pass ---

    def _pass(self, counts: Counts, *, surveying: bool = False) -> Iterator[Record]:
        for part, form in zip(self._parts, self._formats, strict=True):
            raws = self._sound(part, counts, surveying)
            groups = (
                ([raw] for raw in raws) if form.key is None else self._together(part, form, raws, counts, surveying)
            )
            for group in groups:
                try:
                    made = self._make(form, group)
                except RecordError as error:
                    for raw in group:
                        self._bad(part, raw, error.reason, counts, surveying)
                    continue
                records = [m for m in made if isinstance(m, Record)]
                for record in records:  # ours alone so far; a copy would cost a tenth of the pass
                    object.__setattr__(record, "where", part.where(group[0].place))
                why = [m.reason for m in made if isinstance(m, Skip)]
                if records:
                    counts.used += len(group)
                    counts.partial.update(why)
                else:
                    counts.skipped[why[0] if why else "no record"] += len(group)
                yield from records

    def _sound(self, part: Part, counts: Counts, surveying: bool) -> Iterator[Raw]:
        """Rows that parsed, their columns renamed."""
        for raw in part.rows():
            if raw.is_blank:
                counts.blank += 1
                continue
            counts.rows += 1
            if raw.error is None and self._columns:
                try:
                    raw = raw._replace(row=self._renamed(raw.row))
                except RecordError as error:
                    raw = raw._replace(error=error.reason)
            if raw.error is None:
                yield raw
            else:
                self._bad(part, raw, raw.error, counts, surveying)

    def _together(
        self, part: Part, form: Format, raws: Iterable[Raw], counts: Counts, surveying: bool
    ) -> Iterator[list[Raw]]:
        """Consecutive rows of equal key."""
        assert form.key is not None
        group: list[Raw] = []
        last: Any = None
        for raw in raws:
            try:
                key = form.key(raw.row)
            except RecordError as error:
                self._bad(part, raw, error.reason, counts, surveying)
                continue
            if group and key != last:
                yield group
                group = []
            group.append(raw)
            last = key
        if group:
            yield group

    def _make(self, form: Format, group: list[Raw]) -> list[Record | Skip]:
        """What one row (or one group of rows) makes, validated and of the kind asked for."""
        if form.read is not None:
            made = list(form.read(group[0].row, self._options))
        else:
            assert form.read_together is not None
            made = list(form.read_together([raw.row for raw in group], self._options))
        for record in made:
            if isinstance(record, Record):
                record.validate()
        if self._kind is None:
            return made
        kind = self._kind
        return [
            converted
            for m in made
            for converted in (as_kind(m, kind, self._pairs, self._responses) if isinstance(m, Record) else (m,))
        ]

    def _renamed(self, row: Row) -> dict[str, Any]:
        """The row with the user's columns under our names; unmapped columns keep theirs unless the name is taken."""
        mapped = {ours: _reach(row, theirs) for ours, theirs in self._columns.items()}
        rest = {k: v for k, v in row.items() if k not in self._columns and k not in self._columns.values()}
        for theirs in self._columns.values():
            root, _, inner = theirs.partition(".")
            if theirs not in row and isinstance(row[root], Mapping):  # what else the object holds goes to meta
                name = f"{root}_rest" if root in mapped else root
                kept: Any = rest.get(name, row[root])
                rest[name] = {k: v for k, v in kept.items() if k != inner}
        return {k: v for k, v in rest.items() if v != {}} | mapped

    # --- bad rows ---

    def _bad(self, part: Part, raw: Raw, reason: str, counts: Counts, surveying: bool) -> None:
        counts.bad[category(reason)] += 1
        if surveying:
            return
        where, reason = part.where(raw.place), one_line(reason)
        counts.first_bad = counts.first_bad or f"{where}: {reason}"
        if self.quarantine is None:
            raise RecordError(reason, where=where, remedy=self._remedy(counts))
        self.quarantine.add(counts.bad.total(), where, reason, raw.row if raw.text is None else raw.text)

    def _remedy(self, counts: Counts) -> str:
        """What to do about the first bad row, and how many there are: the source is read again for a few seconds."""
        seen = counts
        whole = False
        if all(part.cheap for part in self._parts):
            seen, until = Counts(), time.thread_time() + SURVEY_SECONDS
            try:
                for _ in self._pass(seen, surveying=True):
                    if time.thread_time() > until:
                        break
                else:
                    whole = True
            except RecordError:  # the file breaks off further on; the count so far still holds
                pass
        rows = _many(seen.rows, "row")
        share = f"{seen.bad.total():,} of {rows if whole else f'the first {rows}'}"
        return f"Fix the row, or pass --bad-rows quarantine to set such rows aside ({share})."

    # --- formats ---

    def _detect(self, part: Part, given: Format | None) -> Format:
        """The format of a part, from the one asked for or from its first rows. Raises RecordError where none fits."""
        raws = list(islice((raw for raw in part.rows() if not raw.is_blank), PEEK_ROWS))
        if not raws:
            raise RecordError("there are no rows.", where=part.name)
        rows = []
        for raw in raws:
            try:
                rows += [self._renamed(raw.row) if self._columns else raw.row] if raw.error is None else []
            except RecordError:
                continue
        form = given or recognise_most(rows)
        if form is None:
            error = self._no_format(raws, rows)
            raise RecordError(one_line(error.reason), where=part.where(raws[0].place), remedy=error.remedy)
        if rows:
            check_options(form, self._options, next((row for row in rows if form.recognise(row)), rows[0]))
        return form

    def _no_format(self, raws: Sequence[Raw], rows: Sequence[Row]) -> RecordError:
        if rows:
            return unrecognised(rows[0])
        first = raws[0]
        if first.error is not None:
            return RecordError(first.error, remedy=f"None of the first {len(raws)} rows can be read.")
        try:
            self._renamed(first.row)
        except RecordError as error:
            return RecordError(error.reason, remedy="Check the names given in --columns.")
        raise AssertionError("a row that parsed and was renamed is in rows")


def _reach(row: Row, name: str) -> Any:
    """A field by name, or by a dotted path into objects; raises RecordError where it is absent."""
    if name in row or "." not in name:
        return need(row, name)
    value: Any = row
    for step in name.split("."):
        if not isinstance(value, Mapping):
            raise RecordError(f'no field "{name}": "{step}" is asked of {type(value).__name__}.')
        value = need(value, step)
    return value


def _many(n: int, one: str, more: str = "") -> str:
    return f"{n:,} {one if n == 1 else more or one + 's'}"


def _listed(reasons: Counter[str]) -> str:
    return ", ".join(f"{n:,} {'ties' if why == 'tie' and n > 1 else why}" for why, n in reasons.most_common())


def _reasons(counts: Counts) -> str:
    listed = _listed(counts.bad + counts.skipped)
    return f"{listed}; the first is {counts.first_bad.rstrip('.')}" if counts.first_bad else listed
