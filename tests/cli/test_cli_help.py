"""Help of every command, and that it is quick because nothing heavy is loaded for it."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from functools import cache
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from pluralign.cli import app

from .conftest import ROOT, Cli


def commands(group: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [path]
    for name, command in getattr(group, "commands", {}).items():
        found += commands(command, (*path, name))
    return found


EVERY = commands(typer.main.get_command(app))


@cache
def help_of(*path: str) -> Any:
    return CliRunner().invoke(app, [*path, "--help"])


def test_every_command_is_listed_in_the_help() -> None:
    listed = help_of().output
    for path in EVERY:
        if len(path) == 1:
            assert re.search(rf"^  {path[0]} ", listed, re.M), path
    assert {p[0] for p in EVERY if p} >= {"align", "recipes", "data", "generate", "chat", "evaluate", "compare"}


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
def test_help_of_every_command(path: tuple[str, ...]) -> None:
    shown = help_of(*path)
    assert shown.exit_code == 0
    assert "Usage: " in shown.output
    undescribed = [line for line in shown.output.split("\n") if re.fullmatch(r"  --[\w-]+( <\w+>)?( +\[.*)?", line)]
    assert [line for line in undescribed if "--seed" not in line] == []


def test_examples_of_the_help_name_commands_that_exist() -> None:
    known = {" ".join(path) for path in EVERY}
    for path in EVERY:
        shown = help_of(*path).output
        for words in re.findall(r"^    pluralign ([a-z]+)(?: ([a-z][a-z0-9-]*))?", shown, re.M):
            assert words[0] in known
            if words[0] in ("data", "evaluate"):
                assert " ".join(words) in known


def test_help_loads_nothing_heavy_and_is_quick() -> None:
    heavy = "[m for m in ('numpy', 'torch', 'transformers', 'datasets', 'matplotlib', 'scipy') if m in sys.modules]"
    code = f"import sys; from pluralign.cli import run; run(['--help']); found = {heavy}; assert not found, found"
    ours, least = (min(seconds(c) for _ in range(3)) for c in (code, "import typer.main, rich.console, rich.table"))
    assert ours < 5 * least


def seconds(code: str) -> float:
    """Of the processor: what the machine does besides does not count."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_without_a_command_the_help_is_shown(cli: Cli) -> None:
    shown = cli()
    assert "Commands:" in shown.out + shown.err
    assert "Traceback" not in shown.err


def test_main_leaves_with_the_exit_code_and_runs_as_a_module(shell: Cli) -> None:
    assert shell("version").code == 0
    wrong = shell("recipes", "dppo")
    assert wrong.code == 2
    assert wrong.err == 'error: unknown recipe "dppo". Did you mean "dpo"?\n'
