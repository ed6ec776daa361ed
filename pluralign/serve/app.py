"""The web application: routes, the way of a request through them, and what is logged of it. Needs the extra `serve`."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import logging
import time
import uuid
from collections.abc import AsyncGenerator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..scoring.forward import text_config
from ..steering import Answer
from ..steering import Request as Wanted
from .engine import Engine, Ticket
from .errors import ApiError, malformed, stopping, timed_out
from .protocol import Ask, chunk, completion, parse, read_json

__all__ = ["build"]

log = logging.getLogger("pluralign.serve")

Event = str | Answer | ApiError
PATHS = ("/v1/chat/completions", "/v1/models", "/health")
SPARE_TOKENS = 4  # for each attribute: another score may take more tokens than the one that was counted
SPARE = 4  # so many times a body's limit is read and thrown away, so that its client hears why


def build(engine: Engine, name: str, *, key: str | None = None) -> ASGIApp:
    """The application that serves `engine` as the model `name`. `key`: what clients have to present as bearer token."""
    app = FastAPI(title="pluralign", docs_url=None, redoc_url=None, openapi_url=None)
    service = Service(engine, name, key)
    app.add_api_route("/v1/chat/completions", service.chat, methods=["POST"], response_model=None)
    app.add_api_route("/v1/models", service.models, methods=["GET"], response_model=None)
    app.add_api_route("/v1/models/{model:path}", service.model, methods=["GET"], response_model=None)
    app.add_api_route("/health", service.health, methods=["GET"], response_model=None)
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)
    return _logged(app)


class Service:
    """The handlers, and what they share."""

    def __init__(self, engine: Engine, name: str, key: str | None) -> None:
        self.engine, self.name, self.limits = engine, name, engine.limits
        self.key = _digest(key) if key else None
        self.created = int(time.time())
        self.positions: int | None = getattr(text_config(engine.policy.model), "max_position_embeddings", None)
        self.measuring = ThreadPoolExecutor(1, thread_name_prefix="pluralign-measure")  # one user of the tokenizer more

    async def health(self) -> Response:
        state = {"model": self.name, "waiting": self.engine.waiting, "running": self.engine.running}
        if self.engine.stopping:
            return _json({"status": "stopping", **state}, 503)
        return _json({"status": "ok", **state})

    async def models(self, request: Request) -> Response:
        self._admit(request)
        return _json({"object": "list", "data": [self._card()]})

    async def model(self, request: Request, model: str) -> Response:
        self._admit(request)
        self._known(model)
        return _json(self._card())

    async def chat(self, request: Request) -> Response:
        deadline = asyncio.get_running_loop().time() + self.limits.timeout
        self._admit(request)
        if self.engine.stopping:
            raise stopping()
        ask = parse(read_json(await self._body(request)))
        self._known(ask.model)
        reply = Reply(f"chatcmpl-{uuid.uuid4().hex}", int(time.time()), self.name, ask)
        events = await self._submit(ask, request, deadline)
        if not ask.stream:
            async with contextlib.aclosing(events):
                got = _noted(request, await anext(events))
            return _json(completion(reply.ident, reply.created, reply.model, got))
        first = await anext(events)  # before the status is sent: an error so far has a status of its own
        if isinstance(first, ApiError):
            await events.aclose()
            raise first
        return EventStream(_pieces(reply, first, events, request), events, deadline)

    # The way in

    def _admit(self, request: Request) -> None:
        """Raises ApiError 401 without the right key."""
        if self.key is None:
            return
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not hmac.compare_digest(_digest(given.strip()), self.key):
            raise ApiError(401, "the API key is missing or wrong.", code="invalid_api_key")

    def _known(self, model: str) -> None:
        if model != self.name:
            raise ApiError(
                404, f'there is no model "{model}" here, only "{self.name}".', param="model", code="model_not_found"
            )

    def _card(self) -> dict[str, Any]:
        form, intents = self.engine.policy.scores, self.engine.policy.intents
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "pluralign",
            "max_model_len": self.positions,
            "attributes": list(form.names) if form else [],
            "intents": list(intents.names) if intents else [],
        }

    async def _body(self, request: Request) -> bytes:
        """The body, up to its limit. Raises ApiError 408, 413, 415."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":  # which also keeps pages of other sites out: browsers ask before they send it
            raise ApiError(415, "the content type must be application/json.")
        limit, raw, size = self.limits.body_bytes, bytearray(), 0
        try:
            async with asyncio.timeout(self.limits.timeout):
                async for part in request.stream():
                    size += len(part)
                    if size <= limit:
                        raw += part
                    elif size > SPARE * limit:
                        break
        except TimeoutError:
            raise ApiError(408, "the body did not arrive in time.") from None
        if size > limit:
            raise ApiError(413, f"the body is larger than {limit:,} bytes.", code="body_too_large")
        return bytes(raw)

    async def _submit(self, ask: Ask, request: Request, deadline: float) -> AsyncGenerator[Event]:
        """Put it in line. Raises ApiError 400, 429, 503."""
        loop = asyncio.get_running_loop()
        self.engine.reserve()
        try:
            wanted = await loop.run_in_executor(self.measuring, self._wanted, ask)
        except BaseException:
            self.engine.release()
            raise
        inbox: asyncio.Queue[Event] = asyncio.Queue()

        def put(event: Event) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(inbox.put_nowait, event)

        ticket = Ticket(wanted, put, put, put)
        self.engine.submit(ticket)
        return self._events(ticket, inbox, request, deadline)

    def _wanted(self, ask: Ask) -> Wanted:
        """The request that it comes to. Raises ApiError 400 where prompt or answer is too long."""
        if (ask.max_tokens or 1) > self.limits.max_tokens:
            raise malformed(f"at most {self.limits.max_tokens:,} tokens can be asked for.", "max_tokens")
        tokens, too_many = self.engine.measure(ask.request(1))
        most = self.limits.prompt_tokens or tokens
        if too_many or tokens > most:
            most = min(most, tokens - too_many)
            raise malformed(
                f"the prompt has {tokens:,} tokens; at most {most:,} are taken.", "messages", "context_length_exceeded"
            )
        form = self.engine.policy.scores
        spare = SPARE_TOKENS * len(form.names) if form else 0
        left = self.positions - tokens - spare if self.positions else self.limits.max_tokens
        wanted = ask.request(max(min(ask.max_tokens or self.limits.max_tokens, left), 1))
        left -= self.engine.measure(wanted)[1]
        if left < (ask.max_tokens or 1):
            raise malformed(
                f"the prompt has {tokens:,} tokens; of {self.positions:,} they leave {max(left, 0):,} for the answer.",
                "max_tokens",
                "context_length_exceeded",
            )
        return replace(wanted, max_new_tokens=min(wanted.max_new_tokens, left))

    async def _events(
        self, ticket: Ticket, inbox: asyncio.Queue[Event], request: Request, deadline: float
    ) -> AsyncGenerator[Event]:
        """What becomes of a ticket, up to its answer or an error. A client that goes away, or a deadline that passes,
        ends it at the next token."""
        gone = asyncio.ensure_future(_gone(request))
        got = asyncio.ensure_future(inbox.get())
        try:
            while True:
                left = max(deadline - asyncio.get_running_loop().time(), 0)
                await asyncio.wait({got, gone}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                if not got.done():
                    yield ApiError(499, "the client went away.") if gone.done() else timed_out(self.limits.timeout)
                    return
                event = got.result()
                yield event
                if not isinstance(event, str):
                    return
                got = asyncio.ensure_future(inbox.get())
        finally:
            got.cancel()
            gone.cancel()
            self.engine.cancel(ticket)


# The way out


@dataclass(frozen=True, slots=True)
class Reply:
    """What every piece of an answer repeats."""

    ident: str
    created: int
    model: str
    ask: Ask

    def chunk(self, **parts: Any) -> bytes:
        return b"data: " + _dump(chunk(self.ident, self.created, self.model, self.ask.include_usage, **parts)) + b"\n\n"


async def _pieces(
    reply: Reply, first: str | Answer, events: AsyncGenerator[Event], request: Request
) -> AsyncGenerator[bytes]:
    """Server-sent events. An error after the first of them is one more event: the status has been sent."""
    yield reply.chunk(delta={"role": "assistant", "content": ""})
    event: Event = first
    while isinstance(event, str):
        yield reply.chunk(delta={"content": event})
        event = await anext(events)
    if isinstance(event, ApiError):
        request.state.failed = event.status
        yield b"data: " + _dump(event.body()) + b"\n\n"
        return
    yield reply.chunk(end=_noted(request, event))
    if reply.ask.include_usage:
        yield reply.chunk(counts=event)
    yield b"data: [DONE]\n\n"


class EventStream(Response):
    """Sends pieces as they come, until `deadline`: a client that does not read cannot hold on to it for ever."""

    def __init__(self, pieces: AsyncGenerator[bytes], events: AsyncGenerator[Event], deadline: float) -> None:
        super().__init__(headers={"Cache-Control": "no-cache"}, media_type="text/event-stream")
        del self.headers["content-length"]
        self.pieces, self.events, self.deadline = pieces, events, deadline

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with contextlib.aclosing(self.events), contextlib.aclosing(self.pieces):
            with contextlib.suppress(TimeoutError):  # then the response stays open, and the server hangs up
                async with asyncio.timeout_at(self.deadline + 1):
                    await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                    async for piece in self.pieces:
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
                    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _gone(request: Request) -> None:
    """Returns once the client has gone away. The body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _noted(request: Request, event: Event) -> Answer:
    """The answer, kept for the log. Raises the error that came instead of one."""
    if isinstance(event, ApiError):
        raise event
    assert isinstance(event, Answer), "only streamed answers come in pieces"
    request.state.answer = event
    return event


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(_dump(value), status, headers, media_type="application/json")


def _dump(value: Any) -> bytes:
    """ASCII with escapes: half a character that somebody wrote is no UTF-8."""
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def _digest(key: str) -> bytes:
    """Of one length, so that comparing takes the same time for all."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


# Errors and the log


async def _api_error(request: Request, error: Any) -> Response:
    headers = {"Retry-After": str(error.retry_after)} if error.retry_after else {}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return _json(error.body(), error.status, headers)


async def _http_error(request: Request, error: Any) -> Response:
    """What the framework itself refuses, in the same shape: unknown paths and methods."""
    what = {404: "there is nothing at this path.", 405: "this path does not take that method."}
    told = ApiError(error.status_code, what.get(error.status_code, str(error.detail)))
    return _json(told.body(), told.status, error.headers)


async def _unexpected(request: Request, error: Exception) -> Response:
    """A fault of ours: the log has the traceback, the client a word."""
    return _json(ApiError(500, "the server failed to answer this request.", code="internal_error").body(), 500)


def _logged(app: ASGIApp) -> ASGIApp:
    """One line a request: what was asked for, what came of it, how long it took; never a text, never a key."""

    async def logged(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        began, status = time.monotonic(), 0
        state = scope.setdefault("state", {})

        async def watched(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await app(scope, receive, watched)
        finally:
            known = scope["path"] if scope["path"] in PATHS else "another path"  # it may hold anything
            got: Answer | None = state.get("answer")
            counts = f" prompt={got.prompt_tokens} written={got.tokens} finish={got.finish}" if got else ""
            seconds = time.monotonic() - began
            log.info("%s %s %d %.3fs%s", scope["method"], known, state.get("failed", status), seconds, counts)

    return logged
