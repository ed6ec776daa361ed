"""What is judged and what a judge said of it: comparisons and ratings, with "not parsed" as an outcome of its own.

A pairwise judge plays two games a comparison, with the responses in both orders. They agree, and that is the verdict;
or they do not, and the comparison is a tie that is counted as inconsistent. A game that could not be read makes the
comparison unscored: it is left out of every mean and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from ..records import Messages

__all__ = ["Comparison", "Judgement", "Outcome", "PairJudge", "Rating", "RatingJudge", "Side", "Subject", "Verdict"]

Outcome = Literal["win", "loss", "tie"]  # of response `a`
Side = Literal["a", "b"]
SCORES = {"win": 1.0, "tie": 0.5, "loss": 0.0}
Progress = Callable[[int, int], None]  # done, of how many


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two responses to a prompt: `a` is the system's, `b` the baseline's. `reference` is a correct answer, if known."""

    id: str
    prompt: Messages
    a: str
    b: str
    category: str = ""
    reference: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """One response to be rated."""

    id: str
    prompt: Messages
    response: str
    category: str = ""
    reference: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One game. `outcome` None: the judge's words (`raw`) could not be read, and `reason` says why.

    `first` is the response that was shown first. `weight` counts a strong verdict more (Arena-Hard's `>>`: 3). `share`
    is the probability that `a` is better, from judges that give one. `reason` is otherwise what the judge gave as such.
    """

    outcome: Outcome | None
    first: Side = "a"
    weight: float = 1.0
    share: float | None = None
    raw: str = ""
    reason: str = ""

    @property
    def score(self) -> float | None:
        """1 where `a` won, 0 where it lost, 0.5 for a tie; the share where the judge gave one; None where unread."""
        if self.outcome is None:
            return None
        return self.share if self.share is not None else SCORES[self.outcome]


@dataclass(frozen=True, slots=True)
class Judgement:
    """The games of one comparison by one judge: two, or one where the judge cannot see an order (a reward model)."""

    id: str
    judge: str
    games: tuple[Verdict, ...]

    @property
    def outcome(self) -> Outcome | None:
        """What all games agree on; a tie where they do not; None where one was not read."""
        found = {game.outcome for game in self.games}
        if None in found or not found:
            return None
        return found.pop() if len(found) == 1 else "tie"

    @property
    def consistent(self) -> bool | None:
        """Whether the order of the responses made no difference; None where a game was not read, or there is one."""
        if len(self.games) < 2 or self.outcome is None:
            return None
        return len({game.outcome for game in self.games}) == 1

    @property
    def score(self) -> float | None:
        """1, 0.5 or 0; the mean share of judges that give one; None where a game was not read."""
        if self.outcome is None:
            return None
        shares = [game.share for game in self.games if game.share is not None]
        return sum(shares) / len(shares) if len(shares) == len(self.games) else SCORES[self.outcome]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` reads it back."""
        return {"id": self.id, "judge": self.judge, "games": [asdict(game) for game in self.games]}

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> Judgement:
        """The inverse of `as_dict`. Raises KeyError or TypeError for anything else."""
        return cls(row["id"], row["judge"], tuple(Verdict(**game) for game in row["games"]))


@dataclass(frozen=True, slots=True)
class Rating:
    """A number for one response, on the judge's scale; None where the judge's words could not be read."""

    id: str
    judge: str
    score: float | None
    raw: str = ""
    reason: str = ""


class PairJudge(Protocol):
    """Compares responses. `key` says what a stored verdict is valid for: all that it depends on but the comparison."""

    name: str
    key: str

    def compare(self, items: Sequence[Comparison], *, progress: Progress | None = None) -> list[Judgement]: ...


class RatingJudge(Protocol):
    """Rates responses one at a time, from `low` to `high`."""

    name: str
    key: str
    low: float
    high: float

    def rate(self, items: Sequence[Subject], *, progress: Progress | None = None) -> list[Rating]: ...
