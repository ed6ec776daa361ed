"""`pluralign score`: stored verdicts of public benchmarks, scored again by the published statistics, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import SettingsError
from .console import console, note, print_json, warn

if TYPE_CHECKING:
    from rich.table import Table

    from ..judging.arena_hard import ArenaGame
    from ..judging.length_controlled import Gamed, LengthControlled
    from ..judging.published_alpaca_eval import Annotations

__all__ = ["Block", "app", "show_blocks"]

EPILOG_ALPACA = """\b
Examples:
  pluralign score alpaca-eval results/my-model/annotations.json
  pluralign score alpaca-eval a.json b.json --gamed df_gamed.csv --instructions alpaca_eval.json
  pluralign score alpaca-eval annotations.json --official             the files of the regulariser from the hub

\b Rates are shares: published tables show them times 100. Without --difficulty or --gamed the fit is the published
variant without these terms. The interval includes the uncertainty of the fit, which the published one leaves out (its
own is shown beside it). Without --instructions, difficulties belong to rows by their place, as in alpaca_eval.
"""
EPILOG_ARENA = """\b
Examples:
  pluralign score arena-hard model_judgment/gpt-4.1/*.jsonl --category hard_prompt
  pluralign score arena-hard judged.jsonl --answers model_answer/mine.jsonl --answers model_answer/baseline.jsonl \\
      --control length --control markdown

\b published: the leaderboard's own value and interval (v2: 90 %, v0.1: 95 %), seeded. Style control as published is
centred over the models in the files; --no-centre compares with the baseline at equal style.
"""
EPILOG_PAIRS = """\b
Formats: Pluralign's judgements, Auto-J, PandaLM, LLMBar, JudgeBench, RMB, rows with a "winner".
One file gives how often the first response won, by group, and what labels of several people agree on; two files or
more are held against each other, pair by pair.
"""

app = typer.Typer(
    help="Score stored verdicts again: AlpacaEval 2, Arena-Hard, MT-Bench, RewardBench, pairs.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Files = typer.Argument(..., metavar="FILE...", help="Verdicts (JSON, JSON lines, gzipped or not), or folders of them.")
AsJson = typer.Option(False, "--json", help="As JSON on stdout.")
Seed = typer.Option(0, min=0, help="Of every bootstrap.")


@app.callback()
def score() -> None:
    """Published verdicts, scored again; every number with its interval."""


@dataclass(frozen=True)
class Block:
    """A table: `first` heads the names of the rows, `heads` the columns, `says` stands below."""

    first: str
    heads: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Any]]]
    says: str = ""


def show_blocks(blocks: Sequence[Block]) -> None:
    """Tables of estimates, one below the other; one that is too wide is turned round where that fits, and never cut."""
    from rich.text import Text

    out = console()
    for i, block in enumerate(blocks):
        if i:
            out.print()
        across, width = _table(block.first, block.heads, block.rows)
        if width > out.width and len(block.rows) < len(block.heads):
            turned = [(head, [values[k] for _, values in block.rows]) for k, head in enumerate(block.heads)]
            across, width = _table(block.first, [name for name, _ in block.rows], turned)
        wide = console()
        wide.width = max(width, out.width)
        wide.print(across)
        if block.says:
            out.print(Text(block.says, style="dim"))


def _table(first: str, heads: Sequence[str], rows: Sequence[tuple[str, Sequence[Any]]]) -> tuple[Table, int]:
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column(Text(first), no_wrap=True)
    for head in heads:
        table.add_column(Text(head), justify="right", no_wrap=True)
    for name, values in rows:
        table.add_row(Text(name, style="bold"), *(Text(_cell(value)) for value in values))
    out = console()
    return table, Measurement.get(out, out.options.update(max_width=10_000), table).maximum


def _cell(value: Any) -> str:
    from ..judging.statistics import Estimate, format_p

    if isinstance(value, Estimate):
        p = f" (p {format_p(value.p_value)})" if value.p_value is not None else ""
        return value.short() + p
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


# --- AlpacaEval ---------------------------------------------------------------------------------------------------


@app.command("alpaca-eval", epilog=EPILOG_ALPACA)
def alpaca_eval(
    files: list[Path] = Files,
    difficulty: Path | None = typer.Option(None, help="CSV of difficulties in the order of the question set."),
    gamed: Path | None = typer.Option(None, help="CSV of gamed rows (df_gamed.csv); holds the difficulties too."),
    instructions: Path | None = typer.Option(None, help="The question set in official order: matches by instruction."),
    official: bool = typer.Option(False, "--official", help="Difficulties and gamed rows from the hub."),
    variant: str | None = typer.Option(None, help="length_controlled_v1, _noreg or _minimal; by default the fullest."),
    resamples: int = typer.Option(200, min=0, help="Refits behind the interval of the controlled rate."),
    seed: int = Seed,
    as_json: bool = AsJson,
) -> None:
    """Win rate and length-controlled win rate of AlpacaEval 2."""
    from ..judging.published import files_of
    from ..judging.published_alpaca_eval import (
        match_instructions,
        read_annotations,
        read_difficulty,
        read_gamed,
        read_instructions,
    )

    if official:
        from ..judging.published_alpaca_eval import official_files

        difficulty, gamed = official_files()
    held, hard = read_gamed(gamed) if gamed else (None, None)
    hard = read_difficulty(difficulty) if difficulty else hard
    order = read_instructions(instructions) if instructions else None
    models = [found for path in files_of(files, ["annotations.json"]) for found in read_annotations(path)]
    places = [match_instructions(m.instructions, order, m.path) if order else list(range(len(m.wins))) for m in models]
    fits = [_controlled(m, p, hard, held, variant, resamples, seed) for m, p in zip(models, places, strict=True)]
    if hard is not None and order is None:
        note("difficulties were given to rows by their place, as alpaca_eval does (--instructions matches them)")
    for found, fit in zip(models, fits, strict=True):
        if fit.extreme:
            warn(f"{found.model}: length control moves the rate so far that the fit may have failed")
    differences = _differences(models, fits, places, hard)
    if as_json:
        rows = [{"model": m.model, "baseline": m.baseline, "file": m.path, **f.as_dict()}
                for m, f in zip(models, fits, strict=True)]  # fmt: skip
        print_json({"benchmark": "alpaca-eval", "rows": rows, "differences": _as_dicts(differences)})
        return
    heads = ["win rate", "length-controlled", "as published", "length", "n", "unread"]
    table = [(m.model, [f.raw, f.rate, f.published, f"{f.coefficients['length']:+.2f}", f.raw.n, f.raw.missing])
             for m, f in zip(models, fits, strict=True)]  # fmt: skip
    says = f"shares against {', '.join(dict.fromkeys(m.baseline for m in models))}; {fits[0].variant}; 95 % intervals"
    blocks = [Block("model", heads, table, says)]
    if differences:
        head = f"win rate against {models[0].model}: raw difference, and length-controlled rate between the two"
        blocks.append(Block("", ["raw", "controlled"], [(n, list(d.values())) for n, d in differences.items()], head))
    show_blocks(blocks)


def _controlled(
    found: Annotations,
    places: list[int],
    hard: Any,
    gamed: Gamed | None,
    variant: str | None,
    resamples: int,
    seed: int,
) -> LengthControlled:
    from ..judging.length_controlled import length_controlled_win_rate

    if hard is not None and max(places) >= len(hard):
        raise SettingsError(f"{found.path}: row {max(places)} has no difficulty among {len(hard)}.")
    return length_controlled_win_rate(
        found.wins, found.baseline_lengths, found.model_lengths,
        difficulty=None if hard is None else hard[places], gamed=gamed, variant=variant,  # type: ignore[arg-type]
        order=places, is_baseline=found.is_baseline, resamples=resamples, seed=seed,
    )  # fmt: skip


def _differences(
    models: Sequence[Annotations], fits: Sequence[LengthControlled], places: Sequence[list[int]], hard: Any
) -> dict[str, dict[str, Any]]:
    """Every further model against the first: paired raw difference, and the controlled rate between the two."""
    from ..judging.length_controlled import length_controlled_between
    from ..judging.win_rates import compare_win_rates

    wins: list[dict[Any, float | None]] = [dict(zip(m.instructions, m.wins, strict=True)) for m in models]
    out = {}
    for i in range(1, len(models)):
        if models[i].baseline != models[0].baseline:
            continue
        same = wins[i].keys() == wins[0].keys()
        rows = None if hard is None or fits[i].variant == "length_controlled_minimal" else hard[places[i]]
        out[f"{models[i].model} − {models[0].model}"] = {
            "raw": compare_win_rates(wins[i], wins[0]),
            "controlled": length_controlled_between(fits[i], fits[0], rows) if same else None,
        }
    return out


def _as_dicts(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {name: {k: None if e is None else e.as_dict() for k, e in row.items()} for name, row in rows.items()}


# --- Arena-Hard ---------------------------------------------------------------------------------------------------


@app.command("arena-hard", epilog=EPILOG_ARENA)
def arena_hard(
    files: list[Path] = Files,
    version: str | None = typer.Option(None, help="v0.1 or v2; by default what the rows look like."),
    category: list[str] = typer.Option([], help="Only these categories, each scored by itself; repeatable."),
    answers: list[Path] = typer.Option([], help="Answers of models and baseline, for style control; repeatable."),
    control: list[str] = typer.Option([], help="length, markdown: control style (needs --answers); repeatable."),
    centre: bool = typer.Option(True, help="Centre style over all models, as published."),
    resamples: int = typer.Option(100, min=1, help="Of every bootstrap (published: 100)."),
    seed: int = Seed,
    as_json: bool = AsJson,
) -> None:
    """Scores of Arena-Hard v0.1 and v2, plain and with style control."""
    from ..judging.arena_hard import arena_hard as plain
    from ..judging.published import files_of
    from ..judging.published_arena_hard import read_arena_answers, read_arena_judgments, version_of

    games = [game for path in files_of(files, ["*.jsonl", "*.jsonl.gz"]) for game in read_arena_judgments(path)]
    kinds = list(dict.fromkeys(game.category for game in games))
    for wanted in category:
        if wanted not in kinds:
            from ..errors import nearest

            raise SettingsError(f'no judgments of category "{wanted}".{nearest(wanted, kinds)}')
    if control and not answers:
        raise SettingsError("style control needs the answers of models and baseline (--answers).")
    styles = {key: style for path in answers for key, style in read_arena_answers(path).items()}
    kind = version or version_of(games)
    found: dict[str, Any] = {}
    blocks = []
    for wanted in category or kinds:
        rows = [game for game in games if game.category == wanted]  # of all judgments, whatever was scored before
        scores = plain(rows, kind, resamples=resamples, seed=seed)  # type: ignore[arg-type]
        style = _style(rows, styles, control, kind, centre, resamples, seed) if control else None
        found[wanted] = {"scores": [s.as_dict() for s in scores], "style": style.as_dict() if style else None}
        heads = ["score", "as published", "prompts", "unread"]
        heads += ["style-controlled", "as published"] if style else []
        table = []
        for s in scores:
            extra = [style.converged.scores[s.model], style.published.scores[s.model]] if style else []
            unread = s.unread_rows if kind == "v2" else s.unread_games
            table.append((s.model, [s.score, s.published, s.prompts, unread, *extra]))
        says = f"{wanted or 'all'} ({kind}), against {scores[0].baseline or 'its baseline'}; shares"
        blocks.append(Block("model", heads, table, says))
    if as_json:
        print_json({"benchmark": "arena-hard", "version": kind, "categories": found})
        return
    show_blocks(blocks)


def _style(
    rows: Sequence[ArenaGame], styles: Mapping[tuple[str, str], Any], control: Sequence[str], version: str,
    centre: bool, resamples: int, seed: int,
) -> Any:  # fmt: skip
    from ..judging.arena_hard import BASELINES, row_entries
    from ..judging.arena_hard_style import style_controlled, style_features

    baseline = rows[0].baseline or BASELINES.get(rows[0].category, "")
    entries = row_entries(rows, version)  # type: ignore[arg-type]
    owners = [rows[i] for i in entries.places.tolist()]
    for game in owners:
        for name in (game.model, baseline):
            if (name, game.uid) not in styles:
                raise SettingsError(f'no answer of "{name}" to {game.uid}: style control needs all of them.')
    own = [styles[game.model, game.uid] for game in owners]
    theirs = [styles[baseline, game.uid] for game in owners]
    return style_controlled(
        [game.model for game in owners], entries.scores, style_features(own, theirs, version),  # type: ignore[arg-type]
        baseline=baseline, controls=control, version=version, centre=centre,  # type: ignore[arg-type]
        prompts=[game.uid for game in owners], resamples=resamples, seed=seed,
    )  # fmt: skip
