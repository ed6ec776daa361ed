"""Small exact worlds in which theorems about preference optimisation are checked number by number (docs/theory.md)."""

from . import choice, intents, intents_bounds, invariance, tabular, transfer, worlds

__all__ = ["choice", "intents", "intents_bounds", "invariance", "tabular", "transfer", "worlds"]
