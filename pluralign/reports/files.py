"""JSON files with errors that name file and line, and writing a file all at once."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from ..errors import RecordError

__all__ = ["Wrong", "document", "is_count", "is_number", "kind", "lines", "mapping", "write_atomically"]


class Wrong(Exception):
    """What is wrong with a value, and the way to it inside the document."""

    def __init__(self, reason: str, *keys: str | int) -> None:
        self.reason, self.keys = reason, keys
        super().__init__(reason)


def _text(path: Path) -> str | None:
    if not path.is_file():
        return None
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = raw.count(b"\n", 0, e.start) + 1
        raise RecordError("the text is not UTF-8.", where=f"{path}:{line}") from None


def document(path: Path, read: Callable[[Mapping[str, Any]], Any]) -> Any:
    """`read` applied to the JSON object of a file, its complaints turned into errors with file and line."""
    text = _text(path)
    if text is None:
        return None
    try:
        loaded = json.loads(text)
        return read(mapping(loaded))
    except json.JSONDecodeError as e:
        _not_json(path, e.lineno, e)
    except Wrong as e:
        key = "".join(f"[{k}]" if isinstance(k, int) else f".{k}" for k in e.keys).lstrip(".")
        where = f"{path}:{_line_of(text, e.keys)}"
        raise RecordError(f"{key}: {e.reason}" if key else e.reason, where=where) from None


def lines(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | None]]:
    """(line number, object) of a JSON-lines file; None for a last line that was cut off while being written."""
    text = _text(path) or ""
    split = text.split("\n")  # not splitlines(): U+2028 and its like are legal inside a JSON string
    for number, line in enumerate(split, start=1):
        if not line.strip():
            continue
        try:
            yield number, mapping(json.loads(line))
        except json.JSONDecodeError as e:
            if number == len(split):
                yield number, None
            else:
                _not_json(path, number, e)
        except Wrong as e:
            raise RecordError(e.reason, where=f"{path}:{number}") from None


def _not_json(path: Path, line: int, e: json.JSONDecodeError) -> NoReturn:
    raise RecordError(f"not valid JSON ({e.msg}, column {e.colno}).", where=f"{path}:{line}") from None


def _line_of(text: str, keys: tuple[str | int, ...]) -> int:
    """The line on which the value under `keys` starts. JSON is YAML, and YAML's parser keeps the places."""
    import yaml

    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return 1
    for key in keys:
        entries = node.value if node is not None and isinstance(node.value, list) else []
        if isinstance(key, int):
            found = entries[key : key + 1]
        else:
            found = [pair[1] for pair in entries if isinstance(pair, tuple) and pair[0].value == key]
        if not found:
            break
        node = found[0]
    return node.start_mark.line + 1 if node is not None else 1


def mapping(value: Any, *keys: str | int) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise Wrong(f"expected an object, found {kind(value)}.", *keys)
    return value


def kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def write_atomically(path: Path, text: str) -> Path:
    """The whole file or none of it: a reader never meets half a page."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as f:
            f.write(text)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
