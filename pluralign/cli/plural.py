"""`pluralign data make`: data in which people want different things, from public rows or through an endpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import SettingsError
from .console import console, print_json

if TYPE_CHECKING:
    from ..curate.plural import Built

__all__ = ["app"]

app = typer.Typer(
    help="Make data in which people want different things (A-IPO's benchmarks).", no_args_is_help=True,
    rich_markup_mode=None,
)  # fmt: skip

Source = typer.Argument(..., help="The rows it is made of: .jsonl or .jsonl.gz.")
Output = typer.Argument(..., help="A folder for train, validation and test, intents and the account.")
By = typer.Option("question", "--by", help="What no two parts share: question, or intent (and question).")
Seed = typer.Option(0, "--seed", min=0, help="Of every draw.")
Limit = typer.Option(None, "--limit", min=1, help="At most so many records.")
Overwrite = typer.Option(False, "--overwrite", help="Replace what is there.")
AsJson = typer.Option(False, "--json", help="The account as JSON on stdout.")
Url = typer.Option(None, "--endpoint", help="Have a language model write it: openai:MODEL, URL or URL#MODEL.")
Spend = typer.Option(None, "--budget", help="Ask no further than 500requests, 200000tokens, 5usd@2/8.")
Review = typer.Option(None, "--review", help="A CSV for people: made if it is not there, else read and obeyed.")
Rejected = typer.Option("one", "--rejected", help="Rejected responses a prompt: one, drawn, or all.")

EPILOG_ATTACK = """\b
Example:
  pluralign data make attack-pref nq_open_dev.jsonl.gz data/attack
  pluralign evaluate attack-pref runs/dpo --questions data/attack
"""
EPILOG_OPINION = """\b
Example:
  pluralign data make opinion-ext globalopinionqa_eval.jsonl.gz data/opinion --country "United States"
  pluralign data make opinion-ext globalopinionqa_eval.jsonl.gz data/opinion --pairs all --beliefs
"""
EPILOG_REAL = """\b
Example:
  pluralign data make real-pref intents.csv data/real --endpoint openai:gpt-4.1 --each 5 --review data/real.csv

