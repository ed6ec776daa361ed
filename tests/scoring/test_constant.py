"""Contexts without gradient: the same log-probs, and the gradient of a model whose cache holds constants."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

from pluralign.scoring.constant import lay_constant, tokens_of
from pluralign.scoring.forward import autocast, forward
from pluralign.scoring.layout import Scored, lay_rows
from pluralign.scoring.support import lay_out

from .models import TRIE, build

X, A, B, SEP = list(range(10, 22)), list(range(30, 41)), list(range(50, 57)), [3]


def pair_of_targets(constant: bool = True) -> list[Scored]:
    """x, A, SEP -> B and x, B, SEP -> A, and x -> B besides."""
    hole = lambda other: (len(X), len(X) + len(other)) if constant else None
    return [
        Scored([*X, *A, *SEP], B, None, hole(A)),
        Scored([*X, *B, *SEP], A, None, hole(B)),
        Scored(X, B),
    ]


@pytest.mark.parametrize("name", TRIE)
def test_log_probs_are_those_of_rows(name) -> None:
    model = build(name)
    want = forward(model, lay_rows(pair_of_targets(False)))
    found = forward(model, lay_constant(pair_of_targets()))
    torch.testing.assert_close(found.tokens, want.tokens, atol=1e-5, rtol=1e-5)
    assert found.length.tolist() == want.length.tolist()


def cached_gradient(model, x: list[int], other: list[int], target: list[int]) -> torch.Tensor:
    """log pi(target | x, other, SEP) by hand: x with gradient, the other response's keys and values detached."""
    cache = DynamicCache()
    model(input_ids=torch.tensor([x]), past_key_values=cache, use_cache=True)
    with torch.no_grad():
        constants = DynamicCache()
        model(input_ids=torch.tensor([[*x, *other]]), past_key_values=constants, use_cache=True)
    for layer, constant in zip(cache.layers, constants.layers, strict=True):
        layer.keys = torch.cat([layer.keys, constant.keys[:, :, len(x) :]], dim=2)
        layer.values = torch.cat([layer.values, constant.values[:, :, len(x) :]], dim=2)
    at = torch.arange(len(x) + len(other), len(x) + len(other) + len(SEP) + len(target))[None]
    ids = torch.tensor([[*SEP, *target]])
    logits = model(input_ids=ids, position_ids=at, past_key_values=cache, use_cache=True).logits[0]
    logp = logits[len(SEP) - 1 : -1].log_softmax(-1)
    return logp[torch.arange(len(target)), torch.tensor(target)].sum()


def test_gradient_is_that_of_a_cache_of_constants() -> None:
    model = build("llama")
    model.zero_grad()
    forward(model, lay_constant(pair_of_targets()[:2])).sum.sum().backward()
    found = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    (cached_gradient(model, X, A, B) + cached_gradient(model, X, B, A)).backward()
    for n, p in model.named_parameters():
        torch.testing.assert_close(found[n], p.grad, atol=2e-5, rtol=1e-4)
    model.zero_grad()
    forward(model, lay_rows(pair_of_targets(False)[:2])).sum.sum().backward()
    assert any(not torch.allclose(found[n], p.grad, atol=1e-3) for n, p in model.named_parameters())


def test_under_autocast_the_learning_pass_still_learns() -> None:
    """Casts made while no gradient is recorded must not be cached for the pass that records it."""
    model = build("llama")
    with autocast("bf16", "cpu"):
        total = forward(model, lay_constant(pair_of_targets())).sum.sum()
    total.backward()
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in model.parameters())


def test_the_learning_pass_holds_only_what_learns() -> None:
    layout = lay_constant(pair_of_targets()[:2])
    assert layout.tokens == len(X) + 2 * len(SEP) + len(A) + len(B)
    assert layout.before.tokens == len(X) + len(A) + len(B)
    assert tokens_of(pair_of_targets()[:2]) == layout.tokens + layout.before.tokens // 3


def test_rows_refuse_and_bad_parts_are_named() -> None:
    with pytest.raises(ValueError, match="need the trie"):
        lay_out("rows", pair_of_targets())
    with pytest.raises(ValueError, match="must lie inside the context"):
        lay_constant([Scored(X, A, None, (3, len(X)))])
