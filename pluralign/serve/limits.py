"""What a server refuses, so that no client can take it away from the others."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import SettingsError

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bytes of a body, tokens of a prompt and of a response, requests that wait, rows of a batch, seconds.

    `prompt_tokens` None: whatever fits into the model's positions. `timeout` covers a request from its first byte to
    its last token; `grace` is the time that accepted requests have once the server is told to stop; `linger` is how
    long an idle worker waits for more rows before it begins a batch.
    """

    body_bytes: int = 1_048_576
    prompt_tokens: int | None = None
    max_tokens: int = 1024
    queue: int = 64
    batch_size: int = 16
    timeout: float = 300.0
    grace: float = 30.0
    linger: float = 0.005

    def __post_init__(self) -> None:
        """Raises SettingsError for a limit that lets nothing through."""
        for name in ("body_bytes", "prompt_tokens", "max_tokens", "queue", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingsError(f"{name} must be at least 1, not {value}.")
        if not 0 < self.timeout < float("inf"):
            raise SettingsError(f"timeout must be a number of seconds above 0, not {self.timeout}.")
        if not (0 <= self.grace < float("inf") and 0 <= self.linger < float("inf")):
            raise SettingsError(f"grace and linger must be seconds, not {self.grace} and {self.linger}.")
