"""Scores as attributes: every response of every record is scored, once, and a stopped step goes on where it was."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import PluralignError, RecordError, SettingsError
from ..kept import Kept
from ..records import Demonstration, Labelled, Messages, Preference, Ranked, Record
from .filters import batches
from .pipeline import Count, Step
from .texts import digest, part_key, responses

__all__ = ["Asked", "Scored", "Scorer", "score_responses"]

Asked = tuple[Messages, Messages]  # a prompt and a response to it
BATCH = 64  # records looked at together
CHUNK = 64  # responses scored before they are stored
STORE = "scores.sqlite"


@dataclass(frozen=True, slots=True)
class Scored:
    """One number or None per attribute; `note` says why there is none, or what was done to get it ("prompt cut")."""

    values: tuple[float | None, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Scorer:
    """A function from responses to the scores of some attributes.

    `key` says what a stored score is valid for: everything that scores depend on besides prompt and response. Without
    one nothing is stored. `title` stands in reports. `ranges`: scales that are known from the scorer itself.
    """

    names: tuple[str, ...]
    score: Callable[[Sequence[Asked]], list[Scored]]
    key: str = ""
    title: str = ""
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def score_responses(scorers: Sequence[Scorer], *, store: str | Path | None = None) -> Step:
    """Give every response the scores of `scorers` as attributes, beside those it has.

    `store` is a folder that keeps the scores by their content, so that a pass that was stopped, or another one over the
    same responses, asks nobody twice. A response without a score gets None, and its record is counted under the
    scorer's note. Nothing is dropped.

    Raises SettingsError for no scorer, and for a name given twice; the pass raises RecordError for a record that has an
    attribute of that name already.
    """
    names = [name for scorer in scorers for name in scorer.names]
    if not names:
        raise SettingsError("nothing to score responses with.", remedy="Name a reward model, a judge or a measure.")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise SettingsError(f'two scorers are named "{twice}".', remedy="Give each attribute a name of its own.")
    path = None if store is None else Path(store) / STORE

    def run(records: Iterable[Record], count: Count) -> Iterator[Record]:
        with Kept(path) as kept:
            for batch in batches(records, BATCH):
                for record in batch:
                    _check_free(record, names)
                asked = [[(record.prompt, r) for r in responses(record)] for record in batch]
                found = [_scored(scorer, [a for many in asked for a in many], kept) for scorer in scorers]
                streams = [iter(scores) for scores in found]
                for record, many in zip(batch, asked, strict=True):
                    own = [list(islice(stream, len(many))) for stream in streams]
                    for scorer, scores in zip(scorers, own, strict=True):
                        _note(scorer, scores, count)
                    yield _with_scores(record, _columns(scorers, own))

    titles = {", ".join(scorer.names): scorer.title for scorer in scorers}
    ranges = {name: list(ends) for scorer in scorers for name, ends in scorer.ranges.items()}
    return Step("score", run, {"scorers": titles, **({"ranges": ranges} if ranges else {})})


def _check_free(record: Record, names: Sequence[str]) -> None:
    has = getattr(record, "attributes", {})
    taken = next((name for name in names if name in has), None)
    if taken is not None:
        raise RecordError(
            f'the record has an attribute "{taken}" already.',
            where=record.where or "a record",
            remedy="Give the scorer another name.",
        )


def _scored(scorer: Scorer, asked: Sequence[Asked], store: Kept) -> list[Scored]:
    """One for each response; equal ones are asked once, those in the store not at all."""
    keys = [digest((part_key(prompt), part_key(response))) for prompt, response in asked]
    distinct = dict(zip(keys, asked, strict=True))
    places = {key: digest((scorer.key, key)) for key in distinct}
    stored = {key: store.get(place, _read) if scorer.key else None for key, place in places.items()}
    known = {key: scored for key, scored in stored.items() if scored is not None}
    missing = [key for key in distinct if key not in known]
    for start in range(0, len(missing), CHUNK):
        chunk = missing[start : start + CHUNK]
        found = scorer.score([distinct[key] for key in chunk])
        if len(found) != len(chunk) or any(len(s.values) != len(scorer.names) for s in found):
            raise PluralignError(f'the scorer of "{", ".join(scorer.names)}" gave no {len(chunk)} full scores.')
        new = dict(zip(chunk, map(_finite, found), strict=True))
        if scorer.key:
            store.put((places[key], json.dumps([s.values, s.note])) for key, s in new.items())
        known |= new
    return [known[key] for key in keys]


def _read(text: str) -> Scored:
    values, note = json.loads(text)
    return Scored(tuple(values), note)


def _finite(scored: Scored) -> Scored:
    if all(v is None or math.isfinite(v) for v in scored.values):
        return scored
    values = tuple(v if v is not None and math.isfinite(v) else None for v in scored.values)
    return Scored(values, scored.note or "not a finite number")


def _note(scorer: Scorer, scores: Sequence[Scored], count: Count) -> None:
    """Count the record once for each thing that a person should know of its responses."""
    said = [f"{', '.join(scorer.names)}: {s.note}" for s in scores if s.note]
    lacking = [
        f"{name}: no score"
        for s in scores
        if not s.note
        for name, v in zip(scorer.names, s.values, strict=True)
        if v is None
    ]
    count.noted.update(set(said + lacking))


def _columns(scorers: Sequence[Scorer], own: Sequence[Sequence[Scored]]) -> dict[str, tuple[float | None, ...]]:
    """{attribute: one number or None per response}."""
    return {
        name: tuple(s.values[i] for s in scores)
        for scorer, scores in zip(scorers, own, strict=True)
        for i, name in enumerate(scorer.names)
    }


def _with_scores(record: Record, columns: Mapping[str, tuple[float | None, ...]]) -> Record:
    if isinstance(record, Preference | Ranked):
        many: Any = dict(record.attributes)
        many |= {name: values for name, values in columns.items() if any(v is not None for v in values)}
        return replace(record, attributes=many)
    if isinstance(record, Demonstration | Labelled):
        known = {name: values[0] for name, values in columns.items() if values[0] is not None}
        return replace(record, attributes={**record.attributes, **known})
    return record
