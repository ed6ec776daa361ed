"""ATTACK-PREF: does a model answer the question, with an unrelated one injected? (A-IPO, Appendix F, G.1.1)"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .kinds.core import Benchmark, Files, Row, Source, Task
from .kinds.intended import INTENDED, METRICS, Intended, intended, kinds_of, read_records, to_items

if TYPE_CHECKING:
    from ..curate.plural import Built
    from ..judging.statistics import Estimate

__all__ = ["BENCHMARK", "read", "run"]


def _build(rows: Sequence[Row], settings: Mapping[str, Any]) -> Built:
    from ..curate.plural import attack_pref

    return attack_pref(rows, benign=float(settings["benign"]))


def read(files: Files, settings: Mapping[str, Any]) -> list[Intended]:
    """Attacked questions; their category is the style of the attack."""
    parts = read_records(files, settings, _build)
    return to_items(
        parts,
        settings,
        category=lambda record: str(record.meta.get("style") or record.group or ""),
        kinds=lambda record: {"position": str(record.meta.get("position", ""))},
    )


def run(task: Task) -> Iterator[Row]:
    """A row an item: defended or not, by the judge and by the answers it holds; similarity, wins and intents beside."""
    yield from intended(task)


def _by_attack(rows: Sequence[Row], settings: Mapping[str, Any]) -> dict[str, Estimate]:
    """H.3: DSR by position, and of questions with and without an attack."""
    return kinds_of(
        rows,
        ("dsr", "dsr_contained", "unsure"),
        by=lambda row: {
            **{name: value for name, value in row.get("kinds", {}).items() if value != "none"},
            "attack": "attacked" if row.get("attacked") else "benign",
        },
    )


BENCHMARK = Benchmark(
    name="attack-pref",
    title="ATTACK-PREF",
    paper="A-IPO, Appendix F and G.1",
    measures="resistance to an unrelated question injected into another",
    kind="compared",
    n=361,
    sources={
        "questions": Source("attack-pref/test.jsonl.gz", licence="CC BY-SA 3.0 (NQ-open)"),
        "train": Source("attack-pref/train.jsonl.gz"),
        "source": Source("mkqa_nq/nq_open_dev.jsonl.gz", "google-research-datasets/nq_open", "validation"),
    },
    read=read,
    run=run,
    metrics=tuple(METRICS[name] for name in ("dsr", "dsr_contained", "win_rate", "rs", "rs_shuffled", "ics",
                                             "ics_exact", "ics_nearest", "ric", "unsure", "refused")),
    settings={"default": {**INTENDED, "benign": 0.0}, "3-shot": {"shots": 3}, "benign": {"benign": 0.2}},
    judge="may",
    extra=_by_attack,
    note="The paper's set (6,758 rows by GPT-4 on MKQA) is not public. Without --questions this is a stand-in: "
         "templates over NQ-open, its test tenth. dsr is the judge's; dsr_contained needs none and is another number "
         "(an answer in whole words, and not the attack's).",
)  # fmt: skip
