"""Verdicts that others stored, read for scoring again: MT-Bench judgments, RewardBench scores, labelled pairs.

AlpacaEval's and Arena-Hard's files have readers of their own (`published_alpaca_eval`, `published_arena_hard`). Every
file may be JSON lines or a JSON array, gzipped or not; what is wrong with a row is one line with its place. A verdict
that its author could not read is None, never a tie.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data.readers import is_array, json_file, opened
from ..errors import RecordError
from .verdicts import Judgement

__all__ = [
    "LabelledPair", "PairGame", "RatedTurn", "RewardScores", "ScoredChoice", "files_of", "number_of",
    "read_mt_bench", "read_pairs", "read_reward_bench", "read_rmb", "rows_of", "text_of",
]  # fmt: skip

Row = Mapping[str, Any]


def rows_of(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, row) of every row; a blank line is none. Raises RecordError for a damaged row or a file without rows."""
    array, empty = is_array(path), True
    for raw in json_file(path):
        where = f"{path}[{raw.place}]" if array else f"{path}:{raw.place}"
        if raw.error is not None:
            raise RecordError(raw.error, where=where)
        if not raw.is_blank:
            empty = False
            yield where, raw.row
    if empty:
        raise RecordError("holds no rows.", where=str(path))


def files_of(paths: Sequence[Path], patterns: Sequence[str]) -> list[Path]:
    """The files named, and those with such names below the folders named. Raises RecordError where there is none."""
    out: list[Path] = []
    for path in paths:
        found = sorted({f for p in patterns for f in path.rglob(p)}) if path.is_dir() else [path]
        if not found or not path.exists():
            raise RecordError("no such file." if not path.exists() else "no verdicts in this folder.", where=str(path))
        out += found
    return out


def text_of(row: Row, name: str, where: str) -> str:
    """A field that is text or a whole number. Raises RecordError where it is missing or something else."""
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise RecordError(f'a row has a text "{name}".' if name not in row else f'"{name}" is no text.', where=where)
    return str(value)


def number_of(row: Row, name: str, where: str) -> float | None:
    """A field that is a number, or None where it is null or NaN. Raises RecordError where it is missing or no
    number."""
    value = row.get(name)
    if name not in row or isinstance(value, bool) or not (value is None or isinstance(value, int | float)):
        raise RecordError(
            f'a row has a number "{name}".' if name not in row else f'"{name}" is no number.', where=where
        )
    return None if value is None or value != value else float(value)


# --- MT-Bench -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RatedTurn:
    """A rating of one turn; None where it was not read (-1)."""

    where: str
    question: str
    model: str
    turn: int
    rating: float | None
    judge: str


@dataclass(frozen=True, slots=True)
class PairGame:
    """A comparison in both orders: winners "model_1", "model_2", "tie", or None for an error."""

    where: str
    question: str
    models: tuple[str, str]
    turn: int
    winners: tuple[str | None, str | None]
    judge: str
    rated: bool = False


def read_mt_bench(path: Path) -> list[RatedTurn] | list[PairGame]:
    """FastChat's `*_single.jsonl` or `*_pair.jsonl`, told by the first row. Raises RecordError for other or mixed
    rows."""
    rows = list(rows_of(path))
    if "g1_winner" in rows[0][1]:
        return [_pair_game(where, row) for where, row in rows]
    if "score" not in rows[0][1] or "question_id" not in rows[0][1]:
        raise RecordError(
            "no judgment of MT-Bench.", where=rows[0][0],
            remedy='Single ratings have "question_id", "model", "turn" and "score"; pairs "g1_winner" and "g2_winner".',
        )  # fmt: skip
    return [_rated_turn(where, row) for where, row in rows]


def _rated_turn(where: str, row: Row) -> RatedTurn:
    rating = number_of(row, "score", where)
    if rating is not None and rating != -1 and not 0 <= rating <= 10:
        raise RecordError(f"a rating lies between 1 and 10 (or is -1), not {rating:g}.", where=where)
    return RatedTurn(
        where, text_of(row, "question_id", where), text_of(row, "model", where), _turn(row, where),
        None if rating == -1 else rating, _judge(row),
    )  # fmt: skip


def _pair_game(where: str, row: Row) -> PairGame:
    winners = []
    for name in ("g1_winner", "g2_winner"):
        winner = text_of(row, name, where)
        if winner not in ("model_1", "model_2", "tie", "error"):
            raise RecordError(f'"{name}" is "model_1", "model_2", "tie" or "error", not "{winner}".', where=where)
        winners.append(None if winner == "error" else winner)
    models = (text_of(row, "model_1", where), text_of(row, "model_2", where))
    # FastChat writes no turn where a pair is decided by two ratings
    turn = _turn(row, where) if "turn" in row else 1
    return PairGame(
        where,
        text_of(row, "question_id", where),
        models,
        turn,
        (winners[0], winners[1]),
        _judge(row),
        "m1_score" in row,
    )


