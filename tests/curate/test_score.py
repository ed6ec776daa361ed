"""Scores as attributes: what is asked, what is kept, what is stored, and the order that comes of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from pluralign.curate import Count, Scored, Scorer, curate, measures, reorder, score_responses
from pluralign.errors import PluralignError, RecordError, SettingsError
from pluralign.records import Demonstration, Labelled, Preference, Ranked, Record, to_row

from .toys import LISTS, many, pair, passed, says, user


class Lengths:
    """A scorer of two attributes, the length of prompt and of response, that remembers what it was asked."""

    def __init__(self, key: str = "lengths", stop_after: int | None = None) -> None:
        self.asked: list[tuple[str, str]] = []
        self.stop_after = stop_after
        self.scorer = Scorer(("asked", "said"), self.score, key=key, title="lengths")

    def score(self, asked: Sequence[Any]) -> list[Scored]:
        if self.stop_after is not None and len(self.asked) >= self.stop_after:
            raise KeyboardInterrupt
        self.asked += [(prompt[-1].content, response[-1].content) for prompt, response in asked]
        return [Scored((float(len(p[-1].content)), float(len(r[-1].content)))) for p, r in asked]


def attributes(record: Any) -> dict[str, Any]:
    return dict(record.attributes)


# The step


def test_every_response_is_scored_beside_what_it_has() -> None:
    rows: list[Record] = [
        pair("why?", "because", "no", attributes={"wit": (1.0, None)}),
        Demonstration(prompt=user("q"), response=says("abc"), alternative=says("never asked")),
        Labelled(prompt=user("q"), response=says("ab"), label=False, attributes={"wit": 3.0}),
        Ranked(prompt=user("qq"), responses=(says("a"), says("abc")), scores=(1.0, 0.0)),
    ]
    lengths = Lengths()
    found, count = passed(score_responses([lengths.scorer]), rows)
    assert [attributes(r) for r in found] == [
        {"wit": (1.0, None), "asked": (4.0, 4.0), "said": (7.0, 2.0)},
        {"asked": 1.0, "said": 3.0},
        {"wit": 3.0, "asked": 1.0, "said": 2.0},
        {"asked": (2.0, 2.0), "said": (1.0, 3.0)},
    ]
    assert (count.read, count.kept, dict(count.noted)) == (4, 4, {})
    for record in found:
        record.validate()  # type: ignore[attr-defined]
    assert "never asked" not in {said for _, said in lengths.asked}


@given(LISTS)
@settings(max_examples=25, deadline=None)
def test_nothing_but_the_attributes_changes(rows: list[Record]) -> None:
    found, count = passed(score_responses([measures(["words"])]), rows)
    assert count.kept == count.read == len(rows)
    for before, after in zip(rows, found, strict=True):
        kept = to_row(after)
        kept.pop("attributes")
        assert kept == to_row(before)


def test_what_could_not_be_scored_is_none_and_counted() -> None:
    def score(asked: Sequence[Any]) -> list[Scored]:
        return [
            Scored((None,), "refused") if "bad" in r[0].content
            else Scored((float("nan"),)) if "odd" in r[0].content
            else Scored((None,)) if "dumb" in r[0].content
            else Scored((1.0,)) for _, r in asked
        ]  # fmt: skip

    rows = [pair("a", "bad", "good"), pair("b", "bad", "bad one"), pair("c", "odd", "x"), pair("d", "dumb", "x")]
    rows.append(Demonstration(prompt=user("q"), response=says("bad")))  # type: ignore[arg-type]
    found, count = passed(score_responses([Scorer(("fine",), score)]), rows)
    assert [attributes(r) for r in found] == [
        {"fine": (None, 1.0)},
        {},
        {"fine": (None, 1.0)},
        {"fine": (None, 1.0)},
        {},
    ]
    assert dict(count.noted) == {"fine: refused": 3, "fine: not a finite number": 1, "fine: no score": 1}
    assert count.kept == 5


def test_the_attribute_that_lacks_is_named() -> None:
    _, count = passed(score_responses([measures(["words", "politeness"])]), [pair("q", "...", "?!"), pair()])
    assert dict(count.noted) == {"politeness: no score": 1}


def test_names_are_given_once() -> None:
    with pytest.raises(SettingsError, match="nothing to score"):
        score_responses([])
    with pytest.raises(SettingsError, match='two scorers are named "words"'):
        score_responses([measures(["words"]), measures(["questions", "words"])])
    with pytest.raises(RecordError, match='rows:3: the record has an attribute "words" already'):
        passed(score_responses([measures(["words"])]), [pair(attributes={"words": (1.0, 2.0)}, where="rows:3")])


def test_a_scorer_that_miscounts() -> None:
    with pytest.raises(PluralignError, match='the scorer of "a, b"'):
        passed(score_responses([Scorer(("a", "b"), lambda asked: [Scored((1.0,)) for _ in asked])]), [pair()])


# The store


def test_equal_responses_are_asked_once_and_stored_ones_never(tmp_path: Path) -> None:
    rows = [pair("q", "a", "b"), pair("q", "b", "c"), pair("p", "a", "b")]
    first = Lengths()
    found, _ = passed(score_responses([first.scorer], store=tmp_path), rows)
    assert first.asked == [("q", "a"), ("q", "b"), ("q", "c"), ("p", "a"), ("p", "b")]
    again = Lengths()
    assert passed(score_responses([again.scorer], store=tmp_path), rows)[0] == found
    assert again.asked == []
    other = Lengths(key="another model")
    passed(score_responses([other.scorer], store=tmp_path), rows)
    assert len(other.asked) == 5
    nothing = Lengths(key="")
    for _ in range(2):
        passed(score_responses([nothing.scorer], store=tmp_path), rows)
    assert len(nothing.asked) == 10


def test_missing_scores_and_their_reasons_are_stored(tmp_path: Path) -> None:
    asked = []

    def refuse(many: Sequence[Any]) -> list[Scored]:
        asked.extend(many)
        return [Scored((None,), "refused")] * len(many)

    for _ in range(2):
        _, count = passed(score_responses([Scorer(("fine",), refuse, key="k")], store=tmp_path), [pair()])
        assert dict(count.noted) == {"fine: refused": 1}
    assert len(asked) == 2


def test_a_stopped_pass_goes_on_without_asking_twice(tmp_path: Path) -> None:
    rows = many(200)
    whole, _ = passed(score_responses([Lengths().scorer]), rows)
    broken = Lengths(stop_after=150)
    with pytest.raises(KeyboardInterrupt):
        passed(score_responses([broken.scorer], store=tmp_path), rows)
    assert len(broken.asked) >= 150
    rest = Lengths()
    found, _ = passed(score_responses([rest.scorer], store=tmp_path), rows)
    assert found == whole
    assert len(rest.asked) + len(broken.asked) == 400
    assert not set(rest.asked) & set(broken.asked)


def test_a_store_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "scores.sqlite").write_bytes(b"no data base at all, but long enough to look at" * 50)
    with pytest.raises(PluralignError, match=r"scores\.sqlite: .*Name another folder"):
        passed(score_responses([Lengths().scorer], store=tmp_path), [pair()])


def test_the_step_says_what_scored() -> None:
    scorer = Scorer(("fine",), lambda asked: [], title="a judge", ranges={"fine": (1.0, 5.0)})
    assert score_responses([scorer]).settings == {"scorers": {"fine": "a judge"}, "ranges": {"fine": [1.0, 5.0]}}


# The order


def rated(one: dict[str, float | None], other: dict[str, float | None], **more: Any) -> Preference:
    return pair(**more, attributes={name: (one.get(name), other.get(name)) for name in {**one, **other}})


def test_the_response_of_the_highest_mean_is_chosen() -> None:
    """helpful runs from 0 to 10, short from 0 to 2: each on its own scale from 0 to 1, then the mean."""
    rows = [
        rated({"helpful": 10, "short": 0}, {"helpful": 0, "short": 1}, chosen="w", rejected="l"),  # .5, .25
        rated({"helpful": 4, "short": 0}, {"helpful": 0, "short": 2}, chosen="l", rejected="w", margin=9.0),  # .2, .5
        rated({"helpful": 5, "short": 0}, {"helpful": 0, "short": 1}),  # .25, .25
        rated({"helpful": 10}, {"short": 2}),
        rated({"helpful": 10, "short": 2}, {"helpful": 5, "short": None}),  # helpful alone: 1, .5
    ]
    found, count = passed(reorder(), rows)
    assert [(r.chosen[0].content, r.margin) for r in found] == [  # type: ignore[attr-defined]
        ("w", pytest.approx(0.25)), ("w", pytest.approx(0.3)), ("Because.", pytest.approx(0.5)),
    ]  # fmt: skip
    assert attributes(found[1]) == {"helpful": (0, 4), "short": (2, 0)}
    assert dict(count.dropped) == {"tie": 1, "no common attribute": 1}
    assert dict(count.noted) == {"order turned": 1}
    only, count = passed(reorder(["short"]), rows)
    assert [r.chosen[0].content for r in only] == ["l", "w", "No."]  # type: ignore[attr-defined]
    assert dict(count.dropped) == {"no common attribute": 2}


def test_rankings_are_ordered_and_others_pass() -> None:
    def ranking(*wit: float | None) -> Ranked:
        return Ranked(prompt=user("q"), responses=(says("a"), says("b"), says("c")), scores=(3.0, 2.0, 1.0),
                      attributes={"wit": wit}, where="rows:7")  # fmt: skip

    demonstration = Demonstration(prompt=user("q"), response=says("a"), attributes={"wit": 50.0})
    found, count = passed(reorder(), [ranking(1, 3, 2), demonstration, ranking(1, None, 2)])
    assert found[0].scores == (0.0, 1.0, 0.5)  # type: ignore[attr-defined]
    assert found[0].where == "rows:7"
    assert found[1] == demonstration
    assert dict(count.dropped) == {"no common attribute": 1}


def test_scales_by_quantiles_and_by_what_is_known() -> None:
    rows = [rated({"wit": float(i)}, {"wit": float(i) + 0.5}) for i in range(200)]
    rows.append(rated({"wit": 1e9}, {"wit": 0.0}))  # an outlier
    passed(step := reorder(), rows)
    assert step.settings["scales"] == {"wit": [0.0, 1e9]}
    found, _ = passed(step := reorder(scales="quantiles"), rows)
    low, high = step.settings["scales"]["wit"]
    assert low < 3
    assert 197 < high < 200
    assert found[-1].margin == 1.0  # type: ignore[attr-defined]
    assert found[100].margin == pytest.approx(0.5 / (high - low))  # type: ignore[attr-defined]
    known, _ = passed(step := reorder(ranges={"wit": (0.0, 1000.0)}), rows[:10])
    assert step.settings["scales"] == {"wit": [0.0, 1000.0]}
    assert known[0].margin == pytest.approx(0.0005)  # type: ignore[attr-defined]


@given(LISTS)
@settings(max_examples=25, deadline=None)
def test_the_order_accounts_for_every_record(rows: list[Record]) -> None:
    scored, _ = passed(score_responses([measures(["words", "questions"])]), [*rows, pair("q", "one", "one two")])
    count = Count("reorder")
    found = list(reorder(["words"])(scored, count))
    assert count.balanced
    for record in found:
        if isinstance(record, Preference):
            chosen, rejected = record.attributes["words"]
            assert chosen is not None
            assert rejected is not None
            assert chosen > rejected


def test_attributes_that_order_nothing() -> None:
    rows = [rated({"wit": 1.0}, {"wit": 1.0})]
    with pytest.raises(SettingsError, match='attribute "wit" is 1 in'):
        passed(reorder(), rows)
    with pytest.raises(SettingsError, match=r'no pair or ranking has an attribute "witt".* Did you mean "wit"'):
        passed(reorder(["witt"]), rows)
    assert dict(passed(reorder(), [pair()])[1].dropped) == {"no common attribute": 1}
    with pytest.raises(SettingsError, match="kind of scale"):
        reorder(scales="z")  # type: ignore[arg-type]


def test_scored_and_ordered_in_one_pass(tmp_path: Path) -> None:
    rows = [pair("q", "a b", "a b c"), pair("q", "a b c d", "a"), pair("p", "x y", "y x")]
    curated = curate(rows, [score_responses([measures(["words"])], store=tmp_path), reorder()])
    assert [r.attributes["words"] for r in curated] == [(3.0, 2.0), (4.0, 1.0)]  # type: ignore[attr-defined]
    assert curated.balanced
    assert curated.report()["steps"][1]["settings"]["scales"] == {"words": [1.0, 4.0]}
