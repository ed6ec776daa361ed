"""Near duplicates by MinHash: Jaccard similarity of word shingles, candidates by locality-sensitive hashing.

A text is the set of its word n-grams. Of every set the least value under 128 hash functions is kept; two sets of
Jaccard similarity J agree in a share J of these on average. A band is a few of these values, taken from the parts of a
record (prompt, responses) in turn: records that agree in all of a band are candidates, so that a part which
differs keeps two records apart from the start. Then every part of the candidates is compared.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from ..errors import SettingsError, nearest
from ..records import Record
from .pipeline import Count, Step
from .texts import digest, identity, ordered, said, words

__all__ = ["banding", "near_duplicates", "shingles", "signature"]

On = Literal["both", "prompt", "responses"]
Hashes = npt.NDArray[np.uint64]

FUNCTIONS = 128
RECALL = 0.999  # what a pair at the threshold has to become a candidate with, where 128 functions allow
CROWD = 256  # candidates looked at for each band; records made from one template crowd there
CROWDED = "many alike: compared with the latest of them only"
_BLOCK = 4096  # shingles hashed at a time: 4 MB
_ODD = np.uint64(0x9E3779B97F4A7C15)


def near_duplicates(
    *, threshold: float = 0.9, on: On = "both", ngram: int = 3, across_annotators: bool = False
) -> Step:
    """Keep the first of the records whose texts have a Jaccard similarity of at least `threshold`.

    Compared are word `ngram`-grams, case and punctuation aside, of the prompt, of each response, or of `both`; every
    part compared must reach the threshold, so that a long prompt does not cover for other responses. A record is
    dropped where an earlier *kept* record is that near. Similarities are estimated (standard error 0.027 at 0.9) with
    fixed hash functions: the same records in the same order give the same result everywhere.

    A record costs 256 bytes for each part and some 400 besides: about 1.2 GB for a million pairs.
    Raises SettingsError for a threshold outside (0, 1], an n-gram below 1 or an unknown `on`.
    """
    if not 0 < threshold <= 1:
        raise SettingsError(f"the near-duplicate threshold is a similarity above 0 and at most 1, not {threshold}.")
    if on not in get_args(On):
        raise SettingsError(
            f'near duplicates on "{on}"?{nearest(on, get_args(On))}', remedy=f"Known: {', '.join(get_args(On))}."
        )
    if ngram < 1:
        raise SettingsError(f"an n-gram has at least 1 word, not {ngram}.")

    def run(records: Iterable[Record], count: Count) -> Iterator[Record]:
        index = _Index(threshold)
        places: list[str] = []
        for record in records:
            best_first, preference = ordered(record)
            texts = [said(record.prompt)] if on != "responses" else []
            texts += [said(response) for response in best_first] if on != "prompt" else []
            parts = np.stack([signature(shingles(text, ngram)) for text in texts])
            who = identity(record, across=across_annotators)
            key = digest([who, preference if on != "prompt" else "", str(len(texts))])
            near = index.find(parts, int.from_bytes(key[:8], "big"))
            if near is None:
                count.noted.update([CROWDED] * index.crowded)
                places.append(record.where)
                yield record
            else:
                number, similarity = near
                count.drop(record, "near duplicate", of=places[number], similarity=round(similarity, 3))

    bands, rows = banding(threshold)
    stated = {"threshold": threshold, "on": on, "ngram": ngram, "across_annotators": across_annotators}
    return Step("near_duplicates", run, {**stated, "functions": FUNCTIONS, "bands": bands, "rows": rows})


# Sets and signatures


def shingles(text: str, ngram: int = 3) -> Hashes:
    """64-bit hashes of the distinct word n-grams of a text; of all its words where they are fewer, and of the text
    itself where it has none. Never empty."""
    found = words(text.casefold()) or [" ".join(text.split())]
    codes = np.array([zlib.crc32(w.encode("utf-8", "surrogatepass")) for w in found], dtype=np.uint64)
    n = min(ngram, len(codes))
    out = np.full(len(codes) - n + 1, n, dtype=np.uint64)
    for i in range(n):
        out = _mix(out * _ODD + codes[i : len(codes) - n + 1 + i])
    return np.unique(out)


def _mix(x: Hashes) -> Hashes:
    """A bijection of 64 bits in which every bit depends on every other (the finaliser of splitmix64)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


_FACTORS = _mix(np.arange(1, FUNCTIONS + 1, dtype=np.uint64) * _ODD) | np.uint64(1)
_TERMS = _mix(np.arange(FUNCTIONS + 1, 2 * FUNCTIONS + 1, dtype=np.uint64) * _ODD)


