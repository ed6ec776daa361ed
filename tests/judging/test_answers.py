"""Answers that are kept, the files they come from, and judges as scorers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluralign.attributes import Scale, ScoreForm
from pluralign.curate.score import Scored, Scorer
from pluralign.curate.texts import part_key
from pluralign.errors import RecordError, SettingsError
from pluralign.heads.regression import attach
from pluralign.judging.answers import (
    policy_key,
    put_in_order,
    rating_scorer,
    read_answers,
    read_saved,
    score_table,
    spoken,
    write_answers,
)
from pluralign.policy import Policy
from pluralign.records import messages
from pluralign.steering import Request
from tests.training.conftest import tiny_model  # noqa: F401 - a fixture


@pytest.fixture
def policy(tiny_model: str) -> Policy:  # noqa: F811
    return Policy.load(tiny_model, precision="fp32")


def ask(*prompts: str, **options: Any) -> list[Request]:
    return [Request(p, max_new_tokens=4, place=i, **options) for i, p in enumerate(prompts)]


def labels(n: int, **more: Any) -> list[dict[str, Any]]:
    return [{"row": i, **more} for i in range(n)]


def test_rows_are_in_order_and_on_disk(policy: Policy, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    path = tmp_path / "deep" / "answers.jsonl"
    rows = write_answers(path, policy, ask("a long question, is it not?", "why?", "so"), labels(3),
                         batch_size=1, progress=lambda *n: seen.append(n))  # fmt: skip
    assert [row["prompt"][0]["content"] for row in rows] == ["a long question, is it not?", "why?", "so"]
    assert [row["response"] for row in rows] == policy.generate(
        ["a long question, is it not?", "why?", "so"], max_new_tokens=4
    )
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]
    on_disk = read_answers(path)
    assert [on_disk[row["key"]] for row in rows] == rows
    assert write_answers(None, policy, ask("why?"), labels(1))[0]["finish"] in ("stop", "length")


def test_what_is_known_is_not_asked_and_takes_the_new_label(policy: Policy, tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "answers.jsonl"
    first = write_answers(path, policy, ask("why?", "so"), labels(2, scores="sensed"))
    from pluralign.judging import answers

    asked: list[int] = []
    real = answers.answer
    monkeypatch.setattr(answers, "answer", lambda p, r, **o: asked.append(len(r)) or real(p, r, **o))
    again = write_answers(path, policy, [*ask("why?", "so"), *ask("why?")], labels(3, steer="wit"))
    assert asked == [0]
    assert [row["response"] for row in again] == [first[i]["response"] for i in (0, 1, 0)]
    assert all("scores" not in row and row["steer"] == "wit" for row in again)
    twice = write_answers(path, policy, [*ask("new"), *ask("new")], labels(2))  # the same request, once
    assert asked == [0, 1]
    assert twice[0]["response"] == twice[1]["response"]
    put_in_order(path, twice)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["row"] for line in lines[:2]] == [0, 1]
    assert {line["key"] for line in lines} == {row["key"] for row in [*first, *twice]}  # nothing is lost


def test_an_answer_belongs_to_weights_prompt_scores_and_draw(policy: Policy, tiny_model: str) -> None:  # noqa: F811
    def key(**options: Any) -> str:
        return write_answers(None, policy, [Request("why?", **{"max_new_tokens": 2, **options})], [{}])[0]["key"]

    keys = [key(), key(seed=1), key(temperature=0.0), key(place=1), key(top_p=0.5), key(max_new_tokens=3)]
    assert len(set(keys)) == len(keys)
    assert key() == keys[0]
    other = Policy.load(tiny_model, precision="fp32")
    assert policy_key(other) == policy_key(policy)
    next(other.model.parameters()).data[0, 0] += 1e-3
    assert policy_key(other) != policy_key(policy)
    third = Policy.load(tiny_model, precision="fp32")
    third.scores = ScoreForm((Scale("wit"),))
    assert policy_key(third) != policy_key(policy)


def test_a_torn_line_is_taken_off_and_other_damage_is_told(policy: Policy, tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    write_answers(path, policy, ask("why?", "so"), labels(2))
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    assert len(read_answers(path)) == 1
    assert path.read_bytes() == whole[: whole.index(b"\n") + 1]
    path.write_bytes(b'{"key": 1}\n' + whole)
    with pytest.raises(RecordError, match=r'answers\.jsonl:1: an answer has a field "prompt"'):
        read_answers(path)
    path.write_bytes(whole + b"no\n")
    with pytest.raises(RecordError, match=r"answers\.jsonl:3: not valid JSON"):
        read_answers(path)
    assert read_answers(tmp_path / "none.jsonl") == {}


@given(st.dictionaries(st.text(min_size=1).filter(str.strip), st.text(), min_size=1, max_size=5))
def test_saved_answers_are_read_back(tmp_path_factory: pytest.TempPathFactory, said: dict[str, str]) -> None:
    path = tmp_path_factory.mktemp("saved") / "answers.jsonl"
    rows = [{"prompt": p if i % 2 else [{"role": "user", "content": p}], "response": r}
            for i, (p, r) in enumerate(said.items())]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    assert read_saved(path) == {part_key(messages(p)): r for p, r in said.items()}


def test_saved_answers_that_cannot_be(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    for rows, says in (
        ([{"prompt": "x"}], 'field "response"'),
        ([{"prompt": "x", "response": ["y"]}], "not a text"),
        ([{"prompt": "x", "response": "y"}, {"prompt": "x", "response": "z"}], "two different responses"),
        (["x"], 'field "prompt"'),
    ):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        with pytest.raises(RecordError, match=says):
            read_saved(path)


# Judges


def test_a_table_has_a_row_for_every_answer_and_nan_where_there_is_none(tmp_path: Path) -> None:
    def score(asked: Any) -> list[Scored]:
        sizes = [len(r[0].content) for _, r in asked]
        return [Scored((float(n), None if n > 2 else -float(n))) for n in sizes]

    prompt = messages("x")
    asked = [(prompt, spoken("a")), (prompt, None), (prompt, spoken("abc")), (prompt, spoken(""))]
    seen: list[tuple[int, int]] = []
    table = score_table([Scorer(("long", "short"), score)], asked, progress=lambda *n: seen.append(n))
    assert table[0].tolist() == [1, -1]
    assert all(map(math.isnan, table[1]))
    assert (table[2, 0], math.isnan(table[2, 1])) == (3, True)
    assert table[3].tolist() == [0, 0]
    assert seen[-1] == (3, 3)


def test_a_rating_head_is_a_judge(policy: Policy, tmp_path: Path) -> None:
    from pluralign.judging.rating import rate

    with pytest.raises(SettingsError, match="no rating head"):
        rating_scorer(policy)
    attach(policy.model, "rated", 2, layers=1, bounded=False)
    policy.scores = ScoreForm((Scale("joy", 1.0, 5.0), Scale("food", 0.0, 2.0)))
    judge = rating_scorer(policy)
    assert judge.names == ("joy", "food")
    assert judge.ranges == {"joy": (1.0, 5.0), "food": (0.0, 2.0)}
    texts = ["a red cat", "", "bread"]
    found = score_table([judge], [(messages("x"), spoken(text)) for text in texts], store=tmp_path)
    assert found == pytest.approx(rate(policy, ["x"] * 3, texts), abs=1e-5)
    too_deep = Scorer(judge.names, lambda asked: pytest.fail("asked again"), key=judge.key)
    kept = score_table([too_deep], [(messages("x"), spoken(text)) for text in texts], store=tmp_path)
    assert kept.tolist() == found.tolist()
