"""Benchmarks: one small file per public benchmark, found by its place in this folder.

A benchmark says where its questions come from, how they become items, what is done with a system for each of them (a
row a item), and which figures are made of the rows. What several have in common stands in `kinds`. Adding one is a new
file here that declares `BENCHMARK`; nothing else has to know of it.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from ..errors import SettingsError, nearest
from .kinds.core import Benchmark, Metric, Source

__all__ = ["Benchmark", "Metric", "Source", "benchmark", "benchmarks", "plain_name"]


@cache
def benchmarks() -> dict[str, Benchmark]:
    """Every benchmark of this folder by name, in alphabetical order."""
    found: dict[str, Benchmark] = {}
    for module in sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.ispkg):
        own: Benchmark = importlib.import_module(f".{module}", __name__).BENCHMARK
        if own.name.replace("-", "_") != module:
            raise ValueError(f'benchmarks/{module}.py declares the benchmark "{own.name}".')
        found[own.name] = own
    return found


def benchmark(name: str) -> Benchmark:
    """The benchmark of that name, however its words are joined. Raises SettingsError with the nearest known name."""
    known = {plain_name(own): own for own in benchmarks()}
    found = known.get(plain_name(name))
    if found is None:
        hint = nearest(name.lower(), benchmarks())
        raise SettingsError(f'unknown benchmark "{name}".{hint}', remedy="`pluralign evaluate list` shows them all.")
    return benchmarks()[found]


def plain_name(name: str) -> str:
    """`truthful-qa`, `TruthfulQA` and `truthful_qa` are one name."""
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")
