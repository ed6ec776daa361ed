"""The blocked head equals the unfused computation, values and gradients, at every block size."""

from __future__ import annotations

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
