"""Passages of about 100 words from files: JSON lines, plain text, a folder of it, dumps of Wikipedia."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..data.locate import file_part
from ..errors import RecordError, SettingsError
from .bases import Passage
from .sentences import PASSAGE, passages_of
from .wikitext import articles

__all__ = ["passages_in", "source_name"]

PLAIN = (".txt", ".md")
ROWS = (".jsonl", ".jsonl.gz", ".json", ".csv", ".parquet")
DUMPS = (".xml", ".xml.bz2", ".xml.gz")
TEXTS = ("text", "paragraph_text", "contents", "passage", "body")


def passages_in(source: Path, *, size: int = PASSAGE) -> Iterator[Passage]:
    """The passages of a source, of about `size` words, as they stand in it; passages that are the same come once.

    JSON lines have a `title` and a `text`, a list of sentences being a text, too. A plain text's title is its file's
    name. Raises SettingsError for another kind of file, RecordError (file and line) for a row without text.
    """
    seen: set[str] = set()
    for title, text in _documents(source):
        for part in passages_of(text, size):
            made = Passage.of(title, part)
            if made.id not in seen:
                seen.add(made.id)
                yield made


def source_name(source: Path, size: int = PASSAGE) -> str:
    """How a base knows a source: its name, its length in bytes, and the size of passages."""
    files = [source] if source.is_file() else [path for path in sorted(source.rglob("*")) if path.suffix in PLAIN]
    return f"{source.name} ({sum(path.stat().st_size for path in files):,} bytes, passages of {size} words)"


def _documents(source: Path) -> Iterator[tuple[str, str]]:
    if source.is_dir():
        files = [path for path in sorted(source.rglob("*")) if path.suffix in PLAIN]
        if not files:
            raise SettingsError(f"{source} holds no plain text ({', '.join(PLAIN)}).")
        for path in files:
            yield from _documents(path)
    elif not source.is_file():
        raise SettingsError(f"{source}: no such file.")
    elif source.name.endswith(DUMPS):
        yield from articles(source)
    elif source.name.endswith(ROWS):
        yield from _rows(source)
    elif source.suffix in PLAIN:
        try:
            yield source.stem, source.read_text("utf-8-sig")
        except UnicodeDecodeError:
            raise RecordError("the text is not UTF-8.", where=str(source)) from None
    else:
        raise SettingsError(
            f"{source}: no known kind of source.", remedy=f"Known: {', '.join((*ROWS, *PLAIN, *DUMPS))}, or a folder."
        )


def _rows(source: Path) -> Iterator[tuple[str, str]]:
    for raw in file_part(source).rows():
        if raw.is_blank:
            continue
        where = f"{source}:{raw.place}"
        if raw.error or not isinstance(raw.row, dict):
            raise RecordError(raw.error or "no object.", where=where)
        text = _text(raw.row)
        if text is None:
            raise RecordError(f"no text (a field {', '.join(TEXTS[:-1])} or {TEXTS[-1]}).", where=where)
        yield str(raw.row.get("title") or ""), text


def _text(row: dict[str, Any]) -> str | None:
    found = next((row[name] for name in TEXTS if row.get(name)), None)
    if isinstance(found, list) and all(isinstance(part, str) for part in found):
        return " ".join(part.strip() for part in found)
    return found if isinstance(found, str) else None
