"""How far a model's answers to a survey lie from those of people: Jensen-Shannon divergence and distance, group by
group.

Questions have different numbers of options; a distribution is a list over them. Natural logarithms: the divergence lies
between 0 and ln 2, the distance (its square root, a metric) between 0 and .832555.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import RecordError
from .groups import by_group, worst_group
from .statistics import Estimate, mean_interval

__all__ = ["OpinionReport", "jensen_shannon", "jensen_shannon_distance", "opinion_report"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class OpinionReport:
    """Means over (question, group) rows. `off_option`: the mass that the model put on no option at all, which was taken
    out before comparing. `uniform`: the divergence of a model that knows nothing, on the same rows. `groups`: the
    divergence by group, of which `worst` is the largest."""

    divergence: Estimate
    distance: Estimate
    off_option: Estimate
    uniform: Estimate
    groups: Mapping[str, Estimate]
    worst_name: str
    worst: Estimate | None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        figures = ("divergence", "distance", "off_option", "uniform")
        return {
            **{name: getattr(self, name).as_dict() for name in figures},
            "groups": {name: e.as_dict() for name, e in self.groups.items()},
            "worst_name": self.worst_name,
            "worst": None if self.worst is None else self.worst.as_dict(),
        }


def jensen_shannon(p: ArrayLike, q: ArrayLike) -> float:
    """The divergence H((p + q) / 2) - (H(p) + H(q)) / 2 in nats, of two distributions over the same options (K,).

    (1, 0) and (0, 1): ln 2. Both are made to add up to one. Raises RecordError for what is no distribution.
    """
    a, b = _distribution(p), _distribution(q)
    if a.shape != b.shape:
        raise RecordError(f"two distributions over different options: {len(a)} and {len(b)}.")
    return max(0.0, _entropy((a + b) / 2) - (_entropy(a) + _entropy(b)) / 2)


def jensen_shannon_distance(p: ArrayLike, q: ArrayLike) -> float:
    """The square root of the divergence."""
    return math.sqrt(jensen_shannon(p, q))


def opinion_report(
    model: Sequence[ArrayLike | None],
    people: Sequence[ArrayLike],
    groups: Sequence[str],
    *,
    questions: Sequence[Hashable] | None = None,
    level: float = 0.95,
) -> OpinionReport:
    """From N rows: the model's probabilities of the options as they are (their sum may fall short of one), None where
    it gave none (counted), and people's distribution. `questions` (N,) are clusters: countries answer the same ones.

    A model that puts everything off the options has no distribution: that row is missing, and its off-option mass is 1.
    Raises RecordError where numbers of rows or options do not fit.
    """
    if not len(model) == len(people) == len(groups):
        raise RecordError(f"each row needs a model, people and a group: {len(model)}, {len(people)}, {len(groups)}.")
    far: list[float | None] = []
    off: list[float | None] = []
    for given, wanted in zip(model, people, strict=True):
        if given is None:
            far.append(None)
            off.append(None)
            continue
        p = np.asarray(given, dtype=np.float64)
        if p.ndim != 1 or not np.isfinite(p).all() or (p < 0).any() or float(p.sum()) > 1 + 1e-6:
            raise RecordError("a model's probabilities of the options are not negative and add up to at most one.")
        off.append(max(0.0, 1.0 - float(p.sum())))
        far.append(jensen_shannon(p, wanted) if float(p.sum()) > 0 else None)
    labels = None if questions is None else list(questions)
    named = by_group(far, groups, level, clusters=labels)
    has_worst = any(e.has_interval for e in named.values())
    flipped = (
        worst_group([None if d is None else -d for d in far], groups, level, clusters=labels) if has_worst else None
    )
    return OpinionReport(
        divergence=mean_interval(far, level, labels),
        distance=mean_interval([None if d is None else math.sqrt(d) for d in far], level, labels),
        off_option=mean_interval(off, level, labels),
        uniform=mean_interval([_from_uniform(q) for q in people], level, labels),
        groups=named,
        worst_name=flipped[0] if flipped else "",
        worst=_negated(flipped[1]) if flipped else None,
    )


def _negated(e: Estimate) -> Estimate:
    return Estimate(-e.value, -e.high, -e.low, e.n, e.level, e.method.replace("lowest", "highest"), e.missing)


def _from_uniform(q: ArrayLike) -> float:
    return jensen_shannon(np.ones(len(np.asarray(q))), q)


def _distribution(values: ArrayLike) -> Floats:
    p = np.asarray(values, dtype=np.float64)
    if p.ndim != 1 or not np.isfinite(p).all() or (p < 0).any() or not p.sum() > 0:
        raise RecordError("a distribution is a list of numbers that are not negative, and not all 0.")
    return np.asarray(p / p.sum())


def _entropy(p: Floats) -> float:
    positive = p[p > 0]
    return -float(positive @ np.log(positive))
