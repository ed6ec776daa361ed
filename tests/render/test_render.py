"""The rendering contract on real (small) tokenizers: exactness, one BOS, one end, truncation, batches, keys."""

from __future__ import annotations

import time

import pytest
import render_toys as toys
from hypothesis import given, settings
from hypothesis import strategies as st

from pluralign.errors import RenderError, SettingsError
from pluralign.records import Message, Messages, Preference, messages
from pluralign.render import Renderer
from pluralign.terms import Term, pair

QUICK = settings(max_examples=40, deadline=None)
BYTES = ("chatml", "chatml_noregex", "thinking", "headers", "gemma", "gpt2")  # decode to exactly what they were given


def _said(text: str) -> Messages:
    return (Message("assistant", text),)


def _pair(prompt: Messages, chosen: str = "The answer is 6", rejected: str = "No, it is 5!") -> list[Term]:
    return list(pair(Preference(prompt=prompt, chosen=_said(chosen), rejected=_said(rejected))))


def _chat_ids(tokenizer, prompt: Messages, **options) -> list[int]:
    return tokenizer.apply_chat_template(
        [m.as_dict() for m in prompt], add_generation_prompt=True, tokenize=True, return_dict=False, **options
    )


CHATS = [name for name in toys.NAMES if toys.tokenizer(name).chat_template]


@pytest.mark.parametrize("name", CHATS)
@QUICK
@given(prompt=toys.prompts(toys.INERT))
def test_the_context_is_what_the_model_is_shown_at_inference(name: str, prompt: Messages) -> None:
    tokenizer = toys.tokenizer(name)
    context = Renderer(tokenizer, max_length=100_000).render(_pair(prompt))[0].context
    assert context == _chat_ids(tokenizer, prompt)


@pytest.mark.parametrize("name", toys.NAMES)
@QUICK
@given(prompt=toys.prompts(toys.ANY))
def test_prompt_and_context_are_the_same_ids(name: str, prompt: Messages) -> None:
    renderer = Renderer(toys.tokenizer(name), max_length=100_000)
    assert renderer.prompt(prompt) == renderer.render(_pair(prompt))[0].context


@pytest.mark.parametrize("name", BYTES)
@QUICK
@given(prompt=toys.prompts(toys.ANY), answer=toys.visible(toys.ANY))
def test_decoding_gives_the_conversation_back(name: str, prompt: Messages, answer: str) -> None:
    tokenizer = toys.tokenizer(name)
    renderer = Renderer(tokenizer, max_length=100_000)
    rendered = renderer.render([Term("y", (prompt,), _said(answer))])[0]
    whole = renderer.template.write((*prompt, *_said(answer)), (), False)
    assert tokenizer.decode(rendered.context) == renderer.template.write(prompt, (), True)
    if renderer.template.name == "chat":
        assert renderer.style.probe is not None
        assert tokenizer.decode(rendered.ids) + renderer.style.probe.tail == whole
    else:
        assert tokenizer.decode(rendered.ids) == whole + tokenizer.eos_token


@pytest.mark.parametrize("name", ["llama2", "llama2_legacy", "llama2_base", "unigram", "prefix_space"])
@QUICK
@given(answer=toys.visible(st.lists(st.sampled_from(["yes", " no", "\n", ":", " ", "21"]), min_size=1).map("".join)))
def test_a_space_before_the_first_word_is_not_given_to_a_response(name: str, answer: str) -> None:
    """SentencePiece-style tokenizers put a space before any text they are given: a target must not get one."""
    tokenizer = toys.tokenizer(name)
    renderer = Renderer(tokenizer)
    rendered = renderer.render([Term("y", (messages("What?"),), _said(answer))])[0]
    context = tokenizer.decode(rendered.context)
    added = tokenizer.decode(rendered.ids).removeprefix(context).removesuffix(tokenizer.decode(rendered.target[-1:]))
    expected = {"llama2": f" {answer.strip()} ", "llama2_legacy": f" {answer.strip()} ", "unigram": answer}
    assert added == expected.get(name, f" {answer}")


