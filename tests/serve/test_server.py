"""The server over loopback: OpenAI's own client, and clients that mean harm."""

from __future__ import annotations

import copy
import json
import logging
import re
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from pluralign.attributes import Scale, ScoreForm
from pluralign.heads.regression import attach
from pluralign.policy import Policy

from .conftest import Running, Serve, running

httpx = pytest.importorskip("httpx")
openai = pytest.importorskip("openai")

HI = [{"role": "user", "content": "Hi"}]
BODY = {"model": "tiny", "messages": HI, "max_tokens": 4, "temperature": 0}


def client(server: Running, key: str = "none") -> Any:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=60)


def post(server: Running, body: Any, **options: Any) -> Any:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content-type": "application/json"} | options.pop("headers", {})
    return httpx.post(f"{server.url}/v1/chat/completions", content=content, headers=headers, timeout=60, **options)


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for it; fail where it does not come."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


# OpenAI's client


def test_logprobs_as_openais_client_reads_them(server: Running) -> None:
    got = client(server).chat.completions.create(
        model="tiny", messages=HI, max_tokens=5, temperature=0, logprobs=True, top_logprobs=3
    )
    (choice,) = got.choices
    assert "".join(place.token for place in choice.logprobs.content).strip() == choice.message.content
    for place in choice.logprobs.content:
        assert place.bytes == list(place.token.encode())
        assert [len(place.top_logprobs), place.top_logprobs[0].logprob] == [3, place.logprob]
    bare = client(server).chat.completions.create(model="tiny", messages=HI, max_tokens=5, temperature=0, logprobs=True)
    assert [place.logprob for place in bare.choices[0].logprobs.content] == pytest.approx(
        [place.logprob for place in choice.logprobs.content], abs=1e-5
    )
    assert bare.choices[0].logprobs.content[0].top_logprobs == []


def test_a_chat_is_the_policys_own_text(server: Running, policy: Policy) -> None:
    turns = [{"role": "system", "content": "Be kind."}, *HI]
    for seed in (3, 4):
        got = client(server).chat.completions.create(
            model="tiny", messages=turns, max_tokens=12, temperature=1.2, top_p=0.9, seed=seed
        )
        expected = policy.chat(turns, max_new_tokens=12, temperature=1.2, top_p=0.9, seed=seed)
        assert got.choices[0].message.content == expected
        assert got.choices[0].message.role == "assistant"
        assert got.choices[0].finish_reason in ("length", "stop")
        assert got.usage.prompt_tokens == len(policy.renderer.prompt(turns))
        assert 0 < got.usage.completion_tokens <= 12
        assert got.usage.total_tokens == got.usage.prompt_tokens + got.usage.completion_tokens
        assert got.model == "tiny"
        assert got.attributes == {}
        assert got.sensed == []


