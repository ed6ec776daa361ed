"""The intention module of A-IPO: q_phi(I | x, x_con), and the table E of intent vectors.

The posterior is a classifier over N intents: of the states of an encoder of its own that reads (x, x_con) (the paper's:
BERT), or a linear head on the policy's state at the prompt's last token. An intent's vector E[I] is compared with the
mean state of a response, sim(y, I) = (1 + cos(E[I], h_y)) / 2 (Eq. 8), through a projection where their sizes differ.
Like the other heads it is a module of the transformers model, and is run inside of its forward pass.

Shapes: S sequences, B prompts, N intents, D hidden, W width of a vector, T tokens of the encoder's longest text.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import SettingsError
from ..records import Messages
from ..scoring.forward import HEADS, text_config, unwrap
from ..scoring.layout import Beside
from .soft import SoftPrefix, read_vectors

__all__ = [
    "ENCODER_LENGTH", "IntentionModule", "attach_intention", "classification", "encoder_ids", "intention_of",
    "load_encoder", "log_posterior", "logits_of", "padded", "prompt_text",
]  # fmt: skip

ENCODER_LENGTH = 512  # tokens of (x, x_con), the paper's


class IntentionModule(nn.Module):
    """phi and E. `encoder` None: the classifier reads the policy's own states, and gives them no gradient.

    `loss` "softmax": one intent a prompt; "bce": each intent by itself, Eq. 5 as printed, the posterior being the
    probabilities divided by their sum. `soft` vectors of each intent stand in the policy's prompts (see `heads.soft`).
    """

    def __init__(
        self,
        hidden: int,
        intents: int,
        *,
        width: int | None = None,
        encoder: Any = None,
        loss: str = "softmax",
        soft: int = 0,
    ) -> None:
        super().__init__()
        if intents < 1:
            raise SettingsError(f"an intention module needs at least one intent, not {intents}.")
        if loss not in ("softmax", "bce"):
            raise SettingsError(f'intents are classified by "softmax" or "bce", not "{loss}".')
        self.hidden, self.width, self.loss = hidden, intents, loss
        self.encoder = encoder
        self.tokenizer: Any = None  # of the encoder
        read = hidden if encoder is None else int(text_config(encoder).hidden_size)
        self.classifier = nn.Linear(read, intents)
        self.table = nn.Embedding(intents, width or hidden)
        same = width in (None, hidden)
        self.project: nn.Module = nn.Identity() if same else nn.Linear(hidden, int(width or hidden), bias=False)
        self.prefix = SoftPrefix(intents, soft, self.table.embedding_dim, hidden) if soft else None
        nn.init.zeros_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, states: Tensor | None, pooled: Tensor | None, beside: Beside) -> tuple[Tensor, Tensor]:
        """((S, N) logits of the intents, (S,) sim(y, I) of each sequence's own intent, 0 where it has none).

        `states` (S, D), at the prompts' last tokens, are read where there is no encoder; `pooled` (S, D): mean response
        states.
        """
        logits = self.logits(states, beside)
        at = beside.intent.to(logits.device)
        if pooled is None:
            return logits, logits.new_zeros(len(at))
        return logits, self.similarity(pooled, at.clamp(min=0)) * (at >= 0)

    def logits(self, states: Tensor | None, beside: Beside) -> Tensor:
        """(S, N), fp32."""
        if self.encoder is None:
            assert states is not None, "without an encoder the policy's states are read"
            return self.classify(states.detach().float())
        assert beside.ids is not None, "an encoder reads a text of its own"
        assert beside.mask is not None
        found = self.classify(self.encode(beside.ids, beside.mask))
        return found[beside.owner.to(found.device)]

    def encode(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, T) ids to (B, E) fp32 states: the mean over tokens."""
        states = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        kept = mask[..., None].float()
        return (states * kept).sum(1) / kept.sum(1).clamp(min=1)

    def classify(self, read: Tensor) -> Tensor:
        """(B, D or E) to (B, N) logits; under autocast as well in fp32: a small step must not be rounded away."""
        with torch.autocast(read.device.type, enabled=False):
            return self.classifier(read.float())

    def similarity(self, pooled: Tensor, intents: Tensor) -> Tensor:
        """(S,) in [0, 1]: Eq. 8 of mean response states (S, D) and intents (S,)."""
        with torch.autocast(pooled.device.type, enabled=False):
            return (1 + functional.cosine_similarity(self.project(pooled.float()), self.table(intents).float())) / 2

    def log_posterior(self, logits: Tensor) -> Tensor:
        """log q(I | x), (S, N)."""
        return log_posterior(logits, self.loss)

    def as_dict(self) -> dict[str, Any]:
        """What makes a module of this shape; an encoder is named by its configuration."""
        own: dict[str, Any] = {"hidden": self.hidden, "width": self.width, "loss": self.loss}
        if not isinstance(self.project, nn.Identity):
            own["vector"] = self.table.embedding_dim
        if self.prefix is not None:
            own["soft"] = self.prefix.tokens
        if self.encoder is not None:
            own["encoder"] = self.encoder.config.to_dict()
        return own


def log_posterior(logits: Tensor, loss: str = "softmax") -> Tensor:
    """log q(I | x) of logits (..., N): their softmax, or the sigmoids ("bce") divided by their sum."""
    if loss == "softmax":
        return logits.log_softmax(-1)
    each = functional.logsigmoid(logits)
    return each - each.logsumexp(-1, keepdim=True)


def classification(logits: Tensor, label: Tensor, loss: str = "softmax") -> Tensor:
    """L_i, (B,): cross-entropy, or Eq. 5 as printed, the mean over the N intents of their binary cross-entropies."""
    if loss == "softmax":
        return functional.cross_entropy(logits, label, reduction="none")
    truth = functional.one_hot(label, logits.shape[1]).to(logits.dtype)
    return functional.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(1)


def attach_intention(
    model: Any,
    reading: str,
    width: int,
    *,
    hidden: int | None = None,
    vector: int | None = None,
    loss: str = "softmax",
    encoder: Any = None,
    soft: int = 0,
) -> IntentionModule:
    """Give the model a fresh fp32 intention module over `width` intents, beside its weights.

    `encoder` is a transformers encoder, or the configuration of one whose weights are loaded afterwards. Raises
    SettingsError for a module made for states of another size (`hidden`).
    """
    core = unwrap(model)
    own = int(text_config(model).hidden_size)
    if hidden not in (None, own):
        raise SettingsError(f"the intention module reads {hidden} numbers a state, and this model's states have {own}.")
    if isinstance(encoder, dict):
        from transformers import AutoConfig, AutoModel

        config = AutoConfig.for_model(**encoder)
        encoder = AutoModel.from_config(config)
    if encoder is not None:
        without_dropout(encoder)
    module = IntentionModule(own, width, width=vector, encoder=encoder, loss=loss, soft=soft)
    module = module.to(next(core.parameters()).device)
    setattr(core, HEADS[reading], module)
    if soft:
        read_vectors(model)
    return module


def intention_of(model: Any) -> IntentionModule | None:
    """The model's intention module, if it has one."""
    return getattr(unwrap(model), HEADS["intent"], None)


def without_dropout(encoder: nn.Module) -> None:
    """Beside a policy a posterior is a number of the prompt alone, whatever else is drawn in the step."""
    for module in encoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0


def load_encoder(name: str | Path) -> tuple[Any, Any]:
    """(encoder, tokenizer) of a transformers encoder: a folder or a hub name, safetensors only.

    Raises SettingsError where it cannot be found or is not one.
    """
    from transformers import AutoModel, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(name))
        encoder = AutoModel.from_pretrained(str(name), use_safetensors=True, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise SettingsError(
            f'cannot load the encoder "{name}": {str(error).strip().splitlines()[0]}',
            remedy="Give a folder with config.json and safetensors weights, or a hub name while online.",
        ) from None
    return encoder, tokenizer


def prompt_text(turns: Messages) -> str:
    """What an encoder reads of a prompt: the text of its turns."""
    return "\n".join(t.content for t in turns if t.content)


def encoder_ids(tokenizer: Any, prompts: Sequence[str], x_con: Sequence[str]) -> list[list[int]]:
    """The ids of (x, x_con) for each prompt, at most ENCODER_LENGTH: x_con gives way first, then the prompt's start."""
    side, out = tokenizer.truncation_side, []
    room = ENCODER_LENGTH - tokenizer.num_special_tokens_to_add(pair=True)
    cut = {"max_length": ENCODER_LENGTH, "verbose": False}
    try:
        for text, knowledge in zip(prompts, x_con, strict=True):
            fits = len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]) < room
            tokenizer.truncation_side = "right" if fits else "left"
            both = (text, knowledge) if fits and knowledge else (text,)
            out.append(list(tokenizer(*both, truncation="only_second" if len(both) > 1 else True, **cut)["input_ids"]))
    finally:
        tokenizer.truncation_side = side
    return out


def padded(texts: Sequence[Sequence[int]], device: Any = "cpu") -> tuple[Tensor, Tensor]:
    """(ids, mask) (B, T) of token lists, padded on the right."""
    ids = torch.zeros(len(texts), max(map(len, texts)), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(texts):
        ids[row, : len(text)], mask[row, : len(text)] = torch.tensor(list(text)), 1
    return ids.to(device), mask.to(device)


@torch.no_grad()
def logits_of(module: IntentionModule, texts: Sequence[Sequence[int]], *, batch: int = 32) -> Tensor:
    """(P, N) logits of an encoder's texts, on the CPU; like lengths together."""
    device = module.classifier.weight.device
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    out = torch.zeros(len(texts), module.width)
    for start in range(0, len(order), batch):
        at = order[start : start + batch]
        out[at] = module.classify(module.encode(*padded([texts[i] for i in at], device))).float().cpu()
    return out
