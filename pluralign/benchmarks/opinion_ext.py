"""GlobalOpinionQA-Ext: does a model give the opinion that most people of a country hold? (A-IPO, G.1.1)"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import SettingsError
from .kinds.core import Benchmark, Files, Row, Source, Task
from .kinds.intended import INTENDED, METRICS, Intended, intended, kinds_of, read_records, to_items

if TYPE_CHECKING:
    from ..curate.plural import Built
    from ..judging.statistics import Estimate
    from ..records import Preference

__all__ = ["BENCHMARK", "read", "run"]


def _build(rows: Sequence[Row], settings: Mapping[str, Any]) -> Built:
    from ..curate.plural import opinion_ext

    return opinion_ext(rows, pairs="all" if settings["pairs"] == "all" else "top")


def read(files: Files, settings: Mapping[str, Any]) -> list[Intended]:
    """Questions by country; a response is told apart from the question's other options."""
    if settings["pairs"] not in ("top", "all"):
        raise SettingsError(f'pairs is top or all, not "{settings["pairs"]}".')
    parts = dict(read_records(files, settings, _build))
    country = str(settings["country"])
    if country:
        parts["test"] = [record for record in parts["test"] if record.group == country]
        if not parts["test"]:
            raise SettingsError(f'no question of the test part was asked in "{country}".')
    return to_items(
        parts,
        settings,
        category=lambda record: record.group or "",
        kinds=lambda record: {"world": "against the world" if record.meta.get("against_world") else "with the world"},
        rivals=_options,
    )


def _options(record: Preference) -> list[str]:
    return [str(option) for option in record.meta.get("options", ()) if option != record.intent]


def run(task: Task) -> Iterator[Row]:
    """A row an item: whether the opinion is expressed, by the judge and by an encoder; similarity, wins, intents."""
    yield from intended(task)


def _by_side(rows: Sequence[Row], settings: Mapping[str, Any]) -> dict[str, Estimate]:
    """H.2: opinions that the mean country shares and those against it; within a country, majority and minority."""

    def by(row: Row) -> dict[str, str]:
        side = row.get("minority")
        own = {} if side is None else {"side": "minority" if side else "majority"}
        return {**row.get("kinds", {}), **own}

    return kinds_of(rows, ("win_rate", "ric", "ric_nearest", "ric_contrast", "rs"), by=by)


BENCHMARK = Benchmark(
    name="opinion-ext",
    title="GlobalOpinionQA-Ext",
    paper="A-IPO, G.1.1; Durmus et al. 2024, arXiv 2306.16388",
    measures="whether answers hold the opinion of most people of a country",
    kind="compared",
    n=406,
    sources={
        "questions": Source("opinion-ext/test.jsonl.gz", licence="CC BY-NC-SA 4.0"),
        "train": Source("opinion-ext/train.jsonl.gz"),
        "source": Source("opinion_distributions/globalopinionqa_eval.jsonl.gz"),
    },
    read=read,
    run=run,
    metrics=tuple(METRICS[name] for name in ("win_rate", "ric", "ric_nearest", "ric_contrast", "rs", "rs_shuffled",
                                             "ics", "ics_exact", "ics_nearest", "unsure", "refused")),
    settings={
        "default": {**INTENDED, "country": "", "pairs": "top"},
        "3-shot": {"shots": 3},
        "us": {"country": "United States"},
        "plural": {"pairs": "all"},
    },
    judge="may",
    extra=_by_side,
    note="The paper's set (4,960 pairs, rephrased by DeepSeek-V3, from the U.S. rows) is not public. Without "
         "--questions this is a stand-in: options in templates, all countries. ric_nearest needs no judge and is "
         "another number (the encoder puts the gold option nearest of the question's).",
)  # fmt: skip
