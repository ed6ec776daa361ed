"""Is a statement supported by what was retrieved? Sentence by sentence, cheapest way first.

    quoted     it stands in the evidence word for word: supported (any checker must say so; nobody is asked)
    no facts   it claims nothing that could be false: a question, a request, a greeting
    checker    lexical (no download), or a cross-encoder (NLI, MiniCheck)
    judge      a language model by ANAH-v2's three phases, where the checker is not sure: |p - 1/2| < 0.15

Labels are ANAH-v2's: ok, contradictory, unverifiable, nofact; None is an answer that could not be read, a case of its
own that never counts as supported.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol

from ..curate.texts import words
from ..encoders import NEGATIONS
from .rules import FUNCTION_WORDS
from .sentences import sentences

__all__ = [
    "LABELS",
    "Chain",
    "Claim",
    "FactChecker",
    "Lexical",
    "Verdict",
    "claims_nothing",
    "factuality",
    "is_quoted",
]

LABELS = ("ok", "contradictory", "unverifiable", "nofact")
BAND = 0.15  # |p - 1/2| below which a checker is not sure
THRESHOLD = 0.5


@dataclass(frozen=True, slots=True)
class Claim:
    """One sentence, the question it belongs to, and the passages it is held against."""

    text: str
    question: str
    evidence: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`label` is one of LABELS, or None with the reason in `why`. `p`: of being supported, where a checker gives one.
    `by`: who decided. `evidence`: the passage or sentence that decided, where there is one."""

    label: str | None
    p: float | None = None
    by: str = ""
    evidence: str = ""
    why: str = ""


class FactChecker(Protocol):
    """`key` says what a stored verdict is valid for."""

    @property
    def key(self) -> str: ...

    def check(self, claims: Sequence[Claim]) -> list[Verdict]:
        """A verdict for each claim, in order; each depends on its own claim alone."""
        ...


def factuality(labels: Sequence[str | None]) -> float:
    """ANAH-v2's score of a text, 100 (1 - (contradictory + unverifiable) / sentences), over those with a label: what
    could not be read is no sentence without fault. NaN where none has one."""
    known = [label for label in labels if label is not None]
    wrong = sum(label in ("contradictory", "unverifiable") for label in known)
    return 100 * (1 - wrong / len(known)) if known else float("nan")


# Rules

_GREETING = re.compile(
    r"(?:hi|hello|hey|thanks?|thank you|sure|okay|ok|yes|no|welcome|please|sorry|of course|great|good (?:morning|luck)|"
    r"i hope|i wish|feel free|let me|let us|let's|you'?re welcome|in (?:summary|conclusion))\b",
    re.IGNORECASE,
)


def claims_nothing(sentence: str) -> bool:
    """Whether a sentence states nothing that could be checked, by its form: a question, words of courtesy alone, or no
    word of content."""
    text = sentence.strip()
    if text.rstrip(")\"'”’」").endswith(("?", "？")):
        return True
    content = _content(text)
    return not content or (bool(_GREETING.match(text)) and not _numbers(text) and len(content) <= 4)


def is_quoted(claim: Claim) -> str | None:
    """The passage in which the claim stands word for word, from one sentence's start to its end."""
    wanted = " ".join(claim.text.split())
    return next((p for p in claim.evidence if wanted in sentences(p)), None)


def _content(text: str) -> set[str]:
    """Stems of the words that carry content, numbers among them."""
    return {_stem(word) for word in words(text.casefold()) if word not in FUNCTION_WORDS}


def _stem(word: str) -> str:
    """A word without its commonest endings, so that "drinks" meets "drink"; crude on purpose."""
    for end, least in (("ies", 5), ("ing", 6), ("ed", 5), ("es", 5), ("s", 4), ("ly", 6)):
        if word.endswith(end) and len(word) >= least and not word.endswith("ss"):
            return word[: -len(end)] + ("y" if end == "ies" else "")
    return word


_NEGATIONS = NEGATIONS | {"hardly", "barely"}
_DIGITS = re.compile(r"\d+(?:[.,]\d+)*")


def _numbers(text: str) -> set[str]:
    return {found.replace(",", "").rstrip(".") for found in _DIGITS.findall(text)}


def _negated(text: str) -> bool:
    said = text.casefold().replace("’", "'")
    return bool(_NEGATIONS & set(words(said))) or "n't" in said


