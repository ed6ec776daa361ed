"""Reading a run folder: absent files are fine, malformed ones are one clear error that names file and line.

A folder holds any of `run.json`, `metrics.jsonl`, `evaluation.json`, `samples.jsonl`; a pipeline's folder also
holds sub-runs (`sft/`, `dpo/`), each with its own `run.json` or `metrics.jsonl`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import RecordError, SettingsError, nearest
from ..judging.statistics import Estimate
from ..records import Messages, messages
from .files import Wrong, document, is_count, is_number, kind, lines, mapping

__all__ = ["Evaluation", "EvaluationRow", "MetricRow", "Run", "Sample", "Series", "read_run"]

PHASES = ("train", "validation")
STATUSES = ("finished", "stopped", "failed", "running")
FILES = ("run.json", "metrics.jsonl", "evaluation.json", "samples.jsonl")
STAGES = ("sft", "reward", "preference")
SUFFIXES = ("_low", "_high", "_n")


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One logged moment. `numbers` holds every reading by name, with `<name>_low` and `<name>_high` for intervals."""

    step: int
    phase: str
    epoch: float | None
    numbers: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Series:
    """One reading over the steps; `low` and `high` are NaN where no interval was logged. All have the same length."""

    steps: tuple[int, ...]
    values: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class EvaluationRow:
    """One model's estimates by name, and remarks that are text."""

    model: str
    values: Mapping[str, Estimate]
    remarks: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Evaluation:
    rows: tuple[EvaluationRow, ...]
    on: str = ""
    judge: str = ""
    groups: Mapping[str, tuple[EvaluationRow, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sample:
    prompt: Messages
    responses: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder as data. `info` is `run.json` as written (checked); `parts` are its sub-runs, in order."""

    path: Path
    name: str
    info: Mapping[str, Any] = field(default_factory=dict)
    metrics: tuple[MetricRow, ...] = ()
    evaluation: Evaluation | None = None
    samples: tuple[Sample, ...] = ()
    parts: tuple[Run, ...] = ()
    notes: tuple[str, ...] = ()

    def names(self) -> list[str]:
        """The readings that were logged, in order of first appearance, without the interval columns."""
        found = dict.fromkeys(name for row in self.metrics for name in row.numbers)
        return [n for n in found if not any(n.endswith(s) and n.removesuffix(s) in found for s in SUFFIXES)]

    def series(self, name: str, phase: str) -> Series:
        """`name` over the steps of one phase, sorted; empty where it was not logged."""
        rows = [r for r in self.metrics if r.phase == phase and name in r.numbers]
        rows.sort(key=lambda r: r.step)

        def column(key: str) -> tuple[float, ...]:
            return tuple(r.numbers.get(key, math.nan) for r in rows)

        return Series(tuple(r.step for r in rows), column(name), column(f"{name}_low"), column(f"{name}_high"))

    def last(self, name: str, phase: str = "validation") -> Estimate | None:
        """The last logged value of a reading (n = 0 where the log does not say how many items it came from)."""
        rows = [r for r in self.metrics if r.phase == phase and name in r.numbers]
        if not rows:
            return None
        numbers = max(rows, key=lambda r: r.step).numbers
        n = numbers.get(f"{name}_n", numbers.get("n", 0.0))
        low, high = (numbers.get(f"{name}{suffix}", math.nan) for suffix in ("_low", "_high"))
        return Estimate(numbers[name], low, high, int(n) if math.isfinite(n) else 0)

    @property
    def stages(self) -> tuple[Run, ...]:
        """Everything that was trained: this run where it has curves or settings of its own, and its parts."""
        own = (self,) if self.metrics or not self.parts else ()
        return own + self.parts


def read_run(directory: str | Path) -> Run:
    """A run folder with its sub-runs.

    Raises SettingsError where the folder is none, RecordError (file and line) where a file is malformed.
    """
    path = Path(directory)
    if not path.is_dir():
        known = [p.name for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
        raise SettingsError(f'there is no run folder "{directory}".{nearest(path.name, known)}')
    folders = sorted(p for p in path.iterdir() if p.is_dir() and any((p / name).is_file() for name in FILES[:2]))
    parts = sorted((_read_folder(p) for p in folders), key=_order)
    run = replace(_read_folder(path), parts=tuple(parts))
    if not (parts or any((path / name).is_file() for name in FILES)):
        raise SettingsError(
            f'"{directory}" is no run folder: it holds none of {", ".join(FILES)} and no sub-run.',
            remedy="Give the folder that training wrote (its --output).",
        )
    return run


def _read_folder(path: Path) -> Run:
    metrics, notes = _read_metrics(path / "metrics.jsonl")
    return Run(
        path=path,
        name=path.resolve().name,
        info=_read_info(path / "run.json"),
        metrics=metrics,
        evaluation=_read_evaluation(path / "evaluation.json"),
        samples=_read_samples(path / "samples.jsonl"),
        notes=notes,
    )


def _order(run: Run) -> tuple[str, int, str]:
    """Sub-runs in the order they were made; by stage, then name where the folder does not say."""
    stage = run.info.get("stage")
    return str(run.info.get("created", "")), STAGES.index(stage) if stage in STAGES else len(STAGES), run.name


# ------------------------------------------------------------------------------------------------- run.json


def _read_info(path: Path) -> Mapping[str, Any]:
    return document(path, _check_info) or {}


def _check_info(info: Mapping[str, Any]) -> Mapping[str, Any]:
    for key in ("command", "recipe", "created", "stage", "status"):
        if not isinstance(info.get(key, ""), str | None):
            raise Wrong(f"expected text, found {kind(info[key])}.", key)
    for key in ("versions", "data", "settings", "defaults"):
        mapping(info.get(key) or {}, key)
    for key in ("seconds", "tokens"):
        value = info.get(key)
        if value is not None and not (is_number(value) and value >= 0):
            raise Wrong(f"expected a number >= 0, found {json.dumps(value)}.", key)
    status = info.get("status")
    if status is not None and status not in STATUSES:
        raise Wrong(f'unknown status "{status}" (known: {", ".join(STATUSES)}).{nearest(status, STATUSES)}', "status")
    data = info.get("data") or {}
    for key in ("train", "validation"):
        if data.get(key) is not None and not is_count(data[key]):
            raise Wrong(f"expected a count, found {json.dumps(data[key])}.", "data", key)
    for key in ("set_aside", "truncated"):
        for reason, count in mapping(data.get(key) or {}, "data", key).items():
            if not is_count(count):
                raise Wrong(f"expected a count, found {json.dumps(count)}.", "data", key, reason)
    return info


# -------------------------------------------------------------------------------------------- metrics.jsonl


def _read_metrics(path: Path) -> tuple[tuple[MetricRow, ...], tuple[str, ...]]:
    """The rows and notes on them. A resumed run logs some steps twice: the later row stands."""
    rows: dict[tuple[str, int], MetricRow] = {}
    notes, repeated = [], 0
    for number, found in lines(path):
        if found is None:
            notes.append(f"The last line of {path.name} ({number}) was cut off while being written; it is left out.")
            continue
        try:
            row = _metric_row(found)
        except Wrong as e:
            raise RecordError(e.reason, where=f"{path}:{number}") from None
        repeated += (row.phase, row.step) in rows
        rows[row.phase, row.step] = row
    if repeated:
        plural = "steps were" if repeated > 1 else "step was"
        notes.append(f"{repeated} {plural} logged more than once (a resumed run); the later values are shown.")
    return tuple(rows.values()), tuple(notes)


def _metric_row(found: Mapping[str, Any]) -> MetricRow:
    if not is_count(found.get("step")):
        raise Wrong(f'"step" must be a whole number >= 0, found {json.dumps(found.get("step"))}.')
    phase = found.get("phase")
    if phase not in PHASES:
        hint = nearest(phase, PHASES) if isinstance(phase, str) else ""
        raise Wrong(f'"phase" must be "train" or "validation", found {json.dumps(phase)}.{hint}')
    numbers: dict[str, float] = {}
    for key, value in found.items():
        if key in ("step", "phase") or value is None:
            continue
        if not is_number(value):
            raise Wrong(f'"{key}" must be a number, found {kind(value)}.')
        numbers[key] = float(value)
    for name, value in numbers.items():
        low, high = numbers.get(f"{name}_low", -math.inf), numbers.get(f"{name}_high", math.inf)
        room = 1e-6 * max(1.0, abs(value))  # for what rounding on the way to the file may do
        if low > high or value < low - room or value > high + room:
            raise Wrong(f'the interval [{low:g}, {high:g}] of "{name}" does not hold its value {value:g}.')
    return MetricRow(int(found["step"]), phase, numbers.pop("epoch", None), numbers)


# --------------------------------------------------------------------------- evaluation.json, samples.jsonl


def _read_evaluation(path: Path) -> Evaluation | None:
    found: Evaluation | None = document(path, _evaluation)
    return found


def _evaluation(found: Mapping[str, Any]) -> Evaluation:
    for key in ("on", "judge"):
        if not isinstance(found.get(key, ""), str):
            raise Wrong(f"expected text, found {kind(found[key])}.", key)
    groups = {name: _rows(rows, "groups", name) for name, rows in mapping(found.get("groups") or {}, "groups").items()}
    return Evaluation(_rows(found.get("rows"), "rows"), found.get("on", ""), found.get("judge", ""), groups)


def _rows(found: Any, *keys: str | int) -> tuple[EvaluationRow, ...]:
    if not isinstance(found, list):
        raise Wrong(f"expected a list of rows, found {kind(found)}.", *keys)
    rows = tuple(_evaluation_row(row, *keys, i) for i, row in enumerate(found))
    names = [row.model for row in rows]
    for i, name in enumerate(names):
        if name in names[:i]:
            raise Wrong(f'the model "{name}" has two rows.', *keys, i)
    return rows


def _evaluation_row(found: Any, *keys: str | int) -> EvaluationRow:
    row = mapping(found, *keys)
    if not isinstance(row.get("model"), str):
        raise Wrong('a row needs the name of its "model".', *keys)
    values, remarks = {}, {}
    for key, value in row.items():
        if key == "model" or value is None:
            continue
        if isinstance(value, str):
            remarks[key] = value
        elif is_number(value):
            values[key] = Estimate(float(value), math.nan, math.nan, 0)
        else:
            values[key] = _estimate(mapping(value, *keys, key), *keys, key)
    return EvaluationRow(row["model"], values, remarks)


def _estimate(found: Mapping[str, Any], *keys: str | int) -> Estimate:
    try:
        return Estimate.from_dict(found)
    except KeyError as e:
        raise Wrong(f"an estimate needs {e.args[0]!r} (value, low, high, n).".replace("'", '"'), *keys) from None
    except ValueError as e:
        raise Wrong(str(e), *keys) from None


def _read_samples(path: Path) -> tuple[Sample, ...]:
    samples = []
    for number, found in lines(path):
        if found is None:
            raise RecordError("not valid JSON: the last line is cut off.", where=f"{path}:{number}")
        try:
            samples.append(_sample(found))
        except Wrong as e:
            raise RecordError(e.reason, where=f"{path}:{number}") from None
    return tuple(samples)


def _sample(found: Mapping[str, Any]) -> Sample:
    if "prompt" not in found:
        raise Wrong('a sample needs a "prompt".')
    try:
        prompt = messages(found["prompt"])
    except RecordError as e:
        raise Wrong(f"prompt: {e.reason}") from None
    responses = found.get("responses")
    if not isinstance(responses, Mapping):
        raise Wrong(f'"responses" must be an object of texts by model, found {kind(responses)}.')
    for model, text in responses.items():
        if not isinstance(text, str):
            raise Wrong(f'the response of "{model}" must be text, found {kind(text)}.')
    return Sample(prompt, dict(responses))
