"""Attribute scores in a context: where they stand, what they leave as it was, and the token that is sensed."""

from __future__ import annotations

import math

import pytest
import render_toys as toys
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pluralign.attributes import Scale, ScoreForm
from pluralign.conditioning import Conditioning, conditioned, scored
from pluralign.errors import RenderError
from pluralign.records import Demonstration, Message, Preference, messages
from pluralign.render import Renderer
from pluralign.render.audit import audit
from pluralign.render.spans import VECTOR
from pluralign.terms import Column, Scores, Term, demonstration, pair

FORM = ScoreForm((Scale("help", 0, 4), Scale("length", 0, 4)))
SENTENCE = " Your response must satisfy the following scores: help: 0.75, length: 0.25."
ANSWER = messages("A", role="assistant")
FAMILIES = [n for n in toys.NAMES if n not in ("rewriting",)]


def record(x="Name a fruit.", **options) -> Preference:
    answer = lambda text: messages(text, role="assistant")
    attributes = {"help": (3, 1), "length": (1, None)}
    return Preference(
        prompt=messages(x), chosen=answer("An apple."), rejected=answer("Er."), attributes=attributes, **options
    )


def terms(ex, form=FORM, show="chosen", plan=pair, strategy="none"):
    return [t for t in conditioned(scored(plan, form, show), Conditioning(strategy))(ex) if isinstance(t, Term)]


def columns(ex, form=FORM, plan=pair):
    return {c.name: c.value for c in scored(plan, form)(ex) if isinstance(c, Column)}


def test_every_term_sees_the_scores_of_the_chosen_response() -> None:
    """B.2 and Eq. 8: chosen and rejected, policy and reference."""
    seen = {t.name: t.turns()[-1].content for t in terms(record())}
    assert set(seen) == {"w", "l", "ref_w", "ref_l"}
    assert set(seen.values()) == {"Name a fruit." + SENTENCE}


def test_own_scores() -> None:
    seen = {t.name: t.turns()[-1].content for t in terms(record(), show="own")}
    assert seen["w"] == seen["ref_w"] == "Name a fruit." + SENTENCE
    missing = "Name a fruit. Your response must satisfy the following scores: help: 0.25."
    assert seen["l"] == missing


def test_columns_hold_the_scores_and_what_is_missing() -> None:
    found = columns(record())
    assert [found[f"attributes.{k}"] for k in (0, 1)] == [0.75, 0.25]
    assert [found[f"attributes_w.{k}"] for k in (0, 1)] == [0.75, 0.25]
    assert found["attributes_l.0"] == 0.25
    assert math.isnan(found["attributes_l.1"])
    ex = Demonstration(prompt=messages("x"), response=messages("y", role="assistant"), attributes={"length": 4})
    found = columns(ex, plan=demonstration)
    assert set(found) == {"attributes.0", "attributes.1"}
    assert math.isnan(found["attributes.0"])
    assert found["attributes.1"] == 1.0


@pytest.mark.parametrize("name", FAMILIES)
@given(toys.prompts(toys.ANY), st.lists(st.floats(0, 1), min_size=2, max_size=2))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_prompts_ids_and_the_marked_token_do_not_depend_on_the_scores(name, turns, values) -> None:
    renderer = Renderer(toys.tokenizer(name), max_length=2048)
    try:
        start, finish = renderer.opened(turns)
    except RenderError:
        return  # a template or tokenizer that refuses these turns
    tail = finish(FORM.text(values))
    assert renderer.prompt(turns, (), Scores(FORM.text(values))) == start + tail
    target = messages("Yes.", role="assistant")
    (r,) = renderer.render([Term("y", (turns, Scores(FORM.text(values))), target)])
    assert r.context == start + tail
    assert r.mark == len(start) - 1


@pytest.mark.parametrize("name", FAMILIES)
def test_the_marked_token_ends_the_prompt(name) -> None:
    renderer = Renderer(toys.tokenizer(name), max_length=512)
    (r,) = renderer.render([Term("y", (messages("Tell me of Paris"), Scores(SENTENCE)), ANSWER)])
    text = renderer.tokenizer.decode(r.context[: r.mark + 1])
    assert text.endswith("Paris")
    assert renderer.tokenizer.decode(r.context[r.mark + 1 :]).lstrip().startswith("Your response must satisfy")


