"""Pairs person by person: votes, ratings, rewritings and workers' comparisons, by hand and on real files."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluralign.data.votes import (
    busiest,
    draw_pairs,
    rating_pairs,
    read_votes,
    rewriting_pairs,
    tldr_pairs,
    vote_pairs,
)
from pluralign.errors import RecordError, SettingsError

MATRIX = """participant,group-id,n-votes,0,1,2,7
a,0,3,1,-1,,
b,1,4,-1.0,1.0,0.0,1
c,,1,1,,,
"""
COMMENTS = 'comment-id,comment-body\n0,"Tax, more"\n1,Tax less\n2,Do nothing\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "participants-votes.csv").write_text(MATRIX)
    with gzip.open(tmp_path / "comments.csv.gz", "wt") as file:
        file.write(COMMENTS)
    (tmp_path / "summary.csv").write_text('topic,"Taxes, again"\nviews,3\n')
    return tmp_path


def texts(record: Any) -> tuple[str, str]:
    return record.chosen[0].content, record.rejected[0].content


def test_a_matrix_by_hand(folder: Path) -> None:
    votes = read_votes(folder)
    assert votes.topic == "Taxes, again"
    a, b, c = votes.ballots
    assert (a.agreed, a.disagreed, a.passed, a.group, a.pairs) == (("0",), ("1",), (), "0", 1)
    assert (b.agreed, b.disagreed, b.passed, b.group) == (("1",), ("0",), ("2",), "1")  # 7 has no text
    assert (c.agreed, c.disagreed, c.group, c.pairs) == (("0",), (), None, 0)
    assert votes.untold == ("7",)
    found = list(vote_pairs(votes))
    assert [(r.user, r.group, *texts(r)) for r in found] == [
        ("a", "0", "Tax, more", "Tax less"),
        ("b", "1", "Tax less", "Tax, more"),
    ]
    assert found[0].prompt[0].content == "Taxes, again"
    assert found[0].meta == {"chosen_id": "0", "rejected_id": "1"}
    assert list(vote_pairs(votes, at_least=2)) == []


def test_damage_is_told_with_its_place(folder: Path, tmp_path: Path) -> None:
    path = folder / "participants-votes.csv"
    path.write_text(MATRIX.replace("b,1,4,-1.0", "b,1,4,-2"))
    with pytest.raises(RecordError, match=r'votes.csv:3: "-2" in column 0 is no vote'):
        read_votes(folder)
    path.write_text("participant,helpful\na,1\n")
    with pytest.raises(RecordError, match="no matrix of votes"):
        read_votes(folder)
    path.unlink()
    with pytest.raises(SettingsError, match=r"has no clean_votes\.csv or participants-votes\.csv"):
        read_votes(folder)
    path.write_text(MATRIX)
    (folder / "summary.csv").unlink()
    with pytest.raises(SettingsError, match="no topic"):
        list(vote_pairs(read_votes(folder)))
    assert len(list(vote_pairs(read_votes(folder, topic="Taxes")))) == 2


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 100), st.integers(0, 99))
def test_drawn_pairs_are_different_and_no_more_than_there_are(a: int, b: int, most: int, seed: int) -> None:
    better, worse = [f"a{i}" for i in range(a)], [f"b{i}" for i in range(b)]
    found = draw_pairs(better, worse, most, random.Random(seed))
    assert len(found) == len(set(found)) == min(most, a * b)
    assert all(x in better and y in worse for x, y in found)


def rating(user: str, item: str, value: float) -> dict[str, Any]:
    return {"user_id": user, "instance_id": item, "text": f"text {item}", "offensiveness": str(value)}


def test_ratings_by_hand() -> None:
    """u finds 1 and 3 equal and 2 worse: two pairs; nobody's rows belong to nobody."""
    rows = [rating("u", "1", 1), rating("u", "2", 4), rating("u", "3", 1), rating("v", "1", 2), rating("", "2", 5)]
    found = list(rating_pairs(rows))
    assert {(r.user, *texts(r), r.margin) for r in found} == {
        ("u", "text 1", "text 2", 3.0),
        ("u", "text 3", "text 2", 3.0),
    }
    turned = list(rating_pairs(rows, lower_is_better=False, most=1))
    assert len(turned) == 1
    assert texts(turned[0])[0] == "text 2"
    with pytest.raises(RecordError, match='row 1: expected a number in "offensiveness"'):
        list(rating_pairs([rows[0], {**rows[1], "offensiveness": "very"}]))
    with pytest.raises(RecordError, match='row 0: no field "user_id"'):
        list(rating_pairs([{"text": "x"}]))


