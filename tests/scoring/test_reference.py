"""The reference cache: served only for exactly the same question, whole or not at all (contract 5)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pluralign.scoring import reference
from pluralign.scoring.reference import ReadingStore, digest, ids_digest, model_digest

from .models import build


@pytest.fixture
def store(tmp_path, monkeypatch) -> ReadingStore:
    monkeypatch.setattr(reference, "BLOCK_ROWS", 4)
    return ReadingStore(tmp_path, digest("key"), rows=10)


def fill(store: ReadingStore) -> dict[str, np.ndarray]:
    columns = {"ref_w": np.arange(10, dtype=np.float32), "ref_l": -np.arange(10, dtype=np.float32)}
    for a, b in store.missing():
        store.write((a, b), {n: c[a:b] for n, c in columns.items()})
    return columns


def test_round_trip_in_blocks(store) -> None:
    assert store.missing() == [(0, 4), (4, 8), (8, 10)]
    columns = fill(store)
    assert store.missing() == []
    loaded = store.load()
    assert {n: c.tolist() for n, c in loaded.items()} == {n: c.tolist() for n, c in columns.items()}


def test_a_partial_cache_says_so_and_is_completed(store) -> None:
    store.write((4, 8), {"ref_w": np.zeros(4), "ref_l": np.zeros(4)})
    assert store.missing() == [(0, 4), (8, 10)]
    with pytest.raises(FileNotFoundError, match="2 of 3 blocks"):
        store.load()


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "text", "other key"])
def test_a_damaged_block_is_computed_anew(store, damage) -> None:
    fill(store)
    path = sorted(store.home.glob("*.safetensors"))[1]
    raw = bytearray(path.read_bytes())
    if damage == "truncate":
        raw = raw[:-3]
    elif damage == "flip":
        raw[-2] ^= 1
    elif damage == "empty":
        raw = bytearray()
    elif damage == "text":
        raw = bytearray(b"not a tensor")
    else:
        raw = raw.replace(store.key.encode(), digest("another").encode())
    path.write_bytes(bytes(raw))
    assert store.missing() == [(4, 8)]
    fill(store)
    assert store.load()["ref_w"].tolist() == list(range(10))


def test_another_key_sees_nothing(store, tmp_path) -> None:
    fill(store)
    assert len(ReadingStore(tmp_path, digest("other"), rows=10).missing()) == 3


def test_values_that_are_no_numbers_are_refused(store) -> None:
    with pytest.raises(ValueError, match="row 5"):
        store.write((4, 8), {"ref_w": np.array([1.0, np.nan, 2.0, 3.0])})
    with pytest.raises(ValueError, match="expected 4"):
        store.write((4, 8), {"ref_w": np.zeros(3)})


def test_the_model_digest_sees_every_weight_and_setting() -> None:
    a, b = build("llama"), build("llama")
    assert model_digest(a) == model_digest(b)
    b.model.layers[1].mlp.up_proj.weight.data[3, 4] += 1e-6
    assert model_digest(a) != model_digest(b)
    c = build("llama")
    c.config.rope_parameters = {**(c.config.rope_parameters or {}), "rope_theta": 5000.0}
    assert model_digest(a) != model_digest(c)
    assert model_digest(a) != model_digest(build("llama").to(torch.bfloat16))


def test_adapters_do_not_change_the_reference() -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(build("llama"), LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    before = model_digest(model)
    for name, p in model.named_parameters():
        if "lora_" in name:
            p.data.add_(1.0)
    assert model_digest(model) == before


def test_the_ids_digest_tells_boundaries_apart() -> None:
    base = ids_digest([[[1, 2], [3]]])
    assert base == ids_digest(iter([[[1, 2], [3]]]))
    assert len({base, ids_digest([[[1], [2, 3]]]), ids_digest([[[1, 2]], [[3]]]), ids_digest([[[1, 2], [4]]])}) == 4
