"""AlpacaEval's files: `annotations.json`, the difficulties of its instructions, and the gamed rows of its regulariser.

Difficulties and gamed rows are on the hub (dataset tatsu-lab/alpaca_eval). alpaca_eval takes the difficulty of row i
for the i-th annotation, whatever its instruction; with the question set at hand they are matched by instruction here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.readers import csv_rows
from ..errors import RecordError, SettingsError
from .length_controlled import Gamed
from .published import number_of, rows_of, text_of

__all__ = [
    "Annotations", "match_instructions", "official_files", "read_annotations", "read_difficulty", "read_gamed",
    "read_instructions",
]  # fmt: skip

REPOSITORY, REVISION = "tatsu-lab/alpaca_eval", "2edc6fad8be6b14ea7230aabfd08188da6b8b814"
DIFFICULTY, GAMED = "instruction_difficulty.csv", "df_gamed.csv"


@dataclass(frozen=True)
class Annotations:
    """One model against one baseline: `wins` (N,) shares of the model, None where there is no preference; lengths in
    characters; `annotator` as stored."""

    path: str
    model: str
    baseline: str
    annotator: str
    instructions: list[str]
    wins: list[float | None]
    baseline_lengths: list[int]
    model_lengths: list[int]

    @property
    def is_baseline(self) -> bool:
        return self.model == self.baseline


def read_annotations(path: Path) -> list[Annotations]:
    """The models of a file, in order of appearance. A preference lies between 1 (baseline) and 2 (model); 0 is a tie.

    Raises RecordError with its place for a row that is no annotation, and where a model has two baselines.
    """
    found: dict[str, list[tuple[str, Mapping[str, Any], float | None]]] = {}
    for where, row in rows_of(path):
        lacking = next((n for n in ("instruction", "output_1", "output_2", "preference") if n not in row), None)
        if lacking is not None:
            raise RecordError(f'an annotation of AlpacaEval has a field "{lacking}".', where=where)
        for name in ("output_1", "output_2"):
            if not isinstance(row[name], str):
                raise RecordError(f'"{name}" is no text.', where=where)
        model = str(row.get("generator_2", path.parent.name or "model"))
        found.setdefault(model, []).append((where, row, _wins(row, where)))
    return [_annotations(path, model, rows) for model, rows in found.items()]


def _annotations(path: Path, model: str, rows: Sequence[tuple[str, Mapping[str, Any], float | None]]) -> Annotations:
    baselines = list(dict.fromkeys(str(row.get("generator_1", "baseline")) for _, row, _ in rows))
    if len(baselines) > 1:
        raise RecordError(f"{model} is held against {baselines[0]} and {baselines[1]}.", where=rows[0][0])
    return Annotations(
        path=str(path),
        model=model,
        baseline=baselines[0],
        annotator=str(rows[0][1].get("annotator", "")),
        instructions=[text_of(row, "instruction", where) for where, row, _ in rows],
        wins=[wins for _, _, wins in rows],
        baseline_lengths=[len(row["output_1"]) for _, row, _ in rows],
        model_lengths=[len(row["output_2"]) for _, row, _ in rows],
    )


def _wins(row: Mapping[str, Any], where: str) -> float | None:
    preference = number_of(row, "preference", where)
    if preference is None:
        return None
    if preference == 0:
        return 0.5
    if not 1 <= preference <= 2:
        raise RecordError(f"a preference lies between 1 and 2 (0: a tie), not {preference:g}.", where=where)
    return preference - 1


def read_instructions(path: Path) -> list[str]:
    """The question set in its official order: rows with an "instruction", such as alpaca_eval.json.

    Raises RecordError where an instruction comes twice.
    """
    out = [text_of(row, "instruction", where) for where, row in rows_of(path)]
    if len(set(out)) < len(out):
        raise RecordError("an instruction comes twice, so that nothing can be matched by it.", where=str(path))
    return out


def match_instructions(instructions: Sequence[str], official: Sequence[str], where: str) -> list[int]:
    """The place of each instruction in the question set. Raises RecordError for one that is not in it."""
    places = {text: i for i, text in enumerate(official)}
    for i, text in enumerate(instructions):
        if text not in places:
            raise RecordError(f'"{text[:40]}" is not in the question set.', where=f"{where}[{i}]")
    return [places[text] for text in instructions]


def read_difficulty(path: Path) -> NDArray[np.float64]:
    """Difficulties in the order of the question set: the column "instruction_difficulty", or the last of a CSV file."""
    out = []
    for where, row in _csv(path):
        name = "instruction_difficulty" if "instruction_difficulty" in row else list(row)[-1]
        out.append(_float(row, name, where))
    return np.array(out, dtype=np.float64)


def read_gamed(path: Path) -> tuple[Gamed, NDArray[np.float64]]:
    """(gamed rows, difficulties in order of "index") of a CSV file like df_gamed.csv. Rows without a preference are
    left out of the former. Raises RecordError for a file without its columns."""
    needs = ("index", "preference", "std_delta_len", "instruction_difficulty")
    table: list[list[float]] = []
    for where, row in _csv(path):
        lacking = next((name for name in needs if name not in row), None)
        if lacking is not None:
            raise RecordError(f'gamed rows have a column "{lacking}".', where=where)
        preference = np.nan if str(row["preference"]).strip() in ("", "nan") else _float(row, "preference", where)
        table.append([_float(row, "index", where), preference, *(_float(row, name, where) for name in needs[2:])])
    index, wins, delta, hard = np.array(table, dtype=np.float64).T
    read = ~np.isnan(wins)
    if wins[read].min() < 0 or wins[read].max() > 1:
        raise RecordError("preferences of gamed rows are shares between 0 and 1.", where=str(path))
    _, first = np.unique(index, return_index=True)
    return Gamed(np.tanh(delta[read]), hard[read], wins[read]), hard[first]


def official_files() -> tuple[Path, Path]:
    """(difficulties, gamed rows) from the hub, at a fixed revision. Raises SettingsError where it cannot be reached."""
    from huggingface_hub import hf_hub_download

    try:
        found = [
            Path(hf_hub_download(REPOSITORY, name, repo_type="dataset", revision=REVISION))
            for name in (DIFFICULTY, GAMED)
        ]
    except Exception as error:  # the hub's client raises many kinds
        raise SettingsError(
            f"{DIFFICULTY} and {GAMED} of the data set {REPOSITORY} cannot be had ({type(error).__name__}).",
            remedy="Fetch them where the hub is reachable and name the files.",
        ) from None
    return found[0], found[1]


def _csv(path: Path) -> list[tuple[str, Mapping[str, Any]]]:
    out = []
    for raw in csv_rows(path):
        if raw.error is not None:
            raise RecordError(raw.error, where=f"{path}:{raw.place}")
        if not raw.is_blank:
            out.append((f"{path}:{raw.place}", raw.row))
    if not out:
        raise RecordError("holds no rows.", where=str(path))
    return out


def _float(row: Mapping[str, Any], name: str, where: str) -> float:
    try:
        return float(row[name])
    except (TypeError, ValueError):
        raise RecordError(f'"{name}" is no number.', where=where) from None
