"""Every format on small hand-written rows, with the records worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pluralign.data import FORMATS, load
from pluralign.data.formats import recognise
from pluralign.errors import PluralignError, RecordError, SettingsError
from pluralign.records import Demonstration, Labelled, Message, Preference, Ranked


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def bot(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def said(*turns: tuple[str, str]) -> tuple[Message, ...]:
    return tuple(Message(role, text) for role, text in turns)


def only(row: dict[str, Any], **options: Any) -> Any:
    (record,) = load([row], **options)
    return record


Q = (("user", "q?"),)
A, B = (("assistant", "good"),), (("assistant", "bad"),)


@pytest.mark.parametrize("name", FORMATS)
def test_every_example_is_recognised_and_makes_records(name: str) -> None:
    form = FORMATS[name]
    for row in form.example:
        found = recognise(row)
        assert found is not None
        assert found.name == name
    options = {"group": "poet"} if form.groups else {}
    loaded = load(list(form.example), **options)
    assert loaded.records()
    assert loaded.format == name
    assert loaded.counts.rows == loaded.counts.used == len(form.example)


def test_plain_pair() -> None:
    record = only({"prompt": "q?", "chosen": "good", "rejected": "bad", "id": 7})
    assert record == Preference(prompt=said(*Q), chosen=said(*A), rejected=said(*B), meta={"id": 7})


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [user("q?")], "chosen": [bot("good")], "rejected": [bot("bad")]},
        {"prompt": [user("q?")], "chosen": "good", "rejected": "bad"},
        {"prompt": [user("q?")], "chosen": bot("good"), "rejected": bot("bad")},
        {"prompt": "q?", "chosen": [bot("good")], "rejected": [bot("bad")]},
        {"prompt": "q?", "chosen": [user("q?"), bot("good")], "rejected": [user("q?"), bot("bad")]},
        {"prompt": [user("q?")], "chosen": [user("q?"), bot("good")], "rejected": [user("q?"), bot("bad")]},
        {"chosen": [user("q?"), bot("good")], "rejected": [user("q?"), bot("bad")]},
        {"conversations": [{"from": "human", "value": "q?"}], "chosen": {"from": "gpt", "value": "good"},
         "rejected": {"from": "gpt", "value": "bad"}},
        {"chosen": "\n\nHuman: q?\n\nAssistant: good", "rejected": "\n\nHuman: q?\n\nAssistant: bad"},
        {"prompt": "\n\nHuman: q?\n\nAssistant:", "chosen": " good", "rejected": " bad"},
        {"question": "q?", "pos_answer": "good", "neg_answer": "bad"},
        {"prompt": "q?", "response_0": "bad", "response_1": "good", "safer_response_id": 1},
    ],
)  # fmt: skip
def test_the_same_pair_in_many_layouts(row: dict[str, Any]) -> None:
    record = only(row)
    assert isinstance(record, Preference)
    assert (record.prompt, record.chosen, record.rejected) == (said(*Q), said(*A), said(*B))


def test_shared_turns_become_the_prompt() -> None:
    shared = [{"role": "system", "content": "Be kind."}, user("hi"), bot("hello"), user("q?")]
    record = only({"prompt": "hi", "chosen": [*shared, bot("good")], "rejected": [*shared, bot("bad")]})
    assert record.prompt == said(("system", "Be kind."), ("user", "hi"), ("assistant", "hello"), *Q)
    assert (record.chosen, record.rejected) == (said(*A), said(*B))


def test_conversations_that_part_early_keep_their_later_turns() -> None:
    row = {"chosen": [user("q?"), bot("good"), user("more"), bot("x")], "rejected": [user("q?"), bot("bad")]}
    record = only(row)
    assert record.prompt == said(*Q)
    assert record.chosen == said(*A, ("user", "more"), ("assistant", "x"))
    assert record.rejected == said(*B)


def test_one_conversation_inside_the_other_leaves_both_a_response() -> None:
    row = {"chosen": [user("q?"), bot("good")], "rejected": [user("q?"), bot("good"), user("m"), bot("x")]}
    record = only(row)
    assert record.prompt == said(*Q)
    assert record.chosen == said(*A)


def test_tool_turns_stay_with_the_call_that_made_them() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": {"name": "f"}}]}
    tool = {"role": "tool", "content": "4"}
    row = {
        "chosen": [user("q?"), call, tool, bot("good")],
        "rejected": [user("q?"), call, tool, bot("bad")],
        "tools": json.dumps([{"name": "f"}]),
    }
    record = only(row)
    assert [m.role for m in record.prompt] == ["user", "assistant", "tool"]
    assert record.prompt[1].extra["tool_calls"] == call["tool_calls"]
    assert (record.chosen, record.tools) == (said(*A), ({"name": "f"},))
    parted = {**row, "rejected": [user("q?"), call, {"role": "tool", "content": "5"}, bot("bad")]}
    record = only(parted)
    assert [m.role for m in record.prompt] == ["user"]
    assert [m.role for m in record.chosen] == ["assistant", "tool", "assistant"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"chosen": [user("a?"), bot("x")], "rejected": [user("b?"), bot("y")]}, "part at turn 0, a user turn"),
        ({"prompt": "z?", "chosen": [user("q?"), bot("x")], "rejected": [user("q?"), bot("y")]}, "not among the turns"),
        ({"prompt": "q?", "chosen": [user("q?"), bot("x")], "rejected": [bot("y")]}, "repeats the prompt"),
        ({"chosen": [user("q?"), bot("x"), user("m")], "rejected": [user("q?"), bot("y")]}, "ends with a user turn"),
        ({"prompt": "q?", "chosen": "same", "rejected": "same"}, '"chosen" equals "rejected"'),
        ({"prompt": "q?", "chosen": " \n", "rejected": "bad"}, '"chosen" is empty'),
        ({"prompt": "", "chosen": "a", "rejected": "b"}, "prompt has no text"),
        ({"prompt": "q?", "chosen": "a", "rejected": "b", "weight": -1}, "weight must be"),
        ({"prompt": "q?", "chosen": "a", "rejected": "b", "weight": float("nan")}, "not a finite number"),
        ({"prompt": "q?", "chosen": "a", "rejected": "b", "margin": "much"}, 'expected a number in "margin"'),
        ({"prompt": "q?", "chosen": "a", "rejected": "b", "tools": "[{"}, '"tools" is text but not JSON'),
        ({"prompt": [{"role": "elf", "content": "q"}], "chosen": "a", "rejected": "b"}, 'unknown role "elf"'),
        ({"prompt": [{"role": "user", "content": [{"type": "image"}]}], "chosen": "a", "rejected": "b"}, "type image"),
        ({"prompt": "q", "chosen": "a\ud800", "rejected": "b"}, "surrogate"),
        ({"prompt": "q", "completion": "a", "label": "maybe"}, "expected true or false"),
        ({"messages": [user("q")]}, "ends with a user turn"),
        ({"messages": [bot("a")]}, "no prompt before"),
        ({"prompt": "q", "responses": ["a", "b"], "scores": [1]}, "2 entries but"),
        ({"prompt": "q", "responses": ["a"], "scores": [1]}, "at least two responses"),
        ({"prompt": "q", "responses": ["a", "b"], "scores": [1, float("nan")]}, "not a finite number"),
        ({"prompt": "q", "responses": ["a", "b"], "chosen": 2}, "not an index into 2"),
        ({"text": ["Human: q\n\nAssistant: a", "no dialogue"], "score": [1, 0]}, "does not begin with"),
        ({"prompt": "q", "response_0": "a", "response_1": "b", "better_response_id": 2}, "expected 0 or 1"),
        ({"instruction": "q", "output": "a", "history": [["x"]]}, "[user, assistant]"),
    ],
)  # fmt: skip
def test_bad_rows_say_what_is_wrong(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(RecordError) as caught:
        list(load([row]))
    assert reason in caught.value.reason
    assert caught.value.where == "rows[0]"


def test_columns_that_every_pair_format_knows() -> None:
    shared = {"weight": "0.5", "group": 3, "user": "ann", "source": "survey", "system": "Be brief."}
    for row in ({"prompt": "q?", "chosen": "good", "rejected": "bad"},
                {"chosen": "\n\nHuman: q?\n\nAssistant: good", "rejected": "\n\nHuman: q?\n\nAssistant: bad"},
                {"question": "q?", "pos_answer": "good", "neg_answer": "bad"}):  # fmt: skip
        record = only({**row, **shared, "score_chosen": 9, "score_rejected": 7.5})
        assert record.prompt == said(("system", "Be brief."), *Q)
        assert (record.weight, record.group, record.user, record.source) == (0.5, "3", "ann", "survey")
        assert record.margin == 1.5
        assert record.attributes == {"score": (9.0, 7.5)}
        assert record.meta == {}
    nested = only({"prompt": "q?", "chosen": "a", "rejected": "b", "margin": 4,
                   "metadata": {"score_chosen": 3, "score_rejected": 1}})  # fmt: skip
    assert (nested.margin, nested.attributes) == (4.0, {"score": (3.0, 1.0)})
    attributes = only({"prompt": "q?", "chosen": "a", "rejected": "b", "scores": {"humour": [3, 1]}})
    assert attributes.attributes == {"humour": (3.0, 1.0)}


def test_transcripts_with_scores() -> None:
    def talk(*answers: str) -> list[str]:
        return [f"## Human:\nq?\n\n\n\n## Assistant:\n{answer}" for answer in answers]

    record = only({"text": talk("bad", "good"), "score": [0.5, 1.5]})
    assert (record.chosen, record.rejected, record.margin) == (said(*A), said(*B), 1.0)
    tie = only({"text": talk("bad", "good"), "score": [1, 1]})
    assert isinstance(tie, Ranked)
    three = only({"text": talk("x", "good", "bad"), "score": [1, 2, 0]})
    assert isinstance(three, Ranked)
    assert three.prompt == said(*Q)
    assert three.scores == (1.0, 2.0, 0.0)


def test_speakers_who_go_on_make_one_turn() -> None:
    row = {
        "chosen": "\n\nHuman: q?\n\nAssistant: one\n\nAssistant: two",
        "rejected": "\n\nHuman: q?\n\nAssistant: bad",
    }
    record = only(row)
    assert record.chosen == said(("assistant", "one\n\ntwo"))
    assert record.prompt == said(*Q)


def test_one_response_per_group_needs_a_group() -> None:
    row = {"query": "q?", "responses": {"a": "x", "b": "y", "c": "x"}}
    with pytest.raises(SettingsError, match=r"one response per group \(a, b, c\)"):
        load([row])
    with pytest.raises(SettingsError, match="no group"):
        load([row], group="d")
    loaded = load([row], group="a")
    (record,) = loaded
    assert (record.group, record.chosen[0].content, record.rejected[0].content) == ("a", "x", "y")
    assert record.meta == {"rejected_group": "b"}
    assert loaded.counts.partial == {"same text for both groups": 1}
    everyone = load([row], group="all").records()
    assert [r.group for r in everyone] == ["a", "b", "b", "c"]
    with pytest.raises(SettingsError, match="has no groups"):
        load([{"prompt": "q", "chosen": "a", "rejected": "b"}], group="a")


def test_ultrafeedback_masks_missing_ratings() -> None:
    def completion(text: str, overall: Any, **ratings: Any) -> dict[str, Any]:
        return {"model": text, "response": text, "overall_score": overall,
                "annotations": {a: {"Rating": r, "Rationale": "-"} for a, r in ratings.items()}}  # fmt: skip

    row = {
        "instruction": "q?",
        "completions": [
            completion("good", 9, helpfulness="5", honesty="N/A"),
            completion("bad", 2.5, helpfulness="1", honesty="4"),
            completion("lost", None, helpfulness="3"),
        ],
    }
    loaded = load([row])
    (record,) = loaded
    assert isinstance(record, Ranked)
    assert record.scores == (9.0, 2.5)
    assert record.attributes == {"helpfulness": (5.0, 1.0), "honesty": (None, 4.0)}
    assert "attributes" not in record.meta
    assert loaded.counts.partial == {"completion without overall_score": 1}
    assert only(row, by="helpfulness").scores == (5.0, 1.0, 3.0)
    assert only(row, by="mean").scores == (1.0, 0.375, 0.5)  # of known ratings, 1 to 5 as 0 to 1: (0 + .75) / 2
    assert loaded.ranges["honesty"] == (1.0, 5.0)
    pair = only(row, kind="preference")
    assert pair.attributes == {"helpfulness": (5.0, 1.0), "honesty": (None, 4.0)}
    assert pair.margin == 6.5
    with pytest.raises(SettingsError, match='Did you mean "helpfulness"'):
        load([row], by="helpfullness")


def _steer(prompt: str, response: str, helpfulness: Any, verbosity: int = 2) -> dict[str, Any]:
    return {"prompt": prompt, "response": response, "helpfulness": helpfulness, "verbosity": verbosity}


def test_helpsteer_rows_with_one_prompt_make_a_pair() -> None:
    rows = [
        _steer("p1", "bad", 1), _steer("p1", "good", 4, 3),
        _steer("p2", "x", 2), _steer("p2", "y", 2),
        _steer("p3", "alone", 4),
        _steer("p4", "x", 0), _steer("p4", "y", 1), _steer("p4", "z", 2),
    ]  # fmt: skip
    loaded = load(rows)
    pair, tie, ranking = loaded
    assert tie.scores == (2.0, 2.0)
    assert tie.attributes == {"helpfulness": (2.0, 2.0), "verbosity": (2.0, 2.0)}
    assert loaded.ranges["helpfulness"] == (0.0, 4.0)
    assert (pair.chosen, pair.rejected, pair.margin) == (said(*A), said(*B), 3.0)
    assert pair.attributes == {"helpfulness": (4.0, 1.0), "verbosity": (3.0, 2.0)}
    assert ranking.scores == (0.0, 1.0, 2.0)
    assert loaded.counts.skipped == {"no second response to the prompt": 1}
    assert (loaded.counts.rows, loaded.counts.used) == (8, 7)
    assert load(rows, kind="preference").count().skipped == {"tie": 2, "no second response to the prompt": 1}
    assert load(rows[:2], by="verbosity").records()[0].margin == 1.0
    assert load(rows[:2], by="mean").records()[0].margin == 0.5  # (1 + .75) / 2 - (.25 + .5) / 2 on 0 to 1


def test_a_bad_helpsteer_row_spoils_only_itself(tmp_path: Any) -> None:
    rows = [_steer("p1", "bad", 1), _steer("p1", "broken", "N/A"), _steer("p1", "good", 4)]
    loaded = load(rows, bad_rows="quarantine", quarantine=tmp_path / "q.jsonl")
    (pair,) = loaded
    assert pair.margin == 3.0
    assert loaded.counts.bad == {"wrong type": 1}


def test_helpsteer_turns_and_preferences() -> None:
    prompt = "hi\n<extra_id_1>Assistant\nhello\n<extra_id_1>User\nq?\n<extra_id_1>Assistant\n"
    row = {"prompt": prompt, "response_1": "good", "response_2": "bad", "preference_strength": -2}
    record = only(row)
    assert record.prompt == said(("user", "hi"), ("assistant", "hello"), *Q)
    assert (record.chosen, record.margin) == (said(*A), 2.0)
    loaded = load([row, {**row, "preference_strength": 0}])
    assert len(loaded.records()) == 1
    assert loaded.counts.skipped == {"tie": 1}


def test_ranked_lists() -> None:
    row = {"prompt": "q?", "responses": ["a", "b", "c"]}
    assert only({**row, "scores": [3, 1, 2]}).scores == (3.0, 1.0, 2.0)
    assert only({**row, "rankings": [3, 1, 2]}).scores == (-3.0, -1.0, -2.0)
    assert only({**row, "chosen": 1}).scores == (0.0, 1.0, 0.0)


def test_lists_that_are_rated_on_attributes_alone() -> None:
    row = {"prompt": "q?", "responses": ["a", "b", "c"], "attributes": {"true": [1, 0, None], "wit": [0, 3, None]}}
    loaded = load([row])
    (record,) = loaded
    assert isinstance(record, Ranked)
    assert record.scores == (0.5, 1.5)
    assert record.attributes == {"true": (1.0, 0.0), "wit": (0.0, 3.0)}
    assert loaded.counts.partial == {"response without mean": 1}
    assert only(row, by="true").scores == (1.0, 0.0)
    with pytest.raises(SettingsError, match='Did you mean "wit"'):
        load([row], by="witt")
    alone = load([row, {**row, "attributes": {"true": [1, None, None]}}])
    assert len(alone.records()) == 1
    assert alone.counts.skipped == {"response without mean": 1}
    scored = only({**row, "scores": [1, 2, 3]})  # its own order comes first
    assert scored.scores == (1.0, 2.0, 3.0)
    assert scored.attributes["true"] == (1.0, 0.0, None)


def test_single_responses_have_attributes() -> None:
    for row in (
        {"prompt": "q?", "response": "good"},
        {"instruction": "q?", "output": "good"},
        {"messages": [user("q?"), bot("good")]},
        {"prompt": "q?", "completion": "good", "label": True},
    ):
        record = only({**row, "attributes": {"wit": 2, "truth": None}})
        assert record.attributes == {"wit": 2.0}
        assert record.meta == {}


def test_rows_of_one_dialogue_make_a_ranking() -> None:
    def said(text: str, **scores: Any) -> dict[str, Any]:
        return {"source": "hi\n hello \nq?\n\n", "context": "A fact.\n", "system_output": text, "scores": scores,
                "system_id": f"by {text}"}  # fmt: skip

    rows = [said("a", overall=4, naturalness=1), said("b", overall=2, naturalness=3), said("c", naturalness=2)]
    loaded = load(rows)
    (record,) = loaded
    assert [m.role for m in record.prompt] == ["system", "user", "assistant", "user"]
    assert record.prompt[0].content == "A fact."
    assert record.scores == (4.0, 2.0)  # type: ignore[attr-defined]
    assert record.attributes == {"overall": (4.0, 2.0), "naturalness": (1.0, 3.0)}  # type: ignore[attr-defined]
    assert record.meta["system_id"] == ["by a", "by b"]
    assert loaded.counts.partial == {"response without overall": 1}
    # by the mean: naturalness 1 to 3 and overall 1 to 5 as 0 to 1
    assert only_of(rows, by="mean").scores == (0.375, 0.625, 0.5)
    assert load([*rows, {**rows[0], "context": "_nofact\n"}]).count().skipped == {"fewer than two rated responses": 1}


def only_of(rows: list[dict[str, Any]], **options: Any) -> Any:
    (record,) = load(rows, **options)
    return record


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"input": "q", "output_cand": "a", "parsed_result": {"depth": {"score": "deep"}}}, "expected a number in"),
        ({"input": "q", "output_cand": "a", "parsed_result": "5"}, "{attribute: {score}}"),
        ({"source": "q", "system_output": "a", "scores": {"overall": "x"}}, "expected a number in"),
        ({"source": "q", "context": "c", "system_output": " ", "scores": {"overall": 1}}, "is empty"),
        ({"source": "honest", "chosen_instruction": "x", "rejected_instruction": "y"}, "###The instruction to"),
        ({"conversation_input": [user("q")], "chosen": "a", "reject": "b", "category_path": "a/b"}, 'an "answer"'),
        ({"instruction": "q", "response1": "a", "response2": "b", "annotator1": 3, "annotator2": 1,
          "annotator3": 1}, "expected 0, 1 or 2"),
        ({"instruction": "q", "response1": "a", "response2": True, "annotator1": 1, "annotator2": 1,
          "annotator3": 1}, "found true or false"),
        ({"prompt": "q", "responses": ["a", "b"], "attributes": {"wit": [1]}}, "1 entries for 2"),
    ],
)  # fmt: skip
def test_bad_rows_of_rated_sets(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(RecordError) as caught:
        list(load([row]))
    assert reason in caught.value.reason


def test_labels_and_demonstrations() -> None:
    up = only({"prompt": "q?", "completion": "good", "label": True})
    assert up == Labelled(prompt=said(*Q), response=said(*A), label=True)
    down = only({"messages": [user("q?"), bot("bad")], "label": 0})
    assert down == Labelled(prompt=said(*Q), response=said(*B), label=False)
    want = Demonstration(prompt=said(*Q), response=said(*A))
    assert only({"prompt": "q?", "completion": "good"}) == want
    assert only({"prompt": "q?", "messages": [user("q?"), bot("good")]}) == want
    assert only({"conversations": [{"from": "human", "value": "q?"}, {"from": "gpt", "value": "good"}]}) == want
    assert only({"instruction": "q?", "input": "", "output": "good"}) == want
    full = only({"instruction": "Add.", "input": "1 1", "output": "2", "history": [["a", "b"]], "system": "S"})
    assert full.prompt == said(("system", "S"), ("user", "a"), ("assistant", "b"), ("user", "Add.\n\n1 1"))


def test_sharegpt_calls_become_tool_calls() -> None:
    row = {"conversations": [
        {"from": "human", "value": "q?"}, {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
        {"from": "observation", "value": "4"}, {"from": "gpt", "value": "good"}]}  # fmt: skip
    record = only(row)
    assert [m.role for m in record.prompt] == ["user", "assistant", "tool"]
    assert record.prompt[1].extra["tool_calls"][0]["function"] == {"name": "f", "arguments": {"x": 1}}


def test_a_format_can_be_named() -> None:
    row = {"prompt": "q?", "chosen": [user("q?"), bot("good")], "rejected": [user("q?"), bot("bad")],
           "messages": [user("q?"), bot("good")]}  # fmt: skip
    assert only(row).meta == {}
    assert isinstance(only(row, format="messages"), Demonstration)
    with pytest.raises(SettingsError, match='Did you mean "sharegpt_pair"'):
        load([row], format="sharegpt_pairs")


def test_unknown_fields_name_the_nearest_format() -> None:
    with pytest.raises(RecordError) as caught:
        load([{"prompt": "q", "chosen": "a", "rejectd": "b"}])
    assert "prompt, chosen, rejectd" in str(caught.value)
    assert 'nearest is "pair", which needs rejected' in str(caught.value)
    with pytest.raises(RecordError, match="no known format fits the fields zzz") as other:
        load([{"zzz": 1}])
    assert "nearest" not in str(other.value)


def test_columns_are_mapped() -> None:
    row = {"question": "q?", "best": {"text": "good"}, "worst": "bad", "prompt": "not this", "n": 1}
    columns = {"prompt": "question", "chosen": "best.text", "rejected": "worst"}
    record = only(row, columns=columns)
    assert record == Preference(prompt=said(*Q), chosen=said(*A), rejected=said(*B), meta={"n": 1})
    scored = only({"question": "q?", "best": {"text": "good", "by": "ann"}, "worst": "bad"}, columns=columns)
    assert scored.meta == {"best": {"by": "ann"}}
    swapped = only({"prompt": "q?", "chosen": "bad", "rejected": "good"},
                   columns={"chosen": "rejected", "rejected": "chosen"})  # fmt: skip
    assert swapped.chosen == said(*A)
    with pytest.raises(SettingsError, match='Did you mean "chosen"'):
        load([row], columns={"choosen": "best"})
    with pytest.raises(PluralignError, match='no field "bestt"'):
        load([row], columns={**columns, "chosen": "bestt"})


def test_the_documentation_shows_every_format_with_rows_that_load() -> None:
    page = (Path(__file__).parents[2] / "docs" / "data-formats.md").read_text(encoding="utf-8")
    for name, form in FORMATS.items():
        assert f"[`{name}`]" in page, f"{name} is missing from the table"
        _, found, rest = page.partition(f"### `{name}`: {form.title}\n")
        assert found, f"{name} has no section"
        shown = rest.partition("```json\n")[2].partition("```")[0]
        assert [json.loads(line) for line in shown.splitlines()] == list(form.example)
