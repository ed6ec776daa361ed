"""Verdicts and the statistics that make them honest. Names are loaded when they are asked for: numpy is not light."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .statistics import (
        Estimate,
        bootstrap_interval,
        mean_interval,
        paired_difference,
        proportion_interval,
        share_interval,
    )

__all__ = [
    "Estimate",
    "bootstrap_interval",
    "mean_interval",
    "paired_difference",
    "proportion_interval",
    "share_interval",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import statistics

    return getattr(statistics, name)
