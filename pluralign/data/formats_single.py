"""One response a row: demonstrations to imitate, and responses with a thumb up or down."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import RecordError
from ..records import Demonstration, Labelled, Message, Messages
from .fields import Row, conversation, flag, named, need, single_common, text, with_system
from .format_types import Format, Options

_FRUIT = "Name a fruit."
_OUTPUTS = ("completion", "response", "output")


def _said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _has(row: Row, *names: str) -> bool:
    return all(row.get(name) is not None for name in names)


def _a(row: Row, *names: str) -> bool:
    return any(row.get(name) is not None for name in names)


def split_last(turns: Messages, name: str) -> tuple[Messages, Messages]:
    """(everything before, the assistant's last turns in a row); raises RecordError where somebody else speaks last."""
    end = len(turns)
    while end and turns[end - 1].role == "assistant":
        end -= 1
    if end == len(turns):
        last = f"ends with a {turns[-1].role} turn" if turns else "has no turns"
        raise RecordError(f'"{name}" {last}; the last one must be the assistant\'s.')
    if end == 0:
        raise RecordError(f'"{name}" has no prompt before the assistant\'s turn.')
    return turns[:end], turns[end:]


# --- labelled (KTO) -----------------------------------------------------------------------------------------------


def labelled(row: Row, _: Options) -> Iterator[Labelled]:
    """label (true or false) with prompt and completion, or with messages whose last turn is the response."""
    label = flag(need(row, "label"), "label")
    if _a(row, "messages") and not _a(row, "completion", "response"):
        turns = conversation(row["messages"], "messages", role="user")
        prompt, response = split_last(turns, "messages")
        used: set[str] = {"messages", "label"}
    else:
        name = "completion" if _a(row, "completion") else "response"
        prompt = conversation(need(row, "prompt"), "prompt", role="user")
        response = conversation(need(row, "completion", "response"), name, role="assistant")
        used = {"prompt", name, "label"}
    yield Labelled(prompt=with_system(row, prompt), response=response, label=label, **single_common(row, used))


LABELLED = Format(
    name="labelled",
    title="thumbs up and down",
    describe="prompt and completion (or messages) with a boolean label: KTO",
    needs=("prompt", "completion", "label"),
    recognise=lambda row: (
        _a(row, "label")
        and ((_a(row, "prompt") and _a(row, "completion", "response")) or isinstance(row.get("messages"), list | tuple))
    ),
    read=labelled,
    example=(
        {"prompt": _FRUIT, "completion": "An apple.", "label": True},
        {"messages": [_said("user", _FRUIT), _said("assistant", "A carrot.")], "label": False},
    ),
)


# --- demonstrations -----------------------------------------------------------------------------------------------


def chat(row: Row, _: Options) -> Iterator[Demonstration]:
    """messages ({role, content}) or conversations ({from, value}): the assistant's last turn is the response."""
    name = "messages" if _a(row, "messages") else "conversations"
    turns = conversation(need(row, "messages", "conversations"), name, role="user")
    prompt, response = split_last(turns, name)
    used = {name, *(("prompt",) if _repeats(row.get("prompt"), prompt) else ())}
    yield Demonstration(prompt=with_system(row, prompt), response=response, **single_common(row, used))


def _repeats(prompt: Any, turns: Messages) -> bool:
    return isinstance(prompt, str) and any(turn.content == prompt for turn in turns)


MESSAGES = Format(
    name="messages",
    title="conversations",
    describe="messages ({role, content}) or conversations ({from, value}) that end with the assistant",
    needs=("messages",),
    recognise=lambda row: any(isinstance(row.get(n), list | tuple) for n in ("messages", "conversations")),
    read=chat,
    example=(
        {"messages": [_said("user", _FRUIT), _said("assistant", "An apple.")]},
        {"conversations": [{"from": "human", "value": _FRUIT}, {"from": "gpt", "value": "An apple."}]},
    ),
)


def completion(row: Row, _: Options) -> Iterator[Demonstration]:
    """prompt with completion or response, each as text or as messages."""
    name = "completion" if _a(row, "completion") else "response"
    yield Demonstration(
        prompt=with_system(row, conversation(need(row, "prompt"), "prompt", role="user")),
        response=conversation(need(row, "completion", "response"), name, role="assistant"),
        **single_common(row, {"prompt", name}),
    )


COMPLETION = Format(
    name="completion",
    title="prompt/completion",
    describe="prompt with completion or response, as text or messages",
    needs=("prompt", "completion"),
    recognise=lambda row: _has(row, "prompt") and _a(row, "completion", "response"),
    read=completion,
    example=({"prompt": _FRUIT, "completion": "An apple."},),
)


def alpaca(row: Row, _: Options) -> Iterator[Demonstration]:
    """instruction, input (may be empty: a paragraph of its own), output; history ([[user, assistant], ...]) first."""
    name = "output" if _a(row, "output") else "response"
    output = need(row, "output", "response")
    task, given = text(need(row, "instruction"), "instruction"), row.get("input")
    if given is not None and text(given, "input").strip():
        task = f"{task}\n\n{given}"
    prompt = (*_history(row.get("history")), Message("user", task))
    yield Demonstration(
        prompt=with_system(row, prompt),
        response=conversation(output, name, role="assistant"),
        **single_common(row, {"instruction", "input", "history", name}),
    )


def _history(value: Any) -> Messages:
    turns: list[Message] = []
    if value is None or value == "":
        return ()
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise RecordError(f'expected a list of [user, assistant] turns in "history", found {named(value)}.')
    for i, both in enumerate(value):
        if not isinstance(both, Sequence) or isinstance(both, str | Mapping) or len(both) != 2:
            raise RecordError(f'expected [user, assistant] in "history[{i}]", found {named(both)}.')
        turns += [Message("user", text(both[0], f"history[{i}]")), Message("assistant", text(both[1], f"history[{i}]"))]
    return tuple(turns)


ALPACA = Format(
    name="alpaca",
    title="Alpaca instructions",
    describe="instruction, input (may be empty) and output or response",
    needs=("instruction", "output"),
    recognise=lambda row: isinstance(row.get("instruction"), str) and _a(row, "output", "response"),
    read=alpaca,
    example=({"instruction": "Translate to French.", "input": "apple", "output": "pomme"},),
)

SINGLE = (LABELLED, MESSAGES, COMPLETION, ALPACA)
