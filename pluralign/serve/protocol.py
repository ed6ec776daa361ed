"""OpenAI's chat completions: from a body to a request, and from an answer to a body. No HTTP here.

What we cannot do is refused, not left out: a client that asks for two answers or for JSON must not be given something
else. Fields that change no token (`user`, `metadata`, ...) are read over. Ours, beside OpenAI's: `attributes`, by name
the scores to steer by; the response holds those that were used, and `sensed` names those the policy chose itself. And
`intent`, what the prompt is after; the response holds the one that was used, and `intent_share` how likely the policy
took it to be where it inferred it.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import nearest
from ..steering import Answer, Request
from ..steering.requests import MOST, Place
from .errors import malformed

__all__ = ["Ask", "chunk", "completion", "parse", "read_json", "usage"]

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
OURS = ("model", "messages", "stream", "stream_options", "temperature", "top_p", "max_tokens", "max_completion_tokens",
        "stop", "seed", "n", "tools", "tool_choice", "logprobs", "top_logprobs", "attributes", "intent")  # fmt: skip
READ_OVER = ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key",
             "parallel_tool_calls")  # fmt: skip
ONLY = {  # fields of which we can do one thing only, which is also what happens without them
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
}
STOPS, STOP_LENGTH = 4, 256
INTENT_LENGTH = 512


@dataclass(frozen=True, slots=True)
class Ask:
    """A body that made sense. `max_tokens` None: as many as there is room for."""

    model: str
    messages: list[dict[str, Any]]
    stream: bool = False
    include_usage: bool = False
    max_tokens: int | None = None
    temperature: float = 0.7
    top_p: float = 0.9
    seed: int = 0
    stop: tuple[str, ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    attributes: dict[str, float] = field(default_factory=dict)
    intent: str | None = None
    logprobs: int | None = None  # how many are listed at a place

    def request(self, max_new_tokens: int) -> Request:
        return Request(
            self.messages, max_new_tokens=max_new_tokens, temperature=self.temperature, top_p=self.top_p,
            seed=self.seed, stop=self.stop, attributes=self.attributes, intent=self.intent, tools=self.tools,
            stream=self.stream, logprobs=self.logprobs,
        )  # fmt: skip


# In


def read_json(raw: bytes) -> dict[str, Any]:
    """The object in a body. Raises ApiError 400."""

    def no_number(name: str) -> Any:
        raise malformed(f"the body is not valid JSON: {name} is no number.")

    try:
        found = json.loads(raw, parse_constant=no_number)
    except (ValueError, RecursionError) as error:
        at = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        raise malformed(f"the body is not valid JSON{at}.") from None
    if not isinstance(found, dict):
        raise malformed("the body must be a JSON object.")
    return found


def parse(body: Mapping[str, Any]) -> Ask:
    """What a body asks for. Raises ApiError 400 naming the field; fields that are null count as left out."""
    given = {name: value for name, value in body.items() if value is not None}
    _refuse_others(given)
    model = given.get("model")
    if not isinstance(model, str) or not model:
        raise malformed("you must name a model.", "model")
    if _integer(given, "n", 1, low=1) != 1:
        raise malformed("only one choice a request can be made (n=1).", "n")
    stream = _boolean(given, "stream")
    return Ask(
        model,
        _messages(given.get("messages")),
        stream,
        _include_usage(given, stream),
        _max_tokens(given),
        _number(given, "temperature", 0.7, low=0.0),
        _number(given, "top_p", 0.9, low=0.0, high=1.0, above=True),
        _integer(given, "seed", secrets.randbits(31)),
        _stop(given.get("stop")),
        _tools(given),
        _attributes(given.get("attributes", {})),
        _intent(given.get("intent")),
        _logprobs(given, stream),
    )


def _refuse_others(given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        if name in OURS or name in READ_OVER:
            continue
        if name not in ONLY:
            raise malformed(f'unknown field "{name}".{nearest(name, OURS)}', name, "unknown_parameter")
        if value not in ONLY[name] or isinstance(value, bool) != isinstance(ONLY[name][0], bool):
            only = json.dumps(ONLY[name][0])
            raise malformed(f'"{name}" is not supported; leave it out, or give {only}.', name, "unsupported_value")


def _boolean(given: Mapping[str, Any], name: str) -> bool:
    value = given.get(name, False)
    if not isinstance(value, bool):
        raise malformed(f'"{name}" must be true or false.', name)
    return value


def _integer(given: Mapping[str, Any], name: str, default: int, *, low: int | None = None) -> int:
    value = given.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or (low is not None and value < low):
        raise malformed(f'"{name}" must be an integer{f" of at least {low}" if low is not None else ""}.', name)
    return value


def _number(
    given: Mapping[str, Any], name: str, default: float, *, low: float, high: float = math.inf, above: bool = False
) -> float:
    value = given.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise malformed(f'"{name}" must be a number.', name)
    if not (low <= value <= high and (value > low or not above) and abs(value) < 1e300):
        bounds = f"{'above' if above else 'at least'} {low:g}" + (f" and at most {high:g}" if high < math.inf else "")
        raise malformed(f'"{name}" must be {bounds}.', name)
    return float(value)


def _max_tokens(given: Mapping[str, Any]) -> int | None:
    found = {_integer(given, n, 1, low=1): n for n in ("max_tokens", "max_completion_tokens") if n in given}
    if len(found) > 1:
        raise malformed('"max_tokens" and "max_completion_tokens" differ; give one of them.', "max_tokens")
    return next(iter(found), None)


def _include_usage(given: Mapping[str, Any], stream: bool) -> bool:
    options = given.get("stream_options")
    if options is None:
        return False
    if not stream:
        raise malformed('"stream_options" goes with stream=true only.', "stream_options")
    if not isinstance(options, dict) or not set(options) <= {"include_usage", "include_obfuscation"}:
        raise malformed('"stream_options" must be an object with "include_usage".', "stream_options")
    return _boolean(options, "include_usage")


def _stop(value: Any) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(texts, list) or not all(isinstance(t, str) and 0 < len(t) <= STOP_LENGTH for t in texts):
        raise malformed(f'"stop" must be texts of 1 to {STOP_LENGTH} characters.', "stop")
    if len(texts) > STOPS:
        raise malformed(f'"stop" may hold {STOPS} texts at most.', "stop")
    return tuple(texts)


def _tools(given: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    tools, choice = given.get("tools", []), given.get("tool_choice", "auto")
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise malformed('"tools" must be a list of objects.', "tools")
    if choice not in ("auto", "none"):
        raise malformed('"tool_choice" must be "auto" or "none": the model cannot be forced.', "tool_choice")
    return tuple(tools) if choice == "auto" else ()


def _attributes(value: Any) -> dict[str, float]:
    if not isinstance(value, dict):
        raise malformed('"attributes" must be an object of numbers by name.', "attributes")
    for name, score in value.items():
        if isinstance(score, bool) or not isinstance(score, int | float) or not abs(score) < 1e300:
            raise malformed(f'attribute "{name}" must be a number.', "attributes")
    return {name: float(score) for name, score in value.items()}


def _intent(value: Any) -> str | None:
    if value is not None and (not isinstance(value, str) or len(value) > INTENT_LENGTH):
        raise malformed(f'"intent" must be a text of at most {INTENT_LENGTH} characters.', "intent")
    return value


def _logprobs(given: Mapping[str, Any], stream: bool) -> int | None:
    wanted, top = _boolean(given, "logprobs"), _integer(given, "top_logprobs", 0, low=0)
    if top > MOST:
        raise malformed(f'"top_logprobs" may be {MOST} at most.', "top_logprobs")
    if top and not wanted:
        raise malformed('"top_logprobs" goes with logprobs=true only.', "top_logprobs")
    if wanted and stream:
        raise malformed('"logprobs" of a streamed answer are not supported; leave one of them out.', "logprobs",
                        "unsupported_value")  # fmt: skip
    return top if wanted else None


def _messages(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value:
        raise malformed('"messages" must be a list with at least one message.', "messages")
    return [_message(i, turn) for i, turn in enumerate(value)]


def _message(i: int, turn: Any) -> dict[str, Any]:
    where = f"messages[{i}]"
    role = turn.get("role") if isinstance(turn, dict) else None
    if not isinstance(role, str) or role not in ROLES:
        raise malformed(f"{where} must have a role ({', '.join(ROLES)}).", where)
    calls = turn.get("tool_calls")
    if calls is not None and not (isinstance(calls, list) and all(isinstance(call, dict) for call in calls)):
        raise malformed(f"{where}.tool_calls must be a list of objects.", where)
    kept = {name: turn[name] for name in ("name", "tool_calls", "tool_call_id") if turn.get(name) is not None}
    content = turn.get("content")
    if content is None and calls:
        content = ""
    return {"role": ROLES[role], "content": _content(content, where), **kept}


def _content(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list) and content:
        parts = [part for part in content if isinstance(part, dict) and part.get("type") == "text"]
        texts = [part["text"] for part in parts if isinstance(part.get("text"), str)]
        if len(texts) < len(content):
            raise malformed(
                f"{where} has a part that is no text; the model reads text only.", where, "unsupported_value"
            )
        return "".join(texts)
    raise malformed(f"{where} must have a content: text, or a list of text parts.", where)


# Out


def usage(got: Answer) -> dict[str, int]:
    return {
        "prompt_tokens": got.prompt_tokens,
        "completion_tokens": got.tokens,
        "total_tokens": got.prompt_tokens + got.tokens,
    }


def completion(ident: str, created: int, model: str, got: Answer) -> dict[str, Any]:
    """The body of a whole answer."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": got.text, "refusal": None},
        "logprobs": _told(got.places) if got.places else None,
        "finish_reason": got.finish,
    }
    return {
        "id": ident,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [choice],
        "usage": usage(got),
        **_beside(got),
    }


