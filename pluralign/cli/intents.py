"""`pluralign intents`: what prompts are after. Knowledge about them, labels, and the module that infers intents."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import SettingsError
from .align import command_line
from .console import Stopped, note, print_json, quiet_libraries
from .curate_steps import listing
from .data import AsJson, BadRows, Columns, Format, Limit, Source, Split, open_source
from .judges import Counting

if TYPE_CHECKING:
    from ..intents import Asking, FactChecker, KnowledgeBase

__all__ = [
    "Cache",
    "Draws",
    "EndpointAt",
    "Money",
    "Rules",
    "Workers",
    "app",
    "asking_of",
    "cache_of",
    "table",
]

EPILOG_INGEST = """\b
Examples:
  pluralign intents ingest enwiki-latest-pages-articles.xml.bz2 --base data/wikipedia
  pluralign intents ingest passages.jsonl.gz --base data/base --encoder minilm
  pluralign intents ingest notes/ --base pinecone:my-index

\b
Passages of about 100 words from JSON lines (title, text), plain text, a folder of it, or a MediaWiki dump. A folder
holds LanceDB's index of words and vectors; a stopped ingest goes on where it was.
"""
EPILOG_SEARCH = """\b
Example:
  pluralign intents search data/wikipedia "Which drink caused the illness?"
"""
EPILOG_RUN = """\b
Examples:
  pluralign intents run pairs.jsonl --output known.jsonl.gz --rules --base data/wikipedia
  pluralign intents run pairs.jsonl --output known.jsonl.gz --endpoint openai:gpt-4.1 --base data/wikipedia \\
      --checker anah --budget 5usd@2/8
  pluralign intents run pairs.jsonl --output known.jsonl.gz --endpoint http://localhost:8000/v1 --without-base

