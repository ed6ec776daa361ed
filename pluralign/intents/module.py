"""The intention module as an encoder of its own, trained on labelled prompts (A-IPO, 4.2 and G.1.4; there it is BERT).

A classifier of (x, x_con) into N intents: AdamW at 2e-5, batches of 16, 512 tokens, cross-entropy, stopped after 5
epochs without improvement on held-out prompts. `intents.module=FOLDER` starts A-IPO from it.

Shapes: P prompts, N intents.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data import prompt_hash
from ..encoders import PACKAGE
from ..errors import RecordError, SettingsError
from ..heads.intent import (
    IntentionModule,
    classification,
    encoder_ids,
    load_encoder,
    log_posterior,
    logits_of,
    padded,
    prompt_text,
)
from ..intention import fit_intents
from ..records import Record
from ..scoring.forward import text_config

__all__ = ["TrainedIntention", "Training", "default_encoder", "load_intention", "train_intention"]

SHAPE, WEIGHTS, ENCODER = "intention.json", "classifier.safetensors", "encoder"
BERT = "bert-base-uncased"


@dataclass(frozen=True)
class Training:
    """How it is trained; the defaults are the paper's (G.1.4), but for `epochs`, which the paper leaves to patience.

    `frozen`: the encoder stays as it is and reads every prompt once; only the classifier learns, at a rate of its own
    kind (1e-2, say). Not the paper's, but minutes on a CPU.
    """

    learning_rate: float = 2e-5
    batch_size: int = 16
    epochs: int = 20
    patience: int = 5
    validation: float = 0.1
    seed: int = 0
    loss: str = "softmax"
    clip: float = 1.0
    frozen: bool = False


@dataclass
class TrainedIntention:
    """q(I | x, x_con): `encoder` and `classifier` over `names`; `about` says what it was trained on and how well."""

    names: tuple[str, ...]
    encoder: Any
    classifier: nn.Linear
    tokenizer: Any
    loss: str = "softmax"
    about: dict[str, Any] = field(default_factory=dict)

    def posterior(self, records: Sequence[Record]) -> np.ndarray:
        """(P, N) probabilities."""
        texts = encoder_ids(self.tokenizer, [prompt_text(r.prompt) for r in records], [r.x_con for r in records])
        return log_posterior(logits_of(self._module().eval(), texts), self.loss).exp().double().numpy()

    def _module(self) -> IntentionModule:
        module = IntentionModule(self.classifier.in_features, len(self.names), encoder=self.encoder, loss=self.loss)
        module.classifier = self.classifier
        return module.to(self.classifier.weight.device)

    def save(self, folder: str | Path) -> Path:
        """Weights as safetensors, the encoder as transformers saves it, names and history as JSON."""
        from safetensors.torch import save_file

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.encoder.save_pretrained(folder / ENCODER)
        self.tokenizer.save_pretrained(folder / ENCODER)
        save_file({k: v.detach().cpu().contiguous() for k, v in self.classifier.state_dict().items()}, folder / WEIGHTS)
        shape = {"names": list(self.names), "loss": self.loss, "about": self.about}
        (folder / SHAPE).write_text(json.dumps(shape, indent=1, ensure_ascii=False), "utf-8")
        return folder


def load_intention(folder: str | Path) -> TrainedIntention:
    """What `save` wrote. Raises SettingsError where the folder holds no such module."""
    from safetensors.torch import load_file

    folder = Path(folder)
    if not (folder / SHAPE).is_file():
        raise SettingsError(
            f"{folder} holds no intention module.", remedy="Train one: `pluralign intents train DATA --output FOLDER`."
        )
    shape = json.loads((folder / SHAPE).read_text("utf-8"))
    encoder, tokenizer = load_encoder(folder / ENCODER)
    classifier = nn.Linear(int(text_config(encoder).hidden_size), len(shape["names"]))
    classifier.load_state_dict(load_file(folder / WEIGHTS))
    return TrainedIntention(tuple(shape["names"]), encoder, classifier, tokenizer, shape["loss"], shape["about"])


def default_encoder() -> str:
    """bert-base-uncased where the hub's cache holds it, else the installed MiniLM. Raises SettingsError for neither."""
    from huggingface_hub import try_to_load_from_cache

    if isinstance(try_to_load_from_cache(BERT, "config.json"), str):
        return BERT
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SettingsError(
            f"no encoder is at hand: {BERT} is not in the hub's cache, and MiniLM is not installed.",
            remedy=f'Name one (--encoder {BERT} while online), or: pip install "pluralign[encoder]"',
        )
    return str(Path(spec.submodule_search_locations[0]) / "model")


# Training


