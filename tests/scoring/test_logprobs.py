"""The blocked head equals the unfused computation, values and gradients, at every block size."""

from __future__ import annotations

import math

import pytest
import torch

from pluralign.scoring import logprobs
from pluralign.scoring.logprobs import chunked_logps, token_kl


def unfused(h, w, y, bias=None, softcap=None):
    z = h @ w.t() + (0 if bias is None else bias)
    z = z if softcap is None else softcap * torch.tanh(z / softcap)
    return z.log_softmax(-1).gather(-1, y[:, None])[:, 0]


@pytest.mark.parametrize("block", [1, 7, 64, 101, 500])
@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("with_bias", [False, True])
def test_values_and_gradients(block, softcap, with_bias) -> None:
    g = torch.Generator().manual_seed(0)
    make = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64).requires_grad_()
    h, w, b = make(13, 8), make(101, 8), make(101)
    y = torch.randint(0, 101, (13,), generator=g)
    upstream = torch.randn(13, generator=g, dtype=torch.float64)
    leaves = (h, w, b) if with_bias else (h, w)
    bias = b if with_bias else None
    ours = chunked_logps(
        h.float(), w.float(), y, bias=None if bias is None else bias.float(), softcap=softcap, block=block
    )
    theirs = unfused(h, w, y, bias, softcap)
    torch.testing.assert_close(ours.double(), theirs, atol=1e-5, rtol=1e-5)
    for a, e in zip(
        torch.autograd.grad((ours * upstream).sum(), leaves),
        torch.autograd.grad((theirs * upstream).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(a, e, atol=2e-5, rtol=1e-4)


def test_long_inputs_are_split_by_tokens(monkeypatch) -> None:
    h, w, y = torch.randn(50, 8), torch.randn(31, 8), torch.randint(0, 31, (50,))
    whole = chunked_logps(h, w, y)
    monkeypatch.setattr(logprobs, "BLOCK_TOKENS", 7)
    torch.testing.assert_close(chunked_logps(h, w, y), whole)


@pytest.mark.parametrize("with_bias", [False, True])
def test_what_is_kept_for_the_backward_pass_changes_nothing(monkeypatch, with_bias) -> None:
    """None, some and all of the eleven blocks of 10 words kept: 13 tokens, 4 bytes, 520 bytes a block."""
    h, w, y = torch.randn(13, 8), torch.randn(101, 8), torch.randint(0, 101, (13,))
    bias = torch.randn(101) if with_bias else None
    found = []
    for kept in (0, 3 * 520, 2**27):
        monkeypatch.setattr(logprobs, "KEPT_BYTES", kept)
        leaves = [x.clone().requires_grad_() for x in (h, w, *([] if bias is None else [bias]))]
        values = chunked_logps(leaves[0], leaves[1], y, bias=None if bias is None else leaves[2], block=10)
        found.append((values, *torch.autograd.grad((values * torch.arange(13.0)).sum(), leaves)))
    for some in found[1:]:
        for a, b in zip(some, found[0], strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("budget", "blocks"), [(0, 0), (3 * 4000 * 64, 3), (2**27, 20)])
def test_the_backward_pass_keeps_whole_blocks_up_to_its_budget(monkeypatch, budget, blocks) -> None:
    monkeypatch.setattr(logprobs, "KEPT_BYTES", budget)
    h, w, y = torch.randn(64, 8, requires_grad=True), torch.randn(20_000, 8), torch.zeros(64, dtype=torch.long)
    sizes: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        chunked_logps(h, w, y, block=1000)
    assert sizes.count(64_000) == blocks
    with torch.no_grad(), torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        sizes.clear()
        chunked_logps(h, w, y, block=1000)
    assert not sizes


@pytest.mark.parametrize("kept", [0, 2**27])
def test_a_confident_token_keeps_its_gradient_in_bf16(monkeypatch, kept) -> None:
    """1 - p = 1.0e-3: in bf16, whose steps below 1 are 3.9e-3, p would round to 1 and g - g p to nothing.

    Two words at +-3.453 along h = 1: z_0 - z_1 = 6.906, p = 1 / (1 + e^-6.906) = 0.99900; d log p / dh = (1 - p) 6.906.
    """
    monkeypatch.setattr(logprobs, "KEPT_BYTES", kept)
    h = torch.ones(1, 1, dtype=torch.bfloat16, requires_grad=True)
    w = torch.tensor([[3.453125], [-3.453125]], dtype=torch.bfloat16, requires_grad=True)  # both are bf16 numbers
    chunked_logps(h, w, torch.tensor([0])).sum().backward()
    p = 1 / (1 + math.exp(-6.90625))
    assert float(h.grad) == pytest.approx((1 - p) * 6.90625, rel=1e-2)
    assert w.grad[:, 0].tolist() == pytest.approx([1 - p, p - 1], rel=1e-2)


def test_many_tokens_with_one_label_add_up_in_bf16() -> None:
    """600 tokens of label 5 over 1,000 words, h = e_1, W = 0: each adds 1 - 1/1000 to one number; bf16 alone would
    stop adding ones at 256."""
    h, w = torch.zeros(600, 4, dtype=torch.bfloat16), torch.zeros(1000, 4, dtype=torch.bfloat16, requires_grad=True)
    h[:, 0] = 1
    chunked_logps(h, w, torch.full((600,), 5)).sum().backward()
    assert float(w.grad[5, 0]) == pytest.approx(600 * 0.999, rel=1e-2)
    assert float(w.grad[7, 0]) == pytest.approx(-0.6, rel=1e-2)


def test_a_frozen_head_gets_no_gradient() -> None:
    h, w = torch.randn(5, 8, requires_grad=True), torch.randn(31, 8)
    chunked_logps(h, w, torch.arange(5)).sum().backward()
    assert w.grad is None
    assert h.grad is not None


def test_extreme_logits_stay_finite() -> None:
    h = torch.full((2, 4), 100.0)
    w = torch.cat([torch.full((1, 4), 10.0), torch.full((3, 4), -10.0)])
    assert chunked_logps(h, w, torch.tensor([0, 1]), block=1).tolist() == [0.0, -8000.0]


def test_bf16_stays_near_fp32() -> None:
    h, w, y = torch.randn(64, 32), torch.randn(200, 32) * 0.3, torch.randint(0, 200, (64,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = chunked_logps(h, w, y)
    assert low.dtype == torch.float32
    assert (low - chunked_logps(h, w, y)).abs().max() < 0.1


def test_logits_never_exist_as_a_whole() -> None:
    """The largest buffer of forward and backward is a block, not (tokens, vocabulary)."""
    h, w = torch.randn(512, 16, requires_grad=True), torch.randn(20_000, 16, requires_grad=True)
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                largest = max(largest, out.numel())
            return out

    with Watch():
        chunked_logps(h, w, torch.zeros(512, dtype=torch.long), block=1000).sum().backward()
    assert largest <= 1000 * 512
    assert largest < 512 * 20_000 / 10


def test_kl_by_hand() -> None:
    """Two words: p = (.75, .25), q = (.5, .5): KL(p||q) = .75 ln 1.5 + .25 ln .5 = .130812."""
    head = torch.eye(2)
    p, q = torch.tensor([[0.75, 0.25]]).log(), torch.tensor([[0.5, 0.5]]).log()
    assert float(token_kl((p, head), (q, head))) == pytest.approx(0.130812, abs=1e-6)
    assert float(token_kl((p, head), (p, head))) == pytest.approx(0.0, abs=1e-7)
