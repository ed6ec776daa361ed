"""Several judges at once: the outcome of most of them, with what each of them said."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import SettingsError
from .agreement import krippendorff_alpha
from .statistics import Estimate
from .verdicts import Comparison, Judgement, Outcome, PairJudge, Progress, Verdict

__all__ = ["Panel", "panel_agreement", "panel_votes"]


@dataclass(frozen=True)
class Panel:
    """The outcome of more than half of the judges that could be read, else a tie; one game, unread where no more than
    half of the judges could be. `raw` holds each judge's outcome as JSON (`panel_votes`)."""

    judges: tuple[PairJudge, ...]

    def __post_init__(self) -> None:
        names = [judge.name for judge in self.judges]
        if len(names) < 2 or len(set(names)) < len(names):
            raise SettingsError(
                "a panel is two or more different judges.", remedy="--judge panel:local,embedding,rule:longer"
            )

    @property
    def name(self) -> str:
        return f"panel of {', '.join(judge.name for judge in self.judges)}"

    @property
    def key(self) -> str:
        own = json.dumps([judge.key for judge in self.judges])
        return f"panel {hashlib.sha256(own.encode()).hexdigest()[:32]}"

    def compare(self, items: Sequence[Comparison], *, progress: Progress | None = None) -> list[Judgement]:
        """Every judge in turn; `progress` counts over all of them."""
        columns = []
        for number, judge in enumerate(self.judges):
            before, total = number * len(items), len(items) * len(self.judges)

            def heard(done: int, of: int, before: int = before, total: int = total) -> None:
                if progress:
                    progress(before + done, total)

            columns.append(judge.compare(items, progress=heard))
        return [
            Judgement(item.id, self.name, (self._verdict([column[i].outcome for column in columns]),))
            for i, item in enumerate(items)
        ]

    def _verdict(self, outcomes: Sequence[Outcome | None]) -> Verdict:
        raw = json.dumps({judge.name: one for judge, one in zip(self.judges, outcomes, strict=True)})
        read = [one for one in outcomes if one is not None]
        if 2 * len(read) <= len(outcomes):
            return Verdict(None, raw=raw, reason=f"{len(read)} of {len(outcomes)} judges could be read")
        top, votes = Counter(read).most_common(1)[0]
        if 2 * votes <= len(read):
            return Verdict("tie", raw=raw, reason="no majority")
        return Verdict(top, raw=raw, reason=f"{votes} of {len(outcomes)} judges")


def panel_votes(judgement: Judgement) -> dict[str, Outcome | None]:
    """What each judge of a panel said. Raises SettingsError for a judgement of something else."""
    try:
        votes = json.loads(judgement.games[0].raw)
        return {str(name): vote for name, vote in votes.items()}
    except (ValueError, IndexError, AttributeError):
        raise SettingsError(f"the judgement of {judgement.judge} is not a panel's.") from None


def panel_agreement(judgements: Sequence[Judgement]) -> Estimate:
    """Krippendorff's alpha over the panel's judges (nominal: win, tie, loss), with its interval; unread are missing."""
    votes = [panel_votes(one) for one in judgements]
    names = list(votes[0]) if votes else []
    return krippendorff_alpha([[row.get(name) for row in votes] for name in names])
