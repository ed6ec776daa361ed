"""The command line as a function, and a model and pairs so small that whole runs take seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from pluralign.cli import run
from tests.training.conftest import pairs_file, tiny_model  # noqa: F401 - fixtures

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


Cli = Callable[..., Result]


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """`cli("align", "dpo")`: the exit code and what was printed, in a folder and with a cache of the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PLURALIGN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PLURALIGN_DEBUG", raising=False)

    def call(*arguments: str | Path) -> Result:
        capfd.readouterr()
        code = run([str(a) for a in arguments])
        captured = capfd.readouterr()
        return Result(code, captured.out, captured.err)

    return call


@pytest.fixture
def shell(tmp_path: Path) -> Cli:
    """The same as a process of its own: `shell("recipes")`; `stdin` is text."""

    def call(*arguments: str | Path, stdin: str = "", timeout: float = 240, **env: str) -> Result:
        command = [sys.executable, "-m", "pluralign", *map(str, arguments)]
        options = {"cwd": tmp_path, "env": environment(tmp_path, **env), "timeout": timeout}
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, **options)
        return Result(done.returncode, done.stdout, done.stderr)

    return call


def environment(folder: Path, **more: str) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PLURALIGN_CACHE": str(folder / "cache"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        **more,
    }


@pytest.fixture
def short(tiny_model: str, pairs_file: str) -> list[str]:  # noqa: F811 - the fixtures
    """Arguments of a run that takes a second."""
    return ["--model", tiny_model, "--data", pairs_file, "max_steps=2", "batch_size=8", "learning_rate=1e-3",
            "max_length=128", "kl_rows=4"]  # fmt: skip
