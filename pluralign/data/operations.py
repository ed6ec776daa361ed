"""What can be done with records before anything is trained: split, fingerprint, convert, inspect."""

from __future__ import annotations

import gzip
import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

from ..errors import SettingsError
from ..records import Demonstration, Labelled, Messages, Preference, Ranked, Record, to_row
from .quarantine import to_json
from .sources import Loaded

R = TypeVar("R", bound=Record)
_QUANTILES = (("min", 0.0), ("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))


# --- split --------------------------------------------------------------------------------------------------------


def prompt_hash(record: Record, seed: int = 0) -> float:
    """A number in [0, 1) from the first user turn (white space at its ends aside) and the seed alone."""
    first = next((turn for turn in record.prompt if turn.role == "user"), record.prompt[0])
    digest = hashlib.sha256(f"{seed}\n{first.content.strip()}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:7], "big") / 2**56  # 56 bits: a double holds more than half of every step


def split(records: Iterable[R], held_out: float | int, *, seed: int = 0) -> tuple[list[R], list[R]]:
    """(train, held out), no first user turn on both sides; the same records always fall on the same side.

    A fraction (0 < held_out < 1) holds out about that share of the prompts, each decided by itself, so that added
    records move nobody. An integer holds out whole prompts, in order of their hash, until there are that many
    records (a few more where the last prompt has several). Raises SettingsError where one side would be empty.
    """
    if isinstance(held_out, bool) or not ((held_out >= 1 and held_out == int(held_out)) or 0 < held_out < 1):
        raise SettingsError(f"held_out must be a fraction between 0 and 1 or a number of records, not {held_out}.")
    rows = [(prompt_hash(record, seed), record) for record in records]
    below = held_out if held_out < 1 else _threshold([place for place, _ in rows], int(held_out))
    train = [record for place, record in rows if place >= below]
    test = [record for place, record in rows if place < below]
    if not train or not test:
        side = "held out" if not test else "left to train on"
        raise SettingsError(f"{held_out} of {len(rows):,} records: none would be {side}.")
    return train, test


def _threshold(places: list[float], wanted: int) -> float:
    """The hash below which at least `wanted` records lie, as few more as whole prompts allow."""
    ordered = sorted(places)
    if wanted >= len(ordered):
        return 1.0
    last = ordered[wanted - 1]
    return next((place for place in ordered[wanted:] if place > last), 1.0)


# --- fingerprint --------------------------------------------------------------------------------------------------


def fingerprint(records: Iterable[Record]) -> str:
    """sha256 (hex) over the canonical JSON of the records in order; nothing is held."""
    digest = hashlib.sha256()
    for record in records:
        line = json.dumps(to_row(record), sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
        digest.update(line.encode("utf-8", "surrogatepass"))
        digest.update(b"\n")
    return digest.hexdigest()


# --- convert ------------------------------------------------------------------------------------------------------


def convert(loaded: Iterable[Record], path: str | Path, *, overwrite: bool = False) -> int:
    """Write native rows to a .jsonl or .jsonl.gz file and return how many.

    The file appears only once it is whole; the same records give the same bytes, zipped or not. Raises SettingsError
    for another extension, or where the file exists already.
    """
    target = Path(path)
    if not target.name.endswith((".jsonl", ".jsonl.gz")):
        raise SettingsError(f"{target}: native rows are written to .jsonl or .jsonl.gz.")
    if target.exists() and not overwrite:
        raise SettingsError(f"{target} exists already.", remedy="Choose another name, or pass --overwrite.")
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.unfinished")
    written = 0
    try:
        with writing_bytes(unfinished, zipped=target.suffix == ".gz") as file:
            for record in loaded:
                file.write(to_json(to_row(record)).encode() + b"\n")
                written += 1
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return written


@contextmanager
def writing_bytes(path: Path, *, zipped: bool) -> Iterator[IO[bytes]]:
    """A file to write to, gzipped where wanted; equal bytes give equal files."""
    with path.open("wb") as file:
        if not zipped:
            yield file
            return
        # no name and no time in the header: equal records give equal files
        with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
            yield packed  # type: ignore[misc]


# --- inspect ------------------------------------------------------------------------------------------------------


def inspect(loaded: Loaded, n: int = 3) -> dict[str, Any]:
    """A plain summary for printing: counts, kinds, turns, roles, lengths in characters, groups and `n` examples."""
    kinds: Counter[str] = Counter()
    turns: Counter[int] = Counter()
    roles: Counter[str] = Counter()
    groups: Counter[str] = Counter()
    has: Counter[str] = Counter()
    lengths: dict[str, array[int]] = {}
    examples: list[dict[str, Any]] = []
    for record in loaded:
        kinds[type(record).__name__.lower()] += 1
        turns[len(record.prompt)] += 1
        roles.update(turn.role for turn in record.prompt)
        groups.update([record.group] if record.group is not None else [])
        has.update(_present(record))
        for name, said in _parts(record):
            lengths.setdefault(name, array("q")).append(sum(len(turn.content) for turn in said))
        if len(examples) < n:
            examples.append(to_row(record))
    counts = loaded.counts
    return {
        "source": loaded.name,
        "format": loaded.format,
        "title": loaded.title,
        "rows": counts.rows,
        "blank_lines": counts.blank,
        "set_aside": dict(counts.bad),
        "without_record": dict(counts.skipped),
        "left_out_within_rows": dict(counts.partial),
        "records": counts.records,
        "kinds": dict(kinds),
        "prompt_turns": dict(sorted(turns.items())),
        "prompt_roles": dict(roles.most_common()),
        "characters": {name: _quantiles(values) for name, values in lengths.items()},
        "groups": dict(groups.most_common(20)),
        "with": dict(has),
        "examples": examples,
    }


def _present(record: Record) -> Iterator[str]:
    """Which optional fields a record has."""
    yield from (name for name in ("tools", "user", "source") if getattr(record, name))
    if record.weight != 1.0:
        yield "weight"
    if isinstance(record, Preference):
        yield from (["margin"] if record.margin is not None else [])
    if isinstance(record, Preference | Demonstration | Labelled | Ranked):
        yield from (f"attributes.{name}" for name in record.attributes)
    if isinstance(record, Labelled):
        yield "thumb up" if record.label else "thumb down"


def _parts(record: Record) -> Iterator[tuple[str, Messages]]:
    yield "prompt", record.prompt
    if isinstance(record, Preference):
        yield "chosen", record.chosen
        yield "rejected", record.rejected
    elif isinstance(record, Demonstration | Labelled):
        yield "response", record.response
    elif isinstance(record, Ranked):
        yield from (("response", response) for response in record.responses)


def _quantiles(values: array[int]) -> dict[str, int]:
    """Nearest-rank quantiles; every one is a length that occurs."""
    ordered = sorted(values)
    return {name: ordered[min(len(ordered) - 1, int(q * len(ordered)))] for name, q in _QUANTILES}
