"""One forward pass: a layout in, readings out.

The model is called whole (`model(input_ids=...)`), so that DDP, FSDP, DeepSpeed, peft and autocast see an ordinary
forward; only its output embedding is exchanged for the time of the call by one that reads the states it is given:
log-probs at the scored positions in chunks, pooled states, never the logits of a sequence.

Shapes: S sequences, M scored tokens, D hidden, V vocabulary.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from . import attention
from .constant import remember
from .last_layer import narrow
from .layout import Layout
from .logprobs import chunked_collision, chunked_logps, chunked_logps_of

__all__ = ["HEADS", "READS", "Readings", "autocast", "forward", "text_config"]

READS = (
    "sum", "length", "tokens", "last_hidden", "mean_hidden", "kl", "collision", "sensed", "rated", "intent", "sim",
)  # fmt: skip
# the module of the model that gives a reading
HEADS = {"sensed": "pluralign_sensing", "rated": "pluralign_rating", "intent": "pluralign_intention"}


@dataclass(frozen=True, slots=True)
class Readings:
    """What one pass returned for S sequences. `sum` in nats, fp32."""

    sum: Tensor  # (S,) summed log-prob of the scored target tokens
    length: Tensor  # (S,) how many there are
    tokens: Tensor  # (M,) per-token log-probs
    segment: Tensor  # (M,) the sequence each belongs to
    last_hidden: Tensor | None = None  # (S, D) state at the last target token
    mean_hidden: Tensor | None = None  # (S, D) mean state over the target tokens
    predict_hidden: Tensor | None = None  # (M, D) states that predict the tokens: what `kl` is computed from
    collision: Tensor | None = None  # (M,) log sum_v pi(v)^2 where each token is predicted, without gradient
    sensed: Tensor | None = None  # (S, K) the sensing head's scores, from the prompt's marked token
    rated: Tensor | None = None  # (S, K) the rating head's scores, from the last target token
    intent: Tensor | None = None  # (S, N) the intention module's logits, from the prompt alone
    sim: Tensor | None = None  # (S,) sim(y, I) in [0, 1] of the target and the sequence's intent (A-IPO, Eq. 8)
    kl: Tensor | None = None  # (M,) KL(pi_ref || pi) of each token; set by who has read both (see training.goal)

    @property
    def mean(self) -> Tensor:
        """(S,) log-prob per token."""
        return self.sum / self.length

    def cpu(self) -> Readings:
        """The same readings on the CPU."""
        return Readings(*(None if x is None else x.cpu() for x in (getattr(self, n) for n in self.__slots__)))  # type: ignore[arg-type]

    def __getitem__(self, index: Sequence[int] | Tensor) -> Readings:
        """The readings of some sequences, in that order (tokens included)."""
        at = torch.as_tensor(index, device=self.sum.device)
        starts = torch.cumsum(self.length, 0) - self.length
        pieces = [torch.arange(int(starts[i]), int(starts[i] + self.length[i])) for i in at.tolist()]
        tokens = torch.cat(pieces).to(self.sum.device) if pieces else at.new_empty(0)
        segment = torch.repeat_interleave(torch.arange(len(at), device=at.device), self.length[at])
        return Readings(
            self.sum[at],
            self.length[at],
            self.tokens[tokens],
            segment,
            _pick(self.last_hidden, at),
            _pick(self.mean_hidden, at),
            _pick(self.predict_hidden, tokens),
            _pick(self.collision, tokens),
            _pick(self.sensed, at),
            _pick(self.rated, at),
            _pick(self.intent, at),
            _pick(self.sim, at),
            _pick(self.kl, tokens),
        )


def _pick(x: Tensor | None, index: Tensor) -> Tensor | None:
    return None if x is None else x[index]


def forward(model: nn.Module, layout: Layout, reads: Sequence[str] = ("sum", "length")) -> Readings:
    """Run the model once over a layout. `model` may be wrapped (DDP, FSDP, peft, DeepSpeed).

    `reads` names readings of the closed list READS; hidden states are only kept where asked for.
    """
    unknown = set(reads) - set(READS)
    if unknown:
        raise ValueError(f"unknown reading {sorted(unknown)}; known: {', '.join(READS)}.")
    core = unwrap(model)
    kwargs: dict[str, Any] = {"attention_mask": layout.attention_mask}
    if layout.trie is not None:
        # models hand a mask that has four dimensions already straight to attention, which here reads the trie instead
        nothing = torch.ones((1, 1, 1, 1), dtype=torch.bool, device=layout.input_ids.device)
        attention.install(text_config(core))
        layout = narrow(core, text_config(core).model_type, layout, reads)
        kwargs = {"trie": layout.trie, "attention_mask": nothing}
        if layout.before is not None:
            kwargs["trie"] = remember(core, layout, attention_mask=nothing)
    if _takes_positions(core):
        kwargs["position_ids"] = layout.position_ids
    with _reading_head(core, layout, reads):
        packed = model(input_ids=layout.input_ids, use_cache=False, **kwargs).logits  # flat, fp32
    widths = {name: getattr(core, HEADS[name]).width for name in HEADS if name in reads}
    widths |= {"sim": 1} if "sim" in reads else {}
    return _unpack(packed, layout, reads, widths)


def unwrap(model: Any) -> Any:
    """The transformers model inside DDP, DeepSpeed, torch.compile and peft wrappers."""
    while True:
        if hasattr(model, "get_base_model"):
            model = model.get_base_model()
        elif isinstance(getattr(model, "module", None), nn.Module):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod
        else:
            return model


def text_config(model: Any) -> Any:
    """The configuration of the language model itself (multimodal ones nest it)."""
    config: Any = unwrap(model).config
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def _takes_positions(model: Any) -> bool:
    import inspect

    return "position_ids" in inspect.signature(model.forward).parameters


@contextlib.contextmanager
def _reading_head(model: Any, layout: Layout, reads: Sequence[str]) -> Iterator[None]:
    """Exchange the output embedding's forward. It stays a call of that module, so that sharding hooks fire."""
    head = model.get_output_embeddings()
    config = text_config(model)
    softcap = getattr(config, "final_logit_softcapping", None)
    _refuse_rescaled_logits(model, config)
    original = head.forward

    def read(hidden: Tensor) -> Tensor:
        states = hidden.reshape(-1, hidden.shape[-1])
        at = states[layout.predict]
        if isinstance(head, nn.Linear) and head.weight.is_floating_point():  # neither adapted nor quantised
            logps = chunked_logps(at, head.weight, layout.labels, bias=head.bias, softcap=softcap)
        elif softcap is None:
            logps = chunked_logps_of(original, at, layout.labels)
        else:
            raise RuntimeError(f"a {type(head).__name__} head with soft-capped logits is not supported.")
        parts = [logps]
        if "collision" in reads:
            if not isinstance(head, nn.Linear) or not head.weight.is_floating_point():
                raise RuntimeError(f"a {type(head).__name__} head cannot be read for `collision`.")
            parts.append(chunked_collision(at.detach(), head.weight, bias=head.bias, softcap=softcap))
        last = layout.states[torch.cumsum(layout.lengths, 0) - 1]
        for name, at_tokens in (("sensed", layout.marks), ("rated", last)):
            if name in reads:
                parts.append(_head(model, name, states, at_tokens).flatten())
        pooled = _mean(states, layout) if {"mean_hidden", "sim"} & set(reads) else None
        if {"intent", "sim"} & set(reads):
            logits, sim = _intention(model, states, pooled if "sim" in reads else None, layout)
            parts += [logits.flatten()] if "intent" in reads else []
            parts += [sim] if "sim" in reads else []
        if "last_hidden" in reads:
            parts.append(states[last].float().flatten())
        if "mean_hidden" in reads:
            assert pooled is not None
            parts.append(pooled.flatten())
        if "kl" in reads:
            parts.append(at.float().flatten())
        return torch.cat(parts)

    try:
        head.forward = read
        if softcap is not None:
            config.final_logit_softcapping = None  # applied inside, chunk by chunk
        yield
    finally:
        head.forward = original
        if softcap is not None:
            config.final_logit_softcapping = softcap


