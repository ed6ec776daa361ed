"""Data preparation: steps that keep, drop or hold out records, every one of them counted."""

from __future__ import annotations

from .controlled import Quota, control
from .density import density
from .duplicates import exact_duplicates
from .endpoint import guard_endpoint
from .files import write_curated
from .filters import length_filter, quality_filter, token_counter, word_counter
from .guard import guard_model, load_guard
from .held_out import hold_out
from .judge import RUBRICS, judge_endpoint, parse_rating
from .measured import MEASURES, measure
from .near import near_duplicates
from .pipeline import Count, Curated, Step, curate, judged
from .presets import PRESETS, STEPS, inspo
from .reorder import reorder
from .rules import by_rules
from .safety import safety_filter
from .score import Scored, Scorer, score_responses
from .scorers import load_reward_models, measures, reward_model
from .verdicts import Verdict, parse_verdict

__all__ = [
    "MEASURES",
    "PRESETS",
    "RUBRICS",
    "STEPS",
    "Count",
    "Curated",
    "Quota",
    "Scored",
    "Scorer",
    "Step",
    "Verdict",
    "by_rules",
    "control",
    "curate",
    "density",
    "exact_duplicates",
    "guard_endpoint",
    "guard_model",
    "hold_out",
    "inspo",
    "judge_endpoint",
    "judged",
    "length_filter",
    "load_guard",
    "load_reward_models",
    "measure",
    "measures",
    "near_duplicates",
    "parse_rating",
    "parse_verdict",
    "quality_filter",
    "reorder",
    "reward_model",
    "safety_filter",
    "score_responses",
    "token_counter",
    "word_counter",
    "write_curated",
]
