"""Replies on disk by the digest of their request, in SQLite: what was put is there after a kill, for any process."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from ..errors import PluralignError
from .wire import Reply

__all__ = ["Replies"]

FILE = "replies.sqlite"


class Replies:
    """The replies in a folder; nothing is kept without one. Open it in the thread that uses it (`with`).

    SQLite's write-ahead log lets several processes read and write at once. Raises PluralignError where the file cannot
    be read or written.
    """

    def __init__(self, folder: Path | None) -> None:
        self.path = None if folder is None else folder / FILE
        self._base: sqlite3.Connection | None = None

    def __enter__(self) -> Replies:
        if self.path is not None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._base = sqlite3.connect(self.path, timeout=60, isolation_level=None)
                self._base.execute("PRAGMA journal_mode=WAL")
                self._base.execute("PRAGMA synchronous=NORMAL")
                self._base.execute(
                    "CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT) WITHOUT ROWID"
                )
            except (sqlite3.Error, OSError) as error:
                self.__exit__()
                raise self._failed(error) from None
        return self

    def __exit__(self, *_: Any) -> None:
        if self._base is not None:
            self._base.close()
        self._base = None

    def get(self, key: str) -> Reply | None:
        if self._base is None:
            return None
        try:
            row = self._base.execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone()
            return None if row is None else Reply.from_json(row[0])
        except (sqlite3.Error, ValueError, KeyError, TypeError) as error:
            raise self._failed(error) from None

    def put(self, key: str, reply: Reply) -> None:
        """Keep a reply; it is in the file when this returns. The first one of a key stays."""
        if self._base is None:
            return
        try:
            self._base.execute("INSERT OR IGNORE INTO replies VALUES (?, ?)", (key, reply.as_json()))
        except (sqlite3.Error, ValueError) as error:
            raise self._failed(error) from None

    def _failed(self, error: Exception) -> PluralignError:
        return PluralignError(f"{self.path}: {error}.", remedy="Name another folder for replies, or delete the file.")
