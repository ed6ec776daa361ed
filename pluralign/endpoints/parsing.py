"""How an answer is read: by an anchored form, whole or not at all. A word somewhere in a sentence is no verdict.

Every function returns None for anything but the one form it knows, and what a model thinks aloud first
(`<think>...</think>`) is left out.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from typing import Any

from ..errors import SettingsError

__all__ = ["bracketed", "json_object", "last_line", "spoken_part", "tagged"]

_FENCE = re.compile(r"```(?:json)?[ \t]*\n(.*)\n[ \t]*```", re.DOTALL)
_NUMBER = re.compile(r"\[\[(-?\d{1,9}(?:\.\d{1,9})?)\]\]")
TYPES: dict[str, Any] = {"string": str, "boolean": bool, "object": dict, "array": list, "null": type(None)}
KNOWN = {"type", "properties", "required", "additionalProperties", "enum", "items", "minimum", "maximum", "title",
         "description"}  # fmt: skip


def spoken_part(text: str) -> str:
    """The text without what was thought aloud before it; nothing where the thinking never ended."""
    text = text.strip()
    if not text.startswith("<think>"):
        return text
    return text.partition("</think>")[2].strip()


def last_line(text: str) -> str:
    """The last line that is not blank, without white space around it."""
    lines = spoken_part(text).splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def tagged(text: str, name: str, among: Collection[str] | None = None) -> str | None:
    """What stands in `<name>...</name>`, where that is the whole last line and the text's only such tag.

    `among`: the words that may stand there, exactly.
    """
    text = spoken_part(text)
    found = re.fullmatch(rf"<{re.escape(name)}>(.*)</{re.escape(name)}>", last_line(text))
    if found is None or text.count(f"<{name}>") != 1 or text.count(f"</{name}>") != 1:
        return None
    said = found[1].strip()
    return said if said and (among is None or said in among) else None


def bracketed(text: str, low: float, high: float) -> float | None:
    """The number of a `[[7]]` at the end of the last line, from `low` to `high`, where it is the text's only one."""
    text = spoken_part(text)
    found = list(_NUMBER.finditer(text))
    if len(found) != 1 or not re.search(r"\]\][.*_ \t]*\Z", last_line(text)) or "[[" not in last_line(text):
        return None
    number = float(found[0][1])
    return number if low <= number <= high else None


def json_object(text: str, schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """The JSON object that the text is, bare or in one fence, where it obeys the schema.

    Known of schemas: type, properties, required, additionalProperties, enum, items, minimum, maximum. Raises
    SettingsError for a schema that says more, so that nothing is taken as checked that was not.
    """
    _check_schema(schema)
    text = spoken_part(text)
    fence = _FENCE.fullmatch(text)
    try:
        found = json.loads(fence[1] if fence else text, object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and _obeys(found, schema) else None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _check_schema(schema: Mapping[str, Any]) -> None:
    unknown = next((key for key in schema if key not in KNOWN), None)
    if unknown is not None:
        raise SettingsError(f'answers are not checked for "{unknown}" of a JSON schema.')
    for inner in (*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])):
        _check_schema(inner)


def _obeys(found: Any, schema: Mapping[str, Any]) -> bool:
    if "type" in schema and not _is_a(found, schema["type"]):
        return False
    if "enum" in schema and not any(found == word and type(found) is type(word) for word in schema["enum"]):
        return False
    if isinstance(found, int | float) and not isinstance(found, bool):
        return schema.get("minimum", -math.inf) <= found <= schema.get("maximum", math.inf)
    if isinstance(found, list) and "items" in schema:
        return all(_obeys(item, schema["items"]) for item in found)
    if isinstance(found, dict):
        own = schema.get("properties", {})
        return (
            all(key in found for key in schema.get("required", ()))
            and (schema.get("additionalProperties", True) is not False or all(key in own for key in found))
            and all(_obeys(value, own[key]) for key, value in found.items() if key in own)
        )
    return True


def _is_a(found: Any, kind: str | list[str]) -> bool:
    if isinstance(kind, list):
        return any(_is_a(found, one) for one in kind)
    if kind == "integer":
        return isinstance(found, int) and not isinstance(found, bool)
    if kind == "number":
        return isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found)
    return isinstance(found, TYPES[kind])
