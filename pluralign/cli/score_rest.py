"""`pluralign score mt-bench`, `reward-bench` and `pairs`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import RecordError, SettingsError
from .console import note, print_json, warn
from .score import EPILOG_PAIRS, AsJson, Block, Files, Seed, app, show_blocks

if TYPE_CHECKING:
    from ..judging.published import LabelledPair, PairGame, RatedTurn, RewardScores

__all__ = ["app", "mt_bench", "pairs", "reward_bench"]


# --- MT-Bench -----------------------------------------------------------------------------------------------------


@app.command("mt-bench")
def mt_bench(
    files: list[Path] = Files,
    questions: Path | None = typer.Option(None, help="The question set (question.jsonl): means by category."),
    as_json: bool = AsJson,
) -> None:
    """Scores (single ratings) or win rates (pairs, both orders) of MT-Bench."""
    from ..judging.published import PairGame, RatedTurn, files_of, read_mt_bench, rows_of, text_of

    rows: list[Any] = [row for path in files_of(files, ["*.jsonl", "*.jsonl.gz"]) for row in read_mt_bench(path)]
    kinds = {text_of(row, "question_id", where): str(row.get("category", ""))
             for where, row in (rows_of(questions) if questions else ())}  # fmt: skip
    rated = [row for row in rows if isinstance(row, RatedTurn)]
    fought = [row for row in rows if isinstance(row, PairGame)]
    found = {"single": _single(rated, kinds) if rated else {}, "pairs": _paired(fought) if fought else {}}
    if as_json:
        print_json({"benchmark": "mt-bench", **{
            kind: {name: {k: v.as_dict() for k, v in parts.items()} for name, parts in part.items()}
            for kind, part in found.items()
        }})  # fmt: skip
        return
    blocks = []
    if rated:
        turns = sorted({row.turn for row in rated})
        names = list(dict.fromkeys(kinds.values()))
        table, differences = [], []
        for model, parts in found["single"].items():
            s = parts["score"]
            of_kinds = [s.categories.get(name) for name in names]
            table.append((model, [s.score, *(s.turns.get(t) for t in turns), *of_kinds, s.score.n, s.score.missing]))
            if "difference" in parts:
                differences.append((model, [parts["difference"]]))
        heads = ["score", *(f"turn {t}" for t in turns), *names, "n", "unread"]
        blocks.append(Block("model", heads, table, "means over (question, turn) rows, questions as clusters; 95 %"))
        if differences:
            blocks.append(Block("paired difference", [f"− {table[0][0]}"], differences))
    if fought:
        table = []
        for name, parts in found["pairs"].items():
            p = parts["pairs"]
            seen = [p.position.consistency, p.position.first_preferred] if p.position else [None, None]
            table.append((name, [p.rate.rate, p.rate.wins, p.rate.ties, p.rate.losses, *seen, p.errors]))
            if p.position and p.position.biased:
                warn(f"{name}: the judge prefers a place ({p.position.first_preferred} of the points to the first)")
        heads = ["win rate", "wins", "ties", "losses", "consistent", "first preferred", "unread"]
        blocks.append(Block("pair", heads, table, "of the first named; both orders must agree, else a tie; 95 %"))
    show_blocks(blocks)


def _single(rated: Sequence[RatedTurn], kinds: dict[str, str]) -> dict[str, dict[str, Any]]:
    from ..judging.mt_bench import mt_bench_score
    from ..judging.statistics import paired_difference

    out: dict[str, dict[str, Any]] = {}
    models = list(dict.fromkeys(row.model for row in rated))
    by_place = {m: {(r.question, r.turn, r.judge): r.rating for r in rated if r.model == m} for m in models}
    for model in models:
        rows = [row for row in rated if row.model == model]
        categories = [kinds.get(row.question, "") for row in rows] if kinds else None
        score = mt_bench_score(
            [row.rating for row in rows], [row.question for row in rows], [row.turn for row in rows], categories
        )
        out[model] = {"score": score}
        if model != models[0]:
            places = list(dict.fromkeys([*by_place[model], *by_place[models[0]]]))
            out[model]["difference"] = paired_difference(
                [by_place[model].get(p) for p in places], [by_place[models[0]].get(p) for p in places],
                clusters=[p[0] for p in places],
            )  # fmt: skip
    return out


def _paired(fought: Sequence[PairGame]) -> dict[str, dict[str, Any]]:
    from ..judging.mt_bench import mt_bench_pairs

    out = {}
    for models in dict.fromkeys(row.models for row in fought):
        rows = [row for row in fought if row.models == models]
        pairs = mt_bench_pairs(
            [row.winners[0] for row in rows], [row.winners[1] for row in rows],
            clusters=[row.question for row in rows], ordered=not any(row.rated for row in rows),
        )  # fmt: skip
        out[" : ".join(models)] = {"pairs": pairs}
    return out


# --- RewardBench --------------------------------------------------------------------------------------------------


@app.command("reward-bench")
def reward_bench(files: list[Path] = Files, seed: int = Seed, as_json: bool = AsJson) -> None:
    """Accuracies of RewardBench 1 and 2, or of RMB's pairs and best-of-n lists, from stored scores."""
    from ..judging.published import files_of, read_reward_bench

    found: dict[str, Any] = {}
    blocks = []
    for path in files_of(files, ["*.json", "*.jsonl", "*.jsonl.gz"]):
        if _is_rmb(path):
            parts = _rmb(path)
            found[path.name] = {"benchmark": "rmb", **{k: e.as_dict() for k, e in parts.items()}}
            blocks.append(_block(f"{path.name} (RMB)", parts))
            continue
        scores = read_reward_bench(path)
        result, parts = _reward_bench(scores, seed)
        found[f"{scores.model} ({path.name})"] = {"benchmark": f"reward-bench-{scores.version}", **result.as_dict()}
        blocks.append(_block(f"{scores.model} (v{scores.version})", parts))
    if as_json:
        print_json({"benchmark": "reward-bench", "models": found})
        return
    show_blocks(blocks)


