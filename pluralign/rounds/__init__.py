"""Online rounds: a policy learns from the best of its own answers (RiC's online stage, SteerLM's bootstrap)."""

from __future__ import annotations

from .plan import GOALS, How, check_judges, goal_ranges, judge_key, judged_by, stage_settings
from .work import Outcome, run_rounds

__all__ = [
    "GOALS",
    "How",
    "Outcome",
    "check_judges",
    "goal_ranges",
    "judge_key",
    "judged_by",
    "run_rounds",
    "stage_settings",
]
