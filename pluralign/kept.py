"""What is asked or computed once, on disk by key in SQLite: what was put is there after a kill, for any process."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from .errors import PluralignError

__all__ = ["Kept"]

T = TypeVar("T")


class Kept:
    """Texts or bytes by key; without a path nothing is kept. The file is opened at its first use, in that thread.

    SQLite's write-ahead log lets several processes read and write at once. Raises PluralignError where the file cannot
    be read or written, or holds what cannot be understood.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._base: sqlite3.Connection | None = None

    def __enter__(self) -> Kept:
        self._open()
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        if self._base is not None:
            self._base.close()
        self._base = None

    def get(self, key: bytes, read: Callable[[Any], T]) -> T | None:
        """What was put under the key, read; None where nothing was."""
        base = self._open()
        if base is None:
            return None
        try:
            row = base.execute("SELECT value FROM kept WHERE key = ?", (key,)).fetchone()
            return None if row is None else read(row[0])
        except (sqlite3.Error, ValueError, KeyError, TypeError) as error:
            raise self._failed(error) from None

    def put(self, entries: Iterable[tuple[bytes, str | bytes]]) -> None:
        """Keep values; they are in the file when this returns. The first one of a key stays."""
        base = self._open()
        if base is None:
            return
        try:
            with base:
                base.executemany("INSERT OR IGNORE INTO kept VALUES (?, ?)", entries)
        except (sqlite3.Error, ValueError) as error:
            raise self._failed(error) from None

    def _open(self) -> sqlite3.Connection | None:
        if self.path is not None and self._base is None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._base = sqlite3.connect(self.path, timeout=60)
                self._base.execute("PRAGMA journal_mode=WAL")
                self._base.execute("PRAGMA synchronous=NORMAL")
                self._base.execute("CREATE TABLE IF NOT EXISTS kept (key BLOB PRIMARY KEY, value) WITHOUT ROWID")
            except (sqlite3.Error, OSError) as error:
                self.close()
                raise self._failed(error) from None
        return self._base

    def _failed(self, error: Exception) -> PluralignError:
        return PluralignError(f"{self.path}: {error}.", remedy="Name another folder for it, or delete the file.")
