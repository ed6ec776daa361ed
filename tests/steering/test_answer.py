"""Requests with options of their own in one batch: limits, stop texts, streams, cancellation, and what it costs."""

from __future__ import annotations

import functools
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM, DynamicCache

from pluralign.errors import SettingsError
from pluralign.policy import Policy
from pluralign.steering import Answer, Request, answer, generate
from pluralign.steering.begin import begin
from pluralign.steering.padding import Begun
from tests.scoring.models import config

ASKED = [
    Request("Hi", max_new_tokens=3, temperature=0),
    Request("What is seven times eight, and why is it not nine times six?", max_new_tokens=40, temperature=1.2, seed=1),
    Request("Why", max_new_tokens=17, temperature=0.8, top_p=0.5, seed=2, place=3),
    Request("Tell me of bread. " * 6, max_new_tokens=25, temperature=1.5, top_p=1.0, seed=1),
    Request([{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Ho"}], max_new_tokens=1),
    Request("Ho", max_new_tokens=30, temperature=0),
    Request("Ho", max_new_tokens=30, temperature=2.0, seed=7),
]


@pytest.fixture
def rows_seen(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(rows, tokens) of every forward pass of the model."""
    seen: list[tuple[int, int]] = []
    original = policy.model.forward

    @functools.wraps(original)  # generate() looks at the signature before it passes positions
    def forward(*args: object, **kwargs: object) -> object:
        seen.append(tuple(kwargs["input_ids"].shape))
        return original(*args, **kwargs)

    monkeypatch.setattr(policy.model, "forward", forward)
    return seen


def test_rows_with_their_own_options_get_what_they_get_alone(policy: Policy) -> None:
    alone = [answer(policy, [request])[0] for request in ASKED]
    assert len({a.text for a in alone}) > 4
    for size in (2, 3, 16):
        assert answer(policy, ASKED, batch_size=size) == alone
    for request, got in zip(ASKED, alone, strict=True):
        assert got.tokens <= request.max_new_tokens
        assert got.finish == ("length" if got.tokens == request.max_new_tokens else "stop")
        assert got.attributes == {}
    place = Request("Why", max_new_tokens=17, temperature=0.8, top_p=0.5, seed=2)
    assert generate(policy, ["a", "b", "c", "Why"], max_new_tokens=17, temperature=0.8, top_p=0.5, seed=2)[3] == (
        answer(policy, [ASKED[2]])[0].text
    )
    assert answer(policy, [place])[0].text == policy.chat("Why", max_new_tokens=17, temperature=0.8, top_p=0.5, seed=2)


@pytest.mark.parametrize("name", ["mistral-window", "gemma2", "gpt2", "qwen3-next", "mamba"])
def test_rows_leave_a_batch_whatever_the_cache_is(policy: Policy, name: str) -> None:
    """Windows, learned positions, linear attention beside attention, and a state without keys and values."""
    made = config(name)
    made.vocab_size = len(policy.tokenizer)
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(made).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    other = Policy(model, policy.tokenizer, name, "fp32")
    asked = [Request(r.turns, max_new_tokens=r.max_new_tokens * 2, temperature=0) for r in ASKED[:4]]
    alone = [answer(other, [request])[0] for request in asked]
    assert len({a.text for a in alone}) > 1
    assert answer(other, asked) == alone


def test_a_row_that_is_done_gets_no_position_beyond_the_last(policy: Policy) -> None:
    """Learned positions end at 512: a full context beside a long response would run past them."""
    made = config("gpt2")
    made.vocab_size = len(policy.tokenizer)
    torch.manual_seed(0)
    other = Policy(AutoModelForCausalLM.from_config(made).eval(), policy.tokenizer, "gpt2", "fp32")
    asked = [
        Request("word " * 600, max_new_tokens=4, temperature=0),
        Request("Hi", max_new_tokens=40, temperature=0),
    ]
    full, short = answer(other, asked, warn=lambda text: None)
    assert (full.prompt_tokens, full.tokens) == (508, 4)
    assert short == answer(other, asked[1:])[0]


def test_stop_texts_end_a_row_and_are_no_part_of_it(policy: Policy) -> None:
    whole = answer(policy, [Request("Ho", max_new_tokens=40, temperature=2.0, seed=7)])[0]
    middle = len(whole.text) // 2
    stop = whole.text[middle : middle + 3]
    assert stop.strip()
    told: list[list[str]] = [[], []]
    asked = [
        Request("Ho", max_new_tokens=40, temperature=2.0, seed=7, stop=("never written", stop)),
        Request("Ho", max_new_tokens=40, temperature=2.0, seed=7),
    ]
    stopped, other = answer(policy, asked, on_text=lambda i, piece: told[i].append(piece))
    assert stopped.text == whole.text[: whole.text.index(stop)].strip()
    assert stopped.finish == "stop"
    assert stopped.tokens < whole.tokens
    assert other == whole
    assert ["".join(pieces) for pieces in told] == [stopped.text, whole.text]


def test_every_row_streams_its_own_text(policy: Policy) -> None:
    told: list[list[str]] = [[] for _ in ASKED]
    order: list[int] = []
    got: dict[int, Answer] = {}

    def on_answer(i: int, one: Answer) -> None:
        order.append(i)
        got[i] = one
        assert "".join(told[i]) == one.text  # nothing is told of a row after its answer

    answers = answer(policy, ASKED, on_text=lambda i, piece: told[i].append(piece), on_answer=on_answer)
    assert ["".join(pieces) for pieces in told] == [a.text for a in answers]
    assert [got[i] for i in range(len(ASKED))] == answers
    assert order.index(4) < order.index(0) < order.index(1)  # as soon as each is whole, not when the batch is
    assert max(len(pieces) for pieces in told) > 3


def test_a_cancelled_row_ends_and_the_others_do_not_notice(policy: Policy) -> None:
    whole = answer(policy, ASKED)
    counts = [0] * len(ASKED)

    def cancelled(i: int) -> bool:
        counts[i] += 1
        return i == 1 and counts[i] > 5

    answers = answer(policy, ASKED, cancelled=cancelled)
    assert answers[1].finish == "cancelled"
    assert answers[1].tokens == 5
    assert whole[1].text.startswith(answers[1].text)
    assert [a for i, a in enumerate(answers) if i != 1] == [a for i, a in enumerate(whole) if i != 1]
    never = answer(policy, ASKED, cancelled=lambda i: True)
    assert {(a.text, a.finish, a.tokens) for a in never} == {("", "cancelled", 0)}


def test_rows_that_are_done_cost_nothing_more(policy: Policy, rows_seen: list[tuple[int, int]]) -> None:
    """Lengths 2, 4, 8 and 16: 2 x 4 rows, 2 x 3, 4 x 2, 8 x 1 - and each token is read once."""
    asked = [Request("Ho " * 5, max_new_tokens=2**n, temperature=1.5, seed=n) for n in range(1, 5)]
    answers = answer(policy, asked)
    assert [a.tokens for a in answers] == [2, 4, 8, 16]
    rows = [r for r, _ in rows_seen]
    assert rows == [4] * 2 + [3] * 2 + [2] * 4 + [1] * 8
    assert [t for _, t in rows_seen] == [answers[0].prompt_tokens] + [1] * 15


def test_nothing_is_computed_for_requests_cancelled_while_they_waited(
    policy: Policy, rows_seen: list[tuple[int, int]]
) -> None:
    answer(policy, ASKED[:3], cancelled=lambda i: i != 0)
    assert {rows for rows, _ in rows_seen} == {1}


def test_a_cache_of_the_beginning_is_gone_on_with(
    policy: Policy, monkeypatch: pytest.MonkeyPatch, rows_seen: list[tuple[int, int]]
) -> None:
    """The hook of self-guided inference: what begin() has read is not read again."""
    expected = answer(policy, ASKED)
    rows_seen.clear()

    def with_cache(policy: Policy, requests: list[Request]) -> Begun:
        begun = begin(policy, requests)
        cache = DynamicCache(config=policy.model.config)
        known = begun.ids.shape[1] - 4
        place = (begun.mask.cumsum(-1) - 1).clamp(min=0)
        policy.model(
            input_ids=begun.ids[:, :known], attention_mask=begun.mask[:, :known], position_ids=place[:, :known],
            past_key_values=cache,
        )  # fmt: skip
        n = len(requests)
        return Begun(begun.ids, begun.mask, cache, [{"helpfulness": 0.5}] * n, [("helpfulness",)] * n)

    monkeypatch.setattr(sys.modules[answer.__module__], "begin", with_cache)
    answers = answer(policy, ASKED)
    assert [a.text for a in answers] == [a.text for a in expected]
    assert rows_seen[1][1] == 4
    assert all((a.attributes, a.sensed) == ({"helpfulness": 0.5}, ("helpfulness",)) for a in answers)


def test_requests_that_cannot_be_met(policy: Policy) -> None:
    said: list[int] = []
    for wrong, about in (
        (Request("Hi", temperature=-1), "temperature"),
        (Request("Hi", stop=("",)), "stop"),
        (Request("Hi", stop="text"), "stop"),  # type: ignore[arg-type]
        (Request("Hi", attributes={"helpfulness": float("nan")}), 'attribute "helpfulness" must be a number'),
        (Request("Hi", attributes={"helpfulness": 0.5}), "takes no attribute scores"),
        (Request("Hi", max_new_tokens=512), "512 positions"),
    ):
        with pytest.raises(SettingsError, match=about):
            answer(policy, [Request("Hi"), wrong], progress=said.append)
    with pytest.raises(SettingsError, match="takes no attribute scores"):
        generate(policy, ["Hi"], attributes={"helpfulness": 0.5})
    assert said == []  # nothing was written for the others
    assert answer(policy, []) == []
