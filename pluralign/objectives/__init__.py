"""Preference objectives: readings in, per-example losses out. Imports nothing but torch."""

from . import likelihood, pairwise
from .core import OBJECTIVES, Objective, Outcome, Readings, objective

__all__ = ["OBJECTIVES", "Objective", "Outcome", "Readings", "likelihood", "objective", "pairwise"]
