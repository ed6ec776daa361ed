"""Which scores to ask for: from a weighting of attributes to target scores, and the goals of an online round.

Rewards-in-Context (Yang et al. 2024, arXiv 2402.10207): one policy that was trained with scores in its prompts is
steered along the front by the scores it is asked for, and learns from its own best answers to such goals. Goals are on
the scale that the prompt shows (z-scores there). Everything here is pure: who answers and who rates is handed in.

    ranges = ranges_of(rows)                                            # {"harmless": (-2.2, 2.3), "helpful": ...}
    goal = target_scores({"harmless": 0.3, "helpful": 0.7}, ranges)     # {"harmless": 0.5, "helpful": 2.3}
    policy.generate(prompts, attributes=goal)

An attribute's score is None or NaN where nobody gave one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ..errors import PluralignError, SettingsError, nearest
from ..records import Demonstration, Message, Messages

__all__ = ["CODE_RANGE", "Round", "draw_goals", "keep", "online_round", "ranges_of", "target_scores"]

Ranges = Mapping[str, tuple[float, float]]
Scores = Mapping[str, float | None]
How = Literal["linf", "l2", "linear"]
HOWS = ("linf", "l2", "linear")
RULES = ("any", "all")
CODE_RANGE = (-4.4, 4.4)  # the authors': the extremes of 50,000 draws of a standard normal, further out than any data


# From a preference to target scores


def ranges_of(rows: Iterable[Scores], quantiles: tuple[float, float] = (0.01, 0.99)) -> dict[str, tuple[float, float]]:
    """Each attribute's range in the data, between two quantiles of its known scores.

    A policy has hardly seen what lies outside: the authors ask for up to 4.4 standard deviations (`CODE_RANGE`).
    Raises SettingsError for quantiles that are none, and where there is no score at all.
    """
    low, high = quantiles
    if not 0 <= low < high <= 1:
        raise SettingsError(f"quantiles must be two numbers in [0, 1] in order, not {low:g} and {high:g}.")
    known = _known(rows)
    if not known:
        raise SettingsError("no row has a score, so that attributes have no range.")
    ends = {name: np.quantile(values, [low, high]) for name, values in known.items()}
    return {name: (float(a), float(b)) for name, (a, b) in ends.items()}


def _known(rows: Iterable[Scores]) -> dict[str, list[float]]:
    """The scores of each attribute, without those that are missing."""
    known: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            if value is not None and value == value:
                known.setdefault(name, []).append(float(value))
    return known


def target_scores(preference: Mapping[str, float], ranges: Ranges, how: How = "linf") -> dict[str, float]:
    """The scores to ask for, given how much each attribute matters: p on the simplex, an entry for every range.

    Attribute i is asked for lo_i + f_i (hi_i - lo_i), with f_i of K attributes

        linf     min(K p_i, 1): what matters at least as much as the average is asked for in full (the authors' choice)
        l2       p_i / ||p||_2
        linear   p_i

    Raises SettingsError for a preference that is none.
    """
    if how not in HOWS:
        raise SettingsError(f'unknown map "{how}" (known: {", ".join(HOWS)}).{nearest(how, HOWS)}')
    _check_preference(preference, ranges)
    norm = math.sqrt(sum(p * p for p in preference.values()))
    part = {
        "linf": lambda p: min(len(preference) * p, 1.0),
        "l2": lambda p: p / norm,
        "linear": lambda p: p,
    }[how]
    return {name: low + part(preference[name]) * (high - low) for name, (low, high) in ranges.items()}


def _check_preference(preference: Mapping[str, float], ranges: Ranges) -> None:
    if not ranges or set(preference) != set(ranges):
        raise SettingsError(
            f"a preference weighs every attribute: it names {', '.join(preference) or 'none'}, and there are "
            f"{', '.join(ranges) or 'none'}."
        )
    total = sum(preference.values())
    if any(not p >= 0 for p in preference.values()) or not math.isclose(total, 1.0, abs_tol=1e-6):
        raise SettingsError(
            f"the weights of a preference are not negative and add up to 1, not {dict(preference)}.",
            remedy="Divide them by their sum.",
        )


# An online round


def draw_goals(count: int, ranges: Ranges, seed: int = 0) -> list[dict[str, float]]:
    """`count` goals at the edges of the front: one attribute, chosen at random, anywhere in its range, the others at
    the end of theirs."""
    if count < 0 or not ranges:
        raise SettingsError(f"{count} goals for {len(ranges)} attributes cannot be drawn.")
    dice = np.random.default_rng(seed)
    names, top = list(ranges), {name: high for name, (_, high) in ranges.items()}
    free = dice.integers(len(names), size=count)
    where = dice.random(count)
    return [
        top | {names[i]: ranges[names[i]][0] + float(u) * (ranges[names[i]][1] - ranges[names[i]][0])}
        for i, u in zip(free.tolist(), where.tolist(), strict=True)
    ]


def keep(
    rows: Sequence[Scores],
    quantile: float = 0.7,
    rule: str = "any",
    *,
    bars: Mapping[str, float] | None = None,
) -> list[bool]:
    """Which rows are good enough: a score at or above its `quantile`, on "any" attribute or on "all" of them.

    `bars` are other thresholds; the quantiles of these rows otherwise. A missing score reaches no bar, so that under
    "all" its row is left out. The authors' code has "any". Raises SettingsError for a rule or quantile that is none.
    """
    if rule not in RULES:
        raise SettingsError(f'unknown rule "{rule}" (known: {", ".join(RULES)}).{nearest(rule, RULES)}')
    if not 0 <= quantile <= 1:
        raise SettingsError(f"quantile must lie in [0, 1], not {quantile:g}.")
    if bars is None:
        # a score of the data and no number between two, so that what is "at" the quantile is no matter of rounding
        bars = {n: float(np.quantile(values, quantile, method="higher")) for n, values in _known(rows).items()}
    enough = any if rule == "any" else all
    return [bool(bars) and enough(_reaches(row.get(name), bar) for name, bar in bars.items()) for row in rows]


def _reaches(value: float | None, bar: float) -> bool:
    return value is not None and value >= bar


@dataclass(frozen=True)
class Round:
    """What an online round leaves to train on, and what became of everything else."""

    records: list[Demonstration]
    counts: Counter[str] = field(default_factory=Counter)


def online_round(
    prompts: Sequence[Messages],
    ranges: Ranges,
    respond: Callable[[Sequence[Messages], Sequence[dict[str, float]]], Sequence[str]],
    rate: Callable[[Sequence[Demonstration]], Sequence[Demonstration]],
    originals: Sequence[Demonstration] = (),
    *,
    samples: int = 20_000,
    quantile: float = 0.7,
    rule: str = "any",
    mixed: int = 10_000,
    seed: int = 0,
) -> Round:
    """One online round: answers to drawn goals, rated anew, the best of them mixed with the best of the original rows.

    `respond` answers prompts under goals (shown scores, one a prompt), `rate` returns the same demonstrations, in
    order, with the attributes that their responses really have: those, and not the goals, are what the next stage
    shows. Prompts are taken in a drawn order, again from the start where there are fewer than `samples`. Each source is
    held against its own quantiles. At most `mixed` of the originals come in. Records are in a drawn order.
    Raises SettingsError where there is no prompt, PluralignError where `respond` or `rate` lose a row.
    """
    if not prompts:
        raise SettingsError("an online round needs prompts.")
    dice = np.random.default_rng([seed, 1])
    order = [int(i) for _ in range(-(-samples // len(prompts))) for i in dice.permutation(len(prompts))][:samples]
    asked = [prompts[i] for i in order]
    texts = list(respond(asked, draw_goals(samples, ranges, seed)))
    _same(len(asked), len(texts), "answers")
    made = [
        Demonstration(prompt=prompt, response=(Message("assistant", text),), source="online")
        for prompt, text in zip(asked, texts, strict=True)
        if text.strip()
    ]
    rated = list(rate(made))
    _same(len(made), len(rated), "ratings")
    best = [d for d, good in zip(rated, keep([d.attributes for d in rated], quantile, rule), strict=True) if good]
    fit = [
        d for d, good in zip(originals, keep([d.attributes for d in originals], quantile, rule), strict=True) if good
    ]
    taken = [fit[i] for i in dice.permutation(len(fit))[:mixed].tolist()]
    records = [*best, *taken]
    counts = Counter({
        "asked": len(asked), "empty": len(asked) - len(made), "below": len(rated) - len(best), "kept": len(best),
        "originals": len(originals), "originals below": len(originals) - len(fit), "originals mixed": len(taken),
    })  # fmt: skip
    return Round([records[i] for i in dice.permutation(len(records)).tolist()], counts)


def _same(expected: int, found: int, what: str) -> None:
    if expected != found:
        raise PluralignError(f"{found:,} {what} came back for {expected:,} rows.")
