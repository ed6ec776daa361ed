"""Asking policies about held-out prompts in several ways, so that judges can say what steering is worth.

A policy answers every prompt once for each way of steering it, with the same random numbers under all of them.
Ways of steering:

    sensed     the policy senses the scores itself (those that are named, `given`, stand as they are)
    none       a policy without a head: no score stands in the prompt (or only those that are given)
    0.25, ...  the same score for every attribute, on the scale that prompts show
    gt         the reference response's own scores

Shapes: N prompts, A attributes of the policy.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..attributes import ScoreForm
from ..curate.texts import part_key
from ..errors import SettingsError
from ..records import Demonstration, Messages
from ..steering import Request
from .answers import read_saved, write_answers
from .attributes import steering_scores

if TYPE_CHECKING:
    from ..policy import Policy

__all__ = ["Drawn", "HeldOut", "Steered", "ask", "attributes_of", "grid_of", "held_out", "saved_answers", "ways"]

Floats = NDArray[np.float64]
Asked = list[dict[str, float] | None]  # the shown scores for each prompt; None: it is not answered
SAVED = "pluralign.json"  # beside the weights of a policy
GRID = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class HeldOut:
    """Prompts with a reference response each, its scores in the data's units, and the prompts' first user turns."""

    prompts: list[Messages]
    responses: list[Messages]
    attributes: list[Mapping[str, float]]
    clusters: list[str]
    on: str = ""

    @property
    def names(self) -> list[str]:
        """The attributes that some reference response has, in the order in which they are met."""
        return list(dict.fromkeys(name for row in self.attributes for name in row))


@dataclass(frozen=True)
class Drawn:
    """How answers are drawn. SGA's Table 6 has temperature 0.6, top-p 0.9 and 1,024 tokens."""

    max_new_tokens: int = 256
    temperature: float = 0.6
    top_p: float = 0.9
    seed: int = 0


@dataclass
class Steered:
    """What one policy answered: by the way of steering, and by (attribute, score) for sweeps; `sensed` (N, A)."""

    name: str
    answers: dict[str, list[str | None]] = field(default_factory=dict)
    sweeps: dict[str, dict[float, list[str | None]]] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    sensed: Floats | None = None
    truth: Floats | None = None
    names: tuple[str, ...] = ()
    form: ScoreForm | None = None
    notes: list[str] = field(default_factory=list)


# Prompts


def held_out(records: Iterable[Any], *, limit: int | None = None, on: str = "") -> HeldOut:
    """The prompts of demonstrations (pairs and rankings read as such: their best response). One prompt is asked once,
    with the first response that is met. Raises SettingsError where there is none."""
    seen: dict[bytes, Demonstration] = {}
    for record in records:
        if isinstance(record, Demonstration):
            seen.setdefault(part_key(record.prompt), record)
        if limit is not None and len(seen) >= limit:
            break
    found = list(islice(seen.values(), limit))
    if not found:
        raise SettingsError("there are no reference responses to hold answers against.")
    return HeldOut(
        prompts=[d.prompt for d in found],
        responses=[d.response for d in found],
        attributes=[d.attributes for d in found],
        clusters=[next((t.content.strip() for t in d.prompt if t.role == "user"), "") for d in found],
        on=on,
    )


# Asking


def ways(
    policy: Policy,
    held: HeldOut,
    *,
    given: Mapping[str, float] | None = None,
    fixed: Sequence[float] = (),
    ground_truth: bool = False,
) -> dict[str, Asked]:
    """The scores that each way of steering shows for each prompt, by its name; its own way first.

    Under "gt" a prompt whose reference response has none of the policy's scores is not answered; a single one that
    lacks is sensed. Raises SettingsError where scores are asked of a policy that takes none, or that it cannot be
    shown, and for ground truth that the data do not have.
    """
    n, form = len(held.prompts), policy.scores
    if form is None:
        if given or fixed or ground_truth:
            raise SettingsError(
                f'the policy "{policy.name}" takes no attribute scores, so that there is nothing to steer it by.',
                remedy="Leave out --attributes, --fixed, --ground-truth and --steer, or train one: `pluralign align "
                "sga`.",
            )
        return {"none": [{} for _ in range(n)]}
    own = "sensed" if policy.sensing is not None else "none"
    label = ", ".join(f"{name}={value:g}" for name, value in (given or {}).items()) or own
    asked: dict[str, Asked] = {label: [form.check(given or {}) for _ in range(n)]}
    truth = np.array([form.unit(row) for row in held.attributes])
    for name, table in steering_scores(truth, fixed=fixed).items():
        if name != "gt":
            asked[name] = [form.check(dict(zip(form.names, row, strict=True))) for row in table.tolist()]
        elif ground_truth:
            named = [dict(zip(form.names, row, strict=True)) for row in table.tolist()]
            asked[name] = [{k: v for k, v in row.items() if v == v} or None for row in named]
    if ground_truth and not any(asked["gt"]):
        have = ", ".join(held.names) or "none"
        raise SettingsError(f"the reference responses have no score on {', '.join(form.names)} (they have: {have}).")
    return asked


