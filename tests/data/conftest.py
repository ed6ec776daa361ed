"""Helpers for the data room's tests."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write rows (or raw lines, or bytes) to a file of the test's folder; `.gz` is zipped."""

    def _write(name: str, rows: Iterable[Any] | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not isinstance(rows, bytes):
            lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
            rows = "".join(line + "\n" for line in lines).encode()
        path.write_bytes(gzip.compress(rows) if path.suffix == ".gz" else rows)
        return path

    return _write
