"""Pairs that teach a policy to hit a requested score: controllable preference optimisation (CPSFT and CDPO).

Guo et al. 2024, arXiv 2402.19085. A prompt asks for a target on some attributes; of two responses the better one is
that which comes nearer to the target there, and scores higher on all others:

    R(y) = sum_{i in S} -lambda_i |g_i(y) - c_i| + sum_{i not in S} w_i g_i(y),   c the target on the controlled set S

The pairs have the target in their prompt, in the words of the supervised stage (`ScoreForm`), so that plain DPO learns
from them. A target is the rating of a response that exists: what nobody could write is never asked for.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..attributes import Scale, ScoreForm
from ..errors import RecordError, SettingsError
from ..records import Messages, Preference, Ranked, Record
from ..terms import Scores
from .pipeline import Count, Step

__all__ = ["PAPER_QUOTAS", "Quota", "control", "control_reward", "controlled_pairs", "cpo_form", "say_target"]

Ratings = Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Quota:
    """`count` pairs that ask for `target` exactly and for whatever a sampled response has on the attributes `free`.

    Neither: pairs without a target, whose better response is the one with the larger sum.
    """

    count: int
    target: Mapping[str, float] = field(default_factory=dict)
    free: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """For counts: "helpfulness=5 honesty=any", or "no target"."""
        fixed = [f"{name}={value:g}" for name, value in self.target.items()]
        return " ".join([*fixed, *(f"{name}=any" for name in self.free)]) or "no target"


# The authors' mixture over UltraFeedback: both attributes at their best, both anywhere, one alone, and no prefix.
PAPER_QUOTAS = (
    Quota(12_000, {"helpfulness": 5, "honesty": 5}),
    Quota(12_000, free=("helpfulness", "honesty")),
    Quota(12_000, {"helpfulness": 5}),
    *(Quota(3_000, {"helpfulness": rating}) for rating in (4, 3, 2, 1)),
    Quota(24_000),
)


def cpo_form(names: Sequence[str]) -> ScoreForm:
    """How targets are written: "<helpfulness: 5> <honesty: 3> " ahead of the prompt, ratings as they are."""
    return ScoreForm(tuple(Scale(name) for name in names), "cpo", "none")


def say_target(prompt: Messages, target: Mapping[str, float], form: ScoreForm) -> Messages:
    """The prompt with the target in the words of `form`; as it is where nothing is asked for."""
    return Scores(form.text(dict(target)), form.place).apply(prompt) if target else prompt


def control_reward(
    ratings: Ratings,
    target: Mapping[str, float],
    names: Sequence[str],
    *,
    distance_weights: Mapping[str, float] | None = None,
    weights: Mapping[str, float] | None = None,
) -> float | None:
    """R(y) over the attributes `names`, or None where a rating is missing: no response wins or loses by a gap.

    `distance_weights` are the lambdas, `weights` the w of what is not controlled, 1 where left out.
    """
    total = 0.0
    for name in names:
        rating = ratings.get(name)
        if rating is None or rating != rating:
            return None
        if name in target:
            total -= (distance_weights or {}).get(name, 1.0) * abs(rating - target[name])
        else:
            total += (weights or {}).get(name, 1.0) * rating
    return total


def controlled_pairs(
    record: Ranked | Preference,
    target: Mapping[str, float],
    names: Sequence[str],
    *,
    form: ScoreForm | None = None,
    **weights: Any,
) -> list[Preference]:
    """Every pair of two responses whose R differs, the one with the larger R chosen; `weights` as in `control_reward`.

    The prompt asks for the target, `meta["target"]` says it, `margin` is the difference of R, attributes stay.
    Raises SettingsError for a target on an attribute that is not among `names`.
    """
    _check_names(target, names)
    responses, attributes = _rated(record)
    each = [{name: values[i] for name, values in attributes.items()} for i in range(len(responses))]
    reward = [control_reward(ratings, target, names, **weights) for ratings in each]
    prompt = say_target(record.prompt, target, form or cpo_form(names))
    shared = {n: getattr(record, n) for n in ("tools", "source", "group", "user", "intent", "x_con", "weight", "where")}
    meta = {**record.meta, "target": dict(target)}
    pairs = []
    for i, j in itertools.combinations(range(len(responses)), 2):
        one, other = reward[i], reward[j]
        if one is None or other is None or one == other or responses[i] == responses[j]:
            continue
        w, l = (i, j) if one > other else (j, i)
        pairs.append(
            Preference(
                prompt=prompt,
                chosen=responses[w],
                rejected=responses[l],
                margin=abs(one - other),
                attributes={name: (values[w], values[l]) for name, values in attributes.items()},
                meta=meta,
                **shared,
            )
        )
    return pairs


def control(
    quotas: Sequence[Quota] = PAPER_QUOTAS,
    names: Sequence[str] = ("helpfulness", "honesty"),
    *,
    form: ScoreForm | None = None,
    seed: int = 0,
    **weights: Any,
) -> Step:
    """A curation step: rated rows to controlled pairs, in the parts that `quotas` ask for; one pair a row at most.

    Rows are taken in a drawn order, each for one quota only, and the quota that the fewest rows could serve chooses
    first, so that a common target does not eat a rare one's rows. Pairs come out in a drawn order; it holds the rows.
    What no quota takes is dropped and counted; quotas that stay short are noted. Raises SettingsError for a quota of an
    attribute not in `names`.
    """
    for quota in quotas:
        _check_names([*quota.target, *quota.free], names)
        if quota.count < 0:
            raise SettingsError(f'the quota "{quota.name}" asks for {quota.count} pairs.')
    words = form or cpo_form(names)

    def run(records: Iterable[Record], count: Count) -> Iterator[Record]:
        rows = [_need_rated(record) for record in records]
        dice = random.Random(f"control {seed}")
        dice.shuffle(rows)
        made = lambda i, target: controlled_pairs(rows[i], target, names, form=words, **weights)
        options: list[dict[int, dict[str, float]]] = []  # of each quota: the rows that can serve it, with a target
        for quota in quotas:
            drawn = ((i, _target(row, quota, names, dice)) for i, row in enumerate(rows))
            options.append({i: target for i, target in drawn if target is not None and made(i, target)})
        taken: dict[int, dict[str, float]] = {}
        for at in sorted(range(len(quotas)), key=lambda k: len(options[k])):
            free = [i for i in options[at] if i not in taken][: quotas[at].count]
            taken |= {i: options[at][i] for i in free}
            if len(free) < quotas[at].count:
                count.noted[f"missing of {quotas[at].name}"] += quotas[at].count - len(free)
        for i, row in enumerate(rows):
            if i in taken:
                yield dice.choice(made(i, taken[i]))
            else:
                served = any(i in own for own in options)
                count.drop(row, "quotas are full" if served else "no pair of different reward")

    settings = {"quotas": {q.name: q.count for q in quotas}, "attributes": list(names), "seed": seed, **weights}
    return Step("control", run, settings)


def _target(
    row: Ranked | Preference, quota: Quota, names: Sequence[str], dice: random.Random
) -> dict[str, float] | None:
    """A target of this quota that one of the row's own responses has, drawn among those; None where none has."""
    responses, attributes = _rated(row)
    asked = [*quota.target, *quota.free]
    if not asked:
        return {}
    found = []
    for i in range(len(responses)):
        own = {name: attributes[name][i] for name in asked if name in attributes}
        known = {name: value for name, value in own.items() if value is not None}
        if len(known) == len(asked) and all(math.isclose(known[n], c) for n, c in quota.target.items()):
            found.append(known)
    if not found:
        return None
    drawn = dice.choice(found)
    return {name: drawn[name] for name in names if name in drawn}


def _rated(record: Ranked | Preference) -> tuple[Sequence[Messages], Mapping[str, tuple[float | None, ...]]]:
    """The responses of a record, and the ratings of each one by attribute."""
    if isinstance(record, Preference):
        return (record.chosen, record.rejected), record.attributes
    return record.responses, record.attributes


def _need_rated(record: Record) -> Ranked | Preference:
    if isinstance(record, Ranked | Preference):
        return record
    raise RecordError(
        f"controlled pairs are made of two or more rated responses, and this is a {type(record).__name__.lower()}.",
        where=record.where,
    )


def _check_names(asked: Iterable[str], names: Sequence[str]) -> None:
    for name in asked:
        if name not in names:
            raise SettingsError(f'a target on "{name}", which is not among the attributes {", ".join(names)}.')
