"""Records rendered once into a memory-mapped Arrow table: training reads ids, never text.

A row holds the distinct contexts and targets of its terms and, per term, which of them it is made of, so that nothing
is stored twice: the four log-probs of a DPO pair are one context and two targets.
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
from ..terms import Plan, Term

__all__ = ["Example", "Examples", "render_examples"]

BATCH = 512
IDS = pa.list_(pa.list_(pa.int32()))
SCHEMA = pa.schema(
    {
        "contexts": IDS,
        "targets": IDS,
        "scored": pa.list_(pa.list_(pa.bool_())),  # beside `targets`; an empty list: every token counts
        "terms": pa.list_(pa.int32()),  # context and target number of each term, in the plan's order
        "weight": pa.float32(),
        "where": pa.string(),
    }
)


@dataclass(frozen=True, slots=True)
class Example:
    """One record's sequences by term name."""

    row: int
    where: str
    weight: float
    sequences: dict[str, Scored]


@dataclass
class Examples:
    """The table on disk. `names` are the plan's terms; `by` says who reads each."""

    path: Path
    names: tuple[str, ...]
    by: tuple[str, ...]
    truncated: dict[str, int] = field(default_factory=dict)
    table: pa.Table = None

    def __post_init__(self) -> None:
        if self.table is None:
            self.table = pa.ipc.open_stream(pa.memory_map(str(self.path))).read_all()

    def __len__(self) -> int:
        return self.table.num_rows

    def __getitem__(self, row: int) -> Example:
        cells = {name: self.table[name][row].as_py() for name in SCHEMA.names}
        sequences = {}
        for i, name in enumerate(self.names):
            c, t = cells["terms"][2 * i : 2 * i + 2]
            sequences[name] = Scored(cells["contexts"][c], cells["targets"][t], cells["scored"][t] or None)
        return Example(int(row), cells["where"], cells["weight"], sequences)

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
        return ids_digest(
            [ids for n in names for ids in (ex.sequences[n].context, ex.sequences[n].target)] for ex in self
        )


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
    terms: list[Term] = []
    lost = {"contexts": 0, "targets": 0, "tokens": 0}
    rows = 0
    with pa.OSFile(name, "wb") as sink, pa.ipc.new_stream(sink, SCHEMA) as writer:
        for chunk in _chunks(islice(records, limit)):
            planned = [list(plan(record)) for record in chunk]
            terms = terms or planned[0]
            wheres = [_where(record, rows + i) for i, record in enumerate(chunk)]
            for where, own in zip(wheres, planned, strict=True):
                if [t.name for t in own] != [t.name for t in terms]:
                    raise RecordError("the plan gives this record other terms than the first one.", where=where)
            batch = renderer.try_batch([(own, r.tools, w) for own, r, w in zip(planned, chunk, wheres, strict=True)])
            cells: list[dict[str, Any]] = []
            for rendered, record, where in zip(batch, chunk, wheres, strict=True):
                if isinstance(rendered, RecordError):
                    if on_bad is None:
                        raise rendered
                    on_bad(rendered, record)
                    continue
                cells.append({**_cells(rendered, lost), "weight": record.weight, "where": where})
            writer.write_batch(pa.RecordBatch.from_pylist(cells, schema=SCHEMA))
            rows += len(chunk)
            if progress:
                progress(len(chunk))
    examples = Examples(Path(name), tuple(t.name for t in terms), tuple(t.by for t in terms), lost)
    if not len(examples):
        raise RecordError("no row is left to work with.", remedy="Check the data with `pluralign data inspect`.")
    return examples


def _chunks(records: Iterable[Record]) -> Iterator[list[Record]]:
    records = iter(records)
    while chunk := list(islice(records, BATCH)):
        yield chunk


def _where(record: Record, row: int) -> str:
    return record.where or f"row {row}"


def _cells(rendered: Sequence[Any], lost: dict[str, int]) -> dict[str, Any]:
    """One row's cells; `lost` counts what truncation cost, once a distinct context or target."""
    contexts: list[list[int]] = []
    targets: list[list[int]] = []
    scored: list[list[bool]] = []
    terms: list[int] = []
    for r in rendered:
        if r.context not in contexts:
            contexts.append(r.context)
            lost["contexts"] += r.cut_context > 0
            lost["tokens"] += r.cut_context
        target = (r.target, r.scored or [])
        pairs = list(zip(targets, scored, strict=True))
        if target not in pairs:
            targets.append(r.target)
            scored.append(r.scored or [])
            lost["targets"] += r.cut_target > 0
            lost["tokens"] += r.cut_target
            pairs.append(target)
        terms += [contexts.index(r.context), pairs.index(target)]
    return {"contexts": contexts, "targets": targets, "scored": scored, "terms": terms}


def lengths(examples: Examples, name: str) -> np.ndarray:
    """(N,) scored tokens of one term."""
    return np.array([_length(ex.sequences[name]) for ex in examples], dtype=np.int64)


def _length(s: Scored) -> int:
    return sum(s.scored) if s.scored is not None else len(s.target)