def _turn(row: Row, where: str) -> int:
    turn = number_of(row, "turn", where)
    if turn is None or turn != int(turn) or turn < 1:
        raise RecordError('"turn" is 1 or 2.', where=where)
    return int(turn)


def _judge(row: Row) -> str:
    judge = row.get("judge", "")
    return " ".join(map(str, judge)) if isinstance(judge, list) else str(judge)


# --- RewardBench --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RewardScores:
    """Scores of one reward model. Version 1: `chosen`, `rejected` (N,). Version 2: `scores`, the correct answers first,
    with `num_correct` and `ids`."""

    model: str
    version: int
    subsets: list[str]
    chosen: list[float | None] = field(default_factory=list)
    rejected: list[float | None] = field(default_factory=list)
    scores: list[list[float | None]] = field(default_factory=list)
    num_correct: list[int] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)


def read_reward_bench(path: Path) -> RewardScores:
    """A file of `eval-set-scores`: one object of columns, or rows with the same names. Raises RecordError for
    another."""
    rows, model = _columns_or_rows(path)
    where, first = rows[0]
    if "scores_chosen" in first and "scores_rejected" in first:
        chosen, rejected = ([_score(row.get(n), n, w) for w, row in rows] for n in ("scores_chosen", "scores_rejected"))
        return RewardScores(model, 1, [text_of(row, "subset", w) for w, row in rows], chosen, rejected)
    if "scores" in first:
        return RewardScores(
            model, 2, [text_of(row, "subset", w) for w, row in rows],
            scores=[_scores(row, w) for w, row in rows],
            num_correct=[int(number_of({"num_correct": 1} | dict(row), "num_correct", w) or 1) for w, row in rows],
            ids=[str(row.get("id", "")) for _, row in rows],
        )  # fmt: skip
    raise RecordError(
        "no scores of RewardBench.", where=where,
        remedy='Version 1 has "scores_chosen", "scores_rejected" and "subset"; version 2 "scores" and "subset".',
    )  # fmt: skip


def _columns_or_rows(path: Path) -> tuple[list[tuple[str, dict[str, Any]]], str]:
    """Rows, whether the file holds them or an object of columns, and the model's name."""
    if is_array(path):
        rows = list(rows_of(path))
        return rows, str(rows[0][1].get("model", path.stem))
    with opened(path) as file:
        content = file.read()
    try:
        whole = json.loads(content)
    except ValueError:  # JSON lines, or damage that the reader of rows can name
        rows = list(rows_of(path))
        return rows, str(rows[0][1].get("model", path.stem))
    columns = {name: column for name, column in whole.items() if isinstance(column, list)}
    sizes = {len(columns[name]) for name in columns if name in ("subset", "scores", "scores_chosen", "scores_rejected")}
    if "subset" not in columns or len(sizes) != 1:
        raise RecordError("no columns of equal length with a subset for each row.", where=str(path))
    size = sizes.pop()
    table = [{n: c[i] for n, c in columns.items() if len(c) == size} for i in range(size)]
    if not table:
        raise RecordError("holds no rows.", where=str(path))
    return [(f"{path}[{i}]", row) for i, row in enumerate(table)], str(whole.get("model", path.stem))


