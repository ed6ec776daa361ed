"""Speaking to a person: results on stdout, remarks and errors on stderr, and quiet libraries."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from ..errors import PluralignError

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "DEBUG",
    "Stopped",
    "clock",
    "complain",
    "console",
    "debugging",
    "is_first",
    "note",
    "print_json",
    "quiet_libraries",
    "quiet_process",
    "warn",
]

DEBUG = "PLURALIGN_DEBUG"


class Stopped(PluralignError):
    """The person ended it: no error, but not done either."""

    exit_code = 130


def debugging() -> bool:
    return os.environ.get(DEBUG, "") not in ("", "0")


def is_first() -> bool:
    """Whether this process speaks: the first of a distributed run, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def console(*, err: bool = False) -> Console:
    """Where people read. Width and colour follow the terminal; file names and numbers are not coloured by guess."""
    from rich.console import Console

    return Console(stderr=err, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    if is_first():
        print(json.dumps(value, indent=1, ensure_ascii=False, default=str))


def note(text: str) -> None:
    if is_first():
        print(f"note: {text}", file=sys.stderr)


def warn(text: str) -> None:
    if is_first():
        print(f"warning: {text}", file=sys.stderr)


def complain(text: str, *, error: bool = True) -> None:
    """One line on stderr; another process than the first says which it is."""
    rank = "" if is_first() else f"[process {os.environ['RANK']}] "
    line = " ".join(text.split("\n"))
    print(f"{rank}error: {line}" if error else f"{rank}{line}", file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """`0:34`, `12:05`, `1:02:03`."""
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{left:02d}" if hours else f"{minutes}:{left:02d}"


def quiet_process() -> None:
    """Before anything heavy is imported: what the libraries read from the environment."""
    for name, value in (
        ("TRANSFORMERS_VERBOSITY", "error"),
        ("DATASETS_VERBOSITY", "error"),
        ("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
        ("HF_HUB_DISABLE_TELEMETRY", "1"),
        ("TOKENIZERS_PARALLELISM", "false"),
    ):
        if not debugging():
            os.environ.setdefault(name, value)


def quiet_libraries() -> None:
    """For commands that load a model: no progress bars or log lines but our own."""
    if debugging():
        return
    import logging
    import warnings

    import transformers

    warnings.simplefilter("ignore")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for name in ("accelerate", "datasets", "peft", "torch"):
        logging.getLogger(name).setLevel(logging.ERROR)
