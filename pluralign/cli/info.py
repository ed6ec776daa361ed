"""What there is to choose from: recipes, objectives, the cache, the version."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import typer

from .console import console, print_json

if TYPE_CHECKING:
    from ..recipes import Recipe

__all__ = ["EPILOG_CACHE", "EPILOG_RECIPES", "cache", "objectives", "recipes", "version"]

KINDS = ("demonstrations", "pairs", "labels", "lists")
EPILOG_RECIPES = """\b
Examples:
  pluralign recipes
  pluralign recipes dpo
  pluralign recipes dpo > my_run.yaml       a file to change and to run: pluralign align my_run.yaml
"""
EPILOG_CACHE = """\b
Examples:
  pluralign cache             where it is and how much it holds
  pluralign cache --clear     remove it; what is needed is computed anew
"""


def recipes(
    name: str | None = typer.Argument(None, help="Show this one in full."),
    as_json: bool = typer.Option(False, "--json", help="As JSON on stdout."),
) -> None:
    """List the recipes, or show one in full."""
    from ..recipes import recipe
    from ..recipes import recipes as every

    found = [recipe(name)] if name else list(every().values())
    if as_json:
        rows = [_as_dict(r) for r in found]
        print_json(rows[0] if name else rows)
    elif name:
        print(_as_yaml(found[0]))
    else:
        _list([(r.name, r.title, r.paper) for r in found])
        print("\n`pluralign recipes NAME` shows one in full.")


def _as_dict(recipe: Recipe) -> dict[str, Any]:
    return {f.name: getattr(recipe, f.name) for f in fields(recipe) if f.name != "plan"}


def _as_yaml(recipe: Recipe) -> str:
    """The recipe as a settings file: what is prose stands in comments, so that it can be run as it is."""
    import textwrap

    import yaml

    def comment(label: str, text: str) -> list[str]:
        return textwrap.wrap(f"{label}: {text}", 110, initial_indent="# ", subsequent_indent="#   ")

    lines = [f"# {recipe.title}", *comment("paper", recipe.paper)]
    lines += [f"#   {equation}" for equation in recipe.equations]
    lines += [*comment("needs", recipe.needs), *comment("note", recipe.note)]
    lines += [f"# `pluralign sweep {recipe.name}` searches {k}: {list(v)}" for k, v in recipe.grid.items()] + [""]
    return "\n".join(lines) + yaml.safe_dump(dict(recipe.preset), sort_keys=False, allow_unicode=True).rstrip()


def objectives(as_json: bool = typer.Option(False, "--json", help="As JSON on stdout.")) -> None:
    """List the losses with their formulas."""
    from ..objectives import OBJECTIVES

    if as_json:
        names = ("name", "data", "formula", "paper", "needs", "reads", "optional", "reference", "defaults", "per_token")
        print_json([{n: getattr(o, n) for n in names} for o in OBJECTIVES.values()])
        return
    out = console()
    for o in sorted(OBJECTIVES.values(), key=lambda o: (KINDS.index(o.data), o.name)):
        hyper = ", ".join(f"{k}={v}" for k, v in o.defaults.items())
        out.print(f"[bold]{o.name}[/bold]  {hyper}")
        out.print(f"  {o.formula}", markup=False)
        out.print(f"  {_requirements(o)}", markup=False)
        out.print(f"  {o.paper}\n", markup=False, style="dim")


def _requirements(o: Any) -> str:
    """What an objective wants of the data and of the machine."""
    parts = [f"from {o.data}", "needs a reference" if o.reference else "no reference"]
    parts += [f"reads {', '.join(o.reads)} of every token"] if o.reads else []
    columns = [n for n in o.needs if n in ("margin", "p")]
    parts += [f"a column {', '.join(columns)}"] if columns else []
    parts += [f"column {', '.join(o.optional)} where there is one"] if o.optional else []
    return "; ".join(parts)


def _list(rows: list[tuple[str, ...]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    for style in ("bold", "", "dim"):
        table.add_column(style=style, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console().print(table)


def cache(
    clear: bool = typer.Option(False, "--clear", help="Remove everything in it."),
    as_json: bool = typer.Option(False, "--json", help="As JSON on stdout."),
) -> None:
    """Reference readings on disk: where, how much."""
    import shutil

    from ..scoring.reference import cache_folder

    folder = cache_folder()
    files = [p for p in (folder / "reference").rglob("*") if p.is_file()]
    size = sum(p.stat().st_size for p in files)
    if clear:
        shutil.rmtree(folder / "reference", ignore_errors=True)
    if as_json:
        print_json({"folder": folder, "files": len(files), "bytes": size, "cleared": clear})
    else:
        print(f"{folder}: {len(files):,} files, {size / 1e6:,.1f} MB{' (removed)' if clear else ''}")


def version(as_json: bool = typer.Option(False, "--json", help="As JSON on stdout.")) -> None:
    """Versions of pluralign and its libraries."""
    import importlib.metadata
    import platform

    from .. import __version__

    found = {"pluralign": __version__, "python": platform.python_version()}
    for name in ("torch", "transformers", "accelerate", "datasets", "peft"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    if as_json:
        print_json(found)
    else:
        print("\n".join(f"{name} {number}" for name, number in found.items()))
