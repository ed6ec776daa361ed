"""`pluralign evaluate`, `compare` and `report`: what came of it, with intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import SettingsError
from .console import console, note, print_json, quiet_libraries, warn
from .evaluate_benchmark import Evaluations

if TYPE_CHECKING:
    from rich.table import Table

    from ..judging.preferences import PreferenceEvaluation
    from ..judging.statistics import Estimate

__all__ = ["EPILOG_COMPARE", "EPILOG_REPORT", "app", "by_name", "compare", "counting", "report", "table_of"]

EPILOG_PREFERENCES = """\b
Examples:
  pluralign evaluate preferences runs/dpo                                     on the shipped held-out pairs
  pluralign evaluate preferences base=Qwen/Qwen3-0.6B dpo=runs/dpo --reference base --data heldout.jsonl
  pluralign evaluate preferences runs/dpo runs/ipo --reference runs/sft --output runs/judged --json

\b
accuracy            the chosen response is likelier per token (accuracy sum: as a whole)
implicit accuracy   it gained more than the rejected one against the reference; margin: by how many nats
Differences are paired, against the first model. Pairs that share a first user turn count as one cluster.
Models are read as deployed: one that senses scores or infers intents sees what it finds for the prompt.
"""
EPILOG_COMPARE = """\b
Examples:
  pluralign compare runs/dpo runs/ipo
  pluralign compare runs/dpo runs/ipo --on heldout.jsonl --reference runs/sft
  pluralign compare runs/dpo runs/ipo --output comparison.html
"""
EPILOG_REPORT = """\b
Example:
  pluralign report runs/dpo         writes runs/dpo/report.html: one file, no network