\b
Stages: dimensions, beliefs, calibrate, core (A-IPO, Appendix I), retrieve, check. Every record comes out, with x_con
where something of it is supported, and with what each stage found in meta.knowledge. The same command goes on where it
was stopped, and asks nobody twice. Checkers: lexical (words and numbers), anah (a language model, three questions a
sentence), or the name of an NLI model or MiniCheck.
"""

app = typer.Typer(help="What prompts are after: knowledge about them, intent labels, and a module that infers intents.",
                  no_args_is_help=True, rich_markup_mode=None)  # fmt: skip

EndpointAt = typer.Option(None, "--endpoint", help="openai:MODEL, http://host/v1 or http://host/v1#MODEL.")
Rules = typer.Option(False, "--rules", help="No language model: crude English rules, labelled as that.")
Money = typer.Option(None, "--budget", help="Hard stop, such as 500requests, 200000tokens or 5usd@2/8.")
Workers = typer.Option(8, "--workers", min=1, help="Requests under way at a time.")
Draws = typer.Option(2, "--again", min=0, help="More draws of an answer that cannot be read.")
Cache = typer.Option(None, "--cache", help="Folder that keeps answers (the cache, PLURALIGN_CACHE).")
Encoder = typer.Option(None, "--encoder", help="minilm, tfidf, or a sentence encoder (the best at hand).")


def cache_of(cache: Path | None) -> Path:
    from ..scoring.reference import cache_folder

    return cache or cache_folder() / "intents"


def asking_of(
    endpoint: str | None, rules: bool, *, budget: str | None, workers: int, again: int, cache: Path
) -> Asking | None:
    """Who is asked; None for rules. Raises SettingsError where both or neither are named."""
    if rules == bool(endpoint):
        raise SettingsError(
            "it is an endpoint or rules." if rules else "nobody is named who could be asked.",
            remedy="Name one: --endpoint URL, or --rules for crude rules without a model.",
        )
    if endpoint is None:
        if budget:
            raise SettingsError("--budget is for an endpoint, and rules cost nothing.")
        return None
    from ..endpoints import Budget, Endpoint
    from ..intents import Asking

    limits = Budget.parse(budget) if budget else Budget()
    return Asking(Endpoint.open(endpoint, workers=workers, budget=limits, cache=cache / "replies"), again)


# The knowledge base


@app.command("ingest", epilog=EPILOG_INGEST)
def ingest(
    source: Path = typer.Argument(..., metavar="SOURCE", help="File of passages, text or a dump; or a folder of text."),
    base: str = typer.Option(..., help="Folder of the base, or pinecone:INDEX."),
    encoder: str | None = Encoder,
    words: int = typer.Option(100, min=20, help="Words in a passage, about."),
    limit: int | None = typer.Option(None, min=1, help="So many passages at most."),
    as_json: bool = AsJson,
) -> None:
    """Fill a knowledge base with the passages of a source."""
    from itertools import islice

    from ..intents.ingest import passages_in, source_name

    if not source.exists():
        raise SettingsError(f"{source}: no such file.")
    quiet_libraries()
    found = islice(passages_in(source, size=words), limit)
    made: Any = _writable(base, encoder)
    name = source_name(source, words) + (f", the first {limit:,}" if limit else "")
    with Counting() as counting:
        try:
            count = made.ingest(found, name, progress=lambda n: counting("passages", n, limit or n + 1))
        except KeyboardInterrupt:
            raise Stopped("stopped. The same command goes on where it was.") from None
    if not count:
        note(f"{source} holds no passage")
    if as_json:
        print_json({"base": base, "source": name, "passages": count, "encoder": made.encoder.name})
    else:
        print(f"{count:,} passages of {source.name} in {base}, embedded by {made.encoder.name}")


def _writable(base: str, encoder: str | None) -> Any:
    if base.startswith("pinecone:"):
        from ..intents import open_base

        return open_base(base, encoder=encoder)
    if base.startswith("memory:"):
        raise SettingsError("memory: is read from its file each time, and takes nothing in.", remedy="Name a folder.")
    from ..intents.lance import LanceBase

    return LanceBase.create(Path(base), encoder or "auto")


@app.command("search", epilog=EPILOG_SEARCH)
def search(
    base: str = typer.Argument(..., metavar="BASE", help="Folder of the base, pinecone:INDEX or memory:FILE."),
    text: str = typer.Argument(..., metavar="TEXT", help="What to look for."),
    passages: int = typer.Option(5, min=1, help="So many passages."),
    encoder: str | None = Encoder,
    as_json: bool = AsJson,
) -> None:
    """The passages of a base that are nearest to a text, with their cosines."""
    quiet_libraries()
    from ..intents import open_base

    opened = open_base(base, encoder=encoder)
    (found,) = opened.search([text], passages)
    if as_json:
        print_json([{"id": p.id, "title": p.title, "score": p.score, "text": p.text} for p in found])
        return
    for p in found:
        print(f"{p.score:5.2f}  {p.title}\n       {p.text}\n")
    if not found:
        print("nothing")


# The pipeline


@app.command("run", epilog=EPILOG_RUN)
def run(
    source: str = Source,
    output: Path = typer.Option(..., help="File for the records (.jsonl or .jsonl.gz)."),
    endpoint: str | None = EndpointAt,
    rules: bool = Rules,
    base: str | None = typer.Option(None, help="Folder of a base, pinecone:INDEX or memory:FILE."),
    without_base: bool = typer.Option(False, "--without-base", help="Go on where no base answers, and record it."),
    stages: str | None = typer.Option(None, help="Only these, comma-separated; the rest is in DATA or left out."),
    checker: str = typer.Option("lexical", help="lexical, anah (asks the endpoint), or a cross-encoder's name."),
    unsure: bool = typer.Option(False, "--unsure-to-endpoint", help="Where the checker is not sure, ask anah."),
    threshold: float | None = typer.Option(None, help="Least cosine of a pertinent passage (by the encoder)."),
    passages: int = typer.Option(5, min=1, help="Passages retrieved for a prompt."),
    with_steps: bool = typer.Option(False, "--with-steps", help="Search for every step of x_aug, too."),
    drop_no_facts: bool = typer.Option(False, "--drop-no-facts", help="Drop sentences that claim nothing, too."),
    set_intent: bool = typer.Option(
        False, "--set-intent", help="The main intent becomes the record's, if it has none."
    ),
    encoder: str | None = Encoder,
    budget: str | None = Money,
    workers: int = Workers,
    again: int = Draws,
    cache: Path | None = Cache,
    split: str | None = Split,
    format: str = Format,
    columns: list[str] | None = Columns,
    limit: int | None = Limit,
    bad_rows: str = BadRows,
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace OUTPUT."),
    as_json: bool = AsJson,
) -> None:
    """Knowledge about every prompt: its elements, beliefs, core intent, passages, and what of it is supported."""
    from ..curate import curate as through
    from ..data import convert
    from ..intents import STAGES, Plan, knowledge_steps
    from ..intents.pipeline import check_stages
    from ..intents.support import tally

    names = tuple(listing(stages)) if stages else STAGES
    check_stages(names)
    if output.exists() and not overwrite:
        raise SettingsError(f"{output} exists already.", remedy="Choose another name, or pass --overwrite.")
    quiet_libraries()
    folder = cache_of(cache)
    asks = bool(set(names) - {"retrieve", "check"}) or checker == "anah" or unsure or rules or bool(endpoint)
    who = asking_of(endpoint, rules, budget=budget, workers=workers, again=again, cache=folder) if asks else None
    opened, down = _base(base, without_base, encoder, folder, needed="retrieve" in names)
    if down:
        note(f"without a knowledge base: {down}")
    plan = Plan(who, opened, _checker(checker, unsure, who), names, passages, threshold, with_steps, without_base,
                not drop_no_facts, set_intent, folder)  # fmt: skip
    loaded = open_source(source, split=split, format=format, columns=columns, group=None, limit=limit,
                         bad_rows=bad_rows, quarantine=output.with_name(f"{output.name}.quarantine.jsonl"))  # fmt: skip
    curated = through(loaded, knowledge_steps(plan))
    seen = _Tally()
    with Counting() as counting:
        try:
            convert(seen.watch(curated, counting), output, overwrite=overwrite)
        except KeyboardInterrupt:
            raise Stopped("stopped. The same command goes on where it was, and asks nobody twice.") from None
    said: dict[str, Any] = {"command": command_line(), "source": loaded.name, "down": down or None,
                            **curated.report()}  # fmt: skip
    said |= {"x_con": seen.known, "statements": {k: dict(v) for k, v in tally(seen.kept).items()}}
    if who is not None:
        said["spent"] = str(who.endpoint.spent)
    report = output.with_name(f"{output.name}.report.json")
    report.write_text(json.dumps(said, indent=1, ensure_ascii=False, default=str) + "\n", "utf-8")
    if as_json:
        print_json(said)
    else:
        _show(said, output, report)


class _Tally:
    """Counts of the records that pass, and their statements' verdicts."""

    def __init__(self) -> None:
        self.known = 0
        self.kept: list[Any] = []

    def watch(self, records: Iterable[Any], counting: Counting) -> Iterator[Any]:
        from dataclasses import replace

        for n, record in enumerate(records, start=1):
            self.known += bool(record.x_con)
            slim = {"checked": [{**row, "text": ""} for row in record.meta.get("knowledge", {}).get("checked", ())]}
            self.kept.append(replace(record, prompt=record.prompt[:1], x_con="", meta={"knowledge": slim}))
            counting("records", n, n + 1)
            yield record


