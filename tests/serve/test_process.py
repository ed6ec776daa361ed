"""The real process: it starts, serves, and ends in good order."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pluralign.errors import PluralignError, SettingsError
from pluralign.policy import Policy
from pluralign.serve import Limits
from pluralign.serve.server import public_name, serve
from tests.cli.conftest import environment

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
httpx = pytest.importorskip("httpx")

COMMAND = "import typer; from pluralign.cli.serve import serve; app = typer.Typer(); app.command()(serve); app()"
BODY = {"model": "model", "messages": [{"role": "user", "content": "Hi"}], "temperature": 1.5, "stream": True}


class Process:
    """`pluralign serve` on a free port; what it says on stderr is collected."""

    def __init__(self, folder: Path, model: str, *options: str, **env: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, model, "--port", "0", *options], cwd=folder,
            env=environment(folder, **env), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.said: list[str] = []
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            found = re.search(r"at (http://\S+)/v1", line)
            if found:
                self.url = found[1]
                break
        else:
            raise AssertionError("".join(self.said))
        self.listener = threading.Thread(target=lambda: self.said.extend(self.process.stderr))  # type: ignore[arg-type]
        self.listener.start()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait(30)
        self.listener.join(30)
        self.process.stdout.close()  # type: ignore[union-attr]
        self.process.stderr.close()  # type: ignore[union-attr]

    def end(self) -> tuple[int, str]:
        """(exit code, what was said)."""
        code = self.process.wait(60)
        self.listener.join(30)
        return code, "".join(self.said)


def test_a_signal_lets_accepted_requests_finish(tiny_model: str, tmp_path: Path) -> None:
    with Process(tmp_path, tiny_model, PLURALIGN_API_KEY="sesame") as process:
        headers = {"authorization": "Bearer sesame"}
        assert httpx.get(f"{process.url}/v1/models").status_code == 401
        listed = httpx.get(f"{process.url}/v1/models", headers=headers).json()["data"]
        body = {**BODY, "max_tokens": 400, "model": listed[0]["id"]}
        with httpx.stream(
            "POST", f"{process.url}/v1/chat/completions", json=body, headers=headers, timeout=60
        ) as response:
            assert response.status_code == 200
            lines = response.iter_lines()
            next(lines)
            process.process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + 10
            while httpx.get(f"{process.url}/health").status_code != 503:
                assert time.monotonic() < deadline
            refused = httpx.post(f"{process.url}/v1/chat/completions", json=body, headers=headers)
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "shutting_down"
            rest = [line[6:] for line in lines if line.startswith("data: ")]
        assert rest[-1] == "[DONE]"
        assert json.loads(rest[-2])["choices"][0]["finish_reason"] in ("length", "stop")
        code, said = process.end()
        assert code == 0
        assert "Traceback" not in said
        assert "sesame" not in said
        assert said.count("POST /v1/chat/completions 200") == said.count("POST /v1/chat/completions 503") == 1
        assert said.rstrip().endswith("stopped; every accepted request was answered or told so.")


def test_the_grace_period_ends(tiny_model: str, tmp_path: Path) -> None:
    """Who is not done by then is told so, and the exit is as clean."""
    with Process(tmp_path, tiny_model, "--grace", "0", "--name", "model") as process:
        with httpx.stream(
            "POST", f"{process.url}/v1/chat/completions", json={**BODY, "max_tokens": 500}, timeout=60
        ) as response:
            lines = response.iter_lines()
            next(lines)
            process.process.send_signal(signal.SIGINT)
            rest = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
        assert rest[-1]["error"]["code"] == "shutting_down"
        assert process.end()[0] == 0


def test_addresses_that_cannot_be(policy: Policy) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"cannot listen on 127.0.0.1:{port}"):
            serve(policy, port=port)
    with pytest.raises(SettingsError, match="port must lie between"):
        serve(policy, port=70000)


def test_without_the_extra_the_remedy_is_named(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(PluralignError, match=r'pip install "pluralign\[serve\]"'):
        serve(policy, port=0)


def test_names_and_limits(tmp_path: Path) -> None:
    (tmp_path / "runs" / "sga" / "model").mkdir(parents=True)
    assert public_name(str(tmp_path / "runs" / "sga")) == "sga"
    assert public_name(str(tmp_path / "runs" / "sga" / "model")) == "sga"
    assert public_name("Qwen/Qwen3-0.6B") == "Qwen/Qwen3-0.6B"
    for wrong in ({"queue": 0}, {"timeout": 0}, {"grace": -1}, {"body_bytes": 0}, {"prompt_tokens": 0}):
        with pytest.raises(SettingsError, match=next(iter(wrong))):
            Limits(**wrong)  # type: ignore[arg-type]