def test_parts_developer_turns_and_stop_texts(server: Running, policy: Policy) -> None:
    ask = client(server).chat.completions.create
    options = {"model": "tiny", "temperature": 0, "max_completion_tokens": 20, "user": "someone", "n": 1}
    parts = [{"role": "user", "content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]}]
    whole = ask(messages=HI, **options).choices[0].message.content
    assert ask(messages=parts, **options).choices[0].message.content == whole
    assert whole == policy.chat("Hi", max_new_tokens=20, temperature=0)
    stop = whole[len(whole) // 2 :][:2]
    cut = ask(messages=HI, stop=stop, **options).choices[0]
    assert cut.message.content == whole[: whole.index(stop)].strip()
    assert cut.finish_reason == "stop"
    system, developer = (
        ask(messages=[{"role": role, "content": "Be kind."}, *HI], **options).choices[0].message.content
        for role in ("system", "developer")
    )
    assert developer == system


def test_streams_are_the_same_text_in_pieces(server: Running) -> None:
    options = {"model": "tiny", "messages": HI, "max_tokens": 16, "temperature": 1.0, "seed": 5}
    whole = client(server).chat.completions.create(**options)
    chunks = list(
        client(server).chat.completions.create(**options, stream=True, stream_options={"include_usage": True})
    )
    said = [c.choices[0].delta for c in chunks[:-1]]
    assert said[0].role == "assistant"
    assert "".join(d.content or "" for d in said) == whole.choices[0].message.content
    assert len(chunks) > 5
    assert [c.choices[0].finish_reason for c in chunks[:-1]] == [None] * (len(chunks) - 2) + [
        whole.choices[0].finish_reason
    ]
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert all(c.usage is None for c in chunks[:-1])
    assert chunks[-2].attributes == {}
    assert chunks[-2].sensed == []
    assert len({c.id for c in chunks}) == 1
    without = list(client(server).chat.completions.create(**options, stream=True))
    assert len(without) == len(chunks) - 1
    raw = post(server, {**options, "stream": True})
    assert raw.headers["content-type"].startswith("text/event-stream")
    assert raw.text.endswith("data: [DONE]\n\n")
    assert b'"usage"' not in raw.content


def test_tools_go_to_the_template_or_are_refused(serve: Serve, policy: Policy) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    with serve() as server:
        ask = client(server).chat.completions.create
        counts = [
            ask(**BODY, tools=tools, tool_choice=choice).usage.prompt_tokens
            for tools, choice in (([], "auto"), ([tool], "auto"), ([tool], "none"))
        ]
        assert counts[1] == len(policy.renderer.prompt(HI, [tool]))
        assert counts[0] == counts[2] < counts[1]
    plain = Policy(policy.model, policy.tokenizer, "plain", "fp32", {"template": "plain"})
    with running(plain) as server:
        response = post(server, {**BODY, "tools": [tool]})
        assert response.status_code == 400
        assert "cannot show tools" in response.json()["error"]["message"]
        assert post(server, BODY).status_code == 200


def test_models_and_health(server: Running) -> None:
    listed = client(server).models.list().data
    assert [m.id for m in listed] == ["tiny"]
    assert client(server).models.retrieve("tiny").owned_by == "pluralign"
    with pytest.raises(openai.NotFoundError):
        client(server).models.retrieve("other/one")
    assert httpx.get(f"{server.url}/health").json() == {"status": "ok", "model": "tiny", "waiting": 0, "running": 0}


def test_without_a_seed_answers_differ(server: Running) -> None:
    body = {**BODY, "temperature": 1.5, "max_tokens": 12}
    assert len({post(server, body).json()["choices"][0]["message"]["content"] for _ in range(5)}) > 1


# Scores


@pytest.fixture(scope="module")
def scored(policy: Policy) -> Policy:
    """The same model as a policy that takes two scores and senses them."""
    form = ScoreForm((Scale("helpfulness", 0, 4), Scale("verbosity", 0, 4)))
    model = copy.deepcopy(policy.model)
    torch.manual_seed(0)
    attach(model, "sensed", 2, layers=2, bounded=True).out.weight.data.normal_()
    return Policy(model, policy.tokenizer, "scored", "fp32", {}, form)


def test_scores_steer_and_what_was_sensed_comes_back(scored: Policy) -> None:
    (sensed,) = scored.sense(["Hi"])
    with running(scored) as server:
        assert server_card(server)["attributes"] == ["helpfulness", "verbosity"]
        ask = client(server).chat.completions.create
        for given, named in (
            ({}, ["helpfulness", "verbosity"]),
            ({"helpfulness": 0.9}, ["verbosity"]),
            ({"helpfulness": 0.9, "verbosity": 0}, []),
        ):
            body: dict[str, Any] = {**BODY, "max_tokens": 12, "extra_body": {"attributes": given}}
            got = ask(**body)
            assert got.attributes == pytest.approx({**sensed, **given}, abs=0.005)
            assert got.sensed == named
            expected = scored.chat("Hi", max_new_tokens=12, temperature=0, attributes=given)
            assert got.choices[0].message.content == expected
            last = list(ask(**body, stream=True))[-1]
            assert (last.attributes, last.sensed) == (got.attributes, got.sensed)
        for wrong in ({"helpfulnes": 0.9}, {"helpfulness": 2}, {"helpfulness": None}):
            with pytest.raises(openai.BadRequestError) as bad:
                ask(**BODY, extra_body={"attributes": wrong})
            assert bad.value.param == "attributes"


def test_scores_count_as_a_part_of_the_prompt(scored: Policy) -> None:
    """Nothing of the prompt is cut to make room for them: the answer is shorter, or the request is refused."""
    long = [{"role": "user", "content": "word " * 200}]
    with running(scored) as server:
        body = {**BODY, "messages": long, "temperature": 1.5}
        del body["max_tokens"]
        counts = post(server, body).json()["usage"]
        plain = len(scored.renderer.prompt(long))
        assert counts["prompt_tokens"] > plain
        room = 512 - counts["prompt_tokens"]
        refused = post(server, {**body, "max_tokens": room})  # but for the room of other digits
        assert refused.json()["error"]["code"] == "context_length_exceeded"
        left = int(re.search(r"of 512 they leave (\d+) ", refused.json()["error"]["message"])[1])  # type: ignore[index]
        assert room - 8 <= left < room
        assert post(server, {**body, "max_tokens": left}).json()["usage"]["prompt_tokens"] == counts["prompt_tokens"]
        short = {"model": "tiny", "messages": HI, "temperature": 1.5, "stop": list("aeio")}
        assert post(server, short).status_code == 200  # as many tokens as there is room for


def server_card(server: Running) -> Any:
    return httpx.get(f"{server.url}/v1/models/tiny").json()


# Many at once


def test_thirty_two_at_once_get_what_they_get_one_by_one(serve: Serve) -> None:
    bodies = [
        {"model": "tiny", "messages": [{"role": "user", "content": f"Number {i}. " + "And so on. " * (i % 5)}],
         "max_tokens": 3 + i % 13, "temperature": (0, 0.7, 1.4)[i % 3], "seed": i, "stream": i % 4 == 0}
        for i in range(32)
    ]  # fmt: skip

    def text(response: Any) -> str:
        assert response.status_code == 200, response.text
        if not response.headers["content-type"].startswith("text/event-stream"):
            return response.json()["choices"][0]["message"]["content"]
        events = [line[6:] for line in response.text.split("\n\n") if line]
        assert events.pop() == "[DONE]"
        return "".join(json.loads(e)["choices"][0]["delta"].get("content", "") for e in events)

    with serve(queue=32, batch_size=8) as server:
        one_by_one = [text(post(server, body)) for body in bodies]
        assert len(set(one_by_one)) > 20
        with ThreadPoolExecutor(32) as pool:
            together = [text(r) for r in pool.map(lambda body: post(server, body), bodies)]
        assert together == one_by_one
        until(lambda: server.engine.waiting == server.engine.running == 0)


def test_waiting_requests_share_a_batch(serve: Serve, policy: Policy, slow: threading.Event) -> None:
    rows: list[int] = []
    original = policy.model.generate

    def counted(*args: Any, **kwargs: Any) -> Any:
        rows.append(len(kwargs["input_ids"]))
        return original(*args, **kwargs)

    policy.model.generate = counted
    with serve(batch_size=4) as server, ThreadPoolExecutor(8) as pool:
        first = pool.submit(post, server, BODY)
        until(lambda: rows == [1])
        others = [pool.submit(post, server, BODY) for _ in range(6)]
        until(lambda: server.engine.waiting == 6)
        slow.set()
        assert [f.result().status_code for f in [first, *others]] == [200] * 7
    assert rows == [1, 4, 2]


# What is refused


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": [{"role": "robot", "content": "Hi"}]}, "messages[0]"),
        ({"messages": [{"role": ["user"], "content": "Hi"}]}, "messages[0]"),
        ({"messages": [{"role": "user"}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": "half \ud800 a character"}]}, "messages"),
        ({"model": None}, "model"),
        ({"model": 7}, "model"),
        ({"n": 2}, "n"),
        ({"n": 0}, "n"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"other": True}}, "stream_options"),
        ({"stream": True, "stream_options": []}, "stream_options"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": "warm"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": 2000}, "max_tokens"),
        ({"max_tokens": 511}, "max_tokens"),
        ({"max_tokens": 4, "max_completion_tokens": 5}, "max_tokens"),
        ({"seed": 1.5}, "seed"),
        ({"stop": ""}, "stop"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": [7]}, "stop"),
        ({"stop": "x" * 300}, "stop"),
        ({"tools": "hammer"}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"logprobs": True, "stream": True}, "logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"attributes": [0.5]}, "attributes"),
        ({"attributes": {"helpfulness": "high"}}, "attributes"),
        ({"attributes": {"helpfulness": 0.9}}, "attributes"),
        ({"temprature": 1}, "temprature"),
    ],
)  # fmt: skip
def test_bodies_that_make_no_sense(shared_server: Running, change: dict[str, Any], param: str) -> None:
    response = post(shared_server, {**BODY, **change})
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert error["message"]


def test_neutral_values_of_what_we_cannot_do_are_fine(server: Running) -> None:
    more = {"frequency_penalty": 0.0, "presence_penalty": 0, "logit_bias": {}, "logprobs": False, "top_logprobs": None,
            "response_format": {"type": "text"}, "stop": None, "stream": None, "tools": [], "attributes": {},
            "metadata": {"a": "b"}, "tool_choice": "none", "parallel_tool_calls": True}  # fmt: skip
    assert post(server, {**BODY, **more}).status_code == 200


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"[]", b'"text"', b"\xff\xfe", b'{"model": NaN}', b"[" * 200_000, b'{"seed": ' + b"9" * 5000 + b"}"],
)
def test_bodies_that_are_no_json_object(shared_server: Running, raw: bytes) -> None:
    response = post(shared_server, raw)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert len(response.content) < 1000


