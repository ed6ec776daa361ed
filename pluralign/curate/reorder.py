"""Pairs and rankings put in the order of their attributes (SGA, B.2: chosen is the response of the highest mean)."""

from __future__ import annotations

import json
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

from ..attributes import Scale
from ..data import from_row
from ..data.quarantine import to_json
from ..errors import SettingsError, nearest
from ..records import Preference, Ranked, Record, to_row
from .filters import chosen_of
from .pipeline import Count, Step

__all__ = ["Scales", "reorder"]

Scales = Literal["range", "quantiles"]
TAIL = 0.01  # of the scores lie beyond either end of a scale by quantiles


def reorder(
    attributes: Sequence[str] = (),
    *,
    scales: Scales = "range",
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> Step:
    """Order the responses of pairs and rankings by the mean of `attributes` (default: all), each on a scale of 0 to 1.

    A scale goes from the lowest to the highest score of the data, with "quantiles" from the 1st to the 99th percentile
    (scores beyond are cut off), or as `ranges` has it. The mean is over the attributes that all responses of the record
    have. Its difference becomes the margin of a pair, the means the scores of a ranking. Pairs that tie, and records
    without a common attribute, are dropped and counted; a pair whose order turns is noted. Other records pass.

    The records wait in a temporary file until all have been seen. The pass raises SettingsError for an attribute that
    no record has or whose scores are all equal.
    """
    chosen_of(scales, get_args(Scales), "kind of scale")
    wanted = tuple(attributes)
    stated: dict[str, Any] = {"attributes": list(wanted) or "all", "by": scales}

    def run(records: Iterable[Record], count: Count) -> Iterator[Record]:
        seen: dict[str, array[float]] = {}
        with tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n") as waiting:
            for record in records:
                waiting.write(to_json([record.where, to_row(record)]) + "\n")
                for name, values in _columns(record).items():
                    seen.setdefault(name, array("d")).extend(v for v in values if v is not None)
            fitted = _fit(seen, wanted, scales, ranges or {})
            stated["scales"] = {name: [scale.low, scale.high] for name, scale in fitted.items()}
            waiting.seek(0)
            for line in waiting:
                where, row = json.loads(line)
                yield from _put(replace(from_row(row), where=where), fitted, scales, count)

    return Step("reorder", run, stated)


def _columns(record: Record) -> Mapping[str, Sequence[float | None]]:
    return record.attributes if isinstance(record, Preference | Ranked) else {}


def _fit(
    seen: Mapping[str, array[float]], wanted: Sequence[str], how: Scales, ranges: Mapping[str, tuple[float, float]]
) -> dict[str, Scale]:
    fitted = {}
    for name in wanted or sorted(seen):
        if name not in seen:
            raise SettingsError(f'no pair or ranking has an attribute "{name}".{nearest(name, seen)}')
        ordered = sorted(seen[name])
        cut = int(TAIL * len(ordered)) if how == "quantiles" else 0
        low, high = ranges.get(name, (ordered[cut], ordered[-1 - cut]))
        if low == high:
            raise SettingsError(
                f'attribute "{name}" is {low:g} in (nearly) every response, so that it orders none.',
                remedy="Leave it out of the attributes to order by.",
            )
        fitted[name] = Scale(name, low, high)
    return fitted


def _put(record: Record, fitted: Mapping[str, Scale], how: Scales, count: Count) -> Iterator[Record]:
    if not isinstance(record, Preference | Ranked):
        yield record
        return
    means = _means(record, fitted, how)
    if not means:
        count.drop(record, "no common attribute")
    elif isinstance(record, Ranked):
        yield replace(record, scores=tuple(means))
    elif means[0] == means[1]:
        count.drop(record, "tie")
    elif means[0] > means[1]:
        yield replace(record, margin=means[0] - means[1])
    else:
        count.noted["order turned"] += 1
        turned = {name: (rejected, chosen) for name, (chosen, rejected) in record.attributes.items()}
        yield replace(
            record, chosen=record.rejected, rejected=record.chosen, margin=means[1] - means[0], attributes=turned
        )


def _means(record: Preference | Ranked, fitted: Mapping[str, Scale], how: Scales) -> list[float]:
    """One mean per response over the attributes that all of them have; none where there is no such attribute."""
    columns = [
        [_unit(scale, v, how) for v in record.attributes[name] if v is not None]
        for name, scale in fitted.items()
        if name in record.attributes and None not in record.attributes[name]
    ]
    return [sum(values) / len(values) for values in zip(*columns, strict=True)]


def _unit(scale: Scale, value: float, how: Scales) -> float:
    unit = scale.unit(value)
    return min(max(unit, 0.0), 1.0) if how == "quantiles" else unit
