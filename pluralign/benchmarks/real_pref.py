"""REAL-PREF: does a model respect the preference that a prompt carries? (A-IPO, Appendix F and G.1.1)"""

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
    from ..curate.plural import prefeval_intents

    return prefeval_intents(rows, form="hidden" if settings["form"] == "hidden" else "stated")


def read(files: Files, settings: Mapping[str, Any]) -> list[Intended]:
    """Prompts with a preference each; their category is the domain."""
    parts = read_records(files, settings, _build)
    return to_items(parts, settings, category=lambda record: str(record.meta.get("domain") or record.group or ""))


def run(task: Task) -> Iterator[Row]:
    """A row an item: wins, intents inferred and expressed, similarity."""
    yield from intended(task)


def _by_domain(rows: Sequence[Row], settings: Mapping[str, Any]) -> dict[str, Estimate]:
    """Table 5: ICS by domain."""
    return kinds_of(rows, ("ics", "ics_exact", "ics_nearest"), by=lambda row: {"domain": str(row.get("category", ""))})


BENCHMARK = Benchmark(
    name="real-pref",
    title="REAL-PREF",
    paper="A-IPO, Appendix F and G.1",
    measures="whether answers respect the preference behind a prompt, by domain",
    kind="compared",
    n=83,
    sources={
        "questions": Source("real-pref/test.jsonl.gz", licence="CC BY-NC 4.0 (PrefEval)"),
        "train": Source("real-pref/train.jsonl.gz"),
        "source": Source("prefeval/mcq_options.jsonl.gz"),
    },
    read=read,
    run=run,
    metrics=tuple(METRICS[name] for name in ("win_rate", "ric", "ric_contrast", "rs", "rs_shuffled", "ics", "ics_exact",
                                             "ics_nearest", "unsure", "refused")),
    settings={"default": {**INTENDED, "form": "stated"}, "3-shot": {"shots": 3}, "hidden": {"form": "hidden"}},
    judge="may",
    extra=_by_domain,
    note="The paper's set (7,303 rows by GPT-4, 231 intents) is not public. Without --questions this is a stand-in: "
         "PrefEval's preferences, stated before the question, its test tenth. `pluralign data make real-pref` "
         "generates a set like the paper's. ric_contrast needs no judge and is another number.",
)  # fmt: skip
