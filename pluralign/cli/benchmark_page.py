"""The page of a benchmark's evaluation: its figures and, where a judge compared or rated, every verdict to be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..benchmarks import Benchmark
    from ..benchmarks.kinds.evaluation import Evaluation

__all__ = ["PAGE", "write_page"]

PAGE = "evaluation.html"


def write_page(folder: Path, benchmark: Benchmark, found: Evaluation) -> Path:
    """evaluation.html in an evaluation's folder, from its rows and manifest."""
    from ..benchmarks.kinds.evaluation import read_rows_of
    from ..benchmarks.kinds.manifest import read_manifest
    from ..reports.evaluation_page import System, evaluation_page

    rows = read_rows_of(folder)
    systems = [
        System(
            name,
            scores=_worded(found, name),
            categories=found.groups.get(name, {}),
            **_verdicts(rows[name]),
        )
        for name in found.figures
    ]
    page = evaluation_page(benchmark.title, systems, on=found.on, manifest=read_manifest(folder), notes=found.notes)
    (folder / PAGE).write_text(page, "utf-8")
    return folder / PAGE


def _worded(found: Evaluation, name: str) -> dict[str, Any]:
    """Figures and differences under names that people read."""
    gaps = {f"{key} difference": e for key, e in found.differences.get(name, {}).items()}
    return {key.replace("_", " "): e for key, e in {**found.figures[name], **gaps}.items()}


def _verdicts(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the rows hold of comparisons and ratings, as the judging room has them."""
    from ..judging.verdicts import Comparison, Judgement, Rating, Subject
    from ..records import messages

    out: dict[str, list[Any]] = {"comparisons": [], "judgements": [], "subjects": [], "ratings": []}
    for row in rows:
        if "answers" in row:
            one, other = row["answers"]
            out["comparisons"].append(Comparison(row["id"], messages(row["prompt"]), one, other,
                                                 row["category"], row.get("reference", "")))  # fmt: skip
            out["judgements"].append(Judgement.from_dict({**row, "games": row["games"]}))
        elif "response" in row:
            out["subjects"].append(Subject(row["id"], messages(row["prompt"]), row["response"], row["category"],
                                           row.get("reference", "")))  # fmt: skip
            out["ratings"].append(Rating(row["id"], row["judge"], row["rating"], row["raw"], row["reason"]))
    return out
