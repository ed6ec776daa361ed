"""Intent labels: proposals, the file that people correct, and labels put on records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pluralign.curate import curate
from pluralign.errors import RecordError, SettingsError
from pluralign.intents.labels import (
    Proposal,
    given_intents,
    labelled,
    merged,
    prompt_id,
    propose,
    read_labels,
    subset,
    write_labels,
)
from pluralign.intents.pseudo import FIELD, by_file, by_module

from .conftest import block, record

ROWS = [
    Proposal("1", 'Say "a",\nplease', "greet", "", "yes"),
    Proposal("2", "=2+2", "add", "compute", "yes"),
    Proposal("3", "Why?", "know", "", "no"),
    Proposal("4", "Hm.", "", "", ""),
]


def test_proposals_by_an_endpoint(server, asking) -> None:
    records = [record(q) for q in ("Who drinks tea?", "Name <intent>war</intent>", "Sing.")]
    found, why = propose(records, asking())
    assert [p.proposed for p in found] == ["learn something"] * 3
    assert not why
    assert [p.id for p in found] == [prompt_id(r) for r in records]
    server.answer = lambda text: f"<intent>{block(text, 'message')}</intent>"
    found, why = propose([record("learn"), record("LEARN"), record("eat</intent>")], asking(again=0), ["learn", "eat"])
    assert [p.proposed for p in found] == ["learn", "", ""]  # exactly one of the names, in the form
    assert why == {"unparsed": 2}
    server.answer = lambda text: "It is this:\n<intent>learn</intent>"
    assert propose([record("other")], asking(again=0))[1] == {"unparsed": 1}


def test_proposals_by_rules() -> None:
    found, _ = propose([record("Why is tea hot?"), record("Write a song.")], None)
    assert [p.proposed for p in found] == ["understand a cause", "have a text written"]
    with pytest.raises(SettingsError, match="rules have intents of their own"):
        propose([record("x")], None, ["a"])


def test_a_subset_is_the_same_whatever_else_there_is() -> None:
    some = [record(f"prompt {i}") for i in range(50)]
    few = subset(some, 10)
    assert len({prompt_id(r) for r in few}) == 10
    assert subset([*some[::-1], *some], 10) == few
    more = subset([*some, *(record(f"more {i}") for i in range(50))], 20)
    assert sum(r in few for r in more) == sum(prompt_id(r) in {prompt_id(x) for x in few} for r in more)
    assert [r for r in more if r in some] == [r for r in few if r in more] + [
        r for r in more if r in some and r not in few
    ]


def test_the_file_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "intents.csv"
    assert write_labels(ROWS, path) == 4
    found = read_labels(path)
    assert [(p.id, p.proposed, p.corrected, p.keep) for p in found] == [
        (p.id, p.proposed, p.corrected, p.keep) for p in ROWS]  # fmt: skip
    assert [p.intent for p in found] == ["greet", "compute", None, None]
    assert [p.is_open for p in found] == [False, False, False, True]
    assert found[1].prompt == "'=2+2"  # no formula in a spreadsheet
    path.write_text("\ufeffkeep;id;corrected;proposed\nY;1;;a\n", "utf-8")  # as a spreadsheet may save it
    assert read_labels(path)[0].intent == "a"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("id,proposed,keep\n", 'no column "corrected"'),
        ("id,proposed,corrected,keep\n1,a,,perhaps\n", r'x\.csv:2: "keep" is yes, no or empty, not "perhaps"'),
        ("id,proposed,corrected,keep\n1,a,,\n1,b,,\n", r"x\.csv:3: the id 1 stands twice"),
        ("id,proposed,corrected,keep\n1,,,yes\n", "kept, and has no intent"),
        ("id,proposed,corrected,keep\n,a,,\n", "no id"),
    ],
)
def test_files_that_cannot_be(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(RecordError, match=why):
        read_labels(tmp_path / "x.csv")
    with pytest.raises(SettingsError, match="intents propose"):
        read_labels(tmp_path / "nowhere.csv")


class Axes:
    """An encoder by hand: cosines of .9 between "learn" and "learn it", .1 to "eat"."""

    name = key = "axes"

    def encode(self, texts, **_):
        rows = {"learn": (1, 0), "learn it": (0.9, 0.19**0.5), "eat": (0.1, -(0.99**0.5))}
        return np.array([rows[t] for t in texts], np.float32)


def test_like_intents_get_the_commonest_name() -> None:
    rows = [Proposal(str(i), "", name) for i, name in enumerate(["learn it", "learn", "learn it", "eat", ""])]
    assert [p.proposed for p in merged(rows, Axes(), 0.8)] == ["learn it"] * 3 + ["eat", ""]
    assert [p.proposed for p in merged(rows, Axes(), 0.95)] == [p.proposed for p in rows]


def test_labels_of_a_file_on_records() -> None:
    records = [record("a", intent="old"), record("b", intent="old"), record("c"), record("d")]
    ids = [prompt_id(r) for r in records]
    rows = [Proposal(ids[0], "", "new", "", "yes"), Proposal(ids[1], "", "x", "", "no"), Proposal(ids[2], "", "x")]
    curated = curate(records, [by_file(rows)])
    assert [r.intent for r in curated] == ["new", "old", None, None]
    assert curated.counts[0].noted == {
        "by person, as proposed": 1, "dropped by a person": 1, "undecided": 1, "not in the file": 1}  # fmt: skip
    assert [r.intent for r in labelled(records, rows)] == ["new", "old", None, None]


def test_given_intents() -> None:
    records = [record("a", user="ann", group="x", meta={"info": {"kind": 3}}), record("b", intent="mine")]
    for where, wanted in (("user", "ann"), ("group", "x"), ("info.kind", "3"), ("info", None)):
        curated = curate(records, [given_intents(where)])
        assert [r.intent for r in curated] == [wanted, "mine"]
        assert curated.counts[0].noted[f"no {where}"] == 1 + (wanted is None)


class Sure:
    """A module that is 0.9 sure of "learn" where a prompt has a question mark, else 0.5 of "eat"."""

    names = ("eat", "learn")

    def posterior(self, records):
        return np.array([[0.1, 0.9] if "?" in r.prompt[0].content else [0.5, 0.5] for r in records])


def test_pseudo_labels_carry_their_confidence() -> None:
    records = [record("a?"), record("b"), record("c?", intent="mine"),
               record("d?", intent="hers", meta={FIELD: {"by": "person"}})]  # fmt: skip
    curated = curate(records, [by_module(Sure(), 0.6)])
    made = list(curated)
    assert [r.intent for r in made] == ["learn", None, "mine", "hers"]
    assert made[0].meta[FIELD] == {"by": "module", "share": 0.9, "likeliest": "learn"}
    assert curated.counts[0].noted == {"by the module": 1, "no clear intent": 1, "had an intent": 2}
    assert [r.intent for r in curate(records, [by_module(Sure(), 0.4, relabel=True, protect=True)])] == [
        "learn", "eat", "learn", "hers"]  # fmt: skip
