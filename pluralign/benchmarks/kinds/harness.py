"""Tasks of lm-evaluation-harness, with the model that is loaded here and intervals of our own.

Standard tasks are not written anew: the harness reads the data, asks and scores, and what it found for each document
becomes a row, so that figures, differences and the manifest are those of any other benchmark.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import PluralignError, SettingsError, nearest
from .core import Benchmark, Metric, Row
from .evaluation import RESULT, Evaluation, evaluation_of, write_rows
from .manifest import file_digests, versions, write_manifest
from .systems import open_system

__all__ = ["rows_of", "run_harness"]


def run_harness(
    tasks: str,
    models: Mapping[str, str],
    *,
    limit: int | None = None,
    shots: int | None = None,
    include: Path | None = None,
    chat: bool = False,
    seed: int = 0,
    batch_size: int = 8,
    output: Path | None = None,
    command: str = "",
    trust_remote_code: bool = False,
) -> Evaluation:
    """Measure models by one or more tasks (with commas between them). Raises PluralignError where the harness is not
    installed, SettingsError for a task that it does not know or cannot load."""
    harness = _harness()
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    manager = _manager(include)
    for name in names:
        if name not in manager.all_tasks:
            raise SettingsError(
                f'the harness has no task "{name}".{nearest(name, manager.all_tasks)}',
                remedy="Name a folder with one's own tasks: --include DIR.",
            )
    began = time.time()
    rows: dict[str, list[Row]] = {}
    keys: dict[str, str] = {}
    for name, model in models.items():
        system = open_system(name, model, trust_remote_code=trust_remote_code)
        keys[name] = system.key
        rows[name] = rows_of(name, _samples(harness, system.policy, names, manager, limit=limit, shots=shots,
                                            chat=chat, seed=seed, batch_size=batch_size))  # fmt: skip
        system.__dict__.pop("policy", None)
    metrics = _metrics([row for own in rows.values() for row in own])
    benchmark = _benchmark(tasks, metrics)
    found = evaluation_of(benchmark, rows, {}, on=f"{tasks} of lm-evaluation-harness {harness.__version__}")
    if output is not None:
        write_rows(output, rows)
        _write_result(output, found)
        write_manifest(output, {
            "benchmark": benchmark.name,
            "questions": {"from": {"questions": tasks}, "n": len(next(iter(rows.values()), []))},
            "systems": {name: {"model": models[name], "key": keys[name]} for name in models},
            "judge": None,
            "settings": {"limit": limit, "shots": shots, "chat": chat, "batch_size": batch_size},
            "seed": seed,
            "versions": versions(),
            "command": command,
            "seconds": round(time.time() - began, 1),
            "failed": found.failed,
            "files": file_digests(output),
        })  # fmt: skip
    return found


def _harness() -> Any:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        import lm_eval
    except ImportError:
        raise PluralignError(
            "tasks of lm-evaluation-harness need lm-eval, which is not installed.",
            remedy='pip install "pluralign[harness]"',
        ) from None
    return lm_eval


def _manager(include: Path | None) -> Any:
    from lm_eval.tasks import TaskManager

    if include is not None and not include.is_dir():
        raise SettingsError(f"--include {include}: no such folder.")
    return TaskManager(include_path=str(include) if include else None)


def _samples(
    harness: Any, policy: Any, names: Sequence[str], manager: Any, *, limit: int | None, shots: int | None,
    chat: bool, seed: int, batch_size: int,
) -> dict[str, list[dict[str, Any]]]:  # fmt: skip
    """What the harness found, by task: a mapping a document."""
    from lm_eval.models.huggingface import HFLM

    from ...scoring.forward import unwrap

    policy.model.eval()
    model = HFLM(pretrained=unwrap(policy.model), tokenizer=policy.tokenizer, batch_size=batch_size)
    try:
        found = harness.simple_evaluate(
            model=model, tasks=list(names), task_manager=manager, limit=limit, num_fewshot=shots,
            apply_chat_template=chat, log_samples=True, bootstrap_iters=0, random_seed=seed, numpy_random_seed=seed,
            torch_random_seed=seed, fewshot_random_seed=seed,
        )  # fmt: skip
    except (OSError, ConnectionError, ValueError) as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise SettingsError(f"the harness cannot run {', '.join(names)}: {first}") from None
    samples: dict[str, list[dict[str, Any]]] = found["samples"]
    return samples


def rows_of(name: str, samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Row]:
    """A row a document, with every figure of it that is a number."""
    out: list[Row] = []
    for task, documents in samples.items():
        for document in documents:
            values: dict[str, Any] = {key: document.get(key) for key in document.get("metrics", ())}
            row: Row = {"system": name, "id": f"{task} {document['doc_id']}", "category": task}
            out.append(row | {"values": {key: float(v) for key, v in values.items() if _is_number(v)}})
    return out


def _is_number(value: Any) -> bool:
    return isinstance(value, bool | int | float) and math.isfinite(value)


def _metrics(rows: Sequence[Row]) -> tuple[Metric, ...]:
    """A figure for every name that a row has; shares where all values are 0 or 1."""

    def metric(name: str) -> Metric:
        values = [row["values"][name] for row in rows if name in row["values"]]
        return Metric(
            name, lambda row: row["values"].get(name), kind="share" if all(v in (0.0, 1.0) for v in values) else "mean"
        )

    names = list(dict.fromkeys(name for row in rows for name in row["values"]))
    if not names:
        raise SettingsError("the harness gave no figure that is a mean over documents.")
    return tuple(metric(name) for name in names)


def _benchmark(tasks: str, metrics: tuple[Metric, ...]) -> Benchmark:
    return Benchmark(
        name=f"harness:{tasks}", title=tasks, paper="", measures=tasks, kind="choices", n=0, sources={},
        read=lambda files, settings: [], run=lambda task: iter(()), metrics=metrics, settings={"default": {}},
    )  # fmt: skip


def _write_result(output: Path, found: Evaluation) -> None:
    import json

    (output / RESULT).write_text(json.dumps(found.as_dict(), indent=1, ensure_ascii=False) + "\n", "utf-8")
