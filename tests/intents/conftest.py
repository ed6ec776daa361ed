from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

from pluralign.endpoints import Endpoint
from pluralign.intents import Asking
from pluralign.records import Demonstration, Record, messages
from tests.endpoints.conftest import pauses  # noqa: F401 - a fixture
from tests.endpoints.server import Scripted


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    for name in ("PLURALIGN_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    made = Scripted(sensible)
    yield made
    made.close()


@pytest.fixture
def asking(server: Scripted, tmp_path) -> Callable[..., Asking]:
    """`asking()`: the scripted server with a cache on disk; `again=` draws of what cannot be read."""

    def made(again: int = 2, workers: int = 4) -> Asking:
        return Asking(Endpoint.open(server.url, workers=workers, cache=tmp_path / "replies"), again)

    return made


def record(text: str, **fields) -> Record:
    return Demonstration(prompt=messages(text), response=messages("fine", role="assistant"), **fields)


def block(text: str, label: str) -> str:
    """What stands between the marks of a label in a prompt."""
    found = re.search(rf"<<<{label} (\w+)\n(.*?)\n\1 {label}>>>", text, re.S)
    return found[2] if found else ""


def stage_of(text: str) -> str:
    """Which stage of the pipeline asks."""
    for start, name in (
        ("Name the 3 to 5", "dimensions"), ("For each element", "beliefs"), ("Below are candidates", "calibrate"),
        ("Work out what", "core"), ("You check one", "facts"), ("Second:", "references"), ("Third:", "judgement"),
        ("Name what the author", "intent"),
    ):  # fmt: skip
        if text.startswith(start):
            return name
    return ""


def sensible(text: str) -> str:
    """An endpoint that answers every question of the pipeline in its form. A sentence with "moon" is contradicted, one
    with "Mars" cannot be verified."""
    stage = stage_of(text)
    question = block(text, "question")
    if stage == "dimensions":
        return "<" + ", ".join(question.rstrip("?.").split()[-3:]) + ">"
    if stage in ("beliefs", "calibrate"):
        names = block(text, "elements").splitlines() or [
            line.partition(":")[0] for line in block(text, "candidates").splitlines()
        ]
        return "\n".join(f"{name}: {{{', '.join(f'{name} {i}' for i in range(8))}}}" for name in names)
    if stage == "core":
        return f"Steps:\n1. {question}\n2. Tea is a drink.\n3. The moon is tea.\nIntent: learn; drink tea"
    if stage == "facts":
        return "<No Facts>" if block(text, "sentence").endswith("?") else "<Facts Present>"
    if stage == "references":
        if "Mars" in block(text, "sentence"):
            return "<No Reference Information>"
        return block(text, "document").split("\n")[0]
    if stage == "judgement":
        return "<Contradictory>" if "moon" in block(text, "sentence") else "<No Hallucination>"
    return "<intent>learn something</intent>"
