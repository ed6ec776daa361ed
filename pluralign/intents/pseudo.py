"""Labels put on records, as steps: those of a corrected file, and the intention module's own with their confidence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..curate.filters import batches
from ..curate.pipeline import Count, Step
from ..records import Record
from .labels import Proposal, prompt_id

if TYPE_CHECKING:
    from .module import TrainedIntention

__all__ = ["FIELD", "NO_CLEAR", "by_file", "by_module"]

FIELD = "intent_label"  # of meta: {"by", "share", ...}
NO_CLEAR = "no clear intent"
BATCH = 256


def by_file(proposals: Sequence[Proposal]) -> Step:
    """The intents of a corrected file's rows that are kept. What is not in the file passes as it is, and is counted."""
    intents = {p.id: p for p in proposals}

    def run(records: Iterable[Record], count: Count) -> Iterator[Record]:
        for record in records:
            row = intents.get(prompt_id(record))
            if row is None or row.intent is None:
                count.noted[
                    "not in the file" if row is None else "dropped by a person" if row.keep else "undecided"
                ] += 1
                yield record
                continue
            who = "person" if row.corrected else "person, as proposed"
            count.noted[f"by {who}"] += 1
            yield replace(record, intent=row.intent, meta={**record.meta, FIELD: {"by": who}})

    return Step("file", run, {"rows": len(intents), "kept": sum(p.intent is not None for p in proposals)})


def by_module(module: TrainedIntention, threshold: float, *, relabel: bool = False, protect: bool = False) -> Step:
    """The likeliest intent under q(I | x, x_con), its probability in `meta`, where it is at least `threshold`; else the
    record has no intent, "no clear intent".

    Records with an intent keep it, unless `relabel`; `protect`: what a person has said stays even then.
    """

    def waits(record: Record) -> bool:
        by = dict(record.meta.get(FIELD) or {}).get("by", "") if protect else ""
        return not (record.intent and record.intent.strip()) or (relabel and not str(by).startswith("person"))

    def run(records: Iterable[Record], count: Count) -> Iterator[Record]:
        for batch in batches(records, BATCH):
            at = [i for i, record in enumerate(batch) if waits(record)]
            found = dict(zip(at, module.posterior([batch[i] for i in at]) if at else (), strict=True))
            for i, record in enumerate(batch):
                if i not in found:
                    count.noted["had an intent"] += 1
                    yield record
                    continue
                best = int(found[i].argmax())
                share, sure = float(found[i][best]), float(found[i][best]) >= threshold
                count.noted["by the module" if sure else NO_CLEAR] += 1
                about = {"by": "module", "share": round(share, 4), "likeliest": module.names[best]}
                intent = module.names[best] if sure else None
                yield replace(record, intent=intent, meta={**record.meta, FIELD: about})

    return Step("module", run, {"threshold": threshold, "relabel": relabel, "intents": len(module.names)})
