"""A tiny model folder and a few pairs, so that whole runs take seconds."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch

from pluralign.policy import EMBEDDED
from pluralign.training.settings import Settings, build, hyper_parameters

WORDS = (
    "the",
    "a",
    "cat",
    "dog",
    "sat",
    "ran",
    "on",
    "under",
    "red",
    "blue",
    "house",
    "tree",
    "and",
    "then",
    "with",
    "bread",
)


def sentence(rng: random.Random, low: int = 4, high: int = 30) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(low, high)))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A two-layer Llama with the embedded tokenizer, as a Hugging Face folder."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("tiny") / "model"
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """64 pairs of made-up sentences."""
    rng = random.Random(0)
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    rows = [
        {"prompt": f"{i} {sentence(rng)}", "chosen": sentence(rng) + " good", "rejected": sentence(rng) + " bread"}
        for i in range(64)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test its own reference cache."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("PLURALIGN_CACHE", str(folder))
    return folder


@pytest.fixture
def settings(tiny_model: str, pairs_file: str, tmp_path: Path):
    """Settings of a short exact run; call with overrides."""

    def make(*overrides: str, output: str = "run") -> Settings:
        base = [
            f"model={tiny_model}", f"data.source={pairs_file}", f"output={tmp_path / output}", "precision=fp32",
            "batch_size=8", "learning_rate=1e-3", "eval_every=4", "save_every=4", "validation_fraction=0.2",
            "kl_rows=4", "max_length=128",
        ]  # fmt: skip
        return build({}, [*base, *overrides], hyper=hyper_parameters())

    return make


def plural(path: Path, rows: int = 240, seed: int = 0) -> Path:
    """Two kinds of people with opposed wishes and the same words in their prompts but one: 70 % want bread."""
    rng = random.Random(seed)
    out = []
    for i in range(rows):
        want = "bread" if rng.random() < 0.7 else "trees"
        cue = {"bread": "hungry", "trees": "outside"}[want]
        prompt = f"Say {rng.choice(['some', 'a few', 'many'])} words, I am {cue}."
        good, bad = (" ".join(rng.choice(pool) for _ in range(4)) for pool in (
            (["bread", "bread", "soup"], ["tree", "tree", "hill"]) if want == "bread"
            else (["tree", "tree", "hill"], ["bread", "bread", "soup"])
        ))  # fmt: skip
        row = {"prompt": prompt, "chosen": good, "rejected": bad, "group": want}
        out.append({**row, "intent": want} if i % 4 else row)  # a quarter is not labelled
    path.write_text("".join(json.dumps(row) + "\n" for row in out))
    return path
