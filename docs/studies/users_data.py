"""People and what each of them judged, for docs/studies/users.md: votes and ratings as scores, split by thing.

A pair of a person is two things with different scores. Things, not pairs, are divided among training, validation and
test, since pairs of one person share statements: a random split of pairs would ask of a statement what it had told.
"""

from __future__ import annotations

import gzip
import json
import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pluralign.data.votes import read_votes
from pluralign.policy import Policy
from pluralign.records import messages
from pluralign.scoring.layout import Scored
from pluralign.terms import Term

__all__ = ["SETS", "SHARED", "People", "Split", "features", "read_people", "split_people"]

SHARED = Path(os.environ.get("PLURALIGN_SHARED", Path(__file__).parents[3] / "shared" / "data"))
POLIS = {
    "bowling-green": "american-assembly.bowling-green",
    "housing": "scoop-hivemind.affordable-housing",
    "taxes": "scoop-hivemind.taxes",
    "land-bank": "ssis.land-bank-farmland.2rumnecbeh.2021-08-01",
}
SETS = ("ccai", *POLIS, "popquorn")
ADAPT = (0, 50, 100, 200)
TRAIN, VALIDATE, TEST = 60, 12, 40  # pairs of a known person at most
SEEN, UNSEEN = 120, 20  # people of a draw at most
WIDTH = 128  # principal components kept of the features
SHARE = 0.3  # of the people who have enough pairs, unseen (H.5.2: 3 of 10)
Triples = list[tuple[int, int, int]]


@dataclass(frozen=True)
class People:
    """A data set: the prompt, texts of things, and per person the score of each thing judged (higher is better)."""

    name: str
    topic: str
    texts: tuple[str, ...]
    scores: tuple[Mapping[int, float], ...]


@dataclass
class Split:
    """One draw. Known people: `train`, `validation`, `test` (person, better, worse), persons numbered 0..; `seen` their
    numbers in the data set. Unseen people `unseen`: `adapt` (U, k, 2), `new` (pairs of things that the adaptation does
    not touch) and `rest` (its other pairs), persons numbered 0.. again."""

    seen: list[int]
    unseen: list[int]
    largest: int
    train: Triples = field(default_factory=list)
    validation: Triples = field(default_factory=list)
    test: Triples = field(default_factory=list)
    adapt: list[list[tuple[int, int]]] = field(default_factory=list)
    new: Triples = field(default_factory=list)
    rest: Triples = field(default_factory=list)


def read_people(name: str) -> People:
    """One of `SETS`."""
    if name == "popquorn":
        return _popquorn()
    votes = read_votes(SHARED / "ccai_polis", topic="How should an AI behave?") if name == "ccai" else read_votes(
        SHARED / "polis_opendata" / POLIS[name])  # fmt: skip
    place = {key: i for i, key in enumerate(votes.statements)}
    scores = tuple(
        {**{place[s]: 1.0 for s in b.agreed}, **{place[s]: -1.0 for s in b.disagreed}} for b in votes.ballots
    )
    return People(name, votes.topic, tuple(votes.statements.values()), scores)


