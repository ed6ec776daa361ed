"""Recipes: one small file per published method, found by their place in this folder.

A recipe is a preset: everything it sets is an ordinary setting and can be overridden. Adding one is a new file here
that declares `RECIPE`, and a row in docs/papers.md; nothing else has to know of it.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from ..errors import SettingsError, nearest
from ..terms import Plan

__all__ = ["USUAL", "Recipe", "recipe", "recipes"]

# Training settings common for DPO on instruction data, where a paper names none.
USUAL: dict[str, Any] = {
    "learning_rate": 5e-7, "batch_size": 64, "epochs": 1, "schedule": "cosine", "warmup": 0.1,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Recipe:
    """A method as it is run. `preset` is a nested mapping of settings (see `training.settings`).

    `plan` replaces the plan that follows from the objective. `grid` holds the values that the paper searched, by
    setting (`pluralign sweep NAME`). `needs` says what the data and the model must have,
    `note` what is the paper's, what is ours and why.
    """

    name: str
    title: str
    paper: str
    equations: tuple[str, ...]
    preset: Mapping[str, Any]
    needs: str
    note: str
    plan: Plan | None = None
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)


@cache
def recipes() -> dict[str, Recipe]:
    """Every recipe of this folder by name, in alphabetical order."""
    found: dict[str, Recipe] = {}
    for module in sorted(m.name for m in pkgutil.iter_modules(__path__)):
        own: Recipe = importlib.import_module(f".{module}", __name__).RECIPE
        if own.name != module:
            raise ValueError(f'recipes/{module}.py declares the recipe "{own.name}".')
        found[own.name] = own
    return found


def recipe(name: str) -> Recipe:
    """The recipe of that name. Raises SettingsError with the nearest known name."""
    found = recipes().get(name)
    if found is None:
        hint = nearest(name, recipes())
        remedy = "" if hint else f"Known: {', '.join(recipes())}, or a YAML file."
        raise SettingsError(f'unknown recipe "{name}".{hint}', remedy=remedy)
    return found
