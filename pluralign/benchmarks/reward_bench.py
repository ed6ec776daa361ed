"""RewardBench: pairs on chat, hard chat, safety and reasoning that a reward should order (Lambert et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..records import Message
from .kinds.core import Benchmark, Files, Pick, Row, Source, Task
from .kinds.evaluation import no_value
from .kinds.questions import of, text_of
from .kinds.ranking import ACCURACY, AGREEMENT, RANKED, TIES, ranked

if TYPE_CHECKING:
    from ..judging.statistics import Estimate

__all__ = ["BENCHMARK", "extra", "read", "run"]


def read(files: Files, settings: Mapping[str, Any]) -> list[Pick]:
    """A pair a row; its category is its subset."""
    return [
        Pick(
            str(row.get("id", i)),
            (Message("user", text_of(row, "prompt")),),
            (str(of(row, "chosen")),),
            (str(of(row, "rejected")),),
            text_of(row, "subset"),
        )
        for i, row in enumerate(files("questions"))
    ]


def run(task: Task) -> Iterator[Row]:
    """A row a pair."""
    yield from ranked(task)


def extra(rows: Sequence[Row], settings: Mapping[str, Any]) -> dict[str, Estimate]:
    """`overall` and the four sections, weighted as published; none where a subset is not one of RewardBench's."""
    from ..errors import RecordError
    from ..judging.reward_bench import reward_bench_1

    won = [ACCURACY.value(row) for row in rows]
    try:
        found = reward_bench_1(won, [None if w is None else 0.5 for w in won], [str(r["category"]) for r in rows])
    except RecordError as error:
        return {"overall": no_value(error.reason, len(rows))}
    return {"overall": found.overall, **found.sections}


BENCHMARK = Benchmark(
    name="reward-bench",
    title="RewardBench",
    paper="Lambert et al. 2024, arXiv 2403.13787",
    measures="pairs that a reward orders as people do, by four sections",
    kind="ranked",
    n=2985,
    sources={"questions": Source("reward_bench/filtered.jsonl.gz", "allenai/reward-bench", "filtered", "ODC-BY")},
    read=read,
    run=run,
    metrics=(ACCURACY, TIES, AGREEMENT),
    extra=extra,
    settings=RANKED,
    judge="optional",
    note="Its five LLMBar subsets can be had alone: llmbar.",
)
