"""A trained policy behind OpenAI's chat completions. `app` and `server` need the extra `serve`; the rest does not."""

from __future__ import annotations

from .engine import Engine, Ticket
from .errors import ApiError
from .limits import Limits

__all__ = ["ApiError", "Engine", "Limits", "Ticket"]
