"""Preference objectives: readings in, per-example losses out. Imports nothing but torch."""

from . import (
    batchwise,
    divergences,
    families,
    group,
    likelihood,
    listwise,
    matching,
    multi,
    pairwise,
    parm,
    pointwise,
    rating,
    tokenwise,
    unpaired,
)
from .core import OBJECTIVES, Objective, Outcome, Readings, as_objective, objective
from .mix import mix

__all__ = [
    "OBJECTIVES",
    "Objective",
    "Outcome",
    "Readings",
    "as_objective",
    "batchwise",
    "divergences",
    "families",
    "find",
    "group",
    "likelihood",
    "listwise",
    "matching",
    "mix",
    "multi",
    "objective",
    "pairwise",
    "parm",
    "pointwise",
    "rating",
    "tokenwise",
    "unpaired",
]


def find(name: str) -> Objective:
    """The objective of that name, or the weighted sum that it describes ("dpo + 0.2*nll").

    Raises KeyError for an unknown name, ValueError for a sum that cannot be.
    """
    return OBJECTIVES[name] if name in OBJECTIVES else mix(name)
