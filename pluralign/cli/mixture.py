"""`pluralign mixture`: kinds of people found in their pairs, a policy of each, and the policy that no kind regrets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import SettingsError
from .align import command_line, parse_words
from .console import Stopped, console, note, print_json, quiet_libraries

if TYPE_CHECKING:
    from ..records import Preference

__all__ = ["EPILOG_EM", "EPILOG_MINMAX", "EPILOG_PAIRS", "app"]

EPILOG_EM = """\b
Examples:
  pluralign mixture em --data pairs.jsonl --model Qwen/Qwen3-0.6B --kinds 3 --output runs/em
  pluralign mixture em --data pairs.jsonl --restarts 3 --start states --output runs/em training.learning_rate=5e-5
  pluralign evaluate preferences runs/em/restart-1/round-5/type-1 runs/em/restart-1/round-5/type-2 --data pairs.jsonl

\b
Pairs need a `user`, and two or more of each: one pair a person identifies no kinds. Every round trains a LoRA of each
kind on all pairs, weighted by how likely their people are of that kind, and asks anew who is of which. people.jsonl
holds the answer. The same command goes on where it was stopped. A reconstruction: `pluralign recipes em_dpo`.
"""

EPILOG_MINMAX = """\b
Examples:
  pluralign mixture minmax runs/em --output runs/fair                      the mixture of the kinds' policies
  pluralign mixture minmax runs/em --single --output runs/fair             and one policy for everybody
  pluralign mixture minmax runs/em --measure answers --prompts 100 --output runs/fair

\b
Regret: what a kind loses where another policy answers than its best. pairs: in the share of its people's pairs that are
ranked rightly; answers: in the implicit reward of what the policies answer. A reconstruction: `pluralign recipes
minmax_dpo`.
"""

EPILOG_PAIRS = """\b
Examples:
  pluralign mixture pairs conversation/ --from votes --output pairs.jsonl.gz       a Polis export: votes on statements
  pluralign mixture pairs comparisons.jsonl --from tldr --output tldr.jsonl.gz     summaries, with their workers
  pluralign mixture pairs ratings.jsonl --from ratings --most 100 --output rated.jsonl.gz  POPQUORN's ratings
"""

app = typer.Typer(help="Kinds of people that nobody named, and a policy for all of them.", no_args_is_help=True,
                  rich_markup_mode=None)  # fmt: skip
SETTINGS = typer.Argument(None, metavar="[KEY=VALUE]...", help="Settings of the training.")
OUTPUT = typer.Option(..., help="Folder for what is found and trained.")
AS_JSON = typer.Option(False, "--json", help="The result as JSON on stdout.")


@app.command("em", epilog=EPILOG_EM)
def em(
    settings: list[str] | None = SETTINGS,
    data: str = typer.Option(..., help="Pairs whose rows name their `user`."),
    output: Path = OUTPUT,
    model: str | None = typer.Option(None, help="Where all kinds begin, and their reference (default: embedded)."),
    kinds: int = typer.Option(2, min=2, help="So many kinds."),
    rounds: int = typer.Option(5, min=1, help="E- and M-steps."),
    restarts: int = typer.Option(1, min=1, help="From other starts; the one whose held-out people are likeliest wins."),
    start: str = typer.Option("random", help="random, or states: linear kinds on the model's hidden states."),
    anneal: float = typer.Option(2.0, min=1.0, help="First temperature of the E-steps; the last is 1."),
    held_out: float = typer.Option(0.1, min=0.0, help="Share of people who only measure the fit."),
    seed: int = typer.Option(0, min=0, help="Of starts, held-out people and training."),
    as_json: bool = AS_JSON,
) -> None:
    """Find kinds of people in their pairs, and train a policy for each (EM-DPO)."""
    from ..mixtures import EMHow, run_em

    how = EMHow(kinds=kinds, rounds=rounds, restarts=restarts, start=start, anneal=anneal, held_out=held_out,
                seed=seed).check()  # fmt: skip
    made, plan = _settings("em_dpo", {"model": model, "data.source": data, "output": str(output)}, settings)
    records = _pairs(data)
    quiet_libraries()
    from .progress import Progress

    try:
        done = run_em(records, made, how, plan=plan, say=Progress(err=as_json), command=command_line())
    except KeyboardInterrupt:
        raise Stopped(f"stopped. The same command goes on in {output}.") from None
    if done.status != "finished" or done.report is None:
        raise Stopped(f"stopped while a kind was trained. The same command goes on in {output}.")
    if as_json:
        print_json(done.report)
        return
    best = done.report["restarts"][done.report["best"] - 1]["history"][-1]
    rows = [(path.name, f"{share:.2f}", str(path)) for share, path in zip(done.eta, done.types, strict=True)]
    _table(("kind", "share", "policy"), rows)
    who = f"{done.report['held_out_people']:,} held-out" if done.report["held_out_people"] else "the trained-on"
    value = best["held_out"] if done.report["held_out_people"] else best["train"]
    note(f"{value:.3f} nats a person over {who} people; who is of which kind: {output / 'people.jsonl'}")
    if done.report["failed"]:
        note(f"pairs that said nothing: {done.report['failed']}")


@app.command("minmax", epilog=EPILOG_MINMAX)
def minmax(
    run: Path = typer.Argument(..., metavar="RUN", help="Folder of `pluralign mixture em`."),
    settings: list[str] | None = SETTINGS,
    output: Path = OUTPUT,
    data: str | None = typer.Option(None, help="The pairs of RUN, where they lie elsewhere by now."),
    measure: str = typer.Option("pairs", help="Utilities from people's pairs, or from the policies' answers."),
    single: bool = typer.Option(False, "--single", help="Train one policy on the kinds as the adversary weighs them."),
    prompts: int = typer.Option(200, min=1, help="answers: so many prompts."),
    max_new_tokens: int = typer.Option(128, min=1, help="answers: longest answer."),
    seed: int = typer.Option(0, min=0, help="Of prompts, answers and training."),
    as_json: bool = AS_JSON,
) -> None:
    """The mixture of the kinds' policies, or one policy, with the least worst regret (MinMax-DPO)."""
    from ..mixtures import FairHow, run_minmax
    from ..mixtures.em import REPORT
    from ..mixtures.stages import read_json

    how = FairHow(measure=measure, single=single, prompts=prompts, max_new_tokens=max_new_tokens, seed=seed).check()
    if not (run / REPORT).is_file():
        raise SettingsError(f"{run} is no run of EM: it has no {REPORT}.", remedy="Make one: `pluralign mixture em`.")
    before = read_json(run / REPORT)
    source = data or before["source"]
    given = {"model": before["model"], "data.source": source, "output": str(output), "seed": seed}
    made, plan = _settings("minmax_dpo", given, settings)
    records = _pairs(source)
    quiet_libraries()
    from .progress import Progress

    done = run_minmax(run, records, made, how, plan=plan, say=Progress(err=as_json), command=command_line())
    if done.status != "finished":
        raise Stopped(f"stopped while the policy was trained. The same command goes on in {output}.")
    if as_json:
        print_json(done.report)
        return
    _show(done.report)


