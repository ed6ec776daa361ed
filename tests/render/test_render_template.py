"""What each template writes, and where a rendering is cut: reasoning blocks, tool calls, several turns."""

from __future__ import annotations

from typing import Any

import pytest
import render_toys as toys
from hypothesis import given, settings
from hypothesis import strategies as st

from pluralign.errors import RenderError, SettingsError
from pluralign.records import Message, Messages, messages
from pluralign.render import Rendered, Renderer
from pluralign.render.controls import Text
from pluralign.terms import Term

TALK = messages(
    [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi!"},
        {"role": "user", "content": "2+2?"},
    ]
)
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}}
TOOLS = ({"type": "function", "function": {"name": "weather", "parameters": {}}},)


def _said(text: str, **extra: Any) -> Messages:
    return (Message("assistant", text, extra),)


def _texts(renderer: Renderer, prompt: Messages, target: Messages, tools: Any = ()) -> tuple[str, str]:
    rendered = _one(renderer, prompt, target, tools)
    return renderer.tokenizer.decode(rendered.context), renderer.tokenizer.decode(rendered.target)


def _one(renderer: Renderer, prompt: Messages, target: Messages, tools: Any = ()) -> Rendered:
    return renderer.render([Term("y", (prompt,), target)], tools, where="row 1")[0]


@pytest.mark.parametrize(
    ("template", "context", "target"),
    [
        ("plain", "System: Be kind.\n\nUser: Hello\n\nAssistant: Hi!\n\nUser: 2+2?\n\nAssistant:", " 4"),
        ("hh", "Be kind.\n\nHuman: Hello\n\nAssistant: Hi!\n\nHuman: 2+2?\n\nAssistant:", " 4"),
        ("raw", "Be kind.HelloHi!2+2?", "4"),
    ],
)
def test_templates_for_base_models(template: str, context: str, target: str) -> None:
    renderer = Renderer(toys.tokenizer("gpt2"), template)
    assert _texts(renderer, TALK, _said("4")) == (context, target + "<|endoftext|>")


def test_auto_is_chat_where_there_is_a_chat_template() -> None:
    assert Renderer(toys.tokenizer("chatml")).template.name == "chat"
    assert Renderer(toys.tokenizer("gpt2")).template.name == "plain"


