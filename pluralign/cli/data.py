"""`pluralign data`: look at data before anything is trained on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from ..errors import RecordError, SettingsError, nearest
from . import plural
from .console import console, print_json, quiet_libraries, warn

__all__ = ["app"]

EPILOG_INSPECT = """\b
Examples:
  pluralign data inspect pairs.jsonl
  pluralign data inspect HuggingFaceH4/ultrafeedback_binarized --split train_prefs
  pluralign data inspect answers.csv --columns prompt=question --columns chosen=best --columns rejected=worst
"""
EPILOG_AUDIT = """\b
Examples:
  pluralign data audit pairs.jsonl --model Qwen/Qwen3-0.6B
  pluralign data audit pairs.jsonl --max-length 512 --limit 2000 --show 1

\b
Exit code 3 where a promise of the rendering contract is broken (see "breach" lines).
"""
EPILOG_CONVERT = """\b
Examples:
  pluralign data convert answers.csv pairs.jsonl
  pluralign data convert ratings.parquet pairs.jsonl.gz --kind preference
  pluralign data convert ratings.parquet answers.jsonl.gz --kind demonstration --responses all
"""

app = typer.Typer(help="Look at data, and make some: inspect, audit, convert, make.", no_args_is_help=True,
                  rich_markup_mode=None)  # fmt: skip
app.add_typer(plural.app, name="make")

Source = typer.Argument(..., help="File, folder or hub data set, or `embedded`.")
Split = typer.Option(None, "--split", help="Split of a hub data set or a folder.")
Format = typer.Option("auto", "--format", help="Row format (docs/data-formats.md).")
Columns = typer.Option(None, "--columns", metavar="OURS=THEIRS", help="A column by its name in the file; repeatable.")
Group = typer.Option(None, "--group", help="Whose preference to take, where rows hold several.")
Limit = typer.Option(None, "--limit", min=1, help="Read at most so many records.")
BadRows = typer.Option("stop", "--bad-rows", help="What a malformed row does: stop or quarantine.")
Responses = typer.Option("best", "--responses", help="Responses that make demonstrations: best or all.")
AsJson = typer.Option(False, "--json", help="As JSON on stdout.")


def open_source(
    source: str, *, split: str | None, format: str, columns: list[str] | None, group: str | None, **options: Any
) -> Any:
    """The source as `data.load` has it; `embedded` are the shipped training pairs."""
    from ..assets import PAIRS_DIR
    from ..data import load

    pairs = [text.partition("=") for text in columns or []]
    for ours, equals, theirs in pairs:
        if not (ours and equals and theirs):
            raise SettingsError(f'--columns "{ours}{equals}{theirs}" is not OURS=THEIRS, for example prompt=question.')
    named = {ours: theirs for ours, _, theirs in pairs}
    where = PAIRS_DIR / "train.jsonl.gz" if source == "embedded" else source
    return load(where, split=split, format=format, columns=named or None, group=group, **options)


@app.command("inspect", epilog=EPILOG_INSPECT)
def inspect(
    source: str = Source,
    split: str | None = Split,
    format: str = Format,
    columns: list[str] | None = Columns,
    group: str | None = Group,
    limit: int | None = Limit,
    examples: int = typer.Option(2, min=0, help="Records shown."),
    as_json: bool = AsJson,
) -> None:
    """What a source holds: format, counts, lengths, examples; malformed rows by reason."""
    import tempfile

    from ..data import inspect as look

    with tempfile.TemporaryDirectory() as folder:  # rows are only counted here, none is set aside for good
        loaded = open_source(source, split=split, format=format, columns=columns, group=group, limit=limit,
                             bad_rows="quarantine", quarantine=Path(folder) / "rows.jsonl")  # fmt: skip
        found = look(loaded, examples)
        first_bad = loaded.counts.first_bad
    if as_json:
        print_json({**found, "first_bad": first_bad or None})
        return
    _print_inspection(found)
    if first_bad:
        warn(f"{sum(found['set_aside'].values()):,} malformed rows; the first is {first_bad}")


def _print_inspection(found: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    out = console()
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    lines: list[tuple[str, str]] = [
        ("source", found["source"]),
        ("format", f"{found['format']} ({found['title']})"),
        ("rows", f"{found['rows']:,}"),
        ("records", ", ".join(f"{n:,} {kind}" for kind, n in found["kinds"].items())),
        ("set aside", _counts(found["set_aside"])),
        ("no record", _counts(found["without_record"])),
        ("left out", _counts(found["left_out_within_rows"])),
        ("prompt turns", _counts(found["prompt_turns"], "{n:,} with {name}")),
        ("roles", _counts(found["prompt_roles"])),
        ("groups", _counts(found["groups"])),
        ("also", _counts(found["with"])),
    ]
    lines += [
        (name, "characters: " + ", ".join(f"{k} {v:,}" for k, v in q.items()))
        for name, q in found["characters"].items()
    ]
    for name, text in lines:
        if text:
            table.add_row(Text(name), Text(text))
    out.print(table)
    for number, row in enumerate(found["examples"], start=1):
        out.print(f"\nexample {number}", style="bold")
        for name in ("prompt", "chosen", "rejected", "response"):
            for turn in row.get(name, []):
                out.print(Text.assemble((f"  {name}, {turn['role']}: ", "dim"), _short(turn["content"])))
        for i, response in enumerate(row.get("responses", [])):
            score = f" ({row['scores'][i]:g})" if i < len(row.get("scores", [])) else ""
            for turn in response:
                out.print(Text.assemble((f"  response {i + 1}{score}: ", "dim"), _short(turn["content"])))


def _counts(counts: dict[Any, int], form: str = "{n:,} {name}") -> str:
    return ", ".join(form.format(n=n, name=name) for name, n in counts.items())


def _short(text: str, most: int = 200) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[:most]}…"


@app.command("audit", epilog=EPILOG_AUDIT)
def audit(
    source: str = Source,
    model: str = typer.Option("embedded", help="Whose tokenizer and template to render with."),
    split: str | None = Split,
    format: str = Format,
    columns: list[str] | None = Columns,
    group: str | None = Group,
    limit: int = typer.Option(5000, min=1, help="Records rendered and checked."),
    show: int = typer.Option(3, min=0, help="Records shown token by token."),
    max_length: int | None = typer.Option(None, min=16, help="Tokens of context and response together."),
    template: str | None = typer.Option(None, help="chat, plain, hh, raw, or auto."),
    conditioning: str = typer.Option("none", help="none, one-sided or cross: show the other response as InSPO does."),
    scores: str | None = typer.Option(None, help="Show attribute scores in these words: sga, ric, cpo or steerlm."),
    style: str = typer.Option("separator", help="How the other response is shown: separator or turns."),
    ids: bool = typer.Option(False, "--ids", help="Print the id beside every token."),
    as_json: bool = AsJson,
) -> None:
    """What a model would really be trained on: coloured tokens, truncation, and every promise checked."""
    import tempfile

    quiet_libraries()
    from ..conditioning import STRATEGIES, Conditioning, conditioned, scored
    from ..policy import load_tokenizer
    from ..render import Renderer
    from ..render.audit import audit as check
    from ..render.audit import default_plan, print_audit

    for word, value, known in (("conditioning", conditioning, STRATEGIES), ("style", style, ("separator", "turns"))):
        if value not in known:
            remedy = "" if nearest(value, known) else f"Known: {', '.join(known)}."
            raise SettingsError(f'unknown {word} "{value}".{nearest(value, known)}', remedy=remedy)
    tokenizer, rendering = load_tokenizer(model)
    rendering |= {k: v for k, v in (("max_length", max_length), ("template", template)) if v is not None}
    with tempfile.TemporaryDirectory() as folder:  # malformed rows are counted, none is set aside for good
        loaded = open_source(source, split=split, format=format, columns=columns, group=group, limit=limit,
                             bad_rows="quarantine", quarantine=Path(folder) / "rows.jsonl")  # fmt: skip
        plan = scored(default_plan, _form(loaded, scores)) if scores else default_plan
        plan = conditioned(plan, Conditioning(conditioning, style))
        found = check(loaded, Renderer(tokenizer, **rendering), plan, show_rows=0 if as_json else show)
    counts = loaded.counts
    if as_json:
        names = ("terms", "template", "max_length", "tokens", "tokens_cut", "breaches", "notes")
        about = {"rows": counts.rows, "set_aside": dict(counts.bad), "first_bad": counts.first_bad or None}
        about |= {"without_record": dict(counts.skipped), "limited": counts.limited, "records": found.rows}
        about |= {"failed": len(found.failed), "truncated": len(found.rows_cut)}
        print_json({**about, **{name: getattr(found, name) for name in names}})
    else:
        print_audit(found, console(), ids=ids)
        console().print(f"\n{_accounted(counts)}" + (f" · stopped at --limit {limit:,}" if counts.limited else ""))
        if counts.first_bad:
            warn(f"{counts.bad.total():,} malformed rows; the first is {counts.first_bad}")
    if not found.ok:
        raise typer.Exit(RecordError.exit_code)


def _accounted(counts: Any) -> str:
    """Where every row read went."""
    parts = [f"{counts.used:,} used", *(f"{n:,} malformed: {why}" for why, n in counts.bad.items())]
    parts += [f"{n:,} without a record: {why}" for why, n in counts.skipped.items()]
    return f"{counts.rows:,} rows read = " + " + ".join(parts)


@app.command("convert", epilog=EPILOG_CONVERT)
def convert(
    source: str = Source,
    target: Path = typer.Argument(..., help="A .jsonl or .jsonl.gz file."),
    kind: str | None = typer.Option(None, help="preference, demonstration, labelled or ranked (default: as they are)."),
    responses: str = Responses,
    split: str | None = Split,
    format: str = Format,
    columns: list[str] | None = Columns,
    group: str | None = Group,
    bad_rows: str = BadRows,
    limit: int | None = Limit,
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace the file."),
    as_json: bool = AsJson,
) -> None:
    """Write any source as rows of pluralign's own format, each validated."""
    from ..data import convert as write

    loaded = open_source(source, split=split, format=format, columns=columns, group=group, limit=limit, kind=kind,
                         bad_rows=bad_rows, responses=responses)  # fmt: skip
    written = write(loaded, target, overwrite=overwrite)
    if as_json:
        print_json({"written": written, "target": target, "about": loaded.describe()})
    else:
        print(f"{loaded.describe()}\n{written:,} rows written to {target}")


def _form(loaded: Any, wording: str) -> Any:
    """The scores of the data on the scale that goes with a wording, as the recipe of that method has it."""
    from ..attributes import ScoreForm, fit_scales
    from ..conditioning import scores_of

    normal = {"sga": "range", "ric": "z"}.get(wording, "none")
    scales = fit_scales(map(scores_of, loaded), normal=normal, ranges=loaded.ranges)  # type: ignore[arg-type]
    return ScoreForm(scales, wording, normal)  # type: ignore[arg-type]
