"""Steps over streams of records, each counted: what a step read, it kept, dropped for a named reason, or held out."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import PluralignError, SettingsError
from ..records import Record, to_row

__all__ = ["Count", "Curated", "Drop", "Fingerprint", "Step", "curate", "judged"]

Drop = Callable[[Mapping[str, Any]], None]  # takes {"step", "reason", "where", ..., "row"}


@dataclass(slots=True)
class Count:
    """What one step met in one pass. At the end `read` = `kept` + the sum of `dropped` + `held_out`.

    `noted` counts kept records that a person should know of, such as those without the value that is judged by.
    """

    step: str
    read: int = 0
    kept: int = 0
    held_out: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    noted: Counter[str] = field(default_factory=Counter)
    validation: list[Record] = field(default_factory=list)
    into: Drop | None = None

    @property
    def balanced(self) -> bool:
        return self.read == self.kept + self.dropped.total() + self.held_out

    def drop(self, record: Record, reason: str, **detail: Any) -> None:
        """Count a record as dropped and hand it on to be written, with what a person needs to check the decision."""
        self.dropped[reason] += 1
        if self.into is not None:
            place = {"where": record.where} if record.where else {}
            self.into({"step": self.step, "reason": reason, **place, **detail, "row": to_row(record)})

    def hold(self, records: Iterable[Record]) -> None:
        """Set records apart for validation."""
        self.validation.extend(records)
        self.held_out = len(self.validation)


@dataclass(frozen=True)
class Step:
    """A named function from records to records, with the settings that a report states.

    `run` yields what it keeps, in any order, and calls `count.drop` for the rest; it keeps no state between two passes.
    `last` marks a step after which no other can come.
    """

    name: str
    run: Callable[[Iterable[Record], Count], Iterator[Record]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    last: bool = False

    def __call__(self, records: Iterable[Record], count: Count | None = None) -> Iterator[Record]:
        """The records that the step keeps; `count` is filled on the way.

        Raises PluralignError at the end of the pass where a record was neither kept nor dropped.
        """
        count = count if count is not None else Count(self.name)
        for record in self.run(_read(records, count), count):
            count.kept += 1
            yield record
        if not count.balanced:
            out = count.kept + count.dropped.total() + count.held_out
            raise PluralignError(f'the step "{self.name}" read {count.read:,} records and accounts for {out:,}.')


def _read(records: Iterable[Record], count: Count) -> Iterator[Record]:
    for record in records:
        count.read += 1
        yield record


def judged(judge: Callable[[Record, Count], Mapping[str, Any] | None]) -> Callable[..., Iterator[Record]]:
    """`run` of a step that looks at one record at a time. `judge` returns None to keep it, else {"reason", ...}."""

    def run(records: Iterable[Record], count: Count) -> Iterator[Record]:
        for record in records:
            verdict = judge(record, count)
            if verdict is None:
                yield record
            else:
                count.drop(record, **verdict)

    return run


class Fingerprint:
    """`data.fingerprint` of the records that pass through, taken on the way."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self.records = 0

    def watch(self, records: Iterable[Record]) -> Iterator[Record]:
        for record in records:
            line = json.dumps(to_row(record), sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
            self._digest.update(line.encode("utf-8", "surrogatepass") + b"\n")
            self.records += 1
            yield record

    @property
    def hex(self) -> str:
        return self._digest.hexdigest()


class Curated:
    """The records that pass every step. Each iteration is a pass over the source; `counts` is about the latest one.

    Nothing is held but what a step has to remember (duplicates: a key for each record; the hold-out: its records,
    found in `validation` once the pass is complete). `dropped` receives what a pass does not keep.
    """

    def __init__(self, records: Iterable[Record], steps: Sequence[Step], dropped: Drop | None = None) -> None:
        self.steps = tuple(steps)
        for step in self.steps[:-1]:
            if step.last:
                raise SettingsError(f'"{step.name}" must be the last step: what comes after it would miss its records.')
        self._records, self.dropped = records, dropped
        self._start()

    def _start(self) -> None:
        self.counts = [Count(step.name, into=self.dropped) for step in self.steps]
        self.input, self.output = Fingerprint(), Fingerprint()
        self.complete = False

    def __iter__(self) -> Iterator[Record]:
        self._start()
        stream = self.input.watch(self._records)
        for step, count in zip(self.steps, self.counts, strict=True):
            stream = step(stream, count)
        yield from self.output.watch(stream)
        self.complete = True

    @property
    def validation(self) -> list[Record]:
        """The records held out, in the order of their hash; empty before the end of a pass."""
        return [record for count in self.counts for record in count.validation]

    @property
    def balanced(self) -> bool:
        """Whether every record read is kept, dropped or held out, and each step took over what the one before kept."""
        kept = [self.input.records, *(c.kept for c in self.counts)]
        read = [*(c.read for c in self.counts), self.output.records]
        return kept == read and all(c.balanced for c in self.counts)

    def report(self) -> dict[str, Any]:
        """JSON-ready: input, the counts and settings of every step, and output. Reads the source if nobody has yet."""
        if not self.complete:
            for _ in self:
                pass
        held = Fingerprint()
        for _ in held.watch(self.validation):
            pass
        return {
            "input": {"records": self.input.records, "fingerprint": self.input.hex},
            "steps": [_stated(step, count) for step, count in zip(self.steps, self.counts, strict=True)],
            "train": {"records": self.output.records, "fingerprint": self.output.hex},
            "validation": {"records": held.records, "fingerprint": held.hex},
        }


def _stated(step: Step, count: Count) -> dict[str, Any]:
    return {
        "step": step.name,
        "settings": dict(step.settings),
        "read": count.read,
        "kept": count.kept,
        "dropped": dict(count.dropped),
        "held_out": count.held_out,
        "noted": dict(count.noted),
    }


def curate(records: Iterable[Record], steps: Sequence[Step], *, dropped: Drop | None = None) -> Curated:
    """The records that pass `steps` in order, streamed; `dropped` receives every record that does not, with the reason.

    Raises SettingsError where a step stands after the hold-out.
    """
    return Curated(records, steps, dropped)
