"""Reading single fields of a row: text, numbers, flags, conversations, tools, and the columns every format knows.

Every function raises RecordError with the field's name where the value is not what it should be; nothing is guessed.
A value of None counts as absent (Parquet and CSV have no other way to say so). NaN is an error where it is read.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..errors import RecordError
from ..records import Message, Messages

Row = Mapping[str, Any]

ROLE_NAMES = {
    "human": "user",
    "prompter": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "observation": "tool",
    "function": "tool",
    "function_response": "tool",
    "ipython": "tool",
    "developer": "system",
}
SCORE_COLUMNS = (
    ("score_chosen", "score_rejected"),
    ("chosen_score", "rejected_score"),
    ("chosen_rating", "rejected_rating"),
    ("chosen-rating", "rejected-rating"),
)
NAMED = ("source", "group", "user", "intent", "x_con")  # words about a record
COMMON = ("tools", *NAMED, "weight")
SCORE_NAMES = frozenset(name for pair in SCORE_COLUMNS for name in pair)
PAIR_COMMON = ("margin", "scores", "attributes", *SCORE_NAMES)


def named(value: Any) -> str:
    """The type of a value in the words of a JSON file."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, Sequence):
        return "a list"
    return type(value).__name__


def need(row: Row, *names: str) -> Any:
    """The first of `names` that the row has; raises RecordError listing what it has instead."""
    for name in names:
        value = row.get(name)
        if value is not None:
            return value
    wanted = " or ".join(f'"{n}"' for n in names)
    found = ", ".join(map(str, row)) or "none"
    raise RecordError(f"no field {wanted} (fields found: {shortened(found)}).")


def shortened(text: str, limit: int = 200) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def one_line(message: str) -> str:
    """The message with control characters and half characters escaped: a damaged name must not break a terminal."""
    return _UNPRINTABLE.sub(lambda found: found.group().encode("unicode_escape").decode(), message)


def text(value: Any, name: str) -> str:
    """The value itself where it is proper Unicode text."""
    if not isinstance(value, str):
        raise RecordError(f'expected text in "{name}", found {named(value)}.')
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            code = ord(value[error.start])
            what = (
                f"byte 0x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"half a surrogate pair, \\u{code:04x}"
            )
            raise RecordError(f'"{name}" is not valid UTF-8 text ({what}).') from None
    return value


def number(value: Any, name: str) -> float:
    """A finite float from a number or from text that spells one (CSV knows nothing else)."""
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise TypeError
        result = float(value)
    except (TypeError, ValueError, OverflowError):
        raise RecordError(f'expected a number in "{name}", found {shortened(repr(value), 40)}.') from None
    if not math.isfinite(result):
        raise RecordError(f'"{name}" is {result}, not a finite number.')
    return result


def optional_number(row: Row, name: str) -> float | None:
    value = row.get(name)
    return None if value is None or value == "" else number(value, name)


def flag(value: Any, name: str) -> bool:
    """True or False from a boolean, 0/1 or a word for either."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if isinstance(value, str) and value.strip().lower() in words:
        return words[value.strip().lower()]
    raise RecordError(f'expected true or false in "{name}", found {shortened(repr(value), 40)}.')


def conversation(value: Any, name: str, *, role: str) -> Messages:
    """Messages from text (one turn of `role`), one message, or a list of {role, content} or {from, value} messages."""
    if isinstance(value, str):
        return (Message(role, text(value, name)),)
    if isinstance(value, Mapping):
        return (_message(value, name),)
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return tuple(_message(turn, f"{name}[{i}]") for i, turn in enumerate(value))
    raise RecordError(f'expected text or a list of messages in "{name}", found {named(value)}.')


def _message(turn: Any, name: str) -> Message:
    if not isinstance(turn, Mapping):
        raise RecordError(f'expected a message with "role" and "content" in "{name}", found {named(turn)}.')
    said = turn.get("role", turn.get("from"))
    if said is None:
        raise RecordError(f'the message "{name}" has no "role" (fields found: {", ".join(map(str, turn)) or "none"}).')
    said = text(said, f"{name}.role")
    extra = {k: v for k, v in turn.items() if k not in ("role", "content", "from", "value") and v is not None}
    content = turn.get("content", turn.get("value"))
    if said == "function_call":
        return Message("assistant", "", {**extra, "tool_calls": _calls(content, name)})
    if content is None and extra.get("tool_calls"):
        content = ""
    if isinstance(content, Sequence) and not isinstance(content, str | bytes):
        content = _parts(content, name)
    return Message(ROLE_NAMES.get(said, said), text(content, f"{name}.content"), extra)


def _parts(parts: Sequence[Any], name: str) -> str:
    """The text of content given as typed parts; anything but text is refused, not dropped."""
    found = []
    for part in parts:
        if not isinstance(part, Mapping) or part.get("type") != "text":
            kind = part.get("type") if isinstance(part, Mapping) else named(part)
            raise RecordError(f'expected text in "{name}.content", found a part of type {kind}.')
        found.append(text(part.get("text"), f"{name}.content"))
    return "".join(found)


def _calls(value: Any, name: str) -> list[dict[str, Any]]:
    """ShareGPT keeps a call as the JSON text of {"name", "arguments"} (or a list of them)."""
    try:
        calls = json.loads(text(value, name))
    except (ValueError, RecursionError):
        raise RecordError(f'the function call in "{name}" is not JSON.') from None
    calls = calls if isinstance(calls, list) else [calls]
    if not calls or not all(isinstance(c, Mapping) and "name" in c for c in calls):
        raise RecordError(f'the function call in "{name}" has no "name".')
    return [{"type": "function", "function": dict(call)} for call in calls]


def with_system(row: Row, prompt: Messages) -> Messages:
    """The prompt with the row's `system` column, where it has one, as its first turn."""
    system = row.get("system")
    if system is None or system == "" or (prompt and prompt[0] == Message("system", system)):
        return prompt
    if prompt and prompt[0].role == "system":
        raise RecordError('the "system" column and the system turn of the conversation differ.')
    return (Message("system", text(system, "system")), *prompt)


