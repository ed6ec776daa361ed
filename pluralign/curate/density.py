"""Thumbs down weighed by how likely their prompts are among the thumbs up (BCO's underlying distribution matching)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from ..errors import SettingsError
from ..records import Labelled, Record
from .pipeline import Count, Step

__all__ = ["density"]


def density(weigh: Callable[[Sequence[Labelled]], Sequence[float]], *, by: str) -> Step:
    """A step that gives every labelled record `meta["density"]`, which the objective `bco` reads as w(x).

    `weigh` maps all records of the pass to their weights (see `judging.density`), so that they are held in memory
    until the last one is read; `by` says what the weights come from. Records at a bound of the weights are noted.
    Raises SettingsError for records without a label.
    """

    def run(records: Iterable[Record], count: Count) -> Iterator[Record]:
        held = []
        for record in records:
            if not isinstance(record, Labelled):
                raise SettingsError(
                    f"the step density weighs thumbs down, and {record.where or 'a record'} is a "
                    f"{type(record).__name__.lower()}.",
                    remedy="Read labels, or pass --kind labelled.",
                )
            held.append(record)
        weights = weigh(held)
        ends = {min(weights), max(weights)} if len(weights) else set()
        for record, weight in zip(held, weights, strict=True):
            if not record.label and weight in ends and weight != 1.0:
                count.noted["the lowest or highest density"] += 1
            yield replace(record, meta={**record.meta, "density": float(weight)})

    return Step("density", run, {"by": by})
