"""The audit for a person: coloured tokens of the first records, tables, and what is wrong in plain words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from .findings import Audit, Example, Merge, summary
from .spans import ROLES, Shown

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

__all__ = ["print_audit"]

# Two shades of background per role: neighbouring tokens differ, so that every token boundary can be seen.
SHADES = {
    "bos": ("#7d4b00", "#5f3900"),
    "system": ("#4d3d80", "#2c2350"),
    "user": ("#0f4f85", "#08304f"),
    "assistant": ("#146060", "#0a3434"),
    "tool": ("#606018", "#36360c"),
    "template": ("#4a4a4a", "#2b2b2b"),
    "condition": ("#872d6e", "#4d193f"),
    "target": ("#1a6b29", "#0d3a15"),
    "eos": ("#9c2020", "#6b1616"),
}
BARS = " ▁▂▃▄▅▆▇█"
HEAD, TAIL = 160, 80  # tokens shown of a long stretch


def print_audit(audit: Audit, console: Console | None = None, *, ids: bool = False) -> None:
    """Print the audit. With `ids`, every token is followed by its id. Without colours, tokens are parted by bars."""
    from rich.console import Console
    from rich.text import Text

    console = console or Console()
    plain = console.color_system is None or console.no_color
    for example in audit.examples:
        _print_example(console, example, ids, plain)
    if audit.examples and not plain:
        console.print(_legend(audit.examples))
        console.print()
    console.print(_overview(audit))
    if audit.lengths:
        console.print(_lengths(audit, console.width))
    if audit.merge_examples:
        console.print(_merges(audit.merge_examples))
    for line in audit.notes:
        console.print(_point("note", "yellow", line))
    for line in audit.breaches:
        console.print(_point("breach", "bold red", line))
    if audit.ok:
        console.print(Text(f"ok: {audit.rows:,} rows, no breaches", style="bold green"))


# Records


def _print_example(console: Console, example: Example, ids: bool, plain: bool) -> None:
    from rich.rule import Rule
    from rich.text import Text

    console.print(Rule(Text(example.where, style="bold cyan"), style="dim", align="left"))
    alike: dict[tuple[tuple[int, ...], tuple[int, ...]], list[str]] = {}  # terms that are the same tokens, shown once
    for name, shown in example.shown.items():
        alike.setdefault((tuple(shown.rendered.context), tuple(shown.rendered.target)), []).append(name)
    previous: tuple[int, ...] | None = None
    for (context, target), names in alike.items():
        shown, n = example.shown[names[0]], len(context)
        if context != previous:
            lost = f", {shown.rendered.cut_context:,} cut before it" if shown.rendered.cut_context else ""
            console.print(_heading("prompt", f"{n:,} tokens{lost}"))
            console.print(_tokens(shown, 0, n, ids, plain))
        previous = context
        lost = f", {shown.rendered.cut_target:,} cut after it" if shown.rendered.cut_target else ""
        console.print(_heading(", ".join(names), f"{len(target):,} tokens{lost}"))
        console.print(_tokens(shown, n, n + len(target), ids, plain))
        console.print()


def _heading(name: str, detail: str) -> Text:
    from rich.text import Text

    return Text.assemble((name, "bold"), " ", (detail, "dim"))


def _tokens(shown: Shown, start: int, end: int, ids: bool, plain: bool) -> Text:
    from rich.text import Text

    roles = [span.role for span in shown.spans for _ in range(span.start, span.end)]
    every = shown.rendered.ids
    out = Text(overflow="fold")
    spoken = ""
    for i in _window(start, end):
        if i is None:
            out.append(f"\n … {end - start - HEAD - TAIL:,} tokens …\n", style="dim italic")
            continue
        role = roles[i]
        text = _visible(shown.tokens[i])
        if plain:
            out.append(f" <{role}> " if role != spoken else "|")
            spoken = role
        weight = "bold " if role in ("bos", "eos") else ""
        out.append(text, style="" if plain else f"{weight}white on {SHADES[role][i % 2]}")
        if ids:
            out.append(f"{every[i]} ", style="dim")
    return out


def _window(start: int, end: int) -> Iterator[int | None]:
    """The tokens to show: all of a short stretch, both ends of a long one with None between them."""
    if end - start <= HEAD + TAIL + 20:
        yield from range(start, end)
        return
    yield from range(start, start + HEAD)
    yield None
    yield from range(end - TAIL, end)


def _visible(text: str) -> str:
    """White space that a person can see. A token that continues a character already shown is a middle dot."""
    if not text:
        return "·"
    shown = text.replace("\r", "␍").replace("\t", "⇥ ")
    return "".join("⏎\n" if c == "\n" else c if c.isprintable() else f"\\u{ord(c):04x}" for c in shown)


def _legend(examples: Sequence[Example]) -> Text:
    from rich.text import Text

    used = {span.role for e in examples for shown in e.shown.values() for span in shown.spans}
    out = Text()
    for role in ROLES:
        if role in used:
            out.append(f" {role} ", style=f"white on {SHADES[role][0]}")
            out.append(" ")
    out.append("each shade is one token, ⏎ a line break, · the rest of a split character", style="dim")
    return out


# Counts


def _overview(audit: Audit) -> Table:
    table = _grid()
    bos = ", ".join(f"{k}: {n:,}" for k, n in sorted(audit.bos.items())) or "none"
    ends = ", ".join(f"{k}: {n:,}" for k, n in sorted(audit.ends.items())) or "none"
    expected = "one expected" if audit.uses_bos else "none expected"
    rows: list[tuple[str, RenderableType]] = [
        ("records", f"{audit.rows:,}, of which {len(audit.failed):,} cannot be rendered"),
        ("terms", f"{audit.terms:,}"),
        ("template", audit.template),
        ("tokens", f"{audit.tokens:,} before truncation to {audit.max_length:,} a term"),
        ("truncated", f"{len(audit.rows_cut):,} of {audit.rows:,} records, {audit.tokens_cut:,} tokens lost"),
        ("BOS a prompt", f"{bos} ({expected})"),
        ("ends a response", f"{ends} ({'one a turn, none where cut' if audit.eos else 'left off'})"),
        ("merges avoided", f"{audit.merges:,}"),
    ]
    for name, value in rows:
        table.add_row(name, value)
    return table


def _grid() -> Table:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    return table


def _lengths(audit: Audit, width: int) -> Table:
    from rich.table import Table

    top = max(max(values) for values in audit.lengths.values())
    bins = max(min(width - 52, 48), 12)
    table = Table(box=None, padding=(0, 1), title_justify="left")
    table.add_column("tokens", style="dim", no_wrap=True)
    for name in ("n", "median", "p95", "max"):
        table.add_column(name, justify="right")
    table.add_column(f"0 to {top:,}")
    for name, values in audit.lengths.items():
        s = summary(values)
        cells = (f"{int(s[k]):,}" for k in ("n", "median", "p95", "max"))
        table.add_row(name, *cells, _bars(values, top, bins))
    return table


def _bars(values: Sequence[int], top: int, bins: int) -> Text:
    """A histogram in one line: `bins` bars over 0..top, the height of each relative to the highest."""
    from rich.text import Text

    places = sorted(min(v * bins // (top + 1), bins - 1) for v in values)
    counts = {place: len(list(run)) for place, run in groupby(places)}
    highest = max(counts.values())
    return Text("".join(_bar(counts.get(i, 0), highest) for i in range(bins)), style="cyan", no_wrap=True)


def _bar(count: int, highest: int) -> str:
    return BARS[-(-count * (len(BARS) - 1) // highest)]


def _merges(examples: Sequence[Merge]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1))
    for name in ("merge avoided at", "apart (used)", "together"):
        table.add_column(name, overflow="fold")
    for merge in examples:
        table.add_row(Text(merge.where), Text(" ".join(merge.apart)), Text(" ".join(merge.joined)))
    return table


def _point(word: str, style: str, line: str) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row(Text(f"{word}:", style=style), Text(line))
    return table
