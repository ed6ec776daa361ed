"""Measured attributes on texts whose values are counted by hand."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluralign.curate.measured import MEASURES, POLITE, READABILITY, check_measures, measure
from pluralign.errors import SettingsError

PLAIN = [name for name in MEASURES if name not in READABILITY]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("words", "Name a fruit, please.", 4),
        ("words", "", 0),
        ("words", "你好 friend", 3),
        ("characters_per_word", "I am here.", (1 + 2 + 4) / 3),
        ("sentences", "One. Two! Three? Four… and on", 5),
        ("sentences", 'He said "no." Then he left', 2),
        ("sentences", "3.5 apples cost $2.50.", 1),
        ("sentences", "A heading\n\nA sentence. ...", 2),
        ("sentences", "你好。再见！", 2),
        ("sentences", "?!", 0),
        ("words_per_sentence", "One two. Three.", 1.5),
        ("questions", "What? Really?! Why??", 3),
        ("questions", "No.", 0),
        ("list_items", "Buy:\n- bread\n* milk\n 1. eggs\n2) oil\nc) salt\n--\n-5 degrees\n2.5 litres", 5),
        ("first_person", "I think we like US policy", 2 / 6),
        ("first_person", "I'm here", 1 / 3),
        ("politeness", "Could you please help? Thank you very much!", 100 * 3 / 8),
        ("politeness", "You’re welcome", 100 * 1 / 3),  # three words: You re welcome
        ("politeness", "pleased", 0),
    ],
)
def test_values_counted_by_hand(name: str, text: str, value: float) -> None:
    assert measure([name], text) == {name: pytest.approx(value)}


def test_what_has_no_value_is_left_out() -> None:
    assert measure(PLAIN, "...") == {"words": 0.0, "sentences": 0.0, "questions": 0.0, "list_items": 0.0}


def test_names_are_checked_and_defined() -> None:
    with pytest.raises(SettingsError, match='Did you mean "politeness"'):
        check_measures(["polite"])
    for name, (definition, _) in MEASURES.items():
        assert 10 < len(definition) < 120, name
        assert "\n" not in definition
    assert len(set(POLITE)) == len(POLITE)


def test_the_documentation_lists_every_measure() -> None:
    page = (Path(__file__).parents[2] / "docs" / "data-formats.md").read_text(encoding="utf-8")
    for name, (definition, _) in MEASURES.items():
        assert f"| `{name}` | {definition} |" in page


@given(st.text(max_size=200))
def test_any_text_can_be_measured(text: str) -> None:
    found = measure(PLAIN, text)
    assert all(value >= 0 for value in found.values())
    assert found["sentences"] <= max(found["words"], 0)
    assert found.get("first_person", 0) <= 1
    assert found["words"] == 0 or set(found) == set(PLAIN)


def test_readability_is_the_formula_of_its_counts() -> None:
    pytest.importorskip("textstat")
    text = "The cat sat on the mat. It was a lovely evening."
    # 11 words, 2 sentences, 36 letters and 2 full stops, 1 word above six letters
    found = measure(READABILITY, text)
    assert found["readability_grade"] == pytest.approx(4.71 * 38 / 11 + 0.5 * 11 / 2 - 21.43)
    assert found["lix"] == pytest.approx(11 / 2 + 100 * 1 / 11)
    hard = (
        "Considerable institutional heterogeneity notwithstanding, multilateral organisations collaborate extensively."
    )
    assert all(measure([name], hard)[name] > value for name, value in found.items())
    assert measure(READABILITY, "...") == {}


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def lacking(name: str, *rest: Any, **more: Any) -> Any:
        if name == "textstat":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", lacking)
    assert measure(["words"], "one two") == {"words": 2.0}
    with pytest.raises(SettingsError, match=r"pip install 'pluralign\[measure\]'"):
        check_measures(["words", "lix"])
