"""A tiny model for every test of benchmarks."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # bench_toys

from pluralign.benchmarks.kinds.systems import System
from pluralign.policy import Policy
from tests.training.conftest import tiny_model  # noqa: F401 - a fixture


@pytest.fixture
def policy(tiny_model: str) -> Policy:  # noqa: F811
    return Policy.load(tiny_model, precision="fp32")


@pytest.fixture
def system(policy: Policy) -> System:
    return System("tiny", "tiny", loaded=policy)


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Style control takes its time, and its interval is tested with it."""
    monkeypatch.setattr("pluralign.benchmarks.arena_hard.RESAMPLES", 8)
