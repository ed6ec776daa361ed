"""Arena-Hard-Auto v2.0: 500 hard prompts and 250 of creative writing, with a baseline for each (Li et al. 2025)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .arena_hard import read, run, scores
from .kinds.answering import GENERATION
from .kinds.core import Benchmark, Row, Source
from .kinds.versus import AGREED, WON

if TYPE_CHECKING:
    from ..judging.statistics import Estimate

__all__ = ["BENCHMARK", "extra"]


def extra(rows: Sequence[Row], settings: Mapping[str, Any]) -> dict[str, Estimate]:
    """As in v0.1, by the rules of v2: a prompt with an unread game is left out whole."""
    return scores(rows, "v2")


BENCHMARK = Benchmark(
    name="arena-hard-v2",
    title="Arena-Hard v2.0",
    paper="Li et al. 2024, arXiv 2406.11939, and its repository of 2025",
    measures="win rate over o3-mini (hard prompts) and gemini-2.0-flash (creative writing)",
    kind="compared",
    n=750,
    sources={
        "questions": Source("benchmark_questions/arena_hard_v2.0_question.jsonl.gz", licence="Apache-2.0"),
        "answers": Source("benchmark_questions/arena_hard_v2.0_answer.jsonl.gz", licence="Apache-2.0"),
    },
    read=read,
    run=run,
    metrics=(WON, AGREED),
    extra=extra,
    settings=GENERATION,
    judge="pairwise",
    styles={"": "arena-hard", "creative_writing": "arena-hard-creative"},
    note="The baselines' answers do not come along: name a file of them with --against.",
)
