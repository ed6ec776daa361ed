"""What a run does about intents: their form, the intention module, the candidates of every prompt (A-IPO, 4.2, 4.4).

The module is trained on labelled prompts before the policy (the paper's stage 2): either an encoder, by `pluralign
intents train`, whose folder is named, or a linear head that is fitted here on the policy's frozen states. Which intents
of a prompt are looked at is decided before the run, by that posterior; how much each counts, by the module in every
step.

Shapes: P distinct prompts, N intents, K candidates, D hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch

from ..conditioning import NO_INTENT, Candidates, intended
from ..curate.texts import part_key
from ..errors import SettingsError
from ..heads.intent import (
    IntentionModule,
    attach_intention,
    encoder_ids,
    intention_of,
    log_posterior,
    logits_of,
    prompt_text,
)
from ..heads.soft import begin_prefix
from ..intention import IntentForm, fit_intents
from ..intents.module import load_intention
from ..policy import Policy
from ..records import Demonstration, Messages, Preference, Ranked, Record
from ..scoring.layout import Scored
from ..terms import Plan, Term
from .callbacks import Say
from .goal import Goal
from .intent_goal import IntentGoal
from .settings import IntentSettings, Settings

__all__ = ["give_intents", "posterior"]

CHUNK = 256  # prompts read together
STARTS = 2000  # labelled responses that the intent vectors start from
UNSEEN = 5.0  # nats by which an intent without a labelled prompt starts below the least likely one


def give_intents(settings: Settings, goal: Goal, policy: Policy, data: Any, plan: Plan, say: Say) -> Plan:
    """The plan under candidate intents; form and module become the policy's, what they add to the loss the goal's.

    Raises SettingsError for data without intents, and for a module that was trained on others.
    """
    how = settings.intents
    if how.show == "none":
        return plan
    form = _form(how, policy, data)
    policy.intents = form
    module = _module(how, form, policy, data, say)
    if form.soft:
        begin_prefix(policy.model, form.soft)
    slots = len(form.names) if how.expectation == "sum" else min(how.candidates, len(form.names))
    fixed = how.show != "infer" or slots == 1
    weights = "fixed" if fixed else "drawn" if how.expectation == "draw" else "posterior"
    learns = how.show != "average"
    goal.intents = IntentGoal(
        1 if how.show != "infer" else slots, weights, how.similarity, how.kl if learns else 0.0,
        how.classify if learns else 0.0, how.gradient, module.loss, form.shares(),
    )  # fmt: skip
    _freeze_unread(module, goal.intents)
    if how.show == "infer":
        candidates = _inferred(policy, form, module, data, slots, say)
    else:
        candidates = _stated(form, average=how.show == "average")
    aside = None
    if module.encoder is not None and "intent" in goal.intents.reads:
        tokenizer = module.tokenizer
        aside = lambda ex: encoder_ids(tokenizer, [prompt_text(ex.prompt)], [ex.x_con])[0]
    shown = f"{how.show}, {goal.intents.slots} a prompt ({weights})"
    vectors = f"; {form.soft} vectors each" if form.soft else ""
    say.note(f"intents: {len(form.names)}; {shown}; similarity {how.similarity:g}, KL {how.kl:g}{vectors}")
    return intended(plan, form, candidates, aside)


def _form(how: IntentSettings, policy: Policy, data: Any) -> IntentForm:
    """The run's intents. A policy that has some goes on with them, unless the settings name others."""
    if policy.intents is not None and not how.names and how.show != "average":
        return replace(policy.intents, soft=how.soft) if how.soft else policy.intents
    rows: Iterable[Record] = data.train
    form = fit_intents(
        (r.intent for r in rows), how.names, prior=how.prior, words=how.words, threshold=how.threshold,
        soft=how.soft,
    )  # fmt: skip
    if how.show != "average":
        return form
    counts: dict[str, int] = {}
    for r in data.train:
        if r.intent:
            counts[r.intent] = counts.get(r.intent, 0) + 1
    return IntentForm((max(counts, key=lambda name: (counts[name], name)),), how.words, soft=how.soft)


