"""Training, validation and test parts of plural data: no question on two sides, and on demand no intent either.

The proportions are those of A-IPO's Table 4, 80 / 10 / 10. What may not be parted (records of one question; with
`by="intent"` also those of one intent, and whatever hangs together through either) goes to one side as a whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, get_args

from ...errors import RecordError, SettingsError, nearest
from ...records import Preference, Record
from .rows import comparable

__all__ = ["PARTS", "SHARES", "By", "check_leaks", "leaks", "question_of", "three_ways", "wanted"]

By = Literal["question", "intent"]
PARTS = ("train", "validation", "test")
SHARES = (0.8, 0.1, 0.1)


def question_of(record: Record) -> str:
    """What a record is about, for comparison: `meta["question"]`, or else its last user turn."""
    said = record.meta.get("question")
    if not isinstance(said, str) or not said.strip():
        said = next(
            (turn.content for turn in reversed(record.prompt) if turn.role == "user"), record.prompt[-1].content
        )
    return comparable(said) or said.strip()


def wanted(records: int, shares: Sequence[float] = SHARES) -> list[int]:
    """How many records each part is to have: the first its share rounded down, the others their shares of the rest,
    likewise, the last what is left (7,303 records: 5,842, 730 and 731, as Table 4 has them)."""
    out: list[int] = []
    for k in range(len(shares)):
        rest = records - sum(out)
        out.append(rest if k == len(shares) - 1 else int(round(rest * shares[k] / sum(shares[k:]), 9)))
    return out


def three_ways(
    records: Iterable[Preference], *, by: By = "question", shares: Sequence[float] = SHARES, seed: int = 0
) -> dict[str, list[Preference]]:
    """{part: records}, each record in one part, in the order given. Which part depends on seed and records alone.

    Bundles (what may not be parted) are taken in the order of their hash, each to the part that lacks most of its
    share. Raises SettingsError where a part would stay empty, for example where one question joins all intents.
    """
    if by not in get_args(By):
        raise SettingsError(
            f'unknown way to split "{by}".{nearest(by, get_args(By))}', remedy="Known: question, intent."
        )
    if len(shares) != len(PARTS) or not all(s > 0 for s in shares) or abs(sum(shares) - 1) > 1e-9:
        raise SettingsError(f"three shares above 0 that add up to 1 are needed, not {list(shares)}.")
    rows = list(records)
    bundles = _bundles(rows, by)
    goal = wanted(len(rows), shares)
    parts: list[list[int]] = [[], [], []]
    for _, members in sorted((_place(name, seed), own) for name, own in bundles.items()):
        lack = [(goal[i] - len(parts[i])) / max(goal[i], 1) for i in range(3)]
        fits = [i for i in range(3) if goal[i] - len(parts[i]) >= len(members)]
        best = max(fits or range(3), key=lambda i: (lack[i], i))
        parts[best] += members
    for name, own in zip(PARTS, parts, strict=True):
        if not own:
            raise SettingsError(
                f"the {name} part of {len(rows):,} records would be empty: they make {len(bundles):,} bundles that may "
                f"not be parted (by {by}).",
                remedy="Split by question, or take more data.",
            )
    return {name: [rows[i] for i in sorted(own)] for name, own in zip(PARTS, parts, strict=True)}


def _place(name: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}\n{name}".encode("utf-8", "surrogatepass")).hexdigest()


def _bundles(rows: Sequence[Preference], by: str) -> dict[str, list[int]]:
    """Numbers of the records that may not be parted, by the least key among theirs."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for row in rows:
        first = root(f"question {question_of(row)}")
        if by == "intent":
            if row.intent is None:
                raise RecordError("a record has no intent to split by.", where=row.where)
            second = root(f"intent {row.intent}")
            parent[max(first, second)] = min(first, second)
    bundles: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        bundles.setdefault(root(f"question {question_of(row)}"), []).append(i)
    return bundles


def leaks(parts: Mapping[str, Iterable[Record]], *, by: By = "question") -> list[str]:
    """Which questions (and intents, with `by="intent"`) stand in two parts, in words; none: an empty list."""
    found = []
    seen: dict[str, str] = {}
    for part, records in parts.items():
        for record in records:
            keys = [f"question {question_of(record)!r}"]
            keys += [f"intent {record.intent!r}"] if by == "intent" else []
            for key in keys:
                if seen.setdefault(key, part) != part:
                    found.append(f"{key} stands in {seen[key]} and {part}")
    return list(dict.fromkeys(found))


def check_leaks(parts: Mapping[str, Iterable[Record]], *, by: By = "question") -> None:
    """Raises RecordError where a question (or an intent) stands in two parts."""
    found = leaks(parts, by=by)
    if found:
        raise RecordError(f"{len(found):,} leaks between parts: {found[0]}.", remedy="Split with three_ways.")
