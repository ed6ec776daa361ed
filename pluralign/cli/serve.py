"""`pluralign serve`: a policy behind OpenAI's chat completions."""

from __future__ import annotations

import sys

import typer

from .console import note, quiet_libraries, warn

__all__ = ["EPILOG", "serve"]

EPILOG = """\b
Examples:
  pluralign serve runs/sga --port 8000
  pluralign serve runs/sga --host 0.0.0.0 --max-tokens 512 --queue 128      (set PLURALIGN_API_KEY first)

\b
Clients of OpenAI's chat completions work unchanged: base URL http://127.0.0.1:8000/v1. A policy that was trained with
scores also takes `attributes` ({"helpfulness": 0.9}) in the body, and says in the answer which it used and sensed.
Clients must present the key in the environment variable PLURALIGN_API_KEY, where it is set. Ctrl-C or SIGTERM lets
accepted requests finish. Needs: pip install "pluralign[serve]".
"""


def serve(
    model: str = typer.Argument(..., help="Hub model, folder, run folder, or `embedded`."),
    host: str = typer.Option("127.0.0.1", help="The address to listen on; 0.0.0.0 is every network."),
    port: int = typer.Option(8000, help="The port; 0 takes any that is free."),
    name: str | None = typer.Option(None, help="What clients call the model (default: its name)."),
    batch_size: int = typer.Option(16, min=1, help="Requests answered together."),
    queue: int = typer.Option(64, min=1, help="Requests that may wait; further ones are told to come back (429)."),
    max_tokens: int = typer.Option(1024, min=1, help="Tokens of an answer, at most, and where a request names none."),
    max_prompt_tokens: int | None = typer.Option(None, min=1, help="Tokens of a prompt (default: what fits)."),
    max_body: int = typer.Option(1_048_576, min=1, help="Bytes of a request."),
    timeout: float = typer.Option(300.0, help="Seconds for a request, waiting included (504 after that)."),
    grace: float = typer.Option(30.0, help="Seconds for accepted requests once the server is told to stop."),
    trust_remote_code: bool = typer.Option(False, "--trust-remote-code", help="Run code that comes with the model."),
) -> None:
    """Serve a policy to clients of OpenAI's chat completions."""
    quiet_libraries()
    import logging
    import os

    from ..serve import Limits
    from ..serve.server import API_KEY, serve, uvicorn_of_extra

    uvicorn_of_extra()  # before a model is loaded for nothing
    limits = Limits(body_bytes=max_body, prompt_tokens=max_prompt_tokens, max_tokens=max_tokens, queue=queue,
                    batch_size=batch_size, timeout=timeout, grace=grace)  # fmt: skip
    if host not in ("127.0.0.1", "::1", "localhost") and not os.environ.get(API_KEY):
        warn(f"anybody who reaches {host}:{port} can use the model; {API_KEY} is not set.")
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(message)s")
    logging.getLogger("pluralign.serve").setLevel(logging.INFO)
    from ..policy import Policy

    policy = Policy.load(model, trust_remote_code=trust_remote_code)
    serve(
        policy, host=host, port=port, name=name, limits=limits,
        on_ready=lambda url: note(f"serving {policy.name} at {url} (Ctrl-C stops)"),
    )  # fmt: skip
    note("stopped; every accepted request was answered or told so.")
