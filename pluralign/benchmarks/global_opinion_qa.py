"""GlobalOpinionQA: whose opinions, by country, does a model's choice of answers resemble? (Durmus et al. 2024)"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .kinds.choices import LETTERS, lettered
from .kinds.core import Benchmark, Choice, Files, Row, Source, Task
from .kinds.kept import short
from .kinds.questions import of, text_of
from .kinds.shares import ASK, SHARES, far, shared, shares_of

__all__ = ["BENCHMARK", "read", "run"]


def read(files: Files, settings: Mapping[str, Any]) -> list[Choice]:
    """An item for each question and country; with `persona` the question asks how somebody there would answer."""
    persona = bool(settings["persona"])
    return [_item(i, row, persona) for i, row in enumerate(files("questions"))]


def _item(i: int, row: Row, persona: bool) -> Choice:
    country, question = text_of(row, "country"), text_of(row, "question")
    options = [str(option) for option in of(row, "options", kind=list)]
    shares = shares_of(row, row.get("distribution"), options)
    said = f"How would somebody from {country} answer this?\n\n{question}" if persona else question
    prompt = lettered(said, options, ASK)
    return Choice(str(i), prompt, tuple(LETTERS[: len(options)]), shares, country, short(question))


def run(task: Task) -> Iterator[Row]:
    """A row for each question and country; questions are the clusters, since many countries answer the same one."""
    yield from shared(task)


BENCHMARK = Benchmark(
    name="global-opinion-qa",
    title="GlobalOpinionQA",
    paper="Durmus et al. 2024, arXiv 2306.16388",
    measures="distance from the opinions of 138 countries (Jensen-Shannon)",
    kind="shares",
    n=4062,
    sources={"questions": Source("opinion_distributions/globalopinionqa_eval.jsonl.gz", licence="CC BY-NC-SA 4.0")},
    read=read,
    run=run,
    metrics=SHARES,
    extra=far,
    settings={"default": {"form": "chat", "primer": "", "persona": False}, "persona": {"persona": True}},
    note="The rows read here are those of a public copy, one a question and country; the hub's table holds all "
         "countries of a question in one row.",
)  # fmt: skip
