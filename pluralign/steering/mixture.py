"""Several policies write one text: at every token their log-probs are added up with coefficients.

MOD (Shi et al. 2024, arXiv 2406.18853): policies pi_i trained for different rewards with the same beta from the same
reference, combined for any weights w without further training. Under reverse KL the optimum for sum_i w_i r_i is

    log pi(y|x) = sum_i w_i log pi_i(y|x) + const(x)

for whole responses. Token by token, as here, each step is normalised over the vocabulary of its own: the score that
greedy decoding follows is the one above, but the sampled distribution of whole responses is not exactly that optimum,
because the normalisers differ between prefixes. Other divergences combine otherwise and are not here.

PARM (Lin et al. 2025, arXiv 2505.06274): a small reward model that is itself a policy guides a frozen one,

    log pi(y_t) = log pi_base(y_t) + c log pi_guide(y_t) + const,   c = 1/beta in the paper, 1 in the authors' script.

Every policy is shown the prompt in its own template (and senses its own scores); they share the vocabulary and the
tokens that end a response. Each keeps its own keys and values.

Shapes: B rows, T tokens of the longest context, V tokens of the vocabulary.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import SettingsError
from ..scoring.forward import autocast, unwrap
from .begin import begin, contexts
from .caches import cache_of, keeps_keys, taken_as
from .draw import Draw
from .reader import Reader
from .requests import Options, Prompt, Request

if TYPE_CHECKING:
    from ..policy import Policy

__all__ = ["guided", "mix_logits", "mod", "rescaled"]

NEAR = 1e-6  # how far from 1 weights may add up


def mod(
    policies: Sequence[Policy],
    prompts: Sequence[Prompt],
    *,
    weights: Sequence[float],
    betas: Sequence[float] | None = None,
    extrapolate: bool = False,
    **options: Any,
) -> list[str]:
    """One response a prompt from the mixture sum_i weights_i log pi_i; a weight of 1 on one policy is that policy.

    `betas` are the KL strengths that the policies were trained with, where they differ (see `rescaled`).
    `extrapolate` allows weights below 0 and above 1. `options`: max_new_tokens, temperature, top_p, seed, batch_size,
    warn, as in `generate`, and with the same draws.
    Raises SettingsError for weights that cannot be, and for policies that do not share a vocabulary.
    """
    shares = _weights(policies, weights, extrapolate)
    if betas is not None:
        shares = rescaled(shares, betas)
    voices = [(p, w) for p, w in zip(policies, shares, strict=True) if w]  # a policy without weight is not run
    return _decode(voices, prompts, **options)


def guided(
    base: Policy, guide: Policy, prompts: Sequence[Prompt], *, coefficient: float = 1.0, **options: Any
) -> list[str]:
    """One response a prompt from log pi_base + coefficient log pi_guide; coefficient 0 is the base.

    A PARM's trade-off is set before, by `heads.pblora.set_preference(guide.model, ...)`. Options as in `mod`.
    Raises SettingsError for a coefficient that is no number, and for policies that do not share a vocabulary.
    """
    if not math.isfinite(coefficient):
        raise SettingsError(f"coefficient must be a number, not {coefficient}.")
    return _decode([(base, 1.0), *([(guide, float(coefficient))] if coefficient else [])], prompts, **options)


def rescaled(weights: Sequence[float], betas: Sequence[float]) -> list[float]:
    """w_i beta_i / sum_j w_j beta_j: weights on log pi_i for the trade-off w_i between the rewards themselves.

    r_i = beta_i log(pi_i / pi_ref) + const, and only weights that add up to 1 leave the reference out. The mixture is
    the optimum for sum_i w_i r_i at the KL strength sum_i w_i beta_i.
    """
    if len(betas) != len(weights) or not all(math.isfinite(b) and b > 0 for b in betas):
        raise SettingsError(f"betas must be one number above 0 for each policy, not {list(betas)}.")
    strengths = [w * b for w, b in zip(weights, betas, strict=True)]
    total = math.fsum(strengths)
    if total <= 0:
        raise SettingsError("the weighted sum of betas must be above 0.")
    return [s / total for s in strengths]


def mix_logits(logits: Sequence[Tensor], coefficients: Sequence[float]) -> Tensor:
    """(B, V) fp32: sum_i c_i log pi_i(v) up to one number a row, which no softmax and no argmax notices.

    That number is made of the log-normalisers, so that logits need no log-softmax before they are added. Where tables
    differ in width, what lies behind the narrowest is padding of the embedding and no token.
    """
    width = min(part.shape[-1] for part in logits)
    total = torch.zeros((), device=logits[0].device)
    for part, c in zip(logits, coefficients, strict=True):
        if c:  # 0 times minus infinity is not 0
            own = part[..., :width].to(total.device, torch.float32)
            total = total + (own if c == 1 else c * own)
    return total


def _weights(policies: Sequence[Policy], weights: Sequence[float], extrapolate: bool) -> list[float]:
    if not policies or len(weights) != len(policies):
        raise SettingsError(f"a mixture needs one weight a policy: {len(policies)} policies, {len(weights)} weights.")
    out = [float(w) for w in weights]
    shown = ", ".join(f"{w:g}" for w in out)
    if not all(map(math.isfinite, out)) or abs(math.fsum(out) - 1) > NEAR:
        raise SettingsError(f"weights must add up to 1: {shown} add up to {math.fsum(out):g}.")
    if min(out) < 0 and not extrapolate:
        raise SettingsError(f"weights must be 0 or more, not {shown}.", remedy="`extrapolate` allows others.")
    return out


# Decoding

Voice = tuple["Policy", float]  # a policy and the coefficient of its log-probs


def _decode(
    voices: Sequence[Voice],
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int = 256,
    temperature: float = 0.7,
    top_p: float = 0.9,
    seed: int = 0,
    batch_size: int = 16,
    warn: Callable[[str], None] | None = None,
) -> list[str]:
    _check_shared(voices)
    options: dict[str, Any] = {
        "max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p, "seed": seed,
    }  # fmt: skip
    Options(**options).check()
    if batch_size < 1:
        raise SettingsError(f"batch_size must be at least 1, not {batch_size}.")
    requests = [Request(p, **options, place=i).check() for i, p in enumerate(prompts)]
    lengths = _measure(voices, requests, warn or _to_stderr)
    order = sorted(range(len(requests)), key=lambda i: lengths[i])  # like lengths together: little padding
    texts = [""] * len(requests)
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        for i, text in zip(batch, _write(voices, [requests[i] for i in batch]), strict=True):
            texts[i] = text
    return texts


def _to_stderr(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)


def _check_shared(voices: Sequence[Voice]) -> None:
    """Raises SettingsError where one id would mean two things, and for models without a cache that can be handed on."""
    first = voices[0][0]
    vocabulary, stops = first.tokenizer.get_vocab(), set(first.renderer.stop_ids)
    for policy, _ in voices:
        both = f'"{first.name}" and "{policy.name}"'
        if policy is not first and policy.tokenizer.get_vocab() != vocabulary:
            raise SettingsError(f"{both} have different vocabularies: their tokens cannot be mixed.")
        if set(policy.renderer.stop_ids) != stops:
            raise SettingsError(f"{both} end a response with different tokens.")
        if not keeps_keys(policy.model):
            raise SettingsError(f'"{policy.name}" keeps no keys and values: it cannot be mixed with others.')


def _measure(voices: Sequence[Voice], requests: Sequence[Request], warn: Callable[[str], None]) -> list[int]:
    """The first policy's length of every context; `warn` hears of prompts that a policy has to cut."""
    lengths: list[int] = []
    for policy, _ in voices:
        shown, before = contexts(policy, requests)
        lengths = lengths or [len(ids) for ids in shown]
        long = [n for ids, n in zip(shown, before, strict=True) if len(ids) < n]
        if long:
            warn(
                f"{len(long)} of {len(requests)} prompts (up to {max(long):,} tokens) cannot fit into the positions of "
                f'"{policy.name}" beside the response; the beginning is left out.'
            )
    return lengths


