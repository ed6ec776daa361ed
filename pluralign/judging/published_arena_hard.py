"""Arena-Hard's files: judgments in the forms of v0.1 and v2, and answers with the counts that style control needs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import RecordError
from .arena_hard import LABELS, ArenaGame, Version
from .arena_hard_style import Style, markdown_counts
from .published import rows_of, text_of

__all__ = ["read_arena_answers", "read_arena_judgments", "version_of"]


def read_arena_judgments(path: Path) -> list[ArenaGame]:
    """Rows of `model_judgment/JUDGE/MODEL.jsonl`. A game that is null, or whose score is, was not read; a row with one
    game lacks the other. Raises RecordError for a row that is no judgment and a score that is no verdict."""
    return [_game(where, row) for where, row in rows_of(path)]


def _game(where: str, row: Mapping[str, Any]) -> ArenaGame:
    games = row.get("games")
    if not isinstance(games, list) or not 1 <= len(games) <= 2:
        raise RecordError('a judgment of Arena-Hard has two "games".', where=where)
    labels = [_label(game, where) for game in games] + [None]
    uid = text_of(row, "uid" if "uid" in row else "question_id", where)
    old = "uid" not in row and "category" not in row
    return ArenaGame(
        uid=uid,
        model=text_of(row, "model", where).split("/")[-1],
        games=(labels[0], labels[1]),
        category="arena-hard-v0.1" if old else str(row.get("category", "")),
        baseline=str(row.get("baseline", "")),
        judge=str(row.get("judge", "")),
    )


def _label(game: Any, where: str) -> str | None:
    if game is None:
        return None
    if not isinstance(game, dict) or "score" not in game:
        raise RecordError('a game has a "score".', where=where)
    label = game["score"]
    if label is not None and label not in LABELS:
        raise RecordError(f'"{label}" is no verdict ({", ".join(LABELS)}).', where=where)
    return None if label is None else str(label)


def version_of(games: list[ArenaGame]) -> Version:
    """v0.1 where the rows say so themselves, else v2. Raises RecordError for rows of both."""
    old = {game.category == "arena-hard-v0.1" for game in games}
    if len(old) > 1:
        raise RecordError("judgments of v0.1 and v2 in one.", remedy="Score them apart.")
    return "v0.1" if old == {True} else "v2"


def read_arena_answers(path: Path) -> dict[tuple[str, str], Style]:
    """{(model, uid): counts} of `model_answer/MODEL.jsonl`: the stored ones where there are some ("metadata" or
    "conv_metadata"), else counted here, with words for tokens: do not mix both kinds. Raises RecordError for other
    rows."""
    out = {}
    for where, row in rows_of(path):
        model = text_of(row, "model" if "model" in row else "model_id", where).split("/")[-1]
        stored = row.get("metadata") or row.get("conv_metadata")
        style = _stored(stored, where) if isinstance(stored, dict) else _counted(row, where)
        out[model, text_of(row, "uid" if "uid" in row else "question_id", where)] = style
    return out


def _stored(metadata: Mapping[str, Any], where: str) -> Style:
    def count(name: str) -> float:
        value = metadata.get(name)
        if isinstance(value, dict):
            return float(sum(value.values()))
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise RecordError(f'the metadata of an answer have a count "{name}".', where=where)
        return float(value)

    return Style(*(count(name) for name in ("token_len", "header_count", "list_count", "bold_count")))


def _counted(row: Mapping[str, Any], where: str) -> Style:
    text: Any = None
    messages, choices = row.get("messages"), row.get("choices")
    if isinstance(messages, list) and messages and isinstance(messages[-1], dict):
        text = messages[-1].get("content")
    elif isinstance(choices, list) and choices and isinstance(choices[0], dict) and choices[0].get("turns"):
        text = choices[0]["turns"][0]
        text = text.get("content") if isinstance(text, dict) else text
    if isinstance(text, dict):
        text = text.get("answer")
    if not isinstance(text, str):
        raise RecordError("no answer of Arena-Hard.", where=where)
    return markdown_counts(text, float(len(text.split())))
