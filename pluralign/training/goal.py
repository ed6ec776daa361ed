"""What a run minimises: an objective, its hyper-parameters, the conditioning it is read under, and what it remembers.

From the readings of a micro-batch to one loss an example. Everything that needs a model is handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..conditioning import Conditioning, bare, is_conditioned, slot_of, view
from ..errors import SettingsError
from ..objectives import Objective, Outcome
from ..objectives.rating import masked_mean, masked_squared_error
from ..scoring.forward import forward, text_config, unwrap
from ..scoring.logprobs import chunked_kl
from .batch import Given, Micro, by_name
from .intent_goal import IntentGoal, beta_of, refuse_tilt, similarity_gap

__all__ = ["Goal", "View", "observe"]


class View(NamedTuple):
    """One way of reading the objective's terms: its weight in the loss (0: watched only), whether the other response is
    shown, and under which of each prompt's candidate intents (None: there are none)."""

    weight: float
    other: bool
    slot: int | None = None


Views = Sequence[View]
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
    intents: IntentGoal | None = None
    running: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def reads(self) -> tuple[str, ...]:
        """What the policy's pass has to return besides sums and lengths."""
        sensed = ("sensed",) if self.sense else ()
        return (*self.objective.reads, *sensed, *(self.intents.reads if self.intents else ()))

    def views(self, *, watched: bool = False) -> tuple[View, ...]:
        """Every way in which the objective is read: for the loss, or for the loss and what is watched beside it.

        A candidate intent that is drawn has slot 0; a validation reads all of them.
        """
        shown = self.conditioning.watched if watched else self.conditioning.views
        if self.intents is None:
            return tuple(View(*v) for v in shown)
        slots = 1 if self.intents.drawn and not watched else self.intents.slots
        return tuple(View(*v, slot) for v in shown for slot in range(slots))

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
        views = self.views(watched=watched)
        shown, slots = {v.other for v in views}, {None, *(v.slot for v in views)}
        twins = {bare(n) for n in policy if is_conditioned(n)}  # what has none (an open target) is in every view
        names = (n for n in policy if is_conditioned(n) in shown or (not is_conditioned(n) and n not in twins))
        return tuple(n for n in names if slot_of(n) in slots)

    def outcome(self, readings: Mapping[str, Any], views: Views, batches: Sequence[Any] | None = None) -> Outcome:
        """Loss and metrics over the views; metrics of the conditioned one are named `conditioned_...`.

        Under candidate intents both are means by q(I | x) over them.
        """
        shares = self.intents.shares(readings) if self.intents else None
        loss: Any = 0.0
        found: dict[bool, list[tuple[Any, Outcome]]] = {}
        for i, v in enumerate(views):
            share = 1.0 if shares is None else shares[:, v.slot]
            out = self._under(v, readings, batches[i] if batches else None)
            if v.weight:
                loss = loss + v.weight * share * out.loss
            found.setdefault(v.other, []).append((share, out))
        metrics: dict[str, Tensor] = {}
        for other, each in found.items():
            metrics |= {(f"conditioned_{n}" if other else n): m for n, m in _averaged(each).items()}
        if "margin" in metrics and "conditioned_margin" in metrics:
            metrics["conditioning_gap"] = metrics["conditioned_margin"] - metrics["margin"]
        if self.intents:
            extra, more = self.intents.extra(readings)
            loss, metrics = loss + extra, {**metrics, **more}
        return self._sensing(Outcome(loss, metrics), readings)

    def _shown(self, v: View, readings: Mapping[str, Any]) -> dict[str, Any]:
        shown = view(readings, v.other, v.slot)
        return self.intents.tilted(shown, beta_of(self.objective, self.hyper)) if self.intents else shown

    def _under(self, v: View, readings: Mapping[str, Any], batch: Any) -> Outcome:
        """The objective's own outcome under one view."""
        shown = self._shown(v, readings)
        extra: dict[str, Any] = {}
        if self.objective.statistics is not None:
            extra["batch"] = batch
        if self.objective.update is not None:
            extra["running"] = self.running.get(_key(v), {})
        try:
            out = self.objective(shown, **self.hyper, **extra)
        except ValueError as error:  # a hyper-parameter that cannot be
            raise SettingsError(f"objective {self.objective.name}: {error}") from error
        gap = similarity_gap(shown) if self.intents else None
        if self.intents is None or gap is None:
            return out
        more = {"delta_sim": gap.detach()}
        if "margin" in out.metrics:  # r' and r of Eq. 43: with the similarity, and what the policy itself does
            more["policy_margin"] = out.metrics["margin"] - self.intents.similarity * gap.detach()
        return Outcome(out.loss, {**out.metrics, **more})

    def _sensing(self, outcome: Outcome, readings: Mapping[str, Any]) -> Outcome:
        """The outcome plus lambda ||s - mu(x)||^2, once an example, whatever the views."""
        if not self.sense:
            return outcome
        sensed = next(s for r in readings.values() if (s := getattr(r, "sensed", None)) is not None)
        error = masked_squared_error(sensed, readings["attributes"])
        off = masked_mean((sensed - readings["attributes"]).abs())
        metrics = {**outcome.metrics, "sensing_loss": error.detach(), "sensing_error": off.detach()}
        return Outcome(outcome.loss + self.sense * error, metrics)

    def statistics_of(self, readings: Mapping[str, Any], v: View) -> dict[str, Tensor]:
        """The objective's statistics of one micro-batch. Raises KeyError for a reading that is not there."""
        assert self.objective.statistics is not None
        found = self.objective.statistics(self._shown(v, readings))
        return {name: value.detach().float().cpu() for name, value in found.items()}

    def remember(self, batches: Sequence[Mapping[str, Tensor]], views: Views) -> None:
        """Carry the running numbers one step on."""
        assert self.objective.update is not None
        for batch, v in zip(batches, views, strict=True):
            self.running[_key(v)] = self.objective.update(self.running.get(_key(v), {}), batch)


def _key(v: View) -> str:
    name = "conditioned" if v.other else "prompt"
    return name if v.slot is None else f"{name}@{v.slot}"


def _averaged(each: Sequence[tuple[Any, Outcome]]) -> dict[str, Tensor]:
    """Metrics over candidate intents, weighed by their shares. What concerns some examples only is the first one's."""
    if len(each) == 1 and isinstance(each[0][0], float):
        return dict(each[0][1].metrics)
    out: dict[str, Tensor] = {}
    for name, first in each[0][1].metrics.items():
        values = [(share.detach(), o.metrics[name]) for share, o in each]
        whole = all(len(m) == len(share) for share, m in values)
        out[name] = sum((share * m for share, m in values), torch.zeros_like(first)) if whole else first
    return out


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
    if goal.intents and goal.intents.similarity:
        refuse_tilt(goal.objective, goal.hyper)
    if goal.intents and sharded:
        raise SettingsError(
            "intents are not read by a sharded model.",
            remedy="Train on one device or under plain data parallelism (DDP), with a LoRA if memory is short.",
        )
    if goal.live and sharded:
        raise SettingsError(
            f'objective "{goal.objective.name}" reads the reference while it trains, and a sharded run cannot.',
            remedy="Train it on one device or under plain data parallelism (DDP), with a LoRA if memory is short.",
        )