def test_errors_as_openais_client_sees_them(serve: Serve) -> None:
    with serve(key="sesame") as server:
        ask = client(server, "sesame").chat.completions.create
        with pytest.raises(openai.BadRequestError) as bad:
            ask(model="tiny", messages=HI, temperature=-1)
        assert bad.value.param == "temperature"
        with pytest.raises(openai.NotFoundError) as unknown:
            ask(model="gpt-4", messages=HI)
        assert unknown.value.code == "model_not_found"
        for key in ("wrong", "s\u00e9same", "sesame2"):
            headers = {"authorization": f"Bearer {key}".encode()}
            response = post(server, BODY, headers=headers)
            assert response.status_code == 401, key
            assert response.json()["error"]["code"] == "invalid_api_key"
            assert "sesame" not in response.text
        with pytest.raises(openai.AuthenticationError):
            client(server, "sesam").models.list()
        assert post(server, BODY).status_code == 401
        assert ask(model="tiny", messages=HI, max_tokens=2).usage.completion_tokens == 2
        assert httpx.get(f"{server.url}/health").status_code == 200  # for those who only look whether it lives


def test_paths_methods_and_kinds_of_body(server: Running) -> None:
    for status, response in (
        (404, httpx.get(f"{server.url}/v1/completions")),
        (404, httpx.get(f"{server.url}/docs")),
        (405, httpx.get(f"{server.url}/v1/chat/completions")),
        (415, post(server, BODY, headers={"content-type": "text/plain"})),
    ):
        assert response.status_code == status
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def test_bodies_that_are_too_large(serve: Serve) -> None:
    with serve(body_bytes=2000) as server:
        for size in (2001, 5000, 50_000):
            response = post(server, {**BODY, "user": "x" * size})
            assert response.status_code == 413
            assert response.json()["error"]["code"] == "body_too_large"
        headers = {"content-type": "application/json"}
        pieces = iter([b"x" * 1000] * 4)  # without a length told in advance
        chunked = httpx.post(f"{server.url}/v1/chat/completions", content=pieces, headers=headers)
        assert chunked.status_code == 413
        assert post(server, BODY).status_code == 200