def _stated(form: IntentForm, *, average: bool) -> Callable[[Record], Candidates]:
    """Each row's own intent, or the one of all rows."""

    def of(ex: Record) -> Candidates:
        number = 0 if average else form.number(ex.intent) if ex.intent in form.names else None
        return [(NO_INTENT if number is None else number, 1.0)]

    return of


# The module


def _module(how: IntentSettings, form: IntentForm, policy: Policy, data: Any, say: Say) -> IntentionModule:
    """The policy's own where it has one of these intents, else the one that the settings name, its vectors begun."""
    own = intention_of(policy.model)
    if own is not None and own.width == len(form.names):
        return own
    if how.module == "head":
        module = attach_intention(policy.model, "intent", len(form.names), loss=how.loss)
        if how.show == "infer" or (how.show == "label" and how.classify):
            _fit_head(module, form, policy, data, say)
    else:
        found = load_intention(how.module)
        if found.names != form.names:
            raise SettingsError(
                f'"{how.module}" was trained on other intents ({len(found.names)}) than the data have '
                f"({len(form.names)}), or in another order.",
                remedy="Set intents.names to those of the module, or train it on these data.",
            )
        module = attach_intention(policy.model, "intent", len(form.names), loss=how.loss, encoder=found.encoder)
        module.classifier.load_state_dict(found.classifier.state_dict())
        module.tokenizer = found.tokenizer
    if how.table == "responses":
        _start_vectors(module, form, policy, data, average=how.show == "average")
    return module


def _freeze_unread(module: IntentionModule, goal: IntentGoal) -> None:
    """Weights that no reading of the run depends on: data-parallel training waits for each gradient that could come."""
    for name, p in module.named_parameters():
        vectors = name.startswith(("table.", "project."))
        shown = module.prefix is not None and name.startswith(("table.", "prefix."))
        p.requires_grad_(shown or ("sim" if vectors else "intent") in goal.reads)


def _labelled(form: IntentForm, records: Iterable[Record]) -> list[tuple[Record, int]]:
    return [(ex, n) for ex in records if (n := form.number(ex.intent)) is not None]


def _fit_head(module: IntentionModule, form: IntentForm, policy: Policy, data: Any, say: Say) -> None:
    """Stage 2 for a head on the policy: logistic regression on frozen, standardised states of the labelled prompts."""
    from sklearn.linear_model import LogisticRegression

    known = _labelled(form, data.train)
    labels = np.array([number for _, number in known])
    if len(set(labels.tolist())) < 2:
        say.note("intents: fewer than two are labelled; the intention module starts without knowledge.")
        return
    states = _states(policy, [ex for ex, _ in known]).double().numpy()
    mean, scale = states.mean(0), states.std(0) + 1e-6
    fit = LogisticRegression(max_iter=2000).fit((states - mean) / scale, labels)
    weight, bias = fit.coef_, fit.intercept_
    if len(fit.classes_) == 2:  # one row: for the second against the first
        weight, bias = np.vstack([-weight / 2, weight / 2]), np.array([-bias[0] / 2, bias[0] / 2])
    rows = np.zeros((len(form.names), states.shape[1]))
    starts = np.full(len(form.names), bias.min() - UNSEEN)
    rows[fit.classes_], starts[fit.classes_] = weight / scale, bias - (weight / scale) @ mean
    with torch.no_grad():
        module.classifier.weight.copy_(torch.from_numpy(rows))
        module.classifier.bias.copy_(torch.from_numpy(starts))
    right = float((fit.predict((states - mean) / scale) == labels).mean())
    say.note(f"intention head: {len(known):,} labelled prompts, {right:.2f} of them told apart (training rows)")


