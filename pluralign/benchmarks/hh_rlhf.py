"""HH-RLHF: held-out pairs of Anthropic's helpful and harmless conversations (Bai et al. 2022).

The readings are those of `pluralign evaluate preferences` (`judging.preferences`), kept as rows of a benchmark.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import RecordError
from ..records import Preference
from .kinds.core import Benchmark, Files, Metric, Row, Source, Task

__all__ = ["BENCHMARK", "Bad", "read", "run"]

REFERENCE = "reference"
ROLES = {"questions": "harmless", "helpful": "helpful"}


@dataclass(frozen=True, slots=True)
class Bad:
    """A row that is no pair, which has to be counted all the same."""

    id: str
    reason: str
    group: str


def read(files: Files, settings: Mapping[str, Any]) -> list[Preference | Bad]:
    """The pairs of both files; where the questions are a file of one's own, of that alone."""
    return [
        _pair(row, group, f"{group} {i}")
        for role, group in ROLES.items()
        if role == "questions" or files.has(role)
        for i, row in enumerate(files(role))
    ]


def _pair(row: Row, group: str, own: str) -> Preference | Bad:
    from ..data import load

    fields = {key: value for key, value in row.items() if key != "_where"}
    try:
        pair = next(iter(load([fields], kind=Preference)))
    except RecordError as error:
        return Bad(own, error.reason.split(". ")[0], group)
    assert isinstance(pair, Preference), "that is the kind that was asked for"
    return pair if pair.group is not None else replace(pair, group=group)


def run(task: Task) -> Iterator[Row]:
    """A row a pair: nats and tokens of both responses, by the policy and by the reference where there is one."""
    from ..judging.preferences import evaluate_preferences

    name = task.system.name
    told = task.progress
    found = evaluate_preferences(
        {name: task.system.policy},
        [pair for pair in task.items if isinstance(pair, Preference)],
        reference=task.reference,
        kl_rows=0,
        progress=(lambda who, done, of: told(f"{who}: pairs", done, of)) if told else None,
    )
    lines = iter(found.scores)
    for item in task.items:
        row: Row = {"system": name, "id": getattr(item, "id", ""), "category": item.group or ""}
        if isinstance(item, Bad):
            yield {**row, "failed": item.reason}
            continue
        line = next(lines)
        own, reference = line["scores"].get(name), line["scores"].get(REFERENCE)
        row |= {"id": line["id"], "cluster": line["cluster"], "read": own}
        yield {**row, **({REFERENCE: reference} if reference else {}),
               **({} if own else {"failed": "it cannot be rendered"})}  # fmt: skip


def _value(of: Callable[[Any], float]) -> Callable[[Row], float | None]:
    return lambda row: of(row["read"]) if row.get("read") else None


def _margin(row: Row) -> float | None:
    """The implicit reward margin over beta, in nats."""
    if not row.get("read") or not row.get(REFERENCE):
        return None
    (w, l, *_), (ref_w, ref_l, *_) = row["read"], row[REFERENCE]
    return float((w - l) - (ref_w - ref_l))


def _implicit(row: Row) -> float | None:
    margin = _margin(row)
    return None if margin is None else float(margin > 0)


BENCHMARK = Benchmark(
    name="hh-rlhf",
    title="HH-RLHF, held out",
    paper="Bai et al. 2022, arXiv 2204.05862",
    measures="pairs whose preferred answer is the likelier one",
    kind="ranked",
    n=3724,
    sources={
        "questions": Source("hh_rlhf/harmless_base.jsonl.gz", "Anthropic/hh-rlhf", "test", "MIT"),
        "helpful": Source("hh_rlhf/helpful.jsonl.gz", licence="CC BY-NC 4.0"),
    },
    read=read,
    run=run,
    metrics=(
        Metric("accuracy", _value(lambda p: float(p[0] / p[2] > p[1] / p[3])), kind="share"),
        Metric("accuracy_sum", _value(lambda p: float(p[0] > p[1])), kind="share"),
        Metric("implicit_accuracy", _implicit, kind="share"),
        Metric("margin", _margin),
    ),
    settings={"default": {}},
)
