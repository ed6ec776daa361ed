"""Conditioning: any plan with more in its contexts than the prompt, whatever the objective.

`conditioned` shows the policy the other response (InSPO), `scored` shows attribute scores to policy and reference (SGA
and its rivals), `intended` shows them an intent (A-IPO). They compose: intents and scores belong to the prompt, in this
order, the other response stands behind it.

A term's name says under what it is read: "ys.3@1|other" is the fourth response of a list under the second of its
prompt's candidate intents, with another response in the context.

Strategies, with the section of the paper (Li, Lan, Qi 2025, arXiv 2512.23126):

    none        log pi(y_w | x),      log pi(y_l | x)
    one-sided   log pi(y_w | x, y_l), log pi(y_l | x, y_l)                      5.3 (ii)
    cross       log pi(y_w | x, y_l), log pi(y_l | x, y_w)                      Eq. 10, Algorithm 1
    averaged    half the loss of `none` and half that of `cross`                5.3 (iv)

The reference never sees the other response, so that its readings, and their cache, are plain DPO's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .attributes import ScoreForm
from .errors import RecordError, SettingsError
from .intention import IntentForm
from .records import Demonstration, Labelled, Messages, Preference, Ranked, Record
from .terms import Alternative, Aside, Column, Item, Plan, Scores, Term

__all__ = [
    "ASK", "NO_INTENT", "STRATEGIES", "Candidates", "Conditioning", "bare", "conditioned", "intended", "is_conditioned",
    "plain", "scored", "scores_of", "slot_of", "view",
]  # fmt: skip

STRATEGIES = ("none", "one-sided", "cross", "averaged")
ASK = "Give another answer to the same request."


@dataclass(frozen=True)
class Conditioning:
    """What the policy is shown beside the prompt while it learns.

    `context_gradient` False reads the other response without gradient (D.5): the same loss, a cheaper step, a gradient
    that lacks the way through it. It needs the trie, and a strategy that does not learn from the same tokens besides.
    `dropout` is the share of examples that are scored without the other response, drawn anew in every epoch (ours, not
    in the paper: at 1 nothing is conditioned). The other fields are those of `Alternative`.
    """

    strategy: str = "none"
    style: str = "separator"
    separator: str = "auto"
    ask: str = ASK
    draft_cap: float | None = 0.4
    context_gradient: bool = True
    dropout: float = 0.0

    @property
    def views(self) -> tuple[tuple[float, bool], ...]:
        """(weight in the loss, whether the other response is shown) of every reading of the objective."""
        if self.strategy == "none":
            return ((1.0, False),)
        if self.strategy == "averaged":
            return ((0.5, False), (0.5, True))
        return ((1.0, True),)

    @property
    def watched(self) -> tuple[tuple[float, bool], ...]:
        """`views`, and the prompt-level reading at weight 0 where the loss has none: it is what deployment does."""
        shown = {with_other for _, with_other in self.views}
        return self.views if False in shown else (*self.views, (0.0, False))

    def alternative(self, response: Messages) -> Alternative:
        """The other response as a condition."""
        return Alternative(response, self.style, self.separator, self.ask, self.draft_cap)  # type: ignore[arg-type]


def conditioned(plan: Plan, how: Conditioning) -> Plan:
    """`plan` with, after each policy term, the same target under the other response. "none": the plan itself.

    The new terms are named "w|l" (the target, then what is shown). Their contexts differ, nothing else does. Open
    targets (an option's number) have no other response, and keep the prompt's reading in every view.
    """
    if how.strategy == "none":
        return plan

    def both(ex: Record) -> Iterable[Item]:
        for item in plan(ex):
            yield item
            if isinstance(item, Term) and item.by == "policy" and item.ended:
                label, response = _other(ex, item, one_sided=how.strategy == "one-sided")
                yield replace(item, name=f"{item.name}|{label}", context=(*item.context, how.alternative(response)))

    return both


def _other(ex: Record, term: Term, *, one_sided: bool) -> tuple[str, Messages]:
    """(name, response) of what `term` is shown."""
    if isinstance(ex, Preference):
        if one_sided or term.target == ex.chosen:
            return "l", ex.rejected
        return "w", ex.chosen
    if isinstance(ex, Ranked):  # ours: the best of the others, or the worst of all for "one-sided"
        mine = int(plain(term.name).partition(".")[2])
        order = sorted(range(len(ex.responses)), key=lambda i: -ex.scores[i])
        best = next(i for i in order if i != mine)
        return "other", ex.responses[order[-1] if one_sided else best]
    if isinstance(ex, Labelled | Demonstration) and ex.alternative:
        return "other", ex.response if one_sided and isinstance(ex, Labelled) and not ex.label else ex.alternative
    raise RecordError(
        "conditioning shows the other response to the same prompt, and this row has none.",
        remedy="Use pairs, or conditioning=none.",
    )


def scored(plan: Plan, form: ScoreForm, show: str = "chosen") -> Plan:
    """`plan` with attribute scores: as columns, and in the context of every term, the reference's too (SGA, Eq. 8).

    `show` "chosen": every term sees the scores of the response that is imitated, chosen or ranked first; "own": each
    its own target's; "none": no term sees any, but the prompt's last token is marked as if it did. Columns (NaN:
    missing), on the form's scale: "attributes.k" of that first response, and for a pair "attributes_w.k" (the same) and
    "attributes_l.k".
    """

    def with_scores(ex: Record) -> Iterable[Item]:
        first, *others = _attributes(ex)
        for item in plan(ex):
            if isinstance(item, Term):
                values = first
                if show == "own" and others and isinstance(ex, Preference) and item.target == ex.rejected:
                    values = others[0]
                text = "" if show == "none" else form.text(form.unit(values))
                prompt, *rest = item.context
                item = replace(item, context=(prompt, Scores(text, form.place), *rest))
            yield item
        names = ("attributes", "attributes_l") if others else ("attributes",)
        for name, values in zip(names, (first, *others), strict=True):
            for k, value in enumerate(form.unit(values)):
                yield Column(f"{name}.{k}", value)
                if others and name == "attributes":
                    yield Column(f"attributes_w.{k}", value)

    return with_scores


NO_INTENT = -1
Candidates = Sequence[tuple[int, float]]  # (intent, its share of the posterior over the candidates), likeliest first


def intended(
    plan: Plan,
    form: IntentForm,
    candidates: Callable[[Record], Candidates],
    aside: Callable[[Record], Sequence[int]] | None = None,
) -> Plan:
    """`plan` with every term, the reference's too, once under each candidate intent of its record (A-IPO, Eq. 9).

    "w" becomes "w@0", "w@1", ...; intent NO_INTENT shows nothing. Every record has the same number of candidates.
    Columns: "intent_label", the record's own (NO_INTENT: not known); "candidates.k", "candidate_q.k", its candidates.
    `aside` gives the ids that an encoder of the intention module reads. An intent that the form does not know (of a row
    held out) counts as none.
    """

    def with_intents(ex: Record) -> Iterable[Item]:
        found = candidates(ex)
        for item in plan(ex):
            if not isinstance(item, Term):
                yield item
                continue
            for k, (intent, _) in enumerate(found):
                context = _with_intent(item.context, form.text(intent), form.vectors(intent))
                yield replace(item, name=f"{item.name}@{k}", context=context)
        own = form.number(ex.intent) if ex.intent in form.names else None
        yield Column("intent_label", float(NO_INTENT if own is None else own))
        for k, (intent, share) in enumerate(found):
            yield Column(f"candidates.{k}", float(intent))
            yield Column(f"candidate_q.{k}", share)
        if aside is not None:
            yield Aside(tuple(aside(ex)))

    return with_intents


def _with_intent(context: tuple[Any, ...], text: str, soft: tuple[int, ...]) -> tuple[Any, ...]:
    """The context with an intent's vectors and words at the end of the prompt, ahead of its scores. An empty text marks
    the same token as any other: where the prompt itself ends."""
    prompt, *rest = context
    scores = next((c for c in rest if isinstance(c, Scores)), None)
    if scores is None:
        return (prompt, Scores(text, soft=soft), *rest)
    if scores.place != "after":
        raise SettingsError(
            "intents stand at the end of the prompt, and this wording of scores stands elsewhere.",
            remedy="Set scores.wording=sga.",
        )
    return (prompt, *(replace(c, text=text + c.text, soft=soft) if c is scores else c for c in rest))


def scores_of(record: Record) -> dict[str, Sequence[float | None]]:
    """By attribute, the scores of every response of a record."""
    own: Mapping[str, Any] = getattr(record, "attributes", {})
    several = isinstance(record, Preference | Ranked)
    return {name: values if several else (values,) for name, values in own.items()}


def _attributes(ex: Record) -> list[dict[str, float | None]]:
    """The attribute scores of the first response, and, for a pair, of the rejected one."""
    own: Mapping[str, Any] = getattr(ex, "attributes", {})
    if isinstance(ex, Preference):
        return [{name: both[i] for name, both in own.items()} for i in (0, 1)]
    if isinstance(ex, Ranked):
        best = max(range(len(ex.scores)), key=lambda i: ex.scores[i])
        return [{name: each[best] for name, each in own.items()}]
    return [dict(own)]


def is_conditioned(name: str) -> bool:
    """Whether the term of that name shows the other response."""
    return "|" in name


def bare(name: str) -> str:
    """The name that an objective knows the term by: "w|l" is "w"."""
    return name.partition("|")[0]


def plain(name: str) -> str:
    """`bare` without its intent: "w@1|l" is "w"."""
    return bare(name).partition("@")[0]


def slot_of(name: str) -> int | None:
    """Under which of its prompt's candidate intents a term is read: "w@1|l" has 1, "w" none."""
    slot = bare(name).partition("@")[2]
    return int(slot) if slot else None


def view(readings: Mapping[str, Any], with_other: bool, slot: int | None = None) -> dict[str, Any]:
    """The readings an objective sees, under the names that it knows: those of the prompt alone or with the other
    response, under the candidate intent `slot` where there are any."""
    mine = {name: r for name, r in readings.items() if slot_of(name) in (None, slot)}
    out = {plain(name): r for name, r in mine.items() if not is_conditioned(name)}
    if with_other:
        out |= {plain(name): r for name, r in mine.items() if is_conditioned(name)}
    return out
