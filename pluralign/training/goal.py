"""What a run minimises: an objective, its hyper-parameters, the conditioning it is read under, and what it remembers.

From the readings of a micro-batch to one loss an example. Everything that needs a model is handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..conditioning import Conditioning, bare, is_conditioned, view
from ..errors import SettingsError
from ..objectives import Objective, Outcome
from ..objectives.rating import masked_mean, masked_squared_error
from ..scoring.forward import forward, text_config, unwrap
from ..scoring.logprobs import chunked_kl
from .batch import Given, Micro, by_name

__all__ = ["Goal", "observe"]

Views = Sequence[tuple[float, bool]]
Live = Callable[[], AbstractContextManager[Any]]  # the reference model, ready to be run


@dataclass
class Goal:
    """An objective as a run pursues it. `running` holds, per view, what the objective carries from step to step.

    `sense` is the weight lambda of ||s - mu(x)||^2, the sensing head's loss (SGA, Eq. 7 and 9); at 0 there is none.
    """

    objective: Objective
    hyper: Mapping[str, Any]
    conditioning: Conditioning = field(default_factory=Conditioning)
    sense: float = 0.0
    running: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def reads(self) -> tuple[str, ...]:
        """What the policy's pass has to return besides sums and lengths."""
        return (*self.objective.reads, "sensed") if self.sense else self.objective.reads

    @property
    def mismatched(self) -> bool:
        """Whether each prompt is also read with another example's response."""
        return "mismatched" in self.objective.needs

    @property
    def token_level(self) -> bool:
        """Whether the reference is read token by token: that is not kept on disk, but read anew in every step."""
        return self.objective.reference and bool({"tokens", "kl"} & set(self.objective.reads))

    @property
    def live(self) -> bool:
        """Whether the reference is run beside the policy in every step."""
        return self.mismatched or self.token_level

    def names(self, policy: Sequence[str], *, watched: bool) -> tuple[str, ...]:
        """The policy terms that a pass has to read, for the loss, or for the loss and what is watched beside it."""
        shown = {other for _, other in (self.conditioning.watched if watched else self.conditioning.views)}
        twins = {bare(n) for n in policy if is_conditioned(n)}  # what has none (an open target) is in every view
        return tuple(n for n in policy if is_conditioned(n) in shown or (not is_conditioned(n) and n not in twins))

    def outcome(self, readings: Mapping[str, Any], views: Views, batches: Sequence[Any] | None = None) -> Outcome:
        """Loss and metrics over the views; metrics of the conditioned one are named `conditioned_...`."""
        found = []
        for i, (weight, other) in enumerate(views):
            extra: dict[str, Any] = {}
            if self.objective.statistics is not None:
                extra["batch"] = batches[i] if batches else None
            if self.objective.update is not None:
                extra["running"] = self.running.get(_key(other), {})
            try:
                found.append((weight, other, self.objective(view(readings, other), **self.hyper, **extra)))
            except ValueError as error:  # a hyper-parameter that cannot be
                raise SettingsError(f"objective {self.objective.name}: {error}") from error
        if len(found) == 1 and not found[0][1]:
            return self._sensing(found[0][2], readings)
        loss: Any = sum(weight * out.loss for weight, _, out in found if weight)
        metrics = {(f"conditioned_{n}" if other else n): v for _, other, out in found for n, v in out.metrics.items()}
        if "margin" in metrics and "conditioned_margin" in metrics:
            metrics["conditioning_gap"] = metrics["conditioned_margin"] - metrics["margin"]
        return self._sensing(Outcome(loss, metrics), readings)

    def _sensing(self, outcome: Outcome, readings: Mapping[str, Any]) -> Outcome:
        """The outcome plus lambda ||s - mu(x)||^2, once an example, whatever the views."""
        if not self.sense:
            return outcome
        sensed = next(s for r in readings.values() if (s := getattr(r, "sensed", None)) is not None)
        error = masked_squared_error(sensed, readings["attributes"])
        off = masked_mean((sensed - readings["attributes"]).abs())
        metrics = {**outcome.metrics, "sensing_loss": error.detach(), "sensing_error": off.detach()}
        return Outcome(outcome.loss + self.sense * error, metrics)

    def statistics_of(self, readings: Mapping[str, Any], other: bool) -> dict[str, Tensor]:
        """The objective's statistics of one micro-batch. Raises KeyError for a reading that is not there."""
        assert self.objective.statistics is not None
        return {n: v.detach().float().cpu() for n, v in self.objective.statistics(view(readings, other)).items()}

    def remember(self, batches: Sequence[Mapping[str, Tensor]], views: Views) -> None:
        """Carry the running numbers one step on."""
        assert self.objective.update is not None
        for batch, (_, other) in zip(batches, views, strict=True):
            self.running[_key(other)] = self.objective.update(self.running.get(_key(other), {}), batch)