def test_rewritings_by_hand() -> None:
    rows = [
        {"user_id": "u", "instance_id": "9", "original email": "Come.", "revised email": "Please come."},
        {"user_id": "v", "instance_id": "9", "original email": "Come.", "revised email": "Would you come?"},
        {"user_id": "w", "instance_id": "9", "original email": "Come.", "revised email": "Come."},
    ]
    found = [(r.user, *texts(r)) for r in rewriting_pairs(rows)]
    assert found == [("u", "Please come.", "Come."), ("v", "Would you come?", "Come.")]
    others = [(r.user, *texts(r)) for r in rewriting_pairs(rows, against="others")]
    assert ("u", "Please come.", "Would you come?") in others
    assert ("v", "Would you come?", "Please come.") in others
    assert "more polite:\n\nCome." in next(rewriting_pairs(rows)).prompt[0].content


def comparison(worker: str, choice: int, a: str = "long words here", b: str = "short", policy: str = "sup1") -> Any:
    return {
        "info": {"id": "t3_1", "post": "A post.", "title": "Title"},
        "summaries": [{"text": f" {a}", "policy": policy}, {"text": b, "policy": "sup2"}],
        "choice": choice, "worker": worker, "batch": "b", "split": "train", "extra": {"confidence": 5},
    }  # fmt: skip


def test_tldr_by_hand() -> None:
    rows = [comparison("x", 1), comparison("y", 0), comparison("x", 0, policy="ppo"), comparison("x", 0, a="short")]
    found = list(tldr_pairs(rows))
    assert [(r.user, *texts(r)) for r in found] == [
        ("x", "short", "long words here"),
        ("y", "long words here", "short"),
        ("x", "long words here", "short"),
    ]
    assert found[0].prompt[0].content == "Summarise this post.\n\nTitle\n\nA post."
    assert found[0].meta["policies"] == ["sup2", "sup1"]
    assert len(list(tldr_pairs(rows, policies=["sup"]))) == 2
    by_length = list(tldr_pairs(rows[:2], prefer={"x": "longer", "y": "shorter"}))
    assert [texts(r)[0] for r in by_length] == ["long words here", "short"]
    assert [r.user for r in busiest(found, 1)] == ["x", "x"]
    with pytest.raises(RecordError, match='row 1: "choice" is 2'):
        list(tldr_pairs([rows[0], comparison("x", 2)]))
    with pytest.raises(RecordError, match='two "summaries"'):
        list(tldr_pairs([{**rows[0], "summaries": []}]))


# Real files


def test_ccai_agrees_with_its_own_counts(shared: Path) -> None:
    """n-agree counts votes on all statements, ours those on statements that were kept: never more, mostly the same."""
    votes = read_votes(shared / "ccai_polis", topic="How should an AI behave?")
    assert len(votes.ballots) == 1002
    assert len(votes.statements) == 275
    assert sum(len(b.agreed) for b in votes.ballots) == 27271
    assert sum(len(b.disagreed) for b in votes.ballots) == 4550
    pairs = list(vote_pairs(votes, most=5, at_least=250))
    assert len({r.user for r in pairs}) > 60
    assert {r.group for r in pairs} <= {"0", "1", None}


def test_polis_conversations_have_topics_and_groups(shared: Path) -> None:
    votes = read_votes(shared / "polis_opendata" / "scoop-hivemind.taxes")
    assert votes.topic == "Tax HiveMind Window"
    assert len(votes.ballots) == 334
    assert sum(b.pairs > 200 for b in votes.ballots) > 200


def test_popquorn_pairs(shared: Path) -> None:
    def rows(name: str) -> list[dict[str, Any]]:
        with gzip.open(shared / "popquorn" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    rated = list(rating_pairs(rows("offensiveness"), most=3))
    assert len({r.user for r in rated}) > 200
    assert all(r.margin is not None and r.margin > 0 for r in rated)
    revised = list(rewriting_pairs(rows("email_rewriting")))
    assert 1000 < len(revised) < 1876