@pytest.mark.parametrize("name", toys.NAMES)
@QUICK
@given(prompt=toys.prompts(toys.ANY), answer=toys.visible(toys.ANY))
def test_data_never_becomes_a_control_token(name: str, prompt: Messages, answer: str) -> None:
    """Spelling out control tokens changes neither their number nor their places in the template."""
    tokenizer = toys.tokenizer(name)
    renderer = Renderer(tokenizer, max_length=100_000)
    control = set(tokenizer.convert_tokens_to_ids(list(renderer.encoder.controls.tokens))) - {tokenizer.unk_token_id}
    rendered = renderer.render([Term("y", (prompt,), _said(answer))])[0]
    inert = renderer.render([Term("y", (toys.prompt(["x"] * len(prompt)),), _said("x"))])[0]
    assert [i for i in rendered.ids if i in control] == [i for i in inert.ids if i in control]


@pytest.mark.parametrize("name", toys.NAMES)
def test_spelled_control_tokens_keep_their_characters(name: str) -> None:
    tokenizer = toys.tokenizer(name)
    if name == "unigram":
        pytest.skip("its alphabet decodes unknown characters to <unk>")
    for token in Renderer(tokenizer).encoder.controls.tokens:
        ids = Renderer(tokenizer).prompt(f"say {token} twice")
        assert f"say {token} twice" in tokenizer.decode(ids)


@pytest.mark.parametrize("name", toys.NAMES)
def test_one_bos_and_one_end(name: str) -> None:
    tokenizer = toys.tokenizer(name)
    for rendered in Renderer(tokenizer).render(_pair(toys.prompt(["Hello", "Hi", "2+2?"]))):
        bos = tokenizer.bos_token_id
        if name in ("opened", "headers", "gemma", "llama2", "llama2_legacy", "llama2_base"):
            assert rendered.context[0] == bos
            assert bos not in rendered.context[1:]
            assert bos not in rendered.target
        ends = {"headers": "<|eot_id|>", "gemma": "<end_of_turn>", "unigram": "<|im_end|>"}
        end = tokenizer.convert_tokens_to_ids(ends.get(name, tokenizer.eos_token))
        assert rendered.target[-1] == end
        assert rendered.target.count(end) == 1
        assert end in Renderer(tokenizer).stop_ids


def test_pad_equal_to_eos_does_not_cost_the_end() -> None:
    tokenizer = toys.tokenizer("chatml")
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    rendered = Renderer(tokenizer).render(_pair(messages("Hello")))[0]
    assert rendered.target[-1] == tokenizer.eos_token_id
    assert rendered.scored is None


@pytest.mark.parametrize("name", toys.NAMES)
def test_without_eos_the_end_is_left_off(name: str) -> None:
    kept = Renderer(toys.tokenizer(name)).render(_pair(messages("Hello")))
    bare = Renderer(toys.tokenizer(name), eos=False).render(_pair(messages("Hello")))
    assert [r.target[:-1] for r in kept] == [r.target for r in bare]
    assert [r.context for r in kept] == [r.context for r in bare]


@pytest.mark.parametrize("name", toys.NAMES)
@settings(max_examples=15, deadline=None)
@given(
    rows=st.lists(
        st.tuples(toys.prompts(toys.ANY), toys.visible(toys.ANY), toys.visible(toys.ANY)), min_size=1, max_size=4
    )
)
def test_a_batch_gives_what_single_records_give(name: str, rows: list[tuple[Messages, str, str]]) -> None:
    renderer = Renderer(toys.tokenizer(name), max_length=48)
    batch = [(_pair(*row), (), f"row {i}") for i, row in enumerate(rows)]
    assert renderer.render_batch(batch) == [renderer.render(*row) for row in batch]