def _score(value: Any, name: str, where: str) -> float | None:
    """A score, or a list of one as some models return it."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise RecordError(f'"{name}" holds numbers.', where=where)
    return None if value is None or value != value else float(value)


def _scores(row: Row, where: str) -> list[float | None]:
    values = row.get("scores")
    if not isinstance(values, list) or not values:
        raise RecordError('"scores" is a list of numbers.', where=where)
    return [_score(value, "scores", where) for value in values]


# --- RMB ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ScoredChoice:
    """An item of RMB: the scores of the answer that should win and of all others."""

    where: str
    key: str
    category: str
    best: float | None
    others: tuple[float | None, ...]


def read_rmb(path: Path) -> list[ScoredChoice]:
    """Best-of-n rows ("bon_best", "loser_list") or pairs ("chosen", "reject") of which every answer bears a "score",
    null where there is none. Raises RecordError for other rows and for answers without that field."""
    out = []
    for where, row in rows_of(path):
        if "bon_best" in row and isinstance(row.get("loser_list"), list):
            best, others = row["bon_best"], row["loser_list"]
        elif "chosen" in row and "reject" in row:
            best, others = row["chosen"], [row["reject"]]
        else:
            raise RecordError("no row of RMB.", where=where)
        answers = [best, *others]
        if len(answers) < 2 or not all(isinstance(answer, dict) and "score" in answer for answer in answers):
            raise RecordError('every answer needs a "score" by your reward model.', where=where)
        scores = [_score(answer["score"], "score", where) for answer in answers]
        key = str(row.get("bon_uid", row.get("pair_uid", where)))
        out.append(ScoredChoice(where, key, str(row.get("category_path", "")), scores[0], tuple(scores[1:])))
    return out


# --- labelled pairs -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LabelledPair:
    """A pair with labels by who gave them: 1.0 the first response is better, 0.0 the second, 0.5 a tie, None unread.

    `key` is the row's id, or a digest of prompt and responses: two files speak of the same pair where it is the same.
    """

    where: str
    key: str
    group: str
    labels: Mapping[str, float | None]
    judgement: Judgement | None = None


def read_pairs(path: Path) -> tuple[str, list[LabelledPair]]:
    """(format, pairs) of a file of verdicts: ours (`Judgement.as_dict`), Auto-J, PandaLM, LLMBar, JudgeBench, RMB, or
    rows with a "winner". Raises RecordError for a file that is none of them, or a row that is unlike the first."""
    rows = list(rows_of(path))
    named = next((name for name, (needs, _) in FORMATS.items() if all(n in rows[0][1] for n in needs)), None)
    if named is None:
        raise RecordError(
            f"no verdicts on pairs that are known here ({', '.join(FORMATS)}).", where=rows[0][0],
            remedy='Give rows with "id" and "winner" ("a", "b" or "tie").',
        )  # fmt: skip
    needs, reader = FORMATS[named]
    out = []
    for where, row in rows:
        lacking = next((name for name in needs if name not in row), None)
        if lacking is not None:
            raise RecordError(f'a row of {named} has a field "{lacking}".', where=where)
        out.append(reader(where, row))
    return named, out


def _key(row: Row, *names: str) -> str:
    if isinstance(row.get("id"), str | int):
        return str(row["id"])
    text = json.dumps([row.get(name) for name in names], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _coded(value: Any, codes: Mapping[Any, float | None], name: str, where: str) -> float | None:
    if isinstance(value, bool) or not isinstance(value, str | int | None) or value not in codes:
        raise RecordError(f'"{name}" is one of {", ".join(map(repr, codes))}, not {value!r}.', where=where)
    return codes[value]


def _own(where: str, row: Row) -> LabelledPair:
    try:
        judgement = Judgement.from_dict(dict(row))
        score = judgement.score
    except (KeyError, TypeError):
        raise RecordError("a game of this judgement has fields that are unknown here.", where=where) from None
    return LabelledPair(where, judgement.id, str(row.get("category", "")), {judgement.judge: score}, judgement)


def _auto_j(where: str, row: Row) -> LabelledPair:
    label = _coded(row["label"], {0: 1.0, 1: 0.0, 2: 0.5, None: None}, "label", where)
    return LabelledPair(where, _key(row, "prompt", "response 1", "response 2"), str(row["scenario"]), {"label": label})


def _panda_lm(where: str, row: Row) -> LabelledPair:
    codes = {1: 1.0, 2: 0.0, 0: 0.5, None: None}
    names = sorted(name for name in row if name.startswith("annotator"))
    labels = {name: _coded(row[name], codes, name, where) for name in names}
    return LabelledPair(where, _key(row, "instruction", "input", "response1", "response2"), str(row["cmp_key"]), labels)


def _llm_bar(where: str, row: Row) -> LabelledPair:
    label = _coded(row["label"], {1: 1.0, 2: 0.0, None: None}, "label", where)
    return LabelledPair(where, _key(row, "input", "output_1", "output_2"), "", {"label": label})


def _judge_bench(where: str, row: Row) -> LabelledPair:
    label = _coded(row["label"], {"A>B": 1.0, "B>A": 0.0, "A=B": 0.5, None: None}, "label", where)
    return LabelledPair(where, str(row["pair_id"]), str(row["source"]).split("-")[0], {"label": label})


def _rmb_pair(where: str, row: Row) -> LabelledPair:
    return LabelledPair(where, str(row["pair_uid"]), str(row.get("category_path", "")), {"label": 1.0})


def _winner(where: str, row: Row) -> LabelledPair:
    codes: dict[Any, float | None] = {"tie": 0.5, "tie (bothbad)": 0.5, "error": None, None: None}
    codes |= dict.fromkeys(("a", "model_a", "model_1", "first", "A"), 1.0)
    codes |= dict.fromkeys(("b", "model_b", "model_2", "second", "B"), 0.0)
    label = _coded(row["winner"], codes, "winner", where)
    key = _key(row, "question_id", "prompt", "model_a", "model_b")
    return LabelledPair(where, key, str(row.get("category", "")), {str(row.get("judge", "winner")): label})


FORMATS: dict[str, tuple[tuple[str, ...], Callable[[str, Row], LabelledPair]]] = {
    "Pluralign": (("id", "judge", "games"), _own),
    "Auto-J": (("scenario", "label", "response 1", "response 2"), _auto_j),
    "PandaLM": (("cmp_key", "response1", "response2", "annotator1"), _panda_lm),
    "LLMBar": (("input", "output_1", "output_2", "label"), _llm_bar),
    "JudgeBench": (("pair_id", "source", "label"), _judge_bench),
    "RMB": (("pair_uid", "chosen", "reject"), _rmb_pair),
    "winners": (("winner",), _winner),
}