def _block(name: str, parts: dict[str, Any]) -> Block:
    return Block(
        name, ["accuracy", "n", "unscored"], [(part, [e, e.n, e.missing]) for part, e in parts.items()], "95 %"
    )


def _reward_bench(scores: RewardScores, seed: int) -> tuple[Any, dict[str, Any]]:
    from ..judging.reward_bench import reward_bench_1, reward_bench_2

    if scores.version == 1:
        one = reward_bench_1(scores.chosen, scores.rejected, scores.subsets)
        return one, {"overall": one.overall, **one.sections, **{f"  {k}": e for k, e in one.subsets.items()}}
    two = reward_bench_2(scores.scores, scores.subsets, scores.num_correct, scores.ids, seed=seed)
    return two, {"overall": two.overall, **two.subsets}


def _is_rmb(path: Path) -> bool:
    from ..judging.published import rows_of

    try:
        _, row = next(rows_of(path))
    except RecordError:  # an object of columns; whatever else is wrong, the other reader says
        return False
    return "bon_best" in row or ("chosen" in row and "reject" in row)


def _rmb(path: Path) -> dict[str, Any]:
    """The share of lists whose best answer stands above all others, over all and by what the category begins with."""
    from ..judging.groups import by_group
    from ..judging.published import read_rmb
    from ..judging.reward_bench import best_of_all
    from ..judging.statistics import share_interval

    items = read_rmb(path)
    won = [best_of_all(item.best, item.others) for item in items]
    groups = [item.category.strip("/").split("/")[0] for item in items]
    return {"overall": share_interval(won), **{f"  {g}": e for g, e in by_group(won, groups).items() if g}}


# --- pairs --------------------------------------------------------------------------------------------------------


