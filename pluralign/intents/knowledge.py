"""What is known of a prompt on its way to x_con: the state that the stages of the knowledge pipeline hand on.

It stands in a record's `meta["knowledge"]` as plain JSON, so that a stage's output is a data file, the next stage may
run on another day, and every statement that was left out can be looked up afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from ..curate.texts import said
from ..errors import RecordError
from ..records import Record

__all__ = ["FIELD", "Knowledge", "knowledge_of", "question_of", "with_knowledge"]

FIELD = "knowledge"
LONGEST = 8000  # characters of a question that are asked about


@dataclass(frozen=True, slots=True)
class Knowledge:
    """Of one prompt. `by`: who said what is not from the base ("rules", or an endpoint's key).

    `dimensions`: 3 to 5 elements of the question. `beliefs`: candidates of each. `steps`: x_aug, one sentence each.
    `primary` and `secondary`: core intents in words. `base`: what was searched. `passages`: those retrieved, as
    {"id", "title", "score"} and, until they have been checked, "text". `checked`: the statements with their verdicts.
    `notes`: by stage, why it gave nothing, or what to know of what it gave.
    """

    by: str = ""
    dimensions: tuple[str, ...] = ()
    beliefs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    calibrated: bool = False
    steps: tuple[str, ...] = ()
    primary: str = ""
    secondary: tuple[str, ...] = ()
    base: str = ""
    passages: tuple[Mapping[str, Any], ...] = ()
    checked: tuple[Mapping[str, Any], ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)

    def noted(self, stage: str, why: str) -> Knowledge:
        """The same with a note of a stage."""
        return replace(self, notes={**self.notes, stage: why})

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, without what is empty."""
        return {name: value for name, value in asdict(self).items() if value not in ("", (), {}, False)}

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> Knowledge:
        """The inverse of `as_dict`. Raises TypeError or AttributeError for anything else."""
        unknown = set(kept) - {f.name for f in fields(cls)}
        if unknown:
            raise TypeError(f"unknown {sorted(unknown)[0]}")
        lists = {n: tuple(kept[n]) for n in ("dimensions", "steps", "secondary", "passages", "checked") if n in kept}
        beliefs = {name: tuple(many) for name, many in dict(kept.get("beliefs", {})).items()}
        return cls(**{**kept, **lists, "beliefs": beliefs})


def question_of(record: Record) -> str:
    """What a prompt says, its system turns apart: the X of A-IPO's Appendix I."""
    return said(tuple(turn for turn in record.prompt if turn.role != "system")) or said(record.prompt)


def knowledge_of(record: Record) -> Knowledge:
    """What earlier stages left. Raises RecordError where the field holds something else."""
    kept = record.meta.get(FIELD)
    if kept is None:
        return Knowledge()
    try:
        return Knowledge.from_dict(kept)
    except (TypeError, AttributeError, ValueError) as error:
        raise RecordError(f'meta["{FIELD}"] is nothing of ours ({error}).', where=record.where) from None


def with_knowledge(record: Record, known: Knowledge, **changes: Any) -> Record:
    """The record with that state, and with other fields changed."""
    return replace(record, meta={**record.meta, FIELD: known.as_dict()}, **changes)