def _key(other: bool) -> str:
    return "conditioned" if other else "prompt"


def observe(model: Any, micro: Micro, goal: Goal, live: Live) -> dict[str, Any]:
    """Every reading of a micro-batch by name: the policy's (one pass), the reference's, the columns of the data."""
    wants_kl = "kl" in goal.reads
    readings = forward(model, micro.layout, ("sum", "length", *goal.reads))
    named = {**by_name(readings, micro.index, tokens="tokens" in goal.reads), **micro.given}
    if micro.reference is not None:
        layout, index = micro.reference
        with torch.no_grad(), live() as reference:
            found = by_name(forward(reference, layout, ("sum", "length", *(["kl"] if wants_kl else []))), index)
            head = unwrap(reference).get_output_embeddings().weight.detach() if wants_kl else None
        named |= found
        if wants_kl:
            named |= _with_kl(model, named, head)
    return named


def _with_kl(model: Any, named: Mapping[str, Any], head: Any) -> dict[str, Any]:
    """The policy's readings with KL(pi_ref || pi) of each token; the reference reads the same tokens, prompt-level."""
    own = unwrap(model).get_output_embeddings().weight
    softcap = getattr(text_config(model), "final_logit_softcapping", None)
    out = {}
    for name, r in named.items():
        ref = named.get(f"ref_{bare(name)}")
        if getattr(r, "predict_hidden", None) is None or ref is None:
            continue
        kl = chunked_kl((ref.predict_hidden, head), (r.predict_hidden, own), softcap=softcap)
        out[name] = replace(r, kl=kl)
    return out


@torch.no_grad()
def mismatched(model: Any, micro: Micro, live: Live) -> dict[str, Given]:
    """log pi(y' | x) and log pi_ref(y' | x) for each example's prompt and another one's response."""
    assert micro.mismatched is not None
    policy = forward(model, micro.mismatched)
    with live() as reference:
        ref = forward(reference, micro.mismatched)
    return {"mismatched": Given(policy.sum, policy.length), "ref_mismatched": Given(ref.sum, ref.length)}


def refuse(goal: Goal, *, sharded: bool, layout: str) -> None:
    """Raises SettingsError for what cannot be done: a live reference or two passes of a sharded model, a context
    without gradient that the loss learns from besides, or in padded rows."""
    how = goal.conditioning
    if not how.context_gradient and how.strategy != "none":
        why = ""
        if how.strategy == "averaged":
            why = "conditioning=averaged learns from the same tokens as responses"
        elif layout != "trie" or sharded:
            why = "a sharded model is run in one pass" if sharded else "this model is read in padded rows"
        if why:
            raise SettingsError(
                f"conditioning.context_gradient=false is not possible: {why}.",
                remedy="Leave it at true: it costs time.",
            )
    if goal.live and sharded:
        raise SettingsError(
            f'objective "{goal.objective.name}" reads the reference while it trains, and a sharded run cannot.',
            remedy="Train it on one device or under plain data parallelism (DDP), with a LoRA if memory is short.",
        )
