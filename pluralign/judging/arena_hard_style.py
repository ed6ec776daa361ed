"""Arena-Hard's style control: what a model's score would be at equal length and markup.

logit P(model beats baseline) = c_model - c_baseline + z . beta, over four features: length in tokens (a - b) / (a + b),
and the densities n / (length + 1) of headers, lists and bold text, as (a - b) / (a + b + 1)
(`print_leaderboard_with_style_features` of lmarena/arena-hard-auto). The published optimiser takes 50 L-BFGS steps from
0.5 and stops where it is; the converged fit stands beside it. v0.1 uses (a - b) / (a + b + 1) throughout, base 10 and
an L2 penalty of 1 on battles counted twice.

Published features are centred over all battles in the folder, so a score depends on which other models are there, and
what all models have more of than the baseline is not controlled for at all: with one model, nothing is. `centre=False`
compares at zero difference. Shapes: E entries, F features, M models with the baseline.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import SettingsError
from .arena_hard import LEVELS, Version
from .logistic import cluster_codes, fit_logistic, resampled_fits
from .statistics import Estimate

__all__ = [
    "FEATURES",
    "Controls",
    "Style",
    "StyleControlled",
    "StyleFit",
    "design",
    "fit_as_published",
    "markdown_counts",
    "style_controlled",
    "style_features",
]

Floats = NDArray[np.float64]
Controls = Literal["length", "markdown"]
FEATURES = ("length", "headers", "lists", "bold")
OF_CONTROL: dict[str, tuple[str, ...]] = {"length": FEATURES[:1], "markdown": FEATURES[1:]}
CODE = re.compile(r"```([^`]*)```")
MARKUP = {
    "headers": re.compile(r"^#{1,6}\s", re.MULTILINE),
    "lists": re.compile(r"^\s*(?:\d+\.|[-*+])\s", re.MULTILINE),
    "bold": re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__"),
}


@dataclass(frozen=True, slots=True)
class Style:
    """Counts of one answer: tokens (by the counter of your choice, the same for all) and markup outside code blocks."""

    length: float
    headers: float = 0.0
    lists: float = 0.0
    bold: float = 0.0


@dataclass(frozen=True)
class StyleFit:
    """`scores`: the win probability of each model against the baseline (0.5); `effects`: what one sd of a feature is
    worth, in nats of the logit. `dropped`: features that never change, for which nothing can be fitted."""

    scores: Mapping[str, Estimate]
    effects: Mapping[str, Estimate]
    dropped: tuple[str, ...]


@dataclass(frozen=True)
class StyleControlled:
    """`published`: the optimiser and interval of the leaderboard, seeded. `converged`: the optimum, with a 95 %
    interval over resampled prompts."""

    published: StyleFit
    converged: StyleFit

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            name: {
                "scores": {k: e.as_dict() for k, e in fit.scores.items()},
                "effects": {k: e.as_dict() for k, e in fit.effects.items()},
                "dropped": list(fit.dropped),
            }
            for name, fit in (("published", self.published), ("converged", self.converged))
        }


def markdown_counts(text: str, length: float) -> Style:
    """Headers (h1 to h6), list items and bold spans of an answer, code blocks left out; `length` is its tokens."""
    plain = CODE.sub("", text)
    return Style(length, *(float(len(pattern.findall(plain))) for pattern in MARKUP.values()))


def style_features(models: Sequence[Style], baselines: Sequence[Style], version: Version = "v2") -> Floats:
    """(E, 4) differences of model and baseline, not standardised. Where both answers are empty, the length differs by 0
    (the published code divides 0 by 0 there). Raises SettingsError for lists of unequal length."""
    if len(models) != len(baselines):
        raise SettingsError(f"{len(models)} answers of models, but {len(baselines)} of the baseline.")
    a, b = (np.array([[getattr(s, f) for f in FEATURES] for s in side]).reshape(-1, 4) for side in (models, baselines))
    if version == "v0.1":
        return np.asarray((a - b) / (a + b + 1))
    total = a[:, 0] + b[:, 0]
    length = np.divide(a[:, 0] - b[:, 0], total, out=np.zeros(len(a)), where=total > 0)
    one, two = (x[:, 1:] / (x[:, :1] + 1) for x in (a, b))
    return np.column_stack([length, (one - two) / (one + two + 1)])


def design(
    features: Floats, controls: Sequence[Controls], version: Version = "v2", *, centre: bool = True
) -> tuple[Floats, tuple[str, ...], tuple[str, ...]]:
    """(E, F) the chosen features over their sd, their names, and those that were dropped because they never change.

    The columns are the features' own: the published code cuts models and features from the wrong end of one matrix
    where only one control is asked for. Raises SettingsError for unknown or no controls.
    """
    unknown = [c for c in controls if c not in OF_CONTROL]
    if unknown or not controls:
        raise SettingsError(f"style is controlled by {' and '.join(OF_CONTROL)}, not {unknown or 'nothing'}.")
    wanted = [f for f in FEATURES if any(f in OF_CONTROL[c] for c in controls)]
    columns = features[:, [FEATURES.index(f) for f in wanted]]
    spread = columns.std(axis=0, ddof=1 if version == "v2" else 0) if len(columns) > 1 else np.zeros(len(wanted))
    moving = spread > 1e-12
    table = (columns - (columns.mean(0) if centre else 0.0))[:, moving] / spread[moving]
    names = [(f, bool(m)) for f, m in zip(wanted, moving, strict=True)]
    return table, tuple(f for f, m in names if m), tuple(f for f, m in names if not m)


def style_controlled(
    models: Sequence[str],
    scores: Floats,
    features: Floats,
    *,
    baseline: str,
    controls: Sequence[Controls] = ("length", "markdown"),
    version: Version = "v2",
    centre: bool = True,
    prompts: Sequence[Hashable] | None = None,
    resamples: int = 100,
    seed: int = 0,
    level: float = 0.95,
) -> StyleControlled:
    """Scores of all models at equal style, from entries: their models (E,), scores (E,) in [0, 1] and features (E, 4).

    `prompts` (E,) labels entries that belong together, for the converged interval. Raises SettingsError for entries
    that do not fit together.
    """
    if not len(models) == len(scores) == len(features) or not len(scores):
        raise SettingsError(f"each entry has a model, a score and features: {len(models)}, {len(scores)}.")
    z, names, dropped = design(features, controls, version, centre=centre)
    everyone = sorted({*models, baseline})
    scale = 1.0 if version == "v2" else math.log(10)
    hot = np.zeros((len(models), len(everyone)))
    for row, model in enumerate(models):
        if model == baseline:
            raise SettingsError("the baseline does not play against itself.")
        hot[row, everyone.index(model)], hot[row, everyone.index(baseline)] = scale, -scale
    x = np.hstack([hot, z])
    published = _as_published(x, scores, version, resamples, seed)
    first = published[0] if version == "v0.1" else None  # v2 reports the median of its resamples
    own = [everyone.index(m) for m in everyone if m != baseline] + list(range(len(everyone), x.shape[1]))
    ones, codes = np.ones(len(scores)), cluster_codes(prompts, np.ones(len(scores), dtype=np.bool_))
    reduced = x[:, own]
    optimum = fit_logistic(reduced, scores, ones)
    if not optimum.converged:
        raise SettingsError("a model won or lost everything: at no finite strength is style told from it.")
    drawn = list(resampled_fits(reduced, scores, ones, optimum.coefficients, clusters=codes, resamples=resamples,
                                seed=seed))  # fmt: skip
    full = np.zeros((1 + len(drawn), x.shape[1]))
    full[:, own] = np.stack([optimum.coefficients, *drawn])
    told = (everyone, baseline, names, dropped, scale, models)
    return StyleControlled(
        published=_fit_of(first, published[1:], *told, LEVELS[version], f"as published ({version})"),
        converged=_fit_of(full[0], full[1:], *told, level, "converged"),
    )


def _as_published(x: Floats, y: Floats, version: Version, resamples: int, seed: int) -> Floats:
    """(1 + B, M + F) coefficients: of all entries, then of resampled entries."""
    rng = np.random.default_rng(seed)
    index = [np.arange(len(y)), *(rng.integers(len(y), size=len(y)) for _ in range(resamples))]
    if version == "v2":
        return np.stack([fit_as_published(x[i], y[i]) for i in index])
    twice = 2 * np.ones(len(y))  # each battle stands twice so that a tie is one win and one loss
    return np.stack([fit_logistic(x[i], y[i], twice, l2=1.0).coefficients for i in index])


def fit_as_published(x: Floats, y: Floats) -> Floats:
    """(P,) where v2's optimiser stops: L-BFGS, learning rate 0.1, at most 50 steps from 0.5, in single precision."""
    import torch

    features, outcomes = torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)
    theta = torch.full((x.shape[1],), 0.5, requires_grad=True)
    optimiser = torch.optim.LBFGS([theta], lr=0.1, max_iter=50, tolerance_grad=1e-9, tolerance_change=1e-9)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(features @ theta, outcomes, reduction="sum")
        loss.backward()
        return loss

    optimiser.step(closure)
    return np.asarray(theta.detach().double().numpy())