@pytest.mark.parametrize("name", FAMILIES)
def test_vectors_stand_between_the_marked_token_and_the_words(name) -> None:
    renderer = Renderer(toys.tokenizer(name), max_length=256)
    turns, shown = messages("Tell me of Paris"), Scores(SENTENCE, soft=(-3, -4))
    term = Term("y", (turns, shown), ANSWER)
    (r,) = renderer.render([term])
    start, finish = renderer.opened(turns)
    assert r.context == renderer.prompt(turns, (), shown) == [*start, -3, -4, *finish(SENTENCE)]
    assert r.mark == len(start) - 1
    (seen,) = renderer.spans([term])
    at = len(start)
    assert seen.tokens[at : at + 2] == (VECTOR, VECTOR)
    assert any(s.role == "condition" and s.start <= at and s.end >= at + 2 for s in seen.spans)


@pytest.mark.parametrize("template", ["plain", "hh", "raw"])
def test_templates_without_control_tokens(template) -> None:
    renderer = Renderer(toys.tokenizer("chatml"), template, max_length=512)
    (r,) = renderer.render([Term("y", (messages("Tell me of Paris"), Scores(SENTENCE)), ANSWER)])
    assert renderer.tokenizer.decode(r.context[: r.mark + 1]).endswith("Paris")


def test_scores_behind_the_header_and_before_the_prompt() -> None:
    renderer = Renderer(toys.tokenizer("chatml"), max_length=512)
    behind, before = (
        renderer.render([Term("y", (messages("Name a fruit."), Scores(*s)), ANSWER)])[0]
        for s in (("help:4\n", "answer"), ("<help: 4> ", "before"))
    )
    assert renderer.tokenizer.decode(behind.context).endswith("<|im_start|>assistant\nhelp:4\n")
    assert behind.context[: behind.mark + 1] == renderer.prompt("Name a fruit.")
    assert "user\n<help: 4> Name a fruit." in renderer.tokenizer.decode(before.context)
    assert before.mark is None


def test_the_other_response_stands_behind_the_scores() -> None:
    """A policy may see both (SGA x InSPO); every context of a row marks the same token."""
    renderer = Renderer(toys.tokenizer("chatml"), max_length=512)
    r = {x.name: x for x in renderer.render(terms(record(), strategy="cross"))}
    assert r["w|l"].context[: len(r["w"].context)] == r["w"].context
    assert r["w|l"].inserted > 0
    assert len({x.mark for x in r.values()}) == 1


def test_a_prompt_that_is_cut_keeps_its_scores_and_moves_the_mark() -> None:
    renderer = Renderer(toys.tokenizer("chatml"), max_length=128)
    turns, answer = messages("word " * 300 + "end"), messages("An apple.", role="assistant")
    (r,) = renderer.render([Term("y", (turns, Scores(SENTENCE)), answer)])
    assert r.cut_context > 0
    assert renderer.tokenizer.decode(r.context[: r.mark + 1]).endswith("end")
    assert SENTENCE in renderer.tokenizer.decode(r.context)
    with pytest.raises(RenderError, match="nothing is left of the prompt"):
        Renderer(toys.tokenizer("chatml"), max_length=32).render([Term("y", (turns, Scores(SENTENCE)), answer)])


def test_a_prompt_without_a_user_turn_cannot_hold_them() -> None:
    with pytest.raises(RenderError, match="last user turn"):
        Renderer(toys.tokenizer("chatml")).render(
            [Term("y", ((Message("system", "Be kind."),), Scores(SENTENCE)), ANSWER)], (), "f:3"
        )


@pytest.mark.parametrize("name", ["chatml", "llama2", "gemma"])
def test_the_audit_shows_scores_as_a_condition_and_finds_no_breach(name) -> None:
    renderer = Renderer(toys.tokenizer(name), max_length=512)
    found = audit([record()], renderer, scored(pair, FORM))
    assert not found.breaches
    (shown,) = renderer.spans(terms(record())[:1])
    said = "".join(t for s in shown.spans if s.role == "condition" for t in shown.tokens[s.start : s.end])
    assert said.strip() == SENTENCE.strip()
