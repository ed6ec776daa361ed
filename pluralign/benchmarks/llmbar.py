"""LLMBar: does a judge see which output follows the instruction, where the other looks better? (Zeng et al. 2024)"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import RecordError
from ..records import Message
from .kinds.core import Benchmark, Files, Pick, Row, Source, Task
from .kinds.questions import of, text_of
from .kinds.ranking import ACCURACY, AGREEMENT, ONE_ORDER, RANKED, TIES, ranked

__all__ = ["BENCHMARK", "read", "run"]

SUBSETS = {"questions": "Natural", "neighbor": "Neighbor", "gptinst": "GPTInst", "gptout": "GPTOut", "manual": "Manual"}


def read(files: Files, settings: Mapping[str, Any]) -> list[Pick]:
    """The five subsets in the paper's order; where the questions are a file of one's own, that alone."""
    roles = list(SUBSETS) if all(files.has(role) for role in SUBSETS) else ["questions"]
    return [_item(SUBSETS[role], i, row) for role in roles for i, row in enumerate(files(role))]


def _item(subset: str, i: int, row: Row) -> Pick:
    label = of(row, "label", kind=int)
    if label not in (1, 2):
        raise RecordError(f'"label" is 1 or 2, not {label}.', where=str(row.get("_where", "")))
    outputs = [str(of(row, "output_1")), str(of(row, "output_2"))]
    right, wrong = outputs[label - 1], outputs[2 - label]
    return Pick(f"{subset} {i}", (Message("user", text_of(row, "input")),), (right,), (wrong,), subset)


def run(task: Task) -> Iterator[Row]:
    """A row a pair."""
    yield from ranked(task)


ADVERSARIAL = "llmbar/LLMBar_Adversarial_"
BENCHMARK = Benchmark(
    name="llmbar",
    title="LLMBar",
    paper="Zeng et al. 2024, arXiv 2310.07641",
    measures="judges: instruction following against good looks",
    kind="ranked",
    n=419,
    sources={
        "questions": Source("llmbar/LLMBar_Natural.jsonl.gz", licence="MIT"),
        "neighbor": Source(f"{ADVERSARIAL}Neighbor.jsonl.gz"),
        "gptinst": Source(f"{ADVERSARIAL}GPTInst.jsonl.gz"),
        "gptout": Source(f"{ADVERSARIAL}GPTOut.jsonl.gz"),
        "manual": Source(f"{ADVERSARIAL}Manual.jsonl.gz"),
    },
    read=read,
    run=run,
    metrics=(ACCURACY, ONE_ORDER, AGREEMENT, TIES),
    settings=RANKED,
    judge="optional",
    note="accuracy: right in both orders; accuracy by game is the paper's, the mean over the two orders.",
)
