"""The commands put together, and the one place where an error becomes a line and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from ..errors import PluralignError
from . import (
    align,
    curate,
    data,
    evaluate,
    evaluate_attributes,
    evaluate_benchmark,
    info,
    intents,
    intents_labels,
    merge,
    mixture,
    orchestrate,
    quickstart,
    rounds,
    score_rest,
    serve,
    sweep,
    talk,
)
from .console import DEBUG, Stopped, complain, debugging, quiet_process

__all__ = ["app", "main", "run"]

EPILOG = """\b
First steps:
  pluralign quickstart                               train and judge a small model on this machine
  pluralign data audit pairs.jsonl --model MODEL     see the tokens before you pay for them
  pluralign align dpo --model MODEL --data pairs.jsonl --output runs/dpo
  pluralign chat runs/dpo

\b
Exit codes: 0 done, 1 a mistake, 2 settings, 3 data, 4 training had to stop, 130 interrupted.
"""


class Ordered(TyperGroup):
    """Commands in the order in which a person needs them."""

    def list_commands(self, ctx: Any) -> list[str]:
        return ["quickstart", "recipes", "objectives", "data", "curate", "intents", "align", "sweep", "rounds", "merge",
                "mixture", "orchestrate", "generate", "chat", "serve",
                "evaluate", "score", "compare", "report", "cache", "version"]  # fmt: skip


app = typer.Typer(
    name="pluralign",
    cls=Ordered,
    help="Align language models with what people want when people want different things.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
FREE = {"ignore_unknown_options": True, "allow_extra_args": True}  # any other option is a setting of its name

app.command("quickstart", epilog=quickstart.EPILOG)(quickstart.quickstart)
app.command("align", epilog=align.EPILOG, context_settings=FREE)(align.align)
app.command("sweep", epilog=sweep.EPILOG, context_settings=FREE)(sweep.sweep)
app.command("rounds", epilog=rounds.EPILOG, context_settings=FREE)(rounds.rounds)
app.command("recipes", epilog=info.EPILOG_RECIPES)(info.recipes)
app.command("objectives")(info.objectives)
app.add_typer(data.app, name="data")
app.command("curate", epilog=curate.EPILOG)(curate.curate)
intents_labels.register()
app.add_typer(intents.app, name="intents")
app.command("merge", epilog=merge.EPILOG)(merge.merge)
app.add_typer(mixture.app, name="mixture")
app.command("orchestrate", epilog=orchestrate.EPILOG)(orchestrate.orchestrate)
app.command("serve", epilog=serve.EPILOG)(serve.serve)
app.command("generate", epilog=talk.EPILOG_GENERATE)(talk.generate)
app.command("chat", epilog=talk.EPILOG_CHAT)(talk.chat)
evaluate.app.command("attributes", epilog=evaluate_attributes.EPILOG)(evaluate_attributes.attributes)
evaluate_benchmark.register(evaluate.app)
app.add_typer(evaluate.app, name="evaluate")
app.add_typer(score_rest.app, name="score")
app.command("compare", epilog=evaluate.EPILOG_COMPARE)(evaluate.compare)
app.command("report", epilog=evaluate.EPILOG_REPORT)(evaluate.report)
app.command("cache", epilog=info.EPILOG_CACHE)(info.cache)
app.command("version")(info.version)


def run(arguments: Sequence[str] | None = None) -> int:
    """The command line as a function: what it prints goes to stdout and stderr, what it returns is the exit code."""
    quiet_process()
    command = typer.main.get_command(app)
    try:
        code = command.main(args=list(arguments) if arguments is not None else None, prog_name="pluralign",
                            standalone_mode=False)  # fmt: skip
        if code == 130:  # Ctrl-C outside of a run, which has its own words for it
            complain("stopped.", error=False)
        return code if isinstance(code, int) else 0
    except PluralignError as error:
        if debugging():
            traceback.print_exc()
        complain(str(error), error=not isinstance(error, Stopped))
        return error.exit_code
    except (KeyboardInterrupt, EOFError, typer.Abort):
        complain("stopped.", error=False)
        return 130
    except BrokenPipeError:  # `pluralign ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        return _unexpected(error)


def _unexpected(error: Exception) -> int:
    """A wrong command line, or a mistake of ours: one line all the same."""
    if hasattr(error, "format_message"):  # typer's own: an unknown option, a missing argument
        context = getattr(error, "ctx", None)
        path = getattr(context, "command_path", "pluralign")
        text = error.format_message()
        complain(f"{text}{'' if text.endswith(('.', '?')) else '.'} See `{path} --help`.")
        return 2
    if debugging():
        traceback.print_exc()
    complain(f"{type(error).__name__}: {error} (this is a fault of pluralign; {DEBUG}=1 shows where it happened)")
    return 1


def main() -> None:
    """The entry point of the `pluralign` command."""
    sys.exit(run())
