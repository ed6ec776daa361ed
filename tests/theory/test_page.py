"""docs/theory.md and its figures are what docs/theory.py computes."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("theory_page", ROOT / "docs" / "theory.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["theory_page"] = module
    spec.loader.exec_module(module)
    return module


def test_the_page_shows_every_block_once(script: Any) -> None:
    text = script.PAGE.read_text("utf-8")
    assert re.findall(r"<!-- theory:(\w+) -->", text) == list(script.MAKERS)
    assert all(script.on_page(text).values())


def test_every_block_is_under_the_command_that_prints_it(script: Any) -> None:
    sections = script.PAGE.read_text("utf-8").split("\n## ")
    for section in sections:
        shown = re.findall(r"<!-- theory:(\w+) -->", section)
        commands = " ".join(re.findall(r"`python docs/theory.py ([a-z ]+)`", section))
        assert commands.split() == shown


def test_page_and_figures_are_up_to_date(script: Any) -> None:
    fast = [name for name in script.MAKERS if name not in script.SLOW]
    assert script.stale(fast) == [], "renew with: python docs/theory.py --write"


def test_a_wrong_number_is_noticed(script: Any) -> None:
    text = script.MAKERS["counter"]()
    assert script.near(text, text)
    assert not script.near(text.replace("0.83", "0.93"), text)
    assert not script.near(text.replace("second", "first"), text)


def test_figures_are_drawn_on_paper_and_told_in_words(script: Any) -> None:
    for name in script.PICTURES:
        text = (script.FIGURES / f"theory_{name}.svg").read_text("utf-8")
        assert 'fill="#ffffff"' in text
        assert "<title>" in text
        assert not re.search(r"#0[12]0[12]\d\d", text)  # no placeholder is left
