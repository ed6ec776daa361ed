"""MT-Bench: 80 questions of two turns, rated 1 to 10 by a judge, or compared with others (Zheng et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .kinds.answering import BY_CATEGORY, INSPO, SGA
from .kinds.core import Benchmark, Files, Metric, Open, Row, Source, Task
from .kinds.questions import of, text_of
from .kinds.ratings import rated
from .kinds.systems import saved_answers
from .kinds.versus import AGREED, WON, compared

__all__ = ["BENCHMARK", "TEMPERATURES", "read", "run"]

# FastChat's `temperature_config`; a category that is not named is answered greedily
TEMPERATURES = {"writing": 0.7, "roleplay": 0.7, "stem": 0.1, "humanities": 0.1}
WITH_REFERENCE = ("math", "reasoning", "coding")


def read(files: Files, settings: Mapping[str, Any]) -> list[Open]:
    """The questions. Math, reasoning and coding have reference answers: those of the file, else the question's own."""
    rows = files("questions")
    known = saved_answers("references", files("references")) if files.has("references") else None
    out = []
    for row in rows:
        own = str(of(row, "question_id", kind=(int, str)))
        item = Open(own, tuple(map(str, of(row, "turns", kind=list))), text_of(row, "category"))
        references: tuple[str, ...] = ()
        if item.category in WITH_REFERENCE:
            found = known.find(item) if known is not None else None
            references = found or tuple(map(str, row.get("reference") or ()))
        out.append(Open(item.id, item.turns, item.category, references))
    return out


def run(task: Task) -> Iterator[Row]:
    """A row a turn: a rating, or a verdict where there are answers to hold these against."""
    if any(item.other for item in task.items):
        yield from compared(task, by_category=TEMPERATURES)
    else:
        yield from rated(task, by_category=TEMPERATURES)


def _of_turn(turn: int | None) -> Callable[[Row], float | None]:
    return lambda row: row.get("rating") if turn in (None, row.get("turn")) else None


BENCHMARK = Benchmark(
    name="mt-bench",
    title="MT-Bench",
    paper="Zheng et al. 2023, arXiv 2306.05685",
    measures="two-turn answers, rated 1 to 10; with --against, win rate",
    kind="rated",
    n=80,
    sources={
        "questions": Source("benchmark_questions/mt_bench_question.jsonl.gz", "HuggingFaceH4/mt_bench_prompts",
                            "train", "Apache-2.0"),
        "references": Source("benchmark_questions/mt_bench_reference_gpt4.jsonl.gz"),
    },
    read=read,
    run=run,
    metrics=(Metric("rating", _of_turn(None)), Metric("turn_1", _of_turn(1)), Metric("turn_2", _of_turn(2)),
             WON, AGREED),
    settings={
        "default": {**INSPO, "temperature": BY_CATEGORY, "max_new_tokens": 1024, "top_p": 1.0},
        "inspo": INSPO,
        "sga": SGA,
    },
    judge="rating",
    note="Temperature by category as published: .7 writing and roleplay, .1 stem and humanities, else 0.",
)  # fmt: skip