@app.command("pairs", epilog=EPILOG_PAIRS)
def pairs(
    files: list[Path] = Files,
    by: bool = typer.Option(False, "--by-group", help="Also each scenario, category or subset by itself."),
    seed: int = Seed,
    as_json: bool = AsJson,
) -> None:
    """Win rates, order bias and agreement of verdicts on pairs."""
    from ..judging.published import files_of, read_pairs

    read = {path: read_pairs(path) for path in files_of(files, ["*.json", "*.jsonl", "*.jsonl.gz"])}
    found: dict[str, Any] = {}
    blocks = []
    for path, (kind, rows) in read.items():
        parts, tables = _pairs(path.name, kind, rows, by, seed)
        found[str(path)] = parts
        blocks += tables
    between = _between([(path.name, rows) for path, (_, rows) in read.items()], seed) if len(read) > 1 else {}
    if between:
        table = [(name, list(parts.values())) for name, parts in between.items()]
        blocks.append(Block("agreement", ["alike", "kappa"], table, "on the pairs that both speak of; 95 %"))
    if as_json:
        named = {name: {k: e.as_dict() for k, e in parts.items()} for name, parts in between.items()}
        print_json({"benchmark": "pairs", "files": found, "agreement": named})
        return
    show_blocks(blocks)


def _pairs(name: str, kind: str, rows: Sequence[LabelledPair], by: bool, seed: int) -> tuple[Any, list[Block]]:
    from ..judging.agreement import krippendorff_alpha
    from ..judging.groups import by_group
    from ..judging.position import games_by_order, position_report
    from ..judging.win_rates import win_rate

    judges = list(dict.fromkeys(judge for row in rows for judge in row.labels))
    labels = {judge: [row.labels.get(judge) for row in rows] for judge in judges}
    rates = {judge: win_rate(column) for judge, column in labels.items()}
    parts: dict[str, Any] = {"format": kind, "win_rates": {judge: r.as_dict() for judge, r in rates.items()}}
    table = [(judge, [r.rate, r.wins, r.ties, r.losses, r.rate.missing]) for judge, r in rates.items()]
    blocks = [Block(f"{name} ({kind})", ["first better", "wins", "ties", "losses", "unread"], table, "95 %")]
    if len(judges) > 1:
        alpha = krippendorff_alpha(list(labels.values()), seed=seed)
        parts["krippendorff_alpha"] = alpha.as_dict()
        blocks.append(Block(f"{len(judges)} judges", ["Krippendorff's alpha", "n"], [("nominal", [alpha, alpha.n])]))
    judged = [row.judgement for row in rows if row.judgement is not None]
    games = [judgement for judgement in judged if {game.first for game in judgement.games} == {"a", "b"}]
    if games:
        report = position_report(*games_by_order(games))
        parts["position"] = report.as_dict()
        cells = [report.first_preferred, report.consistency, report.always_first, report.always_second]
        heads = ["first preferred", "consistent", "always first", "always second"]
        blocks.append(Block("order", heads, [("all judges", cells)]))
        if report.biased:
            warn(f"{name}: the order of the responses decides ({report.advantage} for the one shown first)")
    if by:
        groups = by_group(labels[judges[0]], [row.group for row in rows])
        parts["groups"] = {group: e.as_dict() for group, e in groups.items()}
        blocks.append(Block(judges[0], ["first better", "n"], [(group, [e, e.n]) for group, e in groups.items()]))
    return parts, blocks


def _between(read: Sequence[tuple[str, Sequence[LabelledPair]]], seed: int) -> dict[str, dict[str, Any]]:
    """Agreement of the first judge of every two files, on the pairs that both have."""
    from ..judging.agreement import agreement, cohen_kappa

    out = {}
    tables = [(name, {row.key: next(iter(row.labels.values())) for row in rows}) for name, rows in read]
    for i, (one, first) in enumerate(tables):
        for other, second in tables[i + 1 :]:
            keys = [key for key in first if key in second]
            if not keys:
                raise SettingsError(f"{one} and {other} have no pair in common.", remedy='Give both the same "id"s.')
            if len(keys) < max(len(first), len(second)):
                note(f"{one} and {other} share {len(keys):,} of {len(first):,} and {len(second):,} pairs")
            a, b = ([side[key] for key in keys] for side in (first, second))
            out[f"{one} : {other}"] = {"alike": agreement(a, b), "kappa": cohen_kappa(a, b, seed=seed)}
    return out
