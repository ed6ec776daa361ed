"""Verdicts one can read: the question, the answers side by side, what each judge said in each order, and why.

Everything on show is text in the page, ready before any script runs; the script only hides what a filter does not
match. Of many cases a part is shown, chosen so that rare outcomes are not lost, and the page says how many are not.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ..errors import RecordError
from ..judging.statistics import format_number
from ..judging.verdicts import Comparison, Judgement, Rating, Subject, Verdict
from ..records import Messages
from .figures import shorten

Said = TypeVar("Said", Judgement, Rating)

__all__ = ["KINDS", "Browser", "Case", "browser", "compared", "cut", "kinds", "rated", "sample", "visible"]

KINDS = {
    "win": "won",
    "loss": "lost",
    "tie": "tied",
    "split": "order decided",
    "apart": "judges disagree",
    "rated": "rated",
    "unread": "not read",
    "unjudged": "not judged",
}
TEXT, WORDS = 6000, 3000  # characters of an answer or turn, and of a judge's words, that a page shows
TURNS, GAMES = 12, 20
LETTERS = 3_000_000  # of all cases together: what a phone still scrolls


@dataclass(frozen=True, slots=True)
class Case:
    """What was judged of one system for one prompt: (name, answer) one by one, and what every judge said of it."""

    id: str
    system: str
    prompt: Messages
    answers: tuple[tuple[str, str], ...]
    category: str = ""
    reference: str = ""
    judgements: tuple[Judgement, ...] = ()
    ratings: tuple[Rating, ...] = ()


@dataclass(frozen=True, slots=True)
class Saying:
    """One game or rating in words: where it stands, what was said, why, and the judge's own words."""

    where: str
    said: str
    reason: str
    raw: str
    unread: bool


@dataclass(frozen=True, slots=True)
class Shown:
    """A case, ready to be laid out; every text is cut to what a page holds."""

    id: str
    question: str
    kinds: tuple[str, ...]
    system: int
    category: int
    category_name: str
    system_name: str
    turns: tuple[tuple[str, str], ...]
    answers: tuple[tuple[str, str, int], ...]  # name, text, characters of the whole
    reference: str
    judges: tuple[tuple[str, str, tuple[Saying, ...]], ...]  # name, kind, games


@dataclass(frozen=True, slots=True)
class Browser:
    """`left_out`: cases that are not shown. The options of the filters count what is."""

    shown: tuple[Shown, ...]
    left_out: int
    kinds: tuple[tuple[str, str, int], ...]  # value, words, cases
    categories: tuple[tuple[str, str, int], ...]
    systems: tuple[tuple[str, str, int], ...]


def compared(
    system: str, comparisons: Sequence[Comparison], judgements: Sequence[Judgement], baseline: str = "baseline"
) -> list[Case]:
    """A case for each comparison, in order, with its judgements by any number of judges.

    Raises RecordError for two comparisons of one id, two judgements of one by the same judge, and for a judgement of
    none of them.
    """
    by_id = _by_id(system, [c.id for c in comparisons], judgements)
    return [
        Case(c.id, system, c.prompt, ((system, c.a), (baseline, c.b)), c.category, c.reference, tuple(by_id[c.id]))
        for c in comparisons
    ]


def rated(system: str, subjects: Sequence[Subject], ratings: Sequence[Rating]) -> list[Case]:
    """A case for each rated response, in order. Raises RecordError as `compared` does."""
    by_id = _by_id(system, [s.id for s in subjects], ratings)
    return [
        Case(s.id, system, s.prompt, ((system, s.response),), s.category, s.reference, (), tuple(by_id[s.id]))
        for s in subjects
    ]


def kinds(case: Case) -> tuple[str, ...]:
    """What a case is found under: the outcomes of its judges, each once, and whether these disagree."""
    found = [_kind(j) for j in case.judgements] + ["unread" if r.score is None else "rated" for r in case.ratings]
    decided = {j.outcome for j in case.judgements} - {None}
    return tuple(dict.fromkeys([*found, *(["apart"] if len(decided) > 1 else [])])) or ("unjudged",)


