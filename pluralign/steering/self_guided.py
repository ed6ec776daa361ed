"""Self-guided prefill (SGA, section 3.3): read the prompt, sense the scores it asks for, show them, go on.

The prompt is read once. Its last token's state goes through the sensing head, and through A-IPO's intention module
where that reads it; intent and scores are put into words, and what follows the prompt (the words, the end of the turn,
the assistant's header) is read on top of the same keys and values.
Scores that the request names are shown as they are, so that it may steer all of them, some, or none.

Models that keep a running state instead of keys and values (Mamba, Qwen3-Next) cannot go on from a padded batch, nor
can those with a window where the words of a batch differ in tokens: there the prompt is read a second time, with the
same scores.

Shapes: B requests, D hidden, K attributes, P tokens of the longest prompt, T tokens of the longest context.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..attributes import ScoreForm
from ..errors import SettingsError
from ..records import messages
from ..render.renderer import Finish
from ..scoring.forward import autocast, text_config, unwrap
from ..terms import Scores
from .caches import cache_of, extendable
from .intended import intent_text, intent_vectors, intents_of, longest_intent, reads_state
from .padding import Begun, cut, pad_left
from .requests import Prompt, Request

if TYPE_CHECKING:
    from ..policy import Policy

__all__ = ["begin_scored", "scored_context", "sense"]


def begin_scored(policy: Policy, requests: Sequence[Request]) -> Begun:
    """Contexts with scores and intents, those that are not given sensed and inferred; `cache` covers the prompts where
    it can be extended."""
    form = policy.scores
    opened = [_open(policy, r) for r in requests]
    starts = [start for start, _, _ in opened]
    shown = [form.check(r.attributes) if form else {} for r in requests]
    names = form.names if form and policy.sensing else ()
    named = [tuple(n for n in names if n not in given) for given in shown]
    states = cache = None
    if any(named) or any(reads_state(policy, r) for r in requests):
        ids, mask = pad_left(policy, starts)
        states, cache = _read(policy, ids, mask)
    if states is not None and any(named):
        for given, missing, found in zip(shown, named, _scores(policy, states), strict=True):
            given |= {n: found[n] for n in missing}
    intents = intents_of(policy, requests, states)
    scores = [form.text(given) if form else "" for given in shown]
    tails = [
        finish(intent_text(policy, intent) + text, intent_vectors(policy, intent))
        for (_, _, finish), (intent, _), text in zip(opened, intents, scores, strict=True)
    ]
    attributes = [form.read(text) if form else {} for text in scores]
    if cache is None or (_windowed(cache) and len({len(tail) for tail in tails}) > 1):
        ids, mask = pad_left(policy, [a + b for a, b in zip(starts, tails, strict=True)])
        return Begun(ids, mask, None, attributes, named, intents)
    more, more_mask = pad_left(policy, tails)
    return Begun(torch.cat([ids, more], 1), torch.cat([mask, more_mask], 1), cache, attributes, named, intents)


def scored_context(policy: Policy, request: Request) -> tuple[list[int], int]:
    """(a context of the request's length, its length before it was cut): the scores that will be sensed stand at 0, an
    intent that will be inferred is the longest."""
    form = policy.scores
    given = form.check(request.attributes) if form else {}
    if form and policy.sensing is not None:
        given = {name: given.get(name, 0.0) for name in form.names}
    start, before, finish = _open(policy, request)
    intent = longest_intent(policy, request)
    said = intent_text(policy, intent) + (form.text(given) if form else "")
    tail = finish(said, intent_vectors(policy, intent))
    return start + tail, before + len(tail)


@torch.no_grad()
def sense(policy: Policy, prompts: Sequence[Prompt], *, batch_size: int = 32) -> list[dict[str, float]]:
    """The scores that a policy senses in each prompt (text or messages), by name, on the form's scale.

    Raises SettingsError for a policy without a sensing head.
    """
    if policy.sensing is None:
        raise SettingsError(
            f'the policy "{policy.name}" has no sensing head.', remedy="Train one: `pluralign align sga`."
        )
    requests = [Request(prompt, max_new_tokens=1) for prompt in prompts]
    starts = [_open(policy, r)[0] for r in requests]
    out: list[dict[str, float]] = [{}] * len(starts)
    order = sorted(range(len(starts)), key=lambda i: len(starts[i]))
    policy.model.eval()
    for first in range(0, len(order), batch_size):
        batch = order[first : first + batch_size]
        with autocast(policy.precision if policy.device.type != "cpu" else "fp32", policy.device):
            states, _ = _read(policy, *pad_left(policy, [starts[i] for i in batch]))
        for i, found in zip(batch, _scores(policy, states), strict=True):
            out[i] = found
    return out


def _form(policy: Policy) -> ScoreForm:
    assert policy.scores is not None, "asked only of policies that take scores"
    return policy.scores


# Texts


def _open(policy: Policy, request: Request) -> tuple[list[int], int, Finish]:
    """(ids of the prompt up to the token that is sensed, cut so that any scores have room behind it; how many there
    were before that; scores in words -> the ids that follow: they, the end of the turn, the assistant's header)."""
    form, turns = policy.scores, messages(request.turns)
    if form is not None and form.place == "before":  # the scores are a part of the prompt, and nothing is sensed
        text = form.text(form.check(request.attributes))
        ids = policy.renderer.prompt(turns, request.tools, Scores(text, "before"))
        finish: Finish = lambda *_: []
    else:
        ids, finish = policy.renderer.opened(turns, request.tools, form.place if form else "after")
    limit = getattr(text_config(policy.model), "max_position_embeddings", None)
    if limit is None:
        return ids, len(ids), finish
    intent = longest_intent(policy, request)
    widest = intent_text(policy, intent)
    if form is not None:
        widest += form.text(dict.fromkeys(form.names, 1.0 if form.normal == "range" else -1.0))
    said = finish(widest, intent_vectors(policy, intent))
    behind = len(said) + 2 * len(form.names if form else ())  # other digits may be other tokens
    room = limit - request.max_new_tokens - behind
    if room < 1:
        raise SettingsError(
            f"max_new_tokens={request.max_new_tokens} leaves no room: the model has {limit} positions, and what is "
            f"said beside the prompt takes {behind} of them."
        )
    return cut(ids, room, policy.renderer.encoder.bos_id), len(ids), finish


# The model


def _read(policy: Policy, ids: Tensor, mask: Tensor) -> tuple[Tensor, Any | None]:
    """((B, D) states of the prompts' last tokens, the cache where more tokens can follow it)."""
    core = unwrap(policy.model)
    kwargs: dict[str, Any] = {"attention_mask": mask, "use_cache": True}
    if "position_ids" in inspect.signature(core.base_model.forward).parameters:
        kwargs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
    out = core.base_model(input_ids=ids, **kwargs)
    cache = cache_of(out)
    return out.last_hidden_state[:, -1], cache if extendable(cache) else None


def _windowed(cache: Any) -> bool:
    """Whether a layer counts places rather than tokens: padding between prompt and tail would use up its window."""
    return any(type(layer).__name__ == "DynamicSlidingWindowLayer" for layer in cache.layers)


def _scores(policy: Policy, states: Tensor) -> list[dict[str, float]]:
    """What the head senses from (B, D) states, by name."""
    head, form = policy.sensing, _form(policy)
    assert head is not None
    with torch.autocast(states.device.type, enabled=False):
        found = head(states.float()).tolist()
    return [dict(zip(form.names, row, strict=True)) for row in found]
