"""`pluralign merge`: rewarded soups of trained policies, one folder or a whole grid of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from ..errors import SettingsError
from .console import note, quiet_libraries

__all__ = ["EPILOG", "merge"]

EPILOG = """\b
Examples:
  pluralign merge runs/helpful runs/harmless --weights 0.3,0.7 --output runs/soup
  pluralign merge runs/helpful runs/harmless --grid 11 --output runs/soups     one folder a point: runs/soups/0.30-0.70
  pluralign merge runs/lora --weights 1 --into-base --output runs/full         an adapter merged into its base

\b
Every policy must have been trained from the same weights. What comes out is loaded like any run:
`pluralign chat runs/soup`. With LoRA, what the adapters add is averaged exactly (--space delta).
"""


def merge(
    models: list[str] = typer.Argument(..., metavar="MODEL...", help="Run folders, or folders of models or adapters."),
    output: Path = typer.Option(..., help="Folder for the merged policy, or for the folders of the grid."),
    weights: str | None = typer.Option(None, help="One weight for each model, as in 0.3,0.7."),
    grid: int | None = typer.Option(None, min=2, help="So many points from 0 to 1 for each model's weight."),
    space: str = typer.Option("delta", help="Adapters: average what they add (delta), or each factor (factors)."),
    into_base: bool = typer.Option(False, "--into-base", help="Adapters: write the full model."),
    extrapolate: bool = typer.Option(False, "--extrapolate", help="Allow weights below 0 and above 1."),
    assume_same_start: bool = typer.Option(
        False, "--assume-same-start", help="Full checkpoints: do not look whether all started from the same weights."
    ),
    without_scores: bool = typer.Option(
        False, "--without-scores", help="Leave out attribute scores and the heads that sense or rate them."
    ),
    trust_remote_code: bool = typer.Option(False, "--trust-remote-code", help="Run code that comes with the model."),
) -> None:
    """Average the weights of policies that were trained from one start (rewarded soups)."""
    if (weights is None) == (grid is None):
        raise SettingsError("give one of --weights W,W,... and --grid POINTS.")
    rows = [_numbers(weights)] if weights is not None else _grid(len(models), grid or 0)
    folders = [output] if weights is not None else [output / "-".join(f"{w:.2f}" for w in row) for row in rows]
    if len(set(folders)) < len(folders):
        raise SettingsError(f"--grid {grid} is too fine: folders are named by two decimals.")
    for folder in folders:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise SettingsError(f"{folder} exists already.", remedy="Choose another --output.")
    options: dict[str, Any] = {
        "space": space, "into_base": into_base, "extrapolate": extrapolate, "assume_same_start": assume_same_start,
        "keep_scores": not without_scores,
    }  # fmt: skip
    quiet_libraries()
    from ..policy import Policy
    from ..soups import front

    policies = [Policy.load(m, trust_remote_code=trust_remote_code) for m in models]
    for folder, (row, made) in zip(folders, front(policies, rows, **options), strict=True):
        made.save(folder)
        made_of = {"models": models, "weights": row, "space": space, "into_base": into_base}
        (folder / "soup.json").write_text(json.dumps(made_of, indent=1))
        note(f"{' + '.join(f'{w:g} {m}' for w, m in zip(row, models, strict=True))} written to {folder}")


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise SettingsError(f'--weights are numbers with commas between them, not "{text}".') from None


def _grid(models: int, points: int) -> list[list[float]]:
    from ..judging.fronts import simplex_grid

    return [[float(w) for w in row] for row in simplex_grid(models, points - 1)]
