"""Plural data as a folder: train, validation and test as native rows, the intents, and where every source row went."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...data import convert, fingerprint
from ...data.operations import writing_bytes
from ...data.quarantine import to_json
from ...errors import RecordError
from ..files import check_folder
from .opinions import belief_row
from .rows import Built
from .splits import PARTS, SHARES, By, check_leaks, three_ways

__all__ = ["INTENTS", "REPORT", "check_free", "write_folder"]

REPORT, INTENTS = "built.json", "intents.txt"
FILES = (*(f"{part}.jsonl.gz" for part in PARTS), *(f"{part}.beliefs.jsonl.gz" for part in PARTS), INTENTS, REPORT)
UNFINISHED = ".unfinished-parts"


def check_free(folder: str | Path, *, overwrite: bool = False) -> Path:
    """The folder, if nothing there would be lost. Raises SettingsError."""
    return check_folder(folder, overwrite=overwrite, names=FILES)


def write_folder(
    built: Built,
    folder: str | Path,
    *,
    by: By = "question",
    shares: Sequence[float] = SHARES,
    seed: int = 0,
    beliefs: bool = False,
    about: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write {train,validation,test}.jsonl.gz, intents.txt (one a line) and built.json; returns what built.json holds.

    `beliefs` adds {part}.beliefs.jsonl.gz, rows of the format `beliefs` (opinions only). Parts are checked for leaks
    before anything is written, and files appear together: interrupted, the folder is as it was. The same records,
    shares and seed give the same bytes. Raises SettingsError where there are such files or a part would be empty.
    """
    target = check_free(folder, overwrite=overwrite)
    if not built.records:
        why = ", ".join(f"{n:,} {reason}" for reason, n in built.skipped.items()) or "none read"
        raise RecordError(f"no record came out of {built.rows:,} rows ({why}).")
    parts = three_ways(built.records, by=by, shares=shares, seed=seed)
    check_leaks(parts, by=by)
    report = {
        **(about or {}),
        **built.report(),
        "split": {"by": by, "shares": list(shares), "seed": seed},
        "parts": {part: {"records": len(own), "sha256": fingerprint(own)} for part, own in parts.items()},
    }
    draft = target / UNFINISHED
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        for part, own in parts.items():
            convert(own, draft / f"{part}.jsonl.gz")
            if beliefs:
                with writing_bytes(draft / f"{part}.beliefs.jsonl.gz", zipped=True) as file:
                    for record in own:
                        file.write(to_json(belief_row(record)).encode() + b"\n")
        (draft / INTENTS).write_text("".join(f"{intent}\n" for intent in built.intents), "utf-8")
        (draft / REPORT).write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", "utf-8")
        (target / REPORT).unlink(missing_ok=True)  # comes last: where it is, the other files belong to it
        for name in FILES:
            (target / name).unlink(missing_ok=True)
            if (draft / name).exists():
                (draft / name).replace(target / name)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return report
