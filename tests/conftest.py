"""Shared fixtures. Everything runs offline and on few threads."""

from __future__ import annotations

import gc
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("PLURALIGN_SHARED", ROOT.parent / "shared" / "data"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real public data; tests that need it skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"real data not found at {SHARED} (set PLURALIGN_SHARED)")
    return SHARED


def pytest_collection_finish() -> None:
    """What is imported by now stays: the full collections that every run ends with need not walk through it again."""
    gc.collect()
    gc.freeze()