def _base(
    base: str | None, without: bool, encoder: str | None, cache: Path, *, needed: bool
) -> tuple[KnowledgeBase | None, str]:
    """(the base, why there is none). Raises what opening it raises, unless one may do without."""
    from ..intents import BaseDown, open_base

    if base is None:
        if needed and not without:
            raise SettingsError("no knowledge base is named.", remedy="Name one: --base DIR, or pass --without-base.")
        return None, ""
    try:
        return open_base(base, encoder=encoder, cache=cache), ""
    except (BaseDown, SettingsError) as error:
        if not without:
            raise
        return None, error.message


def _checker(name: str, unsure: bool, who: Asking | None) -> FactChecker:
    from ..intents import Anah, Chain, Lexical

    if (name == "anah" or unsure) and who is None:
        raise SettingsError("anah asks an endpoint.", remedy="Name one: --endpoint URL, or take --checker lexical.")
    judge = Anah(who) if who is not None and (unsure or name == "anah") else None
    if name == "anah":
        return Chain(None, judge)
    if name == "lexical":
        return Chain(Lexical(), judge)
    from ..intents.nli import load_cross_encoder

    return Chain(load_cross_encoder(name), judge)


def table(head: list[str], rows: list[list[str]], right: tuple[str, ...] = ()) -> None:
    """A plain table on stdout."""
    from rich.table import Table
    from rich.text import Text

    from .console import console

    made = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for name in head:
        made.add_column(name, justify="right" if name in right else "left")
    for row in rows:
        made.add_row(*map(Text, row))
    console().print(made)


def _show(said: dict[str, Any], output: Path, report: Path) -> None:
    rows = []
    for step in said["steps"]:
        noted = ", ".join(f"{n:,} {why}" for why, n in step["noted"].items())
        rows.append([step["step"], f"{step['read']:,}", str(step["settings"].get("by", "")), noted])
    table(["stage", "records", "by", "noted"], rows, right=("records",))
    for part, name in (("aug", "x_aug"), ("ext", "x_ext")):
        counts = said["statements"][part]
        if counts:
            print(f"{name}: " + ", ".join(f"{n:,} {label}" for label, n in counts.items()))
    print(f"\n{said['x_con']:,} of {said['train']['records']:,} records have x_con: {output} · counts: {report}")
    if "spent" in said:
        note(f"asked: {said['spent']}")