"""

app = typer.Typer(
    cls=Evaluations,
    help="Judge policies: preferences, attributes, public benchmarks.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def judge() -> None:
    """Judge policies; every number with its interval."""


@app.command("preferences", epilog=EPILOG_PREFERENCES)
def preferences(
    models: list[str] = typer.Argument(
        ..., metavar="MODEL...", help="Hub model, folder, run folder; NAME=MODEL names it."
    ),
    reference: str | None = typer.Option(
        None, help="The model that log-ratios are taken against (or one of the names)."
    ),
    data: str = typer.Option("embedded", help="Pairs: file, folder or hub data set; `embedded`: the shipped held-out."),
    split: str | None = typer.Option(None, help="Split of a hub data set or a folder."),
    limit: int | None = typer.Option(None, min=1, help="At most so many pairs."),
    output: Path | None = typer.Option(None, help="Folder for evaluation.json and scores.jsonl."),
    token_budget: int = typer.Option(8192, min=256, help="Tokens of one forward pass."),
    as_json: bool = typer.Option(False, "--json", help="The evaluation as JSON on stdout."),
) -> None:
    """Which models rank what people preferred first, on held-out pairs."""
    from ..api import evaluate, held_out

    held_out(data, split=split)  # a wrong source is found before any model is loaded
    quiet_libraries()
    with counting() as progress:
        found = evaluate(
            by_name(models), data, reference=reference, limit=limit, output=output, split=split,
            token_budget=token_budget, progress=progress,
        )  # fmt: skip
    for reason, count in found.failed.items():
        warn(f"{count:,} pairs could not be scored: {reason}")
    if as_json:
        print_json(found.evaluation)
        return
    console().print(table_of(found))
    for model, words in found.evaluation.get("beside", {}).items():
        console().print(f"{model} was shown, beside each prompt, {words}.", highlight=False, markup=False)
    if output:
        print(f"written to {output}/evaluation.json")


def by_name(models: list[str]) -> Any:
    """`NAME=MODEL` entries by name, others by the last part of theirs. Raises SettingsError for a name given twice."""
    from ..api import named_policies

    names: dict[str, str] = {}
    for text in models:
        name, equals, model = text.partition("=")
        own = {name: model} if equals and name and model and not Path(text).exists() else named_policies([text])
        if set(own) & set(names):
            raise SettingsError(f'two models are called "{next(iter(own))}".', remedy="Name them: NAME=MODEL.")
        names |= own
    return names


class counting:
    """Progress of an evaluation on stderr, where it is a terminal."""

    def __enter__(self) -> Callable[[str, int, int], None]:
        out = console(err=True)
        self.status = out.status("loading …") if out.is_terminal else None
        if self.status:
            self.status.start()
        return self._count

    def _count(self, name: str, done: int, total: int) -> None:
        if self.status:
            self.status.update(f"{name}: {done:,}/{total:,} pairs")

    def __exit__(self, *_: Any) -> None:
        if self.status:
            self.status.stop()


def table_of(found: PreferenceEvaluation) -> Table:
    """Figures as rows, models as columns: it stays readable on a narrow terminal."""
    from rich.table import Table
    from rich.text import Text

    from ..judging.statistics import Estimate

    rows = found.evaluation["rows"]
    names = dict.fromkeys(k for row in rows for k in row if k != "model")
    sizes = {row[n]["n"] for row in rows for n in row if n not in ("model", "kl") and isinstance(row[n], dict)}
    on = f"{found.evaluation['on']}; 95 % intervals" + (f"; n = {sizes.pop():,}" if len(sizes) == 1 else "")
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), caption=on, caption_justify="left")
    table.add_column("", no_wrap=True)
    for row in rows:
        table.add_column(Text(row["model"], style="bold"), overflow="fold")
    for name in names:
        cells = []
        for row in rows:
            value = row.get(name)
            cells.append(
                "–" if value is None else value if isinstance(value, str) else _cell(Estimate.from_dict(value))
            )
        table.add_row(Text(name.replace("_", " ")), *map(Text, cells))
    return table


def _cell(estimate: Estimate) -> str:
    from ..judging.statistics import format_p

    p = f" (p {format_p(estimate.p_value)})" if estimate.p_value is not None else ""
    return f"{estimate.short()}{p}"


def compare(
    runs: list[str] = typer.Argument(..., metavar="RUN RUN...", help="Run folders; others are held to the first."),
    on: str | None = typer.Option(None, "--on", help="Judge the runs' models on these pairs now, or on `embedded`."),
    reference: str | None = typer.Option(None, help="With --on: the model that log-ratios are taken against."),
    limit: int | None = typer.Option(None, min=1, help="With --on: at most so many pairs."),
    output: Path | None = typer.Option(None, help="Also write the comparison as one HTML page."),
    as_json: bool = typer.Option(False, "--json", help="As JSON on stdout."),
) -> None:
    """Runs side by side, with paired differences."""
    from ..judging.scores import compare_scores
    from ..reports import compare as side_by_side
    from ..reports import comparison_table

    if on is None and (reference or limit):
        raise SettingsError("--reference and --limit belong to --on.")
    found = side_by_side(runs, out=output)
    judged = None
    if on is not None:
        from ..api import evaluate

        quiet_libraries()
        with counting() as progress:
            models = dict(zip(found.names, runs, strict=True))
            judged = evaluate(models, on, reference=reference, limit=limit, progress=progress)
    gaps: dict[str, dict[str, Estimate]] = {}
    if judged is None:
        for name, run in zip(found.names[1:], runs[1:], strict=True):
            gaps[f"{name} − {found.names[0]}"] = compare_scores(runs[0], run)
    if as_json:
        paired = {pair: {name: e.as_dict() for name, e in gap.items()} for pair, gap in gaps.items()}
        print_json({**asdict(found), "judged": judged.evaluation if judged else None, "paired": paired})
        return
    out = console()
    out.print(comparison_table(runs))
    if judged:
        out.print()
        out.print(table_of(judged))
    for pair, gap in gaps.items():
        for name, estimate in gap.items():
            out.print(f"paired, {pair}: {name} {estimate}", markup=False)
    if output:
        note(f"written to {output}")


def report(
    run: Path = typer.Argument(..., metavar="RUN", help="A run folder."),
    as_json: bool = typer.Option(False, "--json", help="The path as JSON on stdout."),
) -> None:
    """Write a run's report: one HTML file."""
    from ..reports import report as write

    path = write(run)
    if as_json:
        print_json({"report": path})
    else:
        print(path)
