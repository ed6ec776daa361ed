"""Steps by name, and the order in which a published recipe takes them."""

from __future__ import annotations

from collections.abc import Callable

from .controlled import control
from .density import density
from .duplicates import exact_duplicates
from .filters import Counter, length_filter, quality_filter, word_counter
from .held_out import hold_out
from .near import near_duplicates
from .pipeline import Step
from .reorder import reorder
from .rules import by_rules
from .safety import safety_filter
from .score import score_responses
from .verdicts import Classifier

__all__ = ["PRESETS", "STEPS", "inspo"]


STEPS: dict[str, Callable[..., Step]] = {
    "exact_duplicates": exact_duplicates,
    "near_duplicates": near_duplicates,
    "length": length_filter,
    "safety": safety_filter,
    "quality": quality_filter,
    "score": score_responses,
    "reorder": reorder,
    "control": control,
    "density": density,
    "hold_out": hold_out,
}

PRESETS = {"inspo": ("exact_duplicates", "length", "safety", "quality", "hold_out")}


def inspo(
    *, counter: Counter = word_counter, unit: str = "words", classify: Classifier = by_rules, validation: int = 1000,
    seed: int = 0,
) -> list[Step]:  # fmt: skip
    """The preparation of InSPO's appendix D.2, in its order and with its numbers: exact duplicates, a response above
    2,048 or both below 32 tokens, a safety classifier, confidence below 0.6, then 1,000 records for validation."""
    return [
        exact_duplicates(),
        length_filter(counter=counter, unit=unit),
        safety_filter(classify),
        quality_filter(),
        hold_out(validation, seed=seed),
    ]
