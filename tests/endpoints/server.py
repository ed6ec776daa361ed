"""A server on this machine that speaks chat completions, and fails as it is told to."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[str], Any]


class Scripted:
    """Answers the last message by `answer`; `plan` holds what the next requests get instead.

    In a plan: a status (429), a status with headers ((429, {"Retry-After": "1"})), bytes for a body with status 200,
    "hang" for no answer, "drop" for a connection that ends, None for the normal answer. `usage=None` tells no
    tokens.
    """

    def __init__(self, answer: Answer = lambda text: f"said {text}", models: tuple[str, ...] = ("toy",)) -> None:
        self.answer, self.models = answer, list(models)
        self.plan: list[Any] = []
        self.seen: list[dict[str, Any]] = []  # bodies of questions
        self.keys: list[str | None] = []
        self.headers: list[dict[str, str]] = []
        self.usage: tuple[int, int] | None = (10, 5)
        self.delay = 0.0
        self.at_once = self.most_at_once = 0
        self.error: dict[str, Any] = {"message": "the server says no"}
        self._lock = threading.Lock()
        self._end = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.reply(200, json.dumps({"data": [{"id": name} for name in outer.models]}).encode())

            def do_POST(self) -> None:
                sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer._lock:
                    outer.seen.append(sent)
                    outer.keys.append(self.headers.get("Authorization"))
                    outer.headers.append(dict(self.headers))
                    step = outer.plan.pop(0) if outer.plan else None
                    outer.at_once += 1
                    outer.most_at_once = max(outer.most_at_once, outer.at_once)
                time.sleep(outer.delay)
                with outer._lock:
                    outer.at_once -= 1
                self.act(step, sent)

            def act(self, step: Any, sent: dict[str, Any]) -> None:
                if step == "hang":
                    outer._end.wait(30)
                elif step == "drop":
                    self.connection.close()
                elif isinstance(step, bytes):
                    self.reply(200, step)
                elif step is None:
                    self.reply(200, json.dumps(outer.body(sent)).encode())
                else:
                    status, headers = step if isinstance(step, tuple) else (step, {})
                    self.reply(status, json.dumps({"error": outer.error}).encode(), headers)

            def reply(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
                try:
                    self.send_response(status)
                    for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:  # the client has gone
                    pass

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def body(self, sent: dict[str, Any]) -> dict[str, Any]:
        found = self.answer(sent["messages"][-1]["content"])
        choice = found if isinstance(found, dict) else {"message": {"content": found}, "finish_reason": "stop"}
        body: dict[str, Any] = {"choices": [choice]}
        if self.usage:
            body["usage"] = {"prompt_tokens": self.usage[0], "completion_tokens": self.usage[1]}
        return body

    @property
    def asked(self) -> list[str]:
        """The last message of every question, in the order they came."""
        return [sent["messages"][-1]["content"] for sent in self.seen]

    def close(self) -> None:
        self._end.set()
        self.server.shutdown()
        self.server.server_close()
