"""Records rendered once into a memory-mapped Arrow table: training reads ids, never text.

A row holds the distinct contexts and targets of its terms and, per term, which of them it is made of, so that nothing
is stored twice: the four log-probs of a DPO pair are one context and two targets. Rows may differ in how many terms
they have (lists of responses do).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..errors import RecordError
from ..records import Record
from ..render.renderer import Renderer
from ..scoring.layout import Scored
from ..scoring.reference import ids_digest
from ..terms import Aside, Column, Plan, Term

__all__ = ["Example", "Examples", "render_examples"]

BATCH = 512
IDS = pa.list_(pa.list_(pa.int32()))
SCHEMA = pa.schema(
    {
        "contexts": IDS,
        "inserted": pa.list_(pa.int32()),  # beside `contexts`: how many tokens at its end show another response
        "marks": pa.list_(pa.int32()),  # beside `contexts`: the token that a sensing head reads; -1: none
        "targets": IDS,
        "scored": pa.list_(pa.list_(pa.bool_())),  # beside `targets`; an empty list: every token counts
        "terms": pa.list_(pa.int32()),  # name, context and target number of each term
        "values": pa.list_(pa.float64()),  # columns of the data
        "columns": pa.list_(pa.int32()),  # and the number of each one's name
        "aside": pa.list_(pa.int32()),  # ids for a head with an encoder of its own
        "weight": pa.float32(),
        "where": pa.string(),
    }
)


@dataclass(frozen=True, slots=True)
class Example:
    """One record's sequences by term name, and its columns."""

    row: int
    where: str
    weight: float
    sequences: dict[str, Scored]
    columns: dict[str, float] = field(default_factory=dict)
    epoch: int = 0
    aside: tuple[int, ...] = ()
    slot: int | None = None  # which candidate intent was drawn, where one is


@dataclass
class Examples:
    """The table on disk. `names` are the plan's terms; `by` says who reads each; `columns` are named in their order.

    `epoch` is set by the data loader before each epoch: what is drawn anew each time depends on it and on the row.
    """

    path: Path
    names: tuple[str, ...]
    by: tuple[str, ...]
    truncated: dict[str, int] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    table: pa.Table = None
    epoch: int = 0

    def __post_init__(self) -> None:
        if self.table is None:
            self.table = pa.ipc.open_stream(pa.memory_map(str(self.path))).read_all()

    def __len__(self) -> int:
        return self.table.num_rows

    def __getitem__(self, row: int) -> Example:
        cells = {name: self.table[name][row].as_py() for name in SCHEMA.names}
        sequences = {}
        terms = cells["terms"]
        for name, c, t in zip(terms[::3], terms[1::3], terms[2::3], strict=True):
            context, shown = cells["contexts"][c], cells["inserted"][c]
            # all that shows the other response but the last token, which predicts the target
            constant = (len(context) - shown, len(context) - 1) if shown > 1 else None
            mark = cells["marks"][c] if cells["marks"][c] >= 0 else None
            own = Scored(context, cells["targets"][t], cells["scored"][t] or None, constant, mark)
            sequences[self.names[name]] = own
        columns = {self.columns[i]: v for i, v in zip(cells["columns"], cells["values"], strict=True)}
        aside = tuple(cells["aside"] or ())
        return Example(int(row), cells["where"], cells["weight"], sequences, columns, self.epoch, aside)

    def set_epoch(self, epoch: int) -> None:
        """Called by the data loader."""
        self.epoch = epoch

    def __getitems__(self, rows: Sequence[int]) -> list[Example]:
        return [self[row] for row in rows]

    def __iter__(self) -> Iterator[Example]:
        return (self[row] for row in range(len(self)))

    def named(self, by: str) -> tuple[str, ...]:
        """The terms read by "policy" or by "reference"."""
        return tuple(n for n, b in zip(self.names, self.by, strict=True) if b == by)

    def digest(self, names: Iterable[str]) -> str:
        """A hash over every id of these terms of every row."""
        names = tuple(names)
        return ids_digest([ids for n in names if n in ex.sequences for ids in _ids(ex.sequences[n])] for ex in self)


