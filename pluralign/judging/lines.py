"""JSON lines that are written as results come, and read again by whoever goes on after a stop."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import RecordError

__all__ = ["appending", "objects_of", "read_lines", "whole_lines"]

LACKS = "there is no field"


def read_lines(path: Path, needs: Sequence[str] = (), *, lacks: str = LACKS) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines; none where there is no file. A last line that was cut off while it was
    written is taken off the file. Raises RecordError (file and line) for any other damage."""
    yield from objects_of(whole_lines(path), path, needs, lacks=lacks)


def whole_lines(path: Path) -> bytes:
    """What a file holds; nothing where there is none. A last line that was cut off is taken off the file."""
    if not path.is_file():
        return b""
    raw = path.read_bytes()
    whole = raw[: raw.rfind(b"\n") + 1]
    if len(whole) < len(raw):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    return whole


def objects_of(raw: bytes, path: Path, needs: Sequence[str], *, lacks: str = LACKS) -> Iterator[dict[str, Any]]:
    """The objects of JSON lines that were read from `path`. Raises RecordError (file and line) for anything else, and
    where one of the fields `needs` is not there, which `lacks` puts into words."""
    for number, line in enumerate(raw.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:  # JSON or UTF-8
            raise RecordError("not valid JSON.", where=f"{path}:{number}") from None
        lacking = next((name for name in needs if not isinstance(row, dict) or name not in row), None)
        if lacking is not None or not isinstance(row, dict):
            raise RecordError(f'{lacks} "{lacking}".', where=f"{path}:{number}")
        yield row


@contextmanager
def appending(path: Path | None) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A function that adds a JSON line to a file, which is there when it returns; it does nothing without a path."""
    if path is None:
        yield lambda row: None
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:

        def append(row: Mapping[str, Any]) -> None:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()

        yield append
