"""Where question sets are read from: a folder of public data on this machine, a file that was named, or the hub."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import RecordError, SettingsError
from .core import Benchmark, Row, Source

__all__ = ["QuestionFiles", "chosen_items", "data_folder", "of", "read_rows", "text_of"]

QUESTIONS = "questions"


def data_folder() -> Path:
    """`PLURALIGN_SHARED`, else the folder `shared/data` beside the repository."""
    return Path(os.environ.get("PLURALIGN_SHARED") or Path(__file__).resolve().parents[4] / "shared" / "data")


def read_rows(source: str | Path, *, split: str | None = None) -> list[Row]:
    """The rows of a file, a folder or a hub data set. Raises SettingsError for none, RecordError for a damaged row."""
    from ...data.locate import locate

    _, parts = locate(source, split=split, streaming=False)
    rows: list[Row] = []
    for part in parts:
        for raw in part.rows():
            if raw.error is not None:
                raise RecordError(raw.error, where=part.where(raw.place))
            if not raw.is_blank:
                rows.append({**raw.row, "_where": part.where(raw.place)})
    if not rows:
        raise RecordError("there are no rows.", where=str(source))
    return rows


@dataclass
class QuestionFiles:
    """The files of one benchmark; `given` replaces the questions. `seen` says what was read, for the manifest."""

    benchmark: Benchmark
    given: str | None = None
    split: str | None = None
    seen: dict[str, str] = field(default_factory=dict)

    def __call__(self, role: str) -> list[Row]:
        """The rows of a role. Raises SettingsError where they cannot be found, in one line that says where to look."""
        place, split = self._place(role, self.benchmark.sources[role])
        try:
            rows = read_rows(place, split=split)
        except SettingsError as error:
            if self.given and role.startswith(QUESTIONS):
                raise
            raise SettingsError(
                f"the {role} of {self.benchmark.name} are not in {data_folder()}, and {error.message}",
                remedy="Name a file: --questions PATH; or a folder of them: PLURALIGN_SHARED.",
            ) from None
        self.seen[role] = _title(place) + (f" [{split}]" if split else "")
        return rows

    def has(self, role: str) -> bool:
        """Whether a role's file is on this machine."""
        source = self.benchmark.sources.get(role)
        return source is not None and bool(source.local) and self._local(source) is not None

    def _place(self, role: str, source: Source) -> tuple[str | Path, str | None]:
        if self.given is not None and role.startswith(QUESTIONS):
            inside = Path(self.given) / Path(source.local).name if source.local else None
            found = inside if inside is not None and inside.is_file() else self.given
            return found, self.split
        local = self._local(source)
        if local is not None:
            return local, None
        if not source.hub:
            raise SettingsError(
                f"the {role} of {self.benchmark.name} ({source.local}) are not in {data_folder()}.",
                remedy="Name a file: --questions PATH; or a folder of them: PLURALIGN_SHARED.",
            )
        return source.hub, source.split or None

    def _local(self, source: Source) -> Path | None:
        beside = Path(self.given) / Path(source.local).name if self.given and source.local else None
        for path in (beside, data_folder() / source.local if source.local else None):
            if path is not None and path.is_file():
                return path
        return None


def _title(place: str | Path) -> str:
    """A place without this machine's folders."""
    path = Path(place)
    return path.name if isinstance(place, Path) or path.exists() else str(place)


def of(row: Mapping[str, Any], *names: str, kind: type | tuple[type, ...] = str) -> Any:
    """The first of the fields that the row has. Raises RecordError with its place where it has none of that kind."""
    for name in names:
        value = row.get(name)
        if isinstance(value, kind) and not (isinstance(value, bool) and kind is int):
            return value
    have = ", ".join(key for key in row if not key.startswith("_"))
    raise RecordError(f'no field "{names[0]}" of the right kind (it has: {have}).', where=str(row.get("_where", "")))


def text_of(row: Mapping[str, Any], *names: str) -> str:
    """`of`, stripped. Raises RecordError where it is empty."""
    text = str(of(row, *names)).strip()
    if not text:
        raise RecordError(f'"{names[0]}" is empty.', where=str(row.get("_where", "")))
    return text


def chosen_items(
    items: Iterable[Any], *, skip: int = 0, limit: int | None = None, only: Callable[[Any], bool] | None = None
) -> list[Any]:
    """What is left of items after `only` and the first `skip`: all, or `limit` of them taken evenly over the set, since
    many sets stand in the order of their categories. Raises SettingsError for nothing."""
    found = [item for item in items if only is None or only(item)][skip:]
    if not found:
        raise SettingsError("no question is left.", remedy="Look at --skip and --only.")
    if limit is None or limit >= len(found):
        return found
    return [found[i * len(found) // limit] for i in range(limit)]