def render_examples(
    records: Iterable[Record],
    plan: Plan,
    renderer: Renderer,
    *,
    folder: Path | None = None,
    limit: int | None = None,
    on_bad: Callable[[RecordError, Record], None] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Examples:
    """Render records in batches, in bounded memory.

    A record that cannot be rendered raises its RenderError, or goes to `on_bad` where one is given.
    Raises RecordError where nothing is left, or where the plan gives records different terms.
    """
    folder = Path(folder or tempfile.mkdtemp(prefix="pluralign-"))
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=folder, suffix=".arrow")
    os.close(handle)
    known = _Names()
    lost = {"contexts": 0, "targets": 0, "alternatives": 0, "tokens": 0}
    rows = 0
    with pa.OSFile(name, "wb") as sink, pa.ipc.new_stream(sink, SCHEMA) as writer:
        for chunk in _chunks(islice(records, limit)):
            planned = []
            for i, record in enumerate(chunk):
                try:
                    planned.append((list(plan(record)), record, _where(record, rows + i)))
                except RecordError as error:
                    located = _located(error, _where(record, rows + i))
                    if on_bad is None:
                        raise located from None
                    on_bad(located, record)
            batch = renderer.try_batch(
                [([t for t in items if isinstance(t, Term)], r.tools, where) for items, r, where in planned]
            )
            cells: list[dict[str, Any]] = []
            for rendered, (items, record, where) in zip(batch, planned, strict=True):
                if isinstance(rendered, RecordError):
                    if on_bad is None:
                        raise rendered
                    on_bad(rendered, record)
                    continue
                named = known.of(items, where)
                cells.append({**_cells(rendered, named, lost), "weight": record.weight, "where": where})
            writer.write_batch(pa.RecordBatch.from_pylist(cells, schema=SCHEMA))
            rows += len(chunk)
            if progress:
                progress(len(chunk))
    examples = Examples(Path(name), tuple(known.terms), tuple(known.terms.values()), lost, tuple(known.columns))
    if not len(examples):
        raise RecordError("no row is left to work with.", remedy="Check the data with `pluralign data inspect`.")
    return examples


class _Names:
    """Every name that the plan gave so far, in order of appearance."""

    def __init__(self) -> None:
        self.terms: dict[str, str] = {}  # name -> by whom it is read
        self.columns: dict[str, None] = {}
        self.stems: list[str] | None = None

    def of(self, items: Sequence[Term | Column | Aside], where: str) -> dict[str, Any]:
        """Numbers of this row's names, and its columns. Raises RecordError for a row unlike the first one."""
        stems = sorted({item.name.partition(".")[0] for item in items if not isinstance(item, Aside)})
        self.stems = self.stems or stems
        if stems != self.stems:
            raise RecordError("the plan gives this record other terms than the first one.", where=where)
        terms = [item for item in items if isinstance(item, Term)]
        columns = [item for item in items if isinstance(item, Column)]
        self.terms |= {t.name: t.by for t in terms}
        self.columns |= dict.fromkeys(c.name for c in columns)
        order, column_order = list(self.terms), list(self.columns)
        return {
            "names": [order.index(t.name) for t in terms],
            "columns": [column_order.index(c.name) for c in columns],
            "values": [c.value for c in columns],
            "aside": [i for item in items if isinstance(item, Aside) for i in item.ids],
        }


def _located(error: RecordError, where: str) -> RecordError:
    return error if error.where else RecordError(error.reason, where=where, remedy=error.remedy)


def _ids(s: Scored) -> tuple[Sequence[int], ...]:
    """Everything that decides the reading of one sequence, as lists of integers."""
    return (s.context, s.target) if s.scored is None else (s.context, s.target, [int(x) for x in s.scored])


def _chunks(records: Iterable[Record]) -> Iterator[list[Record]]:
    records = iter(records)
    while chunk := list(islice(records, BATCH)):
        yield chunk


def _where(record: Record, row: int) -> str:
    return record.where or f"row {row}"


def _cells(rendered: Sequence[Any], named: dict[str, Any], lost: dict[str, int]) -> dict[str, Any]:
    """One row's cells; `lost` counts what truncation cost, once a distinct context or target."""
    contexts: list[list[int]] = []
    inserted: list[int] = []
    marks: list[int] = []
    targets: list[list[int]] = []
    scored: list[list[bool]] = []
    terms: list[int] = []
    for number, r in zip(named["names"], rendered, strict=True):
        if r.context not in contexts:
            contexts.append(r.context)
            inserted.append(r.inserted)
            marks.append(-1 if r.mark is None else r.mark)
            lost["contexts"] += r.cut_context > 0 and not r.inserted
            lost["alternatives"] += r.cut_alternative > 0
            lost["tokens"] += r.cut_alternative + (0 if r.inserted else r.cut_context)
        target = (r.target, r.scored or [])
        pairs = list(zip(targets, scored, strict=True))
        if target not in pairs:
            targets.append(r.target)
            scored.append(r.scored or [])
            lost["targets"] += r.cut_target > 0
            lost["tokens"] += r.cut_target
            pairs.append(target)
        terms += [number, contexts.index(r.context), pairs.index(target)]
    return {
        "contexts": contexts,
        "inserted": inserted,
        "marks": marks,
        "targets": targets,
        "scored": scored,
        "terms": terms,
        "columns": named["columns"],
        "values": named["values"],
        "aside": named["aside"],
    }


def lengths(examples: Examples, name: str) -> np.ndarray:
    """(N,) scored tokens of one term."""
    return np.array([_length(ex.sequences[name]) for ex in examples], dtype=np.int64)


def _length(s: Scored) -> int:
    return sum(s.scored) if s.scored is not None else len(s.target)
