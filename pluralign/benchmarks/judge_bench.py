"""JudgeBench: does a judge tell the right answer from the wrong one on knowledge, reasoning, math and code?
(Tan et al. 2025)"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import RecordError
from ..records import Message
from .kinds.core import Benchmark, Files, Metric, Pick, Row, Source, Task
from .kinds.kept import short
from .kinds.questions import of, text_of
from .kinds.ranking import ACCURACY, AGREEMENT, ONE_ORDER, RANKED, TIES, ranked

__all__ = ["BENCHMARK", "by_sum", "read", "run"]

CATEGORIES = {"mmlu-pro": "knowledge", "livebench-reasoning": "reasoning", "livebench-math": "math",
              "livecodebench": "coding"}  # fmt: skip


def read(files: Files, settings: Mapping[str, Any]) -> list[Pick]:
    """A pair a row; the category is the paper's, told by the source of the question."""
    return [_item(row) for row in files("questions")]


def _item(row: Row) -> Pick:
    label = of(row, "label")
    if label not in ("A>B", "B>A"):
        raise RecordError(f'"label" is A>B or B>A, not {label}.', where=str(row.get("_where", "")))
    sides = [str(of(row, "response_A")), str(of(row, "response_B"))]
    right, wrong = sides if label == "A>B" else sides[::-1]
    question, source = text_of(row, "question"), text_of(row, "source")
    category = next((name for start, name in CATEGORIES.items() if source.startswith(start)), source)
    return Pick(text_of(row, "pair_id"), (Message("user", question),), (right,), (wrong,), category, short(question))


def run(task: Task) -> Iterator[Row]:
    """A row a pair."""
    yield from ranked(task)


def by_sum(row: Row) -> float | None:
    """The paper's verdict: the two games together are for the right answer (one win and one tie are)."""
    games = [game for one in row.get("games") or () for game in one]
    if not games or any(game["outcome"] is None for game in games):
        return None
    return float(sum({"win": 1, "tie": 0, "loss": -1}[game["outcome"]] for game in games) > 0)


BENCHMARK = Benchmark(
    name="judge-bench",
    title="JudgeBench",
    paper="Tan et al. 2025, arXiv 2410.12784",
    measures="judges: the objectively right answer",
    kind="ranked",
    n=350,
    sources={
        "questions": Source("judgebench/gpt4o_pairs.jsonl.gz", "ScalerLab/JudgeBench", "gpt", "none given"),
    },
    read=read,
    run=run,
    metrics=(ACCURACY, Metric("accuracy_by_sum", by_sum, kind="share"), ONE_ORDER, AGREEMENT, TIES),
    settings=RANKED,
    judge="optional",
    note="accuracy: right in both orders; accuracy by sum is the paper's.",
)
