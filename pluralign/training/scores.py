"""What a run does about attribute scores: their scales, and the heads that sense or rate them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..attributes import WORDINGS, ScoreForm, fit_scales
from ..conditioning import scores_of
from ..errors import SettingsError
from ..heads.pblora import Shape, inject, layers, parm_objective
from ..heads.regression import attach, head_of
from ..policy import Policy
from ..terms import PROVIDED
from .callbacks import Say
from .examples import Examples
from .goal import Goal
from .settings import ScoreSettings, Settings

__all__ = ["give_heads", "score_form"]


def score_form(how: ScoreSettings, goal: Goal, data: Any, kept: ScoreForm | None) -> ScoreForm | None:
    """The attributes of a run, their scales and words; None where nothing asks for them.

    A policy that was trained with scores (`kept`) goes on with its own, unless the settings name others: one number
    must mean one thing. Raises SettingsError for data without the attributes, and for words that leave no place to
    sense from.
    """
    wanted = set(PROVIDED) & set(goal.objective.needs)
    if how.show == "none" and not how.sense and not wanted:
        return kept
    if how.sense and WORDINGS[how.wording].place == "before":
        raise SettingsError(
            f"scores.sense reads the prompt before its scores, and scores.wording={how.wording} puts them first.",
            remedy="Set scores.wording=sga.",
        )
    if kept is not None and not how.attributes and not how.ranges:
        if (kept.wording, kept.normal) == (how.wording, how.normal):
            return kept
        raise SettingsError(
            f"the policy was trained with scores.wording={kept.wording} and scores.normal={kept.normal}, and the "
            f"settings ask for {how.wording} and {how.normal}.",
            remedy="Set them alike, or name scores.attributes to start anew.",
        )
    ranges = {**dict(getattr(data.about.get("loaded"), "ranges", {})), **how.ranges}
    scales = fit_scales(map(scores_of, data.train), how.attributes, normal=how.normal, ranges=ranges)
    return ScoreForm(scales, how.wording, how.normal)


def give_heads(
    settings: Settings, goal: Goal, policy: Policy, form: ScoreForm | None, train: Examples, say: Say
) -> None:
    """The heads that the goal reads: the policy's own where it has them, else fresh ones that begin at the mean."""
    _give_preferences(settings, goal, policy, form, say)
    how = settings.scores
    for reading in ("sensed", "rated"):
        if reading not in goal.reads:
            continue
        assert form is not None, "what reads a head asks for scores"
        own = head_of(policy.model, reading)
        if own is not None and own.width == len(form.names):
            continue
        bounded = reading == "sensed" and how.normal == "range"
        head = attach(policy.model, reading, len(form.names), layers=how.layers, bounded=bounded)
        columns = "attributes_w" if "attributes_w" in goal.objective.needs else "attributes"
        head.begin_at(_means(train, columns, len(form.names)))
        parameters = sum(p.numel() for p in head.parameters())
        say.note(f"{reading} head: {', '.join(form.names)} ({parameters:,} parameters)")


def _give_preferences(settings: Settings, goal: Goal, policy: Policy, form: ScoreForm | None, say: Say) -> None:
    """PARM: layers that depend on a preference over the run's attributes, drawn anew for every step.

    Both of their ranks are lora.rank; at 0 the objective stays a plain one, every attribute counting the same.
    """
    lo = settings.lora
    if goal.objective.name != "parm" or not lo.rank:
        return
    assert form is not None, "the objective asks for attributes"
    if not layers(policy.model):
        alpha = 2.0 * lo.rank if lo.alpha is None else lo.alpha
        shape = Shape(form.names, tuple(lo.targets.split(",")), lo.rank, lo.rank, alpha)
        count = len(inject(policy.model, shape, seed=settings.seed))
        say.note(f"preferences over {', '.join(form.names)} in {count} layers")
    goal.objective = parm_objective(policy.model, form.names, seed=settings.seed)


def _means(train: Examples, column: str, k: int) -> list[float]:
    """(K,) mean of each attribute over the rows that have it; 0.5 where none has."""
    values = np.array([[ex.columns.get(f"{column}.{i}", math.nan) for i in range(k)] for ex in train])
    known = ~np.isnan(values)
    return [float(values[known[:, i], i].mean()) if known[:, i].any() else 0.5 for i in range(k)]
