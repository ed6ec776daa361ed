"""Judges that give a response a number of its own: reward models, rating heads, closeness of embeddings.

They see no order, so that a comparison is one game: the higher number wins, and what lies within a tolerance is a tie.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..curate.texts import part_key
from ..records import Messages
from .verdicts import Comparison, Judgement, Outcome, Progress, Rating, Subject, Verdict

if TYPE_CHECKING:
    from ..curate.score import Scorer
    from ..encoders import Encoder

__all__ = ["ScoreJudge", "embedding_judge", "scorer_judge"]

Found = tuple[float | None, str]  # the score of a response, and what is to be said of it
BATCH = 64
CLOSE = 1e-6  # cosines in fp32 that are the same


@dataclass(frozen=True)
class ScoreJudge:
    """`score` gives each subject a number or None, with a note. `shares`: P(a better) = sigmoid(difference), for scores
    that are logits of a Bradley-Terry model."""

    name: str
    key: str
    score: Callable[[Sequence[Subject]], Sequence[Found]]
    tolerance: float = 0.0
    shares: bool = False
    low: float = -math.inf
    high: float = math.inf

    def compare(self, items: Sequence[Comparison], *, progress: Progress | None = None) -> list[Judgement]:
        """One game each; unread where either response has no score."""
        sides = [Subject(item.id, item.prompt, text, item.category, item.reference)
                 for item in items for text in (item.a, item.b)]  # fmt: skip
        found = self._scores(sides, progress and (lambda done, of: progress(done // 2, of // 2)))
        return [
            Judgement(item.id, self.name, (self._verdict(found[2 * i], found[2 * i + 1]),))
            for i, item in enumerate(items)
        ]

    def rate(self, items: Sequence[Subject], *, progress: Progress | None = None) -> list[Rating]:
        """The number itself."""
        found = self._scores(items, progress)
        return [
            Rating(item.id, self.name, value, reason=note) for item, (value, note) in zip(items, found, strict=True)
        ]

    def _scores(self, items: Sequence[Subject], progress: Progress | None) -> list[Found]:
        """In order; responses that are the same to the same prompt are scored once."""
        keys = [(part_key(s.prompt), s.response, s.reference) for s in items]
        seen = {key: i for i, key in enumerate(keys)}
        asked = list(seen.values())
        known: dict[int, Found] = {}
        for start in range(0, len(asked), BATCH):
            part = asked[start : start + BATCH]
            for i, (value, note) in zip(part, self.score([items[i] for i in part]), strict=True):
                known[i] = (value, note) if value is None or math.isfinite(value) else (None, "not a finite number")
            if progress:
                progress(round(len(known) / len(asked) * len(items)), len(items))
        return [known[seen[key]] for key in keys]

    def _verdict(self, a: Found, b: Found) -> Verdict:
        notes = "; ".join(f"{side}: {note}" for side, (_, note) in zip("ab", (a, b), strict=True) if note)
        if a[0] is None or b[0] is None:
            return Verdict(None, reason=notes or "no score")
        gap = a[0] - b[0]
        outcome: Outcome = "tie" if abs(gap) <= self.tolerance else "win" if gap > 0 else "loss"
        raw = json.dumps([a[0], b[0]])
        return Verdict(outcome, share=_sigmoid(gap) if self.shares else None, raw=raw, reason=notes)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def scorer_judge(
    scorer: Scorer, attribute: str | None = None, *, name: str = "", tolerance: float = 0.0, shares: bool = False
) -> ScoreJudge:
    """A judge of a scorer (reward model, rating head, measure): its only attribute, or the one that is named.

    Raises SettingsError where it has several and none is named, or the named one is not among them.
    """
    from ..errors import SettingsError, nearest
    from .answers import spoken

    if len(scorer.names) > 1 if attribute is None else attribute not in scorer.names:
        hint = nearest(attribute, scorer.names) if attribute else ""
        raise SettingsError(
            f'{scorer.title or name} scores {", ".join(scorer.names)}, not "{attribute or "one quality"}".{hint}',
            remedy="Name one of them, such as JUDGE#helpfulness.",
        )
    place = scorer.names.index(attribute) if attribute is not None else 0

    def score(items: Sequence[Subject]) -> list[Found]:
        found = scorer.score([(item.prompt, spoken(item.response)) for item in items])
        return [(one.values[place], one.note) for one in found]

    low, high = scorer.ranges.get(scorer.names[place], (-math.inf, math.inf))
    key = f"score {scorer.key or scorer.title} {scorer.names[place]} {tolerance:g} {shares}"
    return ScoreJudge(name or scorer.title, key, score, tolerance, shares, low, high)


def embedding_judge(encoder: Encoder, *, tolerance: float = CLOSE) -> ScoreJudge:
    """The response that lies nearer to the reference answer, or, where there is none, to the last words of the user.

    Scores are cosines. It knows topics, not truth: a statement and its negation are near each other.
    """

    def score(items: Sequence[Subject]) -> list[Found]:
        found = encoder.encode(
            [text for item in items for text in (item.response, item.reference or _last(item.prompt))]
        )
        cosines = np.einsum("nd,nd->n", found[0::2].astype(np.float64), found[1::2].astype(np.float64))
        return [(float(value), "") for value in cosines]

    return ScoreJudge(f"embedding {encoder.name}", f"embedding {encoder.key} {tolerance:g}", score, tolerance,
                      low=-1.0, high=1.0)  # fmt: skip


def _last(prompt: Messages) -> str:
    """What the user said last; everything, where nobody is a user."""
    own = [turn.content for turn in prompt if turn.role == "user"]
    return own[-1] if own else "\n\n".join(turn.content for turn in prompt)
