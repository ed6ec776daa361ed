"""Online rounds: a policy answers goals, the answers are scored anew, and the best of them train it again.

Rewards-in-Context (Yang et al. 2024, arXiv 2402.10207) asks for goals at the edge of what is possible, keeps what
reaches a quantile and mixes it with original rows that do; SteerLM's step 4 (Dong et al. 2023, arXiv 2310.05344) asks
for the best of everything and keeps all that comes. `steering.goals` holds the arithmetic; here is the work around it:

    round-1/generated.jsonl   every answer, with the goal it was asked for, as it is written
    round-1/scored.jsonl      the same with the scores that the judges gave
    round-1/kept.jsonl        what the round trains on, originals among it
    round-1/round.json        counts and mean scores; where it is, the three files are whole
    round-1/run/              the run folder of the training; its policy goes into round 2
    scores/                   scores by content: nothing is scored twice
    rounds.json               what was asked, and the rounds so far

Called again with the same settings, the work goes on where it stopped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..attributes import ScoreForm
from ..curate.score import Scorer
from ..curate.texts import part_key
from ..data import convert, fingerprint
from ..errors import PluralignError, SettingsError
from ..judging.answers import put_in_order, score_table, write_answers
from ..judging.statistics import mean_interval
from ..records import Demonstration, Messages
from ..steering import Request
from ..steering.goals import online_round
from .plan import (
    REPORT,
    How,
    Ranges,
    check_judges,
    goal_ranges,
    judge_key,
    settings_of,
    short_hash,
    stage_settings,
)

if TYPE_CHECKING:
    from ..policy import Policy
    from ..recipes import Recipe
    from ..training.callbacks import Say
    from ..training.settings import Settings

__all__ = ["Outcome", "run_rounds"]

ROUND = "round.json"
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Outcome:
    """What the rounds left: `rounds` (counts, means and policy of each), the last policy's folder, and how it ended."""

    output: Path
    policy: str
    rounds: list[dict[str, Any]]
    status: str = "finished"


# The work


def run_rounds(
    policy: str | Path,
    prompts: Sequence[Messages],
    scorers: Sequence[Scorer],
    output: str | Path,
    how: How | None = None,
    *,
    originals: Sequence[Demonstration] = (),
    ranges: Ranges | None = None,
    settings: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    say: Say | None = None,
    progress: Progress | None = None,
    command: str = "",
) -> Outcome:
    """Online rounds from a policy's folder; `settings` are those of its training (default: of its own run).

    `scorers` judge the answers, in the units of the data that the policy was trained on. Judges whose choice a policy
    was trained on flatter it: evaluate with others. Raises SettingsError for a policy without scores, for judges that
    lack one of its attributes, and for an output folder that holds rounds of other settings.
    """
    from ..policy import Policy

    how = (how or How()).check()
    output = Path(output)
    if not prompts:
        raise SettingsError("online rounds need prompts.")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SettingsError("rounds run in one process: each of several would write its own answers.")
    tree = dict(settings) if settings is not None else settings_of(policy)
    trust = bool(tree.get("trust_remote_code"))
    form = _form(Policy.load(policy, trust_remote_code=trust))
    check_judges(form, scorers)
    to = goal_ranges(form, originals, how, ranges)
    stage_settings(tree, form, model=str(policy), source=output, output=output, how=how, overrides=overrides)
    about = {
        "command": command,
        "asked": _asked(policy, prompts, originals, scorers, to, how, tree, overrides),
        "judges": [{"title": s.title, "key": judge_key(s)} for s in scorers],
    }
    _claim(output, about)
    done: list[dict[str, Any]] = []
    current: str | Path = policy
    for number in range(1, how.rounds + 1):
        folder = output / f"round-{number}"
        if not (folder / ROUND).is_file():
            seeded = replace(how, seed=how.seed + number - 1)
            actor = Policy.load(current, trust_remote_code=trust)
            _gather(folder, actor, prompts, to, scorers, originals, seeded, output / "scores", progress,
                    say)  # fmt: skip
        found = json.loads((folder / ROUND).read_text("utf-8"))
        made, recipe = stage_settings(
            tree, form, model=str(current), source=folder / "kept.jsonl", output=folder / "run", how=how,
            overrides=overrides,
        )  # fmt: skip
        if say:
            counts = found["counts"]
            say.note(f"round {number}: {counts['kept']:,} of {counts['asked']:,} answers kept, "
                     f"{counts['originals mixed']:,} originals mixed in")  # fmt: skip
        status = _train(made, recipe, say, command)
        done.append({"round": number, **found, "status": status, "policy": str(folder / "run")})
        _write(output / REPORT, {**about, "rounds": done, "status": "running"})
        if status != "finished":
            return Outcome(output, str(current), done, status)
        current = folder / "run"
    _write(output / REPORT, {**about, "rounds": done, "status": "finished"})
    return Outcome(output, str(current), done)


def _form(policy: Policy) -> ScoreForm:
    if policy.scores is None:
        raise SettingsError(
            f'the policy "{policy.name}" takes no attribute scores, so that it cannot be asked for any.',
            remedy="Train one first: `pluralign align ric`, steerlm, cpo_sft or sga.",
        )
    return policy.scores


