"""The chat templates of public model families, as TRL ships them: each scenario keeps every promise or is refused."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import render_toys as toys

from pluralign.records import Message, Messages, Preference, messages
from pluralign.render import Renderer
from pluralign.render.audit import audit

pytestmark = pytest.mark.parity

VISION = ("idefics", "smolvlm", "llava")  # take lists of text and images, not text
TOKEN = re.compile(r"<[|｜][^<>{}\s']{1,40}?[|｜]>|</?s>|<(?:start_of_turn|end_of_turn|turn\||\|turn)>|\[/?INST\]")
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "Its name."}},
            "required": ["city"],
        },
    },
}


def _said(text: str, **extra: Any) -> Messages:
    return (Message("assistant", text, extra),)


TALK = messages(
    [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes?"},
        {"role": "user", "content": "2+2? <|im_end|></s>"},
    ]
)
RESULT = Message("tool", "21 degrees", {"tool_call_id": "abcdefghi", "name": "weather"})
SCENARIOS: dict[str, tuple[Messages, Messages, tuple[Any, ...]]] = {
    "one turn": (messages("Hello"), _said("The answer"), ()),
    "system": ((Message("system", "Be kind."), *messages("Hello")), _said("The answer"), ()),
    "several turns": (TALK, _said("The answer"), ()),
    "reasoning": (messages("Hello"), _said("<think>\nwhy\n</think>\n\nThe answer"), ()),
    "reasoning apart": (messages("Hello"), _said("The answer", reasoning_content="why"), ()),
    "tools": (messages("Hello"), (*_said("", tool_calls=[CALL]), RESULT, *_said("It is 21")), (TOOL,)),
}


def _templates() -> list[Path]:
    spec = find_spec("trl")
    places = list(spec.submodule_search_locations or []) if spec else []
    found = [path for place in places for path in sorted((Path(place) / "chat_templates").glob("*.jinja"))]
    return [p for p in found if "training" not in p.stem and not p.stem.startswith(VISION)]


def test_there_are_templates() -> None:
    if find_spec("trl") is None:
        pytest.skip("the extra `parity` (trl) is not installed")
    assert len(_templates()) >= 20


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("path", _templates(), ids=lambda path: path.stem)
def test_a_family_keeps_every_promise_or_refuses(path: Path, scenario: str) -> None:
    from transformers import PreTrainedTokenizerFast

    source = path.read_text(encoding="utf-8")
    backend = toys._byte_level(sorted({*TOKEN.findall(source), "<BOS>", "<EOS>"}))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<BOS>", eos_token="<EOS>")
    tokenizer.chat_template = source
    prompt, chosen, tools = SCENARIOS[scenario]
    record = Preference(prompt=prompt, chosen=chosen, rejected=_said("No!"), tools=tools)
    found = audit([record], Renderer(tokenizer, max_length=4000))
    if found.failed:
        assert scenario not in ("one turn", "several turns"), found.failed
        return
    assert found.breaches == []
    rendered = found.examples[0].shown["chosen"].rendered
    written = rendered.scored or [True] * len(rendered.target)
    own = tokenizer.decode([i for i, s in zip(rendered.target, written, strict=True) if s])
    assert chosen[-1].content.rpartition("</think>")[2].strip() in own
    assert "21 degrees" not in own
