"""The work both sides of the bench are given: token ids of seeded pairs, and one small Llama with seeded weights.

Three workloads, shaped like public preference sets. Lengths are log-normal (median, sigma), clipped to [least, most]:

* hh    short dialogues, short responses;
* uf    medium prompts, long responses: almost nothing to share between the two rows of a pair;
* long  long prompts, short responses: almost everything to share.

Token ids are drawn uniformly from the ids above the specials, and every response ends in EOS, which its length counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from transformers import LlamaConfig, PreTrainedModel, PreTrainedTokenizerBase

VOCABULARY = 32_000
PAD, BOS, EOS, UNKNOWN = range(4)
SPECIALS = ("<pad>", "<s>", "</s>", "<unk>")
PAIRS, BATCH, SEED = 64, 8, 0
BETA = 0.1
PRECISIONS = ("bf16-autocast", "bf16-weights", "fp32")
NOISE = 0.01  # standard deviation of the perturbation that sets a policy apart from its reference (weights: 0.02)


@dataclass(frozen=True, slots=True)
class Lengths:
    """A clipped log-normal distribution of token counts."""

    median: float
    sigma: float
    least: int
    most: int

    def draw(self, generator: np.random.Generator, count: int) -> list[int]:
        raw = self.median * np.exp(self.sigma * generator.standard_normal(count))
        return [int(n) for n in np.clip(np.rint(raw), self.least, self.most)]


@dataclass(frozen=True, slots=True)
class Workload:
    name: str
    prompt: Lengths
    chosen: Lengths
    rejected: Lengths


@dataclass(frozen=True, slots=True)
class Pair:
    """Token ids. `chosen` and `rejected` end in EOS; nothing else in a pair is a special token."""

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]


WORKLOADS = {
    w.name: w
    for w in (
        Workload("hh", Lengths(120, 0.7, 10, 512), Lengths(60, 0.7, 4, 256), Lengths(60, 0.7, 4, 256)),
        Workload("uf", Lengths(150, 0.8, 10, 1024), Lengths(280, 0.5, 20, 700), Lengths(240, 0.6, 20, 700)),
        Workload("long", Lengths(500, 0.5, 100, 1200), Lengths(60, 0.6, 4, 256), Lengths(60, 0.6, 4, 256)),
    )
}


def make_pairs(name: str, count: int = PAIRS, seed: int = SEED) -> list[Pair]:
    """`count` pairs of the workload `name`. Another `count` gives other pairs, not more or fewer of the same."""
    workload = WORKLOADS[name]
    generator = np.random.default_rng(seed)
    prompts, chosen, rejected = (
        lengths.draw(generator, count) for lengths in (workload.prompt, workload.chosen, workload.rejected)
    )

    def ids(n: int) -> tuple[int, ...]:
        return tuple(int(i) for i in generator.integers(len(SPECIALS), VOCABULARY, n))

    return [
        Pair(ids(p), (*ids(c - 1), EOS), (*ids(r - 1), EOS)) for p, c, r in zip(prompts, chosen, rejected, strict=True)
    ]


def schedule(pairs: Sequence[Pair], steps: int, batch: int = BATCH) -> list[Pair]:
    """Pairs in training order: the first batch once to warm up, then the first `steps` batches, each timed."""
    return [*pairs[:batch], *pairs[: steps * batch]]


def batches(pairs: Sequence[Pair], batch: int = BATCH) -> list[Sequence[Pair]]:
    return [pairs[i : i + batch] for i in range(0, len(pairs), batch)]


def model_config() -> LlamaConfig:
    """A Llama of 22.9 million parameters, 10.6 million of them in linear layers and 12.3 in the tied embeddings."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        attention_dropout=0.0,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
    )


def make_model(precision: str, *, perturbed: bool = False, attention: str = "sdpa") -> PreTrainedModel:
    """The seeded model; weights are drawn in fp32 and only then cast, so every precision starts from the same draw.

    `perturbed` adds seeded Gaussian noise to every matrix: a policy that differs from its reference, so that the
    DPO losses carry information (policy = reference gives log 2 whatever the code computes).
    """
    import torch
    from transformers import AutoModelForCausalLM

    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}.")
    torch.manual_seed(SEED)
    model = AutoModelForCausalLM.from_config(model_config(), attn_implementation=attention, dtype=torch.float32)
    if perturbed:
        generator = torch.Generator().manual_seed(SEED + 1)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 2:
                    parameter += NOISE * torch.randn(parameter.shape, generator=generator)
    return model.to(torch.bfloat16) if precision == "bf16-weights" else model


def word_tokenizer() -> PreTrainedTokenizerBase:
    """A tokenizer in which the word `t123` is id 123, and `</s>` is EOS even when glued to a word."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    words = [*SPECIALS, *(f"t{i}" for i in range(len(SPECIALS), VOCABULARY))]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token=SPECIALS[UNKNOWN]))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    pad, bos, eos, unknown = SPECIALS
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=pad, bos_token=bos, eos_token=eos, unk_token=unknown
    )


def as_text(pair: Pair) -> dict[str, str]:
    """The pair as the text columns prompt, chosen and rejected; the EOS is left out, for the trainer to add."""

    def words(ids: Sequence[int]) -> str:
        return " ".join(f"t{i}" for i in ids)

    return {
        "prompt": words(pair.prompt),
        "chosen": " " + words(pair.chosen[:-1]),
        "rejected": " " + words(pair.rejected[:-1]),
    }
