"""`pluralign evaluate attributes`: answers on held-out prompts, scored by judges, held against reference responses."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import RecordError, SettingsError
from .console import Stopped, console, print_json, quiet_libraries, warn
from .judges import Counting, Judge, JudgeModel, Layout, Measure, Rubric, Scorers, judges

if TYPE_CHECKING:
    from ..judging.asking import HeldOut, Steered
    from ..judging.steered import AttributeEvaluation

__all__ = ["EPILOG", "attributes", "show_table"]

EPILOG = """\b
Examples:
  pluralign evaluate attributes runs/sga --judge runs/judge --data heldout.jsonl --output judged
  pluralign evaluate attributes sga=runs/sga sft=runs/sft other=answers.jsonl --judge runs/judge --data heldout.jsonl
  pluralign evaluate attributes runs/sga --judge runs/judge --data heldout.jsonl --fixed 0.25,0.5,1 --ground-truth
  pluralign evaluate attributes runs/ric --measure words --data heldout.jsonl --steer words --grid=-1,0,1

\b
Win rates are against the reference responses (chosen, the best of a ranking, or a demonstration's own); macro is the
mean over attributes, and differences are paired, against the first row. Requested scores are on the scale that prompts
show. A policy that senses scores is also held against the constant predictor where the data have scores. A file of
answers (.jsonl, as `pluralign generate` writes) is judged like a policy. With --output answers.jsonl is written as it
comes: the same command goes on where it was stopped. Do not judge by a model that the policy was chosen or trained by.
"""


def attributes(
    models: list[str] = typer.Argument(
        ..., metavar="RUN...", help="Policies (run folder, hub model) or answers (.jsonl); NAME=RUN names one."
    ),
    data: str = typer.Option(..., help="Held-out data with reference responses: file, folder or hub data set."),
    judge: list[str] | None = Judge,
    scorer: list[str] | None = Scorers,
    scorer_layout: str = Layout,
    measure: str | None = Measure,
    rubric: list[str] | None = Rubric,
    judge_model: str | None = JudgeModel,
    given: list[str] = typer.Option([], "--attributes", metavar="NAME=SCORE", help="Steer by these; sense the others."),
    fixed: str | None = typer.Option(None, help="Also ask for these scores on every attribute, as in 0.25,0.5,1."),
    ground_truth: bool = typer.Option(False, "--ground-truth", help="Also ask for the reference responses' scores."),
    steer: list[str] | None = typer.Option(
        None, metavar="ATTRIBUTE", help="Ask for a grid of scores on it: are they obeyed? Repeatable."
    ),
    grid: str | None = typer.Option(None, help="The scores of --steer (0,0.25,0.5,0.75,1)."),
    by: str | None = typer.Option(None, help="Which score picks the reference (`mean`: the highest mean, SGA's B.2)."),
    split: str | None = typer.Option(None, help="Split of a hub data set or a folder."),
    limit: int | None = typer.Option(None, min=1, help="At most so many prompts."),
    output: Path | None = typer.Option(None, help="Folder for attributes.json, answers.jsonl and a page with figures."),
    tie: float = typer.Option(0.0, min=0.0, help="Scores that differ by no more are a tie, half a win."),
    max_new_tokens: int = typer.Option(256, "--max-new-tokens", min=1, help="Longest answer (SGA: 1024)."),
    temperature: float = typer.Option(0.6, min=0.0, help="0 takes the likeliest token."),
    top_p: float = typer.Option(0.9, help="Draw from the likeliest tokens that hold this much probability."),
    seed: int = typer.Option(0, min=0, help="Of answers and intervals."),
    batch_size: int = typer.Option(16, min=1, help="Answers written together."),
    trust_remote_code: bool = typer.Option(False, "--trust-remote-code", help="Run code that comes with a model."),
    as_json: bool = typer.Option(False, "--json", help="The evaluation as JSON on stdout."),
) -> None:
    """Win rates by attribute, errors of sensed scores, and whether scores that are asked for are obeyed."""
    from .evaluate import by_name
    from .talk import scores_given

    named = by_name(models)
    asked = {"given": scores_given(given), "fixed": _numbers(fixed, "--fixed"), "ground_truth": ground_truth}
    steering = {"steer": list(dict.fromkeys(steer or [])), "grid": _numbers(grid, "--grid")}
    if steering["grid"] and not steering["steer"]:
        raise SettingsError("--grid belongs to --steer ATTRIBUTE.")
    held = _held(data, split, by, limit)
    quiet_libraries()
    from ..judging.asking import Drawn, attributes_of
    from ..judging.steered import judge_answers

    shown = list(dict.fromkeys(name for model in named.values() for name in attributes_of(model)))
    scorers = judges(judge=judge, scorer=scorer, layout=scorer_layout, measure=measure, rubric=rubric,
                     judge_model=judge_model, attributes=shown)  # fmt: skip
    _warn_of_judges(named, scorers)
    drawn = Drawn(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed)
    path = output / "answers.jsonl" if output else None
    try:
        with Counting() as progress:
            systems = _answers(named, held, asked, steering, drawn, path, batch_size, trust_remote_code, progress)
            store = output / "scores" if output else None
            found = judge_answers(systems, held, scorers, store=store, tie=tie, seed=seed, progress=progress)
    except KeyboardInterrupt:
        on = f" The same command goes on in {output}." if output else ""
        raise Stopped(f"stopped.{on}") from None
    if output:
        _write(found, systems, output)
    if as_json:
        print_json(found.as_dict())
        return
    _show(found)
    if output:
        print(f"written to {output}/attributes.json")


# What is read


def _numbers(text: str | None, option: str) -> list[float]:
    try:
        return [float(part) for part in (text or "").split(",") if part.strip()]
    except ValueError:
        raise SettingsError(f'{option} takes numbers with commas between them, not "{text}".') from None


def _held(data: str, split: str | None, by: str | None, limit: int | None) -> HeldOut:
    """The prompts and reference responses. Raises RecordError for data without responses."""
    from ..data import load
    from ..judging.asking import held_out
    from ..records import Demonstration

    try:
        return held_out(load(data, kind=Demonstration, split=split, by=by), limit=limit, on=data)
    except RecordError as error:
        raise RecordError(
            error.reason, where=error.where,
            remedy="Held-out data hold a reference response for every prompt: pairs, rankings or demonstrations.",
        ) from None  # fmt: skip


def _warn_of_judges(named: Mapping[str, str], scorers: Sequence[Any]) -> None:
    """A judge that chose what a policy learned is no impartial one."""
    from ..rounds import judge_key, judged_by

    for name, model in named.items():
        before = {one["key"] for one in judged_by(model)} if Path(model).exists() else set()
        for scorer in scorers:
            if judge_key(scorer) in before:
                warn(f"{name} was trained on what this judge chose: {scorer.title} (see `pluralign rounds`)")


def _answers(
    named: Mapping[str, str], held: HeldOut, asked: Mapping[str, Any], steering: Mapping[str, Any], drawn: Any,
    path: Path | None, batch_size: int, trust_remote_code: bool, progress: Counting,
) -> list[Steered]:  # fmt: skip
    """What every system answers. A policy that takes no scores is asked in its own way alone, if another takes some."""
    from ..judging.answers import put_in_order
    from ..judging.asking import ask, grid_of, saved_answers, ways
    from ..policy import Policy

    out: list[Steered] = []
    refused: SettingsError | None = None
    for name, model in named.items():
        if Path(model).is_file():
            out.append(saved_answers(name, Path(model), held))
            continue
        policy = Policy.load(model, trust_remote_code=trust_remote_code)
        progress.stop()
        try:
            plan, sweeps = ways(policy, held, **asked), grid_of(policy, **steering)
        except SettingsError as error:
            if policy.scores is not None or len(named) == 1:
                raise
            refused = error
            plan, sweeps = ways(policy, held), {}
        out.append(ask(name, policy, held, plan, sweeps, drawn, path=path, batch_size=batch_size, progress=progress,
                       warn=warn))  # fmt: skip
        del policy
    if refused is not None and all(system.form is None for system in out):
        raise refused
    if path is not None:
        put_in_order(path, [row for system in out for row in system.rows])
    return out


# What is written and said


def _write(found: AttributeEvaluation, systems: Sequence[Steered], output: Path) -> None:
    from ..reports.attributes import write_attributes

    output.mkdir(parents=True, exist_ok=True)
    (output / "attributes.json").write_text(json.dumps(found.as_dict(), indent=1, ensure_ascii=False) + "\n", "utf-8")
    write_attributes(found, output / "attributes.html")


def _show(found: AttributeEvaluation) -> None:
    from rich.text import Text

    from ..judging.attributes import MACRO

    out = console()
    heads = [*found.names, *([MACRO] if len(found.names) > 1 else [])]
    heads += ["difference"] if len(found.rows) > 1 else []
    on = f"win rates against the reference responses of {found.on}; {found.prompts:,} prompts, 95 % intervals"
    show_table(
        out, "win rate", heads, [(str(row["scores"]), [row.get(name) for name in heads]) for row in found.rows], on
    )
    figures = {"error": "error", "constant": "one score for all", "gain": "better by", "r2": "R²", "near": "near"}
    for model, sensing in found.sensing.items():
        rows = [(name, [getattr(one, figure) for figure in figures]) for name, one in sensing.items()]
        out.print()
        show_table(
            out, f"sensed by {model}", list(figures.values()), rows, "|s - s_hat| on a scale of 0 to 1; near: < 0.2"
        )
    for model, sweep in ((model, sweep) for model, sweeps in found.sweeps.items() for sweep in sweeps):
        means = "" if math.isnan(sweep.of_means) else f"; of the means {sweep.of_means:.2f}"
        says = f"rank correlation of asked and given: {sweep.spearman}{means}"
        out.print()
        show_table(out, f"{sweep.attribute} asked of {model}", [f"{v:g}" for v in sweep.at],
               [("mean score", list(sweep.means))], says)  # fmt: skip
    for said in found.notes:
        out.print(Text(f"note: {said}", style="dim"))
    for name, reference in found.means["reference"].items():
        if reference.missing:
            warn(f"{reference.missing:,} reference responses have no score on {name}")


def show_table(
    out: Any, first: str, heads: Sequence[str], rows: Sequence[tuple[str, Sequence[Any]]], says: str
) -> None:
    """A table of estimates that is never cut: turned round where only that fits, else as wide as it has to be."""
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    def made(columns: Sequence[str], lines: Sequence[tuple[str, Sequence[Any]]]) -> tuple[Table, int]:
        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
        table.add_column(first, no_wrap=True)
        for column in columns:
            table.add_column(Text(column.replace("_", " ")), justify="right", no_wrap=True)
        for name, values in lines:
            table.add_row(Text(name.replace("_", " "), style="bold"), *(Text(_cell(value)) for value in values))
        return table, Measurement.get(out, out.options.update(max_width=10_000), table).maximum

    turned = [(head, [values[i] for _, values in rows]) for i, head in enumerate(heads)]
    across = made(heads, rows)
    down = made([name for name, _ in rows], turned)
    table, width = across if across[1] <= max(out.width, down[1]) else down
    wide = console()
    wide.width = max(width, out.width)
    wide.print(table)
    out.print(Text(says, style="dim"))


def _cell(value: Any) -> str:
    from ..judging.statistics import Estimate, format_p

    if not isinstance(value, Estimate):
        return "" if value is None else str(value)
    return value.short() + (f" (p {format_p(value.p_value)})" if value.p_value is not None else "")
