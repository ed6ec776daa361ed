"""An evaluation from beginning to end: questions, systems, rows, figures, and the folder that keeps them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...errors import SettingsError
from .core import Benchmark, Open, Row, Task, items_digest, settings_of
from .evaluation import (
    RESULT,
    Evaluation,
    evaluation_of,
    read_baseline,
    read_rows_of,
    write_rows,
)
from .manifest import MANIFEST, changed, file_digests, read_manifest, versions, write_manifest
from .questions import QuestionFiles, chosen_items
from .ranking import JUDGE
from .systems import System, open_system

__all__ = ["Asked", "rescored", "run_benchmark"]


@dataclass
class Asked:
    """What is asked for. `systems` by name; `baseline` is a folder of an evaluation, a model or a file of answers;
    `against` answers (a file or a model) that replace the benchmark's own baseline answers."""

    benchmark: Benchmark
    systems: Mapping[str, System]
    judge: Any = None
    settings_name: str = "default"
    given: Mapping[str, Any] = field(default_factory=dict)
    questions: str | None = None
    split: str | None = None
    skip: int = 0
    limit: int | None = None
    only: str | None = None
    baseline: str | None = None
    against: str | None = None
    reference: Any = None
    attributes: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    batch_size: int = 16
    output: Path | None = None
    command: str = ""
    trust_remote_code: bool = False
    progress: Callable[[str, int, int], None] | None = None
    warn: Callable[[str], None] = lambda text: None


def run_benchmark(asked: Asked) -> Evaluation:
    """Measure the systems. With `output` the folder holds answers, verdicts, rows, figures and the manifest, and the
    same call goes on where it was stopped. Raises PluralignError for whatever a person can mend."""
    began = time.time()
    benchmark = asked.benchmark
    _check_judge(benchmark, asked)
    settings = settings_of(benchmark, asked.settings_name, asked.given)
    files = QuestionFiles(benchmark, asked.questions, asked.split)
    items = chosen_items(benchmark.read(files, settings), skip=asked.skip, limit=asked.limit, only=_only(asked.only))
    systems, baseline = _with_baseline(asked)
    if asked.output is not None:
        _same_benchmark(asked.output, benchmark)
    task = Task(items, settings, System("nobody"), asked.judge, asked.output, asked.seed, asked.batch_size,
                asked.reference, asked.attributes, asked.progress, asked.warn)  # fmt: skip
    if asked.against is not None:
        task.items = _against(asked, task)
    rows: dict[str, list[Row]] = {}
    keys: dict[str, str] = {}
    for name, system in systems.items():
        rows[name] = list(benchmark.run(replace(task, system=system)))
        keys[name] = "" if system.model == JUDGE else system.key
        system.__dict__.pop("policy", None)  # one model in memory at a time
    found = evaluation_of(benchmark, rows, settings, baseline=baseline, on=f"{len(items):,} of {benchmark.n:,} items")
    found.notes += [benchmark.note] if benchmark.note else []
    if asked.output is not None:
        manifest = {
            "benchmark": benchmark.name,
            "title": benchmark.title,
            "paper": benchmark.paper,
            "questions": {"from": files.seen, "n": len(items), "digest": items_digest(task.items)},
            "systems": {name: {"model": systems[name].model, "key": keys[name]} for name in systems},
            "judge": {"name": asked.judge.name, "key": asked.judge.key} if asked.judge is not None else None,
            "settings": {"name": asked.settings_name, **settings},
            "taken": {"skip": asked.skip, "limit": asked.limit, "only": asked.only},
            "seed": asked.seed,
            "attributes": dict(asked.attributes),
            "against": asked.against,
            "baseline": asked.baseline,
            "reference": getattr(asked.reference, "name", None),
            "batch_size": asked.batch_size,
            "versions": versions(),
            "command": asked.command,
            "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
            "seconds": round(time.time() - began, 1),
            "failed": found.failed,
        }
        _write(asked, found, rows, manifest)
    return found


def _write(asked: Asked, found: Evaluation, rows: Mapping[str, Sequence[Row]], manifest: dict[str, Any]) -> None:
    assert asked.output is not None
    before = read_manifest(asked.output) if (asked.output / MANIFEST).is_file() else None
    if before is not None and (other := changed(before, manifest)):
        asked.warn(f"{asked.output} held an evaluation with other {', '.join(other)}; its figures are replaced")
    write_rows(asked.output, rows)
    (asked.output / RESULT).write_text(json.dumps(found.as_dict(), indent=1, ensure_ascii=False) + "\n", "utf-8")
    write_manifest(asked.output, {**manifest, "files": file_digests(asked.output)})


