"""Results that are kept as they come: JSON lines by key, so that what was stopped goes on and nothing is done twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ...judging.lines import appending, read_lines

__all__ = ["digest_of", "keep", "short"]

CHUNK = 32  # items between two looks at the file


def digest_of(seen: Any) -> str:
    """A digest of plain data."""
    text = json.dumps(seen, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def short(text: str) -> str:
    """12 digits that tell a text from others: a name for a cluster."""
    return digest_of(text)[:12]


def keep(
    path: Path | None,
    keys: Sequence[str],
    work: Callable[[Sequence[int]], Sequence[Any]],
    *,
    progress: Callable[[int, int], None] | None = None,
    chunk: int = CHUNK,
) -> list[Any]:
    """The value of every key, in order: from `path` where it holds it, else from `work`, which is given the numbers of
    some of the keys and returns a JSON-ready value for each. What is the same is worked out once.

    Values are on disk after every `chunk`. Without a path nothing is kept. Raises RecordError for a damaged file.
    """
    known = {str(row["key"]): row["value"] for row in read_lines(path, ("key", "value"))} if path else {}
    first: dict[str, int] = {}
    for i, key in enumerate(keys):
        first.setdefault(key, i)
    missing = [i for key, i in first.items() if key not in known]
    total, done = len(first), len(first) - len(missing)
    if progress:
        progress(done, total)
    with appending(path) as append:
        for start in range(0, len(missing), chunk):
            part = missing[start : start + chunk]
            for i, value in zip(part, work(part), strict=True):
                known[keys[i]] = value
                append({"key": keys[i], "value": value})
            done += len(part)
            if progress:
                progress(done, total)
    return [known[key] for key in keys]