def _popquorn() -> People:
    with gzip.open(SHARED / "popquorn" / "offensiveness.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    texts: dict[str, str] = {}
    scores: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["user_id"]:
            texts.setdefault(row["instance_id"], row["text"])
            scores.setdefault(row["user_id"], {})[row["instance_id"]] = -float(row["offensiveness"])
    at = {key: i for i, key in enumerate(texts)}
    own = tuple({at[key]: value for key, value in s.items()} for s in scores.values())
    return People("popquorn", "Which of these messages is less offensive?", tuple(texts.values()), own)


# Draws


def _pairs(scores: Mapping[int, float], things: Sequence[int]) -> list[tuple[int, int]]:
    return [(a, b) for a in things for b in things if scores[a] > scores[b]]


def _sample(pairs: list[Any], most: int, rng: random.Random) -> list[Any]:
    return rng.sample(pairs, min(most, len(pairs)))


def _parts(scores: Mapping[int, float], shares: Sequence[float], rng: random.Random) -> list[list[int]]:
    """A person's things divided at random, the same shares of each score so that every part has pairs."""
    parts: list[list[int]] = [[] for _ in shares]
    for score in sorted(set(scores.values())):
        own = sorted(t for t in scores if scores[t] == score)
        rng.shuffle(own)
        ends = [round(len(own) * sum(shares[: i + 1])) for i in range(len(shares))]
        for part, start, end in zip(parts, [0, *ends], ends, strict=False):
            part += own[start:end]
    return parts


def split_people(people: People, draw: int) -> Split:
    """Who is unseen, and which things of whom are for what, under a seed."""
    rng = random.Random(f"{people.name}/{draw}")
    able: dict[int, tuple[list[Any], list[Any]]] = {}
    for person, scores in enumerate(people.scores):
        known, other = (_pairs(scores, part) for part in _parts(scores, (0.6, 0.4), random.Random(f"{draw}/{person}")))
        able[person] = known, other
    enough = {k: [p for p, (own, new) in able.items() if len(own) >= k + 10 and len(new) >= 20] for k in ADAPT[1:]}
    largest = 200 if len(enough[200]) >= 20 else 100
    count = min(UNSEEN, max(3, round(SHARE * len(enough[largest]))))
    unseen = sorted(rng.sample(enough[largest], count))
    found = Split([], unseen, largest)
    for u, person in enumerate(unseen):
        own, new = able[person]
        rng.shuffle(own)
        found.adapt.append(own[:largest])
        found.rest += [(u, a, b) for a, b in _sample(own[largest:], 100, rng)]
        found.new += [(u, a, b) for a, b in _sample(new, 100, rng)]
    others = [p for p in range(len(people.scores)) if p not in set(unseen)]
    rng.shuffle(others)
    for person in others:
        if len(found.seen) == SEEN:
            break
        scores = people.scores[person]
        parts = [_pairs(scores, part) for part in _parts(scores, (0.6, 0.15, 0.25), rng)]
        if len(parts[0]) < 20 or not parts[1] or len(parts[2]) < 5:
            continue
        u = len(found.seen)
        found.seen.append(person)
        for target, own, most in zip((found.train, found.validation, found.test), parts, (TRAIN, VALIDATE, TEST),
                                     strict=True):  # fmt: skip
            target += [(u, a, b) for a, b in _sample(own, most, rng)]
    return found


# Frozen features


def features(people: People, kind: str, cache: Path) -> np.ndarray:
    """(things, D) frozen features of the texts: the "encoder"'s vectors or the "policy"'s mean states, standardised, in
    at most `WIDTH` principal components of all things (nobody's votes are in them), mean square 1. Kept on disk."""
    path = cache / f"{people.name}-{kind}.npy"
    if not path.is_file():
        made: Callable[[People], np.ndarray] = {"encoder": _encoded, "policy": _states}[kind]
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, made(people))
    raw = np.load(path).astype(np.float64)
    even = (raw - raw.mean(0)) / (raw.std(0) + 1e-6)
    u, s, _ = np.linalg.svd(even, full_matrices=False)
    kept = (u * s)[:, : min(WIDTH, len(raw) - 1)]
    return np.asarray(kept / np.sqrt((kept**2).mean()))


def _encoded(people: People) -> np.ndarray:
    from pluralign.encoders import encoder

    return np.asarray(encoder("minilm").encode(list(people.texts)))


def _states(people: People) -> np.ndarray:
    """Mean hidden state of the embedded model over each text as a response to the topic."""
    policy = Policy.load("embedded", rendering={"max_length": 512})
    prompt = messages(people.topic)
    terms = [Term("y", (prompt,), messages(text, role="assistant")) for text in people.texts]
    rendered = [policy.renderer.render([t])[0] for t in terms]
    read = policy.score([Scored(r.context, r.target) for r in rendered], reads=("mean_hidden",))
    return np.stack([r.mean_hidden[0].double().numpy() for r in read])  # type: ignore[index]
