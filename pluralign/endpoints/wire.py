"""What is asked of an endpoint and what it answers, between our types and the bodies of OpenAI's chat completions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import PluralignError
from ..records import Messages

__all__ = ["Reply", "Request", "request_body", "request_key", "worst_case"]

Top = tuple[tuple[str, float], ...]  # (token, log-prob) of the likeliest tokens at one place, and of the one written
PER_MESSAGE = 16  # tokens that a chat template puts round a turn, at most
OVERHEAD = 64


@dataclass(frozen=True, slots=True)
class Request:
    """One conversation to be gone on with.

    `temperature` None is the endpoint's own, for models that take no other. `max_tokens` bounds the answer. `schema`: a
    JSON schema that the answer must follow, enforced by the endpoint where it can. `logprobs`: how many of the most
    likely tokens are told at each place (0: none).
    """

    messages: Messages
    temperature: float | None = 0.0
    top_p: float = 1.0
    max_tokens: int = 512
    seed: int | None = None
    stop: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = None
    logprobs: int = 0

    @property
    def drawn(self) -> bool:
        """Whether asking again may be answered otherwise, by right."""
        return self.temperature != 0 and self.seed is None


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. `error` says why there is no text: the endpoint refused the conversation, or said nothing.

    `finish` is the endpoint's word ("stop", "length", ...); "refused" where it took no such conversation (HTTP 400,
    413, 422). Token counts are the endpoint's own, 0 where it gave none. `cached`: nobody was asked.
    """

    text: str
    finish: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached: bool = False
    error: str = ""
    logprobs: tuple[Top, ...] = ()

    def as_json(self) -> str:
        return json.dumps({k: v for k, v in asdict(self).items() if k != "cached"}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Reply:
        """The inverse of `as_json`, marked as cached. Raises ValueError, KeyError or TypeError for anything else."""
        row = json.loads(text)
        tops = tuple(tuple((str(token), float(lp)) for token, lp in place) for place in row.pop("logprobs"))
        return cls(**row, cached=True, logprobs=tops)


def request_body(request: Request, model: str, *, hosted: bool = False) -> dict[str, Any]:
    """The body for a request. OpenAI's own service has another name for the bound of the answer than the rest."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [m.as_dict() for m in request.messages],
        "max_completion_tokens" if hosted else "max_tokens": request.max_tokens,
    }
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.top_p != 1:
        body["top_p"] = request.top_p
    if request.seed is not None:
        body["seed"] = request.seed
    if request.stop:
        body["stop"] = list(request.stop)
    if request.schema is not None:
        form = {"name": "answer", "strict": True, "schema": dict(request.schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": form}
    if request.logprobs:
        body |= {"logprobs": True, "top_logprobs": request.logprobs}
    return body


def request_key(endpoint: str, request: Request, copy: int = 0) -> str:
    """A digest of everything an answer depends on; `copy` tells draws of the same request from each other."""
    parts = [endpoint, request_body(request, ""), copy]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode("utf-8", "surrogatepass")).hexdigest()


def worst_case(request: Request) -> tuple[int, int]:
    """Tokens that a request may use, of prompt and answer: a token is at least a byte."""
    text = json.dumps([m.as_dict() for m in request.messages], ensure_ascii=False, default=str)
    form = json.dumps(dict(request.schema)) if request.schema is not None else ""
    said = len(text.encode("utf-8", "surrogatepass")) + len(form)
    return said + PER_MESSAGE * len(request.messages) + OVERHEAD, request.max_tokens


def read_reply(body: Any) -> tuple[Reply, bool]:
    """The reply in a body, and whether it says how many tokens were used.

    Raises PluralignError for a body that is none of a chat completion.
    """
    try:
        choice = body["choices"][0]
        message = choice["message"]
        text, refusal = message.get("content"), message.get("refusal")
        finish = str(choice.get("finish_reason") or "")
        tops = _tops(choice.get("logprobs"))
        usage = body.get("usage") or {}
        prompt, answer = usage.get("prompt_tokens"), usage.get("completion_tokens")
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        raise PluralignError("does not answer as chat completions do") from None
    error = ""
    if not isinstance(text, str):
        error = f"the model refused: {refusal}"[:300] if isinstance(refusal, str) and refusal else "no text"
        error += f" (finish: {finish})" if finish and finish != "stop" else ""
        text = ""
    if isinstance(prompt, int) and isinstance(answer, int):
        return Reply(text, finish, prompt, answer, error=error, logprobs=tops), True
    return Reply(text, finish, error=error, logprobs=tops), False


def _tops(found: Any) -> tuple[Top, ...]:
    out = []
    for place in (found or {}).get("content") or ():
        tops = {str(t["token"]): float(t["logprob"]) for t in place.get("top_logprobs") or ()}
        tops.setdefault(str(place["token"]), float(place["logprob"]))
        out.append(tuple(tops.items()))
    return tuple(out)
