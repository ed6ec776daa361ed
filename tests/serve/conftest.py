"""A server on a free port of this machine, over the tiny model of the training tests."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from pluralign.policy import Policy
from pluralign.serve import Engine, Limits
from tests.training.conftest import tiny_model  # noqa: F401 - a fixture


@pytest.fixture(scope="session")
def policy(tiny_model: str) -> Policy:  # noqa: F811 - the fixture
    """Spread out, so that its choices are not all ties."""
    loaded = Policy.load(tiny_model, precision="fp32")
    torch.manual_seed(1)
    with torch.no_grad():
        for p in loaded.model.parameters():
            p.add_(torch.randn_like(p) * 0.3)
    return loaded


@pytest.fixture
def slow(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """The model takes no step until this event is set: whatever is asked for before stays unanswered."""
    go = threading.Event()
    original = policy.model.generate

    def generate(*args: Any, **kwargs: Any) -> Any:
        assert go.wait(60)
        return original(*args, **kwargs)

    monkeypatch.setattr(policy.model, "generate", generate)
    return go


class Running:
    """A server in a thread: its address, and its engine."""

    def __init__(self, engine: Engine, url: str) -> None:
        self.engine, self.url = engine, url


Serve = Callable[..., "contextlib.AbstractContextManager[Running]"]


@contextlib.contextmanager
def running(policy: Policy, key: str | None = None, **limits: Any) -> Iterator[Running]:
    """A server as the model `tiny`, with the rights of `key`; other keywords are limits."""
    pytest.importorskip("fastapi")
    uvicorn = pytest.importorskip("uvicorn")
    from pluralign.serve.app import build
    from pluralign.serve.server import _listen

    engine = Engine(policy, Limits(**limits)).start()
    listening = _listen("127.0.0.1", 0)
    app = build(engine, "tiny", key=key)
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield Running(engine, f"http://127.0.0.1:{listening.getsockname()[1]}")
    finally:
        engine.close()
        server.should_exit = True
        thread.join(20)
        listening.close()
        assert not thread.is_alive()


@pytest.fixture
def serve(policy: Policy) -> Serve:
    """`with serve(key=..., queue=2) as server:`; other keywords are limits."""
    return functools.partial(running, policy)


@pytest.fixture
def server(serve: Serve) -> Iterator[Running]:
    with serve() as one:
        yield one


@pytest.fixture(scope="module")
def shared_server(policy: Policy) -> Iterator[Running]:
    """One server for many requests that are all refused."""
    with running(policy) as one:
        yield one
