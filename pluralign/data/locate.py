"""Where rows come from: files and folders on this machine, data sets on the hub, rows in memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from ..errors import RecordError, SettingsError, nearest
from ..records import Record, to_row
from .readers import READERS, ZIPPABLE, Raw, extension, is_array

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(:[\w.-]+)?")
_SPLITS = ("train", "test", "validation", "valid", "val", "dev", "eval", "heldout", "held_out")
_SPLIT_WORD = re.compile(rf"(?:^|[^a-z])({'|'.join(_SPLITS)})(?:$|[^a-z])")


@dataclass(frozen=True, slots=True)
class Part:
    """Rows with one name (a file, a split): `rows()` starts a pass, `where(index)` names a row for a person.

    `cheap` says that the rest may be read again only to count.
    """

    name: str
    rows: Callable[[], Iterator[Raw]]
    where: Callable[[int], str]
    cheap: bool = True


def locate(source: Any, *, split: str | None, streaming: bool) -> tuple[str, list[Part]]:
    """(name for a person, parts) of a file, a folder, a hub data set or an iterable of rows.

    Raises SettingsError where the source does not exist or cannot be told apart, RecordError for empty files.
    """
    if isinstance(source, str | Path):
        path = Path(source).expanduser()
        if path.is_dir():
            return str(source), _folder(path, split)
        if path.is_file():
            _no_split(split, f'"{source}" is a file')
            return str(source), [file_part(path)]
        if isinstance(source, str) and _is_hub_name(source, path):
            from .hub import hub_part

            part = hub_part(source, split, streaming)
            return part.name, [part]
        raise _missing(path)
    if isinstance(source, Mapping):
        what = f" with the splits {', '.join(map(str, source))}" if hasattr(source, "num_rows") else ""
        raise SettingsError(f"the source is a mapping{what}, not rows.", remedy="Pass one split, or a list of rows.")
    if isinstance(source, Iterable):
        _no_split(split, "the source is rows in memory")
        return "rows", [memory_part(source, streaming)]
    raise SettingsError(f"cannot load rows from {type(source).__name__}.", remedy="Pass a name, a path or rows.")


def _no_split(split: str | None, why: str) -> None:
    if split is not None:
        raise SettingsError(f'{why}: it has no split "{split}".', remedy="Leave split out.")


def _is_hub_name(source: str, path: Path) -> bool:
    if not _HUB_NAME.fullmatch(source) or extension(path):
        return False
    return not path.parent.exists()


def _missing(path: Path) -> SettingsError:
    if not path.parent.is_dir():
        return SettingsError(f"{path}: no such file, and no folder {path.parent}.")
    names = [p.name for p in path.parent.iterdir()]
    hint = nearest(path.name, names)
    return SettingsError(f"{path}: no such file or folder.{hint}", remedy="" if hint else _hub_hint(path))


def _hub_hint(path: Path) -> str:
    return "Hub data sets are written org/name." if len(path.parts) == 1 and not path.suffix else ""


# --- files and folders --------------------------------------------------------------------------------------------


def file_part(path: Path) -> Part:
    """The rows of one file. Raises SettingsError for an unknown extension, RecordError for an empty file."""
    kind = extension(path)
    if not kind:
        known = ", ".join([*READERS, *(f"{z}.gz" for z in ZIPPABLE)])
        ending = "".join(path.suffixes[-2:]) or "no extension"
        raise SettingsError(f"{path}: cannot tell how to read this file ({ending}).", remedy=f"Known: {known}.")
    if not path.stat().st_size:
        raise RecordError("the file is empty.", where=str(path))
    by_index = kind == ".json" and is_array(path)
    reader = READERS[kind]
    return Part(
        name=str(path),
        rows=lambda: reader(path),
        where=(lambda i: f"{path}[{i}]") if by_index else (lambda i: f"{path}:{i}"),
    )


def _folder(folder: Path, split: str | None) -> list[Part]:
    """The data files of a folder by name; of one split where their names tell splits apart."""
    files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith((".", "_")))
    data = [p for p in files if extension(p) and p.name not in ("dataset_info.json", "state.json", "dataset_dict.json")]
    if not data:
        inner = ", ".join(sorted(p.name for p in folder.iterdir() if p.is_dir())[:6])
        remedy = f"It has the folders {inner}: pass one of them." if inner else f"Known: {', '.join(READERS)}."
        raise SettingsError(f"{folder}: no data file in this folder.", remedy=remedy)
    splits = {p: _split_of(p) for p in data}
    known = sorted({s for s in splits.values() if s})
    if split is not None:
        chosen = [p for p in data if splits[p] == split or p.name.split(".")[0] == split]
        if not chosen:
            listed = ", ".join(known) or "none that its file names tell"
            raise SettingsError(f'{folder}: no split "{split}".{nearest(split, known)}', remedy=f"Splits: {listed}.")
        return [file_part(p) for p in chosen]
    if len(known) > 1:
        raise SettingsError(
            f"{folder}: the file names tell several splits ({', '.join(known)}).",
            remedy="Choose one (--split), or pass a single file.",
        )
    return [file_part(p) for p in data]


def _split_of(path: Path) -> str:
    found = _SPLIT_WORD.search(path.name.split(".")[0].lower())
    return found.group(1) if found else ""


# --- rows in memory -----------------------------------------------------------------------------------------------


def memory_part(rows: Iterable[Any], streaming: bool) -> Part:
    """Rows given as mappings or records. A one-way iterator is kept in a list, or with `streaming` read only once."""
    if iter(rows) is rows:
        rows = _Once(rows) if streaming else list(rows)
    source = rows

    def read() -> Iterator[Raw]:
        for index, row in enumerate(source):
            yield in_memory(index, row)

    return Part(name="rows", rows=read, where=lambda i: f"rows[{i}]", cheap=not isinstance(source, _Once))


def in_memory(index: int, row: Any) -> Raw:
    if isinstance(row, Record):
        return Raw(index, to_row(row))
    if isinstance(row, Mapping):
        return Raw(index, row)
    return Raw(index, error=f"expected a mapping of fields, found {type(row).__name__}.", text=repr(row)[:1000])


class _Once:
    """An iterator whose first rows may be looked at before its one pass."""

    def __init__(self, rows: Iterable[Any]) -> None:
        self._rows = iter(rows)
        self._head: list[Any] = []
        self._passes = 0

    def __iter__(self) -> Iterator[Any]:
        # the first pass is the look at the head, which keeps what it takes; the second is the reading
        self._passes += 1
        if self._passes == 1:
            return self._look()
        if self._passes == 2:
            return chain(self._head, self._rows)
        raise SettingsError("these rows came from an iterator and can be read only once.", remedy="Pass a list.")

    def _look(self) -> Iterator[Any]:
        for row in self._rows:
            self._head.append(row)
            yield row
