"""Rows set aside: written as they are met, so that nothing is lost and nothing is silent."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DEFAULT_QUARANTINE = Path("runs/quarantine.jsonl")

# What an error's sentence is filed under in counts; the first match decides.
_CATEGORIES = (
    ("not JSON", "not JSON"),
    ("JSON object on the line", "not JSON"),
    ("object in the array", "not an object"),
    ("not valid CSV", "not valid CSV"),
    ("UTF-8", "not UTF-8"),
    ("no field", "missing field"),
    ("no known format", "unknown format"),
    (" is empty", "empty"),
    ("has no text", "empty"),
    ("equals", "chosen equals rejected"),
    ("finite", "not a finite number"),
    ("NaN", "not a finite number"),
    ("unknown role", "unknown role"),
    ("expected", "wrong type"),
    (" entries ", "wrong number of entries"),
    ("conversations part", "no common prompt"),
)


def category(reason: str) -> str:
    """A few words to count an error under."""
    return next((name for sign, name in _CATEGORIES if sign in reason), "other")


class Quarantine:
    """A JSONL file of {"where", "reason", "source", "row"}; `row` is the row itself, or its text where it never parsed.

    Reading a source again replaces its rows in the file, and leaves those of other sources. Each row is on disk
    before the next one is read. In a distributed run only the first process writes; all of them count alike.
    """

    def __init__(self, path: Path | str, source: str) -> None:
        self.path, self.source = Path(path), source
        self.written = 0
        self._writes = os.environ.get("RANK", "0") == "0"

    def add(self, number: int, where: str, reason: str, row: Any) -> None:
        """Write the `number`-th bad row of a pass (from 1); rows that an earlier pass wrote are not written again."""
        if number <= self.written or not self._writes:
            return
        if self.written == 0:
            self._clear()
        entry = {"where": where, "reason": reason, "source": self.source, "row": row}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(to_json(entry) + "\n")
        self.written = number

    def _clear(self) -> None:
        """Drop what an earlier reading of this source left in the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.path.exists():
            return
        rest = self.path.with_name(self.path.name + ".tmp")
        with rest.open("w", encoding="utf-8") as file:
            file.writelines(line for line in _lines(self.path) if not _is_of(line, self.source))
        rest.replace(self.path)


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", newline="\n") as file:
        yield from file


def _is_of(line: str, source: str) -> bool:
    try:
        return bool(json.loads(line)["source"] == source)
    except (ValueError, KeyError, TypeError):
        return False


def to_json(value: Any) -> str:
    """One line of JSON for anything a row may hold; text that is no valid Unicode is escaped instead of refused."""
    line = json.dumps(value, ensure_ascii=False, default=str)
    try:
        line.encode()
    except UnicodeEncodeError:
        line = json.dumps(value, default=str)
    return line
