"""Weighted sums of registered objectives, written as text: `dpo + 0.2*nll`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .core import GIVEN, OBJECTIVES, Batch, Objective, Outcome, Readings

__all__ = ["mix"]


@dataclass(frozen=True, slots=True)
class _Part:
    weight: float
    objective: Objective

    @property
    def name(self) -> str:
        return self.objective.name


def mix(expression: str) -> Objective:
    """The weighted sum of registered objectives that a text such as "dpo + 0.2*nll" describes.

    It needs and reads what any part does; statistics and running numbers go by "<part>.<name>". A hyper-parameter is
    "<part>_<name>", or `name` alone where one part has it; where both are given, both must say the same. Metrics of the
    first part keep their names, those of others are "<part>_<name>", and "<part>_loss" is each part before its weight.

    Raises KeyError for an unknown name (with the nearest known one), ValueError for a text that is no such sum, for a
    part that is normalised by tokens (sft), that occurs twice, or that learns from another kind of record.
    """
    parts = _parse(expression)
    names = [p.name for p in parts]
    for part in parts:
        if part.objective.per_token:
            raise ValueError(
                f'"{part.name}" is averaged over tokens and cannot be added to a loss that is averaged over examples.'
            )
        if names.count(part.name) > 1:
            raise ValueError(f'"{part.name}" occurs more than once in "{expression}".')
        if part.objective.data != parts[0].objective.data:
            raise ValueError(
                f'"{parts[0].name}" learns from {parts[0].objective.data} and "{part.name}" from {part.objective.data}.'
            )
    return Objective(
        name=" + ".join(f"{p.weight:g}*{p.name}" if p.weight != 1 else p.name for p in parts),
        function=_function(parts),
        needs=_union(p.objective.needs for p in parts),
        formula=" + ".join(f"{p.weight:g} ({p.objective.formula})" for p in parts),
        paper="; ".join(p.objective.paper for p in parts),
        reads=_union(p.objective.reads for p in parts),
        statistics=_statistics(parts) if any(p.objective.statistics for p in parts) else None,
        update=_update(parts) if any(p.objective.update for p in parts) else None,
    )


# Text to parts


def _parse(expression: str) -> tuple[_Part, ...]:
    """Terms "name" or "weight*name" joined by "+"."""
    return tuple(_part(term.strip(), expression) for term in expression.split("+"))


def _part(term: str, expression: str) -> _Part:
    number, star, name = term.rpartition("*")
    name = name.strip()
    if not name or (star and not number.strip()):
        raise ValueError(f'"{expression}" is no sum of objectives such as "dpo + 0.2*nll".')
    try:
        weight = float(number) if star else 1.0
    except ValueError:
        raise ValueError(f'"{number.strip()}" in "{expression}" is no number.') from None
    if not (math.isfinite(weight) and weight > 0):
        raise ValueError(f'the weight of "{name}" in "{expression}" must be above 0.')
    if name not in OBJECTIVES:
        # the same letters in another order come first: "dop" means "dpo" and not "dpop"
        near = min(OBJECTIVES, key=lambda known: (sorted(known) != sorted(name), _distance(name, known), known))
        raise KeyError(f'unknown objective "{name}" in "{expression}"; the nearest is "{near}".')
    return _Part(weight, OBJECTIVES[name])


def _distance(a: str, b: str) -> int:
    """How many letters must be put in, taken out or exchanged to make b of a."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


