"""The safety filter: what a classifier flags is dropped, what it could not judge is never passed over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, get_args

from ..errors import PluralignError, RecordError
from ..records import Messages, Record
from .filters import batches, chosen_of
from .pipeline import Count, Step
from .rules import by_rules
from .texts import responses
from .verdicts import Classifier, Verdict

__all__ = ["On", "Unparsed", "safety_filter"]

On = Literal["prompt", "responses", "both"]
Unparsed = Literal["drop", "keep", "stop"]
UNPARSED = "no verdict"
BATCH = 32  # records shown to the classifier at a time


def safety_filter(
    classify: Classifier = by_rules, *, on: On | None = None, unparsed: Unparsed = "drop", name: str = ""
) -> Step:
    """Drop records that a classifier calls unsafe (InSPO, D.2).

    `on` is what it is shown: the "prompt", the prompt with each of the "responses", or "both"; by default the prompt
    for the rules, which read requests only, and both for any other classifier. One unsafe verdict drops the record.
    Where there is none, but an answer that is no verdict, the record is dropped for that reason, kept and counted, or
    the pass stops (`unparsed`: "drop", "keep", "stop").

    `name` says in reports which classifier it was. Raises RecordError on stopping.
    """
    shown = on or ("prompt" if classify is by_rules else "both")
    chosen_of(shown, get_args(On), "part of a record")
    chosen_of(unparsed, get_args(Unparsed), "treatment of records without a verdict")
    title = name or ("rules" if classify is by_rules else getattr(classify, "__name__", type(classify).__name__))

    def run(records: Iterable[Record], count: Count) -> Iterator[Record]:
        for batch in batches(records, BATCH):
            asked = [_conversations(record, shown) for record in batch]
            verdicts = iter(_verdicts(classify, [turns for many in asked for turns in many]))
            for record, many in zip(batch, asked, strict=True):
                yield from _decide(record, [next(verdicts) for _ in many], count, unparsed)

    return Step("safety", run, {"classifier": title, "on": shown, "unparsed": unparsed})


def _conversations(record: Record, on: On) -> list[Messages]:
    found = [record.prompt] if on != "responses" else []
    return found + ([record.prompt + response for response in responses(record)] if on != "prompt" else [])


def _verdicts(classify: Classifier, conversations: list[Messages]) -> list[Verdict]:
    """One for each conversation; equal ones, such as the prompt of many pairs, are asked once."""
    distinct: list[Messages] = []
    numbers = []
    for turns in conversations:
        if turns not in distinct:
            distinct.append(turns)
        numbers.append(distinct.index(turns))
    found = classify(distinct)
    if len(found) != len(distinct):
        raise PluralignError(f"the classifier gave {len(found)} verdicts for {len(distinct)} conversations.")
    return [found[number] for number in numbers]


def _decide(record: Record, verdicts: list[Verdict], count: Count, unparsed: Unparsed) -> Iterator[Record]:
    unsafe = [v for v in verdicts if v.safe is False]
    unclear = [v for v in verdicts if v.safe is None]
    if unsafe:
        categories = dict.fromkeys(c for v in unsafe for c in v.categories)
        count.drop(record, "unsafe", categories=list(categories))
    elif not unclear:
        yield record
    elif unparsed == "keep":
        count.noted[UNPARSED] += 1
        yield record
    elif unparsed == "drop":
        count.drop(record, UNPARSED, answer=unclear[0].answer)
    else:
        raise RecordError(
            f'the classifier answered "{unclear[0].answer[:80]}", which is no verdict.',
            where=record.where or "a record",
            remedy="Drop or keep such records instead of stopping, or take a classifier that says safe or unsafe.",
        )
