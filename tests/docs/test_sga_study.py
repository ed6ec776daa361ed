"""What the SGA study makes of its data and of its runs: beginnings, ratings, and a correlation worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

STUDIES = Path(__file__).parents[2] / "docs" / "studies"


@pytest.fixture(autouse=True)
def beside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(STUDIES))


def test_beginnings_end_where_sentences_do() -> None:
    from sga_worlds import beginnings

    text = " Yes. Why do you ask?  I am 3.5 years old"
    assert beginnings(text) == ["Yes.", "Yes. Why do you ask?", text.strip()]
    assert beginnings("No end") == ["No end"]


def test_ratings_are_those_of_the_rung() -> None:
    """Seven words are log2(8) = 3, of a scale from 2 to 4 the middle: 2 of 4; eight are 3.17: 2.340."""
    from sga_worlds import Rung, rated

    ranges = {"length": (2.0, 4.0), "questions": (0.0, 1.0), "first_person": (0.0, 0.2)}
    seven, eight = "a b c d e f g.", "a b c d e f g h."
    assert rated(seven, ranges, Rung()) == {"length": 2.0}
    assert rated(eight, ranges, Rung(whole=False)) == {"length": pytest.approx(4 * (np.log2(9) - 2) / 2, abs=1e-3)}
    assert rated(eight + " Why?", ranges, Rung(names=("questions",))) == {"questions": 4.0}
    assert rated("...", ranges, Rung()) == {}  # without a word there is no share of words


@pytest.mark.parametrize(("follow", "expected"), [(1.0, 1.0), (-1.0, -1.0), (0.0, 0.0)])
def test_what_is_followed(follow: float, expected: float) -> None:
    """Measured = requested: 1; its opposite: -1; the same whatever is asked for: 0."""
    from sga_numbers import LEVELS
    from sga_steer_page import followed

    levels = np.array([(x if follow > 0 else 1 - x) if follow else 0.4 for x in LEVELS])
    table = np.zeros((len(LEVELS), 6, 3))
    table[:, :, 0] = levels[:, None]
    cell: dict[str, Any] = {"steer": {"length": table.tolist()}}
    assert followed([cell, cell], "length").value == pytest.approx(expected)
