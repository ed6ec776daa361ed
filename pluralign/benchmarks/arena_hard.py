"""Arena-Hard-Auto v0.1: 500 hard prompts, held against gpt-4-0314 by a judge (Li et al. 2024)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import SettingsError
from .kinds.answering import GENERATION
from .kinds.core import Benchmark, Files, Open, Row, Source, Task
from .kinds.evaluation import no_value
from .kinds.questions import text_of
from .kinds.systems import saved_answers
from .kinds.versus import AGREED, WON, compared

if TYPE_CHECKING:
    from ..judging.arena_hard import ArenaGame, Version
    from ..judging.statistics import Estimate

__all__ = ["BENCHMARK", "extra", "length_in_words", "read", "run", "scores"]

WORD = re.compile(r"\w+|[^\w\s]")


def read(files: Files, settings: Mapping[str, Any]) -> list[Open]:
    """The prompts with the baseline's answers, where these are at hand."""
    items = [
        Open(text_of(row, "uid", "question_id"), (text_of(row, "prompt"),), str(row.get("category", "")))
        for row in files("questions")
    ]
    if not files.has("answers"):
        return items
    saved = saved_answers("answers", files("answers"))
    return [Open(item.id, item.turns, item.category, other=saved.find(item) or ()) for item in items]


def run(task: Task) -> Iterator[Row]:
    """A row a prompt, with the style of both answers: length, headers, lists, bold text."""
    from dataclasses import astuple

    from ..judging.arena_hard_style import markdown_counts

    def styles(a: str, b: str) -> Row:
        return {"style": [list(astuple(markdown_counts(text, length_in_words(text)))) for text in (a, b)]}

    yield from compared(task, more=styles)


def length_in_words(text: str) -> int:
    """Runs of letters or digits, and every other character that is no blank: a length that needs no tokenizer, the
    same for every system. The published code counts one company's tokens."""
    return len(WORD.findall(text))


def extra(rows: Sequence[Row], settings: Mapping[str, Any]) -> dict[str, Estimate]:
    """`score`: the published mean of both games, strong verdicts counted three times; `style_controlled`: the converged
    fit at equal style."""
    return scores(rows, "v0.1")


def scores(rows: Sequence[Row], version: Version) -> dict[str, Estimate]:
    """`extra` of either version."""
    import numpy as np

    from ..judging.arena_hard import arena_hard, row_entries
    from ..judging.arena_hard_style import Style, style_controlled, style_features

    judged = [row for row in rows if row.get("games") and row.get("style")]
    games = [_game(row) for row in judged]
    entries = row_entries(games, version)
    if not len(entries.scores):
        why = no_value("no game was read", len(rows))
        return {"score": why, "style_controlled": why}
    out = {"score": arena_hard(games, version)[0].score}
    own, other = ([Style(*row["style"][side]) for row in judged] for side in (0, 1))
    features = style_features(own, other, version)[entries.places]
    try:
        fit = style_controlled(
            [SYSTEM] * len(entries.scores),
            entries.scores,
            features,
            baseline=BASELINE,
            version=version,
            centre=False,  # against one baseline alone, centred features control for nothing
            prompts=entries.places.tolist(),
            resamples=RESAMPLES,
        )
        out["style_controlled"] = fit.converged.scores[SYSTEM]
    except (SettingsError, np.linalg.LinAlgError) as error:
        out["style_controlled"] = no_value(str(error), len(rows))
    return out


SYSTEM, BASELINE = "system", "baseline"
RESAMPLES = 100  # as published


def _game(row: Row) -> ArenaGame:
    """The labels of both games. A judge that sees no order has one game, which then stands for both."""
    from ..judging.arena_hard import ArenaGame

    by_first = {game["first"]: game for game in row["games"]}
    label = {}
    for first in ("a", "b"):
        game = by_first.get(first) or row["games"][0]
        label[first] = _label(game, "A" if first == "a" else "B")
    return ArenaGame(row["id"], SYSTEM, (label["b"], label["a"]), str(row.get("category") or ""), BASELINE)


def _label(game: Mapping[str, Any], place: str) -> str | None:
    """What a verdict on the system's answer says where that is shown at `place`."""
    if game["outcome"] is None:
        return None
    if game["outcome"] == "tie":
        return "A=B"
    sign = ">>" if game["weight"] > 1 else ">"
    won = place if game["outcome"] == "win" else "AB".replace(place, "")
    return f"{won}{sign}{'AB'.replace(won, '')}"


BENCHMARK = Benchmark(
    name="arena-hard",
    title="Arena-Hard v0.1",
    paper="Li et al. 2024, arXiv 2406.11939",
    measures="win rate over gpt-4-0314 on hard prompts",
    kind="compared",
    n=500,
    sources={
        "questions": Source("benchmark_questions/arena_hard_v0.1_question.jsonl.gz", licence="Apache-2.0"),
        "answers": Source("benchmark_questions/arena_hard_v0.1_answer_gpt-4-0314.jsonl.gz", licence="Apache-2.0"),
    },
    read=read,
    run=run,
    metrics=(WON, AGREED),
    extra=extra,
    settings=GENERATION,
    judge="pairwise",
    styles={"": "arena-hard"},
    note="win rate: both orders have to agree; score: the published one. Length is counted in words and signs.",
)