\b
Domains: religion, food, health, regional, language, music. Replies are kept in the folder: what was stopped, or waits
for review, goes on by the same command without asking twice.
"""


def _endpoint(url: str, output: Path, budget: str | None) -> Any:
    """The endpoint, its replies kept in the output folder: what was stopped goes on without asking twice."""
    from ..endpoints import Budget, Endpoint

    return Endpoint.open(url, budget=Budget.parse(budget) if budget else None, cache=output / "replies")


def _reviewed(built: Built, review: Path | None) -> Built | None:
    """What is left after review; None where the file has been made just now, and is to be read by people first."""
    from ..curate.plural.generate import read_review, write_review

    if review is None:
        return built
    if review.exists():
        return read_review(built, review)
    rows = write_review(built, review)
    print(f"{rows:,} records to read in {review}: put no under keep, or correct texts; then run the same command again")
    return None


def _write(built: Built, output: Path, by: str, seed: int, overwrite: bool, as_json: bool, **about: Any) -> None:
    from ..curate.plural.folder import write_folder

    beliefs = bool(about.pop("beliefs", False))
    report = write_folder(built, output, by=by, seed=seed, overwrite=overwrite, beliefs=beliefs, about=about)  # type: ignore[arg-type]
    if as_json:
        print_json(report)
        return
    skipped = "".join(f", {n:,} skipped ({why})" for why, n in report["skipped"].items())
    parts = ", ".join(f"{part} {own['records']:,}" for part, own in report["parts"].items())
    out = console()
    out.print(f"{report['rows']:,} rows: {report['used']:,} used{skipped}", highlight=False)
    out.print(f"{report['records']:,} records of {report['intents']:,} intents: {parts}", highlight=False)
    print(f"written to {output}")


@app.command("attack-pref", epilog=EPILOG_ATTACK)
def attack_pref(
    source: Path = Source,
    output: Path = Output,
    position: list[str] = typer.Option([], "--position", help="before, after, middle; repeatable (default: all)."),
    style: list[str] = typer.Option(
        [], "--style", help="plain, ignore, roleplay, system, delimiter; repeatable (default: all)."
    ),
    corruption: str = typer.Option("hijacked", help="The rejected response: hijacked, both or mixed."),
    benign: float = typer.Option(0.0, min=0.0, help="The share of questions without an attack."),
    by: str = By,
    endpoint: str | None = Url,
    budget: str | None = Spend,
    review: Path | None = Review,
    limit: int | None = Limit,
    seed: int = Seed,
    overwrite: bool = Overwrite,
    as_json: bool = AsJson,
) -> None:
    """Questions with short answers (NQ-open: question, answer), attacked by unrelated ones."""
    from ..curate.plural import POSITIONS, STYLES, rows_of
    from ..curate.plural import attack_pref as make
    from ..curate.plural.folder import check_free
    from ..curate.plural.generate import generate_attack

    check_free(output, overwrite=overwrite)
    kinds: Any = {"positions": position or POSITIONS, "styles": style or STYLES, "limit": limit, "seed": seed}
    if endpoint is None:
        made = make(rows_of(source), corruption=corruption, benign=benign, **kinds)  # type: ignore[arg-type]
    elif corruption != "hijacked" or benign:
        raise SettingsError("--corruption and --benign are of templates.", remedy="Leave them out, or --endpoint.")
    else:
        made = generate_attack(_endpoint(endpoint, output, budget), rows_of(source), **kinds)
    built = _reviewed(made, review)
    if built is None:
        return
    _write(built, output, by, seed, overwrite, as_json, made="attack-pref", source=source.name, corruption=corruption,
           benign=benign)  # fmt: skip


@app.command("opinion-ext", epilog=EPILOG_OPINION)
def opinion_ext(
    source: Path = Source,
    output: Path = Output,
    country: list[str] = typer.Option([], "--country", help="Only this one; repeatable (default: all)."),
    pairs: str = typer.Option("top", help="top: the most accepted option is chosen; all: each is, by its share."),
    intents: str = typer.Option("option", help="What the intent is: option or country."),
    show_country: bool = typer.Option(True, "--show-country/--hide-country", help="Whether prompts name the country."),
    beliefs: bool = typer.Option(False, "--beliefs", help="Write rows of the format beliefs, too (GDPO)."),
    by: str = By,
    endpoint: str | None = Url,
    budget: str | None = Spend,
    rephrasings: int = typer.Option(3, min=1, help="With --endpoint: how many ways of saying each option."),
    review: Path | None = Review,
    limit: int | None = Limit,
    seed: int = Seed,
    overwrite: bool = Overwrite,
    as_json: bool = AsJson,
) -> None:
    """Opinions by country (GlobalOpinionQA: country, question, options, distribution)."""
    from ..curate.plural import opinion_ext as make
    from ..curate.plural import rows_of
    from ..curate.plural.folder import check_free
    from ..curate.plural.generate import generate_opinions

    check_free(output, overwrite=overwrite)
    if endpoint is None:
        made = make(rows_of(source), countries=country or None, pairs=pairs, intents=intents,  # type: ignore[arg-type]
                    show_country=show_country, limit=limit, seed=seed)  # fmt: skip
    elif pairs != "top" or intents != "option" or limit is not None:
        raise SettingsError("--pairs, --intents and --limit are of templates.", remedy="Leave them out, or --endpoint.")
    else:
        made = generate_opinions(_endpoint(endpoint, output, budget), rows_of(source), countries=country or None,
                                 rephrasings=rephrasings, seed=seed)  # fmt: skip
    built = _reviewed(made, review)
    if built is None:
        return
    _write(built, output, by, seed, overwrite, as_json, made="opinion-ext", source=source.name, pairs=pairs,
           intent=intents, show_country=show_country, countries=country, beliefs=beliefs)  # fmt: skip


@app.command("real-pref", epilog=EPILOG_REAL)
def real_pref(
    intents: Path = typer.Argument(..., help="A CSV: domain, intent; time, roles, region, cultural_factors if known."),
    output: Path = Output,
    endpoint: str = typer.Option(..., "--endpoint", help="Who writes it: openai:MODEL, URL or URL#MODEL."),
    each: int = typer.Option(1, min=1, help="Scenes for each intent."),
    budget: str | None = Spend,
    review: Path | None = Review,
    by: str = By,
    seed: int = Seed,
    overwrite: bool = Overwrite,
    as_json: bool = AsJson,
) -> None:
    """Scenes of daily life that carry an intent, with an answer that honours it and one that does not."""
    from ..curate.plural.folder import check_free
    from ..curate.plural.generate import generate_real, read_intents

    check_free(output, overwrite=overwrite)
    wanted = read_intents(intents)
    made = generate_real(_endpoint(endpoint, output, budget), wanted, each=each, seed=seed)
    built = _reviewed(made, review)
    if built is not None:
        _write(built, output, by, seed, overwrite, as_json, made="real-pref", source=intents.name, each=each)


@app.command("prefeval")
def prefeval(
    source: Path = Source,
    output: Path = Output,
    form: str = typer.Option("hidden", help="hidden: the question alone; stated: the preference before it."),
    dialogues: Path | None = typer.Option(None, help="Rows of implicit_preference_choice_based: the talk before."),
    intents: str = typer.Option("preference", help="What the intent is: preference or topic."),
    rejected: str = Rejected,
    by: str = By,
    seed: int = Seed,
    overwrite: bool = Overwrite,
    as_json: bool = AsJson,
) -> None:
    """Preferences of PrefEval (mcq_options) as intents."""
    from ..curate.plural import prefeval_intents, rows_of
    from ..curate.plural.folder import check_free

    check_free(output, overwrite=overwrite)
    talks = rows_of(dialogues) if dialogues else None
    built = prefeval_intents(rows_of(source), form=form, dialogues=talks, intents=intents, rejected=rejected, seed=seed)  # type: ignore[arg-type]
    _write(built, output, by, seed, overwrite, as_json, made="prefeval", source=source.name, form=form, intent=intents)


@app.command("dsp")
def dsp(
    source: Path = Source,
    output: Path = Output,
    rejected: str = Rejected,
    by: str = By,
    seed: int = Seed,
    overwrite: bool = Overwrite,
    as_json: bool = AsJson,
) -> None:
    """Domains of DSP as intents: one prompt, answered as each of them wants it."""
    from ..curate.plural import dsp_intents, rows_of
    from ..curate.plural.folder import check_free

    check_free(output, overwrite=overwrite)
    built = dsp_intents(rows_of(source), rejected=rejected, seed=seed)  # type: ignore[arg-type]
    _write(built, output, by, seed, overwrite, as_json, made="dsp", source=source.name)


@app.command("polis")
def polis(
    source: Path = typer.Argument(..., help="A Polis export: the folder, or its file of votes."),
    output: Path = Output,
    contested: bool = typer.Option(False, "--contested", help="Only statements on which groups differ."),
    at_least: int = typer.Option(10, "--at-least", min=1, help="Votes that a group needs on a statement."),
    by: str = By,
    seed: int = Seed,
    overwrite: bool = Overwrite,
    as_json: bool = AsJson,
) -> None:
    """Opinion groups of a Polis conversation as intents."""
    from ..curate.plural import polis_intents
    from ..curate.plural.folder import check_free
    from ..data.votes import read_votes

    check_free(output, overwrite=overwrite)
    if not source.exists():
        raise SettingsError(f"there is no {source}.", remedy="Name a Polis export.")
    built = polis_intents(read_votes(source), at_least=at_least, contested=contested, seed=seed)
    _write(built, output, by, seed, overwrite, as_json, made="polis", source=source.name, contested=contested)
