"""One client over a faulty server on this machine: nothing is lost, nothing asked twice, nothing secret told."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from pluralign.endpoints import Budget, BudgetSpent, Endpoint, Reply, Request
from pluralign.endpoints.client import REPLIES
from pluralign.endpoints.failures import FIRST_PAUSE, LONGEST_PAUSE, pause_before
from pluralign.errors import PluralignError, SettingsError
from pluralign.records import messages

from .server import Scripted

ROOT = Path(__file__).resolve().parents[2]


def ask(*texts: str, **options: Any) -> list[Request]:
    return [Request(messages(text), **options) for text in texts]


def test_answers_come_in_order_and_identical_requests_are_asked_once(server: Scripted, tmp_path: Path) -> None:
    endpoint = Endpoint.open(server.url, cache=tmp_path)
    heard: list[tuple[int, str]] = []
    steps: list[tuple[int, int]] = []
    replies = endpoint.ask(ask("a", "b", "a"), on_reply=lambda i, r: heard.append((i, r.text)),
                           progress=lambda *n: steps.append(n))  # fmt: skip
    assert [r.text for r in replies] == ["said a", "said b", "said a"]
    assert sorted(server.asked) == ["a", "b"]
    assert sorted(heard) == [(0, "said a"), (1, "said b"), (2, "said a")]
    assert steps[0] == (0, 3)
    assert steps[-1] == (3, 3)
    assert (endpoint.spent.requests, endpoint.spent.tokens) == (2, 30)
    assert replies[0] == Reply("said a", "stop", 10, 5)
    again = Endpoint.open(server.url, cache=tmp_path).ask(ask("b", "c"))
    assert [r.cached for r in again] == [True, False]
    assert sorted(server.asked) == ["a", "b", "c"]


def test_what_is_sent(server: Scripted) -> None:
    schema = {"type": "object", "properties": {"verdict": {"type": "string"}}}
    endpoint = Endpoint.open(f"{server.url}/chat/completions#named")
    endpoint.ask([Request(messages("a"), temperature=0.7, top_p=0.9, max_tokens=3, seed=4, stop=("x",), schema=schema,
                          logprobs=5), Request(messages("b"), temperature=None)], progress=None)  # fmt: skip
    sent = next(s for s in server.seen if s["messages"][0]["content"] == "a")
    assert sent == {
        "model": "named", "messages": [{"role": "user", "content": "a"}], "temperature": 0.7, "top_p": 0.9,
        "max_tokens": 3, "seed": 4, "stop": ["x"], "logprobs": True, "top_logprobs": 5,
        "response_format": {"type": "json_schema",
                            "json_schema": {"name": "answer", "strict": True, "schema": schema}},
    }  # fmt: skip
    assert set(next(s for s in server.seen if s != sent)) == {"model", "messages", "max_tokens"}


def test_draws_are_told_apart(server: Scripted, tmp_path: Path) -> None:
    """The same request at a temperature is a draw each time; with a seed it is one request."""
    endpoint = Endpoint.open(server.url, cache=tmp_path)
    drawn = ask("a", "a", "a", temperature=1.0)
    endpoint.ask(drawn)
    assert len(server.seen) == 3
    endpoint.ask([*drawn, *drawn[:1]])
    assert len(server.seen) == 4
    endpoint.ask(ask("a", "a", temperature=1.0, seed=1))
    assert len(server.seen) == 5


def test_a_stored_reply_belongs_to_everything_that_was_asked(server: Scripted, tmp_path: Path) -> None:
    def asked(url: str = server.url, model: str = "toy", **options: Any) -> int:
        Endpoint.open(url, model, cache=tmp_path).ask(ask("a", **options))
        return len(server.seen)

    assert asked() == asked() == 1
    changed: list[dict[str, Any]] = [
        {"model": "other"}, {"temperature": 0.5}, {"top_p": 0.5}, {"max_tokens": 9}, {"seed": 1}, {"stop": ("x",)},
        {"schema": {"type": "object"}}, {"logprobs": 2}, {"url": server.url.replace("127.0.0.1", "localhost")},
    ]  # fmt: skip
    for n, change in enumerate(changed, start=2):
        assert asked(**change) == asked(**change) == n


@pytest.mark.parametrize(
    "fault",
    [429, 500, 503, 408, 409, (429, {"Retry-After": "3"}), b'{"choices": [{"message": {"cont', b"<html>", b"[]",
     b'{"choices": []}', b'{"choices": [{"message": {"content": "x"}, "logprobs": {"content": [{}]}}]}', "drop"],
)  # fmt: skip
def test_what_may_pass_is_waited_out(server: Scripted, pauses: list[float], fault: Any) -> None:
    endpoint = Endpoint.open(server.url)
    server.plan = [fault, fault]
    assert [r.text for r in endpoint.ask(ask("a"))] == ["said a"]
    assert len(server.seen) == 3
    assert len(pauses) == 2
    if isinstance(fault, tuple):
        assert all(3 <= p <= 3.3 for p in pauses)


def test_a_server_that_hangs(server: Scripted, pauses: list[float]) -> None:
    server.plan = ["hang"]
    endpoint = Endpoint.open(server.url, timeout=0.5)
    assert [r.text for r in endpoint.ask(ask("a"))] == ["said a"]
    assert endpoint.spent.guessed == 1  # it may have answered, and be paid
    server.plan = ["hang"] * 2
    with pytest.raises(PluralignError, match=r"no answer in 0\.5 s"):
        Endpoint.open(server.url, timeout=0.5, tries=2).ask(ask("b"))


def test_pauses_grow_and_a_date_is_obeyed(server: Scripted, pauses: list[float]) -> None:
    random.seed(0)
    for attempt in range(12):
        full = min(FIRST_PAUSE * 2**attempt, LONGEST_PAUSE)
        assert full / 2 <= pause_before(attempt, None) <= 1.5 * full
    server.plan = [(503, {"Retry-After": formatdate(time.time() + 60)}), (503, {"Retry-After": "soon"})]
    Endpoint.open(server.url).ask(ask("a"))
    assert 50 < pauses[0] < 67
    assert pauses[1] <= 1.5  # not understood: our own


def test_failures_that_stay_stop_in_one_line_and_keep_what_came(
    server: Scripted, pauses: list[float], tmp_path: Path
) -> None:
    endpoint = Endpoint.open(server.url, workers=1, cache=tmp_path)
    server.plan = [None, None, *[500] * 6]
    with pytest.raises(PluralignError, match=r"chat/completions: HTTP 500 \(the server says no\)\. Check") as caught:
        endpoint.ask(ask("a", "b", "c", "d"))
    assert "\n" not in str(caught.value)
    assert len(server.seen) == 2 + 6
    assert [r.cached for r in endpoint.ask(ask("a", "b", "c", "d"))] == [True, True, False, False]


@pytest.mark.parametrize(("status", "match"), [(401, "PLURALIGN_API_KEY"), (404, "HTTP 404"), (403, "HTTP 403")])
def test_what_will_not_pass_is_not_tried_again(server: Scripted, status: int, match: str) -> None:
    server.plan = [status]
    with pytest.raises(PluralignError, match=match):
        Endpoint.open(server.url).ask(ask("a"))
    assert len(server.seen) == 1


def test_no_money_left_is_not_waited_for(server: Scripted, pauses: list[float]) -> None:
    server.plan, server.error = [429], {"message": "You exceeded your quota", "code": "insufficient_quota"}
    with pytest.raises(PluralignError, match="no money left"):
        Endpoint.open(server.url).ask(ask("a"))
    assert pauses == []


def test_a_refused_conversation_has_no_text_and_is_not_stored(server: Scripted, tmp_path: Path) -> None:
    endpoint = Endpoint.open(server.url, workers=1, cache=tmp_path)
    server.plan = [400, 413, 422]
    refused = endpoint.ask(ask("a", "b", "c", "d"))
    assert [(r.text, r.finish) for r in refused] == [("", "refused")] * 3 + [("said d", "stop")]
    assert refused[0].error == "HTTP 400 (the server says no)"
    assert [r.text for r in endpoint.ask(ask("a"))] == ["said a"]


@pytest.mark.parametrize(
    "error",
    [{"message": "m", "param": "response_format"}, {"message": "m", "code": "unknown_parameter"},
     {"message": "m", "param": "response_format.json_schema"}],
)  # fmt: skip
def test_a_setting_that_is_not_taken_is_no_refused_conversation(server: Scripted, error: dict[str, Any]) -> None:
    server.plan, server.error = [400], error
    with pytest.raises(SettingsError, match="HTTP 400"):
        Endpoint.open(server.url).ask(ask("a"))


def test_an_answer_without_text(server: Scripted) -> None:
    kinds = {
        "null": {"message": {"content": None}, "finish_reason": "length"},
        "refusal": {"message": {"content": None, "refusal": "I will not"}, "finish_reason": "stop"},
    }
    server.answer = kinds.__getitem__
    replies = Endpoint.open(server.url).ask(ask("null", "refusal"))
    assert [r.text for r in replies] == ["", ""]
    assert [r.error for r in replies] == ["no text (finish: length)", "the model refused: I will not"]


def test_log_probs_are_read_and_stored(server: Scripted, tmp_path: Path) -> None:
    place = {"token": "m", "logprob": -0.5, "top_logprobs": [{"token": "M", "logprob": -0.25}]}
    server.answer = lambda text: {"message": {"content": "m"}, "finish_reason": "length",
                                  "logprobs": {"content": [place]}}  # fmt: skip
    endpoint = Endpoint.open(server.url, cache=tmp_path)
    for _ in range(2):
        (reply,) = endpoint.ask(ask("a", logprobs=5))
        assert reply.logprobs == ((("M", -0.25), ("m", -0.5)),)
    assert reply.cached


def test_no_more_than_so_many_at_once(server: Scripted) -> None:
    server.delay = 0.02
    Endpoint.open(server.url, workers=3).ask(ask(*map(str, range(12))))
    assert server.most_at_once <= 3
    assert len(server.seen) == 12


# Budgets


def test_budget_of_requests_is_a_hard_stop(server: Scripted, tmp_path: Path) -> None:
    endpoint = Endpoint.open(server.url, budget=Budget(requests=3), cache=tmp_path)
    with pytest.raises(
        BudgetSpent, match=r"budget of 3 requests: 3 of 5 requests are answered.*nothing is asked twice"
    ):
        endpoint.ask(ask(*"abcde"))
    assert len(server.seen) == 3
    more = Endpoint.open(server.url, budget=Budget(requests=2), cache=tmp_path)
    assert len(more.ask(ask(*"abcde"))) == 5
    assert len(set(server.asked)) == len(server.seen) == 5
    assert len(more.ask(ask(*"abcde"))) == 5  # what is known costs nothing


def test_a_budget_of_tokens_sets_the_worst_case_aside(server: Scripted) -> None:
    """Each request may use about 200 tokens and uses 15: with 8 at work, 500 are enough for 20 of them (300) and more,
    and never more than 500."""
    budget = Budget(tokens=500)
    endpoint = Endpoint.open(server.url, budget=budget)
    with pytest.raises(BudgetSpent):
        endpoint.ask(ask(*map(str, range(60)), max_tokens=50))
    assert 20 <= len(server.seen) <= 500 / 15
    assert budget.spent.tokens == 15 * len(server.seen) <= 500


def test_a_budget_in_dollars(server: Scripted) -> None:
    """10 prompt and 5 answer tokens at 100 and 1,000 USD a million: 0.006 USD each."""
    budget = Budget.parse("0.2usd@100/1000")
    endpoint = Endpoint.open(server.url, budget=budget, workers=1)
    endpoint.ask(ask("a", "b", max_tokens=5))
    assert budget.spent.usd == pytest.approx(0.012)
    with pytest.raises(BudgetSpent, match=r"0\.2 USD"):
        endpoint.ask(ask(*map(str, range(100)), max_tokens=5))
    assert budget.spent.usd <= 0.2


def test_failed_tries_count_and_what_is_not_told_is_the_worst_case(server: Scripted, pauses: list[float]) -> None:
    server.plan, server.usage = [500, 429], None
    endpoint = Endpoint.open(server.url, budget=Budget(requests=4))
    endpoint.ask(ask("a", max_tokens=100))
    assert endpoint.spent.requests == 3
    assert endpoint.spent.completion_tokens == 100
    assert endpoint.spent.guessed == 1
    server.plan = [500]
    with pytest.raises(BudgetSpent):
        endpoint.ask(ask("b"))
    assert len(server.seen) == 4


@pytest.mark.parametrize(
    ("text", "limits"),
    [("500requests", (500, None, None)), ("200000tokens", (None, 200000, None)),
     ("200_000 tokens", (None, 200000, None)),
     ("5usd@2/8", (None, None, 5.0)), ("2.5usd@2/8, 10requests", (10, None, 2.5))],
)  # fmt: skip
def test_budgets_in_words(text: str, limits: tuple[Any, ...]) -> None:
    budget = Budget.parse(text)
    assert (budget.requests, budget.tokens, budget.usd) == limits


@pytest.mark.parametrize(
    "text", ["5", "usd", "five usd", "1.5requests", "-3tokens", "3tokens@1/2", "1tokens,2tokens", ""]
)
def test_what_is_no_budget(text: str) -> None:
    with pytest.raises(SettingsError, match="no budget"):
        Budget.parse(text)


def test_dollars_need_prices() -> None:
    with pytest.raises(SettingsError, match="prices"):
        Budget.parse("5usd")
    assert Budget.parse("5usd", prices=(2, 8)).cost(1_000_000, 500_000) == 6.0


# Secrets


def test_the_key_goes_nowhere_but_into_requests(
    server: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    secret = "top-secret-key-123"
    monkeypatch.setenv("PLURALIGN_API_KEY", secret)
    monkeypatch.setenv("OPENAI_ORG_ID", "our-organisation")
    server.answer = lambda text: f"you sent {secret}"
    endpoint = Endpoint.open(server.url, cache=tmp_path)
    (reply,) = endpoint.ask(ask("a"))
    assert server.keys == [f"Bearer {secret}"]
    assert "our-organisation" not in str(server.headers)
    assert reply.text == "you sent ***"
    assert not reply.cached
    assert endpoint.ask(ask("a"))[0].cached
    server.error = {"message": f"Incorrect API key provided: {secret}, or sk-abcdef123456, or Bearer abcdefgh"}
    server.plan = [400, 401]
    (refused,) = endpoint.ask(ask("b"))
    with pytest.raises(PluralignError) as caught:
        endpoint.ask(ask("c"))
    kept = b"".join(p.read_bytes() for p in tmp_path.iterdir())
    for text in (refused.error, str(caught.value), repr(endpoint), endpoint.key, str(kept)):
        assert secret not in text
        assert "abcdef123456" not in text
        assert "abcdefgh" not in text


def test_openais_key_is_for_openai_alone(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "for-openai-only")
    Endpoint.open(server.url).ask(ask("a"))
    assert server.keys == [None]
    assert Endpoint.open("openai:gpt-4.1").key == "https://api.openai.com/v1#gpt-4.1"
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(SettingsError, match="OPENAI_API_KEY"):
        Endpoint.open("openai:gpt-4.1")


@pytest.mark.parametrize(
    ("url", "match"),
    [("localhost:8000", "no address"), ("openai:", "names no model"), ("http://", "no address"),
     ("http://me:secret@host/v1", "password"), ("http://host/v1?key=secret", "query")],
)  # fmt: skip
def test_what_is_no_address(url: str, match: str) -> None:
    with pytest.raises(SettingsError, match=match) as caught:
        Endpoint.open(url, "m")
    assert "secret" not in str(caught.value)


def test_the_model_must_be_clear(server: Scripted, pauses: list[float]) -> None:
    assert Endpoint.open(server.url).model == "toy"
    assert Endpoint.open(server.url + "/#other").key == f"{server.url}#other"
    with pytest.raises(SettingsError, match="named twice"):
        Endpoint.open(server.url + "#other", "third")
    server.models = ["a", "b"]
    with pytest.raises(PluralignError, match=r"serves 2 models \(a, b\)"):
        Endpoint.open(server.url)
    with pytest.raises(PluralignError, match=r"127.0.0.1:9/v1/models: .*failed"):
        Endpoint.open("http://127.0.0.1:9/v1")
    assert len(pauses) == 5


# Interruptions


def test_threads_share_an_endpoint(server: Scripted, tmp_path: Path) -> None:
    endpoint = Endpoint.open(server.url, cache=tmp_path)
    found: list[list[str]] = []
    threads = [threading.Thread(target=lambda: found.append([r.text for r in endpoint.ask(ask(*"abcdefgh"))]))
               for _ in range(4)]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[f"said {c}" for c in "abcdefgh"]] * 4
    assert endpoint.spent.requests >= len(server.seen)  # a connection that broke off on a busy machine was tried again


def test_within_a_running_event_loop(server: Scripted) -> None:
    endpoint = Endpoint.open(server.url)

    async def notebook() -> list[Reply]:
        return endpoint.ask(ask("a"))

    assert asyncio.run(notebook())[0].text == "said a"

    async def refused() -> list[Reply]:
        server.plan = [401]
        return endpoint.ask(ask("b"))

    with pytest.raises(PluralignError, match="HTTP 401"):
        asyncio.run(refused())


def test_an_error_of_the_listener_ends_the_call_and_keeps_what_came(server: Scripted, tmp_path: Path) -> None:
    def listener(i: int, reply: Reply) -> None:
        raise KeyError("mine")

    endpoint = Endpoint.open(server.url, workers=1, cache=tmp_path)
    with pytest.raises(KeyError, match="mine"):
        endpoint.ask(ask("a", "b"), on_reply=listener)
    assert endpoint.ask(ask("a"))[0].cached


PROGRAM = """
import signal
import sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job that a shell put into the background ignores it
from pathlib import Path
from pluralign.endpoints import Endpoint, Request
from pluralign.records import messages
endpoint = Endpoint.open(sys.argv[1], "toy", workers=4, cache=Path(sys.argv[2]))
endpoint.ask([Request(messages(str(i))) for i in range(40)], on_reply=lambda i, r: print(i, flush=True))
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_process_goes_on_without_asking_twice(server: Scripted, tmp_path: Path, how: int) -> None:
    """What was counted is never asked again; at most what was under way (four requests) is."""
    server.delay, server.plan = 0.03, [None] * 20 + ["hang"] * 20  # however late the signal comes, work is left
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, server.url, str(tmp_path)], stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, text=True, env=env)  # fmt: skip
    assert process.stdout is not None
    counted = [int(process.stdout.readline()) for _ in range(10)]
    process.send_signal(how)
    rest, _ = process.communicate(timeout=30)
    counted += [int(line) for line in rest.split()]
    assert len(counted) < 40
    time.sleep(0.1)  # the server ends what it was asked
    server.delay, server.plan, before = 0.0, [], len(server.seen)
    replies = Endpoint.open(server.url, "toy", cache=tmp_path).ask(ask(*map(str, range(40))))
    assert [r.text for r in replies] == [f"said {i}" for i in range(40)]
    again = server.asked[before:]
    assert not set(map(str, counted)) & set(again)
    assert len(server.seen) - 40 <= 4
    assert all(replies[i].cached for i in counted)