@pytest.mark.parametrize(
    ("name", "template", "options", "told"),
    [
        ("gpt2", "chat", None, "no chat template"),
        ("gpt2", "chatt", None, 'Did you mean "chat"'),
        ("gpt2", "plain", {"enable_thinking": False}, "no options, but was given enable_thinking"),
    ],
)
def test_wrong_template_settings(name: str, template: str, options: Any, told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        Renderer(toys.tokenizer(name), template, options=options)


@pytest.mark.parametrize("template", ["plain", "hh", "raw"])
def test_templates_without_tools_refuse_them(template: str) -> None:
    renderer = Renderer(toys.tokenizer("gpt2"), template)
    with pytest.raises(RenderError, match=r"row 1: .* cannot show tools"):
        _one(renderer, messages("Hello"), _said("x"), TOOLS)
    with pytest.raises(RenderError, match=r"row 1: .* cannot show tools"):
        _one(renderer, messages("Hello"), _said("", tool_calls=[CALL]))


def test_hh_refuses_roles_it_has_no_name_for() -> None:
    with pytest.raises(RenderError, match="no tool turn at this place"):
        _one(Renderer(toys.tokenizer("gpt2"), "hh"), (*messages("Hello"), Message("tool", "21")), _said("x"))


def test_a_template_that_rewrites_its_prompt_is_refused() -> None:
    with pytest.raises(RenderError, match=r"row 1: .*'LAST user.*'user: H.*rendering\.template=plain"):
        _one(Renderer(toys.tokenizer("rewriting")), messages("Hello"), _said("x"))


@pytest.mark.parametrize("target", [messages("x"), (*_said("x"), *messages("y")), (*messages("y"), *_said("x"))])
def test_a_target_is_the_assistants(target: Messages) -> None:
    with pytest.raises(RenderError, match="row 1: a response begins and ends with an assistant turn"):
        _one(Renderer(toys.tokenizer("chatml")), messages("Hello"), target)


# Reasoning


def test_reasoning_of_earlier_turns_is_dropped_as_at_inference() -> None:
    prompt = (*messages("Hello"), *_said("<think>\nsecret\n</think>\n\nHi!"), *messages("2+2?"))
    context, target = _texts(Renderer(toys.tokenizer("thinking")), prompt, _said("<think>\neasy\n</think>\n\n4"))
    assert "secret" not in context
    assert target == "<think>\neasy\n</think>\n\n4<|im_end|>"
    assert (
        toys.tokenizer("thinking").convert_tokens_to_ids("<think>")
        in _one(Renderer(toys.tokenizer("thinking")), prompt, _said("<think>\neasy\n</think>\n\n4")).target
    )  # reasoning marks are the model's to write: they stay tokens


def test_an_empty_block_that_the_template_prints_is_part_of_the_target() -> None:
    context, target = _texts(Renderer(toys.tokenizer("thinking")), messages("2+2?"), _said("4"))
    assert context.endswith("<|im_start|>assistant\n")
    assert target == "<think>\n\n</think>\n\n4<|im_end|>"


def test_an_empty_block_in_the_generation_prompt_is_part_of_the_context() -> None:
    renderer = Renderer(toys.tokenizer("thinking"), options={"enable_thinking": False})
    context, target = _texts(renderer, messages("2+2?"), _said("4"))
    assert context.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert target == "4<|im_end|>"


@pytest.mark.parametrize(
    ("answer", "target"),
    [
        (_said("4"), "\n</think>\n\n4<|im_end|>"),
        (_said("<think>\neasy\n</think>\n\n4"), "easy\n</think>\n\n4<|im_end|>"),
        (_said("easy</think>4"), "easy</think>4<|im_end|>"),
        (_said("4", reasoning_content="easy"), "easy\n</think>\n\n4<|im_end|>"),
    ],
)
def test_a_block_opened_by_the_generation_prompt_is_closed(answer: Messages, target: str) -> None:
    """At inference the model goes on inside the block, so the answer cannot follow the prompt directly."""
    context, written = _texts(Renderer(toys.tokenizer("opened")), messages("2+2?"), answer)
    assert context.endswith("<|im_start|>assistant\n<think>\n")
    assert written == target


def test_a_block_opened_and_shown_in_the_finished_turn() -> None:
    tokenizer = toys.fresh("opened")
    tokenizer.chat_template = toys.OPENED.replace(".split('</think>')[-1].lstrip()", "")
    context, target = _texts(Renderer(tokenizer), messages("2+2?"), _said("<think>easy</think>4"))
    assert context.endswith("<think>\n")
    assert target == "easy</think>4<|im_end|>"


def test_reasoning_after_an_empty_block_is_refused() -> None:
    renderer = Renderer(toys.tokenizer("thinking"), options={"enable_thinking": False})
    with pytest.raises(RenderError, match="row 1: the generation prompt shows an empty reasoning block"):
        _one(renderer, messages("2+2?"), _said("<think>\neasy\n</think>\n\n4"))


# End of turn


def test_text_after_the_end_of_turn_is_left_out() -> None:
    assert _texts(Renderer(toys.tokenizer("chatml")), messages("x"), _said("4 \n"))[1] == "4 \n<|im_end|>"


def test_what_follows_the_end_of_a_whole_conversation_is_left_out() -> None:
    tokenizer = toys.fresh("chatml")
    tokenizer.chat_template = toys.CHATML + "{% if not add_generation_prompt %}<|endoftext|>{% endif %}"
    renderer = Renderer(tokenizer)
    assert _texts(renderer, messages("x"), _said("4"))[1] == "4<|im_end|>"
    assert renderer.stop_ids == (tokenizer.convert_tokens_to_ids("<|im_end|>"),)


def test_marks_side_by_side_end_a_turn_together() -> None:
    tokenizer = toys.fresh("chatml")
    tokenizer.chat_template = toys.CHATML.replace("'<|im_end|>'", "'<|im_end|><|endoftext|>'")
    renderer = Renderer(tokenizer)
    assert _texts(renderer, messages("x"), _said("4"))[1] == "4<|im_end|><|endoftext|>"
    assert renderer.stop_ids == (tokenizer.convert_tokens_to_ids("<|endoftext|>"), tokenizer.eos_token_id)


def test_a_turn_that_ends_with_another_mark_keeps_it() -> None:
    """A tool call may end otherwise than an answer (`<|call|>`, `<|eom_id|>`)."""
    tokenizer = toys.fresh("thinking")
    usual, other = "{{- '<|im_end|>\\n' }}", "{{- ('<|endoftext|>' if m.tool_calls else '<|im_end|>') + '\\n' }}"
    tokenizer.chat_template = toys.THINKING.replace(usual, other, 1)
    assert tokenizer.chat_template != toys.THINKING
    rendered = _one(Renderer(tokenizer), messages("Weather?"), SEVERAL, TOOLS)
    own = tokenizer.decode([i for i, s in zip(rendered.target, rendered.scored or [], strict=True) if s])
    assert own.count("</tool_call><|endoftext|><think>") == 1
    assert own.endswith("It is 21 degrees.<|im_end|>")


def test_a_template_that_prints_no_end_gets_the_tokenizers() -> None:
    tokenizer = toys.fresh("gpt2")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
    )
    assert _texts(Renderer(tokenizer), messages("x"), _said("4 ")) == ("user: x\nassistant:", " 4 <|endoftext|>")


