"""The pooling that A-IPO's RS names: the state of the first token of at most 512, at length 1.

all-mpnet-base-v2 was trained to be averaged over its tokens, and stands so in `encoders`; its first token alone was
never given that meaning. This is here so that the paper's number can be computed as written, beside the encoder's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..encoders import Encoder, SentenceEncoder, encoder
from ..errors import SettingsError, nearest

__all__ = ["FirstToken", "Pooling", "rs_encoder"]

Pooling = Literal["mean", "cls"]
MOST = 512  # tokens, the special ones among them


@dataclass(frozen=True)
class FirstToken:
    """An `Encoder` that takes the last state of the first token of a sentence encoder's model; longer texts are cut."""

    inner: SentenceEncoder

    @property
    def name(self) -> str:
        return f"{self.inner.name}, first token"

    @property
    def key(self) -> str:
        return f"{self.inner.key} first token {self.room}"

    @property
    def room(self) -> int:
        """Tokens that are read: 512, or as many as the model has positions for."""
        positions = int(self.inner.model.config.max_position_embeddings)
        offset = 2 if self.inner.model.config.model_type in ("mpnet", "roberta", "xlm-roberta") else 0
        return min(MOST, positions - offset)

    def encode(
        self, texts: Sequence[str], *, progress: Callable[[int, int], None] | None = None
    ) -> NDArray[np.float32]:
        """(N, D) float32 of norm 1."""
        import torch

        model, tokenizer = self.inner.model, self.inner.tokenizer
        out = np.zeros((len(texts), int(model.config.hidden_size)), np.float32)
        for start in range(0, len(texts), self.inner.batch):
            part = list(texts[start : start + self.inner.batch])
            ids = tokenizer(part, truncation=True, max_length=self.room, padding=True, return_tensors="pt")
            ids = ids.to(model.device)
            with torch.inference_mode():
                states = model(**ids).last_hidden_state[:, 0].double()
                states = states / states.norm(dim=-1, keepdim=True).clamp_min(1e-12)
            out[start : start + len(part)] = states.float().cpu().numpy()
            if progress:
                progress(start + len(part), len(texts))
        return out


def rs_encoder(name: str = "auto", pooling: str = "mean") -> Encoder:
    """The encoder of RS. Raises SettingsError for an unknown pooling, or "cls" of an encoder without tokens."""
    if pooling not in get_args(Pooling):
        raise SettingsError(f'unknown pooling "{pooling}".{nearest(pooling, get_args(Pooling))}', remedy="mean or cls.")
    made = encoder(name)
    if pooling == "mean":
        return made
    if not isinstance(made, SentenceEncoder):
        raise SettingsError(f"{made.name} has no first token to pool.", remedy="Take pooling=mean, or another encoder.")
    return FirstToken(made)
