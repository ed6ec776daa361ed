"""From one kind of record to another, where the meaning allows it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from ..errors import SettingsError, nearest
from ..records import Demonstration, Labelled, Preference, Ranked, Record
from .format_types import Skip

How = Literal["best_worst", "all", "best_rest"]
HOWS = ("best_worst", "all", "best_rest")


def pairs_from_ranked(
    record: Ranked, how: How = "best_worst", *, skipped: Counter[str] | None = None
) -> list[Preference]:
    """Pairs from a ranking: the best against the worst, every pair, or the best against each of the rest.

    Ties and responses of the same text make no pair; `skipped` counts them. The difference of scores is the margin,
    `meta["attributes"]` ({name: one score or None per response}) become the pair's attribute scores.
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
    scores = {"score": (record.scores[best], record.scores[worst])}
    meta = dict(record.meta)
    for name, values in _attributes(meta.pop("attributes", None), len(record.responses)).items():
        first, second = values[best], values[worst]
        if first is not None and second is not None:
            scores[name] = (float(first), float(second))
    return Preference(
        **_shared(record, meta),
        chosen=record.responses[best],
        rejected=record.responses[worst],
        margin=record.scores[best] - record.scores[worst],
        scores=scores,
    )


def _attributes(value: Any, responses: int) -> dict[str, list[float | None]]:
    """The attributes of a ranking, those without one number or None per response left out."""
    if not isinstance(value, Mapping):
        return {}
    return {
        str(name): list(scores)
        for name, scores in value.items()
        if isinstance(scores, list | tuple)
        and len(scores) == responses
        and all(s is None or isinstance(s, int | float) for s in scores)
    }


def _shared(record: Record, meta: Any = None) -> dict[str, Any]:
    names = ("prompt", "tools", "source", "group", "user", "weight")
    return {**{n: getattr(record, n) for n in names}, "meta": record.meta if meta is None else meta}


def as_kind(record: Record, kind: type[Record], how: How = "best_worst") -> Iterator[Record | Skip]:
    """The record as records of `kind`: rankings and pairs make pairs, demonstrations (the best response), labels
    (chosen up, rejected down) and rankings. Raises SettingsError where they cannot be made."""
    if isinstance(record, kind):
        yield record
    elif isinstance(record, Ranked) and kind is Preference:
        skipped: Counter[str] = Counter()
        yield from pairs_from_ranked(record, how, skipped=skipped)
        yield from (Skip(why) for why in skipped.elements())
    elif isinstance(record, Ranked) and kind is Demonstration:
        best = max(range(len(record.scores)), key=lambda i: record.scores[i])
        yield Demonstration(**_shared(record), response=record.responses[best])
    elif isinstance(record, Preference) and kind is Demonstration:
        yield Demonstration(**_shared(record), response=record.chosen, alternative=record.rejected)
    elif isinstance(record, Preference) and kind is Labelled:
        yield Labelled(**_shared(record), response=record.chosen, label=True, alternative=record.rejected)
        yield Labelled(**_shared(record), response=record.rejected, label=False, alternative=record.chosen)
    elif isinstance(record, Preference) and kind is Ranked:
        yield Ranked(**_shared(record), responses=(record.chosen, record.rejected), scores=_two_scores(record))
    elif isinstance(record, Labelled) and kind is Demonstration:
        made = Demonstration(**_shared(record), response=record.response, alternative=record.alternative)
        yield made if record.label else Skip("thumb down")
    else:
        given, needed = type(record).__name__.lower(), kind.__name__.lower()
        raise SettingsError(
            f"the data are {given} records, but {needed} records are needed and cannot be made of them."
        )


def _two_scores(record: Preference) -> tuple[float, float]:
    """The scores of a pair where they agree with its order, else 1 for chosen and 0 for rejected."""
    chosen, rejected = record.scores.get("score", (1.0, 0.0))
    return (chosen, rejected) if chosen > rejected else (1.0, 0.0)