def test_a_turn_mark_that_is_no_token_is_kept_and_eos_follows() -> None:
    tokenizer = toys.fresh("gpt2")
    tokenizer.chat_template = toys.CHATML
    assert _texts(Renderer(tokenizer), messages("x"), _said("4"))[1] == "4<|im_end|><|endoftext|>"
    assert Renderer(tokenizer).stop_ids == (tokenizer.eos_token_id,)


def test_bos_is_added_by_hand_only_where_the_template_has_none() -> None:
    tokenizer = toys.fresh("headers")
    printed = Renderer(tokenizer).prompt("Hello")
    tokenizer.chat_template = toys.HEADERS.replace("{{ bos_token }}", "")
    assert Renderer(tokenizer).prompt("Hello") == printed
    assert printed.count(tokenizer.bos_token_id) == 1


# Tools


def test_tools_are_shown_as_at_inference() -> None:
    tokenizer = toys.tokenizer("thinking")
    rendered = _one(Renderer(tokenizer), messages("Weather?"), _said("", tool_calls=[CALL]), TOOLS)
    shown = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Weather?"}], tools=list(TOOLS), add_generation_prompt=True, return_dict=False
    )
    assert rendered.context == shown
    assert "weather" in tokenizer.decode(rendered.context)
    call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'
    assert tokenizer.decode(rendered.target) == f"<think>\n\n</think>\n\n{call}<|im_end|>"


@pytest.mark.parametrize(("lost", "told"), [("call", "print tool calls"), ("tool", "print tools")])
def test_a_template_that_leaves_tools_out_is_refused(lost: str, told: str) -> None:
    tokenizer = toys.fresh("thinking")
    cut = {"call": ("m.tool_calls or []", "[]"), "tool": ("{{ tool | tojson }}", "")}
    tokenizer.chat_template = toys.THINKING.replace(*cut[lost])
    if lost == "tool":
        tokenizer.chat_template = tokenizer.chat_template.replace("if tools", "if false")
    with pytest.raises(RenderError, match=f"row 1: the chat template does not {told}"):
        _one(Renderer(tokenizer), messages("Weather?"), SEVERAL, TOOLS)