def train_intention(
    records: Sequence[Record],
    *,
    encoder: str | None = None,
    names: Sequence[str] = (),
    how: Training | None = None,
    progress: Callable[[int, float, float], None] | None = None,
) -> TrainedIntention:
    """Train on the records that have an intent; the best epoch by held-out cross-entropy is kept.

    No prompt stands on both sides of the split. `progress` hears epoch, held-out loss and accuracy. Raises RecordError
    for data with fewer than two intents, or too few rows to hold any out.
    """
    how = how or Training()
    form = fit_intents((r.intent for r in records), names)
    known = [r for r in records if r.intent and r.intent.strip()]
    train = [r for r in known if prompt_hash(r, how.seed) >= how.validation]
    held = [r for r in known if prompt_hash(r, how.seed) < how.validation]
    if len({r.intent for r in train}) < 2 or not held:
        raise RecordError(
            f"{len(known)} rows with an intent, {len(train)} to train on and {len(held)} held out, are too few: "
            "it takes two intents and a held-out row."
        )
    chosen = encoder or default_encoder()
    body, tokenizer = load_encoder(chosen)
    torch.manual_seed(how.seed)
    module = IntentionModule(int(text_config(body).hidden_size), len(form.names), encoder=body, loss=how.loss)
    module.to("cuda" if torch.cuda.is_available() else "cpu")
    history = _epochs(module, form.names, tokenizer, train, held, how, progress)
    about = {"encoder": chosen, "rows": len(train), "held_out": len(held), "history": history, "training": asdict(how)}
    return TrainedIntention(form.names, module.encoder, module.classifier, tokenizer, how.loss, about)


def _epochs(
    module: IntentionModule, names: Sequence[str], tokenizer: Any, train: Sequence[Record], held: Sequence[Record],
    how: Training, progress: Callable[[int, float, float], None] | None,
) -> list[dict[str, float]]:  # fmt: skip
    """Train until nothing improves; the best weights are in the module at the end. Returns the epochs' figures."""
    device = module.classifier.weight.device
    numbers = {name: i for i, name in enumerate(names)}
    ids, held_ids = (
        encoder_ids(tokenizer, [prompt_text(r.prompt) for r in rows], [r.x_con for r in rows]) for rows in (train, held)
    )
    labels, held_labels = (torch.tensor([numbers[str(r.intent)] for r in rows]) for rows in (train, held))
    states, held_states = (_read(module, side) if how.frozen else None for side in (ids, held_ids))
    left = ("table.", "project.", *(("encoder.",) if how.frozen else ()))
    learning = [p for n, p in module.named_parameters() if not n.startswith(left)]
    optimizer = torch.optim.AdamW(learning, lr=how.learning_rate)
    dice = torch.Generator().manual_seed(how.seed)
    best: tuple[float, Any] = (float("inf"), None)
    history: list[dict[str, float]] = []
    for epoch in range(1, how.epochs + 1):
        module.train()
        for at in torch.randperm(len(ids), generator=dice).split(how.batch_size):
            read = module.encode(*padded([ids[i] for i in at], device)) if states is None else states[at].to(device)
            loss = classification(module.classify(read), labels[at].to(device), how.loss).mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(learning, how.clip)
            optimizer.step()
        module.eval()
        nats, right = _held_out(module, held_ids, held_states, held_labels, how.loss)
        history.append({"epoch": epoch, "loss": nats, "accuracy": right})
        if progress:
            progress(epoch, nats, right)
        if nats < best[0]:
            kept = {k: v for k, v in module.state_dict().items() if not k.startswith(left)}
            best = nats, copy.deepcopy(kept)
        if epoch - 1 - int(np.argmin([h["loss"] for h in history])) >= how.patience:
            break
    module.load_state_dict(best[1], strict=False)  # what did not learn is as it was
    module.eval()
    return history


@torch.no_grad()
def _read(module: IntentionModule, texts: Sequence[Sequence[int]], batch: int = 32) -> Tensor:
    """(P, E) states of an encoder that does not learn; like lengths together."""
    device = module.classifier.weight.device
    module.eval()
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    out = torch.zeros(len(texts), module.classifier.in_features)
    for start in range(0, len(order), batch):
        at = order[start : start + batch]
        out[at] = module.encode(*padded([texts[i] for i in at], device)).cpu()
    return out


@torch.no_grad()
def _held_out(
    module: IntentionModule, ids: Sequence[Sequence[int]], states: Tensor | None, labels: Tensor, loss: str
) -> tuple[float, float]:
    """(mean loss, share that is right) of held-out prompts."""
    device = module.classifier.weight.device
    found = logits_of(module, ids) if states is None else module.classify(states.to(device)).cpu()
    return float(classification(found, labels, loss).mean()), float((found.argmax(1) == labels).float().mean())
