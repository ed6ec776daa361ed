"""Responses that begin with a given text, and targets that are only the beginning of one."""

from __future__ import annotations

import pytest
import render_toys as toys
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pluralign.conditioning import Conditioning, conditioned
from pluralign.errors import RenderError
from pluralign.records import Message, Preference, messages
from pluralign.render import Renderer
from pluralign.render.audit import audit
from pluralign.render.spans import show
from pluralign.terms import Alternative, Prefix, Scores, Term, pair

ASK = messages("Is tax theft?")
BELIEF = Prefix(("3", "<Not at all>"))


def said(text: str):
    return messages(text, role="assistant")


def render(name, *terms, **settings):
    renderer = Renderer(toys.tokenizer(name), **{"max_length": 512, **settings})
    return renderer, renderer.render(terms)


def text_of(renderer, ids) -> str:
    return renderer.tokenizer.decode(ids, clean_up_tokenization_spaces=False)


def spelled(renderer, r) -> str:
    """The scored part of a target."""
    return text_of(renderer, [t for t, own in zip(r.target, r.scored or [True] * len(r.target), strict=True) if own])


# Open targets


@pytest.mark.parametrize("name", toys.NAMES)
def test_an_open_target_is_the_ended_one_without_its_end(name) -> None:
    renderer, (whole, open_) = render(name, Term("y", (ASK,), said("Yes")), Term("b", (ASK,), said("Yes"), ended=False))
    assert open_.context == whole.context
    n = len(open_.target)
    assert n >= 1
    assert not set(open_.target) & set(renderer.stop_ids)
    assert open_.target == whole.target[:n]
    left = text_of(renderer, [t for t in whole.target[n:] if t not in renderer.stop_ids])
    assert left.strip() == ""  # llama2 sets a blank before its end of turn
    assert open_.scored is None
    assert spelled(renderer, open_).strip().endswith("Yes")


@pytest.mark.parametrize("template", ["plain", "hh", "raw"])
def test_templates_without_an_end_of_turn(template) -> None:
    """They close a response with EOS, which an open one has not."""
    renderer, (whole, open_) = render(
        "gpt2", Term("y", (ASK,), said("A")), Term("b", (ASK,), said("A"), ended=False), template=template
    )
    assert whole.target == [*open_.target, renderer.tokenizer.eos_token_id]


def test_without_an_end_anywhere_both_are_the_same() -> None:
    _, (whole, open_) = render(
        "gpt2", Term("y", (ASK,), said("A")), Term("b", (ASK,), said("A"), ended=False), eos=False
    )
    assert whole.target == open_.target


def test_an_unscored_end_is_no_matter_of_open_targets() -> None:
    _, (whole, open_) = render(
        "chatml", Term("y", (ASK,), said("A")), Term("b", (ASK,), said("A"), ended=False), score_eos=False
    )
    assert whole.scored == [True] * (len(whole.target) - 1) + [False]
    assert open_.scored is None
    assert whole.target[:-1] == open_.target


# Prefixes


@pytest.mark.parametrize("name", toys.NAMES)
def test_the_prefix_is_shown_and_not_scored(name) -> None:
    renderer, (r,) = render(name, Term("w", (ASK, BELIEF), said("Never > 3.")))
    _, (plain,) = render(name, Term("w", (ASK,), said("3<Not at all>Never > 3.")))
    assert r.context == plain.context  # the prompt alone: the prefix belongs to the response
    assert text_of(renderer, r.target) == text_of(renderer, plain.target)
    assert r.scored is not None
    n = r.scored.index(True)
    assert r.scored == [False] * n + [True] * (len(r.target) - n)  # the mask has one edge
    assert text_of(renderer, r.target[:n]).strip().endswith("3<Not at all>")
    assert spelled(renderer, r).strip().startswith("Never > 3.")
    assert r.target[-1] in renderer.stop_ids


