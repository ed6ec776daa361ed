"""Policies judged by attributes on held-out prompts: SGA's Tables 1, 2 and 5, its Figure 4, and sweeps of one score.

Judges score what `asking` had policies answer, and the reference responses (the chosen ones), alike.

Shapes: N prompts, K attributes of the judges.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..curate.score import Scorer
from ..errors import SettingsError, nearest
from ..records import Messages
from .answers import score_table, spoken
from .asking import HeldOut, Steered
from .attributes import Row, Sensed, judge_sensing, plain_rows, steering_table
from .fronts import controllability
from .statistics import Estimate, bootstrap_interval, mean_interval

__all__ = ["AttributeEvaluation", "Sweep", "judge_answers", "sweep_correlation"]

Floats = NDArray[np.float64]
REFERENCE = "reference"


@dataclass(frozen=True)
class Sweep:
    """One attribute asked for at several scores. `means`: the judges' mean score at each; `spearman`: the rank
    correlation of asked and given scores over all answers, prompts resampled; `of_means`: that of the means."""

    attribute: str
    at: tuple[float, ...]
    means: tuple[Estimate, ...]
    spearman: Estimate
    of_means: float

    def as_dict(self) -> dict[str, Any]:
        return {
            "attribute": self.attribute,
            "at": list(self.at),
            "means": [e.as_dict() for e in self.means],
            "spearman": self.spearman.as_dict(),
            "of_means": None if math.isnan(self.of_means) else self.of_means,
        }


@dataclass
class AttributeEvaluation:
    """What the judges found. `rows`: win rates (see `steering_table`); `means`: mean scores by way of steering, the
    reference responses among them; `sensing` and `sweeps` by policy."""

    on: str
    prompts: int
    names: tuple[str, ...]
    judges: dict[str, str]
    rows: list[Row]
    means: dict[str, dict[str, Estimate]]
    sensing: dict[str, dict[str, Sensed]]
    sweeps: dict[str, list[Sweep]]
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "on": self.on,
            "prompts": self.prompts,
            "attributes": list(self.names),
            "judges": self.judges,
            "rows": plain_rows(self.rows),
            "means": {way: {n: e.as_dict() for n, e in row.items()} for way, row in self.means.items()},
            "sensing": {m: {n: _plain_sensed(s) for n, s in found.items()} for m, found in self.sensing.items()},
            "sweeps": {m: [s.as_dict() for s in found] for m, found in self.sweeps.items()},
            "notes": self.notes,
        }


def _plain_sensed(one: Sensed) -> dict[str, Any]:
    figures = {name: getattr(one, name).as_dict() for name in ("error", "constant", "gain", "r2", "near")}
    counts = {name: list(getattr(one, name)) for name in ("histogram", "constant_histogram", "edges")}
    return {**figures, **counts}


# Judging


def judge_answers(
    systems: Sequence[Steered],
    held: HeldOut,
    scorers: Sequence[Scorer],
    *,
    store: str | Path | None = None,
    tie: float = 0.0,
    resamples: int = 2000,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> AttributeEvaluation:
    """Score what systems answered and the reference responses, and hold them against each other.

    Raises SettingsError for a sweep of an attribute that no judge scores.
    """
    names = tuple(name for scorer in scorers for name in scorer.names)
    for name in (name for system in systems for name in system.sweeps):
        if name not in names:
            raise SettingsError(
                f'no judge scores "{name}" (they score: {", ".join(names)}).{nearest(name, names)}',
                remedy="--steer takes an attribute that the policy is shown and a judge scores, by the same name.",
            )

    def scored(label: str, responses: Sequence[Messages | None]) -> Floats:
        count = (lambda done, of: progress(f"{label}: scores", done, of)) if progress else None
        return score_table(scorers, list(zip(held.prompts, responses, strict=True)), store=store, progress=count)

    reference = scored(REFERENCE, held.responses)
    texts = _labelled(systems)
    tables = {label: scored(label, _turns(answers)) for label, answers in texts.items()}
    options: dict[str, Any] = {"clusters": held.clusters, "resamples": resamples, "seed": seed}
    rows = steering_table(tables, reference, names, against=next(iter(tables)), tie=tie, **options)
    means = {
        label: {name: mean_interval(table[:, k], clusters=held.clusters) for k, name in enumerate(names)}
        for label, table in {REFERENCE: reference, **tables}.items()
    }
    sensing = {
        s.name: judge_sensing(s.sensed, s.truth, s.names, clusters=held.clusters, seed=seed)
        for s in systems
        if s.sensed is not None and s.truth is not None
    }
    sweeps = {s.name: [_sweep(a, v, names, scored, held, options) for a, v in s.sweeps.items()] for s in systems}
    judges = {", ".join(scorer.names): scorer.title for scorer in scorers}
    return AttributeEvaluation(
        held.on, len(held.prompts), names, judges, rows, means, sensing,
        {name: found for name, found in sweeps.items() if found}, [note for s in systems for note in s.notes],
    )  # fmt: skip


def _labelled(systems: Sequence[Steered]) -> dict[str, list[str | None]]:
    """Answers by a name that tells them apart: the policy's, the way of steering, or both."""
    out: dict[str, list[str | None]] = {}
    for system in systems:
        for way, answers in system.answers.items():
            parts = [system.name] if len(systems) > 1 or len(system.answers) == 1 else []
            parts += [way] if len(system.answers) > 1 else []
            out[" · ".join(parts)] = answers
    return out


def _turns(answers: Sequence[str | None]) -> list[Messages | None]:
    return [None if text is None else spoken(text) for text in answers]


def _sweep(
    attribute: str,
    answers: Mapping[float, Sequence[str | None]],
    names: Sequence[str],
    scored: Callable[[str, Sequence[Messages | None]], Floats],
    held: HeldOut,
    options: Mapping[str, Any],
) -> Sweep:
    k = list(names).index(attribute)
    at = tuple(answers)
    table = np.stack([scored(f"{attribute}={v:g}", _turns(answers[v]))[:, k] for v in at], axis=1)  # (N, values)
    means = tuple(mean_interval(column, clusters=held.clusters) for column in table.T)
    points = np.array([e.value for e in means])
    of_means = controllability(np.array(at)[:, None], points[:, None])[0] if np.isfinite(points).all() else math.nan
    return Sweep(attribute, at, means, sweep_correlation(at, table, **options), float(of_means))


def sweep_correlation(
    at: Sequence[float], table: Floats, *, clusters: Sequence[str] | None = None, resamples: int = 2000, seed: int = 0
) -> Estimate:
    """Spearman's rank correlation of the score asked for and the score given, over all answers.

    `table` (N, len(at)) are the scores given; prompts are resampled with all their answers, and one that lacks a score
    is left out and counted. NaN where the score given never changes.
    """
    items = np.where(np.isnan(table).any(axis=1), math.nan, np.arange(len(table), dtype=np.float64))

    def of(chosen: Floats) -> float:
        rows = table[chosen.astype(np.int64)]
        return float(_spearman(np.tile(np.asarray(at, dtype=np.float64), len(rows)), rows.reshape(-1)))

    return bootstrap_interval(items, of, resamples, seed=seed, clusters=clusters)


def _spearman(x: Floats, y: Floats) -> float:
    from scipy.stats import rankdata

    a, b = rankdata(x), rankdata(y)
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / scale if scale > 0 else math.nan