def grid_of(policy: Policy, steer: Sequence[str], grid: Sequence[float]) -> dict[str, dict[float, dict[str, float]]]:
    """{attribute: {score: what is shown}} of sweeps. Raises SettingsError for attributes or scores that cannot be."""
    form = policy.scores
    if not steer:
        return {}
    if form is None:
        raise SettingsError(f'the policy "{policy.name}" takes no attribute scores.', remedy="Leave out --steer.")
    values = tuple(grid) or (GRID if form.normal == "range" else ())
    if len(values) < 2:
        raise SettingsError(
            f"a sweep needs two scores or more, and those of a policy with scores.normal={form.normal} have no ends.",
            remedy="Name them: --grid=-1,0,1",
        )
    return {name: {v: form.check({name: v}) for v in sorted(set(values))} for name in steer}


def ask(
    name: str,
    policy: Policy,
    held: HeldOut,
    asked: Mapping[str, Asked],
    sweeps: Mapping[str, Mapping[float, Mapping[str, float]]],
    drawn: Drawn,
    *,
    path: Path | None = None,
    batch_size: int = 16,
    progress: Callable[[str, int, int], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> Steered:
    """Have a policy answer every prompt in every way, and sense its scores; answers that `path` holds are taken from
    there."""
    out = Steered(name, form=policy.scores)
    many: list[tuple[dict[str, Any], int, Mapping[str, float]]] = []
    for way, rows in asked.items():
        many += [({"scores": way}, i, row) for i, row in enumerate(rows) if row is not None]
        out.answers[way] = [None] * len(held.prompts)
    for attribute, values in sweeps.items():
        out.sweeps[attribute] = {v: [None] * len(held.prompts) for v in values}
        for value, shown in values.items():
            many += [({"steer": attribute, "at": value}, i, shown) for i in range(len(held.prompts))]
    requests = [
        Request(
            held.prompts[i], attributes=shown, place=i, max_new_tokens=drawn.max_new_tokens, seed=drawn.seed,
            temperature=drawn.temperature, top_p=drawn.top_p,
        )
        for _, i, shown in many
    ]  # fmt: skip
    labels = [{"model": name, **label, "row": i} for label, i, _ in many]
    count = (lambda done, of: progress(f"{name}: answers", done, of)) if progress else None
    out.rows = write_answers(path, policy, requests, labels, batch_size=batch_size, progress=count, warn=warn)
    for row in out.rows:
        here = out.answers[row["scores"]] if "scores" in row else out.sweeps[row["steer"]][row["at"]]
        here[row["row"]] = row["response"]
    _sense(out, policy, held, batch_size)
    return out


def _sense(out: Steered, policy: Policy, held: HeldOut, batch_size: int) -> None:
    """What the policy senses in every prompt, beside the scores of the reference responses, where both are known."""
    form = policy.scores
    if form is None or policy.sensing is None:
        return
    truth = np.array([form.unit(row) for row in held.attributes])
    if np.isnan(truth).all():
        out.notes.append(f"{out.name} senses scores, and the data have none to hold them against")
    elif form.normal != "range":
        out.notes.append(f"{out.name} senses scores on no scale of 0 to 1 ({form.normal}): their errors are not shown")
    else:
        found = policy.sense(held.prompts, batch_size=batch_size)
        out.sensed = np.array([[row[name] for name in form.names] for row in found])
        out.truth, out.names = truth, form.names


def saved_answers(name: str, path: Path, held: HeldOut) -> Steered:
    """The system whose answers a file holds (see `read_saved`); prompts that it lacks are not answered.

    Raises SettingsError where it answers none of the prompts.
    """
    saved = read_saved(path)
    out = Steered(name)
    out.answers["saved"] = [saved.get(part_key(prompt)) for prompt in held.prompts]
    answered = sum(text is not None for text in out.answers["saved"])
    if not answered:
        raise SettingsError(
            f"{path} answers none of the {len(held.prompts):,} prompts.",
            remedy="Prompts are compared as messages: role and text must be the same.",
        )
    if answered < len(held.prompts):
        out.notes.append(f"{name} lacks answers to {len(held.prompts) - answered:,} of {len(held.prompts):,} prompts")
    return out


def attributes_of(model: str | Path) -> tuple[str, ...]:
    """The attributes that a saved policy is shown, read without its weights; none where it takes no scores or is not a
    folder."""
    for folder in (Path(model) / "model", Path(model)):
        if (folder / SAVED).is_file():
            kept = json.loads((folder / SAVED).read_text("utf-8")).get("scores")
            return ScoreForm.from_dict(kept).names if kept else ()
    return ()
