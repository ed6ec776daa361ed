"""A regression head: hidden states in, attribute scores out.

At the prompt's last token it *senses* what a prompt asks for: the mean of P(s | x) = N(s; mu(x), sigma^2 I) (Wang et
al., Self-Guided Alignment, Eq. 5). At a response's last token it *rates* the response (SteerLM's attribute model). It
is a module of the transformers model, so that optimisers, DDP and FSDP see it; it is saved beside the weights, so that
a plain checkpoint stays plain.

Shapes: N states, D hidden, K attributes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import SettingsError
from ..scoring.forward import HEADS, text_config, unwrap

__all__ = ["RegressionHead", "attach", "head_of", "load_heads", "save_heads", "take_heads", "without_heads"]


class RegressionHead(nn.Module):
    """(N, D) -> (N, K): an MLP of `layers` linear layers with GELU between them, as wide as its input.

    `bounded` ends in a sigmoid: SGA's scores lie in [0, 1]. The last layer starts at zero, so that training begins at
    the constant `start` (K,), the mean of the data, rather than at a random score.
    """

    def __init__(self, hidden: int, width: int, layers: int = 3, bounded: bool = True) -> None:
        super().__init__()
        if layers < 1 or width < 1:
            raise SettingsError(f"a head needs at least one layer and one output, not {layers} and {width}.")
        self.hidden, self.width, self.depth, self.bounded = hidden, width, layers, bounded
        wide: list[nn.Module] = []
        for _ in range(layers - 1):
            wide += [nn.Linear(hidden, hidden), nn.GELU()]
        self.body = nn.Sequential(*wide)
        self.out = nn.Linear(hidden, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    @torch.no_grad()
    def begin_at(self, start: Sequence[float]) -> None:
        """Let an untrained head answer with these scores (K,)."""
        mean = torch.tensor(start, dtype=self.out.bias.dtype)
        self.out.bias.copy_(torch.logit(mean.clamp(0.02, 0.98)) if self.bounded else mean)

    def forward(self, states: Tensor) -> Tensor:
        scores = self.out(self.body(states))
        return scores.sigmoid() if self.bounded else scores

    def as_dict(self) -> dict[str, Any]:
        """The arguments that make a head of this shape."""
        return {"hidden": self.hidden, "width": self.width, "layers": self.depth, "bounded": self.bounded}


def attach(
    model: Any, reading: str, width: int, *, layers: int, bounded: bool, hidden: int | None = None
) -> RegressionHead:
    """Give the model a fresh fp32 head for `reading` ("sensed" or "rated"), beside its weights.

    Raises SettingsError for a head made for states of another size (`hidden`).
    """
    core = unwrap(model)
    own = int(text_config(model).hidden_size)
    if hidden not in (None, own):
        raise SettingsError(f"the head reads {hidden} numbers a state, and this model's states have {own}.")
    head = RegressionHead(own, width, layers, bounded).to(next(core.parameters()).device)
    setattr(core, HEADS[reading], head)
    return head


def head_of(model: Any, reading: str) -> RegressionHead | None:
    """The model's head for a reading, if it has one."""
    return getattr(unwrap(model), HEADS[reading], None)


@contextlib.contextmanager
def without_heads(model: Any) -> Iterator[None]:
    """The model as transformers and peft know it, for the time of saving it."""
    core = unwrap(model)
    kept = {name: core._modules.pop(name) for name in HEADS.values() if name in core._modules}
    try:
        yield
    finally:
        core._modules.update(kept)


def save_heads(model: Any, folder: Path, state: Mapping[str, Tensor] | None = None) -> None:
    """Write each head as `<name>.safetensors`; `state` holds the weights of a sharded model, gathered."""
    from safetensors.torch import save_file

    for name in HEADS.values():
        head = getattr(unwrap(model), name, None)
        if head is None:
            continue
        weights = head.state_dict() if state is None else take_heads(dict(state), name)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({k: v.detach().float().cpu().contiguous() for k, v in weights.items()}, folder / _file(name))


def load_heads(model: Any, source: Path | Callable[[str], Path | None]) -> None:
    """Read the weights of the heads that the model has, from a folder or from where a function finds a file.

    Raises SettingsError where a file is missing or does not fit.
    """
    from safetensors.torch import load_file

    for name in HEADS.values():
        head = getattr(unwrap(model), name, None)
        if head is None:
            continue
        path = source / _file(name) if isinstance(source, Path) else source(_file(name))
        if path is None or not path.is_file():
            raise SettingsError(f"{path or _file(name)} is missing: the model has a head, and no weights for it.")
        try:
            head.load_state_dict(load_file(path))
        except RuntimeError as error:
            raise SettingsError(f"{path} does not fit: {str(error).splitlines()[-1].strip()}") from None


def take_heads(state: dict[str, Any], name: str = "") -> dict[str, Any]:
    """Take the heads' entries out of a state dict and return them, by their names within the head."""
    wanted = [n for n in HEADS.values() if not name or n == name]
    taken = {}
    for key in list(state):
        for head in wanted:
            if f"{head}." in key:
                taken[key.partition(f"{head}.")[2]] = state.pop(key)
    return taken


def _file(name: str) -> str:
    return f"{name.removeprefix('pluralign_')}.safetensors"
