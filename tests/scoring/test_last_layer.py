"""A last layer that computes only what is read gives the same values and gradients, on every architecture listed."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pluralign.heads.regression import attach
from pluralign.scoring import attention
from pluralign.scoring import forward as passes
from pluralign.scoring.forward import forward
from pluralign.scoring.last_layer import LAST_LAYERS, narrow
from pluralign.scoring.layout import Scored, lay_rows, lay_trie
from pluralign.scoring.support import TRIE_MODELS

from .models import TRIE, build, config, one_by_one
from .test_layouts import some_sequences

NARROWED = [name for name in TRIE if config(name).model_type in LAST_LAYERS]


def run(name: str, reads: tuple[str, ...], monkeypatch, *, narrowed: bool):
    """Readings and gradients with and without narrowing."""
    sequences = [replace(s, mark=max(0, len(s.context) - 3)) for s in some_sequences(3)]
    model = build(name)
    torch.manual_seed(2)
    torch.nn.init.normal_(attach(model, "sensed", 2, layers=2, bounded=True).out.weight)
    with monkeypatch.context() as m:
        if not narrowed:
            m.setattr(passes, "narrow", lambda model, kind, layout, reads: layout)
        readings = forward(model, lay_trie(sequences), reads)
    total = readings.sum.mean()
    for extra in ("last_hidden", "mean_hidden", "sensed"):
        if extra in reads:
            total = total + getattr(readings, extra).sum()
    total.backward()
    return readings, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("reads", [("sum",), ("sum", "last_hidden", "mean_hidden", "sensed")])
@pytest.mark.parametrize("name", NARROWED)
def test_values_and_gradients_are_those_of_the_whole_layer(name, reads, monkeypatch) -> None:
    found, gradients = run(name, reads, monkeypatch, narrowed=True)
    want, wanted = run(name, reads, monkeypatch, narrowed=False)
    for each in ("tokens", "last_hidden", "mean_hidden", "sensed"):
        a, b = getattr(found, each), getattr(want, each)
        if b is not None:
            torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-5)
    assert gradients.keys() == wanted.keys()
    for n, g in wanted.items():
        scale = float(g.abs().max()) + 1e-6
        torch.testing.assert_close(gradients[n] / scale, g / scale, atol=2e-4, rtol=1e-3, msg=n)


def test_only_the_last_layer_is_narrowed_and_only_where_the_list_says() -> None:
    sequences = some_sequences(4)
    layout = lay_trie(sequences)
    for name in ("llama", "pythia", "gpt2"):
        model, seen = build(name), []
        for module in model.modules():
            if type(module).__name__.endswith("MLP"):
                module.register_forward_hook(lambda m, given, out, seen=seen: seen.append(given[0].shape[1]))
        forward(model, layout)
        listed = config(name).model_type in LAST_LAYERS
        kept = len(narrow(model, config(name).model_type, layout, ("sum",)).trie.last.at) if listed else layout.tokens
        assert seen == [layout.tokens, layout.tokens, kept]
        assert (kept < 0.75 * layout.tokens) == listed
    assert set(LAST_LAYERS) == TRIE_MODELS - {"gpt2"}  # gpt2 reshapes its states to the whole row behind its last layer


def test_a_copied_model_runs_its_own_last_layer_and_the_model_is_what_it_was_without_a_trie() -> None:
    model, sequences = build("llama"), some_sequences(5)
    before = forward(model, lay_trie(sequences)).tokens
    other = copy.deepcopy(model)
    other.model.layers[-1].mlp.down_proj.weight.data.mul_(1.5)
    other.model.layers[-1].input_layernorm.weight.data.mul_(0.5)
    for each in (model, other):
        alone = torch.cat([one_by_one(each, s) for s in sequences])
        torch.testing.assert_close(forward(each, lay_trie(sequences)).tokens, alone, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(forward(each, lay_rows(sequences)).tokens, alone, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(before, forward(other, lay_trie(sequences)).tokens, atol=1e-2)
    layer = model.model.layers[-1]
    assert len(layer._forward_pre_hooks) == 1  # installed once, however many passes there were


def test_flex_attention_narrowed() -> None:
    """The CUDA path's narrowed mask, run uncompiled on the CPU; nothing of other tokens is looked at."""
    model = build("llama")
    layout = narrow(model, "llama", lay_trie(some_sequences(8)), ("sum",))
    trie = replace(layout.trie, last=replace(layout.trie.last, whole=torch.empty(0)))
    g = torch.Generator().manual_seed(0)
    q = torch.randn(1, 4, layout.tokens, 16, generator=g)
    k, v = (torch.randn(1, 2, layout.tokens, 16, generator=g) for _ in range(2))
    ours, _ = attention.trie_attention(torch.nn.Identity(), q, k, v, None, scaling=0.25, trie=trie)
    whole, _ = attention.trie_attention(torch.nn.Identity(), q, k, v, None, scaling=0.25, trie=replace(trie, last=None))
    flex = attention._flex(q, k, v, trie, 0.25, trie.last)
    at = trie.last.at
    torch.testing.assert_close(ours[:, at], whole[:, at], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(flex, ours, atol=1e-5, rtol=1e-5)
    unread = torch.ones(layout.tokens, dtype=torch.bool).index_fill(0, at, False)
    assert not ours[:, unread].any()


tokens = st.lists(st.integers(0, 3), min_size=1, max_size=9)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(tokens, tokens), min_size=1, max_size=6), st.integers(1, 4), st.booleans())
def test_indices_into_what_is_left_name_the_same_tokens(pairs, min_shared, hidden) -> None:
    whole = lay_trie([Scored(c, t, mark=0) for c, t in pairs], min_shared=min_shared)
    left = narrow(MODEL, "llama", whole, ("sum", "mean_hidden") if hidden else ("sum",))
    at = left.trie.last.at
    assert torch.equal(at[left.predict], whole.predict)
    if hidden:
        assert torch.equal(at[left.states], whole.states)
        assert torch.equal(at[left.marks], whole.marks)
    begin, spelled = 0, []
    for own, (start, stop) in zip(whole.trie.queries, left.trie.last.spans, strict=True):
        assert 0 <= start <= stop <= own
        spelled += range(begin + start, begin + stop)
        begin += own
    assert spelled == at.tolist()
    assert narrow(MODEL, "gpt2", whole, ("sum",)) is whole


MODEL = build("llama")
