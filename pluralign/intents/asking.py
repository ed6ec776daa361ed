"""Questions to an endpoint whose answers have one form: unparsed answers are drawn anew, and then counted as that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from ..endpoints import Endpoint, Reply, Request
from ..records import Messages

__all__ = ["Answer", "Asking"]

T = TypeVar("T")
AGAIN_TEMPERATURE = 0.7  # another draw at 0 would be the same


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What was read of an answer, or None and why: "unparsed", "cut off", "refused" or the endpoint's own error."""

    value: T | None
    why: str = ""
    text: str = ""


@dataclass(frozen=True)
class Asking:
    """How an endpoint is asked. `again`: so many more draws of an answer that cannot be read, each with a seed of its
    own, so that it is stored, and the same in a second run. `temperature` None is the endpoint's own."""

    endpoint: Endpoint
    again: int = 2
    temperature: float | None = 0.0

    @property
    def key(self) -> str:
        return f"{self.endpoint.key} {self.temperature} {self.again}"

    def __call__(
        self, prompts: Sequence[Messages], read: Callable[[int, str], T | None], *, max_tokens: int = 512
    ) -> list[Answer[T]]:
        """An answer for each prompt; `read` takes its place and what was said. Raises what `Endpoint.ask` raises."""
        requests = [Request(prompt, temperature=self.temperature, max_tokens=max_tokens) for prompt in prompts]
        replies = self.endpoint.ask(requests) if requests else []
        found = [_read(i, reply, read) for i, reply in enumerate(replies)]
        warm = None if self.temperature is None else max(self.temperature, AGAIN_TEMPERATURE)
        for draw in range(1, self.again + 1):
            open_ = [i for i, answer in enumerate(found) if answer.value is None and replies[i].finish != "refused"]
            if not open_:
                break
            more = self.endpoint.ask([replace(requests[i], temperature=warm, seed=draw) for i in open_])
            for i, reply in zip(open_, more, strict=True):
                replies[i], found[i] = reply, _read(i, reply, read)
        return found


def _read(i: int, reply: Reply, read: Callable[[int, str], T | None]) -> Answer[T]:
    if reply.finish == "refused":
        return Answer(None, "refused", reply.error)
    if reply.error:
        return Answer(None, "no answer", reply.error)
    if reply.finish == "length":
        return Answer(None, "cut off", reply.text)
    value = read(i, reply.text)
    return Answer(value, "" if value is not None else "unparsed", reply.text)
