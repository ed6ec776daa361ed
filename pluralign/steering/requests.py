"""What is asked of a policy, and what it answers: one row of a batch, with options of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..errors import SettingsError
from ..records import Messages

__all__ = ["MOST", "Answer", "Finish", "Options", "Place", "Prompt", "Request"]

Prompt = str | Messages | Sequence[Mapping[str, Any]]
Finish = Literal["stop", "length", "cancelled"]
MOST = 20  # tokens listed at a place: as many as OpenAI lists


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How text is drawn. `temperature` 0 takes the likeliest token; `top_p` keeps the smallest set of that mass."""

    max_new_tokens: int = 256
    temperature: float = 0.7
    top_p: float = 0.9
    seed: int = 0

    def check(self) -> Options:
        """Itself. Raises SettingsError for a value that cannot be."""
        if self.max_new_tokens < 1:
            raise SettingsError(f"max_new_tokens must be at least 1, not {self.max_new_tokens}.")
        if not 0 <= self.temperature < float("inf"):
            raise SettingsError(f"temperature must be 0 or more, not {self.temperature}.")
        if not 0 < self.top_p <= 1:
            raise SettingsError(f"top_p must be above 0 and at most 1, not {self.top_p}.")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Request(Options):
    """One prompt (text, or the messages so far) and how it is to be answered.

    `stop`: texts that end the response, and are no part of it. `attributes`: scores to steer by, on the scale on which
    the policy is shown them; those left out are sensed where it has a head. `intent` is what the prompt is after, in
    words: None has a policy with an intention module infer it, an empty text shows none; `x_con` is the knowledge that
    an encoder of that module reads beside the prompt. `tools` go to the chat template. `prefix`: pieces that the
    response begins with; the answer is what follows them. `place` is the request's number among those that share a
    seed: each draws its own numbers from (seed, place). `stream` False: nobody wants its text before it is whole.
    `logprobs`: how many of the likeliest tokens are told at every place beside the one written (None: not even that).
    """

    turns: Prompt = field(kw_only=False)
    stop: tuple[str, ...] = ()
    attributes: Mapping[str, float] = field(default_factory=dict)
    intent: str | None = None
    x_con: str = ""
    tools: tuple[Mapping[str, Any], ...] = ()
    prefix: tuple[str, ...] = ()
    place: int = 0
    stream: bool = True
    logprobs: int | None = None

    def check(self) -> Request:
        """Itself. Raises SettingsError for a value that cannot be."""
        Options.check(self)
        if isinstance(self.stop, str) or not all(isinstance(text, str) and text for text in self.stop):
            raise SettingsError(f"stop must be texts that are not empty, not {self.stop!r}.")
        if self.logprobs is not None and not 0 <= self.logprobs <= MOST:
            raise SettingsError(f"logprobs lists 0 to {MOST} tokens at a place, not {self.logprobs}.")
        for name, value in self.attributes.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise SettingsError(f'attribute "{name}" must be a number, not {value!r}.')
        return self


@dataclass(frozen=True, slots=True)
class Place:
    """A written token, its log-prob (nats), and (token, log-prob) of the likeliest ones there, best first."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """The response to one request: text without control tokens, stripped of blanks at both ends.

    `finish`: "stop" (the end of the turn, or a stop text), "length" (`max_new_tokens` were written) or "cancelled".
    `tokens` counts what the model wrote, its end of turn included. `attributes` are the scores that stood in the
    context, by name; those of them that the policy sensed are named in `sensed`. `intent` is the one that stood there
    (empty: none), and `intent_share` its posterior probability where the policy inferred it. `places`, where they were
    asked for, are the tokens written but the end of the turn, each with its log-prob.
    """

    text: str
    finish: Finish
    prompt_tokens: int
    tokens: int
    attributes: dict[str, float] = field(default_factory=dict)
    sensed: tuple[str, ...] = ()
    intent: str = ""
    intent_share: float | None = None
    places: tuple[Place, ...] = ()