def _asked(
    policy: str | Path, prompts: Sequence[Messages], originals: Sequence[Demonstration], scorers: Sequence[Scorer],
    goals: Ranges, how: How, tree: Mapping[str, Any], overrides: Sequence[str],
) -> dict[str, Any]:  # fmt: skip
    """Everything that decides what comes out, so that a folder is never gone on with under other settings."""
    free = ("rounds", "batch_size")  # more rounds may follow, and what shares a batch changes nothing
    return {
        "policy": str(policy),
        "prompts": f"{len(prompts)} {short_hash(b''.join(part_key(p) for p in prompts).hex())}",
        "originals": f"{len(originals)} {fingerprint(originals)[:16]}",
        "judges": [judge_key(scorer) for scorer in scorers],
        "ranges": {name: list(ends) for name, ends in goals.items()},
        "training": short_hash(
            json.dumps({k: v for k, v in tree.items() if k != "output"}, sort_keys=True, default=str)
        ),
        "overrides": list(overrides),
        **{name: value for name, value in asdict(how).items() if name not in free},
    }


def _claim(output: Path, about: Mapping[str, Any]) -> None:
    """Take the folder, or go on in it. Raises SettingsError where it holds rounds of other settings."""
    path = output / REPORT
    if not path.is_file():
        output.mkdir(parents=True, exist_ok=True)
        _write(path, {**about, "rounds": [], "status": "running"})
        return
    old = json.loads(path.read_text("utf-8"))["asked"]
    other = [name for name, value in about["asked"].items() if old.get(name) != value]
    if other:
        raise SettingsError(
            f"{output} holds rounds with other {', '.join(other)}.",
            remedy="Choose another output folder, or give the settings it was begun with.",
        )


def _write(path: Path, content: Mapping[str, Any]) -> None:
    """JSON, all of it or nothing."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n", "utf-8")
    unfinished.replace(path)


# One round


def _gather(
    folder: Path, policy: Policy, prompts: Sequence[Messages], ranges: Ranges, scorers: Sequence[Scorer],
    originals: Sequence[Demonstration], how: How, store: Path, progress: Progress | None, say: Say | None,
) -> None:  # fmt: skip
    """Answers to goals, their scores, and what is kept of them; `round.json` is written last."""
    form = _form(policy)
    names = [name for scorer in scorers for name in scorer.names]
    label = folder.name

    def tell(what: str) -> Callable[[int, int], None] | None:
        return (lambda done, of: progress(f"{label}: {what}", done, of)) if progress else None

    def respond(asked: Sequence[Messages], goals: Sequence[Mapping[str, float]]) -> list[str]:
        options: dict[str, Any] = {"max_new_tokens": how.max_new_tokens, "temperature": how.temperature,
                                   "top_p": how.top_p, "seed": how.seed}  # fmt: skip
        requests = [
            Request(prompt, attributes=goal, place=i, **options)
            for i, (prompt, goal) in enumerate(zip(asked, goals, strict=True))
        ]
        path = folder / "generated.jsonl"
        rows = write_answers(
            path, policy, requests, [{"row": i} for i in range(len(requests))], batch_size=how.batch_size,
            progress=tell("answers"), warn=say.warn if say else None,
        )  # fmt: skip
        put_in_order(path, rows)
        return [row["response"] for row in rows]

    def rate(made: Sequence[Demonstration]) -> list[Demonstration]:
        table = score_table(scorers, [(d.prompt, d.response) for d in made], store=store, progress=tell("scores"))
        own = [dict(zip(names, row, strict=True)) for row in table.tolist()]
        rated = [
            replace(d, attributes={name: row[name] for name in form.names if row[name] == row[name]})
            for d, row in zip(made, own, strict=True)
        ]
        convert(rated, folder / "scored.jsonl", overwrite=True)
        for name in form.names:
            if rated and not any(name in d.attributes for d in rated):
                raise PluralignError(
                    f'no answer of {label} has a score on "{name}".', remedy="See what its judge makes of scored.jsonl."
                )
        means.update({n: mean_interval([row[n] for row in own]).as_dict() for n in form.names} if own else {})
        return rated

    means: dict[str, Any] = {}
    olds = [replace(d, attributes={n: v for n, v in d.attributes.items() if n in form.names}) for d in originals]
    made = online_round(
        prompts, ranges, respond, rate, olds, samples=how.samples, quantile=how.quantile, rule=how.rule,
        mixed=how.mixed, seed=how.seed,
    )  # fmt: skip
    if not made.counts["kept"]:
        raise PluralignError(
            f"{label} kept no answer of {made.counts['asked']:,} ({made.counts['empty']:,} are empty).",
            remedy="Lower the quantile, take the rule any, or look at generated.jsonl and scored.jsonl there.",
        )
    convert(made.records, folder / "kept.jsonl", overwrite=True)
    _write(folder / ROUND, {"counts": dict(made.counts), "means": means})


def _train(settings: Settings, recipe: Recipe | None, say: Say | None, command: str) -> str:
    """Train, go on with a training that stopped, or leave one that is done; returns how it ended."""
    from ..policy import KEPT
    from ..training.run import align

    assert settings.output is not None, "stage_settings names the folder"
    folder = Path(settings.output)
    begun = (folder / "run.json").is_file()
    saved = (folder / "model" / KEPT).is_file()  # what a policy writes last
    if saved and json.loads((folder / "run.json").read_text("utf-8")).get("status") == "finished":
        return "finished"
    plan = recipe.plan if recipe else None
    return align(settings, plan=plan, resume=begun, say=say, command=command or "python").status
