"""AlpacaEval 2: 805 instructions, held against GPT-4-turbo's answers by a judge (Dubois et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .kinds.answering import GENERATION
from .kinds.core import Benchmark, Files, Open, Row, Source, Task
from .kinds.evaluation import no_value
from .kinds.kept import short
from .kinds.questions import text_of
from .kinds.versus import AGREED, WON, compared

if TYPE_CHECKING:
    from ..judging.statistics import Estimate

__all__ = ["BENCHMARK", "extra", "read", "run"]


def read(files: Files, settings: Mapping[str, Any]) -> list[Open]:
    """The instructions with the baseline's output; an instruction is told by its text, wherever it stands."""
    return [
        Open(
            short(text_of(row, "instruction")),
            (text_of(row, "instruction"),),
            str(row.get("dataset", "")),
            other=(str(row["output"]),) if isinstance(row.get("output"), str) else (),
        )
        for row in files("questions")
    ]


def run(task: Task) -> Iterator[Row]:
    """A row an instruction."""
    yield from compared(task)


def extra(rows: Sequence[Row], settings: Mapping[str, Any]) -> dict[str, Estimate]:
    """`length_controlled`: the win rate at equal length, by the published fit without the difficulties and the gamed
    rows that are not at hand; its interval is that of the whole fit. No value where there are too few rows to fit."""
    from ..judging.length_controlled import length_controlled_win_rate

    judged = [row for row in rows if row.get("length")]
    read = [row["score"] for row in judged if row["score"] is not None]
    if len(read) < FOLDS or len(set(read)) < 2:  # from verdicts that are all the same no effect of length is told
        why = f"fewer than {FOLDS} verdicts" if len(read) < FOLDS else "all verdicts are the same"
        return {"length_controlled": no_value(why, len(rows))}
    found = length_controlled_win_rate(
        [row["score"] for row in judged],
        [row["length"][1] for row in judged],
        [row["length"][0] for row in judged],
        variant="length_controlled_minimal",
    )
    return {"length_controlled": found.rate}


FOLDS = 5  # of the fit's cross-validation
BENCHMARK = Benchmark(
    name="alpaca-eval",
    title="AlpacaEval 2",
    paper="Dubois et al. 2024, arXiv 2404.04475",
    measures="win rate over GPT-4-turbo, also with length held equal",
    kind="compared",
    n=805,
    sources={
        "questions": Source("benchmark_questions/alpaca_eval_gpt4_turbo_baseline.jsonl.gz", "tatsu-lab/alpaca_eval",
                            "eval", "CC BY-NC 4.0"),
    },
    read=read,
    run=run,
    metrics=(WON, AGREED),
    extra=extra,
    settings=GENERATION,
    judge="pairwise",
    styles={"": "alpaca-eval"},
    note="The published judge is gpt-4-1106-preview in one order drawn at random; here every pair is judged in both.",
)  # fmt: skip
