"""The other response in the context: its tokens, its cap, and what gives way."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from pluralign.conditioning import Conditioning, conditioned
from pluralign.policy import EMBEDDED
from pluralign.records import Preference, messages
from pluralign.render import Renderer
from pluralign.scoring.layout import Scored, lay_trie, trie_tokens
from pluralign.terms import pair

TOKENIZER = AutoTokenizer.from_pretrained(EMBEDDED)
STYLES = ("separator", "turns")
WORDS = st.lists(
    st.sampled_from(["an", "apple", "is", "red", "<|end|>", "<|sep|>", "and\n", "é"]), min_size=1, max_size=60
)


def record(x="Name a fruit.", w="An apple.", l="A carrot is what I would call a fruit.") -> Preference:
    answer = lambda text: messages(text, role="assistant")
    return Preference(prompt=messages(x), chosen=answer(w), rejected=answer(l))


def render(ex: Preference, how: Conditioning, **options):
    renderer = Renderer(TOKENIZER, **options)
    return {r.name: r for r in renderer.render(list(conditioned(pair, how)(ex)))}


def test_separator_by_hand() -> None:
    """C.2: x, y_l, [SEP], y_w; where a tokenizer has a separator token it is one token."""
    r = render(record(), Conditioning("cross"))
    shown = TOKENIZER.decode(r["w|l"].context)
    prompt = "<|begin|><|user|>Name a fruit.<|end|><|assistant|>"
    assert shown == f"{prompt}A carrot is what I would call a fruit.<|sep|>"
    assert TOKENIZER.decode(r["l|w"].context) == f"{prompt}An apple.<|sep|>"
    assert TOKENIZER.decode(render(record(), Conditioning("cross", separator="[SEP]"))["l|w"].context).endswith("[SEP]")


def test_turns_by_hand() -> None:
    r = render(record(), Conditioning("one-sided", style="turns", ask="Again?"))
    shown = "A carrot is what I would call a fruit.<|end|><|user|>Again?<|end|><|assistant|>"
    assert TOKENIZER.decode(r["w|l"].context).endswith(shown)
    assert r["w|l"].context == r["l|l"].context  # 5.3 (ii): both see the rejected response


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("strategy", ["one-sided", "cross", "averaged"])
def test_plain_and_reference_terms_are_those_of_no_conditioning(style, strategy) -> None:
    plain = render(record(), Conditioning())
    r = render(record(), Conditioning(strategy, style=style))
    assert {n: (v.context, v.target) for n, v in r.items() if "|" not in n} == {
        n: (v.context, v.target) for n, v in plain.items()
    }
    for name, v in r.items():
        assert v.target == plain[name[0] if "|" in name else name].target


@settings(max_examples=60, deadline=None)
@given(WORDS, WORDS, st.sampled_from(STYLES), st.integers(40, 200), st.sampled_from([None, 0.1, 0.4]))
def test_cap_and_room(w, l, style, max_length, cap) -> None:
    """The alternative never exceeds its cap; all fits; targets and reference terms are what they are without it."""
    ex = record(w=" ".join(w), l=" ".join(l) + " .")
    how = Conditioning("cross", style=style, draft_cap=cap)
    plain, r = render(ex, Conditioning(), max_length=max_length), render(ex, how, max_length=max_length)
    for name, v in r.items():
        assert len(v) <= max_length
        if "|" not in name:
            assert (v.context, v.target) == (plain[name].context, plain[name].target)
            continue
        own, other = (len(r[n].target) for n in name.split("|"))
        shown = other - v.cut_alternative
        if cap is not None:
            assert shown <= int(cap * max_length) + 1  # its end of turn, where it keeps one, does not count
        if not v.cut_context and not v.cut_target:
            assert len(v.target) == own
        assert v.scored is None


def test_the_alternative_gives_way_before_the_prompt_and_the_target() -> None:
    ex = record(x="word " * 40, w="good " * 40, l="bad " * 60)
    v = render(ex, Conditioning("cross", draft_cap=None), max_length=120)["w|l"]
    assert v.cut_alternative > 0
    assert v.cut_context == v.cut_target == 0
    assert len(v) == 120


@pytest.mark.parametrize("style", STYLES)
def test_one_pass_reads_plain_and_conditioned_terms(style) -> None:
    """x, y_l, y_w passes through x, y_l: `averaged` adds to `cross` at most an end of turn for each response."""
    r = render(record(), Conditioning("averaged", style=style))
    scored = {n: Scored(v.context, v.target) for n, v in r.items() if not n.startswith("ref_")}
    cross = trie_tokens([scored["w|l"], scored["l|w"]])
    everything = trie_tokens(list(scored.values()))
    assert everything - cross <= (2 if style == "separator" else 0)
    assert lay_trie(list(scored.values())).tokens == everything


def test_eos_can_be_left_out_of_the_score() -> None:
    """C.1: shown, not counted."""
    r = render(record(), Conditioning("cross"), score_eos=False)
    for v in r.values():
        assert v.target[-1] == TOKENIZER.eos_token_id
        assert v.scored == [True] * (len(v.target) - 1) + [False]
    assert Renderer(TOKENIZER).key() != Renderer(TOKENIZER, score_eos=False).key()


def test_spans_show_the_alternative_as_a_condition() -> None:
    renderer = Renderer(TOKENIZER)
    for shown in renderer.spans(list(conditioned(pair, Conditioning("cross", style="turns"))(record()))):
        roles = [s.role for s in shown.spans]
        assert ("condition" in roles) == ("|" in shown.rendered.name)
        assert shown.spans[-1].end == len(shown.rendered)
        assert "".join(shown.tokens) == TOKENIZER.decode(shown.rendered.ids)
