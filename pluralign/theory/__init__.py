"""Small exact worlds in which theorems about preference optimisation are checked number by number (docs/theory.md)."""

from . import choice, invariance, tabular, transfer, worlds

__all__ = ["choice", "invariance", "tabular", "transfer", "worlds"]
