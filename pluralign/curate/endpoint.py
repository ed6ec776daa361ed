"""A safety classifier behind an endpoint that speaks OpenAI's chat completions, such as vLLM serving Llama Guard."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..errors import PluralignError, SettingsError
from ..records import Messages
from .verdicts import Classifier, Verdict, parse_verdict

__all__ = ["guard_endpoint", "only_model", "request"]

ANSWER = 48
PASSING = (408, 409, 425, 429, 500, 502, 503, 504)  # answers that another try may mend
REFUSED = (400, 413, 422)  # answers about this conversation, not about the endpoint


class Refused(PluralignError):
    """The endpoint takes no such conversation."""


def guard_endpoint(
    url: str,
    *,
    model: str | None = None,
    key: str | None = None,
    workers: int = 8,
    timeout: float = 120,
    tries: int = 4,
) -> Classifier:
    """The classifier served under `url` (".../v1"), asked by up to `workers` requests at a time.

    `key` is sent as a bearer token. `model` may be left out where the endpoint serves a single one. Answers are parsed
    strictly; a conversation that the endpoint refuses (too long, roles out of order) has no verdict. Other failures are
    tried `tries` times, and then raise PluralignError: no record passes because nobody answered.
    """
    if not url.startswith(("http://", "https://")):
        raise SettingsError(f'"{url}" is no address of an endpoint.', remedy="For example: http://localhost:8000/v1")
    base = url.rstrip("/").removesuffix("/chat/completions")
    served = model or only_model(base, key, timeout, tries)

    def ask(turns: Messages) -> Verdict:
        said = [{"role": t.role, "content": t.content} for t in turns if t.role in ("user", "assistant") and t.content]
        body = {"model": served, "messages": said, "temperature": 0, "max_tokens": ANSWER}
        try:
            found = request(f"{base}/chat/completions", body, key=key, timeout=timeout, tries=tries)
            answer = found["choices"][0]["message"]["content"]
        except Refused as error:
            return Verdict(None, answer=f"not asked: {error.message}"[:200])
        except (KeyError, IndexError, TypeError):
            raise PluralignError(f"{base} does not answer as chat completions do.") from None
        return parse_verdict(answer) if isinstance(answer, str) else Verdict(None, answer=repr(answer)[:200])

    def classify(conversations: Sequence[Messages]) -> list[Verdict]:
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(ask, conversations))

    return classify


def only_model(base: str, key: str | None, timeout: float, tries: int) -> str:
    """The name of the one model served under `base`. Raises PluralignError where there are several or none."""
    found = request(f"{base}/models", None, key=key, timeout=timeout, tries=tries)
    try:
        names = [entry["id"] for entry in found["data"]]
    except (KeyError, TypeError):
        raise PluralignError(f"{base}/models does not list models.", remedy="Name the model.") from None
    if len(names) != 1:
        listed = ", ".join(map(str, names[:5])) or "none"
        raise PluralignError(f"{base} serves {len(names)} models ({listed}).", remedy="Name the model.")
    return str(names[0])


def request(
    url: str, body: Mapping[str, Any] | None, *, key: str | None = None, timeout: float = 120, tries: int = 4
) -> Any:
    """The JSON that `url` answers to `body` (a GET without one); failures that may pass are waited out.

    Raises Refused for a 400, 413 or 422, and PluralignError for anything else that does not end in JSON.
    """
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    data = None if body is None else json.dumps(body).encode()
    why = ""
    for attempt in range(tries):
        if attempt:
            time.sleep(min(2.0 ** (attempt - 2), 8.0))  # 0.5 s, 1 s, 2 s, ...
        try:
            with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=timeout) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            why = f"HTTP {error.code} ({' '.join(error.read(300).decode('utf-8', 'replace').split())})"
            if error.code in REFUSED:
                raise Refused(why) from None
            if error.code not in PASSING:
                break
        except (OSError, ValueError, http.client.HTTPException) as error:  # no connection, time out, no JSON
            why = str(getattr(error, "reason", error)) or type(error).__name__
    raise PluralignError(f"{url}: {why.rstrip('.')}.", remedy="Check that the model is being served there.")
