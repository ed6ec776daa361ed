"""Errors meant for a person: one line that says what is wrong, where, and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["PluralignError", "RecordError", "RenderError", "SettingsError", "TrainingError", "nearest"]


class PluralignError(Exception):
    """A mistake the user can mend. The command line prints `error: {message}` without a traceback."""

    exit_code = 1

    def __init__(self, message: str, *, remedy: str = "") -> None:
        self.message, self.remedy = message, remedy
        super().__init__(f"{message} {remedy}".strip())


class SettingsError(PluralignError):
    """An unknown or impossible setting, recipe, file or command-line value."""

    exit_code = 2


class RecordError(PluralignError):
    """A malformed row: `where` is `file:line` (or `dataset[row]`), `reason` is what is wrong with it."""

    exit_code = 3

    def __init__(self, reason: str, *, where: str = "", remedy: str = "") -> None:
        self.reason, self.where = reason, where
        super().__init__(f"{where}: {reason}" if where else reason, remedy=remedy)


class RenderError(RecordError):
    """A record that the template or the length limit cannot render without breaking the contract."""


class TrainingError(PluralignError):
    """A run that had to stop: a non-finite loss, layouts that disagree, a checkpoint that does not fit."""

    exit_code = 4


def nearest(word: str, known: Iterable[str]) -> str:
    """` Did you mean "x"?` for the most similar known word, or an empty string."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f' Did you mean "{found[0]}"?' if found else ""
