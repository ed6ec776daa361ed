"""The typed rows that everything else works on. Imports nothing of ours but the errors.

A record is plain, frozen data: a prompt (messages), responses (messages) and what people said of them. `attributes` are
named scores of a response in the data's own units; one that is not known is None or absent, never zero.
`validate()` returns the record or raises `RecordError` with the reason; sources add the file and the line.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from .errors import RecordError

__all__ = [
    "Demonstration",
    "Labelled",
    "Message",
    "Messages",
    "Preference",
    "Ranked",
    "Record",
    "messages",
    "to_row",
]

ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `extra` keeps what chat templates know besides the text (tool_calls, tool_call_id, name, ...)."""

    role: str
    content: str
    extra: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {"role": self.role, "content": self.content, **self.extra}

    @property
    def is_empty(self) -> bool:
        return not self.content.strip() and not self.extra.get("tool_calls")


Messages = tuple[Message, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What every record has: the prompt, and who and where it came from.

    `intent` is what the prompt is after, in words (A-IPO), where that is known; `x_con` the checked knowledge that goes
    with it: its decomposition and what was retrieved for it.
    """

    prompt: Messages
    tools: tuple[Mapping[str, Any], ...] = ()
    source: str = ""
    group: str | None = None
    user: str | None = None
    intent: str | None = None
    x_con: str = ""
    weight: float = 1.0
    meta: Mapping[str, Any] = field(default_factory=dict)
    where: str = field(default="", compare=False)  # file:line it was read from, for messages; no part of the record

    def validate(self) -> Record:
        if not self.prompt:
            raise RecordError("the prompt is empty.")
        if all(m.is_empty for m in self.prompt):
            raise RecordError("the prompt has no text.")
        _check_roles("prompt", self.prompt)
        if not self.weight >= 0 or self.weight == float("inf"):
            raise RecordError(f"weight must be a finite number >= 0, not {self.weight}.")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstration(Record):
    """A prompt with one response to imitate (SFT). `alternative`: another response to it, where one is known."""

    response: Messages
    alternative: Messages = ()
    attributes: Mapping[str, float] = field(default_factory=dict)  # those that are known

    def validate(self) -> Demonstration:
        Record.validate(self)
        _check_response("response", self.response)
        _check_known(self.attributes)
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference(Record):
    """A pair: `chosen` was preferred to `rejected`, by `margin` where one is known (in the data's own units)."""

    chosen: Messages
    rejected: Messages
    margin: float | None = None
    attributes: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)  # (chosen, rejected)

    def validate(self) -> Preference:
        Record.validate(self)
        _check_response("chosen", self.chosen)
        _check_response("rejected", self.rejected)
        if self.chosen == self.rejected:
            raise RecordError('"chosen" equals "rejected".')
        _check_attributes(self.attributes, 2)
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled(Record):
    """One response with a thumb up (`label=True`) or down: unpaired, KTO style. `alternative`: the other response of
    the pair it comes from, where it comes from one."""

    response: Messages
    label: bool
    alternative: Messages = ()
    attributes: Mapping[str, float] = field(default_factory=dict)  # those that are known

    def validate(self) -> Labelled:
        Record.validate(self)
        _check_response("completion", self.response)
        _check_known(self.attributes)
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked(Record):
    """Two or more responses with one score each (higher is better, ties legal): `scores` is their order."""

    responses: tuple[Messages, ...]
    scores: tuple[float, ...]
    attributes: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)  # one entry per response

    def validate(self) -> Ranked:
        Record.validate(self)
        if len(self.responses) < 2:
            raise RecordError(f"a ranking needs at least two responses, found {len(self.responses)}.")
        if len(self.responses) != len(self.scores):
            raise RecordError(f"{len(self.responses)} responses but {len(self.scores)} scores.")
        for i, response in enumerate(self.responses):
            _check_response(f"responses[{i}]", response)
        if any(s != s or s in (float("inf"), float("-inf")) for s in self.scores):
            raise RecordError("a score is not a finite number.")
        _check_attributes(self.attributes, len(self.responses))
        return self


def messages(turns: str | Sequence[Any], *, role: str = "user") -> Messages:
    """Messages from a string (one turn of `role`) or a list of {"role", "content", ...} mappings.

    Raises RecordError where a turn has no role or its content is no text.
    """
    if isinstance(turns, str):
        return (Message(role, turns),)
    if not isinstance(turns, Sequence):
        raise RecordError(f"expected text or a list of messages, found {type(turns).__name__}.")
    return tuple(_message(i, turn) for i, turn in enumerate(turns))


def _message(index: int, turn: Any) -> Message:
    if isinstance(turn, Message):
        return turn
    if not isinstance(turn, Mapping) or "role" not in turn:
        raise RecordError(f'message {index} is not a mapping with "role" and "content".')
    content = turn.get("content")
    if content is None and turn.get("tool_calls"):
        content = ""
    if not isinstance(content, str):
        raise RecordError(f"message {index} ({turn['role']}) has no text content.")
    extra = {k: v for k, v in turn.items() if k not in ("role", "content") and v is not None}
    return Message(str(turn["role"]), content, extra)


def _check_roles(name: str, turns: Messages) -> None:
    for i, turn in enumerate(turns):
        if turn.role not in ROLES:
            raise RecordError(f'"{name}" turn {i} has the unknown role "{turn.role}" (known: {", ".join(ROLES)}).')


def _check_response(name: str, turns: Messages) -> None:
    if not turns or all(t.is_empty for t in turns):
        raise RecordError(f'"{name}" is empty.')
    _check_roles(name, turns)


def _check_attributes(attributes: Mapping[str, Sequence[float | None]], responses: int) -> None:
    for name, values in attributes.items():
        if len(values) != responses:
            raise RecordError(f'attribute "{name}" has {len(values)} entries for {responses} responses.')
        _check_values(name, (value for value in values if value is not None))


def _check_known(attributes: Mapping[str, float]) -> None:
    for name, value in attributes.items():
        _check_values(name, (value,))


def _check_values(name: str, values: Iterable[float]) -> None:
    if not isinstance(name, str) or not name.strip():
        raise RecordError("an attribute has no name.")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise RecordError(f'attribute "{name}" is {value!r}: expected a number.')
        if not math.isfinite(value):
            raise RecordError(f'attribute "{name}" is {value}, not a finite number.')


def to_row(record: Record) -> dict[str, Any]:
    """A JSON-ready mapping that the native format reads back (messages as role/content lists, defaults left out).

    `row["record"]` names the kind, so that reading back never has to guess.
    """
    row: dict[str, Any] = {"record": type(record).__name__.lower()}
    for f in fields(record):
        if not f.compare:
            continue
        value = getattr(record, f.name)
        if f.name in ("prompt", "chosen", "rejected", "response") or (f.name == "alternative" and value):
            row[f.name] = [m.as_dict() for m in value]
        elif f.name == "responses":
            row[f.name] = [[m.as_dict() for m in response] for response in value]
        elif value not in (None, "", (), {}) and not (f.name == "weight" and value == 1.0):
            row[f.name] = dict(value) if isinstance(value, Mapping) else value
    return row