@app.command("pairs", epilog=EPILOG_PAIRS)
def pairs(
    source: Path = typer.Argument(..., metavar="SOURCE", help="A folder of votes, or a file of rows."),
    output: Path = typer.Option(..., help="File for the pairs (.jsonl or .jsonl.gz)."),
    kind: str = typer.Option(..., "--from", help="votes, ratings, rewritings or tldr."),
    topic: str | None = typer.Option(None, help="votes: the prompt, where there is no summary.csv."),
    most: int = typer.Option(200, min=1, help="votes, ratings: so many pairs a person at most."),
    people: int | None = typer.Option(None, min=1, help="Only so many people, those with most pairs."),
    seed: int = typer.Option(0, min=0, help="Of the draw."),
) -> None:
    """Pairs person by person from votes on statements, ratings, rewritings and comparisons."""
    from ..data import convert
    from ..data.votes import busiest

    found = list(_read(source, kind, topic, most, seed))
    found = busiest(found, people) if people else found
    if not found:
        raise SettingsError(f"{source} makes no pair.")
    convert(found, output)
    note(f"{len(found):,} pairs of {len({r.user for r in found}):,} people written to {output}")


def _read(source: Path, kind: str, topic: str | None, most: int, seed: int) -> Any:
    from ..data.locate import file_part
    from ..data.votes import rating_pairs, read_votes, rewriting_pairs, tldr_pairs, vote_pairs

    if kind == "votes":
        return vote_pairs(read_votes(source, topic=topic), most=most, seed=seed)
    makers: dict[str, Any] = {
        "ratings": lambda rows: rating_pairs(rows, most=most, seed=seed), "rewritings": rewriting_pairs,
        "tldr": tldr_pairs,
    }  # fmt: skip
    if kind not in makers:
        raise SettingsError(f'--from is votes, {", ".join(makers)}, not "{kind}".')
    if not source.is_file():
        raise SettingsError(f"{source}: no such file.")
    rows = []
    for raw in file_part(source).rows():
        if raw.error:
            raise SettingsError(f"{source}:{raw.place}: {raw.error}")
        if raw.row is not None:
            rows.append(raw.row)
    return makers[kind](rows)


def _settings(recipe: str, given: dict[str, Any], words: list[str] | None) -> tuple[Any, Any]:
    from ..api import settings_for

    word, overrides = parse_words(words or [])
    if word is not None:
        raise SettingsError(f'"{word}" is no setting.', remedy="Settings are key=value.")
    made, own = settings_for(recipe, {k: v for k, v in given.items() if v is not None}, overrides)
    return made, own.plan if own else None


def _pairs(source: str) -> list[Preference]:
    from ..data import load
    from ..records import Preference

    return list(load(source, kind=Preference))  # type: ignore[arg-type]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for name in head:
        table.add_column(Text(name), overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console().print(table)


def _show(report: Any) -> None:
    from ..judging.statistics import Estimate

    head = ("kind", "weight", *report["policies"], "regret of the mixture")
    rows = []
    for k, row in enumerate(report["utility"]):
        shown = (Estimate.from_dict(e).short() for e in row)
        rows.append((f"{k + 1}", f"{report['adversary'][k]:.2f}", *shown, f"{report['mixture_regret'][k]:.3f}"))
    _table(head, rows)
    mixed = ", ".join(f"{share:.2f} {name}" for name, share in zip(report["policies"], report["mixture"], strict=True))
    print(f"mixture: {mixed}")
    note(f"worst regret {report['worst']:.3f} (at most {report['gap']:.3f} above the least); the best policy alone, "
         f"{report['best_alone']}: {report['best_alone_worst']:.3f}")  # fmt: skip
    if own := report.get("single"):
        print(f"policy: {own['policy']}")
        if "worst" in own:
            note(f"its worst regret: {own['worst']:.3f}")
