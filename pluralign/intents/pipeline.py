"""The knowledge pipeline as a whole: which stages, by whom, with which base and checker, over which records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..curate.pipeline import Step
from ..errors import SettingsError, nearest
from ..kept import Kept
from .asking import Asking
from .bases import KnowledgeBase
from .checking import FactChecker
from .stages import STAGES, beliefs, calibrate, core, dimensions
from .support import FOUND, K, check, retrieve

__all__ = ["Plan", "knowledge_steps", "pertinent_cosine"]

# The cosine of a question and its best passage. Over HotpotQA's 1,157 passages, MiniLM at 0.45 passes 96 of 100
# questions that were written about them, 2 of 100 about other articles (MuSiQue's) and 1 of 100 requests to a chat
# assistant (Auto-J's); hashed words at 0.15 pass 98, 15 and 0. A larger base holds something near to anything.
PERTINENT = {"all-MiniLM-L6-v2": 0.45, "hashed words": 0.15, "tfidf": 0.15}


@dataclass(frozen=True)
class Plan:
    """What the pipeline does. `who` None: rules. `base` None: x_ext is skipped, and that is noted.

    `threshold` None: by the base's encoder (`pertinent_cosine`). `with_steps`: the base is also asked about every step
    of x_aug. `go_on`: a base that does not answer is noted, and stops nothing. `cache`: a folder for what was found.
    """

    who: Asking | None
    base: KnowledgeBase | None
    checker: FactChecker
    stages: tuple[str, ...] = STAGES
    k: int = K
    threshold: float | None = None
    with_steps: bool = False
    go_on: bool = False
    keep_no_facts: bool = True
    set_intent: bool = False
    cache: Path | None = None


def knowledge_steps(plan: Plan) -> list[Step]:
    """The stages of a plan, in the order of `STAGES`. Raises SettingsError for one that is not known."""
    check_stages(plan.stages)
    kept = Kept(None if plan.cache is None else plan.cache / FOUND)
    threshold = plan.threshold
    if threshold is None:
        threshold = pertinent_cosine(plan.base) if plan.base is not None else 0.0
    makers = {
        "dimensions": lambda: dimensions(plan.who),
        "beliefs": lambda: beliefs(plan.who, plan.base),
        "calibrate": lambda: calibrate(plan.who, plan.base),
        "core": lambda: core(plan.who, set_intent=plan.set_intent),
        "retrieve": lambda: retrieve(
            plan.base, k=plan.k, threshold=threshold, steps=plan.with_steps, go_on=plan.go_on, kept=kept
        ),
        "check": lambda: check(plan.checker, keep_no_facts=plan.keep_no_facts, kept=kept),
    }
    return [makers[name]() for name in STAGES if name in plan.stages]


def check_stages(names: Sequence[str]) -> None:
    """Raises SettingsError for a stage that is not known."""
    strange = next((name for name in names if name not in STAGES), None)
    if strange is not None or not names:
        raise SettingsError(
            f'unknown stage "{strange or ""}".{nearest(strange or "", STAGES)}', remedy=f"Known: {', '.join(STAGES)}."
        )


def pertinent_cosine(base: KnowledgeBase) -> float:
    """From which cosine on a passage counts as pertinent, by the base's encoder. Raises SettingsError for one for which
    it has not been measured."""
    encoder = getattr(base, "encoder", None)
    name = getattr(encoder, "name", "")
    if name not in PERTINENT:
        raise SettingsError(
            f'from which cosine on a passage is pertinent is not known for the encoder "{name}".',
            remedy="Say it: --threshold 0.4",
        )
    return PERTINENT[name]
