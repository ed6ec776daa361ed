"""One client for any server that speaks OpenAI's chat completions: hosted, vLLM, Ollama, or our own `pluralign serve`.

Questions are asked by a few at a time, in any order, and answered in the order they were put. Every answer is stored
before it is counted, so that a process that was killed goes on without asking twice; identical requests are asked once.
What may pass (too many requests, time-outs, broken bodies) is waited out; what will not stops the call in one line.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import PluralignError, SettingsError
from ..kept import Kept
from .addresses import HOSTED, api_key, parse_address
from .budget import Budget, BudgetSpent, Spent
from .failures import Passing, Refused, failed, one_line, pause_before, root_of, status_failure
from .wire import Reply, Request, read_reply, request_body, request_key, worst_case

__all__ = ["Endpoint"]

OnReply = Callable[[int, Reply], None]  # place of the request, its reply
Progress = Callable[[int, int], None]  # done, of how many
REPLIES = "replies.sqlite"
BUSY = 0.02  # seconds between two looks at a budget that others hold


class Endpoint:
    """A model at an address. Made by `Endpoint.open`; `ask` may be called from several threads."""

    def __init__(
        self, base: str, model: str, *, secret: str | None, workers: int, timeout: float, tries: int, budget: Budget,
        cache: Path | None,
    ) -> None:  # fmt: skip
        self.base, self.model, self.workers, self.timeout, self.tries = base, model, workers, timeout, tries
        self.budget, self.cache, self._secret = budget, cache, secret

    @classmethod
    def open(
        cls,
        url: str,
        model: str | None = None,
        *,
        workers: int = 8,
        timeout: float = 120,
        tries: int = 6,
        budget: Budget | None = None,
        cache: Path | None = None,
    ) -> Endpoint:
        """The endpoint at `openai:MODEL`, `http://host/v1` or `http://host/v1#MODEL`.

        Without a model the only one that is served is taken. `workers` requests are under way at a time, each for at
        most `timeout` seconds and tried up to `tries` times. `cache` is a folder that keeps replies. The key comes from
        the environment (`addresses.api_key`) and goes nowhere but into requests.

        Raises SettingsError for what is no address, PluralignError where the model is not clear or nobody answers.
        """
        if workers < 1 or tries < 1 or timeout <= 0:
            raise SettingsError("workers and tries are at least 1, and a time-out is longer than nothing.")
        base, named = parse_address(url, model)
        made = cls(base, named or "", secret=api_key(base), workers=workers, timeout=timeout, tries=tries,
                   budget=budget or Budget(), cache=cache)  # fmt: skip
        made.model = named or _run(made._only_model())
        return made

    @property
    def key(self) -> str:
        """What stored answers belong to: address and model, without a secret."""
        return f"{self.base}#{self.model}"

    @property
    def spent(self) -> Spent:
        """What was asked for in this process, by all that share the budget."""
        return self.budget.spent

    def __repr__(self) -> str:
        return f"Endpoint({self.key})"

    def ask(
        self, requests: Sequence[Request], *, on_reply: OnReply | None = None, progress: Progress | None = None
    ) -> list[Reply]:
        """A reply for each request, in order.

        Requests that are the same are asked once, unless they are drawn (temperature above 0 and no seed): then each is
        a draw of its own. `on_reply` hears each reply as it comes, once it is stored; `progress` how many are there.

        Raises BudgetSpent where the next request could exceed the budget, SettingsError for a setting that the endpoint
        does not take, PluralignError where it does not answer: all after what was under way has ended and is stored.
        """
        return _run(_Call(self, requests, on_reply, progress).run())

    # One request

    def client(self) -> Any:
        """OpenAI's client, in whose event loop it is made. It neither retries nor tells of accounts."""
        from openai import AsyncOpenAI, Omit

        own = self.base == HOSTED
        headers: Any = {} if own else {"OpenAI-Organization": Omit(), "OpenAI-Project": Omit()}
        return AsyncOpenAI(
            api_key=self._secret or "none", base_url=self.base, max_retries=0, timeout=self.timeout,
            default_headers=headers,
        )  # fmt: skip

    def _headers(self) -> Any:
        from openai import Omit

        return {} if self._secret else {"Authorization": Omit()}

    async def _once(self, call: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """The JSON of one try. Raises Passing, Refused, SettingsError or PluralignError."""
        import openai

        try:
            raw = await asyncio.wait_for(call(), self.timeout)
            content: bytes = raw.http_response.content
        except (TimeoutError, openai.APITimeoutError):
            raise Passing(f"no answer in {self.timeout:g} s", used=True) from None
        except openai.APIStatusError as error:
            raise status_failure(self.base, error, self._secret) from None
        except openai.APIConnectionError as error:
            begun = "Connect" not in type(error.__cause__).__name__  # it broke off after the question was sent
            raise Passing(one_line(root_of(error), self._secret), used=begun) from None
        except openai.APIError as error:
            raise Passing(one_line(str(error), self._secret), used=True) from None
        try:
            return json.loads(content)
        except ValueError as error:
            raise Passing(f"the answer is not valid JSON ({error})", used=True) from None

    async def _only_model(self) -> str:
        async def listed() -> Any:
            return await client.models.with_raw_response.list(extra_headers=self._headers())

        async with self.client() as client:
            for attempt in range(self.tries):
                try:
                    found = await self._once(listed)
                    break
                except Passing as error:
                    if attempt + 1 == self.tries:
                        raise failed(f"{self.base}/models", error.why) from None
                    await _sleep(pause_before(attempt, error.pause))
                except Refused as error:
                    raise failed(f"{self.base}/models", str(error), "Name the model.") from None
        try:
            names = [str(entry["id"]) for entry in found["data"]]
        except (KeyError, TypeError):
            raise PluralignError(f"{self.base}/models does not list models.", remedy="Name the model.") from None
        if len(names) != 1:
            said = ", ".join(names[:5]) or "none"
            raise PluralignError(f"{self.base} serves {len(names)} models ({said}).", remedy="Name the model.")
        return names[0]


class _Call:
    """One call of `ask`: which requests are the same, which are known, and how far it is."""

    def __init__(
        self, endpoint: Endpoint, requests: Sequence[Request], on_reply: OnReply | None, progress: Progress | None
    ) -> None:
        self.endpoint, self.requests, self.on_reply, self.progress = endpoint, list(requests), on_reply, progress
        self.places: dict[str, list[int]] = {}
        drawn: dict[str, int] = {}
        for i, request in enumerate(self.requests):
            key = request_key(endpoint.key, request)
            if request.drawn:
                copy = drawn[key] = drawn.get(key, -1) + 1
                key = request_key(endpoint.key, request, copy)
            self.places.setdefault(key, []).append(i)
        self.replies: list[Reply | None] = [None] * len(self.requests)
        self.done = 0
        self.failure: PluralignError | None = None

    async def run(self) -> list[Reply]:
        cache = self.endpoint.cache
        with Kept(None if cache is None else cache / REPLIES) as self.stored:
            if self.progress:
                self.progress(0, len(self.requests))
            missing = []
            for key in self.places:
                known = self.stored.get(key.encode(), Reply.from_json)
                if known is None:
                    missing.append(key)
                else:
                    self.deliver(key, known)
            if missing:
                self.stopped = asyncio.Event()
                async with self.endpoint.client() as self.client:
                    queue = iter(missing)
                    await _all(self.work(queue) for _ in range(min(self.endpoint.workers, len(missing))))
        if self.failure is not None:
            raise self.failure
        return [reply for reply in self.replies if reply is not None]

    def deliver(self, key: str, reply: Reply) -> None:
        for i in self.places[key]:
            self.replies[i] = reply
            self.done += 1
            if self.on_reply:
                self.on_reply(i, reply)
        if self.progress:
            self.progress(self.done, len(self.requests))

    async def work(self, queue: Iterator[str]) -> None:
        for key in queue:
            if self.stopped.is_set():
                return
            try:
                known = self.stored.get(key.encode(), Reply.from_json)
                reply = known or await self.answer(self.requests[self.places[key][0]])
            except PluralignError as error:
                self.fail(error)
                return
            if reply is None:
                return
            if not (reply.cached or reply.finish == "refused"):  # another configuration of the server may take it
                self.stored.put([(key.encode(), reply.as_json())])
            self.deliver(key, reply)

    def fail(self, error: PluralignError) -> None:
        """Nothing more is sent; what is under way ends."""
        self.failure = self.failure or error
        self.stopped.set()

    async def answer(self, request: Request) -> Reply | None:
        """The reply to a request; None where the call stopped before there was one."""
        end = self.endpoint
        body = request_body(request, end.model, hosted=end.base == HOSTED)
        worst = worst_case(request)
        why = ""

        async def sent() -> Any:
            return await self.client.chat.completions.with_raw_response.create(**body, extra_headers=end._headers())

        for attempt in range(end.tries):
            if not await self.admitted(worst):
                return None
            used, guessed = None, False
            try:
                found = await end._once(sent)
                used, guessed = worst, True
                reply, known = read_reply(found)
                if known:
                    used, guessed = (reply.prompt_tokens, reply.completion_tokens), False
                return _scrubbed(reply, end._secret)
            except Passing as error:
                why, pause = error.why, error.pause
                used, guessed = (worst, True) if error.used else (None, False)
            except Refused as error:
                return Reply("", "refused", error=str(error))
            except PluralignError as error:
                if not guessed:  # it did not come from `read_reply`
                    raise
                why, pause = error.message, None
            finally:
                end.budget.settle(worst, used, guessed=guessed)
            if attempt + 1 < end.tries and await self.pause(pause_before(attempt, pause)):
                return None
        raise failed(f"{end.base}/chat/completions", why)

    async def admitted(self, worst: tuple[int, int]) -> bool:
        """Whether a request may be sent; False where the call has stopped. Raises BudgetSpent."""
        while not self.stopped.is_set():
            fits = self.endpoint.budget.set_aside(worst)
            if fits:
                return True
            if fits is False:
                kept = "run again with more: nothing is asked twice" if self.endpoint.cache else "name a cache folder"
                raise BudgetSpent(
                    f"the next request could exceed the budget of {self.endpoint.budget}: {self.done:,} of "
                    f"{len(self.requests):,} requests are answered ({self.endpoint.spent}).",
                    remedy=f"To go on, {kept}.",
                )
            await asyncio.sleep(BUSY)
        return False

    async def pause(self, seconds: float) -> bool:
        """Wait; True where the call stopped meanwhile."""
        waiting = [asyncio.ensure_future(_sleep(seconds)), asyncio.ensure_future(self.stopped.wait())]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waiting:
                one.cancel()
        return self.stopped.is_set()


def _scrubbed(reply: Reply, secret: str | None) -> Reply:
    """A reply in which the key does not occur, should the endpoint say it."""
    if not secret or secret not in reply.as_json():
        return reply
    return replace(Reply.from_json(reply.as_json().replace(secret, "***")), cached=False)


async def _all(work: Iterator[Coroutine[Any, Any, None]] | Any) -> None:
    """Run together; the first error cancels the rest."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _sleep(seconds: float) -> None:
    await asyncio.sleep(seconds)


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine; in a thread of its own where this one runs an event loop already, as notebooks do."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    loop = asyncio.new_event_loop()
    task = loop.create_task(work)
    thread = threading.Thread(target=lambda: loop.run_until_complete(asyncio.wait([task])))
    thread.start()
    try:
        thread.join()
    finally:
        if thread.is_alive():  # somebody has interrupted the wait
            loop.call_soon_threadsafe(task.cancel)
            thread.join()
        loop.close()
    return task.result()