def _mean(states: Tensor, layout: Layout) -> Tensor:
    """(S, D) fp32 mean state over each sequence's scored target tokens."""
    total = states.new_zeros((len(layout.lengths), states.shape[-1]), dtype=torch.float32)
    total = total.index_add(0, layout.segment, states[layout.states].float())
    return total / layout.lengths[:, None]


def _intention(model: Any, states: Tensor, pooled: Tensor | None, layout: Layout) -> tuple[Tensor, Tensor]:
    """((S, N) logits, (S,) similarities) of the model's intention module."""
    if layout.beside is None:
        raise ValueError("an intention module reads what lies beside a layout, and there is nothing.")
    module = getattr(model, HEADS["intent"])
    if module.encoder is None and layout.marks is None:
        raise ValueError("`intent` reads a marked token, and a sequence has none.")
    at = states[layout.marks] if module.encoder is None else None
    return module(at, pooled, layout.beside)


def _head(model: Any, name: str, states: Tensor, at: Tensor | None) -> Tensor:
    """(S, K) fp32 scores of the model's own head; under autocast as well: a step of 0.01 must not be rounded away."""
    if at is None:
        raise ValueError(f"`{name}` reads a marked token, and a sequence has none.")
    with torch.autocast(states.device.type, enabled=False):
        return getattr(model, HEADS[name])(states[at].float())


