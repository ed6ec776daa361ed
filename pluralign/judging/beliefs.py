"""Beliefs that a policy writes by itself: which option a response begins with, and whether number and text agree.

A response of a policy trained with beliefs begins with `{number}<{text}>` (see `data.beliefs`). What cannot be read as
that is an outcome of its own: it counts neither as consistent nor as inconsistent.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..data.beliefs import Beliefs
from .statistics import Estimate, share_interval

__all__ = ["Written", "class_belief_consistency", "written_belief"]

_NUMBER = re.compile(r"\s*(\d+)\s*(?=<)")


@dataclass(frozen=True, slots=True)
class Written:
    """The option that a response names by its `number` and the one whose text follows (None: not one of the question's
    options, or not written). `rest` is what comes behind both."""

    number: int | None
    text: int | None
    rest: str

    @property
    def consistent(self) -> float | None:
        """1 where number and text are the same option, 0 where they are two, None where either could not be read."""
        return None if self.number is None or self.text is None else float(self.number == self.text)


def written_belief(response: str, beliefs: Beliefs) -> Written:
    """What a response begins with. Texts are compared with the question's own options, the longest first, so that a
    ">" in an option or in the answer changes nothing."""
    found = _NUMBER.match(response)
    if found is None:
        return Written(None, None, response)
    numbers = {beliefs.number(k): k for k in range(len(beliefs))}
    behind = response[found.end() :]
    order = sorted(range(len(beliefs)), key=lambda k: -len(beliefs.options[k]))
    text = next((k for k in order if behind.startswith(beliefs.words(k))), None)
    rest = behind if text is None else behind[len(beliefs.words(text)) :]
    return Written(numbers.get(found[1]), text, rest)


def class_belief_consistency(
    responses: Sequence[str], questions: Sequence[Beliefs], level: float = 0.95
) -> tuple[Estimate, list[Written]]:
    """CBC (Yao et al. 2025): the share of responses whose number and text are the same option, Wilson interval, with
    those that could not be read as `missing`; and what was read of each."""
    read = [written_belief(response, beliefs) for response, beliefs in zip(responses, questions, strict=True)]
    return share_interval([w.consistent for w in read], level), read