@torch.no_grad()
def _start_vectors(module: IntentionModule, form: IntentForm, policy: Policy, data: Any, *, average: bool) -> None:
    """E[I] starts as the mean state of the chosen responses of intent I, less the mean of all: what tells it apart."""
    if module.table.embedding_dim != module.hidden:
        return
    known = [(ex, 0) for ex in data.train if ex.intent] if average else _labelled(form, data.train)
    known = known[:: max(1, len(known) // STARTS)]
    terms = [(Term("y", (ex.prompt,), best), n) for ex, n in known if (best := _best(ex))]
    if not terms:
        return
    sequences = [Scored(r.context, r.target, r.scored) for t, _ in terms for r in policy.renderer.render([t])]
    found = policy.score(sequences, reads=("sum", "length", "mean_hidden"))
    states = torch.stack([r.mean_hidden[0] for r in found if r.mean_hidden is not None])
    at = torch.tensor([n for _, n in terms])
    centre = states.mean(0)
    for n in range(len(form.names)):
        own = states[at == n]
        if len(own):
            module.table.weight[n] = (own.mean(0) - (0 if average else centre)).to(module.table.weight)


def _best(ex: Record) -> Messages:
    if isinstance(ex, Preference):
        return ex.chosen
    if isinstance(ex, Ranked):
        return ex.responses[max(range(len(ex.scores)), key=lambda i: ex.scores[i])]
    return ex.response if isinstance(ex, Demonstration) else ()


# The posterior


def _states(policy: Policy, records: Sequence[Record]) -> torch.Tensor:
    """(P, D) fp32 states of the prompts' last tokens, ahead of anything that is said of an intent."""
    longest = policy.renderer.max_length
    ids = [policy.renderer.opened(ex.prompt, ex.tools)[0][-longest:] for ex in records]
    found = policy.score([Scored(i[:-1], i[-1:]) for i in ids], reads=("sum", "length", "last_hidden"))
    return torch.stack([r.last_hidden[0] for r in found if r.last_hidden is not None])


@torch.no_grad()
def posterior(policy: Policy, records: Sequence[Record]) -> torch.Tensor:
    """(P, N) q(I | x, x_con) of the policy's intention module. Raises SettingsError for a policy without one."""
    module = policy.intention
    if module is None:
        raise SettingsError(f'"{policy.name}" has no intention module.', remedy="Train one: `pluralign align a_ipo`.")
    out = []
    for start in range(0, len(records), CHUNK):
        batch = records[start : start + CHUNK]
        if module.encoder is None:
            logits = module.classify(_states(policy, batch).to(policy.device))
        else:
            texts = encoder_ids(module.tokenizer, [prompt_text(ex.prompt) for ex in batch], [ex.x_con for ex in batch])
            logits = logits_of(module, texts)
        out.append(log_posterior(logits.float(), module.loss).exp().cpu())
    return torch.cat(out) if out else torch.zeros(0, module.width)


def _inferred(
    policy: Policy, form: IntentForm, module: IntentionModule, data: Any, slots: int, say: Say
) -> Callable[[Record], Candidates]:
    """The K likeliest intents of every prompt of the run, by its content."""
    known: dict[bytes, Candidates] = {}
    with say.working("intents") as progress:
        for part in (data.train, data.validation):
            rows = iter(part or ())
            while chunk := list(islice(rows, CHUNK)):
                new = {key: ex for ex in chunk if (key := _key(ex)) not in known}
                shares = posterior(policy, list(new.values())).double().numpy()
                known |= {key: _likeliest(form, q, slots) for key, q in zip(new, shares, strict=True)}
                progress(len(chunk))

    def of(ex: Record) -> Candidates:
        key = _key(ex)
        if key not in known:  # a row that came later: a source that grew
            known[key] = _likeliest(form, posterior(policy, [ex]).double().numpy()[0], slots)
        return known[key]

    return of


def _key(ex: Record) -> bytes:
    return part_key(ex.prompt) + ex.x_con.encode("utf-8", "surrogatepass")


def _likeliest(form: IntentForm, q: np.ndarray, slots: int) -> Candidates:
    if slots == 1:
        best = form.pick(q.tolist())
        return [(NO_INTENT if best is None else best, 1.0)]
    order = np.argsort(-q, kind="stable")[:slots]
    share = q[order] / q[order].sum()
    return [(int(i), float(s)) for i, s in zip(order, share, strict=True)]
