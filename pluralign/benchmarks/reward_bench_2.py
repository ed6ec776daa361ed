"""RewardBench 2: one right response among four, and questions with many right answers (Malik et al. 2025)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import RecordError
from ..records import Message
from .kinds.core import Benchmark, Files, Metric, Pick, Row, Source, Task
from .kinds.evaluation import no_value
from .kinds.questions import of, text_of
from .kinds.ranking import ACCURACY, RANKED, ranked

if TYPE_CHECKING:
    from ..judging.statistics import Estimate

__all__ = ["BENCHMARK", "credit", "extra", "read", "run"]


def read(files: Files, settings: Mapping[str, Any]) -> list[Pick]:
    """An item a row; `chosen` and `rejected` are lists of responses."""
    out = []
    for i, row in enumerate(files("questions")):
        right, wrong = (tuple(map(str, of(row, name, kind=list))) for name in ("chosen", "rejected"))
        if not right or not wrong:
            raise RecordError("an item has right and wrong responses.", where=str(row.get("_where", "")))
        prompt = (Message("user", text_of(row, "prompt")),)
        out.append(Pick(str(row.get("id", i)), prompt, right, wrong, text_of(row, "subset")))
    return out


def run(task: Task) -> Iterator[Row]:
    """A row an item."""
    yield from ranked(task)


def credit(row: Row) -> float | None:
    """1 / #maxima where the right one of four is among the likeliest, else 0; None for items with several right ones,
    and where a pair was not read."""
    pairs = row.get("pairs") or []
    if len(pairs) != 1 or any(value is None for value in pairs[0]):
        return None
    return 0.0 if min(pairs[0]) < 0.5 else 1 / (1 + sum(value == 0.5 for value in pairs[0]))


def extra(rows: Sequence[Row], settings: Mapping[str, Any]) -> dict[str, Estimate]:
    """`overall`: the mean of the subsets, Ties by its own formula; it takes scores, which a judge of pairs gives none
    of."""
    from ..errors import RecordError
    from ..judging.reward_bench import reward_bench_2

    scored = [row for row in rows if row.get("scores")]
    if not scored:
        return {"overall": no_value("there are no scores", len(rows))}
    try:
        found = reward_bench_2([row["scores"] for row in scored], [str(row["category"]) for row in scored],
                               [len(row["pairs"]) for row in scored], [str(row["id"]) for row in scored])  # fmt: skip
    except RecordError as error:
        return {"overall": no_value(error.reason, len(rows))}
    return {"overall": found.overall, **found.subsets}


BENCHMARK = Benchmark(
    name="reward-bench-2",
    title="RewardBench 2",
    paper="Malik et al. 2025, arXiv 2506.01937",
    measures="the one right response of four, by six subsets",
    kind="ranked",
    n=1865,
    sources={"questions": Source("reward_bench/v2_test.jsonl.gz", "allenai/reward-bench-2", "test", "ODC-BY")},
    read=read,
    run=run,
    metrics=(Metric("best_of_4", credit), ACCURACY),
    extra=extra,
    settings=RANKED,
    judge="optional",
)
