"""Data sets on the hub, through the `datasets` library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import SettingsError
from .locate import Part, in_memory
from .readers import Raw

_LOCAL = "Pass a local file (JSON lines, JSON, CSV, Parquet), or set HF_HOME to a cache that has it."


def hub_part(source: str, split: str | None, streaming: bool) -> Part:
    """The rows of one split of `org/name` or `org/name:config`. Nothing is run that the data set brings along.

    Without a split the only one is taken, or `train` where there are several. Raises SettingsError with one line
    for everything that can go wrong on the way.
    """
    name, _, config = source.partition(":")
    found = _load(name, config or None, split, streaming)
    if isinstance(found, Mapping):
        splits = list(found)
        if len(splits) > 1 and "train" not in splits:
            raise SettingsError(f'"{source}" has several splits: {", ".join(splits)}.', remedy="Choose one (--split).")
        split = splits[0] if len(splits) == 1 else "train"
        found = found[split]
    title = f"{source} [{split}]"
    rows = found

    def read() -> Iterator[Raw]:
        try:
            for index, row in enumerate(rows):
                yield in_memory(index, row)
        except (OSError, ConnectionError) as error:
            raise _unreachable(source, error) from None

    return Part(name=title, rows=read, where=lambda i: f"{title}[{i}]", cheap=not streaming)


def _load(name: str, config: str | None, split: str | None, streaming: bool) -> Any:
    import datasets

    try:
        return datasets.load_dataset(name, config, split=split, streaming=streaming)
    except datasets.exceptions.DatasetNotFoundError as error:
        raise _unreachable(name, error) from None
    except ValueError as error:  # an unknown split or configuration; the library lists the known ones
        raise SettingsError(f'"{name}": {_line(error)}', remedy="See the data set's page for its splits.") from None
    except Exception as error:  # the hub's client raises many kinds, none of them the user's fault
        raise _unreachable(name, error) from None


def _unreachable(name: str, error: Exception) -> SettingsError:
    import datasets

    if datasets.config.HF_HUB_OFFLINE:
        why = "HF_HUB_OFFLINE is set and it is not in the cache"
    elif type(error) is ConnectionError:  # the library's own class for "no answer"; its text names inner classes
        why = "it cannot be reached (no network?) and is not in the cache"
    else:
        why = _line(error)
    return SettingsError(f'cannot load "{name}" from the hub: {why}.', remedy=_LOCAL)


def _line(error: Exception) -> str:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return (first if len(first) <= 200 else first[:199] + "…").rstrip(".")
