"""Where an endpoint is, in one word: `openai:MODEL`, `http://host/v1`, or `http://host/v1#MODEL`; and its key."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from ..errors import SettingsError

__all__ = ["HOSTED", "api_key", "is_address", "parse_address", "without_secrets"]

HOSTED = "https://api.openai.com/v1"
OWN, OPENAI = "PLURALIGN_API_KEY", "OPENAI_API_KEY"
REMEDY = "For example openai:gpt-4.1, http://localhost:8000/v1, or http://localhost:11434/v1#llama3.2"
_SECRET = re.compile(r"\b(sk-|Bearer\s+)[^\s\"',}]{4,}")


def is_address(text: str) -> bool:
    """Whether a word means an endpoint."""
    return text.startswith(("openai:", "http://", "https://"))


def parse_address(text: str, model: str | None = None) -> tuple[str, str | None]:
    """(base URL, model or None) of a word. Raises SettingsError for none, for a name and password in it, and where two
    different models are named."""
    if text.startswith("openai:"):
        base, named = HOSTED, text.removeprefix("openai:")
        if not named:
            raise SettingsError(f'"{text}" names no model.', remedy=REMEDY)
    elif is_address(text):
        base, _, named = text.partition("#")
    else:
        raise SettingsError(f'"{text}" is no address of an endpoint.', remedy=REMEDY)
    parts = urlsplit(base)
    if not parts.hostname or "@" in parts.netloc or parts.query:
        what = "holds a password or a query" if parts.hostname else "is no address of an endpoint"
        raise SettingsError(f"the endpoint's URL {what}.", remedy=f"A key is read from {OWN}. {REMEDY}")
    if model and named and model != named:
        raise SettingsError(f'the endpoint\'s model is named twice: "{named}" and "{model}".')
    return base.rstrip("/").removesuffix("/chat/completions"), model or named or None


def api_key(base: str) -> str | None:
    """The key for an endpoint, from the environment: PLURALIGN_API_KEY, or OPENAI_API_KEY for OpenAI's own service
    alone. Raises SettingsError where that has none."""
    key = os.environ.get(OWN) or (os.environ.get(OPENAI) if base == HOSTED else None)
    if not key and base == HOSTED:
        raise SettingsError(f"{HOSTED} needs a key.", remedy=f"Set the environment variable {OPENAI}.")
    return key or None


def without_secrets(text: str, key: str | None) -> str:
    """A text without the key, and without anything that looks like one."""
    if key:
        text = text.replace(key, "***")
    return _SECRET.sub(r"\1***", text)
