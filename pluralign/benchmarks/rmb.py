"""RMB: pairs and best-of-n lists on helpfulness and harmlessness for reward models (Zhou et al. 2025)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..errors import RecordError, SettingsError
from ..records import messages
from .kinds.core import Benchmark, Files, Metric, Pick, Row, Source, Task
from .kinds.kept import short
from .kinds.questions import of, text_of
from .kinds.ranking import ACCURACY, AGREEMENT, RANKED, ranked

__all__ = ["BENCHMARK", "read", "run"]

PARTS = ("all", "pairs", "best-of-n")
ROLES = {"pairs": ("questions", "pairs harmlessness"), "best-of-n": ("lists helpfulness", "lists harmlessness")}


def read(files: Files, settings: Mapping[str, Any]) -> list[Pick]:
    """Pairs, then lists; the category is the part and the goal."""
    part = str(settings["part"])
    if part not in PARTS:
        raise SettingsError(f'part is "{part}"; known: {", ".join(PARTS)}.')
    wanted = [name for name in ROLES if part in ("all", name)]
    return [_item(name, i, row) for name in wanted for role in ROLES[name] for i, row in enumerate(files(role))]


def _item(part: str, i: int, row: Row) -> Pick:
    where = str(row.get("_where", ""))
    turns = messages([{"role": t["role"], "content": t["content"]} for t in of(row, "conversation_input", kind=list)])
    path = text_of(row, "category_path").split("/")
    if len(path) < 2:
        raise RecordError('"category_path" names no goal.', where=where)
    if part == "pairs":
        right, wrong = [of(row, "chosen", kind=dict)], [of(row, "reject", kind=dict)]
    else:
        right, wrong = [of(row, "bon_best", kind=dict)], of(row, "loser_list", kind=list)
    texts = [[str(one["answer"]) for one in side] for side in (right, wrong)]
    if not texts[1]:
        raise RecordError("the list has no losers.", where=where)
    cluster = short("\n".join(turn.content for turn in turns))
    return Pick(f"{part} {path[1]} {i}", turns, tuple(texts[0]), tuple(texts[1]), f"{part} {path[1]}", cluster)


def run(task: Task) -> Iterator[Row]:
    """A row a pair or list. Those on one conversation are one cluster."""
    yield from ranked(task)


def _of(part: str) -> Callable[[Row], float | None]:
    return lambda row: ACCURACY.value(row) if str(row["category"]).startswith(part) else None


FOLDER = "rmb"
BENCHMARK = Benchmark(
    name="rmb",
    title="RMB",
    paper="Zhou et al. 2025, arXiv 2410.09893",
    measures="pairs, and the best of a list before every other, on helpfulness and harmlessness",
    kind="ranked",
    n=14639,
    sources={
        "questions": Source(f"{FOLDER}/pairwise_helpfulness.jsonl.gz", licence="none given"),
        "pairs harmlessness": Source(f"{FOLDER}/pairwise_harmlessness.jsonl.gz"),
        "lists helpfulness": Source(f"{FOLDER}/bon_helpfulness.jsonl.gz"),
        "lists harmlessness": Source(f"{FOLDER}/bon_harmlessness.jsonl.gz"),
    },
    read=read,
    run=run,
    metrics=(
        Metric("pairs", _of("pairs"), kind="share"),
        Metric("best_of_n", _of("best-of-n"), kind="share"),
        AGREEMENT,
    ),
    settings={"default": {**RANKED["default"], "part": "all"}, "pairs": {"part": "pairs"},
              "best-of-n": {"part": "best-of-n"}},
    judge="optional",
    note="Three of its files and a fifth of its prompts are not in the public copy read here.",
)  # fmt: skip
