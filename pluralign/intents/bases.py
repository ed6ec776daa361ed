"""Knowledge bases: passages that can be searched by meaning and by word (A-IPO's x_ext comes from one).

A base answers a text with passages, best first: those nearest by their vectors and those with the same words, joined by
reciprocal ranks. `score` is the cosine of text and passage under the base's encoder, so that a threshold can say that
nothing pertinent was found; ranks could not.

Shapes: P passages, D dimensions of the encoder.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..curate.texts import words
from ..encoders import Encoder
from ..errors import PluralignError, SettingsError

__all__ = [
    "BaseDown",
    "KnowledgeBase",
    "MemoryBase",
    "Passage",
    "fused",
    "open_base",
    "passage_text",
]

RRF = 60  # Cormack, Clarke and Buettcher (2009): a passage at rank r is worth 1 / (60 + r)
DEPTH = 50  # passages taken from each ranking before they are joined
K1, B = 1.2, 0.75  # BM25


class BaseDown(PluralignError):
    """A knowledge base that does not answer. What was found before is kept."""


@dataclass(frozen=True, slots=True)
class Passage:
    """About 100 words on something. `score`: the cosine with what was searched for, NaN before a search."""

    id: str
    title: str
    text: str
    score: float = math.nan

    @classmethod
    def of(cls, title: str, text: str) -> Passage:
        """A passage whose id is a digest of what it says."""
        return cls(hashlib.sha256(f"{title}\0{text}".encode("utf-8", "surrogatepass")).hexdigest()[:20], title, text)


def passage_text(passage: Passage) -> str:
    """What is embedded and indexed of a passage."""
    return f"{passage.title}. {passage.text}" if passage.title else passage.text


class KnowledgeBase(Protocol):
    """`key` says what a stored answer is valid for; `name` is for people."""

    @property
    def name(self) -> str: ...

    @property
    def key(self) -> str: ...

    def search(self, texts: Sequence[str], k: int) -> list[list[Passage]]:
        """Up to `k` passages for each text, best first. Raises BaseDown where the base does not answer."""
        ...


def fused(rankings: Iterable[Sequence[Passage]], k: int) -> list[Passage]:
    """Rankings joined by reciprocal ranks, the best `k`; equal ones in the order in which they are met. A passage keeps
    its highest score."""
    worth: dict[str, float] = defaultdict(float)
    best: dict[str, Passage] = {}
    for ranking in rankings:
        for rank, passage in enumerate(ranking, start=1):
            worth[passage.id] += 1 / (RRF + rank)
            known = best.get(passage.id)
            if known is None or not known.score >= passage.score:
                best[passage.id] = passage
    order = sorted(worth, key=lambda i: -worth[i])
    return [best[i] for i in order[:k]]


@dataclass
class MemoryBase:
    """Passages in memory: BM25 and all cosines. For sets of up to some ten thousands, and for tests.

    `by`: "hybrid", or one ranking alone: "vectors" or "words".
    """

    passages: Sequence[Passage]
    encoder: Encoder
    by: str = "hybrid"
    name: str = "memory"
    _held: dict[str, Any] = field(default_factory=dict, repr=False)

    @cached_property
    def key(self) -> str:
        held = hashlib.sha256("\0".join(p.id for p in self.passages).encode()).hexdigest()[:16]
        return f"memory {self.by} {held} {self.encoder.key}"

    @cached_property
    def vectors(self) -> NDArray[np.float32]:
        """(P, D), rows of length 1."""
        return self.encoder.encode([passage_text(p) for p in self.passages])

    @cached_property
    def index(self) -> BM25:
        return BM25([passage_text(p) for p in self.passages])

    def search(self, texts: Sequence[str], k: int) -> list[list[Passage]]:
        """See `KnowledgeBase`."""
        if not self.passages or not texts:
            return [[] for _ in texts]
        cosines = self.encoder.encode(list(texts)) @ self.vectors.T
        found = []
        for text, row in zip(texts, cosines, strict=True):
            rankings = []
            if self.by != "words":
                rankings.append(np.argsort(-row, kind="stable")[: max(DEPTH, k)])
            if self.by != "vectors":
                rankings.append(self.index.ranked(text, max(DEPTH, k)))
            made = [[replace(self.passages[i], score=float(row[i])) for i in ranking] for ranking in rankings]
            found.append(fused(made, k))
        return found


class BM25:
    """Okapi BM25 over an inverted index: sum over a query's words of idf tf (k1 + 1) / (tf + k1 (1 - b + b l / mean)),
    with idf = log(1 + (P - n + 1/2) / (n + 1/2)), n the texts that hold the word."""

    def __init__(self, texts: Sequence[str]) -> None:
        counts = [Counter(words(text.casefold())) for text in texts]
        length = np.array([c.total() for c in counts], np.float64)
        scale = K1 * (1 - B + B * length / max(length.mean(), 1e-9)) if len(texts) else length
        postings: dict[str, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
        for i, count in enumerate(counts):
            for word, n in count.items():
                postings[word][0].append(i)
                postings[word][1].append(n)
        self.size = len(texts)
        self.weights: dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]] = {}
        for word, (where, often) in postings.items():
            at, tf = np.array(where), np.array(often, np.float64)
            idf = math.log(1 + (self.size - len(at) + 0.5) / (len(at) + 0.5))
            self.weights[word] = at, idf * tf * (K1 + 1) / (tf + scale[at])

    def scores(self, text: str) -> NDArray[np.float64]:
        """(P,) scores of a query."""
        out = np.zeros(self.size)
        for word, n in Counter(words(text.casefold())).items():
            if word in self.weights:
                at, weight = self.weights[word]
                out[at] += n * weight
        return out

    def ranked(self, text: str, k: int) -> NDArray[np.int64]:
        """The places of the texts that share a word with the query, best first, at most `k`."""
        scores = self.scores(text)
        order = np.argsort(-scores, kind="stable")[:k]
        return order[scores[order] > 0]


def open_base(where: str, *, encoder: str | None = None, cache: Path | None = None) -> KnowledgeBase:
    """The base at `DIR` (LanceDB, made by `pluralign intents ingest`), `pinecone:INDEX` or `pinecone:INDEX/NAMESPACE`,
    or `memory:FILE` (passages as JSON lines, held in memory).

    `encoder` is for the latter two (default "auto"); a folder knows its own. `cache` keeps vectors.
    Raises SettingsError for what is no base, BaseDown for one that does not answer.
    """
    from ..encoders import encoder as named

    kind, _, rest = where.partition(":")
    if kind == "memory" and rest:
        from .ingest import passages_in

        found = list(passages_in(Path(rest)))
        if not found:
            raise SettingsError(f"{rest} holds no passage.")
        return MemoryBase(found, named(encoder or "auto", cache=cache), name=where)
    if kind == "pinecone" and rest:
        from .pinecone import open_pinecone

        return open_pinecone(rest, named(encoder or "auto", cache=cache))
    if encoder is not None:
        raise SettingsError(f"{where} knows its encoder.", remedy="Leave --encoder out, or ingest anew with another.")
    from .lance import LanceBase

    return LanceBase.open(Path(where), cache=cache)
