"""The parts of a benchmark: where its questions are, the items they become, what is done with them, what is measured.

Nothing heavy is imported here, so that the list of benchmarks costs nothing. A `Row` is one line of items.jsonl: what
came of one item for one system; every figure is a function of the rows alone, so that stored rows give the same ones.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ...errors import SettingsError, nearest
from ...records import Messages

if TYPE_CHECKING:
    from ...judging.statistics import Estimate
    from .systems import System

__all__ = [
    "KINDS",
    "Benchmark",
    "Choice",
    "Files",
    "Item",
    "Kind",
    "Metric",
    "Open",
    "Pick",
    "Row",
    "Source",
    "Task",
    "items_digest",
    "settings_of",
]

Row = dict[str, Any]
Kind = Literal["compared", "rated", "choices", "ranked", "shares"]
KINDS: dict[str, str] = {
    "compared": "answers, compared with others by a judge",
    "rated": "answers, rated by a judge",
    "choices": "log-probs of given answers",
    "ranked": "given responses, ranked by a policy or a judge",
    "shares": "log-probs of options, against the shares of a survey",
}


@dataclass(frozen=True, slots=True)
class Source:
    """A file of rows: `local` below the data folder, else `hub` (`org/name` or `org/name:config`) and its split."""

    local: str = ""
    hub: str = ""
    split: str = ""
    licence: str = ""


@dataclass(frozen=True, slots=True)
class Open:
    """A question to be answered in words; `turns` are the user's, one or two. `other` are the baseline's answers."""

    id: str
    turns: tuple[str, ...]
    category: str = ""
    references: tuple[str, ...] = ()
    other: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """A question with given answers. `target` holds a number for each: 1 where it is right, or a survey's share."""

    id: str
    prompt: Messages
    options: tuple[str, ...]
    target: tuple[float, ...]
    category: str = ""
    cluster: str = ""
    best: int = -1  # the one that is to win, where it is one of several right ones


@dataclass(frozen=True, slots=True)
class Pick:
    """A prompt with responses of which the `right` ones are better than the `wrong` ones."""

    id: str
    prompt: Messages
    right: tuple[str, ...]
    wrong: tuple[str, ...]
    category: str = ""
    cluster: str = ""


Item = Open | Choice | Pick


class Files(Protocol):
    """Rows of a source by its role in a benchmark ("questions", "answers", ...)."""

    def __call__(self, role: str) -> list[Row]: ...

    def has(self, role: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure: the mean of `value` over rows (None: the row has none). `kind` says what its interval is: Student's,
    Wilson's for a "share" of values 0 and 1, that of wins and ties (or graded shares of a win) for "wins"."""

    name: str
    value: Callable[[Row], float | None]
    kind: Literal["mean", "share", "wins"] = "mean"


@dataclass
class Task:
    """One system and the items it is to be measured on. `settings` are those of the benchmark, with what was given."""

    items: Sequence[Any]
    settings: Mapping[str, Any]
    system: System
    judge: Any = None
    folder: Path | None = None
    seed: int = 0
    batch_size: int = 16
    reference: Any = None  # a policy that log-ratios are taken against
    attributes: Mapping[str, float] = field(default_factory=dict)
    progress: Callable[[str, int, int], None] | None = None
    warn: Callable[[str], None] = lambda text: None

    def count(self, what: str) -> Callable[[int, int], None] | None:
        """Progress of one part of it: `(done, of how many)`."""
        told = self.progress
        return (lambda done, of: told(f"{self.system.name}: {what}", done, of)) if told else None

    def path(self, name: str) -> Path | None:
        """A file of the evaluation's folder, where there is one."""
        return self.folder / name if self.folder else None


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A public benchmark as it is run here.

    `sources` are its files by role; "questions" is what `--questions` replaces. `settings` are named sets, "default"
    first; the others are laid over it. `read` makes items, `run` yields a row for each item of a task, in order.
    `metrics` are means over rows, the first of them the headline; `extra` gives further figures of one system's rows.
    `judge` says what kind of judge it needs ("" none; "may": one that compares, if named), `styles` how a language
    model is asked to compare, by category ("" any other). `n` is the size of the whole set. `note`: what is the
    paper's, what is ours and why.
    """

    name: str
    title: str
    paper: str
    measures: str
    kind: Kind
    n: int
    sources: Mapping[str, Source]
    read: Callable[[Files, Mapping[str, Any]], list[Any]]
    run: Callable[[Task], Iterator[Row]]
    metrics: tuple[Metric, ...]
    settings: Mapping[str, Mapping[str, Any]]
    judge: Literal["", "pairwise", "rating", "optional", "may"] = ""
    styles: Mapping[str, str] = field(default_factory=lambda: {"": "pair"})
    extra: Callable[[Sequence[Row], Mapping[str, Any]], dict[str, Estimate]] | None = None
    note: str = ""

    @property
    def licence(self) -> str:
        return self.sources["questions"].licence


def settings_of(benchmark: Benchmark, name: str = "default", given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The settings called `name` with `given` over them. Raises SettingsError for a name, key or type that cannot be.

    Text is read as the type of the default: `shots=5`, `form=plain`.
    """
    if name not in benchmark.settings:
        known = ", ".join(benchmark.settings)
        raise SettingsError(
            f'{benchmark.name} has no settings "{name}".{nearest(name, benchmark.settings)}', remedy=f"Known: {known}."
        )
    out = {**benchmark.settings["default"], **benchmark.settings[name]}
    for key, value in (given or {}).items():
        if key not in out:
            hint = nearest(key, out)
            remedy = "" if hint else f"It has: {', '.join(out) or 'none'}."
            raise SettingsError(f'{benchmark.name} has no setting "{key}".{hint}', remedy=remedy)
        out[key] = _as_kind(key, value, out[key])
    return out


def _as_kind(key: str, value: Any, default: Any) -> Any:
    if not isinstance(value, str) or isinstance(default, str):
        return value
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[value.lower()]
        return type(default)(value)
    except (KeyError, ValueError):
        kind = {bool: "true or false", int: "a whole number", float: "a number"}.get(type(default), "of another kind")
        raise SettingsError(f'the setting "{key}" is {kind}, not "{value}".') from None


def items_digest(items: Sequence[Any]) -> str:
    """A digest of items: the same questions, answers and order give the same."""
    seen = hashlib.sha256()
    for item in items:
        seen.update(json.dumps(asdict(item), sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    return seen.hexdigest()[:32]
