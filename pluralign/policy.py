"""A policy: model, tokenizer and how it is rendered. Loads, saves and scores; safetensors only."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from .attributes import ScoreForm
from .errors import PluralignError, SettingsError
from .heads.intent import IntentionModule, attach_intention, intention_of
from .heads.pblora import layers, load_pblora, save_pblora, without_pblora
from .heads.regression import RegressionHead, attach, head_of, load_heads, save_heads, without_heads
from .intention import IntentForm
from .render.renderer import Renderer
from .scoring.forward import HEADS, Readings, autocast, forward
from .scoring.layout import Scored, split_by_tokens, trie_tokens
from .scoring.support import choose_layout, choose_precision, keep_memory, lay_out

__all__ = ["EMBEDDED", "LoRA", "Policy", "default_device", "kept_settings", "load_tokenizer", "resolve_name"]

KEPT = "pluralign.json"
ENCODER = "intention"  # where the tokenizer of the intention module's encoder is kept
EMBEDDED = Path(__file__).parent / "assets" / "model"


@dataclass(frozen=True)
class LoRA:
    """Low-rank adapters on the frozen base, which is then its own reference. `quantize`: "none", "4bit" or "8bit"."""

    rank: int = 32
    alpha: float | None = None  # default: 2 * rank
    dropout: float = 0.0
    targets: str = "all-linear"
    quantize: str = "none"


def default_device() -> str:
    """cuda where there is one, else cpu."""
    return "cuda" if torch.cuda.is_available() else "cpu"


@dataclass
class Policy:
    """pi_theta with its tokenizer. `precision` is the arithmetic ("bf16" or "fp32"), not the type of the weights."""

    model: Any
    tokenizer: Any
    name: str
    precision: str = "fp32"
    rendering: dict[str, Any] = field(default_factory=dict)
    scores: ScoreForm | None = None  # the attribute scores it was trained with, if any
    intents: IntentForm | None = None  # the intents it was trained with, if any

    @classmethod
    def load(
        cls,
        name: str | Path = "embedded",
        *,
        lora: LoRA | None = None,
        precision: str = "auto",
        device: str | None = None,
        trust_remote_code: bool = False,
        rendering: dict[str, Any] | None = None,
    ) -> Policy:
        """Load a hub model, a folder, a run folder (its `model/`), or "embedded".

        Weights are fp32 for full fine-tuning (the optimiser's master copy: a bf16 weight cannot hold a step of 5e-7)
        and for fp32 arithmetic, the checkpoint's own type under a LoRA in bf16. Raises SettingsError where the model
        cannot be found or read.
        """
        device = device or default_device()
        path = resolve_name(str(name))
        kept = kept_settings(path)
        precision = choose_precision(precision, device)
        model, tokenizer = _load(path, lora, device, trust_remote_code, precision)
        for reading, shape in kept.get("heads", {}).items():
            (attach_intention if reading == "intent" else attach)(model, reading, **shape)
        load_heads(model, lambda name: _file(path, name))
        load_pblora(model, lambda name: _file(path, name))
        if device == "cpu":
            keep_memory()
        module = intention_of(model)
        if module is not None and module.encoder is not None:
            module.tokenizer = _encoder_tokenizer(path)
        form = ScoreForm.from_dict(kept["scores"]) if kept.get("scores") else None
        intents = IntentForm.from_dict(kept["intents"]) if kept.get("intents") else None
        own = {**kept.get("rendering", {}), **(rendering or {})}
        return cls(model, tokenizer, str(name), precision, own, form, intents)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @cached_property
    def renderer(self) -> Renderer:
        return Renderer(self.tokenizer, **self.rendering)

    @property
    def sensing(self) -> RegressionHead | None:
        """The head that senses attribute scores from a prompt, if it has one."""
        return head_of(self.model, "sensed")

    @property
    def rating(self) -> RegressionHead | None:
        """The head that scores responses, if it has one."""
        return head_of(self.model, "rated")

    @property
    def intention(self) -> IntentionModule | None:
        """The module that infers intents from a prompt, if it has one."""
        return intention_of(self.model)

    def save(self, folder: str | Path) -> Path:
        """A plain Hugging Face folder (an adapter folder under LoRA) with our heads and settings beside it."""
        folder = Path(folder)
        with without_heads(self.model), without_pblora(self.model):
            self.model.save_pretrained(folder)
        save_heads(self.model, folder)
        if layers(self.model):
            save_pblora(self.model, folder)
        self.tokenizer.save_pretrained(folder)
        if self.intention is not None and self.intention.tokenizer is not None:
            self.intention.tokenizer.save_pretrained(folder / ENCODER)
        self.save_settings(folder)
        return folder

    def save_settings(self, folder: Path) -> None:
        """How this policy is shown its prompts and scores, and the shape of its heads, beside the weights."""
        kept: dict[str, Any] = {"rendering": self.rendering, "base": self.name}
        heads = {reading: head.as_dict() for reading in HEADS if (head := head_of(self.model, reading)) is not None}
        kept |= {"scores": self.scores.as_dict()} if self.scores else {}
        kept |= {"intents": self.intents.as_dict()} if self.intents else {}
        kept |= {"heads": heads} if heads else {}
        (folder / KEPT).write_text(json.dumps(kept, indent=1))

    def push(self, repository: str, *, private: bool = True) -> str:
        """Upload what `save` writes to a hub repository (the token comes from the environment); returns its address."""
        from huggingface_hub import HfApi

        hub = HfApi()
        made = hub.create_repo(repository, private=private, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            self.save(folder)
            hub.upload_folder(repo_id=made.repo_id, folder_path=folder)
        return str(made)

    @torch.no_grad()
    def score(
        self,
        sequences: Sequence[Scored],
        *,
        reads: Sequence[str] = ("sum", "length"),
        layout: str = "auto",
        token_budget: int = 8192,
        groups: Sequence[Sequence[int]] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> list[Readings]:
        """Readings of every sequence, one object for each, in order; fp32, on the CPU.

        `groups` lists sequences that share a prefix (the responses to one prompt); they stay in one pass.
        """
        groups = groups if groups is not None else [[i] for i in range(len(sequences))]
        if layout == "auto":
            longest = max((len(s.context) + len(s.target) for s in sequences), default=0)
            layout, _ = choose_layout(self.model, max_length=longest)
        costs = [_cost(layout, [sequences[i] for i in g]) for g in groups]
        out: list[Readings | None] = [None] * len(sequences)
        self.model.eval()
        for batch in split_by_tokens(costs, token_budget):
            members = [i for g in batch for i in groups[g]]
            laid = lay_out(layout, [sequences[i] for i in members]).to(self.device)
            with autocast(self.precision, self.device):
                readings = forward(self.model, laid, reads)
            for at, i in enumerate(members):
                out[i] = readings[[at]].cpu()
            if progress:
                progress(len(batch))
        return [r for r in out if r is not None]

    def generate(self, prompts: Sequence[Any], **options: Any) -> list[str]:
        """One response a prompt (text or messages); options as in `steering.generate`."""
        from .steering.generate import generate

        return generate(self, prompts, **options)

    def sense(self, prompts: Sequence[Any], **options: Any) -> list[dict[str, float]]:
        """The attribute scores that the policy senses in each prompt; options as in `steering.self_guided.sense`."""
        from .steering.self_guided import sense

        return sense(self, prompts, **options)

    def chat(self, prompt: Any, **options: Any) -> str:
        """The response to one prompt: text, or the messages so far."""
        return self.generate([prompt], **options)[0]


def _cost(layout: str, sequences: Sequence[Scored]) -> int:
    if layout == "trie":
        return trie_tokens(sequences)
    return len(sequences) * max(len(s.context) + len(s.target) for s in sequences)


def load_tokenizer(name: str | Path, *, trust_remote_code: bool = False) -> tuple[Any, dict[str, Any]]:
    """(tokenizer, rendering settings) of what `Policy.load` would load, without its weights. Raises SettingsError."""
    path = resolve_name(str(name))
    return _tokenizer(_base(path), trust_remote_code), dict(kept_settings(path).get("rendering", {}))


def resolve_name(name: str) -> str:
    if name == "embedded":
        return str(EMBEDDED)
    path = Path(name)
    if (path / "model").is_dir() and not (path / "config.json").is_file():
        return str(path / "model")  # a run folder
    return name


def _load(path: str, lora: LoRA | None, device: str, trust: bool, precision: str) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM

    adapter = (Path(path) / "adapter_config.json").is_file()
    base = _base(path)
    options: dict[str, Any] = {"trust_remote_code": trust, "use_safetensors": True}
    if lora and lora.quantize != "none":
        options["quantization_config"] = _quantization(lora.quantize)
    else:
        # a frozen base keeps its checkpoint's type, unless that is coarser than the arithmetic asked for
        options["dtype"] = "auto" if (lora or adapter) and precision == "bf16" else torch.float32
    tokenizer = _tokenizer(base, trust)
    model: Any
    try:
        model = AutoModelForCausalLM.from_pretrained(base, **options)
    except (OSError, ValueError) as error:
        raise _cannot_load(base, error) from None
    if not (lora and lora.quantize != "none"):
        model = model.to(device)
    _no_dropout(model)
    if adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, path, is_trainable=lora is not None)
    elif lora:
        model = _add_lora(model, lora)
    return model, tokenizer


def _base(path: str) -> str:
    """Where the weights and the tokenizer are: the folder itself, or the base model of an adapter."""
    adapter = Path(path) / "adapter_config.json"
    if not adapter.is_file():
        return path
    base = json.loads(adapter.read_text())["base_model_name_or_path"]
    if base in ("", None):
        raise SettingsError(f'the adapter "{path}" does not say which base model it belongs to.')
    return resolve_name(base)


def _file(path: str, name: str) -> Path | None:
    """A file of ours in a model folder or in a hub repository; None where there is none, or no way to ask."""
    if Path(path).is_dir():
        own = Path(path) / name
        return own if own.is_file() else None
    from transformers.utils import cached_file

    quiet = ("missing_entries", "gated_repo", "connection_errors")
    found = cached_file(path, name, **{f"_raise_exceptions_for_{case}": False for case in quiet})
    return Path(found) if found else None


def _encoder_tokenizer(path: str) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(path, subfolder=ENCODER)
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}/{ENCODER} holds no tokenizer: {_first_line(error)}") from None


def kept_settings(path: str) -> dict[str, Any]:
    """What a saved policy says of itself: rendering settings, score form, shapes of heads."""
    saved = _file(path, KEPT)
    return dict(json.loads(saved.read_text("utf-8"))) if saved else {}


def _tokenizer(base: str, trust: bool) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(base, trust_remote_code=trust)
    except (OSError, ValueError) as error:
        raise _cannot_load(base, error) from None


def _cannot_load(path: str, error: Exception) -> SettingsError:
    return SettingsError(
        f'cannot load the model "{path}": {_first_line(error)}',
        remedy="Give a folder with config.json and safetensors weights, or a hub name while online.",
    )


def _add_lora(model: Any, lora: LoRA) -> Any:
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    if lora.quantize != "none":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    targets: str | list[str] = lora.targets if lora.targets == "all-linear" else lora.targets.split(",")
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha if lora.alpha is not None else 2 * lora.rank,  # type: ignore[arg-type]
        lora_dropout=lora.dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def _quantization(kind: str) -> Any:
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        raise PluralignError(
            "lora.quantize needs bitsandbytes, which is not installed.", remedy='pip install "pluralign[qlora]"'
        ) from None
    from transformers import BitsAndBytesConfig

    if kind == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)


def _no_dropout(model: Any) -> None:
    """Log-probs of policy and reference must be comparable: dropout off, in modules and in what attention reads."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
