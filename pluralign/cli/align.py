"""`pluralign align`: one run from a recipe, a YAML file or an earlier run."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from ..errors import PluralignError, SettingsError
from .console import Stopped, is_first, print_json, quiet_libraries, warn

__all__ = ["EPILOG", "align", "command_line", "finish", "parse_words", "stopped"]

EPILOG = """\b
Examples:
  pluralign align dpo --data pairs.jsonl --model Qwen/Qwen3-0.6B --output runs/dpo
  pluralign align simpo training.learning_rate=5e-7 gamma=0.3
  pluralign align dpo --lora.rank 32 --bad-rows quarantine        any option is a setting
  pluralign align my_run.yaml batch_size=32                       a file of settings, `recipe: dpo` to build on one
  pluralign align --resume runs/dpo                               go on where it stopped
  accelerate launch --num_processes 8 -m pluralign align dpo ...  the same on many GPUs

\b
`pluralign recipes NAME` prints every setting that a recipe makes. Ctrl-C saves a checkpoint and says how to go on.
"""


def align(
    recipe: str | None = typer.Argument(None, help="A recipe (`pluralign recipes`) or a YAML file of settings."),
    settings: list[str] | None = typer.Argument(None, metavar="[KEY=VALUE]...", help="Settings that override it."),
    model: str | None = typer.Option(None, help="Hub model, folder, run folder, or `embedded`."),
    data: str | None = typer.Option(None, help="File, folder or hub data set, or `embedded`."),
    output: str | None = typer.Option(None, help="Run folder (default: runs/RECIPE-TIME)."),
    resume: str | None = typer.Option(None, metavar="RUN", help="Go on with a run that was stopped."),
    as_json: bool = typer.Option(False, "--json", help="The result as JSON on stdout."),
) -> None:
    """Train a policy on preferences."""
    from ..api import settings_for

    source, overrides = parse_words([*([recipe] if recipe else []), *(settings or [])])
    named: dict[str, Any] = {"model": model, "data.source": data, "output": output}
    named = {key: value for key, value in named.items() if value is not None}
    if resume:
        if source:
            raise SettingsError(f'"{source}" and --resume cannot go together: a run keeps its recipe.')
        if output:
            raise SettingsError("--output and --resume cannot go together: a run keeps its folder.")
        source, named = None, {**named, "output": resume}
        tree = _settings_of_run(Path(resume), changed=bool(overrides))
    elif source is None:
        raise SettingsError("which recipe?", remedy="For example: pluralign align dpo --data pairs.jsonl")
    made, own = settings_for(source if source is not None else tree, named, overrides)
    quiet_libraries()
    from ..training.run import align as train
    from .progress import Progress

    noun = "responses" if made.objective.name == "sft" else "pairs"
    say = Progress(noun=noun, err=as_json)
    plan = own.plan if own else None
    done = train(made, plan=plan, resume=resume is not None, say=say, command=command_line())
    if done.status == "stopped":
        raise stopped(done.output)
    page = finish(done.output) if is_first() else None
    if as_json:
        print_json({"output": done.output, "status": done.status, "metrics": done.metrics, "report": page})
        return
    say.line("policy", f"{done.output}/model")
    if page:
        say.line("report", str(page))


def parse_words(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """(recipe, `key=value` settings) of what stands on the command line beside the declared options.

    `--key value` and `--key=value` are settings too; a `--key` that nothing follows is switched on.
    Raises SettingsError for a second bare word.
    """
    recipe: str | None = None
    settings: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word.startswith("--"):
            key, equals, value = word[2:].partition("=")
            if not equals:
                value = rest.pop(0) if rest and not rest[0].startswith("--") else "true"
            settings.append(f"{key.replace('-', '_')}={value}")
        elif "=" in word:
            settings.append(word)
        elif recipe is None and not word.startswith("-"):
            recipe = word
        else:
            raise SettingsError(f'"{word}" is neither the recipe nor a setting.', remedy="Settings are key=value.")
    return recipe, settings


def _settings_of_run(folder: Path, *, changed: bool) -> dict[str, Any]:
    """The settings of the run to go on with. Raises SettingsError where it has ended and nothing new is asked."""
    from ..training.run import read_settings

    tree = dict(read_settings(folder))
    status = json.loads((folder / "run.json").read_text()).get("status")
    if status == "finished" and not changed:
        raise SettingsError(
            f"{folder} has finished.", remedy="To train on, raise training.epochs or training.max_steps."
        )
    return {key: value for key, value in tree.items() if value is not None}


def command_line() -> str:
    """What was typed, as it could be typed again."""
    return f"pluralign {shlex.join(sys.argv[1:])}"


def stopped(output: Path) -> Stopped:
    """What to say of a run that was interrupted, with the way to go on."""
    step = json.loads((output / "run.json").read_text()).get("step", 0)
    return Stopped(f"stopped at step {step}. Resume with: pluralign align --resume {shlex.quote(str(output))}")


def finish(output: Path) -> Path | None:
    """The report of a run; a run is not lost because its page could not be drawn."""
    from ..reports import report

    try:
        return report(output)
    except PluralignError as error:
        warn(f"no report: {error}")
        return None