def test_prompts_that_are_too_long(serve: Serve) -> None:
    long = {**BODY, "messages": [{"role": "user", "content": "word " * 100}]}
    with serve(prompt_tokens=50) as server:
        response = post(server, long)
        assert (response.status_code, response.json()["error"]["code"]) == (400, "context_length_exceeded")
        assert post(server, BODY).status_code == 200
    with serve() as server:
        assert post(server, long).status_code == 200
        longer = {**BODY, "messages": [{"role": "user", "content": "word " * 1000}]}
        assert post(server, longer).json()["error"]["code"] == "context_length_exceeded"
        open_end = {k: v for k, v in long.items() if k != "max_tokens"}  # as many as fit
        counts = post(server, open_end).json()["usage"]
        assert counts["total_tokens"] <= 512


# Lines, time and clients that go away


def test_a_full_line_sends_others_back(serve: Serve, slow: threading.Event) -> None:
    with serve(queue=2, batch_size=1) as server, ThreadPoolExecutor(3) as pool:
        first = pool.submit(post, server, BODY)
        until(lambda: server.engine.running == 1)
        waiting = [pool.submit(post, server, BODY) for _ in range(2)]
        until(lambda: server.engine.waiting == 2)
        with pytest.raises(openai.RateLimitError) as full:
            client(server).chat.completions.create(**BODY)
        assert full.value.response.headers["retry-after"] == "1"
        slow.set()
        assert [f.result().status_code for f in (first, *waiting)] == [200] * 3
        assert post(server, BODY).status_code == 200


def test_nobody_waits_longer_than_the_time_out(serve: Serve, slow: threading.Event) -> None:
    with serve(timeout=0.3, batch_size=1) as server, ThreadPoolExecutor(2) as pool:
        bodies = [BODY, {**BODY, "stream": True}]
        for response in pool.map(lambda body: post(server, body), bodies):
            assert response.status_code == 504
            assert response.json()["error"]["code"] == "timeout"
        slow.set()
        until(lambda: server.engine.running == server.engine.waiting == 0)