def _union(groups: Iterable[Sequence[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for group in groups for name in group))


# Hyper-parameters


def _addresses(parts: Sequence[_Part]) -> dict[str, tuple[str, str]]:
    """Every name a hyper-parameter can be given by -> (part, its own name); bare names where they are unambiguous."""
    full = {f"{p.name}_{own}": (p.name, own) for p in parts for own in p.objective.defaults}
    owners: dict[str, list[str]] = {}
    for part in parts:
        for own in part.objective.defaults:
            owners.setdefault(own, []).append(part.name)
    return {own: (who[0], own) for own, who in owners.items() if len(who) == 1 and own not in full} | full


def _resolve(parts: Sequence[_Part], given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Hyper-parameters by part. A caller may pass every default along, so that only what differs from it was chosen."""
    addresses = _addresses(parts)
    defaults = {p.name: p.objective.defaults for p in parts}
    chosen: dict[tuple[str, str], tuple[str, Any]] = {}
    for name, value in given.items():
        if name not in addresses:
            raise TypeError(f'"{name}" is no hyper-parameter of this sum; it has {", ".join(addresses)}.')
        part, own = addresses[name]
        if value == defaults[part][own]:
            continue
        earlier, other = chosen.setdefault((part, own), (name, value))
        if other != value:
            raise ValueError(f"{earlier}={other} and {name}={value} are the same hyper-parameter.")
    found: dict[str, dict[str, Any]] = {p.name: {} for p in parts}
    for (part, own), (_, value) in chosen.items():
        found[part][own] = value
    return found


def _signature(parts: Sequence[_Part], extra: Sequence[str]) -> inspect.Signature:
    defaults = {p.name: p.objective.defaults for p in parts}
    keyword = inspect.Parameter.KEYWORD_ONLY
    hyper = [
        inspect.Parameter(name, keyword, default=defaults[part][own])
        for name, (part, own) in sorted(_addresses(parts).items())
    ]
    given = [inspect.Parameter(name, keyword, default=None) for name in extra]
    return inspect.Signature([inspect.Parameter("r", inspect.Parameter.POSITIONAL_OR_KEYWORD), *hyper, *given])


# The sum itself


def _of(part: _Part, values: Mapping[str, Any]) -> dict[str, Any]:
    """The entries "<part>.<name>", by `name`."""
    start = f"{part.name}."
    return {name.removeprefix(start): value for name, value in values.items() if name.startswith(start)}


def _under(part: _Part, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{part.name}.{name}": value for name, value in values.items()}


def _function(parts: Sequence[_Part]) -> Callable[..., Outcome]:
    def mixed(
        r: Readings, *, batch: Batch | None = None, running: Mapping[str, float] | None = None, **hyper: Any
    ) -> Outcome:
        own = _resolve(parts, hyper)
        loss: Any = 0.0
        metrics: dict[str, Any] = {}
        for i, part in enumerate(parts):
            extra: dict[str, Any] = {}
            if part.objective.statistics is not None:
                extra["batch"] = None if batch is None else _of(part, batch)
            if part.objective.update is not None:
                extra["running"] = None if running is None else _of(part, running)
            out = part.objective(r, **own[part.name], **extra)
            loss = loss + part.weight * out.loss
            metrics |= {(f"{part.name}_{n}" if i else n): value for n, value in out.metrics.items()}
            metrics[f"{part.name}_loss"] = out.loss.detach()
        return Outcome(loss, metrics)

    extra = [name for name, has in zip(GIVEN, _given(parts), strict=True) if has]
    mixed.__signature__ = _signature(parts, extra)  # type: ignore[attr-defined]
    return mixed


def _given(parts: Sequence[_Part]) -> tuple[bool, bool]:
    """Whether a part takes `batch`, and whether one takes `running`."""
    return any(p.objective.statistics for p in parts), any(p.objective.update for p in parts)


def _statistics(parts: Sequence[_Part]) -> Callable[..., Batch]:
    def gathered(r: Readings, **hyper: Any) -> Batch:
        own = _resolve(parts, hyper)
        out: dict[str, Any] = {}
        for part in parts:
            if part.objective.statistics is not None:
                known = inspect.signature(part.objective.statistics).parameters
                wanted = {name: value for name, value in own[part.name].items() if name in known}
                out |= _under(part, part.objective.statistics(r, **wanted))
        return out

    gathered.__signature__ = _signature(parts, ())  # type: ignore[attr-defined]
    return gathered


def _update(parts: Sequence[_Part]) -> Callable[[Mapping[str, float], Batch], dict[str, float]]:
    def updated(state: Mapping[str, float], batch: Batch) -> dict[str, float]:
        out: dict[str, float] = {}
        for part in parts:
            if part.objective.update is not None:
                out |= _under(part, part.objective.update(_of(part, state), _of(part, batch)))
        return out

    return updated
