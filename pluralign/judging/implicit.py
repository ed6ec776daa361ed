"""The reward that a trained policy implies, as an attribute of responses: r(x, y) = beta log pi(y|x) / pi_ref(y|x).

A policy that DPO trained on one objective *is* a reward model of that objective (Rafailov et al. 2023, Eq. 5). MODPO
takes it as the margin of another objective's pairs (Zhou et al. 2024): score the pairs once, then train on the file.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..curate.pipeline import Count, Step
from ..errors import RecordError, RenderError, SettingsError
from ..records import Demonstration, Labelled, Messages, Preference, Ranked, Record
from ..scoring.layout import Scored
from ..terms import Term

if TYPE_CHECKING:
    from ..policy import Policy

__all__ = ["implicit_rewards", "implicit_scores"]

CHUNK = 256  # records rendered and scored at a time


def implicit_rewards(
    policy: Policy,
    records: Sequence[Record],
    *,
    reference: Policy | None = None,
    beta: float = 0.1,
    token_budget: int = 8192,
) -> list[tuple[float, ...] | RenderError]:
    """beta (log pi(y|x) - log pi_ref(y|x)), in nats, of every response of every record; in place of a record that
    cannot be rendered, its error.

    `reference` is what the policy was trained against; None: the base under the policy's own LoRA. Each is shown the
    prompt through its own renderer, the prompt alone (no attribute scores).
    Raises SettingsError for a beta that is no positive number, and where there is no reference.
    """
    _check(policy, reference, beta)
    own = _sums(policy, records, token_budget)
    if reference is not None:
        base = _sums(reference, records, token_budget)
    else:
        with policy.model.disable_adapter():
            base = _sums(policy, records, token_budget)
    out: list[tuple[float, ...] | RenderError] = []
    for ours, theirs in zip(own, base, strict=True):
        if isinstance(ours, RenderError) or isinstance(theirs, RenderError):
            out.append(ours if isinstance(ours, RenderError) else theirs)
        else:
            out.append(tuple(beta * (a - b) for a, b in zip(ours, theirs, strict=True)))
    return out


def implicit_scores(
    policy: Policy,
    name: str,
    *,
    reference: Policy | None = None,
    beta: float = 0.1,
    token_budget: int = 8192,
    progress: Callable[[int], None] | None = None,
) -> Step:
    """A curation step that writes a policy's implicit reward as the attribute `name` of every response.

    A record that cannot be rendered is dropped and counted. `progress` hears how many more records are done.
    Raises RecordError at a record that has the attribute already, SettingsError as `implicit_rewards` does.
    """
    _check(policy, reference, beta)

    def run(records: Iterable[Record], count: Count) -> Iterator[Record]:
        records = iter(records)
        while chunk := list(itertools.islice(records, CHUNK)):
            rewards = implicit_rewards(policy, chunk, reference=reference, beta=beta, token_budget=token_budget)
            for record, found in zip(chunk, rewards, strict=True):
                if isinstance(found, RenderError):
                    count.drop(record, "cannot be rendered", why=found.reason)
                else:
                    yield _with_attribute(record, name, found)
            if progress:
                progress(len(chunk))

    against = "the base of its adapter" if reference is None else reference.name
    return Step("implicit", run, {"attribute": name, "policy": policy.name, "reference": against, "beta": beta})


def _check(policy: Policy, reference: Policy | None, beta: float) -> None:
    if not (beta > 0 and math.isfinite(beta)):
        raise SettingsError(f"beta must be a positive number, not {beta:g}.")
    if reference is None and not hasattr(policy.model, "disable_adapter"):
        raise SettingsError(
            f"{policy.name} has no adapter, so that its reference must be named.",
            remedy="Give the model that it was trained from.",
        )
    if reference is not None and reference.model is policy.model:
        raise SettingsError("policy and reference are one model: every reward would be 0.")


def _responses(record: Record) -> tuple[Messages, ...]:
    if isinstance(record, Preference):
        return record.chosen, record.rejected
    if isinstance(record, Ranked):
        return record.responses
    assert isinstance(record, Demonstration | Labelled)
    return (record.response,)


def _sums(policy: Policy, records: Sequence[Record], token_budget: int) -> list[tuple[float, ...] | RenderError]:
    """log pi(y|x) of every response of every record; responses to one prompt are read together."""
    rows = [([Term(f"ys.{i}", (r.prompt,), y) for i, y in enumerate(_responses(r))], r.tools, r.where) for r in records]
    rendered = policy.renderer.try_batch(rows)
    flat: list[Scored] = []
    groups: list[list[int]] = []
    for row in rendered:
        if not isinstance(row, RenderError):
            groups.append(list(range(len(flat), len(flat) + len(row))))
            flat += [Scored(r.context, r.target, r.scored) for r in row]
    readings: list[Any] = policy.score(flat, groups=groups, token_budget=token_budget) if flat else []
    each = iter(groups)
    return [
        row if isinstance(row, RenderError) else tuple(float(readings[i].sum[0]) for i in next(each))
        for row in rendered
    ]


def _with_attribute(record: Record, name: str, values: tuple[float, ...]) -> Record:
    assert isinstance(record, Preference | Ranked | Demonstration | Labelled)
    if name in record.attributes:
        raise RecordError(
            f'there is an attribute "{name}" already.', where=record.where, remedy="Give the reward another name."
        )
    own: Any = values[0] if isinstance(record, Demonstration | Labelled) else values
    attributes: Any = {**record.attributes, name: own}
    return replace(record, attributes=attributes)