def test_a_stream_that_runs_out_of_time_says_so(serve: Serve, policy: Policy, monkeypatch: Any) -> None:
    original = policy.model.forward

    def dawdle(*args: Any, **kwargs: Any) -> Any:
        time.sleep(0.05)
        return original(*args, **kwargs)

    monkeypatch.setattr(policy.model, "forward", dawdle)
    with serve(timeout=0.6) as server:
        response = post(server, {**BODY, "max_tokens": 100, "stream": True, "temperature": 1.5})
        events = [json.loads(e[6:]) for e in response.text.split("\n\n") if e]
        assert response.status_code == 200
        assert events[-1]["error"]["code"] == "timeout"
        assert len(events) > 2


def test_a_client_that_goes_away_costs_nothing_more(serve: Serve, policy: Policy, monkeypatch: Any) -> None:
    steps: list[int] = []
    original = policy.model.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        steps.append(1)
        time.sleep(0.01)
        return original(*args, **kwargs)

    monkeypatch.setattr(policy.model, "forward", counted)
    with serve() as server:
        for stream in (True, False):
            steps.clear()
            body = json.dumps({**BODY, "max_tokens": 400, "temperature": 1.5, "stream": stream}).encode()
            head = (
                f"POST /v1/chat/completions HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n"
            )
            port = int(server.url.rsplit(":", 1)[1])
            with socket.create_connection(("127.0.0.1", port)) as raw:
                raw.sendall(head.encode() + body)
                if stream:
                    assert b"200 OK" in raw.recv(100)
                until(lambda: len(steps) > 3)
            until(lambda: server.engine.running == 0, 5)
            assert len(steps) < 300
        monkeypatch.setattr(policy.model, "forward", original)
        assert post(server, BODY).status_code == 200


def test_a_client_that_goes_away_leaves_the_line(serve: Serve, slow: threading.Event) -> None:
    with serve(batch_size=1) as server, ThreadPoolExecutor(1) as pool:
        first = pool.submit(post, server, BODY)
        until(lambda: server.engine.running == 1)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{server.url}/v1/chat/completions", json=BODY, timeout=0.2)
        until(lambda: server.engine.waiting == 0)
        slow.set()
        assert first.result().status_code == 200


def test_one_request_that_fails_does_not_take_the_others_with_it(
    serve: Serve, policy: Policy, monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A row of which the model chokes, in a batch of five."""
    original = policy.model.generate
    bad = policy.tokenizer.encode("poison", add_special_tokens=False)[0]

    def choke(*args: Any, **kwargs: Any) -> Any:
        if (kwargs["input_ids"] == bad).any():
            raise RuntimeError("it may quote a prompt")
        return original(*args, **kwargs)

    monkeypatch.setattr(policy.model, "generate", choke)
    bodies = [{**BODY, "messages": [{"role": "user", "content": text}]} for text in ("a", "b", "poison", "c", "d")]
    with serve(linger=0.5, batch_size=5) as server, ThreadPoolExecutor(5) as pool:
        responses = list(pool.map(lambda body: post(server, body), bodies))
        assert [r.status_code for r in responses] == [200, 200, 500, 200, 200]
        assert responses[2].json()["error"]["message"] == "the server failed to answer this request."
        assert "a request failed (RuntimeError)" in caplog.text
        assert "in choke" in caplog.text
        assert "quote a prompt" not in caplog.text.replace('RuntimeError("it may quote a prompt")', "the source line")
        assert post(server, BODY).status_code == 200


def test_the_log_has_a_line_a_request_and_no_texts(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with serve(key="sesame") as server:
        headers = {"authorization": "Bearer sesame"}
        answered = post(server, {**BODY, "messages": [{"role": "user", "content": "secret"}]}, headers=headers)
        httpx.get(f"{server.url}/some%0Ainjected?key=sesame")
        post(server, b"{secret", headers=headers)
    lines = [r.getMessage() for r in caplog.records if r.name == "pluralign.serve"]
    assert len(lines) == 3
    counts = answered.json()["usage"]
    assert lines[0].startswith("POST /v1/chat/completions 200 ")
    assert lines[0].endswith(f"prompt={counts['prompt_tokens']} written={counts['completion_tokens']} finish=length")
    assert lines[1].startswith("GET another path 404 ")
    assert lines[2].startswith("POST /v1/chat/completions 400 ")
    ours = "\n".join(r.getMessage() for r in caplog.records if not r.name.startswith(("httpx", "httpcore")))
    assert "secret" not in ours
    assert "sesame" not in ours
    assert "injected" not in ours
