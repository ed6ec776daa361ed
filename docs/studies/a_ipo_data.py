"""The data of the A-IPO study: attacks on questions, opinions of countries, preferences of people."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from pluralign.curate.plural import Built, attack_pref, opinion_ext, prefeval_intents, rows_of, three_ways
from pluralign.records import Preference

__all__ = ["SETS", "Parts", "Set", "parts_of"]

SHARED = Path(os.environ.get("PLURALIGN_SHARED", "../shared/data"))
MOST = 600  # records of a set, so that every method sees the same number in a run


@dataclass(frozen=True)
class Set:
    """A data set: how it is built, what an intent is in it, and by which field of `meta` results are broken down."""

    build: Callable[[int], Built]
    intent: str
    by: str
    beliefs: bool = False


@dataclass(frozen=True)
class Parts:
    """Training and test records of one seed; no question stands on both sides."""

    train: list[Preference]
    test: list[Preference]
    about: Set


def _attacks(seed: int) -> Built:
    return attack_pref(rows_of(SHARED / "mkqa_nq" / "nq_open_dev.jsonl.gz"), limit=MOST, seed=seed)


def _opinions(seed: int) -> Built:
    rows = rows_of(SHARED / "opinion_distributions" / "globalopinionqa_eval.jsonl.gz")
    return opinion_ext(rows, intents="option", show_country=True, seed=seed)


def _preferences(seed: int) -> Built:
    (path,) = sorted((SHARED / "prefeval").glob("*mcq*"))
    return prefeval_intents(rows_of(path), form="stated", intents="topic", seed=seed)


SETS: dict[str, Set] = {
    "attacks": Set(_attacks, "what kind of thing the main question asks for", "style"),
    "opinions": Set(_opinions, "the opinion that most people of the country hold", "against_world", beliefs=True),
    "preferences": Set(_preferences, "the topic of the stated preference", "domain"),
}


def parts_of(name: str, seed: int) -> Parts:
    """The parts of one seed; at most MOST records, drawn, and of opinions the 40 most frequent intents."""
    about = SETS[name]
    records = about.build(seed).records
    counts: dict[str, int] = {}
    for r in records:
        counts[str(r.intent)] = counts.get(str(r.intent), 0) + 1
    kept = set(sorted(counts, key=lambda i: (-counts[i], i))[:40])
    records = [r for r in records if r.intent in kept]
    random.Random(seed).shuffle(records)
    parts = three_ways([replace(r, weight=1.0) for r in records[:MOST]], by="question", seed=seed)
    return Parts(parts["train"], [*parts["validation"], *parts["test"]], about)