def signature(hashes: Hashes) -> npt.NDArray[np.uint32]:
    """(128,) least values of a set under the hash functions; the share of equal ones estimates Jaccard similarity."""
    least = np.full(FUNCTIONS, np.iinfo(np.uint32).max, dtype=np.uint32)
    for start in range(0, len(hashes), _BLOCK):
        values = (hashes[start : start + _BLOCK, None] * _FACTORS + _TERMS) >> np.uint64(32)
        least = np.minimum(least, values.min(axis=0).astype(np.uint32))
    return least


def banding(threshold: float) -> tuple[int, int]:
    """(bands, rows of a band): the longest bands with which a pair at the threshold still becomes a candidate."""
    rows = 1
    while rows < FUNCTIONS and 1 - (1 - threshold ** (rows + 1)) ** (FUNCTIONS // (rows + 1)) >= RECALL:
        rows += 1
    return FUNCTIONS // rows, rows


# The index


class _Index:
    """Signatures of the kept records, and for each band a chain of the records that agree in it, latest first."""

    def __init__(self, threshold: float) -> None:
        self.bands, self.rows = banding(threshold)
        self.needed = math.ceil(threshold * FUNCTIONS - 1e-9)
        self.size = 0
        self.crowded = False
        self.ends = _Rows(np.int64)
        self.parts = _Rows(np.uint16, FUNCTIONS)  # 16 bits tell two values apart but for one time in 65,536
        self.hashes = _Rows(np.uint32, self.bands)
        self.before = _Rows(np.int32, self.bands)
        self.heads = np.full((self.bands, 1 << 10), -1, dtype=np.int32)

    def find(self, parts: npt.NDArray[np.uint32], key: int) -> tuple[int, float] | None:
        """The first kept record that is near in every part, and the least similarity of a part; if there is none, this
        one is added. `key` must be equal, too."""
        hashes = self._bands(parts, key)
        small = parts.astype(np.uint16)
        for number in self._candidates(hashes):
            start, end = int(self.ends.all[number - 1]) if number else 0, int(self.ends.all[number])
            if end - start != len(small):
                continue
            agree = int((self.parts.all[start:end] == small).sum(axis=1).min())
            if agree >= self.needed:
                return number, agree / FUNCTIONS
        self._add(small, hashes)
        return None

    def _bands(self, parts: npt.NDArray[np.uint32], key: int) -> npt.NDArray[np.uint32]:
        """(bands,) a hash of each band: its values come from the parts in turn."""
        used = self.bands * self.rows
        columns = np.arange(used)
        values = parts[columns % len(parts), columns].reshape(self.bands, self.rows).astype(np.uint64)
        out = _mix(np.arange(self.bands, dtype=np.uint64) * _ODD + np.uint64(key))
        for i in range(self.rows):
            out = _mix(out * _ODD + values[:, i])
        return (out >> np.uint64(32)).astype(np.uint32)

    def _candidates(self, hashes: npt.NDArray[np.uint32]) -> list[int]:
        """Numbers of the records that agree in a band, in order."""
        found: set[int] = set()
        bands = np.arange(self.bands)
        at = self.heads[bands, self._slots(hashes)]
        steps = 0
        while True:
            bands, at = bands[at >= 0], at[at >= 0]
            self.crowded = steps == CROWD and len(at) > 0
            if not len(at) or self.crowded:
                return sorted(found)
            found.update(at[self.hashes.all[at, bands] == hashes[bands]].tolist())
            at = self.before.all[at, bands]
            steps += 1

    def _slots(self, hashes: npt.NDArray[np.uint32]) -> Any:
        return hashes & np.uint32(self.heads.shape[1] - 1)

    def _add(self, parts: npt.NDArray[np.uint16], hashes: npt.NDArray[np.uint32]) -> None:
        if self.size == self.heads.shape[1]:
            self._widen()
        for row in parts:
            self.parts.append(row)
        self.ends.append(self.parts.size)
        self.hashes.append(hashes)
        self._link(self.size, hashes, self.before.append)
        self.size += 1

    def _link(self, number: int, hashes: npt.NDArray[np.uint32], keep: Any) -> None:
        at = np.arange(self.bands), self._slots(hashes)
        keep(self.heads[at])
        self.heads[at] = number

    def _widen(self) -> None:
        """Twice the heads, every record linked anew."""
        self.heads = np.full((self.bands, 2 * self.heads.shape[1]), -1, dtype=np.int32)
        for number in range(self.size):
            self._link(number, self.hashes.all[number], lambda heads, n=number: self.before.set(n, heads))


class _Rows:
    """A numpy array that grows at its end."""

    def __init__(self, kind: Any, *shape: int) -> None:
        self.all = np.zeros((1024, *shape), dtype=kind)
        self.size = 0

    def append(self, row: Any) -> None:
        if self.size == len(self.all):
            self.all.resize((self.size + self.size // 4, *self.all.shape[1:]), refcheck=False)
        self.all[self.size] = row
        self.size += 1

    def set(self, number: int, row: Any) -> None:
        self.all[number] = row
