"""Arena-Hard v0.1 and v2: scores against a baseline from two games a prompt, as published and as they should be.

Game 0 shows the baseline as A, game 1 the model as A; "A>>B" counts three times (lmarena/arena-hard-auto,
`show_result.py`). Both versions average the same entries when style is not controlled: against one baseline,
Bradley-Terry is saturated and its optimum is the share. They differ in what an unread game does (v2 drops the row, v0.1
the game), in the interval (90 or 95 %) and in the value (v2: the mean of its resamples). Neither is seeded; here both
are. Style control is in `arena_hard_style`. Scores are shares: published tables show them times 100.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import SettingsError
from .statistics import Estimate, mean_interval

__all__ = [
    "BASELINES", "LABELS", "ArenaGame", "ArenaScore", "Entries", "Version", "arena_hard", "game_score", "row_entries",
]  # fmt: skip

Floats = NDArray[np.float64]
Version = Literal["v0.1", "v2"]
STRONG = 3  # how often a ">>" counts
LEVELS: dict[str, float] = {"v0.1": 0.95, "v2": 0.9}
BASELINES = {
    "hard_prompt": "o3-mini-2025-01-31",
    "coding": "o3-mini-2025-01-31",
    "math": "o3-mini-2025-01-31",
    "creative_writing": "gemini-2.0-flash-001",
    "arena-hard-v0.1": "gpt-4-0314",
}
# what a verdict says of A, and how strongly; "A<B" and the like are read by `show_result.py` too
LABELS: dict[str, tuple[float, bool]] = {
    "A>>B": (1.0, True), "A>B": (1.0, False), "A=B": (0.5, False), "A<B": (0.0, False), "A<<B": (0.0, True),
    "B>>A": (0.0, True), "B>A": (0.0, False), "B=A": (0.5, False), "B<A": (1.0, False), "B<<A": (1.0, True),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ArenaGame:
    """The two verdicts on one prompt: labels of game 0 (the baseline is A) and game 1 (the model is A), None where
    unread."""

    uid: str
    model: str
    games: tuple[str | None, str | None]
    category: str = ""
    baseline: str = ""
    judge: str = ""


@dataclass(frozen=True)
class Entries:
    """Scores of the model, one per count: `scores` (E,), `places` (E,) the row each came from; games that were not
    read."""

    scores: Floats
    places: NDArray[np.int64]
    unread_rows: int
    unread_games: int


@dataclass(frozen=True, slots=True)
class ArenaScore:
    """`published`: value and interval as the leaderboard makes them. `score`: the mean itself, with the 95 % interval
    that is robust to both games and all counts of a prompt belonging together. `n` of both: entries; `prompts`:
    prompts."""

    model: str
    baseline: str
    score: Estimate
    published: Estimate
    prompts: int
    unread_rows: int
    unread_games: int

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "model": self.model,
            "baseline": self.baseline,
            "score": self.score.as_dict(),
            "published": self.published.as_dict(),
            "prompts": self.prompts,
            "unread_rows": self.unread_rows,
            "unread_games": self.unread_games,
        }


def game_score(label: str | None, *, model_is_a: bool, weight: int = STRONG) -> list[float] | None:
    """The entries of a game: the model's score, `weight` times where the verdict is strong; None where unread.

    Raises SettingsError for a label that is no verdict.
    """
    if label is None:
        return None
    if label not in LABELS:
        raise SettingsError(f'"{label}" is no verdict of Arena-Hard ({", ".join(LABELS)}).')
    of_a, strong = LABELS[label]
    return [of_a if model_is_a else 1.0 - of_a] * (weight if strong else 1)


def row_entries(games: Sequence[ArenaGame], version: Version = "v2", weight: int = STRONG) -> Entries:
    """All entries of rows, game 1 before game 0 as published. v2 drops a row with an unread game, v0.1 that game alone.

    Labels (baseline A) "A>B" and (model A) "A>>B" give 1, 1, 1, 0: a mean of .75.
    """
    scores: list[float] = []
    places: list[int] = []
    unread_rows = unread_games = 0
    for place, row in enumerate(games):
        found = [
            game_score(row.games[1], model_is_a=True, weight=weight),
            game_score(row.games[0], model_is_a=False, weight=weight),
        ]
        unread_rows += None in found
        unread_games += found.count(None)
        if version == "v2" and None in found:
            continue
        new = [score for entries in found if entries is not None for score in entries]
        scores += new
        places += [place] * len(new)
    return Entries(np.array(scores, dtype=np.float64), np.array(places, dtype=np.int64), unread_rows, unread_games)


def arena_hard(
    games: Sequence[ArenaGame],
    version: Version = "v2",
    *,
    weight: int = STRONG,
    resamples: int = 100,
    seed: int = 0,
    level: float = 0.95,
) -> list[ArenaScore]:
    """Scores of every model, best first; prompts judged by several judges are pooled, as published.

    `published` is v2's mean of `resamples` bootstrap means over entries with the 5 to 95 % range, or v0.1's share with
    the 2.5 to 97.5 % range over entries of all models drawn together. Raises SettingsError for another version.
    """
    if version not in LEVELS:
        raise SettingsError(f'a version is "v0.1" or "v2", not "{version}".')
    entries = row_entries(games, version, weight)
    owners = np.array([games[i].model for i in entries.places.tolist()], dtype=object)
    models = sorted({row.model for row in games})
    rng = np.random.default_rng(seed)
    drawn = _bootstrap(entries.scores, owners, models, version, resamples, rng)
    out = []
    for model in models:
        rows = [row for row in games if row.model == model]
        own = owners == model
        prompts: list[Hashable] = [games[i].uid for i in entries.places[own].tolist()]
        counted = row_entries(rows, version, weight)
        unread = counted.unread_rows if version == "v2" else counted.unread_games
        score = replace(mean_interval(entries.scores[own], level, prompts), missing=unread)
        out.append(
            ArenaScore(
                model=model,
                baseline=_baseline(rows),
                score=_cut(score),
                published=_published(score, drawn[model], version),
                prompts=len(set(prompts)),
                unread_rows=counted.unread_rows,
                unread_games=counted.unread_games,
            )
        )
    return sorted(out, key=lambda s: -s.score.value if not math.isnan(s.score.value) else math.inf)


def _bootstrap(
    scores: Floats, owners: NDArray[Any], models: Sequence[str], version: Version, resamples: int,
    rng: np.random.Generator,
) -> dict[str, Floats]:  # fmt: skip
    """Per model the means of resamples: within each model (v2), or of all battles together (v0.1)."""
    if version == "v2":
        return {
            model: np.array([rng.choice(own, len(own)).mean() for _ in range(resamples)]) if len(own) else np.zeros(0)
            for model in models
            for own in [scores[owners == model]]
        }
    found: dict[str, list[float]] = {model: [] for model in models}
    for _ in range(resamples):
        index = rng.integers(len(scores), size=len(scores))
        for model in models:
            own = scores[index[owners[index] == model]]
            if len(own):
                found[model].append(float(own.mean()))
    return {model: np.array(values) for model, values in found.items()}


def _published(score: Estimate, drawn: Floats, version: Version) -> Estimate:
    if not len(drawn):
        return replace(score, low=math.nan, high=math.nan, level=LEVELS[version])
    value = float(drawn.mean()) if version == "v2" else score.value
    outside = (1 - LEVELS[version]) / 2
    low, high = (float(q) for q in np.quantile(drawn, [outside, 1 - outside]))
    note = f"as published ({version}), bootstrap percentile, {len(drawn)} resamples of entries"
    return Estimate(value, min(low, value), max(high, value), score.n, LEVELS[version], note, score.missing)


def _cut(e: Estimate) -> Estimate:
    return replace(e, low=max(0.0, e.low), high=min(1.0, e.high)) if e.has_interval else e


def _baseline(rows: Sequence[ArenaGame]) -> str:
    """The baseline that the rows name, or that their category has."""
    named = {row.baseline or BASELINES.get(row.category, "") for row in rows}
    return named.pop() if len(named) == 1 else ", ".join(sorted(named - {""}))