@QUICK
@given(
    name=st.sampled_from(toys.NAMES),
    max_length=st.integers(16, 80),
    prompt=toys.prompts(toys.ANY),
    answers=st.tuples(toys.visible(toys.ANY), toys.visible(toys.ANY)),
    times=st.tuples(st.integers(1, 6), st.integers(1, 6)),
)
def test_truncation(
    name: str, max_length: int, prompt: Messages, answers: tuple[str, str], times: tuple[int, int]
) -> None:
    chosen, rejected = (a * n for a, n in zip(answers, times, strict=True))
    tokenizer = toys.tokenizer(name)
    whole = Renderer(tokenizer, max_length=100_000).render(_pair(prompt, chosen, rejected))
    cut = Renderer(tokenizer, max_length=max_length).render(_pair(prompt, chosen, rejected))
    assert len({tuple(r.context) for r in cut}) == 1  # both responses are conditioned on the same prompt
    longest = max(len(w.target) for w in whole)
    for full, short in zip(whole, cut, strict=True):
        assert len(short) <= max_length
        assert short.cut_context == len(full.context) - len(short.context)
        assert short.cut_target == len(full.target) - len(short.target)
        assert short.target == full.target[: len(short.target)]
        head = 1 if full.context[0] == tokenizer.bos_token_id else 0
        assert short.context[:head] == full.context[:head]
        tail = len(short.context) - head
        assert short.context[head:] == full.context[len(full.context) - tail :]
        assert len(short.context) >= min(len(full.context), max_length // 4)
        if len(full.context) + longest <= max_length:
            assert short == full
        elif short.cut_target:
            assert len(short) == max_length
        if short.cut_target:  # the context was cut as far as it may be before the target lost anything
            assert len(short.context) == min(len(full.context), max_length // 4)


def test_the_target_wins_over_the_beginning_of_the_prompt() -> None:
    renderer = Renderer(toys.tokenizer("gpt2"), max_length=64)
    terms = _pair(messages("one two three " * 40 + "the end"), "short", "longer " * 5)
    chosen, rejected, *_ = renderer.render(terms)
    assert chosen.cut_target == rejected.cut_target == 0
    assert chosen.context == rejected.context
    assert len(rejected) == 64
    assert toys.tokenizer("gpt2").decode(chosen.context).endswith("the end\n\nAssistant:")


def test_terms_with_other_contexts_are_cut_on_their_own() -> None:
    renderer = Renderer(toys.tokenizer("gpt2"), max_length=64)
    short, long = messages("Hi"), messages("one two three " * 40)
    a, b = renderer.render([Term("a", (short,), _said("yes")), Term("b", (long,), _said("yes"))])
    assert a.cut_context == 0
    assert b.cut_context > 0


def test_an_overlong_response_is_an_error_on_request() -> None:
    renderer = Renderer(toys.tokenizer("gpt2"), max_length=32, overlong="error")
    with pytest.raises(
        RenderError, match=r"pairs\.jsonl:7: the response of term \"w\" has .* rendering\.max_length=32"
    ):
        renderer.render(_pair(messages("Hi"), "word " * 60), where="pairs.jsonl:7")


def test_a_very_long_prompt_is_cut_quickly_and_counted() -> None:
    renderer = Renderer(toys.tokenizer("headers"), max_length=512)
    prompt = messages(" answer" * 200_000)
    started = time.perf_counter()
    rendered = renderer.render(_pair(prompt))[0]
    assert time.perf_counter() - started < 20
    assert rendered.cut_context > 199_000
    assert len(rendered) <= 512
    assert rendered.context[0] == toys.tokenizer("headers").bos_token_id


def test_errors_name_the_row_and_the_rest_is_rendered() -> None:
    renderer = Renderer(toys.tokenizer("gemma"))
    system = (Message("system", "Be kind."), Message("user", "Hello"))
    rows = [
        (_pair(messages("Hello")), (), "a:1"),
        (_pair(system), (), "a:2"),
        ([Term("y", (messages("x"),), _said("\n "))], (), "a:3"),
        (_pair(messages("broken \ud800 text")), (), "a:4"),
        (_pair(messages("Hello")), (), "a:5"),
    ]
    first, refused, empty, broken, last = renderer.try_batch(rows)
    assert first == last == renderer.render(_pair(messages("Hello")))
    assert "a:2: the chat template refuses this conversation (system, user" in str(refused)
    assert "System role not supported" in str(refused)
    assert "rendering.template=plain" in str(refused)
    assert str(empty).startswith("a:3: the response is empty once rendered")
    assert str(broken).startswith("a:4: the text is not valid Unicode")
    with pytest.raises(RenderError, match="a:2"):
        renderer.render_batch(rows)


def test_an_empty_prompt_begins_with_bos_or_eos_or_is_an_error() -> None:
    blank = (Message("user", ""),)
    tokenizer = toys.tokenizer("gpt2")
    assert Renderer(tokenizer, "raw").render([Term("y", (blank,), _said("x"))])[0].context == [tokenizer.bos_token_id]
    bare = toys.fresh("gpt2")
    bare.bos_token = bare.eos_token = bare.pad_token = None
    with pytest.raises(RenderError, match="r1: empty prompt"):
        Renderer(bare, "raw", eos=False).render([Term("y", (blank,), _said("x"))], where="r1")


def test_a_template_without_end_needs_an_eos_token() -> None:
    bare = toys.fresh("gpt2")
    bare.eos_token = None
    with pytest.raises(SettingsError, match=r"no EOS token .* rendering\.eos=false"):
        Renderer(bare)
    assert Renderer(bare, eos=False).render(_pair(messages("Hi")))


@pytest.mark.parametrize(("settings_", "told"), [({"max_length": 8}, "at least 16"), ({"overlong": "drop"}, "cut")])
def test_impossible_settings(settings_: dict, told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        Renderer(toys.tokenizer("gpt2"), **settings_)


# The key


def test_the_key_changes_with_everything_that_changes_ids() -> None:
    def changed(**attributes: object) -> Renderer:
        tokenizer = toys.fresh("chatml")
        for name, value in attributes.items():
            setattr(tokenizer, name, value)
        return Renderer(tokenizer)

    more = toys.fresh("chatml")
    more.add_tokens(["jumps"])
    tokenizer = toys.tokenizer("chatml")
    keys = [
        Renderer(tokenizer).key(),
        Renderer(tokenizer, "plain").key(),
        Renderer(tokenizer, max_length=64).key(),
        Renderer(tokenizer, overlong="error").key(),
        Renderer(tokenizer, eos=False).key(),
        Renderer(tokenizer, options={"enable_thinking": False}).key(),
        Renderer(toys.tokenizer("chatml_noregex")).key(),
        Renderer(more).key(),
        changed(chat_template=toys.CHATML.replace("user", "human") + " ").key(),
        changed(eos_token="<|endoftext|>").key(),
        changed(chat_template=toys.CHATML + "{# #}{{ strftime_now('%S%f') }}").key(),
    ]
    assert len(set(keys)) == len(keys)


def test_the_key_is_that_of_the_content() -> None:
    key = Renderer(toys.tokenizer("chatml")).key()
    again = toys.fresh("chatml")
    again.name_or_path = "elsewhere"
    again(["a", "b c d"], padding=True, truncation=True, max_length=2)  # leaves padding and truncation switched on
    assert Renderer(again).key() == key


def test_a_template_that_prints_the_time_has_a_key_for_each_time() -> None:
    tokenizer = toys.fresh("chatml")
    tokenizer.chat_template = "{{ strftime_now('%H%M%S%f') }}" + toys.CHATML
    renderer = Renderer(tokenizer)
    assert renderer.key() != renderer.key()