def parse_tools(value: Any) -> tuple[Mapping[str, Any], ...]:
    """Tool schemas from a list, or from the JSON text of one."""
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(text(value, "tools"))
        except (ValueError, RecursionError):
            raise RecordError('"tools" is text but not JSON.') from None
    if value is None or value == "" or value == []:
        return ()
    value = [value] if isinstance(value, Mapping) else value
    if not isinstance(value, Sequence) or isinstance(value, str) or not all(isinstance(t, Mapping) for t in value):
        raise RecordError(f'expected a list of tool schemas in "tools", found {named(value)}.')
    return tuple(dict(tool) for tool in value)


def common(row: Row, used: Iterable[str]) -> dict[str, Any]:
    """Keyword arguments for any record: tools, words about it, weight, and the rest of the row as meta."""
    taken = {*used, "system"}
    kept: dict[str, Any] = {}
    if row.get("tools") is not None:
        kept["tools"] = parse_tools(row["tools"])
    for name in NAMED:
        value = row.get(name)
        if value is not None and value != "":
            kept[name] = _word(value, name)
    weight = optional_number(row, "weight")
    if weight is not None:
        kept["weight"] = weight
    meta = {k: v for k, v in row.items() if k not in taken and k not in COMMON and v is not None}
    return {**kept, "meta": meta} if meta else kept


def _word(value: Any, name: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return text(value, name)


def single_common(row: Row, used: Iterable[str]) -> dict[str, Any]:
    """`common`, and the attribute scores of the one response of the row."""
    return {**common(row, {*used, "attributes"}), "attributes": known_attributes(row.get("attributes"))}


def pair_common(row: Row, used: Iterable[str]) -> dict[str, Any]:
    """`common`, and what pairs know besides: margin and attribute scores (chosen, rejected).

    Score columns are read from the row or from its `metadata`. Without a `margin` their difference is the margin.
    """
    kept = common(row, {*used, *PAIR_COMMON})
    attributes = many_attributes(row.get("scores"), "scores", 2)
    for name, both in many_attributes(row.get("attributes"), "attributes", 2).items():
        if attributes.setdefault(name, both) != both:
            raise RecordError(f'"scores" and "attributes" differ in "{name}".')
    margin = optional_number(row, "margin")
    nested = row.get("metadata")
    for place in (row, nested if isinstance(nested, Mapping) else {}):
        for names in () if SCORE_NAMES.isdisjoint(place) else SCORE_COLUMNS:
            better, worse = (optional_number(place, name) for name in names)
            if better is not None and worse is not None:
                attributes.setdefault("score", (better, worse))
    chosen, rejected = attributes.get("score", (None, None))
    if margin is None and chosen is not None and rejected is not None:
        margin = chosen - rejected
    return {**kept, "margin": margin, "attributes": attributes}


def known_attributes(value: Any, name: str = "attributes") -> dict[str, float]:
    """{attribute: score} of one response; scores that are null are left out."""
    return {a: number(v, f"{name}.{a}") for a, v in _attributes(value, name, "score") if v is not None}


def many_attributes(value: Any, name: str, responses: int) -> dict[str, Any]:
    """{attribute: [score, ...]} as tuples with a number or None per response; attributes without any are left out."""
    form = "[chosen, rejected]" if responses == 2 else "[scores]"
    found = {}
    for attribute, scores in _attributes(value, name, form):
        where = f"{name}.{attribute}"
        if scores is None:
            continue
        if not isinstance(scores, Sequence) or isinstance(scores, str | bytes):
            raise RecordError(f'expected a list of numbers in "{where}", found {named(scores)}.')
        if len(scores) != responses:
            raise RecordError(f'"{where}" has {len(scores)} entries for {responses} responses.')
        values = tuple(None if s is None else number(s, f"{where}[{i}]") for i, s in enumerate(scores))
        if any(v is not None for v in values):
            found[attribute] = values
    return found


def _attributes(value: Any, name: str, form: str) -> Iterator[tuple[str, Any]]:
    if value is None or value == "":
        return
    if not isinstance(value, Mapping):
        raise RecordError(f'expected {{attribute: {form}}} in "{name}", found {named(value)}.')
    for attribute, score in value.items():
        yield text(attribute, name), score
