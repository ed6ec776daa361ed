"""bf16 attention over a trie, its backward pass by products: against dense attention in fp64, and the kernel."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pluralign.scoring import attention, attention_bf16
from pluralign.scoring.attention import trie_mask
from pluralign.scoring.attention_bf16 import TrieProducts, _blocks
from pluralign.scoring.forward import forward
from pluralign.scoring.layout import Scored, Trie, lay_trie

from .models import build
from .test_layouts import some_sequences


def dense(query: Tensor, key: Tensor, value: Tensor, trie: Trie, scale: float) -> Tensor:
    """Softmax over every visible key, in fp64: the definition."""
    group = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(group, dim=1) for x in (key, value))
    scores = (scale * query @ key.transpose(2, 3)).masked_fill(~trie_mask(trie.end), -torch.inf)
    return scores.softmax(-1) @ value


def tensors(heads: int, keys: int, tokens: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    shapes = (heads, keys, keys, heads)
    return tuple(torch.randn(1, h, tokens, 16, generator=draw).bfloat16() for h in shapes)  # type: ignore[return-value]


def run(attend, query: Tensor, key: Tensor, value: Tensor, grad: Tensor) -> list[Tensor]:
    leaves = [x.clone().requires_grad_() for x in (query, key, value)]
    out = attend(*leaves)
    out.backward(grad.to(out.dtype))
    return [out.detach(), *(x.grad for x in leaves)]


def apart(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm().clamp(min=1e-6))


@settings(deadline=None, max_examples=25)
@given(
    pairs=st.lists(st.tuples(st.integers(1, 40), st.lists(st.integers(1, 30), min_size=1, max_size=3)), max_size=4),
    heads=st.sampled_from([(4, 4), (4, 2), (3, 1)]),
    block=st.sampled_from([4, 16, 256]),
    narrowed=st.booleans(),
)
def test_it_is_attention(pairs, heads, block, narrowed) -> None:
    sequences = [
        Scored([100 + 50 * i + n for n in range(context)], [5 + r] * target)
        for i, (context, targets) in enumerate([(12, [7]), *pairs])
        for r, target in enumerate(targets)
    ]
    trie = lay_trie(sequences, min_shared=1).trie
    query, key, value, grad = tensors(*heads, len(trie.end))
    spans = [(own // 2, own) if narrowed and own > 1 else (0, own) for own in trie.queries]
    read = torch.zeros(len(trie.end), 1)
    begin = 0
    for own, (start, stop) in zip(trie.queries, spans, strict=True):
        read[begin + start : begin + stop] = 1
        begin += own
    grad = grad * read
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention_bf16, "BLOCK_KEYS", block)
        found = run(lambda q, k, v: TrieProducts.apply(q, k, v, trie, 0.3, spans), query, key, value, grad)
    wide = [x.double() for x in (query, key, value, grad)]
    wanted = run(lambda q, k, v: dense(q, k, v, trie, 0.3) * read, *wide)
    for name, a, b in zip(("out", "query", "key", "value"), found, wanted, strict=True):
        assert apart(a, b) < 0.02, name


def test_it_is_about_as_exact_as_the_kernel_it_replaces() -> None:
    trie = lay_trie(some_sequences()).trie
    spans = [(0, own) for own in trie.queries]
    query, key, value, grad = tensors(4, 2, len(trie.end))
    query = query * 4  # peaked: scores of up to about 20, where a score rounded to bf16 would be off by 5 %
    wanted = run(lambda q, k, v: dense(q, k, v, trie, 0.25), *(x.double() for x in (query, key, value, grad)))
    ours = run(lambda q, k, v: TrieProducts.apply(q, k, v, trie, 0.25, spans), query, key, value, grad)
    kernel = run(
        lambda q, k, v: attention._by_path(q, k, v, trie, 0.25, spans).transpose(1, 2), query, key, value, grad
    )
    assert torch.equal(ours[0], kernel[0])
    for a, b, c in zip(ours, kernel, wanted, strict=True):
        assert apart(a, c) < max(2.5 * apart(b, c), 0.01)


@settings(deadline=None, max_examples=50)
@given(
    rows=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=8),
    block=st.integers(1, 9),
)
def test_blocks_hold_every_key_once_and_hide_what_the_mask_hides(rows, block) -> None:
    trie = lay_trie([Scored([3], row) for row in rows], min_shared=1).trie
    seen = torch.zeros(len(trie.end), len(trie.end), dtype=torch.bool)
    at = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention_bf16, "BLOCK_KEYS", block)
        for b in _blocks(trie.end):
            assert b.start == at
            assert 0 < b.stop - b.start <= block
            at = b.stop
            visible = torch.ones(b.end - b.start, b.stop - b.start, dtype=torch.bool)
            visible[: len(b.hidden)] = ~b.hidden[:, : b.stop - b.start]
            assert b.hidden[:, b.stop - b.start :].all()
            assert b.hidden.shape[1] == b.stop - b.start or len(b.hidden) == b.end - b.start  # hidden from every query
            seen[b.start : b.end, b.start : b.stop] = visible
    assert at == len(trie.end)
    assert torch.equal(seen, trie_mask(trie.end))


def test_sizes_come_again_and_grow_little() -> None:
    rounded = [attention_bf16._rounded(n) for n in range(1, 8193)]
    assert all(n <= r <= n + max(31, n / 8) for n, r in enumerate(rounded, start=1))
    assert rounded == sorted(rounded)
    assert len(set(rounded)) == 48  # kernels are kept for 1,024 shapes
    assert [attention_bf16._rounded(n) for n in (32, 33, 256, 511, 513, 1024, 1025)] == [
        32, 64, 256, 512, 576, 1024, 1152,
    ]  # fmt: skip


def test_products_of_other_trees_have_shapes_that_were_there_before(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[set] = []
    bmm = torch.bmm

    def noted(a: Tensor, b: Tensor, **out: Tensor) -> Tensor:
        shapes[-1].add((a.shape, b.shape))
        return bmm(a, b, **out)

    monkeypatch.setattr(torch, "bmm", noted)
    for prompt, answers in ((201, (101, 97)), (205, (98, 107))):  # trees of 399 and 410 tokens
        shapes.append(set())
        trie = lay_trie([Scored([1] * prompt, [10 + i] * many) for i, many in enumerate(answers)]).trie
        query, key, value, grad = tensors(4, 2, len(trie.end))
        spans = [(0, own) for own in trie.queries]
        run(lambda q, k, v, t=trie, s=spans: TrieProducts.apply(q, k, v, t, 0.3, s), query, key, value, grad)
    assert shapes[0] == shapes[1]


def test_small_trees_are_one_block_and_what_all_share_is_not_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_bf16, "BLOCK_KEYS", 8)

    def cuts(targets: int) -> list[tuple[int, int]]:
        trie = lay_trie([Scored([1, 2, 3], [10 + i, 5]) for i in range(targets)], min_shared=1).trie
        return [(b.start, b.stop) for b in _blocks(trie.end)]

    assert cuts(2) == [(0, 7)]
    assert cuts(10)[:2] == [(0, 3), (3, 5)]  # 23 queries see the three: joined, their mask would be mostly hidden


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2"])
def test_a_models_gradients_are_those_of_the_kernel(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def gradients() -> Tensor:
        model = build(name)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            forward(model, lay_trie(some_sequences())).sum.sum().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    ours = gradients()

    class Kernel:
        @staticmethod
        def apply(query, key, value, trie, scale, spans):
            calls.append(query.dtype)
            return attention._by_path(query, key, value, trie, scale, spans).transpose(1, 2)

    monkeypatch.setattr(attention, "TrieProducts", Kernel)
    assert apart(ours, gradients()) < 0.02
    assert set(calls) == {torch.bfloat16}  # and it was called
