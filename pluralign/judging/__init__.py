"""Verdicts and the statistics that make them honest."""

from __future__ import annotations

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
