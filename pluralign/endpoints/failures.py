"""What a failed request means: it may pass, it is about this conversation alone, or nothing will mend it."""

from __future__ import annotations

import random
from email.utils import parsedate_to_datetime
from time import time
from typing import Any

from ..errors import PluralignError, SettingsError
from .addresses import without_secrets

__all__ = ["Passing", "Refused", "failed", "one_line", "pause_before", "root_of", "status_failure"]

PASSING = (408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529)  # another try may mend it
REFUSED = (400, 413, 422)  # about this conversation, unless a setting is blamed
SETTINGS = ("temperature", "top_p", "seed", "stop", "response_format", "logprobs", "top_logprobs", "model")
UNKNOWN = ("unsupported_parameter", "unknown_parameter", "unsupported_value")
FIRST_PAUSE, LONGEST_PAUSE, LONGEST_ASKED = 0.5, 30.0, 300.0  # seconds
LONGEST_WHY = 300  # characters of an endpoint's own words
SERVED = "Check that the model is being served there."


class Passing(Exception):
    """A failure that another try may mend.

    `pause` (seconds) is what the endpoint asked for; `used`: the answer may have been made, and paid for.
    """

    def __init__(self, why: str, pause: float | None = None, *, used: bool = False) -> None:
        super().__init__(why)
        self.why, self.pause, self.used = why, pause, used


class Refused(Exception):
    """The endpoint takes no such conversation."""


def failed(url: str, why: str, remedy: str = SERVED) -> PluralignError:
    return PluralignError(f"{url}: {why.rstrip('.')}.", remedy=remedy)


def status_failure(url: str, error: Any, secret: str | None) -> Exception:
    """What an HTTP status (openai.APIStatusError) means: Passing, Refused, or an error for a person."""
    status = int(error.status_code)
    body = error.body if isinstance(error.body, dict) else {}
    inner: dict[str, Any] = body["error"] if isinstance(body.get("error"), dict) else body
    said = one_line(str(inner.get("message") or error.response.text or ""), secret)
    why = f"HTTP {status} ({said})" if said else f"HTTP {status}"
    if inner.get("code") == "insufficient_quota":
        return failed(url, why, "The account has no money left.")
    if status in PASSING:
        return Passing(why, _asked_pause(error.response.headers))
    blamed = str(inner.get("param") or "").split(".")[0]
    if status in REFUSED and (blamed in SETTINGS or inner.get("code") in UNKNOWN):
        return SettingsError(f"{url}: {why.rstrip('.')}.", remedy="Ask without it, or another endpoint.")
    if status in REFUSED:
        return Refused(why)
    if status in (401, 403):
        return failed(url, why, "Check the key in PLURALIGN_API_KEY (OPENAI_API_KEY for OpenAI's own service).")
    return failed(url, why)


def one_line(text: str, secret: str | None) -> str:
    """An endpoint's words in one line, without secrets."""
    return without_secrets(" ".join(text.split()), secret)[:LONGEST_WHY]


def root_of(error: BaseException) -> str:
    """What a failed connection began with, such as "Connection refused"; libraries wrap it several times."""
    inner: BaseException | None = error
    while inner is not None:
        error, inner = inner, inner.__cause__
        if isinstance(inner, BaseExceptionGroup):
            inner = inner.exceptions[0]
    return str(error) or type(error).__name__


def pause_before(attempt: int, asked: float | None) -> float:
    """Seconds before the next try: what the endpoint asks for, or 0.5, 1, 2, ... up to 30, halved to one and a half."""
    if asked is not None:
        return min(asked, LONGEST_ASKED) * (1 + random.random() / 10)
    return min(FIRST_PAUSE * 2.0**attempt, LONGEST_PAUSE) * (0.5 + random.random())


def _asked_pause(headers: Any) -> float | None:
    """Seconds in a Retry-After header, which holds seconds or a date."""
    said = headers.get("retry-after")
    if not said:
        return None
    try:
        return max(0.0, float(said))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - time())
    except (ValueError, TypeError):
        return None
