"""The validation split: so many records, no first prompt on both sides."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

from ..data import prompt_hash
from ..errors import SettingsError
from ..records import Record
from .pipeline import Count, Step

__all__ = ["hold_out"]


def hold_out(records: int = 1000, *, seed: int = 0) -> Step:
    """Hold whole prompts out, in order of their hash, until there are that many records: the sets of `data.split`.

    There may be a few more where the last prompt has several records. Which ones depends on the prompts and the seed
    alone, not on their order. One pass, and no more records in memory than are held out; a record that has to give
    way to a smaller hash goes on to the training part later than its neighbours.

    The pass raises SettingsError where nothing would be left to train on.
    """
    if isinstance(records, bool) or not isinstance(records, int) or records < 1:
        raise SettingsError(f"the number of validation records is a whole number of at least 1, not {records}.")
    wanted = records

    def run(stream: Iterable[Record], count: Count) -> Iterator[Record]:
        held: dict[float, list[Record]] = {}
        order: list[float] = []  # a heap of the hashes held, negated: the greatest first
        total = trained = 0
        for record in stream:
            place = prompt_hash(record, seed)
            if total >= wanted and place > -order[0]:
                trained += 1
                yield record
                continue
            if place not in held:
                held[place] = []
                heapq.heappush(order, -place)
            held[place].append(record)
            total += 1
            while total - len(held[-order[0]]) >= wanted:
                back = held.pop(-heapq.heappop(order))
                total -= len(back)
                trained += len(back)
                yield from back
        if not trained:
            raise SettingsError(
                f"{wanted:,} records are to be held out of {total:,}: none would be left to train on.",
                remedy="Hold fewer out, or take more data.",
            )
        count.hold(record for place in sorted(held) for record in held[place])

    return Step("hold_out", run, {"records": wanted, "seed": seed}, last=True)