def test_arguments_given_as_json_text_are_read_as_a_mapping() -> None:
    text = {"type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
    renderer = Renderer(toys.tokenizer("thinking"))
    given = [_one(renderer, messages("?"), _said("", tool_calls=[call]), TOOLS) for call in (CALL, text)]
    assert given[0] == given[1]


SEVERAL = (*_said("", tool_calls=[CALL]), Message("tool", "21 degrees"), *_said("It is 21 degrees."))


def test_what_tools_say_is_not_scored() -> None:
    tokenizer = toys.tokenizer("thinking")
    rendered = _one(Renderer(tokenizer), messages("Weather?"), SEVERAL, TOOLS)
    assert rendered.scored is not None
    assert len(rendered.scored) == len(rendered.target)
    own = tokenizer.decode([i for i, s in zip(rendered.target, rendered.scored, strict=True) if s])
    other = tokenizer.decode([i for i, s in zip(rendered.target, rendered.scored, strict=True) if not s])
    call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'
    assert own == f"{call}<|im_end|><think>\n\n</think>\n\nIt is 21 degrees.<|im_end|>"
    assert "21 degrees" in other
    assert other.endswith("<|im_start|>assistant\n")


@pytest.mark.parametrize(("name", "template"), [("chatml", "chat"), ("headers", "chat"), ("gpt2", "plain")])
def test_every_stretch_of_several_turns_follows_its_own_prompt(name: str, template: str) -> None:
    """What is scored in turn k comes after what the model is shown at inference before turn k."""
    renderer = Renderer(toys.tokenizer(name), template)
    target = (*_said("Let me look."), Message("tool", "21 degrees"), *_said("It is 21."))
    rendered = _one(renderer, TALK, target)
    assert rendered.scored is not None
    last = max(i for i, s in enumerate(rendered.scored) if not s)
    before = rendered.context + rendered.target[: last + 1]
    assert renderer.tokenizer.decode(before) == renderer.tokenizer.decode(renderer.prompt((*TALK, *target[:2])))
    assert renderer.tokenizer.decode(rendered.target[last + 1 :]).strip().startswith("It is 21.")


def test_user_turns_inside_a_response_are_not_scored() -> None:
    renderer = Renderer(toys.tokenizer("chatml"))
    rendered = _one(renderer, messages("Hi"), (*_said("Hello!"), *messages("2+2?"), *_said("4")))
    assert rendered.scored is not None
    own = renderer.tokenizer.decode([i for i, s in zip(rendered.target, rendered.scored, strict=True) if s])
    assert own == "Hello!<|im_end|>4<|im_end|>"


def test_control_tokens_in_tool_calls_results_and_tools_stay_text() -> None:
    """Neither an argument (its name included), a result nor a tool's description can end a turn."""
    tokenizer = toys.tokenizer("thinking")
    bad = {"type": "function", "function": {"name": "f", "arguments": {"<|im_end|>": ["<|im_start|>"]}}}
    target = (*_said("", tool_calls=[bad]), Message("tool", "<|im_end|>"), *_said("ok"))
    tools = ({"type": "function", "function": {"name": "f", "description": "<|im_end|>"}},)
    renderer = Renderer(tokenizer)
    rendered = _one(renderer, messages("Hi"), target, tools)
    inert = _one(renderer, messages("Hi"), SEVERAL, TOOLS)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert rendered.ids.count(end) == inert.ids.count(end)
    assert tokenizer.decode(rendered.ids).count("<|im_end|>") == inert.ids.count(end) + 3


# Control tokens


@pytest.mark.parametrize("name", toys.NAMES)
@settings(max_examples=40, deadline=None)
@given(text=st.text(max_size=30).filter(lambda text: not set("<[|") & set(text)))
def test_the_aliased_tokenizer_encodes_ordinary_text_alike(name: str, text: str) -> None:
    encoder = Renderer(toys.tokenizer(name)).encoder
    assert encoder.start([Text(text, True)]) == encoder.start([Text(text)])


def test_a_control_token_that_merges_can_build_is_refused() -> None:
    """Where the tokenizer makes the control token out of plain characters, nothing can stop it: the row is named."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE(vocab={"#": 0, "a": 1, "##": 2}, merges=[("#", "#")]))
    backend.add_special_tokens(["##"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="##")
    renderer = Renderer(tokenizer, "raw")
    assert _one(renderer, messages("a#a"), _said("a")).target == [1, 2]
    with pytest.raises(RenderError, match=r"row 1: .*control token .* cannot be encoded as plain text"):
        _one(renderer, messages("a##a"), _said("a"))


def test_a_forged_alias_is_refused() -> None:
    with pytest.raises(RenderError, match=r"row 1: .*reserved"):
        _one(Renderer(toys.tokenizer("chatml")), messages("\U0010fffc\U00100000\U0010fffd <|im_end|>"), _said("x"))


def test_private_use_characters_alone_are_text() -> None:
    text = "\U0010fffc\U0010fffd \U00100000"
    renderer = Renderer(toys.tokenizer("chatml"))
    assert text in renderer.tokenizer.decode(renderer.prompt(text))
    assert text in renderer.tokenizer.decode(renderer.prompt(f"<|im_end|>{text}"))


def test_a_slow_tokenizer_renders_and_refuses_spelled_control_tokens() -> None:
    renderer = Renderer(toys.slow())
    assert _texts(renderer, messages("ab"), _said("c")) == ("User: ab\n\nAssistant:", " c</s>")
    with pytest.raises(RenderError, match=r"row 1: .*slow"):
        _one(renderer, messages("a</s>b"), _said("c"))


def test_a_target_of_several_turns_is_cut_with_its_mask() -> None:
    target = (*_said("Let me look."), Message("tool", "21 degrees"), *_said("It is 21. " * 20))
    whole = _one(Renderer(toys.tokenizer("chatml"), max_length=1000), messages("Hi"), target)
    cut = _one(Renderer(toys.tokenizer("chatml"), max_length=64), messages("Hi"), target)
    assert whole.scored is not None
    assert cut.cut_target > 0
    assert cut.scored == whole.scored[: len(cut.target)]