def _fit_of(
    value: Floats | None, draws: Floats, everyone: Sequence[str], baseline: str, names: Sequence[str],
    dropped: tuple[str, ...], scale: float, models: Sequence[str], level: float, method: str,
) -> StyleFit:  # fmt: skip
    """Scores and effects with the quantiles of their resamples; without a `value`, their medians."""
    tail, at = (1 - level) / 2, everyone.index(baseline)
    note = f"{method}, bootstrap percentile, {len(draws)} resamples"

    def estimate(of: Callable[[Floats], Floats], n: int) -> Estimate:
        drawn = of(draws)
        known = drawn[~np.isnan(drawn)]
        low, high = np.quantile(known, [tail, 1 - tail]) if len(known) else (math.nan, math.nan)
        point = float(of(value[None])[0]) if value is not None else float(np.median(known)) if len(known) else math.nan
        return Estimate(point, min(float(low), point), max(float(high), point), n, level, note)

    def score(k: int) -> Callable[[Floats], Floats]:
        return lambda coefficients: _sigmoid(scale * (coefficients[:, k] - coefficients[:, at]))

    def effect(k: int) -> Callable[[Floats], Floats]:
        return lambda coefficients: coefficients[:, len(everyone) + k]

    fought = {name: len(models) if name == baseline else list(models).count(name) for name in everyone}
    return StyleFit(
        scores={name: estimate(score(k), fought[name]) for k, name in enumerate(everyone)},
        effects={name: estimate(effect(k), len(models)) for k, name in enumerate(names)},
        dropped=dropped,
    )


def _sigmoid(z: Floats) -> Floats:
    return np.asarray(np.exp(-np.logaddexp(0.0, -z)))
