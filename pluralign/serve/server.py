"""The server as a process: a socket, signals, and an end in good order. Needs the extra `serve`."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import PluralignError, SettingsError
from .engine import Engine
from .limits import Limits

if TYPE_CHECKING:
    from ..policy import Policy

__all__ = ["API_KEY", "public_name", "serve", "uvicorn_of_extra"]

API_KEY = "PLURALIGN_API_KEY"  # the environment variable: keys do not belong on command lines, which others can list


def serve(
    policy: Policy,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    name: str | None = None,
    limits: Limits | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve a policy under /v1 until SIGINT or SIGTERM; then finish what was accepted, within the grace period.

    `port` 0 takes any that is free; `on_ready` is handed the address. Clients have to present the key in the
    environment variable PLURALIGN_API_KEY, where it is set. A second signal ends it at once.
    Raises PluralignError without the extra `serve`, SettingsError where it cannot listen.
    """
    uvicorn = uvicorn_of_extra()
    from .app import build

    listening = _listen(host, port)
    engine = Engine(policy, limits).start()
    app = build(engine, name or public_name(policy.name), key=os.environ.get(API_KEY) or None)
    config = uvicorn.Config(app, log_config=None, access_log=False, server_header=False, lifespan="off",
                            timeout_graceful_shutdown=3)  # fmt: skip
    server = uvicorn.Server(config)
    server.handle_exit = _stopper(server, engine)
    bound = listening.getsockname()[1]
    if on_ready:
        on_ready(f"http://{f'[{host}]' if ':' in host else host}:{bound}/v1")
    try:
        server.run(sockets=[listening])
    finally:
        engine.close()
        listening.close()


def _stopper(server: Any, engine: Engine) -> Callable[[int, Any], None]:
    """What a signal does: the first lets the accepted requests end, the second does not."""

    def drain() -> None:
        engine.stop()
        engine.drain(engine.limits.grace)
        engine.close()
        server.should_exit = True

    asked: list[int] = []

    def on_signal(number: int, frame: Any) -> None:
        asked.append(number)
        if len(asked) == 1:  # not here: the thread that was interrupted may hold the engine's lock
            threading.Thread(target=drain, name="pluralign-drain", daemon=True).start()
        else:
            server.should_exit = server.force_exit = True

    return on_signal


def uvicorn_of_extra() -> Any:
    """uvicorn. Raises PluralignError where the extra `serve` is not installed."""
    try:
        import fastapi  # noqa: F401
        import uvicorn
    except ImportError:
        raise PluralignError(
            "serving needs fastapi and uvicorn, which are not installed.", remedy='pip install "pluralign[serve]"'
        ) from None
    return uvicorn


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise SettingsError(f"port must lie between 0 and 65535, not {port}.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise SettingsError(
            f"cannot listen on {host}:{port}: {error.strerror or error}.", remedy="Choose another --port or --host."
        ) from None


def public_name(name: str) -> str:
    """What clients call a policy: a hub name as it is, a folder without the way to it."""
    path = Path(name)
    if not path.is_dir():
        return name
    path = path.resolve()
    return path.parent.name if path.name == "model" and path.parent.name else path.name
