"""What judges on the command line, and how far a long piece of work is: shared by the commands that score answers."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from ..errors import SettingsError
from .console import clock, console, is_first

__all__ = ["Counting", "Judge", "JudgeModel", "Layout", "Measure", "Rubric", "Scorers", "judges", "prompts_of"]

Judge = typer.Option(
    None, "--judge", help="A policy with a rating head, `measured`, openai:MODEL or a URL; repeatable."
)
Scorers = typer.Option(None, "--scorer", metavar="NAME=MODEL[:INDEX]", help="Judge: a reward model; repeatable.")
Layout = typer.Option("auto", "--scorer-layout", help="How reward models read: chat, hh, pair, response or auto.")
Measure = typer.Option(None, "--measure", help="Judge: attributes measured in the text, comma-separated (words, ...).")
Rubric = typer.Option(None, "--rubric", metavar="NAME[=TEXT]", help="What a judge at a URL rates; repeatable.")
JudgeModel = typer.Option(None, "--judge-model", help="The judge's name at its URL.")

PLAIN_SECONDS = 30.0  # between two lines of progress where there is no terminal
MEASURED = "measured"


def judges(
    *,
    judge: Sequence[str] | None,
    scorer: Sequence[str] | None = None,
    layout: str = "auto",
    measure: str | None = None,
    rubric: Sequence[str] | None = None,
    judge_model: str | None = None,
    attributes: Sequence[str] = (),
) -> list[Any]:
    """The scorers that were asked for. `attributes` are those that `--judge measured` measures where it can.

    Raises SettingsError for none, for one that does not load, and where two give the same attribute.
    """
    from ..curate import judge_endpoint, load_reward_models, measures
    from ..curate.measured import MEASURES
    from ..endpoints import is_address

    made: list[Any] = []
    names = [name.strip() for name in (measure or "").split(",") if name.strip()]
    urls = [name for name in judge or () if is_address(name)]
    if bool(urls) != bool(rubric):
        raise SettingsError("a judge at a URL and --rubric go together.", remedy="--judge URL --rubric helpfulness")
    if MEASURED in (judge or ()) and not names:
        names = [name for name in attributes if name in MEASURES]
        if not names:
            raise SettingsError(
                f"none of the attributes ({', '.join(attributes) or 'none'}) can be measured.",
                remedy=f"Name what to measure: --measure words (known: {', '.join(MEASURES)}).",
            )
    if names:
        made.append(measures(names))
    for url in urls:
        named = {name.strip(): text.strip() for name, _, text in (r.partition("=") for r in rubric or ())}
        made += judge_endpoint(url, named, model=judge_model)
    made += [_rating(name) for name in judge or () if name not in (*urls, MEASURED)]
    if scorer:
        made += load_reward_models(scorer, layout=layout)  # type: ignore[arg-type]
    if not made:
        raise SettingsError(
            "there is no judge.", remedy="Give --judge RUN (recipe attribute_model), --scorer NAME=MODEL or --measure."
        )
    given = [name for one in made for name in one.names]
    twice = next((name for name in given if given.count(name) > 1), None)
    if twice is not None:
        raise SettingsError(f'two judges score "{twice}".', remedy="Leave one of them out, or give it another name.")
    return made


def _rating(name: str) -> Any:
    """A policy with a rating head. Raises SettingsError for any other."""
    from ..judging.answers import rating_scorer
    from ..policy import Policy

    return rating_scorer(Policy.load(name))


class Counting:
    """What is being done, how much of it is done, and about how long the rest takes: a moving line on a terminal, a
    line now and then where there is none."""

    def __init__(self) -> None:
        self.console = console(err=True)
        self.status: Any = None
        self.what, self.began, self.first, self.told = "", 0.0, 0, 0.0

    def __enter__(self) -> Counting:
        return self

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if what != self.what:
            self.what, self.began, self.first, self.told = what, now, done, now
        text = f"{what} {done:,}/{total:,}{self._left(done, total, now)}"
        if self.console.is_terminal and is_first():
            if self.status is None:
                self.status = self.console.status(text)
                self.status.start()
            self.status.update(text)
            if done >= total:
                self.stop()
        elif now - self.told >= PLAIN_SECONDS and is_first():
            self.told = now
            print(text, file=sys.stderr, flush=True)

    def _left(self, done: int, total: int, now: float) -> str:
        """By what has been done since this began; what was done before tells nothing of the pace."""
        new = done - self.first
        return f"  about {clock((now - self.began) / new * (total - done))} left" if new > 0 and done < total else ""

    def stop(self) -> None:
        if self.status is not None:
            self.status.stop()
        self.status = None

    def __exit__(self, *_: Any) -> None:
        self.stop()


def prompts_of(path: Path) -> list[Any]:
    """The prompts of a text file (one a line) or of JSON lines, as messages."""
    from ..records import messages
    from .talk import read_prompts

    return [messages(turns) for turns in read_prompts(path, None)]
