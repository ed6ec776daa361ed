"""Errors as OpenAI's clients expect them: a status, and {"error": {message, type, param, code}}."""

from __future__ import annotations

from typing import Any

__all__ = ["ApiError", "malformed", "queue_full", "stopping", "timed_out"]

LONGEST = 400  # characters
KINDS = {
    401: "authentication_error",
    408: "timeout_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
    504: "timeout_error",
}


class ApiError(Exception):
    """What a client is told instead of an answer. `retry_after` (seconds) is sent as a header."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None, retry_after: int = 0
    ) -> None:
        message = message if len(message) <= LONGEST else message[:LONGEST] + "..."  # it may quote what it was sent
        self.status, self.message, self.param, self.code = status, message, param and param[:LONGEST], code
        self.retry_after = retry_after
        super().__init__(message)

    def body(self) -> dict[str, Any]:
        """The JSON of the error."""
        kind = KINDS.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def malformed(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """400: the client has to ask for something else."""
    return ApiError(400, message, param=param, code=code)


def queue_full(waiting: int) -> ApiError:
    """429: as many requests wait already as may."""
    return ApiError(
        429, f"{waiting} requests are waiting already; try again in a moment.", code="queue_full", retry_after=1
    )


def stopping() -> ApiError:
    """503: accepted requests are finished, new ones are not taken."""
    return ApiError(503, "the server is shutting down.", code="shutting_down", retry_after=5)


def timed_out(seconds: float) -> ApiError:
    """504: nobody waits longer than that."""
    return ApiError(504, f"the request was not answered within {seconds:g} seconds.", code="timeout")
