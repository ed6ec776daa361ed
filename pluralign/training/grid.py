"""A grid of settings as it is typed: which words are axes, what their keys mean, how a point is called."""

from __future__ import annotations

import inspect
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from ..errors import SettingsError
from ..objectives import OBJECTIVES
from .settings import SECTIONS, WHOLE, Settings, keys

__all__ = ["MOST_POINTS", "axes_of", "flat", "full_key", "identity", "name_of", "plain", "short_key", "split_axes"]

MOST_POINTS = 500
NO_AXES = {
    "seed": "Seeds repeat a point instead of making new ones: --seeds 0,1,2.",
    "output": "Every run gets its own folder under --output.",
    "recipe": "A recipe is a preset: search objective=[...], or sweep each recipe by itself.",
}
Values = dict[str, Any]


def full_key(key: str) -> str:
    """`training.epochs` for `epochs`, `objective.beta` for `beta`; what is unknown stays as it is or reads alike."""
    found = keys().get(key, [])
    if key in WHOLE:
        return WHOLE[key]
    if found or "." in key:
        return found[0] if len(found) == 1 else key
    return f"objective.{key}" if any(key in o.defaults for o in OBJECTIVES.values()) else key


def short_key(key: str) -> str:
    """The shortest word that means the setting: the inverse of `full_key`."""
    whole = {full: word for word, full in WHOLE.items()}
    leaf = key.rpartition(".")[2]
    return whole.get(key) or (leaf if full_key(leaf) == key else key)


def split_axes(words: Iterable[str]) -> tuple[dict[str, str], dict[str, list[Any]]]:
    """(`key=value` words by full key, values of every axis by full key) of what stands on a command line.

    A list is an axis unless the setting itself takes one; then a list of lists is. The last word on a key counts.
    Raises SettingsError for an axis without values, or over something that cannot be one.
    """
    fixed: dict[str, str] = {}
    axes: dict[str, list[Any]] = {}
    for word in words:
        key, _, text = word.partition("=")
        key = full_key(key.strip())
        fixed.pop(key, None)
        axes.pop(key, None)
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = None  # `build` says what is wrong with it
        if isinstance(value, list) and (not _takes_list(key) or any(isinstance(v, list) for v in value)):
            axes[key] = value
        else:
            fixed[key] = word
    return fixed, axes


def axes_of(axes: Mapping[str, Sequence[Any]], grid: Mapping[str, Sequence[Any]], fixed: Iterable[str],
            recipe: str) -> dict[str, list[Any]]:  # fmt: skip
    """The axes that were asked for; where there are none, the recipe's grid without what was given a value.

    Raises SettingsError where nothing is left, for an empty axis, and over more than 500 points.
    """
    own = {full_key(key): list(values) for key, values in grid.items()}
    chosen = dict(axes) or {key: values for key, values in own.items() if key not in set(fixed)}
    if not chosen:
        why = f'every axis of the grid of "{recipe}" was given one value' if own else f'"{recipe}" has no grid'
        raise SettingsError(
            f"nothing to search: no setting is a list, and {why}.", remedy="For example: beta=[0.1,0.3,0.5]."
        )
    for key, values in chosen.items():
        if key in NO_AXES:
            raise SettingsError(f'"{key}" cannot be an axis.', remedy=NO_AXES[key])
        if not values:
            raise SettingsError(f'the axis "{short_key(key)}" is empty.', remedy="Write key=[v1,v2,...].")
    count = math.prod(len(values) for values in chosen.values())
    if count > MOST_POINTS:
        raise SettingsError(f"{count:,} points are more than {MOST_POINTS}.", remedy="Shorten an axis.")
    return {key: list(values) for key, values in chosen.items()}


def _takes_list(key: str) -> bool:
    """Whether the setting is a list or a tuple itself, in every objective that has one of that name."""
    section, _, leaf = key.rpartition(".")
    if section == "objective" and leaf != "name":
        signatures = [inspect.signature(o.function).parameters for o in OBJECTIVES.values()]
        kinds = [s[leaf].annotation for s in signatures if leaf in s]
    else:
        model = SECTIONS.get(section, Settings)
        kinds = [model.model_fields[leaf].annotation] if leaf in model.model_fields else []
    takes = [bool(re.search(r"\b(list|tuple|sequence)\b", str(kind), re.IGNORECASE)) for kind in kinds]
    return bool(takes) and all(takes)


def flat(tree: Mapping[str, Any]) -> Values:
    """Settings under full keys."""
    out: Values = {}
    for key, value in tree.items():
        inner = value if key in SECTIONS and isinstance(value, Mapping) else None
        out |= {key: value} if inner is None else {f"{key}.{leaf}": v for leaf, v in inner.items()}
    return out


def identity(values: Mapping[str, Any]) -> str:
    def same(value: Any) -> Any:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return float(value) if number else value

    return json.dumps({key: same(value) for key, value in values.items()}, sort_keys=True)


def plain(value: Any) -> str:
    """A value as one would type it."""
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    try:
        if yaml.safe_load(value) == value:
            return value
    except yaml.YAMLError:
        pass
    return yaml.safe_dump(value, default_style='"', width=math.inf, allow_unicode=True).strip()


def name_of(values: Mapping[str, Any]) -> str:
    """`beta=0.1,gamma=0.5`: a name for a folder that says what is in it; the number before it tells points apart."""
    parts = (f"{short_key(key)}={plain(v).rstrip('/').rpartition('/')[2]}" for key, v in values.items())
    return re.sub(r"[^\w.,=+-]+", "-", ",".join(parts))[:100]
