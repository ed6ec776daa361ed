"""Bodies to requests, without a network: whatever comes in, a request or a 400 comes out."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluralign.serve.errors import ApiError
from pluralign.serve.protocol import ONLY, OURS, Ask, chunk, completion, parse, read_json
from pluralign.steering import Answer

HI = [{"role": "user", "content": "Hi"}]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
TURNS = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "developer", "user", "assistant", "tool"]) | VALUES},
    optional={"content": VALUES, "tool_calls": VALUES, "name": VALUES},
)


def outcome(make: Callable[[], Any]) -> Any:
    """What it makes, or the ApiError it raises; any other exception fails the test."""
    try:
        return make()
    except ApiError as error:
        return error


@given(st.binary(max_size=200))
def test_bytes_become_an_object_or_a_400(raw: bytes) -> None:
    found = outcome(lambda: read_json(raw))
    assert isinstance(found, dict) or found.status == 400


@given(st.dictionaries(st.sampled_from([*OURS, *ONLY, "user", "other"]), VALUES | st.lists(TURNS, max_size=2)))
def test_any_body_becomes_a_request_or_a_400(body: dict[str, Any]) -> None:
    ask = outcome(lambda: parse({"model": "m", "messages": HI, **body}))
    if isinstance(ask, ApiError):
        assert ask.status == 400
        assert json.dumps(ask.body())
        return
    request = ask.request(7).check()  # nothing is left for the policy to refuse but names and lengths
    assert request.max_new_tokens == 7
    assert all(set(turn) >= {"role", "content"} and isinstance(turn["content"], str) for turn in ask.messages)


def test_what_is_left_out_and_what_is_null_are_the_same() -> None:
    plain = parse({"model": "m", "messages": HI, "seed": 1})
    nulls = {name: None for name in (*OURS, *ONLY) if name not in ("model", "messages", "seed")}
    assert parse({"model": "m", "messages": HI, "seed": 1, **nulls}) == plain
    assert plain == Ask("m", HI, seed=1)
    assert len({parse({"model": "m", "messages": HI}).seed for _ in range(4)}) > 1


def test_calls_of_tools_keep_their_parts() -> None:
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    turns = [
        *HI,
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "1", "content": "7", "unknown": 1},
    ]
    assert parse({"model": "m", "messages": turns}).messages == [
        *HI,
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "content": "7", "tool_call_id": "1"},
    ]


def test_errors_quote_only_the_beginning_of_what_they_were_sent() -> None:
    with pytest.raises(ApiError) as found:
        parse({"model": "m", "messages": HI, "x" * 100_000: 1})
    assert len(json.dumps(found.value.body())) < 1500


def test_a_whole_answer_and_its_pieces() -> None:
    got = Answer("Yes.", "stop", 5, 3, {"helpfulness": 0.75}, ("helpfulness",))
    whole = completion("id", 1, "m", got)
    assert whole["choices"][0]["message"]["content"] == "Yes."
    assert whole["usage"] == {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    assert (whole["attributes"], whole["sensed"]) == ({"helpfulness": 0.75}, ["helpfulness"])
    piece = chunk("id", 1, "m", True, delta={"content": "Yes"})
    assert piece["usage"] is None
    assert "attributes" not in piece
    end = chunk("id", 1, "m", end=got)
    assert (end["choices"][0]["finish_reason"], end["sensed"]) == ("stop", ["helpfulness"])
    assert "usage" not in end
    assert chunk("id", 1, "m", True, counts=got) | {"usage": 0} == {**piece, "choices": [], "usage": 0}
