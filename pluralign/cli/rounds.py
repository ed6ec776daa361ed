"""`pluralign rounds`: a policy that takes scores learns from the best of its own answers, round after round."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import SettingsError
from .align import command_line, parse_words
from .console import Stopped, console, note, print_json, quiet_libraries
from .judges import Counting, Judge, JudgeModel, Layout, Measure, Rubric, Scorers, judges, prompts_of

if TYPE_CHECKING:
    from ..rounds import How, Outcome

__all__ = ["EPILOG", "rounds"]

EPILOG = """\b
Examples:
  pluralign rounds runs/ric --mix scored.jsonl --scorer helpful=org/rm --scorer safe=org/other --output runs/online
  pluralign rounds runs/steerlm --data prompts.jsonl --judge runs/judge --goals best --keep-quantile 0 --output runs/on
  pluralign rounds runs/ric --mix scored.jsonl --judge runs/judge --samples 2000 training.max_steps=400 --output runs/on

\b
Every round: goals are drawn, the policy answers them, judges score the answers, those that reach the quantile are kept
and mixed with original rows that do, and the policy trains on them under the scores they really have. Goals are edge
(RiC: one attribute anywhere in its range, the others at their highest) or best (SteerLM: all at their highest).
Judges score in the units of the data that the policy was trained on, and are not the ones to evaluate with later.
The same command goes on where it was stopped; nothing is generated or scored twice. Words like training.max_steps=400
are settings of each round's training; by default it goes over what was kept once.
"""


def rounds(
    model: str = typer.Argument(..., metavar="RUN", help="Run folder of a policy that takes scores (recipe ric, ...)."),
    settings: list[str] | None = typer.Argument(None, metavar="[KEY=VALUE]...", help="Settings of the training."),
    output: Path = typer.Option(..., help="Folder for the rounds."),
    data: str | None = typer.Option(None, help="Data whose prompts are answered (default: those of --mix)."),
    prompts: Path | None = typer.Option(None, help="A file of prompts instead (.txt: one a line, or .jsonl)."),
    mix: list[str] | None = typer.Option(None, help="Original data with attribute scores to mix in; repeatable."),
    judge: list[str] | None = Judge,
    scorer: list[str] | None = Scorers,
    scorer_layout: str = Layout,
    measure: str | None = Measure,
    rubric: list[str] | None = Rubric,
    judge_model: str | None = JudgeModel,
    count: int = typer.Option(2, "--rounds", min=1, help="So many rounds."),
    samples: int = typer.Option(20_000, min=1, help="Answers a round."),
    goals: str = typer.Option("edge", help="Goals: edge (RiC) or best (SteerLM)."),
    ranges: list[str] | None = typer.Option(
        None, "--range", metavar="NAME=LOW:HIGH", help="An attribute's goals, as prompts show them; repeatable."
    ),
    keep_quantile: float = typer.Option(0.7, help="Keep what reaches this quantile of the answers (0: all)."),
    rule: str = typer.Option("any", help="On any attribute, or on all of them."),
    mixed: int = typer.Option(10_000, min=0, help="At most so many original rows a round."),
    recipe: str | None = typer.Option(None, help="Train by this recipe (default: as the policy was trained)."),
    learning_rate: float = typer.Option(1e-5, help="Of every round, constant."),
    max_new_tokens: int = typer.Option(128, min=1, help="Longest answer."),
    temperature: float = typer.Option(0.7, min=0.0, help="0 takes the likeliest token."),
    top_p: float = typer.Option(0.9, help="Draw from the likeliest tokens that hold this much probability."),
    seed: int = typer.Option(0, min=0, help="Of prompts, goals, answers and training."),
    batch_size: int = typer.Option(16, min=1, help="Answers written together."),
    as_json: bool = typer.Option(False, "--json", help="The result as JSON on stdout."),
) -> None:
    """Online rounds: answer goals, score, keep the best, train again (RiC, SteerLM)."""
    from ..rounds import How, run_rounds

    word, overrides = parse_words(settings or [])
    if word is not None:
        raise SettingsError(f'"{word}" is no setting.', remedy="Settings are key=value.")
    how = How(
        rounds=count, samples=samples, goals=goals, quantile=keep_quantile, rule=rule, mixed=mixed,
        max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, learning_rate=learning_rate, seed=seed,
        batch_size=batch_size,
    ).check()  # fmt: skip
    bounds = _ranges(ranges or [])
    originals = _originals(mix or [])
    asked = _prompts(data, prompts, originals)
    tree = _recipe(recipe) if recipe else None
    quiet_libraries()
    scorers = judges(judge=judge, scorer=scorer, layout=scorer_layout, measure=measure, rubric=rubric,
                     judge_model=judge_model, attributes=_attributes(model))  # fmt: skip
    from .progress import Progress

    say = Progress(noun="responses", err=as_json)
    try:
        with Counting() as progress:
            done = run_rounds(model, asked, scorers, output, how, originals=originals, ranges=bounds, settings=tree,
                              overrides=overrides, say=say, progress=progress, command=command_line())  # fmt: skip
    except KeyboardInterrupt:
        raise Stopped(f"stopped. The same command goes on in {output}.") from None
    if done.status != "finished":
        raise Stopped(f"stopped while round {len(done.rounds)} was training. The same command goes on in {output}.")
    if as_json:
        print_json({"output": str(done.output), "policy": str(done.policy), "rounds": done.rounds})
    else:
        _show(done, how)


# What is read


def _ranges(texts: list[str]) -> dict[str, tuple[float, float]]:
    found = {}
    for text in texts:
        name, _, ends = text.partition("=")
        low, _, high = ends.partition(":")
        try:
            found[name.strip()] = (float(low), float(high))
        except ValueError:
            raise SettingsError(f'--range "{text}" is not NAME=LOW:HIGH, such as helpful=-1:2.3.') from None
    return found


def _originals(sources: list[str]) -> list[Any]:
    """Every response of the sources with its attributes."""
    from ..data import load
    from ..records import Demonstration

    found: list[Any] = []
    for source in sources:
        rows = list(load(source, kind=Demonstration, responses="all"))
        if not any(getattr(row, "attributes", {}) for row in rows):
            raise SettingsError(
                f"no row of {source} has attribute scores.", remedy="Score it: `pluralign curate --steps score`."
            )
        found += rows
    return found


def _prompts(data: str | None, path: Path | None, originals: Iterable[Any]) -> list[Any]:
    """Prompts, each once. Raises SettingsError where there is not one source of them."""
    from ..curate.texts import part_key
    from ..data import load

    if data is not None and path is not None:
        raise SettingsError("--data and --prompts cannot go together.")
    if path is not None:
        turns = prompts_of(path)
    else:
        turns = [record.prompt for record in (load(data) if data is not None else originals)]
    if not turns:
        raise SettingsError("which prompts?", remedy="Give --data SOURCE, --prompts FILE, or --mix SOURCE.")
    return list({part_key(turn): turn for turn in turns}.values())


def _recipe(name: str) -> dict[str, Any]:
    from ..api import settings_for

    made, _ = settings_for(name)
    return made.model_dump()


def _attributes(model: str) -> tuple[str, ...]:
    """The attributes that a policy is shown, without loading its weights."""
    from ..judging.asking import attributes_of

    return attributes_of(model)


# What is said


def _show(done: Outcome, how: How) -> None:
    from rich.table import Table
    from rich.text import Text

    from ..judging.statistics import Estimate

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for head in ("round", "asked", "empty", "kept", "originals"):
        table.add_column(head, justify="right")
    names = list(done.rounds[0]["means"])
    for name in names:
        table.add_column(Text(name), justify="right", overflow="fold")
    for one in done.rounds:
        counts = one["counts"]
        numbers = (one["round"], counts["asked"], counts["empty"], counts["kept"], counts["originals mixed"])
        means = (Estimate.from_dict(one["means"][name]).short() for name in names)
        table.add_row(*(f"{n:,}" for n in numbers), *map(Text, means))
    console().print(table)
    console().print(Text(f"goals: {how.goals}; attributes: mean scores of the round's answers", style="dim"))
    print(f"policy: {done.policy}")
    note("the judges of the rounds chose what the policy learned: evaluate it with others")
