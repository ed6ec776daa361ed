"""A knowledge base in a folder: LanceDB embedded, with a full-text index and vectors beside each other.

`base.json` says what the folder holds: the encoder and its key, and every source with its number of passages. It is
written after the passages, so that an ingest that was killed goes on where it was and takes no passage twice.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..curate.filters import batches
from ..encoders import Encoder
from ..encoders import encoder as named_encoder
from ..errors import SettingsError
from .bases import DEPTH, BaseDown, Passage, fused, passage_text

__all__ = ["LanceBase"]

MANIFEST, TABLE = "base.json", "passages"
CHUNK = 512  # passages embedded and written together
EXACT = 50_000  # passages up to which every vector is compared
INSTALL = 'pip install "pluralign[retrieval]"'
COLUMNS = ["id", "title", "text"]


@dataclass
class LanceBase:
    """Passages in a folder. Made by `create` or `open`."""

    folder: Path
    table: Any
    encoder: Encoder
    about: dict[str, Any]

    # Opening

    @classmethod
    def create(cls, folder: Path, encoder: str = "auto", *, cache: Path | None = None) -> LanceBase:
        """The base in a folder, an empty one where there is none. Raises SettingsError for one of another encoder."""
        if (folder / MANIFEST).exists():
            base = cls.open(folder, cache=cache)
            if encoder not in ("auto", base.about["encoder"]):
                raise SettingsError(
                    f"{folder} is embedded by {base.about['encoder']}, not {encoder}.", remedy="Choose another folder."
                )
            return base
        made = named_encoder(encoder, cache=cache)
        lance = _lancedb()
        import pyarrow as pa

        size = len(made.encode(["size"])[0])
        schema = pa.schema(
            [pa.field(name, pa.string()) for name in (*COLUMNS, "words")]
            + [pa.field("vector", pa.list_(pa.float32(), size))]
        )
        name = _name_of(encoder, made)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            files = lance.connect(str(folder))
            files.drop_table(TABLE, ignore_missing=True)  # of a process that was killed before it wrote base.json
            table = files.create_table(TABLE, schema=schema)
        except Exception as error:
            raise BaseDown(f"{folder}: {_line(error)}", remedy="Choose a folder that can be written.") from None
        base = cls(folder, table, made, {"encoder": name, "encoder_key": made.key, "sources": []})
        base._write()
        return base

    @classmethod
    def open(cls, folder: Path, *, cache: Path | None = None) -> LanceBase:
        """The base in a folder. Raises SettingsError where there is none or its encoder is another one by now, BaseDown
        where it cannot be read."""
        if not (folder / MANIFEST).is_file():
            raise SettingsError(
                f"{folder} holds no knowledge base.",
                remedy=f"Make one: pluralign intents ingest SOURCE --base {folder}",
            )
        lance = _lancedb()
        try:
            about = json.loads((folder / MANIFEST).read_text("utf-8"))
            table = lance.connect(str(folder)).open_table(TABLE)
            name, key = about["encoder"], about["encoder_key"]
        except Exception as error:
            raise _down(folder, error) from None
        made = named_encoder(name, cache=cache)
        if made.key != key:
            raise SettingsError(
                f"{folder} was embedded by another version of {name}: its vectors mean nothing to this one.",
                remedy=f"Ingest anew into another folder. ({made.name})",
            )
        return cls(folder, table, made, about)

    # What it is

    @property
    def name(self) -> str:
        return f"{self.folder.name} ({self.passages:,} passages)"

    @property
    def key(self) -> str:
        held = [(s["source"], s["passages"]) for s in self.about["sources"]]
        return f"lance {json.dumps(held)} {self.about['encoder_key']}"

    @property
    def passages(self) -> int:
        return sum(s["passages"] for s in self.about["sources"] if s.get("done"))

    # Searching

    def search(self, texts: Sequence[str], k: int) -> list[list[Passage]]:
        """See `KnowledgeBase`: the nearest vectors and the full-text index, joined by reciprocal ranks."""
        if not texts:
            return []
        query: Any = _lancedb().query.MatchQuery
        depth = max(DEPTH, k)
        vectors = self.encoder.encode(list(texts))
        found = []
        try:
            for text, vector in zip(texts, vectors, strict=True):
                near = self.table.search(vector, vector_column_name="vector").distance_type("cosine")
                rows = near.select([*COLUMNS, "vector", "_distance"]).limit(depth).to_list()
                full = self.table.search(query(text, "words"), query_type="fts")
                worded = full.select([*COLUMNS, "vector", "_score"]).limit(depth).to_list() if text.strip() else []
                found.append(fused([[_passage(row, vector) for row in side] for side in (rows, worded)], k))
        except Exception as error:
            raise _down(self.folder, error) from None
        return found

    # Filling

    def ingest(self, passages: Iterable[Passage], source: str, *, progress: Callable[[int], None] | None = None) -> int:
        """Add the passages of a source, and return how many there are of it. The same source, stopped before its end,
        goes on after the passages it has brought. Raises SettingsError for one that is there already, and where
        another one was left unfinished."""
        entry = next((s for s in self.about["sources"] if s["source"] == source), None)
        if entry is not None and entry.get("done"):
            raise SettingsError(f"{self.folder} holds {source} already ({entry['passages']:,} passages).")
        other = next((s for s in self.about["sources"] if not s.get("done") and s is not entry), None)
        if other is not None:
            raise SettingsError(f"{self.folder} has an unfinished source, {other['source']}.", remedy="End that first.")
        if entry is None:
            entry = {"source": source, "passages": 0, "before": self.table.count_rows(), "done": False}
            self.about["sources"].append(entry)
            self._write()
        count = self.table.count_rows() - entry["before"]
        for chunk in batches(islice(iter(passages), count, None), CHUNK):
            vectors = self.encoder.encode([passage_text(p) for p in chunk])
            self.table.add([
                {"id": p.id, "title": p.title, "text": p.text, "words": passage_text(p), "vector": v}
                for p, v in zip(chunk, vectors, strict=True)
            ])  # fmt: skip
            count += len(chunk)
            if progress:
                progress(count)
        self._index()
        entry |= {"passages": count, "done": True}
        self._write()
        return count

    def _index(self) -> None:
        from lancedb.index import FTS

        rows = self.table.count_rows()
        if not rows:
            return
        self.table.create_index("words", config=FTS(), replace=True)
        if rows > EXACT:
            from lancedb.index import IvfPq

            self.table.create_index("vector", config=IvfPq(distance_type="cosine"), replace=True)

    def _write(self) -> None:
        draft = self.folder / f".{MANIFEST}.unfinished"
        draft.write_text(json.dumps(self.about, indent=1, ensure_ascii=False), "utf-8")
        draft.replace(self.folder / MANIFEST)


def _passage(row: dict[str, Any], vector: Any) -> Passage:
    return Passage(row["id"], row["title"], row["text"], float(np.dot(np.asarray(row["vector"], np.float32), vector)))


def _name_of(asked: str, made: Encoder) -> str:
    """The name under which the encoder is found again: "auto" may mean another one tomorrow."""
    if asked != "auto":
        return asked
    return {"all-MiniLM-L6-v2": "minilm", "hashed words": "tfidf"}.get(made.name, made.name)


def _lancedb() -> Any:
    os.environ.setdefault("LANCE_LOG", "error")  # its remarks are for developers of it
    try:
        import lancedb
    except ImportError:
        raise SettingsError("a knowledge base in a folder needs LanceDB.", remedy=f"Install it: {INSTALL}") from None
    return lancedb


def _down(folder: Path, error: Exception) -> BaseDown:
    return BaseDown(
        f"the knowledge base {folder} does not answer: {_line(error)}",
        remedy="Mend it or ingest anew, or go on without it: --without-base.",
    )


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
