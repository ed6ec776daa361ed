"""Our own rows: what `records.to_row` writes, read back exactly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import RecordError
from ..records import Demonstration, Labelled, Message, Messages, Preference, Ranked, Record
from .fields import NAMED, Row, flag, known_attributes, many_attributes, named, need, number, parse_tools, text
from .format_types import Format, Options

KINDS: dict[str, type[Record]] = {k.__name__.lower(): k for k in (Demonstration, Preference, Labelled, Ranked)}
_FIELDS = {
    "demonstration": ("response", "alternative", "attributes"),
    "preference": ("chosen", "rejected", "margin", "attributes"),
    "labelled": ("response", "label", "alternative", "attributes"),
    "ranked": ("responses", "scores", "attributes"),
}
_EVERY = ("record", "prompt", "tools", *NAMED, "weight", "meta")


def is_native(row: Row) -> bool:
    return isinstance(row.get("record"), str) and row["record"] in KINDS and isinstance(row.get("prompt"), list)


def native(row: Row, _: Options) -> Iterator[Record]:
    """The record that `records.to_row` turned into this row; fields that no record has are an error."""
    yield from_row(row)


def from_row(row: Row) -> Record:
    """The inverse of `records.to_row`. Raises RecordError for a missing, mistyped or unknown field."""
    kind = need(row, "record")
    if not isinstance(kind, str) or kind not in KINDS:
        raise RecordError(f'expected one of {", ".join(KINDS)} in "record", found {kind!r}.')
    row = _renewed(row, kind)
    unknown = [name for name in row if name not in _EVERY and name not in _FIELDS[kind]]
    if unknown:
        raise RecordError(f'a {kind} row has no field "{unknown[0]}".')
    kept: dict[str, Any] = {"prompt": _turns(need(row, "prompt"), "prompt")}
    for name in NAMED:
        if row.get(name) is not None:
            kept[name] = text(row[name], name)
    if "weight" in row:
        kept["weight"] = number(row["weight"], "weight")
    if "tools" in row:
        kept["tools"] = parse_tools(row["tools"])
    if "meta" in row:
        kept["meta"] = _mapping(row["meta"], "meta")
    return KINDS[kind](**kept, **_OWN[kind](row))


def _renewed(row: Row, kind: str) -> Row:
    """The row with its attributes where files of version 0.1 had them elsewhere: a pair's in `scores`, a ranking's in
    `meta["attributes"]`."""
    if "attributes" in row:
        return row
    if kind == "preference" and "scores" in row:
        return {("attributes" if name == "scores" else name): value for name, value in row.items()}
    meta = row.get("meta")
    if kind == "ranked" and isinstance(meta, Mapping) and isinstance(meta.get("attributes"), Mapping):
        rest = {name: value for name, value in meta.items() if name != "attributes"}
        return {**row, "meta": rest, "attributes": meta["attributes"]}
    return row


def _demonstration(row: Row) -> dict[str, Any]:
    own: dict[str, Any] = {"response": _turns(need(row, "response"), "response")}
    if "alternative" in row:
        own["alternative"] = _turns(row["alternative"], "alternative")
    if "attributes" in row:
        own["attributes"] = known_attributes(row["attributes"])
    return own


def _labelled(row: Row) -> dict[str, Any]:
    return {**_demonstration(row), "label": flag(need(row, "label"), "label")}


def _preference(row: Row) -> dict[str, Any]:
    own: dict[str, Any] = {name: _turns(need(row, name), name) for name in ("chosen", "rejected")}
    if row.get("margin") is not None:
        own["margin"] = number(row["margin"], "margin")
    return {**own, "attributes": many_attributes(row.get("attributes"), "attributes", 2)}


def _ranked(row: Row) -> dict[str, Any]:
    responses = need(row, "responses")
    if not isinstance(responses, Sequence) or isinstance(responses, str):
        raise RecordError(f'expected a list of responses in "responses", found {named(responses)}.')
    return {
        "responses": tuple(_turns(r, f"responses[{i}]") for i, r in enumerate(responses)),
        "scores": _numbers(need(row, "scores"), "scores"),
        "attributes": many_attributes(row.get("attributes"), "attributes", len(responses)),
    }


_OWN = {"demonstration": _demonstration, "labelled": _labelled, "preference": _preference, "ranked": _ranked}


def _turns(value: Any, name: str) -> Messages:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise RecordError(f'expected a list of messages in "{name}", found {named(value)}.')
    return tuple(_turn(turn, name) for turn in value)


def _turn(turn: Any, name: str) -> Message:
    row = _mapping(turn, name)
    extra = {k: v for k, v in row.items() if k not in ("role", "content")}
    return Message(text(need(row, "role"), f"{name}.role"), text(need(row, "content"), f"{name}.content"), extra)


def _mapping(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise RecordError(f'expected an object in "{name}", found {named(value)}.')
    return dict(value)


def _numbers(value: Any, name: str) -> tuple[float, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise RecordError(f'expected a list of numbers in "{name}", found {named(value)}.')
    return tuple(number(v, name) for v in value)


def _said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


NATIVE = Format(
    name="native",
    title="native rows",
    describe="what `pluralign data convert` writes; reads back exactly, every field kept",
    needs=("record", "prompt"),
    recognise=is_native,
    read=native,
    example=(
        {
            "record": "preference",
            "prompt": [_said("user", "Name a fruit.")],
            "chosen": [_said("assistant", "An apple.")],
            "rejected": [_said("assistant", "A carrot.")],
            "margin": 1.5,
            "attributes": {"humour": [3.0, None]},
        },
    ),
)
