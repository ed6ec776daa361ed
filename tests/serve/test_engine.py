"""The engine without a network: lines, batches, and an end in good order."""

from __future__ import annotations

import queue
import threading
import time

import pytest

from pluralign.policy import Policy
from pluralign.serve import ApiError, Engine, Limits, Ticket
from pluralign.steering import Answer, Request


def put(engine: Engine, request: Request) -> tuple[Ticket, queue.Queue]:
    """A ticket in line, and the queue of what becomes of it."""
    said: queue.Queue = queue.Queue()
    ticket = Ticket(request, said.put, said.put, said.put)
    engine.reserve()
    engine.submit(ticket)
    return ticket, said


def result(said: queue.Queue) -> Answer | ApiError:
    while isinstance(found := said.get(timeout=30), str):
        pass
    return found


def test_answers_are_those_of_the_policy(policy: Policy) -> None:
    engine = Engine(policy, Limits()).start()
    _, said = put(engine, Request("Hi", max_new_tokens=8, temperature=0, stream=False))
    got = said.get(timeout=30)  # not streamed: nothing comes before it
    assert got.text == policy.chat("Hi", max_new_tokens=8, temperature=0)
    assert said.empty()
    assert engine.close()


def test_a_place_that_is_given_back_is_free_again(policy: Policy) -> None:
    engine = Engine(policy, Limits(queue=2))
    engine.reserve()
    engine.reserve()
    with pytest.raises(ApiError, match="waiting already") as full:
        engine.reserve()
    assert (full.value.status, full.value.retry_after) == (429, 1)
    engine.release()
    engine.reserve()
    assert engine.waiting == 2


def test_stop_finishes_what_was_accepted(policy: Policy, slow: threading.Event) -> None:
    engine = Engine(policy, Limits(batch_size=1, linger=0)).start()
    results = [put(engine, Request("Hi", max_new_tokens=4))[1] for _ in range(3)]
    engine.stop()
    with pytest.raises(ApiError) as refused:
        engine.reserve()
    assert refused.value.status == 503
    assert not engine.drain(0.05)
    slow.set()
    assert engine.drain(30)
    assert all(isinstance(result(said), Answer) for said in results)
    assert engine.close()


def test_close_ends_what_runs_and_what_waits(policy: Policy) -> None:
    engine = Engine(policy, Limits(batch_size=1, linger=0)).start()
    results = [put(engine, Request("Hi", max_new_tokens=480, temperature=1.5))[1] for _ in range(3)]
    assert results[0].get(timeout=30)
    assert engine.close(30)
    ends = [result(said) for said in results]
    assert all(isinstance(end, ApiError) and end.status == 503 for end in ends)
    late: queue.Queue = queue.Queue()
    engine.submit(Ticket(Request("Hi"), late.put, late.put, late.put))  # its place was given before
    assert late.get(timeout=1).status == 503


def test_cancelled_tickets_leave_line_and_batch(policy: Policy, slow: threading.Event) -> None:
    engine = Engine(policy, Limits(batch_size=1, linger=0)).start()
    first, _ = put(engine, Request("Hi", max_new_tokens=480, temperature=1.5))
    end = time.monotonic() + 20
    while engine.running != 1:
        assert time.monotonic() < end
    second, unanswered = put(engine, Request("Hi", max_new_tokens=4))
    _, said = put(engine, Request("Hi", max_new_tokens=4, temperature=0, stream=False))
    engine.cancel(second)
    assert engine.waiting == 1
    engine.cancel(first)
    slow.set()
    assert isinstance(said.get(timeout=30), Answer)
    assert unanswered.empty()
    assert engine.close()
