"""The bench trains: our side of it takes a step on rows and a model of its own, small here."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "bench"


@pytest.mark.parametrize("conditioning", ["none", "cross"])
def test_our_side_of_the_bench_takes_steps(conditioning: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    import pluralign_side
    import workloads
    from transformers import LlamaConfig

    small = LlamaConfig(
        vocab_size=96, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        tie_word_embeddings=True, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    monkeypatch.setattr(workloads, "VOCABULARY", 96)
    monkeypatch.setattr(workloads, "model_config", lambda: small)
    pairs = workloads.make_pairs
    monkeypatch.setattr(workloads, "make_pairs", lambda name: pairs(name, count=16))
    found = pluralign_side.step_times(
        "hh",
        "fp32",
        "trie",
        steps=2,
        perturbed=True,
        learning_rate=1e-6,
        token_budget=8192,
        conditioning=conditioning,
    )
    assert len(found["losses"]) == 3
    assert all(math.isfinite(loss) for loss in found["losses"])
    assert len(found["loop_seconds"]) == 2