@dataclass(frozen=True)
class Lexical:
    """By the share of a claim's content words in its best piece of evidence: a sentence, or two neighbours.

    At least `threshold` of them, and the same negation and numbers: ok. As many words, but another number or a negation
    on one side only: contradictory. Else unverifiable. p is the share, stretched so that the threshold lies at 1/2.

    It knows no meaning: what is said in other words it cannot verify, and a sentence about something else in the same
    words it takes for support. Of HaluEval's answers to 500 questions it supports .91 [.88, .93] of the right ones,
    most of them copied from the evidence, and .24 +- .04 of the invented ones.
    """

    threshold: float = 0.8

    @property
    def key(self) -> str:
        return f"lexical 2 {self.threshold}"

    def check(self, claims: Sequence[Claim]) -> list[Verdict]:
        """See `FactChecker`."""
        return [self._one(claim) for claim in claims]

    def _one(self, claim: Claim) -> Verdict:
        content, numbers, negated = _content(claim.text), _numbers(claim.text), _negated(claim.text)
        best = Verdict("unverifiable", 0.0, "lexical")
        if not content:
            return best
        for piece in _pieces(claim.evidence):
            there = _content(piece)
            share = len(content & there) / len(content)
            without = len((content - numbers) & there) / max(1, len(content - numbers))
            fits = numbers <= _numbers(piece) and negated == _negated(piece)
            label = "ok" if fits and share >= self.threshold else "unverifiable"
            if not fits and without >= self.threshold and (content - numbers):
                label = "contradictory"
            p = self._stretched(share) if fits else min(self._stretched(share), 0.5) / 2
            rank = {"ok": 2, "contradictory": 1, "unverifiable": 0}
            if (rank[label], p) > (rank[str(best.label)], best.p or 0.0):
                best = Verdict(label, p, "lexical", piece)
        return best

    def _stretched(self, share: float) -> float:
        if share < self.threshold:
            return share / self.threshold / 2
        return 0.5 + (share - self.threshold) / (1 - self.threshold) / 2 if self.threshold < 1 else 1.0


def _pieces(evidence: Sequence[str]) -> list[str]:
    """Sentences, and each with the next, of every passage."""
    out = []
    for passage in evidence:
        parts = sentences(passage)
        out += parts + [f"{a} {b}" for a, b in pairwise(parts)]
    return out


@dataclass(frozen=True)
class Chain:
    """Rules, then `checker`, then `judge` where the checker is not sure (or for all, without a checker)."""

    checker: FactChecker | None = None
    judge: FactChecker | None = None
    band: float = BAND

    @property
    def key(self) -> str:
        inner = (self.checker.key if self.checker else "", self.judge.key if self.judge else "")
        return f"chain 1 {inner} {self.band}"

    def check(self, claims: Sequence[Claim]) -> list[Verdict]:
        """See `FactChecker`. A claim without evidence is unverifiable, unless it claims nothing."""
        found: list[Verdict | None] = [_by_rule(claim) for claim in claims]
        open_ = [i for i, verdict in enumerate(found) if verdict is None]
        if self.checker is not None and open_:
            for i, verdict in zip(open_, self.checker.check([claims[i] for i in open_]), strict=True):
                found[i] = verdict
        unsure = [i for i in open_ if self._is_open(found[i])] if self.judge is not None else []
        if self.judge is not None and unsure:
            for i, verdict in zip(unsure, self.judge.check([claims[i] for i in unsure]), strict=True):
                first = found[i]
                found[i] = replace(verdict, p=first.p) if first is not None and verdict.p is None else verdict
        return [verdict or Verdict(None, why="there is no checker") for verdict in found]

    def _is_open(self, verdict: Verdict | None) -> bool:
        return verdict is None or verdict.p is None or abs(verdict.p - 0.5) < self.band


def _by_rule(claim: Claim) -> Verdict | None:
    quoted = is_quoted(claim)
    if quoted is not None:
        return Verdict("ok", 1.0, "quoted", quoted)
    if claims_nothing(claim.text):
        return Verdict("nofact", None, "rule")
    if not any(words(passage) for passage in claim.evidence):
        return Verdict("unverifiable", 0.0, "rule", why="there is no evidence")
    return None
