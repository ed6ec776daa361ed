"""Given responses, of which some are better: does a policy, a reward model or a judge prefer those?

A policy's score of a response is its log-prob per token, or against a reference the log-ratio of the whole (the
implicit reward of DPO, up to beta). A judge compares the better response (`a`) with every worse one (`b`).

A row holds the verdict on every pair of a right and a wrong response: `pairs` (R x W of 1, 0, or 0.5 for a tie; None:
not read), and the `scores` of all responses, right ones first, where there are any.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from ...errors import RenderError, SettingsError
from ...records import Message
from .core import Metric, Pick, Row, Task
from .kept import digest_of, keep
from .ratings import ratings
from .versus import judgements

__all__ = ["ACCURACY", "AGREEMENT", "BEST", "JUDGE", "ONE_ORDER", "RANKED", "SCORES", "TIES", "ranked"]

JUDGE = "judge"  # as a system's model: it is the judge that is measured
SCORES = ("auto", "per_token", "sum", "ratio")
RANKED: dict[str, dict[str, Any]] = {"default": {"score": "auto"}}


def ranked(task: Task) -> Iterator[Row]:
    """A row for each item, by the task's judge if its system is a judge, else by its policy's log-probs."""
    if task.judge is not None and task.system.model == JUDGE:
        yield from _judged(task)
    else:
        yield from _scored(task)


def _row(task: Task, item: Pick) -> Row:
    return {"system": task.system.name, "id": item.id, "category": item.category, "cluster": item.cluster}


# By log-probs


def _scored(task: Task) -> Iterator[Row]:
    how = str(task.settings["score"])
    if how not in SCORES:
        raise SettingsError(f'score is "{how}"; known: {", ".join(SCORES)}.')
    if how == "auto":
        how = "ratio" if task.reference is not None else "per_token"
    if how == "ratio" and task.reference is None:
        raise SettingsError("score=ratio needs a reference.", remedy="Name one: --reference MODEL.")
    from ...judging.answers import policy_key

    own = [task.system.key, how, policy_key(task.reference) if how == "ratio" else ""]
    keys = [digest_of([own, [m.as_dict() for m in item.prompt], item.right, item.wrong]) for item in task.items]
    kept = keep(
        task.path("readings.jsonl"),
        keys,
        lambda part: _read(task, [task.items[i] for i in part], how),
        progress=task.count("prompts"),
    )
    for item, found in zip(task.items, kept, strict=True):
        if "failed" in found:
            yield {**_row(task, item), "failed": found["failed"]}
            continue
        right, wrong = found["scores"][: len(item.right)], found["scores"][len(item.right) :]
        pairs = [[_side(r, w) for w in wrong] for r in right]
        yield {**_row(task, item), "pairs": pairs, "scores": found["scores"]}


def _read(task: Task, items: Sequence[Pick], how: str) -> list[dict[str, Any]]:
    """{"scores": one a response} for each item, or {"failed": why}."""
    own = _readings(task.system.policy, items)
    other = _readings(task.reference, items) if how == "ratio" else own
    out: list[dict[str, Any]] = []
    for mine, against in zip(own, other, strict=True):
        if isinstance(mine, str) or isinstance(against, str):
            out.append({"failed": mine if isinstance(mine, str) else str(against)})
        elif how == "ratio":
            out.append({"scores": [a[0] - b[0] for a, b in zip(mine, against, strict=True)]})
        else:
            out.append({"scores": [total / max(tokens, 1) if how == "per_token" else total for total, tokens in mine]})
    return out


def _readings(policy: Any, items: Sequence[Pick]) -> list[list[tuple[float, int]] | str]:
    """(nats, tokens) of every response of every item, or why it cannot be rendered."""
    from ...scoring.layout import Scored
    from ...terms import Term

    rows = []
    for item in items:
        texts = (*item.right, *item.wrong)
        rows.append(([Term(str(i), (item.prompt,), (Message("assistant", text),)) for i, text in enumerate(texts)],
                     (), item.id))  # fmt: skip
    rendered = policy.renderer.try_batch(rows)
    flat: list[Any] = []
    groups: list[list[int]] = []
    for found in rendered:
        if not isinstance(found, RenderError):
            groups.append(list(range(len(flat), len(flat) + len(found))))
            flat += [Scored(one.context, one.target, one.scored) for one in found]
    readings = policy.score(flat, groups=groups) if flat else []
    at = iter(groups)
    return [
        found.reason if isinstance(found, RenderError)
        else [(float(readings[i].sum[0]), int(readings[i].length[0])) for i in next(at)]
        for found in rendered
    ]  # fmt: skip


# By a judge

SIDE = {"win": 1.0, "tie": 0.5, "loss": 0.0}  # both orders have to agree; where they do not it is a tie


def _judged(task: Task) -> Iterator[Row]:
    """A judge that scores each response by itself is asked for the scores; any other compares every pair."""
    from ...judging.scored import ScoreJudge

    yield from _rated(task) if isinstance(task.judge, ScoreJudge) else _compared(task)


def _rated(task: Task) -> Iterator[Row]:
    from ...judging.verdicts import Subject

    asked = [
        Subject(item.id, item.prompt, text, item.category)
        for item in task.items for text in (*item.right, *item.wrong)
    ]  # fmt: skip
    found = iter(ratings(task, asked))
    tolerance = task.judge.tolerance
    for item in task.items:
        own = [next(found) for _ in (*item.right, *item.wrong)]
        scores = [one.score for one in own]
        if any(score is None for score in scores):
            yield {**_row(task, item), "failed": next(one.reason for one in own if one.score is None) or "no score"}
            continue
        right, wrong = scores[: len(item.right)], scores[len(item.right) :]
        yield {**_row(task, item), "pairs": [[_side(r, w, tolerance) for w in wrong] for r in right], "scores": scores}


def _side(right: Any, wrong: Any, tolerance: float = 0.0) -> float:
    """1 where the right response scores higher, 0.5 for a tie, else 0."""
    return 0.5 if abs(right - wrong) <= tolerance else float(right > wrong)


def _compared(task: Task) -> Iterator[Row]:
    from ...judging.verdicts import Comparison

    asked = [
        Comparison(item.id, item.prompt, right, wrong, item.category)
        for item in task.items for right in item.right for wrong in item.wrong
    ]  # fmt: skip
    found = iter(judgements(task, asked))
    for item in task.items:
        own = [[next(found) for _ in item.wrong] for _ in item.right]
        flat = [one for line in own for one in line]
        games = [[asdict(game) for game in one.games] for one in flat]
        pairs = [[None if one.outcome is None else SIDE[one.outcome] for one in line] for line in own]
        yield {**_row(task, item), "pairs": pairs, "games": games, "consistent": _all(flat)}


def _all(judgements: Sequence[Any]) -> bool | None:
    seen = [one.consistent for one in judgements]
    return None if any(one is None for one in seen) or not seen else all(seen)


# Figures


def _pairs(row: Row) -> list[float] | None:
    found = [value for line in row.get("pairs") or () for value in line]
    return None if not found or any(value is None for value in found) else found


def _best(row: Row) -> float | None:
    """1 where every right response beats every wrong one; a tie is none."""
    pairs = _pairs(row)
    return None if pairs is None else float(all(value > 0.5 for value in pairs))


def _ties(row: Row) -> float | None:
    pairs = _pairs(row)
    return None if pairs is None else float(any(value == 0.5 for value in pairs))


def _one_order(row: Row) -> float | None:
    """The mean over games, each judged by itself: a tie is wrong, a game that was not read is none."""
    games = [game for one in row.get("games") or () for game in one]
    if not games or any(game["outcome"] is None for game in games):
        return None
    return sum(game["outcome"] == "win" for game in games) / len(games)


def _agreement(row: Row) -> float | None:
    value = row.get("consistent")
    return None if value is None else float(value)


ACCURACY = Metric("accuracy", _best, kind="share")
BEST = Metric("best_of_n", _best, kind="share")
TIES = Metric("ties", _ties, kind="share")
ONE_ORDER = Metric("accuracy_by_game", _one_order)
AGREEMENT = Metric("consistent", _agreement, kind="share")
