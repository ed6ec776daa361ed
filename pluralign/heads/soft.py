"""The soft prefix of A-IPO: an intent's vector z = E[I] shown to the policy as vectors ahead of its words.

Where a policy reads a token's embedding it reads, at ids below 0, a vector that is computed from E: intent k has the P
ids -1 - kP, ..., -(k + 1)P, so that a prompt with an intent stays a list of integers for whoever renders, packs,
shares prefixes or caches. The paper says that labels are mapped to z and that the policy is conditioned on the intent;
that z enters as a prefix is our reading, and an option (4.2, 4.4).

The reference is shown the vectors as they were when the run began: policy and reference start out equal.

Shapes: N intents, P vectors each, W width of E, D hidden, T tokens.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import SettingsError
from ..scoring.forward import HEADS, unwrap

if TYPE_CHECKING:
    from .intent import IntentionModule

__all__ = ["SoftPrefix", "as_reference", "begin_prefix", "give_start", "read_vectors"]


class SoftPrefix(nn.Module):
    """(N, W) vectors of the intents to (N P, D): a linear map of their directions, as large as token embeddings are.

    `first` (N P, D) is what it gave when the run began, and what it gives while `frozen`.
    """

    first: Tensor

    def __init__(self, intents: int, tokens: int, width: int, hidden: int) -> None:
        super().__init__()
        self.tokens, self.hidden = tokens, hidden
        self.project = nn.Linear(width, tokens * hidden)
        self.register_buffer("first", torch.zeros(intents * tokens, hidden))
        self.frozen = False

    def forward(self, table: Tensor) -> Tensor:
        if self.frozen:
            return self.first
        with torch.autocast(table.device.type, enabled=False):
            return self.project(functional.normalize(table.float(), dim=-1)).view(-1, self.hidden)

    @torch.no_grad()
    def begin_at(self, scale: float) -> None:
        """Vectors of the size `scale`, half of their variance shared by the intents, half an intent's own."""
        nn.init.normal_(self.project.weight, std=scale / 2**0.5)  # of a unit vector: entries of the same size
        nn.init.normal_(self.project.bias, std=scale / 2**0.5)


class _Reader:
    """Hooks of the input embedding. An object and no closure, so that a copied model reads its own vectors."""

    def __init__(self, core: nn.Module) -> None:
        self.core = core
        self.ids: Tensor | None = None

    def before(self, _: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        self.ids = args[0]
        return (args[0].clamp(min=0), *args[1:])

    def after(self, _: nn.Module, __: tuple[Any, ...], found: Tensor) -> Tensor:
        ids, self.ids = self.ids, None
        assert ids is not None, "set by the hook before"
        module = _module(self.core)
        if module is None or module.prefix is None:
            return found
        # while a response is written there are none; in training every weight takes part in every pass, for DDP
        if not torch.is_grad_enabled() and not bool((ids < 0).any()):
            return found
        vectors = module.prefix(module.table.weight).to(found.dtype)
        at = (-1 - ids).clamp(0, len(vectors) - 1)
        return torch.where((ids < 0)[..., None], vectors[at], found)


def read_vectors(model: Any) -> None:
    """Let the model's input embedding read the vectors of its intention module at ids below 0."""
    core = unwrap(model)
    embedding = core.get_input_embeddings()
    if any(isinstance(getattr(hook, "__self__", None), _Reader) for hook in embedding._forward_hooks.values()):
        return
    reader = _Reader(core)
    embedding.register_forward_pre_hook(reader.before)
    embedding.register_forward_hook(reader.after)


@torch.no_grad()
def begin_prefix(model: Any, tokens: int) -> None:
    """Give the intention module `tokens` vectors an intent, unless it has them, and keep what they are for references.

    Raises SettingsError for a module that has another number of them.
    """
    module = _module(model)
    assert module is not None, "given before"
    if module.prefix is not None and module.prefix.tokens != tokens:
        raise SettingsError(
            f"the intention module has {module.prefix.tokens} vectors an intent, not {tokens}.",
            remedy=f"Set intents.soft={module.prefix.tokens}.",
        )
    if module.prefix is None:
        embedding = unwrap(model).get_input_embeddings()
        few = torch.arange(min(512, embedding.weight.shape[0]), device=embedding.weight.device)
        scale = float(embedding(few[None]).float().std())  # of what the model reads: some scale their embeddings
        table = module.table.weight
        module.prefix = SoftPrefix(len(table), tokens, table.shape[1], module.hidden).to(table.device)
        module.prefix.begin_at(scale)
        read_vectors(model)
    module.prefix.first.copy_(module.prefix(module.table.weight))


def give_start(model: Any, source: Any) -> None:
    """Let another model, the reference of a run, read the vectors that the policy `source` began with, if any."""
    module = _module(source)
    if module is None or module.prefix is None:
        return
    without = {} if module.encoder is None else {id(module.encoder): None}
    own = copy.deepcopy(module, without)
    assert own.prefix is not None, "as its original"
    own.prefix.frozen = True
    setattr(unwrap(model), HEADS["intent"], own)
    read_vectors(model)


@contextlib.contextmanager
def as_reference(model: Any) -> Iterator[None]:
    """The model with the vectors that its run began with, for the time of being its own reference."""
    module = _module(model)
    prefix = module.prefix if module is not None else None
    if prefix is None:
        yield
        return
    before, prefix.frozen = prefix.frozen, True
    try:
        yield
    finally:
        prefix.frozen = before


def _module(model: Any) -> IntentionModule | None:
    return getattr(unwrap(model), HEADS["intent"], None)
