"""Token log-probs at chosen positions, in blocks, with a backward that recomputes: logits never exist as a whole.

Shapes: M scored tokens, D hidden, V vocabulary, B words of one block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

__all__ = ["chunked_collision", "chunked_kl", "chunked_logps", "chunked_logps_of", "token_kl"]

BLOCK_LOGITS = 2**21  # logits alive at a time: 8 MB in fp32, so that a block stays in the processor's cache
BLOCK_TOKENS = 8192
KEPT_BYTES = 2**27  # exponentials kept for the backward pass; blocks beyond this are computed again


def chunked_logps(
    hidden: Tensor,  # (M, D)
    weight: Tensor,  # (V, D)
    labels: Tensor,  # (M,)
    *,
    bias: Tensor | None = None,
    softcap: float | None = None,
    block: int | None = None,
) -> Tensor:
    """log softmax(h W' + b)[label] in nats, (M,) fp32; under autocast the products run in its dtype.

    The vocabulary is walked in blocks of `block` words, so that the gradient of each row of W is written once and only
    the small (M, D) gradient of the states accumulates. `softcap` bounds logits as c * tanh(z / c). Up to KEPT_BYTES
    of exponentials stay for the backward pass, in the products' dtype, and save it a product and a walk over them.
    Equal to the unfused computation for every block size, whatever is kept.
    """
    if torch.is_autocast_enabled(hidden.device.type):
        hidden = hidden.to(torch.get_autocast_dtype(hidden.device.type))
    parts = zip(hidden.split(BLOCK_TOKENS), labels.split(BLOCK_TOKENS), strict=True)
    keep = KEPT_BYTES if torch.is_grad_enabled() and softcap is None else 0
    return torch.cat([_BlockedLogps.apply(h, weight, bias, y, softcap, block, keep) for h, y in parts])


class _BlockedLogps(torch.autograd.Function):
    """Blocks of the vocabulary hold e = exp(z - top): softmax = c e with c = exp(top - lse), one number a token.

    c and the incoming gradient g scale rows: they are multiplied into what is narrow, (M, D), not into the block.
    The label's own entry is taken out of e and added apart, as g (1 - p): in bf16, g - g p would lose a confident
    token's digits.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        softcap: float | None,
        block: int | None,
        keep: int,
    ) -> Tensor:
        block = block or max(256, BLOCK_LOGITS // max(1, len(labels)))
        picked = torch.empty(len(labels), dtype=torch.float32, device=hidden.device)
        lse = torch.full_like(picked, -torch.inf)
        kept: list[Tensor] = []
        for v, w, b in _blocks(weight, bias, block, hidden.dtype):
            logits = _logits(hidden, w, b, softcap)  # (M, block) fp32
            inside, column = _columns(labels, v, len(w))
            picked[inside] = logits[inside, column]
            top = logits.amax(-1)
            e = logits.sub_(top[:, None]).exp_()
            lse = torch.logaddexp(lse, e.sum(-1).log_().add_(top))
            keep -= e.numel() * hidden.element_size()
            if keep >= 0:
                e[inside, column] = 0
                kept += [e.to(hidden.dtype), top]
        ctx.save_for_backward(hidden, weight, bias, labels, lse, picked, *kept)
        ctx.softcap, ctx.block = softcap, block
        return picked - lse

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad = grads[0].float()
        hidden, weight, bias, labels, lse, picked, *kept = ctx.saved_tensors
        need_h, need_w, need_b = ctx.needs_input_grad[:3]
        label = grad * -torch.expm1(picked - lse)  # g (1 - p)
        if ctx.softcap is not None:
            label = label * (1 - (picked / ctx.softcap) ** 2)
        pull = label[:, None] * hidden.float() if need_w else None  # (M, D) what the label adds to its row of W
        grad_h = torch.zeros(hidden.shape, dtype=torch.float32, device=hidden.device) if need_h else None
        grad_w = torch.empty_like(weight) if need_w else None
        grad_b = torch.empty_like(bias) if need_b and bias is not None else None
        for i, (v, w, b) in enumerate(_blocks(weight, bias, ctx.block, hidden.dtype)):
            inside, column = _columns(labels, v, len(w))
            if 2 * i < len(kept):
                e, top = kept[2 * i : 2 * i + 2]
            else:
                e, top = _exponentials(hidden, w, b, ctx.softcap, lse), lse
                e[inside, column] = 0
                e = e.to(hidden.dtype)
            scale = -grad * torch.exp(top - lse)  # (M,) -g c
            if grad_b is not None:
                grad_b[v : v + len(w)] = (scale @ e.float()).index_add(0, column, label[inside])
            if grad_h is not None:
                grad_h.addcmul_((e @ w).float(), scale[:, None])
                grad_h[inside] += label[inside, None] * w[column].float()
            if grad_w is not None and pull is not None:
                product = (e.t() @ (hidden * scale[:, None]).to(hidden.dtype)).float()  # many labels may add to one row
                grad_w[v : v + len(w)] = product.index_add_(0, column, pull[inside])
        return grad_h if grad_h is None else grad_h.to(hidden.dtype), grad_w, grad_b, None, None, None, None


def _exponentials(h: Tensor, w: Tensor, bias: Tensor | None, softcap: float | None, lse: Tensor) -> Tensor:
    """(M, block) fp32 softmax, times the slope of the soft cap: the factor of each logit before capping."""
    logits = _logits(h, w, bias, softcap)
    if softcap is None:
        return logits.sub_(lse[:, None]).exp_()
    slope = 1 - (logits / softcap) ** 2
    return logits.sub_(lse[:, None]).exp_().mul_(slope)


def _blocks(
    weight: Tensor, bias: Tensor | None, block: int, dtype: torch.dtype
) -> Iterator[tuple[int, Tensor, Tensor | None]]:
    for v in range(0, len(weight), block):
        yield v, weight[v : v + block].to(dtype), None if bias is None else bias[v : v + block]


def _columns(labels: Tensor, start: int, width: int) -> tuple[Tensor, Tensor]:
    """Which tokens have their label in this block, and its column there."""
    inside = ((labels >= start) & (labels < start + width)).nonzero()[:, 0]
    return inside, labels[inside] - start


def _logits(h: Tensor, w: Tensor, bias: Tensor | None, softcap: float | None) -> Tensor:
    logits = (h @ w.t()).float()
    if bias is not None:
        logits = logits + bias.float()
    return logits if softcap is None else torch.tanh(logits / softcap) * softcap


def chunked_logps_of(head: Callable[[Tensor], Tensor], hidden: Tensor, labels: Tensor, *, chunk: int = 256) -> Tensor:
    """The same for a head that is no plain linear layer (LoRA on it, a quantised one): chunks under checkpointing."""
    from torch.utils.checkpoint import checkpoint

    def part(h: Tensor, y: Tensor) -> Tensor:
        logits = head(h).float()
        return logits.gather(-1, y[:, None])[:, 0] - logits.logsumexp(-1)

    parts = zip(hidden.split(chunk), labels.split(chunk), strict=True)
    return torch.cat([checkpoint(part, h, y, use_reentrant=False) for h, y in parts])


@torch.no_grad()
def token_kl(
    reference: tuple[Tensor, Tensor], policy: tuple[Tensor, Tensor], *, softcap: float | None = None, chunk: int = 128
) -> Tensor:
    """KL(reference || policy) of every token over the full vocabulary, (M,) fp32 nats >= 0.

    Each side is (states (M, D), head weight (V, D)); the logits of one chunk at a time exist.
    """
    out = []
    for h_ref, h in zip(reference[0].split(chunk), policy[0].split(chunk), strict=True):
        log_ref = _logits(h_ref.float(), reference[1].float(), None, softcap).log_softmax(-1)
        log_pi = _logits(h.float(), policy[1].float(), None, softcap).log_softmax(-1)
        out.append((log_ref.exp() * (log_ref - log_pi)).sum(-1))
    return torch.cat(out)


def chunked_kl(
    reference: tuple[Tensor, Tensor], policy: tuple[Tensor, Tensor], *, softcap: float | None = None, chunk: int = 128
) -> Tensor:
    """`token_kl` with a gradient to the policy's states and head, recomputed chunk by chunk in the backward pass."""
    from torch.utils.checkpoint import checkpoint

    def part(h: Tensor, h_ref: Tensor) -> Tensor:
        with torch.autocast(h.device.type, enabled=False):  # a difference of two near-equal distributions
            log_pi = _logits(h.float(), policy[1].float(), None, softcap).log_softmax(-1)
            with torch.no_grad():
                log_ref = _logits(h_ref.float(), reference[1].float(), None, softcap).log_softmax(-1)
            return (log_ref.exp() * (log_ref - log_pi)).sum(-1)

    parts = zip(policy[0].split(chunk), reference[0].split(chunk), strict=True)
    return torch.cat([checkpoint(part, h, h_ref, use_reentrant=False) for h, h_ref in parts])


@torch.no_grad()
def chunked_collision(
    hidden: Tensor, weight: Tensor, *, bias: Tensor | None = None, softcap: float | None = None, chunk: int = 256
) -> Tensor:
    """log sum_v pi(v)^2 of every token, (M,) fp32 <= 0: how peaked the distribution is. Without gradient."""
    out = []
    for h in hidden.split(chunk):
        logits = _logits(h.to(weight.dtype), weight, bias, softcap)
        out.append((2 * logits).logsumexp(-1) - 2 * logits.logsumexp(-1))
    return torch.cat(out)
