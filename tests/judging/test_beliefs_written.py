"""Beliefs read from responses: number, text, rest, and what cannot be read."""

from __future__ import annotations

import pytest

from pluralign.data.beliefs import Beliefs
from pluralign.judging.beliefs import Written, class_belief_consistency, written_belief

ASKED = Beliefs(("Yes", "No", "No > yes", "No>"), (0.4, 0.3, 0.2, 0.1), 0, True)


@pytest.mark.parametrize(
    ("response", "read"),
    [
        ("1<No>It is not.", Written(1, 1, "It is not.")),
        (" 1<No> It > 3 is not.", Written(1, 1, " It > 3 is not.")),
        ("0<No>It is not.", Written(0, 1, "It is not.")),  # a number and the text of another option
        ("2<No > yes>Hm.", Written(2, 2, "Hm.")),
        ("3<No>>Hm.", Written(3, 3, "Hm.")),  # the longer option that fits, not the shorter one
        ("7<No>Hm.", Written(None, 1, "Hm.")),
        ("1<Maybe>Hm.", Written(1, None, "<Maybe>Hm.")),
        ("No.", Written(None, None, "No.")),
        ("1 No.", Written(None, None, "1 No.")),
        ("", Written(None, None, "")),
    ],
)
def test_what_a_response_begins_with(response, read) -> None:
    assert written_belief(response, ASKED) == read


def test_what_was_written_for_training_is_read_back() -> None:
    many = Beliefs(tuple(f"option {k}" for k in range(12)), (1 / 12,) * 12, 0, True)
    for beliefs in (ASKED, many):
        for k in range(len(beliefs)):
            assert written_belief("".join(beliefs.pieces(k)) + "So it is.", beliefs) == Written(k, k, "So it is.")


def test_consistency_counts_what_it_could_not_read() -> None:
    """Two of three that can be read are consistent; two cannot be."""
    said = ["1<No>a", "0<Yes>b", "0<No>c", "No.", "1<Maybe>d"]
    found, read = class_belief_consistency(said, [ASKED] * 5)
    assert found.value == pytest.approx(2 / 3)
    assert (found.n, found.missing) == (3, 2)
    assert [w.consistent for w in read] == [1.0, 1.0, 0.0, None, None]