def sample(cases: Sequence[Case], most: int) -> list[Case]:
    """At most `most` cases in their order: kinds take turns until it is full, each evenly spaced over its cases.

    So a kind with few cases is shown whole. What is shown says nothing of shares.
    """
    by_kind: dict[str, list[int]] = defaultdict(list)
    for i, case in enumerate(cases):
        by_kind[kinds(case)[0]].append(i)
    left, quota = most, {}
    for turn, kind in enumerate(sorted(by_kind, key=lambda k: len(by_kind[k]))):
        quota[kind] = min(len(by_kind[kind]), left // (len(by_kind) - turn))
        left -= quota[kind]
    kept = [places[len(places) * k // quota[kind]] for kind, places in by_kind.items() for k in range(quota[kind])]
    return [cases[i] for i in sorted(kept)]


def browser(cases: Sequence[Case], most: int = 300) -> Browser:
    """The cases that a page shows, and the options of its filters."""
    chosen = sample(cases, most)
    systems = list(dict.fromkeys(c.system for c in chosen))
    categories = list(dict.fromkeys(c.category for c in chosen if c.category))
    shown: list[Shown] = []
    letters = 0
    for case in chosen:
        view = _shown(case, systems, categories)
        letters += _letters(view)
        if letters > LETTERS and shown:
            break
        shown.append(view)
    count = Counter(kind for s in shown for kind in s.kinds)
    by_category, by_system = Counter(s.category for s in shown), Counter(s.system for s in shown)
    return Browser(
        tuple(shown),
        len(cases) - len(shown),
        tuple((kind, words, count[kind]) for kind, words in KINDS.items() if count[kind]),
        tuple((str(i), shorten(c, 40), by_category[i]) for i, c in enumerate(categories)),
        tuple((str(i), shorten(s, 40), by_system[i]) for i, s in enumerate(systems)),
    )


def cut(text: str, most: int) -> str:
    """At most about `most` characters: both ends of a longer text, for a judge's verdict stands at its end."""
    if len(text) <= most:
        return text
    tail = most // 4
    return f"{text[: most - tail]}\n[… {len(text) - most:,} characters are left out here …]\n{text[-tail:]}"


def visible(page: str) -> str:
    """A page's text with what would not show, or show something else, made visible.

    Control characters (an ANSI escape, NUL) become their pictures; overrides of the direction of writing, which let a
    text read otherwise than it stands, their numbers; halves of surrogate pairs, which no file can hold, become U+FFFD.
    """
    page = page.replace("\r\n", "\n").replace("\r", "\n")
    return re.sub("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202d\u202e\ud800-\udfff]", _picture, page)


def _picture(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    return f"\u27e8U+{code:04X}\u27e9" if code < 0xD800 else "\ufffd"


def _by_id(system: str, ids: Sequence[str], verdicts: Iterable[Said]) -> dict[str, list[Said]]:
    """Verdicts by the id of what they are of."""
    twice = next((i for i, n in Counter(ids).items() if n > 1), None)
    if twice is not None:
        raise RecordError(f'the id "{twice}" stands for more than one item of {system}.')
    found: dict[str, list[Said]] = {i: [] for i in ids}
    for verdict in verdicts:
        if verdict.id not in found:
            raise RecordError(f'there is a verdict of "{verdict.id}", which is no item of {system}.')
        if any(other.judge == verdict.judge for other in found[verdict.id]):
            raise RecordError(f'{verdict.judge} judged "{verdict.id}" of {system} twice.')
        found[verdict.id].append(verdict)
    return found


def _kind(judgement: Judgement) -> str:
    if judgement.outcome is None:
        return "unread"
    return "split" if judgement.consistent is False else judgement.outcome


def _shown(case: Case, systems: Sequence[str], categories: Sequence[str]) -> Shown:
    asked = [m.content for m in case.prompt if m.role == "user"] or [m.content for m in case.prompt]
    turns = [(m.role, cut(m.content, TEXT)) for m in case.prompt]
    if len(turns) > TURNS:
        turns = [*turns[:2], ("…", f"{len(turns) - TURNS:,} turns are left out here"), *turns[2 - TURNS :]]
    judges = [(shorten(j.judge, 60), _kind(j), tuple(_game(g, case) for g in j.games[:GAMES])) for j in case.judgements]
    judges += [(shorten(r.judge, 60), "unread" if r.score is None else "rated", (_rating(r),)) for r in case.ratings]
    return Shown(
        id=shorten(case.id, 40),
        question=shorten(asked[-1][:1000], 110) if asked else "",
        kinds=kinds(case),
        system=systems.index(case.system),
        category=categories.index(case.category) if case.category else -1,
        category_name=shorten(case.category, 40),
        system_name=shorten(case.system, 40),
        turns=tuple(turns),
        answers=tuple((shorten(name, 40), cut(text, TEXT), len(text)) for name, text in case.answers),
        reference=cut(case.reference, TEXT),
        judges=tuple(judges),
    )


def _game(game: Verdict, case: Case) -> Saying:
    names = [shorten(name, 40) for name, _ in case.answers]
    first = names[0] if game.first == "a" else names[1]
    said = {"win": f"prefers {names[0]}", "loss": f"prefers {names[1]}", "tie": "tie", None: "not read"}[game.outcome]
    if game.weight > 1 and game.outcome in ("win", "loss"):
        said += ", strongly"
    if game.share is not None and math.isfinite(game.share):
        said += f" (share {format_number(game.share, 2)})"
    return _saying(f"{first} shown first", said, game.reason, game.raw, game.outcome is None)


def _rating(rating: Rating) -> Saying:
    said = "not read" if rating.score is None else f"{rating.score:g}"
    return _saying("rating", said, rating.reason, rating.raw, rating.score is None)


def _saying(where: str, said: str, reason: str, raw: str, unread: bool) -> Saying:
    same = raw.strip() == reason.strip()
    return Saying(where, said, cut(reason.strip(), WORDS), "" if same else cut(raw.strip(), WORDS), unread)


def _letters(view: Shown) -> int:
    judged = sum(len(s.reason) + len(s.raw) + 200 for _, _, games in view.judges for s in games)
    return sum(len(t) for _, t in view.turns) + sum(len(t) for _, t, _ in view.answers) + len(view.reference) + judged
