"""`pluralign curate`: from data as they are to data to train on, every record accounted for."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import typer

from ..errors import SettingsError, nearest
from .align import command_line
from .console import Stopped, clock, console, is_first, note, print_json
from .curate_steps import SETTINGS, VALIDATION, listing
from .data import AsJson, BadRows, Columns, Format, Group, Limit, Responses, Source, Split, open_source

__all__ = ["EPILOG", "curate"]

EPILOG = """\b
Examples:
  pluralign curate pairs.jsonl --output data/clean --model Qwen/Qwen3-0.6B
  pluralign curate pairs.jsonl --output data/clean --near 0.9 --safety meta-llama/Llama-Guard-3-8B
  pluralign curate pairs.jsonl --output data/clean --steps exact_duplicates,length --max-tokens 1024
  pluralign curate pairs.jsonl --output data/scored --steps score,reorder --scorer helpful=org/rm --measure words
  pluralign align dpo --data data/clean/train.jsonl.gz data.validation=data/clean/validation.jsonl.gz

\b
Writes train.jsonl.gz, validation.jsonl.gz, dropped.jsonl.gz (what was left out, by which step and why) and
curation.json (counts, settings, fingerprints). The preset `inspo` drops exact duplicates, responses over 2,048 or
both under 32 tokens, what a safety classifier flags and pairs of a confidence below 0.6, and holds out 1,000 records.
The step `score` gives every response attributes: by reward models (--scorer), a judge (--judge) and measures of the
text (--measure); a stopped run goes on where it was. `reorder` makes the response of the highest mean the chosen one.
A key for an endpoint is read from the environment variable PLURALIGN_API_KEY.
"""
PRESET = "inspo"
PLAIN_SECONDS = 30.0  # between two lines of progress where there is no terminal

# The options that belong to each step, by the names they have in `curate` and on the command line.
OWN = {
    "exact_duplicates": {"normalise": "--normalise"},
    "near_duplicates": {"near": "--near", "near_on": "--near-on", "ngram": "--ngram"},
    "length": {"max_tokens": "--max-tokens", "min_tokens": "--min-tokens", "model": "--model"},
    "safety": {
        "safety": "--safety",
        "guard_model": "--guard-model",
        "safety_on": "--safety-on",
        "unparsed": "--unparsed",
    },
    "quality": {
        "confidence": "--confidence",
        "confidence_field": "--confidence-field",
        "from_margin": "--from-margin",
        "missing": "--missing",
    },
    "score": {
        "scorer": "--scorer",
        "scorer_layout": "--scorer-layout",
        "judge": "--judge",
        "judge_model": "--judge-model",
        "rubric": "--rubric",
        "measure": "--measure",
        "implicit": "--implicit",
        "implicit_reference": "--implicit-reference",
        "scores": "--scores",
    },
    "control": {"quota": "--quota"},
    "density": {"embed": "--embed"},
    "reorder": {"order_by": "--order-by", "scales": "--scales"},
    "hold_out": {"validation": "--validation", "seed": "--seed"},
}


def curate(
    source: str = Source,
    output: Path = typer.Option(..., help="Folder for the curated data and the counts."),
    preset: str | None = typer.Option(None, help=f"Steps of a published recipe: {PRESET} (the default)."),
    steps: str | None = typer.Option(None, help="Steps instead of a preset, comma-separated, in this order."),
    model: str | None = typer.Option(None, help="Whose tokenizer counts tokens (default: words are counted)."),
    max_tokens: int | None = typer.Option(None, min=1, help="Longest response (2048)."),
    min_tokens: int | None = typer.Option(None, min=0, help="One response must be this long (32)."),
    normalise: str | None = typer.Option(None, help="What exact duplicates may differ in: none, space or case."),
    near: float | None = typer.Option(None, help="Drop near duplicates, too, from this Jaccard similarity on (0.9)."),
    near_on: str | None = typer.Option(None, help="Compare prompt, responses or both (both)."),
    ngram: int | None = typer.Option(None, min=1, help="Words in a shingle of near duplicates (3)."),
    across_annotators: bool = typer.Option(False, "--across-annotators", help="A pair judged by two is a duplicate."),
    safety: str | None = typer.Option(None, help="rules, a Llama-Guard-like model, or an endpoint's URL (rules)."),
    guard_model: str | None = typer.Option(None, help="The classifier's name at the endpoint."),
    safety_on: str | None = typer.Option(None, help="Judge prompt, responses or both (rules: prompt; else both)."),
    unparsed: str | None = typer.Option(None, help="Records without a verdict: drop, keep or stop (drop)."),
    confidence: float | None = typer.Option(None, help="Least confidence of an annotator (0.6)."),
    confidence_field: str | None = typer.Option(None, help="Its column, dots reach inside objects (confidence)."),
    from_margin: bool = typer.Option(False, "--from-margin", help="Take sigma(margin) as the confidence."),
    missing: str | None = typer.Option(None, help="Records without a confidence: keep or drop (keep)."),
    scorer: list[str] | None = typer.Option(
        None, metavar="NAME=MODEL[:INDEX]", help="Attribute by a reward model, one of its outputs; repeatable."
    ),
    scorer_layout: str | None = typer.Option(None, help="How reward models read: chat, hh, pair or response (auto)."),
    judge: str | None = typer.Option(None, help="URL of an endpoint whose model rates responses from 1 to 5."),
    judge_model: str | None = typer.Option(None, help="The judge's name at the endpoint."),
    rubric: list[str] | None = typer.Option(
        None, metavar="NAME[=TEXT]", help="Attribute that the judge rates, and what to look for; repeatable."
    ),
    measure: str | None = typer.Option(
        None, help="Attributes measured in the text, comma-separated (words, lix, ...)."
    ),
    implicit: list[str] | None = typer.Option(
        None, metavar="NAME=RUN", help="Attribute by a policy's implicit reward (MODPO's margins); repeatable."
    ),
    implicit_reference: str | None = typer.Option(None, help="What it was trained from (the base under its LoRA)."),
    quota: list[str] | None = typer.Option(
        None, metavar="COUNT[:NAME=RATING|any,...]", help="So many pairs that ask for these ratings; repeatable."
    ),
    embed: str | None = typer.Option(None, help="Whose states embed prompts for the step density (embedded)."),
    scores: Path | None = typer.Option(None, help="Folder that keeps scores (the cache, PLURALIGN_CACHE)."),
    order_by: str | None = typer.Option(None, help="Attributes whose mean orders responses, comma-separated (all)."),
    scales: str | None = typer.Option(None, help="Scales of attributes: range or quantiles of the data (range)."),
    validation: int | None = typer.Option(None, min=0, help=f"Records held out ({VALIDATION:,}; with --steps 0)."),
    seed: int | None = typer.Option(None, help="Which records are held out (0)."),
    kind: str | None = typer.Option(None, help="preference, demonstration, labelled or ranked (default: as they are)."),
    responses: str = Responses,
    split: str | None = Split,
    format: str = Format,
    columns: list[str] | None = Columns,
    group: str | None = Group,
    limit: int | None = Limit,
    bad_rows: str = BadRows,
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace what the folder holds."),
    as_json: bool = AsJson,
) -> None:
    """Prepare data: duplicates, length, safety, quality and a validation split, with counts."""
    given = {name: value for name, value in locals().items() if value is not None and value is not False}
    names = _names(given)
    from ..curate import curate as through
    from ..curate import write_curated
    from ..curate.files import check_folder, quarantine_in

    check_folder(output, overwrite=overwrite)
    loaded = open_source(source, split=split, format=format, columns=columns, group=group, limit=limit, kind=kind,
                         responses=responses, bad_rows=bad_rows, quarantine=quarantine_in(output))  # fmt: skip
    made = _made(names, {**given, "ranges": loaded.ranges})
    seen = _Seen(loaded)
    curated = through(seen, made)
    try:
        with seen.shown():
            report = write_curated(curated, output, about=_about(given, names, loaded), overwrite=overwrite)
    except KeyboardInterrupt:
        raise Stopped(f"stopped after {seen.read:,} records. {output} is as it was.") from None
    _unjudged(report)
    if as_json:
        print_json(report)
    else:
        _print(report, output)


def _names(given: dict[str, Any]) -> list[str]:
    """The steps asked for, in order. Raises SettingsError for unknown ones and for options that no step would read."""
    from ..curate import PRESETS, STEPS

    if "steps" in given:
        if "preset" in given:
            raise SettingsError("--preset and --steps cannot go together.")
        names = listing(given["steps"])
        if given.get("validation") and "hold_out" not in names:
            names.append("hold_out")
        if not names:
            raise SettingsError("--steps names no step.", remedy=f"Known: {', '.join(STEPS)}.")
    else:
        preset = given.get("preset", PRESET)
        if preset not in PRESETS:
            raise SettingsError(
                f'unknown preset "{preset}".{nearest(preset, PRESETS)}', remedy=f"Known: {', '.join(PRESETS)}."
            )
        names = list(PRESETS[preset])
        if "near" in given:
            names.insert(names.index("exact_duplicates") + 1, "near_duplicates")
        if given.get("validation") == 0:
            names.remove("hold_out")
    for name in names:
        if name not in STEPS:
            raise SettingsError(f'unknown step "{name}".{nearest(name, STEPS)}', remedy=f"Known: {', '.join(STEPS)}.")
    for step, options in OWN.items():
        unread = next((option for name, option in options.items() if given.get(name, 0) not in (0, [])), None)
        if unread and step not in names:
            raise SettingsError(f"{unread} is for the step {step}, which is not taken ({', '.join(names)}).")
    return names


def _made(names: list[str], given: dict[str, Any]) -> list[Any]:
    from ..curate import STEPS

    return [STEPS[name](**SETTINGS[name](given)) for name in names]


def _about(given: dict[str, Any], names: list[str], loaded: Any) -> dict[str, Any]:
    """What the report says of the source; the counts are known once it has been read."""
    from .. import __version__

    def source() -> dict[str, Any]:
        counts = loaded.counts
        return {
            "name": loaded.name,
            "format": loaded.format,
            "rows": counts.rows,
            "used": counts.used,
            "set_aside": dict(counts.bad),
            "without_record": dict(counts.skipped),
            "left_out_within_rows": dict(counts.partial),
            "records": counts.records,
            "limited": counts.limited,
            "ranges": loaded.ranges,
        }

    preset = None if "steps" in given else given.get("preset", PRESET)
    return {"pluralign": __version__, "command": command_line(), "preset": preset, "source": source}


class _Seen:
    """The records with a running count: a moving line on a terminal, a line now and then where there is none."""

    def __init__(self, records: Iterable[Any]) -> None:
        self.records, self.read = records, 0
        self.tell: Any = lambda: None

    def __iter__(self) -> Iterator[Any]:
        self.read = 0
        for record in self.records:
            self.read += 1
            self.tell()
            yield record

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        began = time.monotonic()
        out = console(err=True)
        if out.is_terminal and is_first():
            with out.status("reading …") as status:

                def moved() -> None:
                    if self.read % 100 == 0:
                        status.update(f"{self.read:,} records read")

                self.tell = moved
                yield
            return
        told = began

        def line() -> None:
            nonlocal told
            now = time.monotonic()
            if now - told >= PLAIN_SECONDS and is_first():
                told = now
                print(f"{self.read:,} records read  {clock(now - began)}", file=sys.stderr, flush=True)

        self.tell = line
        yield


# What is printed


def _unjudged(report: dict[str, Any]) -> None:
    """A filter that had nothing to go by is no filter, and one should know."""
    for step in report["steps"]:
        if step["step"] == "quality" and step["read"] and sum(step["noted"].values()) == step["read"]:
            note(f"quality: {next(iter(step['noted']))} in any record; see --confidence-field and --from-margin")


def _print(report: dict[str, Any], output: Path) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for head in ("step", "read", "out", "kept", ""):
        table.add_column(head, justify="right" if head in ("read", "out", "kept") else "left", no_wrap=bool(head))
    source = report["source"]
    aside = {**source["set_aside"], **source["without_record"]}
    more = f"{source['records']:,} records" if source["records"] != source["used"] else ""
    if aside or more:
        why = ", ".join(filter(None, (_listed(aside), more)))
        table.add_row("rows", f"{source['rows']:,}", f"{sum(aside.values()):,}", f"{source['used']:,}", Text(why))
    for step in report["steps"]:
        why = _listed(step["dropped"])
        why += f"{', ' if why else ''}{step['held_out']:,} held out" if step["held_out"] else ""
        why += f"{'; ' if why else ''}among those kept: {_listed(step['noted'])}" if step["noted"] else ""
        gone = step["held_out"] + sum(step["dropped"].values())
        table.add_row(step["step"], f"{step['read']:,}", f"{gone:,}", f"{step['kept']:,}", Text(why))
    console().print(table)
    print(f"\n{report['train']['records']:,} records to train on: {output / 'train.jsonl.gz'}")
    if report["validation"]["records"]:
        print(f"{report['validation']['records']:,} to validate on: {output / 'validation.jsonl.gz'}")
    gone = sum(sum(step["dropped"].values()) for step in report["steps"])
    print(f"{gone:,} dropped, with the reasons: {output / 'dropped.jsonl.gz'} · counts: {output / 'curation.json'}")
    if sum(source["set_aside"].values()):
        print(f"{sum(source['set_aside'].values()):,} malformed rows: {output / 'quarantine.jsonl'}")


def _listed(reasons: dict[str, int]) -> str:
    return ", ".join(f"{n:,} {why}" for why, n in reasons.items())
