"""Templates: how turns become one text.

`chat`   the tokenizer's own chat template, exactly as at inference;
`plain`  a transcript for base models: "System: ...", "User: ...", "Assistant: ...", "Tool: ..." with a blank line
         between the turns; the prompt ends with "Assistant:" and a response begins with one space;
`hh`     the transcript of the HH-RLHF data: every turn opens with a blank line and "Human:" or "Assistant:",
         system text stands before the first turn;
`raw`    the contents one after another without any marker, for plain text continuation;
`auto`   `chat` where the tokenizer has a chat template, else `plain`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import RenderError, SettingsError, nearest
from ..records import Message, Messages

__all__ = ["NAMES", "Template", "resolve"]

NAMES = ("auto", "chat", "plain", "hh", "raw")

Tools = Sequence[Mapping[str, Any]]
Write = Callable[[Messages, Tools, bool], str]

PLAIN = {"system": "System", "user": "User", "assistant": "Assistant", "tool": "Tool"}
HH = {"user": "Human", "assistant": "Assistant"}


@dataclass(frozen=True, slots=True)
class Template:
    """A named way to write turns. `write(turns, tools, generation)` returns the text; with `generation` the text
    ends where the model starts to write. `source` is everything that decides what is written."""

    name: str
    write: Write
    source: str


def resolve(name: str, tokenizer: Any, options: Mapping[str, Any] | None = None) -> Template:
    """The template called `name` for `tokenizer`. `options` are passed to a chat template (`enable_thinking`, ...).

    Raises SettingsError for an unknown name, for `chat` without a chat template, and for options that nobody reads.
    """
    options = dict(options or {})
    if name not in NAMES:
        raise SettingsError(
            f'unknown template "{name}" (known: {", ".join(NAMES)}).{nearest(name, NAMES)}',
            remedy="Set rendering.template.",
        )
    has_chat = bool(getattr(tokenizer, "chat_template", None))
    if name == "auto":
        name = "chat" if has_chat else "plain"
    if name == "chat":
        if not has_chat:
            raise SettingsError(
                "the tokenizer has no chat template.",
                remedy="Set rendering.template=plain, or rendering.template=auto to choose by model.",
            )
        return _chat(tokenizer, options)
    if options:
        raise SettingsError(
            f'the template "{name}" has no options, but was given {", ".join(sorted(options))}.',
            remedy="Only a chat template reads rendering.options.",
        )
    write = {"plain": _write_plain, "hh": _write_hh, "raw": _write_raw}[name]
    return Template(name, write, name)


def _chat(tokenizer: Any, options: dict[str, Any]) -> Template:
    from jinja2.exceptions import TemplateError

    def write(turns: Messages, tools: Tools, generation: bool) -> str:
        rows = [_for_chat(turn) for turn in turns]
        text = render(rows, tools, generation)
        if tools and text == render(rows, (), generation):
            raise _unprinted("tools")
        if any("tool_calls" in row for row in rows):
            silent = [{k: v for k, v in row.items() if k != "tool_calls"} for row in rows]
            try:
                same = text == render(silent, tools, generation)
            except RenderError:  # the template misses the calls: it reads them
                same = False
            if same:
                raise _unprinted("tool calls")
        return text

    def render(rows: list[dict[str, Any]], tools: Tools, generation: bool) -> str:
        try:
            return tokenizer.apply_chat_template(
                rows, tools=list(tools) or None, add_generation_prompt=generation, tokenize=False, **options
            )
        except (TemplateError, TypeError, ValueError, KeyError, AttributeError) as error:
            reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
            raise RenderError(
                f"the chat template refuses this conversation ({', '.join(row['role'] for row in rows)}): {reason}.",
                remedy="Change the turns, or set rendering.template=plain.",
            ) from error

    source = json.dumps([tokenizer.chat_template, options], sort_keys=True, default=str, ensure_ascii=False)
    return Template("chat", write, source)


def _unprinted(what: str) -> RenderError:
    """Some templates leave tools or tool calls out without a word; such a text is not what the record says."""
    return RenderError(
        f"the chat template does not print {what}.",
        remedy="Use a model whose template shows them, or remove them from the row.",
    )


def _for_chat(turn: Message) -> dict[str, Any]:
    """The turn as chat templates read it: tool calls whose arguments came as a JSON text are given as a mapping."""
    row = turn.as_dict()
    calls = row.get("tool_calls")
    if calls:
        row["tool_calls"] = [_call(call) for call in calls]
    return row


def _call(call: Any) -> Any:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"])
    except ValueError:
        return call
    if not isinstance(arguments, dict):
        return call
    return {**call, "function": {**function, "arguments": arguments}}


def _refuse_tools(name: str, turns: Messages, tools: Tools) -> None:
    if tools or any(turn.extra.get("tool_calls") for turn in turns):
        raise RenderError(
            f'the template "{name}" cannot show tools or tool calls.',
            remedy="Use a model with a chat template (rendering.template=chat), or remove them from the row.",
        )


def _write_plain(turns: Messages, tools: Tools, generation: bool) -> str:
    _refuse_tools("plain", turns, tools)
    blocks = [f"{PLAIN[turn.role]}: {turn.content}" for turn in turns]
    return "\n\n".join([*blocks, "Assistant:"] if generation else blocks)


def _write_hh(turns: Messages, tools: Tools, generation: bool) -> str:
    _refuse_tools("hh", turns, tools)
    text = ""
    for i, turn in enumerate(turns):
        if turn.role == "system" and i == 0:
            text += turn.content
        elif turn.role in HH:
            text += f"\n\n{HH[turn.role]}: {turn.content}"
        else:
            raise RenderError(
                f'the template "hh" has no {turn.role} turn at this place (turn {i}).',
                remedy="Set rendering.template=plain.",
            )
    return text + "\n\nAssistant:" if generation else text


def _write_raw(turns: Messages, tools: Tools, generation: bool) -> str:
    _refuse_tools("raw", turns, tools)
    return "".join(turn.content for turn in turns)
