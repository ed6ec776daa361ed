"""Roles: every token has exactly one, and it is the right one."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import render_toys as toys
from hypothesis import given, settings
from hypothesis import strategies as st

from pluralign.records import Message, Messages, messages
from pluralign.render import Renderer, Shown
from pluralign.render.spans import ROLES
from pluralign.terms import Term

TALK = messages(
    [
        {"role": "system", "content": "user"},
        {"role": "user", "content": "user"},
        {"role": "assistant", "content": " assistant "},
        {"role": "user", "content": "the end 🙂"},
    ]
)


def _said(text: str) -> Messages:
    return (Message("assistant", text),)


def _roles(shown: Shown) -> list[tuple[str, str]]:
    """(role, characters) by span, spans of the same role and no characters left out."""
    return [(span.role, "".join(shown.tokens[span.start : span.end])) for span in shown.spans]


@dataclass(frozen=True)
class Appended:
    """A condition that adds to the last turn."""

    text: str

    def apply(self, turns: Messages) -> Messages:
        return (*turns[:-1], Message(turns[-1].role, turns[-1].content + self.text))


@dataclass(frozen=True)
class Headed:
    """A condition that puts a system turn before the rest."""

    text: str

    def apply(self, turns: Messages) -> Messages:
        return (Message("system", self.text), *turns)


@pytest.mark.parametrize("name", toys.NAMES)
@settings(max_examples=40, deadline=None)
@given(prompt=toys.prompts(toys.ANY), answer=toys.visible(toys.ANY), max_length=st.integers(16, 60))
def test_spans_partition_the_ids_of_the_rendering(name: str, prompt: Messages, answer: str, max_length: int) -> None:
    renderer = Renderer(toys.tokenizer(name), max_length=max_length)
    terms = [Term("y", (prompt,), _said(answer)), Term("z", (prompt,), _said("no"))]
    for rendered, shown in zip(renderer.render(terms), renderer.spans(terms), strict=True):
        assert shown.rendered == rendered
        assert len(shown.tokens) == len(rendered)
        ends = [0, *(span.end for span in shown.spans)]
        assert [span.start for span in shown.spans] == ends[:-1]
        assert ends[-1] == len(rendered)
        assert {span.role for span in shown.spans} <= set(ROLES)
        boundary = len(rendered.context)
        for span in shown.spans:
            assert (span.start >= boundary) == (span.role in ("target", "eos"))
        assert (shown.spans[-1].role == "eos") == (not rendered.cut_target)


@pytest.mark.parametrize("name", ["chatml", "thinking"])
def test_roles_of_a_conversation(name: str) -> None:
    """Contents that look like the template's own words are told from them."""
    renderer = Renderer(toys.tokenizer(name))
    (shown,) = renderer.spans([Term("y", (TALK,), _said("4"))])
    before_answer = "<think>\n\n</think>\n\n" if name == "thinking" else ""
    assert _roles(shown) == [
        ("template", "<|im_start|>system\n"),
        ("system", "user"),
        ("template", "<|im_end|>\n<|im_start|>user\n"),
        ("user", "user"),
        ("template", "<|im_end|>\n<|im_start|>assistant\n"),
        ("assistant", " assistant "),
        ("template", "<|im_end|>\n<|im_start|>user\n"),
        ("user", "the end 🙂"),
        ("template", "<|im_end|>\n<|im_start|>assistant\n"),
        ("target", f"{before_answer}4"),
        ("eos", "<|im_end|>"),
    ]


def test_roles_where_the_template_trims_and_the_tokenizer_adds_bos() -> None:
    (shown,) = Renderer(toys.tokenizer("headers")).spans([Term("y", (messages("\n Hi \n"),), _said(" 4"))])
    roles = _roles(shown)
    assert roles[0] == ("bos", "<|begin|>")
    assert ("user", "Hi") in roles
    assert roles[-2:] == [("target", "4"), ("eos", "<|eot_id|>")]


def test_bos_added_by_hand_and_eos_added_by_hand_have_their_roles() -> None:
    (shown,) = Renderer(toys.tokenizer("llama2_base")).spans([Term("y", (messages("Hi"),), _said("4"))])
    assert _roles(shown)[0] == ("bos", "<s>")
    assert _roles(shown)[-1] == ("eos", "</s>")


def test_roles_where_the_template_rewrites_a_turn() -> None:
    prompt = (*messages("Hello"), *_said("<think>\nwhy\n</think>\n\nHi!"), *messages("2+2?"))
    (shown,) = Renderer(toys.tokenizer("thinking")).spans([Term("y", (prompt,), _said("4"))])
    roles = _roles(shown)
    assert ("user", "Hello") in roles
    assert ("user", "2+2?") in roles
    assert not [text for _, text in roles if "why" in text]


@pytest.mark.parametrize("mark", ["", "<|im_end|>"])
def test_what_a_condition_adds_is_marked(mark: str) -> None:
    renderer = Renderer(toys.tokenizer("chatml"))
    context = (messages(f"Hello{mark}"), Headed("Be brief."), Appended(f"\n[SEP] No.{mark}"))
    (shown,) = renderer.spans([Term("w|l", context, _said("Yes."))])
    roles = _roles(shown)
    assert ("condition", "Be brief.") in roles
    assert ("user", f"Hello{mark}") in roles
    assert ("condition", f"\n[SEP] No.{mark}") in roles


def test_what_a_tool_says_inside_a_target_is_the_tools() -> None:
    target = (*_said("Let me look."), Message("tool", "21 degrees"), *_said("It is 21."))
    (shown,) = Renderer(toys.tokenizer("chatml")).spans([Term("y", (messages("Hi"),), target)])
    roles = _roles(shown)
    assert ("tool", "21 degrees") in roles
    assert [role for role, _ in roles if role in ("target", "eos")] == ["target", "eos", "target", "eos"]
    scored = shown.rendered.scored
    assert scored is not None
    own = {i for span in shown.spans if span.role in ("target", "eos") for i in range(span.start, span.end)}
    n = len(shown.rendered.context)
    assert own == {n + i for i, s in enumerate(scored) if s}


def test_a_slow_tokenizer_still_shows_prompt_and_response() -> None:
    (shown,) = Renderer(toys.slow()).spans([Term("y", (messages("ab"),), _said("c"))])
    assert _roles(shown) == [("template", "User: ab\n\nAssistant:"), ("target", " c"), ("eos", "</s>")]