def _refuse_rescaled_logits(model: Any, config: Any) -> None:
    """Models that multiply logits after the head would do so to our packed vector: no wrong number may come out."""
    for name in ("logits_scaling", "logit_scale"):
        if getattr(config, name, None) not in (None, 1, 1.0):
            raise RuntimeError(f"{type(model).__name__} rescales its logits ({name}); it is not supported yet.")


def _unpack(packed: Tensor, layout: Layout, reads: Sequence[str], widths: Mapping[str, int]) -> Readings:
    m, s = len(layout.labels), len(layout.lengths)
    packed = packed.float()
    tokens, rest = packed[:m], packed[m:]
    collision = None
    if "collision" in reads:
        collision, rest = rest[:m].detach(), rest[m:]
    scores: dict[str, Tensor] = {}
    for name, k in widths.items():
        scores[name], rest = rest[: s * k].view(s, k), rest[s * k :]
    wide = {"last_hidden": s, "mean_hidden": s, "kl": m}
    rows = [wide[r] for r in wide if r in reads]
    width = len(rest) // sum(rows) if rows else 0
    pooled: dict[str, Tensor] = {}
    for name in wide:
        if name in reads:
            pooled[name], rest = rest[: wide[name] * width].view(wide[name], width), rest[wide[name] * width :]
    # index_add in fp32: a sum over each sequence's own tokens, whatever lies beside them
    sums = torch.zeros(s, dtype=torch.float32, device=packed.device).index_add(0, layout.segment, tokens)
    return Readings(
        sums,
        layout.lengths,
        tokens,
        layout.segment,
        pooled.get("last_hidden"),
        pooled.get("mean_hidden"),
        pooled.get("kl"),
        collision,
        scores.get("sensed"),
        scores.get("rated"),
        scores.get("intent"),
        scores["sim"][:, 0] if "sim" in scores else None,
    )


def autocast(precision: str, device: torch.device | str) -> contextlib.AbstractContextManager[Any]:
    """bf16 autocast for "bf16", nothing for "fp32"."""
    kind = torch.device(device).type
    return torch.autocast(kind, dtype=torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()
