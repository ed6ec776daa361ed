"""Data preparation: steps that keep, drop or hold out records, every one of them counted."""

from __future__ import annotations

from .duplicates import exact_duplicates
from .endpoint import guard_endpoint
from .files import write_curated
from .filters import length_filter, quality_filter, token_counter, word_counter
from .guard import guard_model, load_guard
from .held_out import hold_out
from .near import near_duplicates
from .pipeline import Count, Curated, Step, curate, judged
from .presets import PRESETS, STEPS, inspo
from .rules import by_rules
from .safety import safety_filter
from .verdicts import Verdict, parse_verdict

__all__ = [
    "PRESETS",
    "STEPS",
    "Count",
    "Curated",
    "Step",
    "Verdict",
    "by_rules",
    "curate",
    "exact_duplicates",
    "guard_endpoint",
    "guard_model",
    "hold_out",
    "inspo",
    "judged",
    "length_filter",
    "load_guard",
    "near_duplicates",
    "parse_verdict",
    "quality_filter",
    "safety_filter",
    "token_counter",
    "word_counter",
    "write_curated",
]
