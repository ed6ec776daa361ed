"""From one kind of record to another, where the meaning allows it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from ..errors import SettingsError, nearest
from ..records import Demonstration, Labelled, Messages, Preference, Ranked, Record
from .format_types import Skip

How = Literal["best_worst", "all", "best_rest"]
HOWS = ("best_worst", "all", "best_rest")
Responses = Literal["best", "all"]


def pairs_from_ranked(
    record: Ranked, how: How = "best_worst", *, skipped: Counter[str] | None = None
) -> list[Preference]:
    """Pairs from a ranking: the best against the worst, every pair, or the best against each of the rest.

    Ties and responses of the same text make no pair; `skipped` counts them. The difference of scores is the margin,
    attributes stay with their responses; a ranking without any has one, "score".
    """
    if how not in HOWS:
        raise SettingsError(
            f'unknown way to make pairs "{how}".{nearest(how, HOWS)}', remedy=f"Known: {', '.join(HOWS)}."
        )
    order = sorted(range(len(record.scores)), key=lambda i: -record.scores[i])  # stable: earlier first among equals
    if how == "best_worst":
        wanted = [(order[0], order[-1])]
    elif how == "best_rest":
        wanted = [(order[0], i) for i in order[1:]]
    else:
        wanted = list(itertools.combinations(order, 2))
    pairs = []
    for best, worst in wanted:
        why = _no_pair(record, best, worst)
        if why and skipped is not None:
            skipped[why] += 1
        if not why:
            pairs.append(_pair(record, best, worst))
    return pairs


def _no_pair(record: Ranked, best: int, worst: int) -> str:
    if record.scores[best] == record.scores[worst]:
        return "tie"
    return "same text" if record.responses[best] == record.responses[worst] else ""


def _pair(record: Ranked, best: int, worst: int) -> Preference:
    return Preference(
        **_shared(record),
        chosen=record.responses[best],
        rejected=record.responses[worst],
        margin=record.scores[best] - record.scores[worst],
        attributes=_picked(_rated(record), best, worst),
    )


def _rated(record: Ranked) -> Mapping[str, tuple[float | None, ...]]:
    """The attributes of a ranking; one that has none has its scores, as "score"."""
    return record.attributes or {"score": record.scores}


def _picked(attributes: Mapping[str, Sequence[float | None]], *which: int) -> dict[str, Any]:
    """The attributes of some of the responses, those of none of them left out."""
    picked = {name: tuple(values[i] for i in which) for name, values in attributes.items()}
    return {name: values for name, values in picked.items() if any(v is not None for v in values)}


def _one(attributes: Mapping[str, Sequence[float | None]], which: int) -> dict[str, float]:
    """The known attributes of one response."""
    return {name: v for name, values in attributes.items() if (v := values[which]) is not None}


def _shared(record: Record) -> dict[str, Any]:
    names = ("prompt", "tools", "source", "group", "user", "intent", "x_con", "weight", "meta")
    return {name: getattr(record, name) for name in names}


def as_kind(
    record: Record, kind: type[Record], how: How = "best_worst", responses: Responses = "best"
) -> Iterator[Record | Skip]:
    """The record as records of `kind`: rankings and pairs make pairs, demonstrations (the best response, or `responses`
    "all" of them), labels (chosen up, rejected down) and rankings; every response keeps its attributes. Raises
    SettingsError where they cannot be made."""
    if isinstance(record, kind):
        yield record
    elif kind is Demonstration:
        yield from _demonstrations(record, responses)
    elif isinstance(record, Ranked) and kind is Preference:
        skipped: Counter[str] = Counter()
        yield from pairs_from_ranked(record, how, skipped=skipped)
        yield from (Skip(why) for why in skipped.elements())
    elif isinstance(record, Preference) and kind is Labelled:
        for i, (one, other) in enumerate(_both(record)):
            known = _one(record.attributes, i)
            yield Labelled(**_shared(record), response=one, label=i == 0, alternative=other, attributes=known)
    elif isinstance(record, Preference) and kind is Ranked:
        both = (record.chosen, record.rejected)
        yield Ranked(**_shared(record), responses=both, scores=_two_scores(record), attributes=record.attributes)
    else:
        given, needed = type(record).__name__.lower(), kind.__name__.lower()
        raise SettingsError(
            f"the data are {given} records, but {needed} records are needed and cannot be made of them."
        )


def _demonstrations(record: Record, responses: Responses) -> Iterator[Demonstration | Skip]:
    """The best response, or every one whatever was said of it, with its own attributes."""
    shared = _shared(record)
    if isinstance(record, Preference):
        for i, (one, other) in enumerate(_both(record)[: 1 if responses == "best" else 2]):
            known = _one(record.attributes, i)
            yield Demonstration(**shared, response=one, alternative=other, attributes=known)
    elif isinstance(record, Ranked):
        best = max(range(len(record.scores)), key=lambda i: record.scores[i])
        for i in [best] if responses == "best" else range(len(record.responses)):
            yield Demonstration(**shared, response=record.responses[i], attributes=_one(_rated(record), i))
    elif isinstance(record, Labelled):
        made = Demonstration(
            **shared, response=record.response, alternative=record.alternative, attributes=record.attributes
        )
        yield made if record.label or responses == "all" else Skip("thumb down")


def _both(record: Preference) -> tuple[tuple[Messages, Messages], tuple[Messages, Messages]]:
    return (record.chosen, record.rejected), (record.rejected, record.chosen)


def _two_scores(record: Preference) -> tuple[float, float]:
    """The scores of a pair where they agree with its order, else 1 for chosen and 0 for rejected."""
    chosen, rejected = record.attributes.get("score", (None, None))
    return (chosen, rejected) if chosen is not None and rejected is not None and chosen > rejected else (1.0, 0.0)
