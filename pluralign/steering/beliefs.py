"""A policy with beliefs at inference (GDPO): how it spreads over the options of a question, and answers by option.

p(y | x) = sum_b p(b | x) p(y | x, b): the numbers of all options are read in one pass, an option is drawn from them (or
taken, or all of them are), its number and text are put before the response, and the answer is written behind them.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..data.beliefs import Beliefs
from ..errors import SettingsError
from ..records import messages
from ..scoring.layout import Scored
from ..terms import Term
from .generate import answer
from .requests import Answer, Options, Prompt, Request

if TYPE_CHECKING:
    from ..policy import Policy

__all__ = ["Believed", "Spread", "believe", "drawn", "spread"]

How = Literal["sample", "argmax", "all"]
PLACES = 10_000  # places of random numbers that one question has to itself


@dataclass(frozen=True, slots=True)
class Spread:
    """log q(b | x) of the K options of one question, over everything that the policy could write: they add up to at
    most 1. `shares` are the same over the options alone, `off_option` is what lies elsewhere."""

    log_q: tuple[float, ...]

    @property
    def probabilities(self) -> tuple[float, ...]:
        """q as it is: what `judging.distributions.opinion_report` compares with people's shares."""
        return tuple(map(math.exp, self.log_q))

    @property
    def shares(self) -> tuple[float, ...]:
        top = max(self.log_q)
        weights = [math.exp(x - top) for x in self.log_q]
        return tuple(w / math.fsum(weights) for w in weights)

    @property
    def off_option(self) -> float:
        return max(0.0, 1 - math.fsum(self.probabilities))


@dataclass(frozen=True, slots=True)
class Believed:
    """An answer behind option `option`, which has the share `weight` among the options."""

    option: int
    weight: float
    answer: Answer


def spread(policy: Policy, questions: Sequence[tuple[Prompt, Beliefs]], *, token_budget: int = 8192) -> list[Spread]:
    """How the policy spreads over the options of every question. Raises RenderError where one cannot be shown."""
    rows = []
    for i, (prompt, beliefs) in enumerate(questions):
        turns = messages(prompt)
        numbers = (messages(beliefs.number(k), role="assistant") for k in range(len(beliefs)))
        rows.append(
            ([Term(f"b.{k}", (turns,), n, ended=False) for k, n in enumerate(numbers)], (), f"question {i + 1}")
        )
    rendered = policy.renderer.render_batch(rows)
    flat = [Scored(r.context, r.target) for row in rendered for r in row]
    ends = list(itertools.accumulate(map(len, rendered)))
    groups = [list(range(end - len(row), end)) for row, end in zip(rendered, ends, strict=True)]
    readings = policy.score(flat, groups=groups, token_budget=token_budget) if flat else []
    return [Spread(tuple(float(readings[i].sum[0]) for i in group)) for group in groups]


def drawn(found: Spread, how: How, seed: int, place: int) -> tuple[int, ...]:
    """The options to answer by: one drawn in the policy's own shares (the same for the same seed and place, whatever
    else is asked), the likeliest, or all. Raises SettingsError for another `how`."""
    if how == "all":
        return tuple(range(len(found.log_q)))
    if how == "argmax":
        return (max(range(len(found.log_q)), key=lambda k: found.log_q[k]),)
    if how != "sample":
        raise SettingsError(f'how is "{how}"; it must be "sample", "argmax" or "all".')
    goal = random.Random(f"{seed}|{place}").random()
    reached = 0.0
    for k, share in enumerate(found.shares):
        reached += share
        if goal < reached:
            return (k,)
    return (len(found.log_q) - 1,)  # rounding left the sum a little below 1


def believe(
    policy: Policy,
    questions: Sequence[tuple[Prompt, Beliefs]],
    how: How = "sample",
    *,
    samples: int = 1,
    max_new_tokens: int = 256,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    batch_size: int = 16,
) -> list[list[Believed]]:
    """For every question, `samples` answers behind options that are drawn anew ("sample"), or one behind the likeliest
    option ("argmax") or behind each ("all"). Defaults of the draw are those of GDPO: the policy's own probabilities.

    The same seed gives the same options and texts, whatever shares the batch.
    Raises SettingsError for an option that cannot be, RenderError for a question that cannot be shown.
    """
    if not 1 <= samples <= PLACES:
        raise SettingsError(f"samples must be 1 to {PLACES:,}, not {samples}.")
    times = samples if how == "sample" else 1
    Options(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed).check()
    spreads = spread(policy, questions)
    asked: list[tuple[int, int]] = []  # question, option
    requests = []
    for i, ((prompt, beliefs), found) in enumerate(zip(questions, spreads, strict=True)):
        options = [k for n in range(times) for k in drawn(found, how, seed, i * PLACES + n)]
        for n, k in enumerate(options):
            asked.append((i, k))
            requests.append(
                Request(
                    messages(prompt),
                    max_new_tokens=max_new_tokens,
                    temperature=temperature,
                    top_p=top_p,
                    seed=seed,
                    prefix=beliefs.pieces(k),
                    place=i * PLACES + n,
                )
            )
    out: list[list[Believed]] = [[] for _ in questions]
    for (i, k), said in zip(asked, answer(policy, requests, batch_size=batch_size), strict=True):
        out[i].append(Believed(k, spreads[i].shares[k], said))
    return out
