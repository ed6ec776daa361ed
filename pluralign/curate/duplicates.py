"""Exact duplicates: the same prompt, the same responses, the same preference between them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..records import Preference, Record
from .pipeline import Count, Step
from .texts import Normalise, digest, identity, normaliser, ordered, part_key

__all__ = ["exact_duplicates"]

OPPOSITE = "opposite preference on an earlier pair"


def exact_duplicates(*, normalise: Normalise = "none", across_annotators: bool = False) -> Step:
    """Keep the first of the records that agree in prompt (with tools), responses and which of them is better.

    `normalise` is what counts as the same text: "none" (every character), "space" (white space aside) or "case" (and
    upper or lower case). A pair judged by two people (`group`, `user`) is two records unless `across_annotators`. The
    same two responses the other way round are a contradiction, no duplicate: kept, and noted. Margins, weights and
    other columns do not count.

    A record costs a key of 16 bytes and its place, some 250 bytes in all, whatever its length.
    """
    same = normaliser(normalise)

    def run(records: Iterable[Record], count: Count) -> Iterator[Record]:
        seen: dict[bytes, str] = {}
        for record in records:
            best_first, said = ordered(record)
            start: list[str | bytes] = [identity(record, across=across_annotators), said, part_key(record.prompt, same)]
            parts = [part_key(response, same) for response in best_first]
            key = digest([*start, *parts])
            if key in seen:
                count.drop(record, "exact duplicate", of=seen[key])
                continue
            seen[key] = record.where
            if isinstance(record, Preference) and digest([*start, *reversed(parts)]) in seen and parts[0] != parts[1]:
                count.noted[OPPOSITE] += 1
            yield record

    return Step("exact_duplicates", run, {"normalise": normalise, "across_annotators": across_annotators})
