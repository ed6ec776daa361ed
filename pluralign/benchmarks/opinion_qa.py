"""OpinionQA: whose opinions, by demographic group, does a model's choice of answers resemble? Santurkar et al. 2023."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import RecordError, SettingsError
from ..records import Message
from .kinds.choices import LETTERS
from .kinds.core import Benchmark, Choice, Files, Row, Source, Task
from .kinds.kept import short
from .kinds.questions import of, text_of
from .kinds.shares import ASK, SHARES, far, shared, shares_of

__all__ = ["BENCHMARK", "read", "run"]

PARTS = {"opinions": "questions", "validation": "validation", "moral-choice": "moral choice"}
ENDING = re.compile(r"\s*Answer:\s*$")


def read(files: Files, settings: Mapping[str, Any]) -> list[Choice]:
    """An item for each question and group; a question brings its lettered options along. With `persona` it asks how
    somebody of the group would answer."""
    part = str(settings["part"])
    if part not in PARTS:
        raise SettingsError(f'part is "{part}"; known: {", ".join(PARTS)}.')
    return [_item(row, bool(settings["persona"])) for row in files(PARTS[part])]


def _item(row: Row, persona: bool) -> Choice:
    question, group = ENDING.sub("", text_of(row, "question")), text_of(row, "attribute")
    options = [str(option) for option in of(row, "options", kind=list)]
    shares = shares_of(row, row.get("gold_distribution"), options)
    letters = tuple(LETTERS[: len(options)])
    missing = next((letter for letter in letters if not re.search(rf"(?:^|\s){letter}\. ", question)), None)
    if missing is not None:
        raise RecordError(f"the question shows no option {missing}.", where=str(row.get("_where", "")))
    kind, _, value = group.partition("_")
    said = f"How would somebody of this group answer: {value} ({kind.lower()})?\n\n" if persona and value else ""
    prompt = (Message("user", f"{said}{question}\n{ASK}"),)
    return Choice(str(of(row, "id", kind=(int, str))), prompt, letters, shares, group, short(question))


def run(task: Task) -> Iterator[Row]:
    """A row for each question and group; questions are the clusters."""
    yield from shared(task)


FOLDER = "opinion_distributions"
BENCHMARK = Benchmark(
    name="opinion-qa",
    title="OpinionQA",
    paper="Santurkar et al. 2023, arXiv 2303.17548",
    measures="distance from the opinions of demographic groups (Jensen-Shannon)",
    kind="shares",
    n=2266,
    sources={
        "questions": Source(f"{FOLDER}/opinionqa_test.jsonl.gz", licence="Pew ATP aggregates; copy without a licence"),
        "validation": Source(f"{FOLDER}/opinionqa_val.jsonl.gz"),
        "moral choice": Source(f"{FOLDER}/moralchoice.jsonl.gz"),
    },
    read=read,
    run=run,
    metrics=SHARES,
    extra=far,
    settings={
        "default": {"form": "chat", "primer": "", "persona": False, "part": "opinions"},
        "persona": {"persona": True},
        "moral-choice": {"part": "moral-choice"},
    },
    note="Some options of the public copy are cut in the middle of a word upstream; they are shown as they stand.",
)