@dataclass(slots=True)
class _Reading:
    """A policy on its way through a batch: what it reads next, what it may look at, and its keys and values."""

    policy: Policy
    core: Any
    positions: bool
    ids: Tensor  # (B, n) not read yet
    mask: Tensor  # (B, all so far)
    cache: Any | None

    def next(self) -> Tensor:
        """(B, V) logits of the token after what has been read."""
        inputs: dict[str, Any] = {
            "input_ids": self.ids, "attention_mask": self.mask, str(taken_as(self.core)): self.cache, "use_cache": True,
        }  # fmt: skip
        if self.positions:
            at = (self.mask.cumsum(-1) - 1).clamp(min=0)  # padding has none, wherever it stands
            inputs["position_ids"] = at[:, -self.ids.shape[1] :]
        precision = self.policy.precision if self.policy.device.type != "cpu" else "fp32"
        with autocast(precision, self.policy.device):
            out = self.core(**inputs)
        self.cache = cache_of(out)
        return out.logits[:, -1]

    def add(self, tokens: Tensor) -> None:
        """What was drawn, (B,)."""
        self.ids = tokens.to(self.ids.device)[:, None]
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], dim=1)


def _begin(policy: Policy, requests: Sequence[Request]) -> _Reading:
    core = unwrap(policy.model)
    core.eval()
    precision = policy.precision if policy.device.type != "cpu" else "fp32"
    with autocast(precision, policy.device):
        begun = begin(policy, requests)
    read = 0 if begun.cache is None else int(begun.cache.get_seq_length())
    positions = "position_ids" in inspect.signature(core.forward).parameters
    return _Reading(policy, core, positions, begun.ids[:, read:], begun.mask, begun.cache)


@torch.no_grad()
def _write(voices: Sequence[Voice], requests: Sequence[Request]) -> list[str]:
    """The texts of one batch. Rows that are done are carried along until the last one is."""
    readings = [_begin(policy, requests) for policy, _ in voices]
    coefficients = [c for _, c in voices]
    readers = [Reader(voices[0][0]) for _ in requests]
    device = voices[0][0].device
    draw = Draw(requests, 0, device)
    written = torch.empty((len(requests), 0), dtype=torch.long, device=device)
    done = [False] * len(requests)
    while not all(done):
        scores = mix_logits([r.next() for r in readings], coefficients)
        tokens = draw(written, scores).argmax(-1)
        written = torch.cat([written, tokens[:, None]], dim=1)
        for i, token in enumerate(tokens.tolist()):
            done[i] = done[i] or readers[i].add(token) or len(readers[i].ids) == requests[i].max_new_tokens
        for reading in readings:
            reading.add(tokens)
    return [reader.end() for reader in readers]
