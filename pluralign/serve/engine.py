"""One thread owns the model. Requests wait in line; whoever waits when the model is free shares the next batch.

Nothing here knows of HTTP: a ticket is a request, and three functions to be called with what becomes of it.
"""

from __future__ import annotations

import logging
import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import PluralignError, SettingsError
from ..steering import Answer, Request, answer
from ..steering.begin import contexts
from .errors import ApiError, malformed, queue_full, stopping
from .limits import Limits

if TYPE_CHECKING:
    from ..policy import Policy

__all__ = ["Engine", "Ticket"]

log = logging.getLogger("pluralign.serve")


@dataclass(slots=True, eq=False)
class Ticket:
    """A request in line. The functions are called from the engine's thread; unless the ticket is cancelled, exactly one
    of `on_answer` and `on_error` is called, once, and nothing after it."""

    request: Request
    on_text: Callable[[str], None]
    on_answer: Callable[[Answer], None]
    on_error: Callable[[ApiError], None]
    cancelled: bool = field(default=False, init=False)
    told: bool = field(default=False, init=False)
    done: bool = field(default=False, init=False)

    def tell(self, piece: str) -> None:
        self.told = True
        self.on_text(piece)

    def finish(self, result: Answer | ApiError) -> None:
        if not self.done:
            self.done = True
            self.on_answer(result) if isinstance(result, Answer) else self.on_error(result)


class Engine:
    """A policy that answers tickets in batches, from `start` to `close`."""

    def __init__(self, policy: Policy, limits: Limits | None = None) -> None:
        self.policy, self.limits = policy, limits or Limits()
        self.stopping = False
        self.running = 0
        self._reserved = 0  # places in line given away, their requests still being looked at
        self._line: deque[Ticket] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._cut = False  # whoever is still being answered has to go
        self._thread = threading.Thread(target=self._work, name="pluralign-engine", daemon=True)

    # From any thread

    def start(self) -> Engine:
        """Itself, at work. Raises RenderError where the template cannot show a single turn."""
        self.policy.renderer.prompt("a")  # what tokenizer and template make when first used, one thread makes
        self._thread.start()
        return self

    @property
    def waiting(self) -> int:
        return len(self._line) + self._reserved

    def reserve(self) -> None:
        """A place in line, to be used by `submit` or given back by `release`. Raises ApiError 429 and 503."""
        with self._changed:
            if self.stopping:
                raise stopping()
            if self.waiting >= self.limits.queue:
                raise queue_full(self.waiting)
            self._reserved += 1

    def release(self) -> None:
        with self._changed:
            self._reserved -= 1
            self._changed.notify_all()

    def submit(self, ticket: Ticket) -> None:
        """Put a ticket in line, at a place that `reserve` has given."""
        with self._changed:
            self._reserved -= 1
            if not self._closed:
                self._line.append(ticket)
            self._changed.notify_all()
        if self._closed:
            ticket.finish(stopping())

    def cancel(self, ticket: Ticket) -> None:
        """Nobody wants its answer any more: it leaves the line, or the batch at its next token."""
        ticket.cancelled = True
        with self._changed:
            if ticket in self._line:
                self._line.remove(ticket)
                self._changed.notify_all()

    def measure(self, request: Request) -> tuple[int, int]:
        """(tokens of its context, how many of them would not fit beside its answer). Raises ApiError 400 where it
        cannot be shown to the model."""
        try:
            shown, before = contexts(self.policy, [request])
        except PluralignError as error:
            named = "attributes" if request.attributes else "intent" if request.intent else "messages"
            about = named if isinstance(error, SettingsError) else "messages"
            raise malformed(str(error), about) from None
        return before[0], before[0] - len(shown[0])

    def stop(self) -> None:
        """Take no more requests."""
        with self._changed:
            self.stopping = True
            self._changed.notify_all()

    def drain(self, seconds: float) -> bool:
        """Wait until every accepted request is answered; whether that came true in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not (self.waiting or self.running), timeout=seconds)

    def close(self, seconds: float = 5.0) -> bool:
        """Stop, end what is still being answered (503), and wait for the thread; whether it ended."""
        with self._changed:
            self.stopping = self._closed = self._cut = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return not self._thread.is_alive()

    # In the engine's own thread

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._line or self._closed)
                if self._closed and not self._line:
                    return
                if len(self._line) < self.limits.batch_size and not self._cut:
                    self._changed.wait_for(
                        lambda: len(self._line) >= self.limits.batch_size or self._cut, timeout=self.limits.linger
                    )
                batch = [self._line.popleft() for _ in range(min(len(self._line), self.limits.batch_size))]
                self.running = len(batch)
            self._answer(batch)
            with self._changed:
                self.running = 0
                self._changed.notify_all()

    def _answer(self, batch: Sequence[Ticket]) -> None:
        """Answer a batch. Where it fails as a whole, its rows are tried one by one: no request harms another."""
        try:
            answer(
                self.policy,
                [ticket.request for ticket in batch],
                batch_size=len(batch),
                on_text=lambda i, piece: batch[i].tell(piece),
                on_answer=lambda i, got: batch[i].finish(
                    stopping() if self._cut and got.finish == "cancelled" else got
                ),
                cancelled=lambda i: self._cut or batch[i].cancelled,
                warn=log.warning,
            )
        except Exception as error:
            self._failed(batch, error)

    def _failed(self, batch: Sequence[Ticket], error: Exception) -> None:
        again = [ticket for ticket in batch if not (ticket.done or ticket.told)]
        if len(batch) > 1:
            for ticket in again:
                self._answer([ticket])
        for ticket in batch:
            if isinstance(error, PluralignError):
                ticket.finish(malformed(str(error)))
            elif not ticket.done:
                where = "".join(traceback.format_tb(error.__traceback__))  # not its message: it may quote a prompt
                log.error("a request failed (%s)\n%s", type(error).__name__, where)
                ticket.finish(ApiError(500, "the server failed to answer this request.", code="internal_error"))