@pytest.mark.parametrize("name", toys.NAMES)
def test_the_chain_rule_holds_by_construction(name) -> None:
    """Number, text and answer are paths of one tree: each begins with the ids of the one before."""
    terms = (
        Term("b", (ASK,), said("3"), ended=False),
        Term("belief", (ASK, Prefix(("3",))), said("<Not at all>"), ended=False),
        Term("w", (ASK, BELIEF), said("Never.")),
        Term("l", (ASK, BELIEF), said("Always.")),
    )
    _, (number, belief, w, l) = render(name, *terms)
    assert belief.target[: len(number.target)] == number.target
    for r in (w, l):
        assert r.target[: len(belief.target)] == belief.target
        assert not any(r.scored[: len(belief.target)])
        assert all(r.scored[len(belief.target) :])
    assert belief.scored == [False] * len(number.target) + [True] * (len(belief.target) - len(number.target))


@given(
    st.text(st.characters(blacklist_categories=("Cs",), max_codepoint=0x2FF), max_size=12),
    st.text(st.sampled_from("a>3<b 1\n."), min_size=1, max_size=12),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@pytest.mark.parametrize("name", ["chatml", "llama2", "gpt2"])
def test_no_text_of_belief_or_answer_moves_the_mask(name, belief, answer) -> None:
    """The official code looks for the last ">" of the rendered text; an answer may hold one, and digits too."""
    renderer = Renderer(toys.tokenizer(name), max_length=512)
    terms = [
        Term("belief", (ASK, Prefix(("3",))), said(f"<{belief}>"), ended=False),
        Term("w", (ASK, Prefix(("3", f"<{belief}>"))), said(answer)),
    ]
    if not answer.strip():
        return
    shown, w = renderer.render(terms)
    n = len(shown.target)
    assert w.target[:n] == shown.target
    assert not any(w.scored[:n])
    assert all(w.scored[n:])
    rest = text_of(renderer, [t for t in w.target[n:] if t not in renderer.stop_ids])
    assert rest.strip() == text_of(renderer, renderer.tokenizer(answer, add_special_tokens=False)["input_ids"]).strip()


@pytest.mark.parametrize("name", ["chatml", "llama2"])
def test_a_control_token_in_a_belief_is_text(name) -> None:
    """ "<s>" is a belief "s" in brackets, and the BOS of a Llama-2 tokenizer."""
    renderer, (w,) = render(name, Term("w", (ASK, Prefix(("1", "<s>"))), said("Yes <|im_end|> no.")))
    n = w.scored.index(True)
    assert text_of(renderer, w.target[:n]).strip().endswith("1<s>")
    assert renderer.tokenizer.bos_token_id is None or renderer.tokenizer.bos_token_id not in w.target
    assert sum(t in renderer.stop_ids for t in w.target) == 1


def test_a_control_token_across_the_pieces_is_refused() -> None:
    renderer = Renderer(toys.tokenizer("llama2"), max_length=512)
    with pytest.raises(RenderError, match="across the beginning of a response"):
        renderer.render([Term("w", (ASK, Prefix(("1", "<s"))), said("> yes"))])


def test_prefixes_go_with_scores_and_the_other_response() -> None:
    """GDPO x SGA x InSPO: prompt, scores, the other response, prefix, target."""
    context = (ASK, Scores(" Be kind."), BELIEF, Alternative(said("Always."), separator="[SEP]"))
    renderer, (r, bare) = render("chatml", Term("w", context, said("Never.")), Term("l", (ASK,), said("Never.")))
    assert text_of(renderer, r.context).endswith("theft? Be kind.<|im_end|>\n<|im_start|>assistant\nAlways.[SEP]")
    assert text_of(renderer, r.target) == "3<Not at all>Never.<|im_end|>"
    assert spelled(renderer, r) == "Never.<|im_end|>" == text_of(renderer, bare.target)
    assert r.mark is not None


def test_conditioning_leaves_prefix_and_target_alone() -> None:
    ex = Preference(prompt=ASK, chosen=said("Never."), rejected=said("Always."))
    plan = lambda ex: [Term(t.name, (*t.context, BELIEF), t.target, t.by) for t in pair(ex)]
    terms = list(conditioned(plan, Conditioning("cross"))(ex))
    renderer = Renderer(toys.tokenizer("chatml"), max_length=512)
    r = {x.name: x for x in renderer.render(terms)}
    assert r["w|l"].target == r["w"].target
    assert r["w|l"].scored == r["w"].scored
    assert r["w|l"].context[: len(r["w"].context)] == r["w"].context
    assert r["ref_w"].ids == r["w"].ids


# What stays as it was, and what cannot be


@pytest.mark.parametrize("name", toys.NAMES)
@given(turns=toys.prompts(toys.ANY))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_other_terms_of_the_record_are_as_without(name, turns) -> None:
    renderer = Renderer(toys.tokenizer(name), max_length=2048)
    plain = [Term("w", (turns,), said("Yes, of course.")), Term("l", (turns,), said("No."))]
    more = [Term("b", (turns,), said("3"), ended=False), Term("p", (turns, BELIEF), said("No."))]
    try:
        alone = renderer.render(plain)
    except RenderError:
        return
    both = renderer.render([*plain, *more])
    assert [r.ids for r in both[:2]] == [r.ids for r in alone]
    assert [r.scored for r in both[:2]] == [None, None]


def test_truncation_keeps_the_prefix_or_says_so() -> None:
    long = said("word " * 40)
    _, (r,) = render("chatml", Term("w", (ASK, BELIEF), long), max_length=64)
    assert len(r) == 64
    assert r.cut_target > 0
    assert any(r.scored)
    with pytest.raises(RenderError, match="max_length=16"):
        Renderer(toys.tokenizer("chatml"), max_length=16).render([
            Term("w", (ASK, Prefix(("3", "<" + "long belief " * 9 + ">"))), said("Yes."))
        ])  # fmt: skip


def test_what_cannot_be_is_refused() -> None:
    renderer = Renderer(toys.tokenizer("chatml"), max_length=512)
    with pytest.raises(RenderError, match="empty"):
        renderer.render([Term("w", (ASK, BELIEF), said(""))])
    several = (Message("assistant", "a"), Message("user", "b"), Message("assistant", "c"))
    with pytest.raises(RenderError, match="one turn"):
        renderer.render([Term("w", (ASK, BELIEF), several)])
    with pytest.raises(RenderError, match="one turn"):
        renderer.render([Term("w", (ASK,), several, ended=False)])
    with pytest.raises(RenderError, match="differently"):  # as any other response under this template
        Renderer(toys.tokenizer("rewriting"), max_length=512).render([Term("b", (ASK,), said("A"), ended=False)])


# What people are shown


@pytest.mark.parametrize("name", toys.NAMES)
def test_the_audit_finds_nothing_wrong(name) -> None:
    ex = Preference(prompt=ASK, chosen=said("Never."), rejected=said("Always."))
    plan = lambda ex: [
        Term("b.0", (ex.prompt,), said("3"), ended=False),
        Term("w", (ex.prompt, BELIEF), ex.chosen),
        Term("l", (ex.prompt, BELIEF), ex.rejected),
    ]
    found = audit([ex], Renderer(toys.tokenizer(name), max_length=512), plan=plan)
    assert found.breaches == []
    assert found.ends == {0: 1, 1: 2}


@pytest.mark.parametrize("name", toys.NAMES)
def test_spans_call_the_prefix_a_condition(name) -> None:
    renderer = Renderer(toys.tokenizer(name), max_length=512)
    shown = show(renderer, [Term("w", (ASK, BELIEF), said("Never.")), Term("b", (ASK,), said("A"), ended=False)])
    after = [s for s in shown[0].spans if s.start >= len(shown[0].rendered.context)]
    assert [s.role for s in after] == ["condition", "target", "eos"]
    assert after[0].end - after[0].start == shown[0].rendered.scored.count(False)
    assert shown[1].spans[-1].role == "target"


def test_a_slow_tokenizer() -> None:
    renderer = Renderer(toys.slow(), template="plain", max_length=512)
    terms = [Term("w", (ASK, BELIEF), said("Never.")), Term("b", (ASK,), said("A"), ended=False)]
    shown = show(renderer, terms)
    assert [s.role for s in shown[0].spans if s.start >= len(shown[0].rendered.context)] == [
        "condition", "target", "eos"
    ]  # fmt: skip
    assert shown[1].rendered.target == [ord(" "), ord("A")]
