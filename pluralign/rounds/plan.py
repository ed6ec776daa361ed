"""What online rounds are to do, before anything is done: their numbers, goals, judges, and each training's settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..attributes import ScoreForm
from ..curate.score import Scorer
from ..errors import SettingsError, nearest
from ..records import Demonstration
from ..steering.goals import ranges_of

if TYPE_CHECKING:
    from ..recipes import Recipe
    from ..training.settings import Settings

__all__ = [
    "GOALS",
    "How",
    "check_judges",
    "goal_ranges",
    "judge_key",
    "judged_by",
    "settings_of",
    "short_hash",
    "stage_settings",
]

GOALS = ("edge", "best")
REPORT = "rounds.json"
Ranges = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class How:
    """How rounds go. The numbers are those of RiC's code but for the steps of a round, which are one pass over what was
    kept (4,000 steps there: training.max_steps=4000).

    `goals`: "edge" (one attribute, drawn, anywhere in its range, the others at their highest) or "best" (all at their
    highest). An answer is kept where it reaches the `quantile` of the answers on "any" attribute or on "all" (`rule`);
    at most `mixed` originals that reach their own come in.
    """

    rounds: int = 2
    samples: int = 20_000
    goals: str = "edge"
    quantile: float = 0.7
    rule: str = "any"
    mixed: int = 10_000
    max_new_tokens: int = 128
    temperature: float = 0.7
    top_p: float = 0.9
    learning_rate: float = 1e-5
    seed: int = 0
    batch_size: int = 16

    def check(self) -> How:
        """Itself. Raises SettingsError for what cannot be; quantile and rule are looked at by `goals.keep`."""
        if self.goals not in GOALS:
            raise SettingsError(
                f'unknown goals "{self.goals}" (known: {", ".join(GOALS)}).{nearest(self.goals, GOALS)}'
            )
        if self.rule not in ("any", "all"):
            raise SettingsError(f'unknown rule "{self.rule}" (known: any, all).')
        if not 0 <= self.quantile <= 1:
            raise SettingsError(f"the quantile lies between 0 and 1, not at {self.quantile:g}.")
        if min(self.rounds, self.samples) < 1 or self.mixed < 0:
            raise SettingsError("rounds and samples must be at least 1, and no less than 0 originals are mixed in.")
        return self


def goal_ranges(
    form: ScoreForm, originals: Sequence[Demonstration], how: How, given: Ranges | None = None
) -> dict[str, tuple[float, float]]:
    """Each attribute's range of goals, on the scale that prompts show: as `given`, else between the 1st and the 99th
    percentile of the original rows, else, where scores are shown between 0 and 1, all of it.

    With goals="best" a range is its upper end alone. Raises SettingsError where an attribute has no range.
    """
    given = given or {}
    unknown = next((name for name in given if name not in form.names), None)
    if unknown is not None:
        raise SettingsError(f'unknown attribute "{unknown}" (known: {", ".join(form.names)}).')
    rows = [dict(zip(form.names, form.unit(d.attributes), strict=True)) for d in originals]
    rows = [row for row in rows if any(v == v for v in row.values())]
    known = ranges_of(rows) if rows else {}
    out = {}
    for name in form.names:
        if name not in given and name not in known and form.normal != "range":
            raise SettingsError(
                f'nothing says how high goals of "{name}" may be.',
                remedy=f"Mix in original rows that have it, or give its range as prompts show it: {name}=LOW:HIGH.",
            )
        low, high = given.get(name) or known.get(name) or (0.0, 1.0)
        if not low <= high:
            raise SettingsError(f'the range of "{name}" goes down, from {low:g} to {high:g}.')
        form.check({name: low})
        form.check({name: high})
        out[name] = (high if how.goals == "best" else low, high)
    return out


def check_judges(form: ScoreForm, scorers: Sequence[Scorer]) -> None:
    """Raises SettingsError unless every attribute of the policy is scored, and by one judge."""
    named = [name for scorer in scorers for name in scorer.names]
    lacking = [name for name in form.names if name not in named]
    if lacking:
        raise SettingsError(
            f'no judge scores "{lacking[0]}" (they score: {", ".join(named) or "nothing"}), which the policy is shown.',
            remedy="Answers are shown again under their own scores: each attribute needs a judge of its name.",
        )
    twice = next((name for name in form.names if named.count(name) > 1), None)
    if twice is not None:
        raise SettingsError(f'two judges score "{twice}".', remedy="Leave one of them out.")


def stage_settings(
    tree: Mapping[str, Any], form: ScoreForm, *, model: str, source: Path, output: Path, how: How,
    overrides: Sequence[str] = (),
) -> tuple[Settings, Recipe | None]:  # fmt: skip
    """The settings of a round's training: those that the policy was trained with (`tree`), from the policy that the
    round began with, on its scales and in its words, over `source` once, at a constant learning rate.

    Raises SettingsError for a recipe that does not learn from demonstrations.
    """
    from ..api import settings_for
    from ..objectives import find

    kept = {name: value for name, value in tree.items() if value is not None and name not in ("reference", "data")}
    data = dict(tree.get("data") or {})
    kept["data"] = {name: data[name] for name in ("validation_fraction", "validation_rows") if name in data}
    show = (tree.get("scores") or {}).get("show", "none")
    given = {
        "model": model, "output": str(output), "data": {"source": str(source), "responses": "all"},
        "scores": {
            "show": "own" if show == "none" else show, "wording": form.wording, "normal": form.normal,
            "attributes": [], "ranges": {},
        },
        "training": {
            "learning_rate": how.learning_rate, "schedule": "constant", "warmup": 0, "epochs": 1, "max_steps": -1,
        },
        "seed": how.seed,
    }  # fmt: skip
    made, recipe = settings_for(kept, given, overrides)
    kind = find(made.objective.name).data
    if kind != "demonstrations":
        raise SettingsError(
            f'a round leaves answers to imitate, and objective "{made.objective.name}" learns from {kind}.',
            remedy="Name a recipe that imitates: --recipe sga, ric, steerlm or cpo_sft.",
        )
    return made, recipe


def judge_key(scorer: Scorer) -> str:
    """What tells judges apart: 16 hex digits of what their scores depend on."""
    return short_hash(scorer.key or scorer.title)


def judged_by(run: str | Path) -> list[dict[str, str]]:
    """The judges of the rounds that a policy comes from ({"title", "key"} each); none for any other policy."""
    for folder in Path(run).resolve().parents[:3]:
        if (folder / REPORT).is_file():
            return list(json.loads((folder / REPORT).read_text("utf-8"))["judges"])
    return []


def settings_of(policy: str | Path) -> dict[str, Any]:
    """The settings that a policy was trained with. Raises SettingsError for a folder that is no run."""
    from ..training.run import read_settings

    folder = Path(policy)
    if folder.name == "model" and (folder.parent / "run.json").is_file():
        folder = folder.parent
    if not (folder / "run.json").is_file():
        raise SettingsError(
            f"{policy} is no run folder, so that nothing says how to train it.", remedy="Name a recipe: --recipe ric"
        )
    return dict(read_settings(folder))


def short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