def test_two_processes_share_a_cache(server: Scripted, tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    two = [subprocess.Popen([sys.executable, "-c", PROGRAM, server.url, str(tmp_path)], stdout=subprocess.PIPE,
                            text=True, env=env) for _ in range(2)]  # fmt: skip
    said = [process.communicate(timeout=60)[0] for process in two]
    assert [process.returncode for process in two] == [0, 0]
    assert [sorted(map(int, text.split())) for text in said] == [list(range(40))] * 2
    assert set(server.asked) == set(map(str, range(40)))


def test_a_damaged_cache_says_so(server: Scripted, tmp_path: Path) -> None:
    (tmp_path / REPLIES).write_text("no database " * 100)
    with pytest.raises(PluralignError, match=r"replies\.sqlite.*Name another folder"):
        Endpoint.open(server.url, cache=tmp_path).ask(ask("a"))


def test_stored_replies_are_read_back_as_they_were() -> None:
    reply = Reply("ä\n\ud83d\ude00", "stop", 3, 4, error="e", logprobs=((("a", -1.5),), ()))
    assert Reply.from_json(reply.as_json()) == Reply(
        reply.text, "stop", 3, 4, cached=True, error="e", logprobs=reply.logprobs
    )
    assert "cached" not in json.loads(reply.as_json())