def rescored(folder: Path, benchmark: Benchmark) -> Evaluation:
    """The figures of an evaluation's folder from its stored rows, without a model or a judge. Raises SettingsError."""
    kept = read_manifest(folder)
    if kept.get("benchmark") != benchmark.name:
        raise SettingsError(f'{folder} is an evaluation by "{kept.get("benchmark")}", not by "{benchmark.name}".')
    settings = {key: value for key, value in kept.get("settings", {}).items() if key != "name"}
    n = kept.get("questions", {}).get("n", 0)
    found = evaluation_of(benchmark, read_rows_of(folder), settings, on=f"{n:,} of {benchmark.n:,} items")
    found.notes += [benchmark.note] if benchmark.note else []
    return found


# What it takes


def _check_judge(benchmark: Benchmark, asked: Asked) -> None:
    """Raises SettingsError for a judge that lacks, is not wanted, or cannot do what the benchmark needs."""
    judge, needs = asked.judge, benchmark.judge
    if judge is None and needs in ("pairwise", "rating"):
        raise SettingsError(f"{benchmark.name} needs a judge.", remedy="Name one: --judge JUDGE (see --help).")
    if judge is None:
        return
    if not needs:
        raise SettingsError(f"{benchmark.name} has no use for a judge.", remedy="Leave out --judge.")
    able = "rate" if needs == "rating" and asked.against is None else "compare"
    if not hasattr(judge, able):
        raise SettingsError(f"the judge {judge.name} cannot {able} responses, which {benchmark.name} needs.")


def _only(path: str | None) -> Callable[[Any], bool] | None:
    """Whether an item is one of those a file names, one a line: by its id or its first turn."""
    if path is None:
        return None
    file = Path(path)
    if not file.is_file():
        raise SettingsError(f"--only {path}: no such file.", remedy="Name a text file of questions or ids, one a line.")
    wanted = {line.strip() for line in file.read_text("utf-8").split("\n") if line.strip()}

    def keep(item: Any) -> bool:
        turns = getattr(item, "prompt", None)
        first = item.turns[0] if isinstance(item, Open) else turns[0].content if turns else ""
        return getattr(item, "id", "") in wanted or first.strip() in wanted

    return keep


def _with_baseline(asked: Asked) -> tuple[dict[str, System], tuple[str, list[Row]] | None]:
    """The systems to be measured, a baseline that is none of the stored ones first among them; else its stored rows."""
    systems = dict(asked.systems)
    if asked.baseline is None:
        return systems, None
    name, equals, place = asked.baseline.partition("=")
    if not (equals and name and place) or Path(asked.baseline).exists():
        name, place = "", asked.baseline
    if (Path(place) / MANIFEST).is_file():
        key = asked.judge.key if asked.judge is not None else ""
        found, rows = read_baseline(Path(place), name, asked.benchmark, key)
        label = found if found not in systems else f"{found} (baseline)"
        return systems, (label, rows)
    name = name or Path(place).name
    if name in systems:
        raise SettingsError(f'the baseline is called "{name}" like a system.', remedy="Name it: --baseline NAME=MODEL.")
    return {name: open_system(name, place, trust_remote_code=asked.trust_remote_code), **systems}, None


def _same_benchmark(folder: Path, benchmark: Benchmark) -> None:
    if (folder / MANIFEST).is_file():
        kept = read_manifest(folder).get("benchmark")
        if kept != benchmark.name:
            raise SettingsError(f'{folder} holds an evaluation by "{kept}".', remedy="Name another --output.")


def _against(asked: Asked, task: Task) -> list[Any]:
    """The items with the answers of `against` as the other side. Raises SettingsError where there are none to give."""
    from .answering import answers

    if asked.benchmark.kind not in ("compared", "rated"):
        raise SettingsError(f"{asked.benchmark.name} compares no answers.", remedy="Leave out --against.")
    place = asked.against or ""
    system = open_system(Path(place).name, place, trust_remote_code=asked.trust_remote_code)
    found = answers(replace(task, system=system))
    system.__dict__.pop("policy", None)
    return [replace(item, other=other or ()) for item, other in zip(task.items, found, strict=True)]
