"""Which layout and which precision a model gets, and why; every fall-back says so once."""

from __future__ import annotations

import ctypes
import functools
import platform
import sys
from collections.abc import Sequence
from typing import Any

import torch

from ..errors import TrainingError
from .constant import lay_constant
from .forward import autocast, forward, text_config
from .layout import Layout, Scored, lay_rows, lay_trie

__all__ = ["TRIE_MODELS", "check_layouts", "choose_layout", "choose_precision", "keep_memory", "lay_out"]

# Full attention over positions that are handed in: tested against padded rows in tests/scoring/test_layouts.py.
TRIE_MODELS = frozenset(
    (
        "gemma",
        "gemma3_text",
        "gpt2",
        "gpt_neox",
        "llama",
        "mistral",
        "olmo",
        "olmo2",
        "phi3",
        "qwen2",
        "qwen3",
        "smollm3",
    )
)


def choose_layout(model: Any, *, max_length: int) -> tuple[str, str]:
    """("trie", "") where shared prefixes are exact for this model at this length, else ("rows", the reason)."""
    config = text_config(model)
    kind = config.model_type
    if kind not in TRIE_MODELS:
        return "rows", f"{kind} is not on the list of architectures whose shared prefixes are tested"
    window = _window(config)
    if window is not None and window < max_length:
        return "rows", f"{kind} uses sliding-window attention ({window} tokens, below max_length {max_length})"
    if getattr(config, "attn_logit_softcapping", None) is not None:
        return "rows", f"{kind} soft-caps its attention logits"
    if any(getattr(config, name, 0) for name in ("attention_dropout", "attn_pdrop")) and model.training:
        return "rows", f"{kind} drops attention weights while training (set attention dropout to 0 to share prefixes)"
    return "trie", ""


def _window(config: Any) -> int | None:
    window = getattr(config, "sliding_window", None)
    layers = getattr(config, "layer_types", None)
    if layers is not None and "sliding_attention" not in layers:
        return None
    if getattr(config, "use_sliding_window", True) is False:
        return None
    return window


def lay_out(kind: str, sequences: Sequence[Scored]) -> Layout:
    """The sequences in the layout of that name ("rows" or "trie"); with constant parts, in the trie's two passes.

    Raises ValueError for an unknown name, and for constant parts in rows.
    """
    if kind not in ("rows", "trie"):
        raise ValueError(f'unknown layout "{kind}": rows or trie.')
    if any(s.constant for s in sequences):
        if kind == "rows":
            raise ValueError("contexts without gradient need the trie.")
        return lay_constant(sequences)
    return lay_trie(sequences) if kind == "trie" else lay_rows(sequences)


@torch.no_grad()
def check_layouts(model: Any, sequences: Sequence[Scored], *, precision: str = "fp32", device: Any = "cpu") -> float:
    """Score the sequences in both layouts; the largest difference per token in nats.

    Raises TrainingError where they disagree by more than rounding explains: 1e-4 in fp32, and in bf16 a mean of 0.05.
    """
    was_training = model.training
    model.eval()
    try:
        with autocast(precision, device):
            rows, trie = (forward(model, lay(sequences).to(device)).tokens for lay in (lay_rows, lay_trie))
    finally:
        model.train(was_training)
    difference = (rows - trie).abs()
    worst = float(difference.max())
    if (
        (precision == "fp32" and worst > 1e-4)
        or float(difference.mean()) > 0.05
        or not torch.isfinite(difference).all()
    ):
        raise TrainingError(
            f"shared prefixes give other log-probs than padded rows for {text_config(model).model_type} "
            f"(up to {worst:.2g} nats a token).",
            remedy="Set training.layout=rows.",
        )
    return worst


@functools.cache
def choose_precision(wanted: str = "auto", device: str = "cpu") -> str:
    """ "bf16" where the processor or GPU multiplies it natively (AMX, AVX512-bf16, Ampere and later), else "fp32"."""
    if wanted != "auto":
        return wanted
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device == "cpu":
        fast = (
            getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
            or getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
        )
        return "bf16" if fast else "fp32"
    return "fp32"


@functools.cache
def keep_memory() -> bool:
    """Let glibc keep freed buffers instead of handing each back to the kernel: True where it was done.

    Every activation of a CPU training step is large enough to be mapped and unmapped anew, and the page faults of
    that cost as much as the arithmetic (docs/performance.md). Only Linux with glibc is touched.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return False
    m_trim_threshold, m_top_pad, m_mmap_max = -1, -2, -4
    libc = ctypes.CDLL(None)
    done = [libc.mallopt(m_mmap_max, 0), libc.mallopt(m_trim_threshold, 2**31 - 1), libc.mallopt(m_top_pad, 64 * 2**20)]
    return all(done)