def _told(places: Sequence[Place]) -> dict[str, Any]:
    """The tokens of an answer as OpenAI lists them. `bytes` is null for a token that is a part of a character."""
    each = [
        {**_token(p.token, p.logprob), "top_logprobs": [_token(text, lp) for text, lp in p.top]} for p in places
    ]  # fmt: skip
    return {"content": each, "refusal": None}


def _token(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": logprob, "bytes": None if "\ufffd" in text else list(text.encode())}


def _beside(got: Answer) -> dict[str, Any]:
    """What stood beside the prompt."""
    shown = {"intent": got.intent, "intent_share": got.intent_share}
    told = got.intent or got.intent_share is not None
    return {"attributes": got.attributes, "sensed": list(got.sensed), **(shown if told else {})}


def chunk(
    ident: str,
    created: int,
    model: str,
    with_usage: bool = False,
    *,
    delta: Mapping[str, Any] | None = None,
    end: Answer | None = None,
    counts: Answer | None = None,
) -> dict[str, Any]:
    """One piece of a streamed answer: a delta, its end (with the attributes), or the counts of it."""
    choice = {"index": 0, "delta": dict(delta or {}), "logprobs": None, "finish_reason": end.finish if end else None}
    out = {
        "id": ident,
        "object": "chat.completion.chunk",
        "created": created,
        "model": model,
        "choices": [] if counts else [choice],
    }
    if end:
        out |= _beside(end)
    if with_usage:
        out["usage"] = usage(counts) if counts else None
    return out
