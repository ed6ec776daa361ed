"""A curated data set as a folder: train, validation, what was dropped and why, and the counts. All of it or nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..data import convert
from ..data.operations import writing_bytes
from ..data.quarantine import to_json
from ..errors import RecordError, SettingsError
from .pipeline import Curated, Drop

__all__ = ["FILES", "check_folder", "dropping", "quarantine_in", "write_curated"]

TRAIN, VALIDATION, DROPPED, REPORT = "train.jsonl.gz", "validation.jsonl.gz", "dropped.jsonl.gz", "curation.json"
QUARANTINE = "quarantine.jsonl"
FILES = (TRAIN, VALIDATION, DROPPED, QUARANTINE, REPORT)
UNFINISHED = ".unfinished"


def check_folder(folder: str | Path, *, overwrite: bool = False, names: Sequence[str] = FILES) -> Path:
    """The folder, if none of the files `names` there would be lost. Raises SettingsError."""
    path = Path(folder)
    if path.exists() and not path.is_dir():
        raise SettingsError(f"{path} is a file, and the output is a folder.")
    there = [name for name in names if (path / name).exists()]
    if there and not overwrite:
        raise SettingsError(f"{path / there[0]} exists already.", remedy="Choose another folder, or pass --overwrite.")
    return path


def quarantine_in(folder: str | Path) -> Path:
    """Where a source writes its malformed rows, so that `write_curated` puts them beside the rest."""
    return Path(folder) / UNFINISHED / QUARANTINE


@contextmanager
def dropping(path: Path) -> Iterator[Drop]:
    """A function that writes what steps drop, a JSON line each, to a file (gzip by its name)."""
    with writing_bytes(path, zipped=path.suffix == ".gz") as file:

        def drop(entry: Mapping[str, Any]) -> None:
            file.write(to_json(entry).encode() + b"\n")

        yield drop


def write_curated(
    curated: Curated, folder: str | Path, *, about: Mapping[str, Any] | None = None, overwrite: bool = False
) -> dict[str, Any]:
    """Write train.jsonl.gz, validation.jsonl.gz (if records are held out), dropped.jsonl.gz and curation.json.

    One pass. The files appear together at its end: interrupted, the folder is as it was. Returns the report, with
    `about` (where the records are from, ...) in it; a value of `about` may be a function, called after the pass. The
    same records and settings give the same bytes.

    Raises SettingsError where there are such files, and RecordError where no record is left.
    """
    target = check_folder(folder, overwrite=overwrite)
    made = [path for path in (target, *target.parents) if not path.exists()]
    draft = target / UNFINISHED
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    others = curated.dropped
    try:
        with dropping(draft / DROPPED) as drop:
            curated.dropped = _both(drop, others)
            convert(curated, draft / TRAIN)
        if not curated.output.records:
            raise RecordError(f"no record is left of {curated.input.records:,} ({_reasons(curated)}).")
        held = curated.validation
        if held:
            convert(held, draft / VALIDATION)
        said = {name: value() if callable(value) else value for name, value in (about or {}).items()}
        report = {**said, **curated.report()}
        (draft / REPORT).write_text(json.dumps(report, indent=1, ensure_ascii=False, default=str) + "\n", "utf-8")
        _publish(draft, target)
    finally:
        curated.dropped = others
        shutil.rmtree(draft, ignore_errors=True)
        if not any((target / name).exists() for name in FILES):
            _remove_empty(made)
    return report


def _both(first: Drop, second: Drop | None) -> Drop:
    def drop(entry: Mapping[str, Any]) -> None:
        first(entry)
        if second is not None:
            second(entry)

    return drop


def _publish(draft: Path, target: Path) -> None:
    """The report goes first and comes last: where it is, the other files belong to it."""
    (target / REPORT).unlink(missing_ok=True)
    for name in FILES:
        if (draft / name).exists():
            (draft / name).replace(target / name)
        else:
            (target / name).unlink(missing_ok=True)


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _reasons(curated: Curated) -> str:
    return ", ".join(f"{n:,} {why}" for count in curated.counts for why, n in count.dropped.items()) or "none read"
