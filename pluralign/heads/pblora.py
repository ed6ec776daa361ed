"""PBLoRA: low-rank layers whose middle depends on a preference vector alpha over K attributes (PARM).

    dW(alpha) = s (B_1 W_1 A_1 + B_2 W_2(alpha) A_2),   W_2(alpha) = reshape(alpha^T V, r_2 x r_2),   s = lora_alpha/r_2

The first part is the same for every alpha, the second is linear in it (Lin et al. 2025, arXiv 2505.06274). A layer is a
child of the linear layer it adds to and works by a forward hook: the base keeps its parameters' names, so that its
checkpoints stay readable, and dW is never formed.

While a model trains it reads the alpha drawn for the step (`parm_objective`), elsewhere the one that `set_preference`
left, at first 1/K for every attribute.

Shapes: I inputs and O outputs of a linear layer, K attributes, r_1 and r_2 the two ranks, r = r_1 + r_2.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import SettingsError, nearest
from ..objectives import Objective, Outcome
from ..objectives.core import Readings
from ..objectives.parm import draw_preference, parm
from ..scoring.forward import unwrap

__all__ = [
    "FILE", "PBLoRA", "Shape", "inject", "layers", "load_pblora", "parm_objective", "preference_of", "remove",
    "save_pblora", "set_preference", "shape_of", "without_pblora",
]  # fmt: skip

FILE = "pblora.safetensors"
CHILD = "pluralign_pblora"  # its name within the linear layer: `model_digest` leaves out what begins so


@dataclass(frozen=True, slots=True)
class Shape:
    """What all layers of a model have in common. `attributes` are the names of alpha's entries, in order."""

    attributes: tuple[str, ...]
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")
    fixed_rank: int = 4  # r_1
    preference_rank: int = 4  # r_2
    alpha: float = 8.0  # s times r_2

    def __post_init__(self) -> None:
        if not self.attributes or len(set(self.attributes)) < len(self.attributes):
            raise SettingsError(f"attributes must be given once each, not {list(self.attributes)}.")
        if self.fixed_rank < 0 or self.preference_rank < 1:
            raise SettingsError(
                f"ranks must be 0 or more (fixed) and 1 or more (preference), not {self.fixed_rank} and "
                f"{self.preference_rank}."
            )


class PBLoRA(nn.Module):
    """x -> x dW(alpha)^T, (..., I) -> (..., O). B starts at zero, so that a fresh layer changes nothing.

    W_1 and every V_k start at the identity (ours: the paper does not say): a fresh layer is a LoRA of rank r for all
    alpha on the simplex, and V_1, V_2, ... part as the alphas of the steps differ.
    """

    preference: Tensor
    drawn: Tensor | None

    def __init__(self, inputs: int, outputs: int, shape: Shape, generator: torch.Generator | None = None) -> None:
        super().__init__()
        r1, r2, k = shape.fixed_rank, shape.preference_rank, len(shape.attributes)
        bound = 1 / math.sqrt(inputs)
        self.shape, self.scale = shape, shape.alpha / r2
        self.down = nn.Parameter((torch.rand(r1 + r2, inputs, generator=generator) * 2 - 1) * bound)  # A
        self.up = nn.Parameter(torch.zeros(outputs, r1 + r2))  # B
        self.fixed = nn.Parameter(torch.eye(r1))  # W_1
        self.steered = nn.Parameter(torch.eye(r2).reshape(1, -1).repeat(k, 1))  # V, (K, r_2^2)
        self.register_buffer("preference", torch.full((k,), 1 / k), persistent=False)
        self.register_buffer("drawn", None, persistent=False)

    @property
    def current(self) -> Tensor:
        """(K,) the alpha that this layer reads now."""
        return self.drawn if self.training and self.drawn is not None else self.preference

    def middle(self) -> Tensor:
        """(r, r): W_1 and W_2(alpha) on the diagonal."""
        r2 = self.shape.preference_rank
        return torch.block_diag(self.fixed, (self.current.to(self.steered) @ self.steered).reshape(r2, r2))

    def delta(self) -> Tensor:
        """(O, I): dW(alpha)."""
        return self.scale * self.up @ self.middle() @ self.down

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * (((x.to(self.down.dtype) @ self.down.T) @ self.middle().T) @ self.up.T)


def _add(linear: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    """The forward hook of an adapted layer."""
    return output + getattr(linear, CHILD)(inputs[0]).to(output.dtype)


# In and out of a model


def inject(model: Any, shape: Shape, *, seed: int = 0) -> list[str]:
    """Freeze the model and give its target layers a fresh PBLoRA each; the names of those layers.

    Raises SettingsError where there are some already, and for targets that are no linear layers of this model.
    """
    core = unwrap(model)
    if layers(core):
        raise SettingsError("the model has PBLoRA layers already.")
    linear = {n: m for n, m in core.named_modules() if isinstance(m, nn.Linear)}
    chosen = [n for n in linear if n.rpartition(".")[2] in shape.targets]
    known = sorted({n.rpartition(".")[2] for n in linear})
    absent = [t for t in shape.targets if t not in known]
    if absent or not chosen:
        raise SettingsError(
            f'the model has no linear layer "{absent[0] if absent else ""}" (it has: {", ".join(known) or "none"}).'
            f"{nearest(absent[0], known) if absent else ''}"
        )
    generator = torch.Generator().manual_seed(seed)
    core.requires_grad_(False)
    for name in chosen:
        module = linear[name]
        fresh = PBLoRA(module.in_features, module.out_features, shape, generator)
        setattr(module, CHILD, fresh.to(module.weight.device))
        module.register_forward_hook(_add)
    return chosen


def layers(model: Any) -> dict[str, PBLoRA]:
    """Every PBLoRA of a model, by the name of the linear layer that it adds to."""
    core = unwrap(model)
    suffix = f".{CHILD}"
    return {n.removesuffix(suffix): m for n, m in core.named_modules() if isinstance(m, PBLoRA)}


def shape_of(model: Any) -> Shape:
    """What the model's layers have in common. Raises SettingsError for a model without any."""
    found = next(iter(layers(model).values()), None)
    if found is None:
        raise SettingsError("the model has no PBLoRA layers.")
    return found.shape


def remove(model: Any) -> None:
    """Take the layers out again; the weights are those of before, and as frozen as they are."""
    core = unwrap(model)
    for name in layers(core):
        module = core.get_submodule(name)
        delattr(module, CHILD)
        for key in [k for k, hook in module._forward_hooks.items() if hook is _add]:
            del module._forward_hooks[key]


@contextlib.contextmanager
def without_pblora(model: Any) -> Iterator[None]:
    """The model without its layers for a while: to save or to score what lies beneath."""
    core = unwrap(model)
    kept = layers(core)
    remove(core)
    try:
        yield
    finally:
        _put_back(core, kept)


def _put_back(core: Any, kept: Mapping[str, PBLoRA]) -> None:
    for name, layer in kept.items():
        module = core.get_submodule(name)
        setattr(module, CHILD, layer)
        module.register_forward_hook(_add)


# Preferences


def set_preference(model: Any, alpha: Sequence[float] | Mapping[str, float]) -> None:
    """The trade-off of everything the model does outside of training steps: K weights in order, or all by name.

    Raises SettingsError for weights that are not 0 or more, do not add up to 1, or name other attributes.
    """
    names = shape_of(model).attributes
    if isinstance(alpha, Mapping):
        unknown = [n for n in alpha if n not in names]
        if unknown or len(alpha) < len(names):
            what = f'unknown attribute "{unknown[0]}"' if unknown else "an attribute is missing"
            raise SettingsError(f"{what} (a preference weighs all of: {', '.join(names)}).")
        alpha = [alpha[n] for n in names]
    values = [float(a) for a in alpha]
    shown = ", ".join(f"{v:g}" for v in values)
    if len(values) != len(names):
        raise SettingsError(f"a preference has {len(names)} weights ({', '.join(names)}), not {len(values)}.")
    if not all(0 <= v <= 1 + 1e-6 for v in values) or abs(math.fsum(values) - 1) > 1e-6:
        raise SettingsError(f"a preference is 0 or more everywhere and adds up to 1, not {shown}.")
    for layer in layers(model).values():
        layer.preference = torch.tensor(values).to(layer.preference)


def preference_of(model: Any) -> Tensor:
    """(K,) the alpha that the model reads now."""
    shape_of(model)
    return next(iter(layers(model).values())).current


def parm_objective(model: Any, names: Sequence[str], *, seed: int = 0, concentration: float = 0.5) -> Objective:
    """The objective `parm` for a model with PBLoRA layers: alpha is drawn anew for every optimiser step.

    `names` are the run's attributes in the order of its columns (`scores.attributes`): alpha's must be the same.

    alpha ~ Dirichlet(concentration, ...) depends on the seed and the number of the step alone, so that all processes
    and micro-batches of a step share one and a resumed run goes on with the same ones; layers and loss read the same.
    In evaluation it is the preference that `set_preference` left, so that validations can be compared.
    Raises SettingsError for a model without such layers, and for attributes that are others or in another order.
    """
    own = shape_of(model).attributes
    if tuple(names) != own:
        raise SettingsError(
            f"the layers weigh {', '.join(own)}, and the run's attributes are {', '.join(names) or 'none'}.",
            remedy=f"Set scores.attributes=[{', '.join(own)}].",
        )

    def begin_step(running: Mapping[str, float], _: Any) -> dict[str, float]:
        """Called by the training loop once a step, before any loss, on every process."""
        step = int(running.get("step", 0))
        for layer in layers(model).values():
            layer.drawn = draw_preference(seed, step, len(own), concentration).to(layer.preference)
        return {"step": step + 1}

    def conditioned(
        r: Readings,
        *,
        beta: float | Sequence[float] = 0.01,
        gamma: float = 0.0,
        batch: Any = None,
        running: Any = None,
    ) -> Outcome:
        return parm({**r, "preference": preference_of(model)}, beta=beta, gamma=gamma)

    return Objective(
        "parm",
        conditioned,
        needs=("w", "l", "attributes_w", "attributes_l"),
        formula="sum_i alpha_i (-log sigma(beta_i (log pi(y_w^i) - log pi(y_l^i)) - gamma)), alpha of the step",
        paper="Lin et al. 2025, arXiv 2505.06274",
        statistics=lambda r: {"examples": torch.ones(len(r["attributes_w"]))},  # what `update` asks for; no pass
        update=begin_step,
    )


# Files


def save_pblora(model: Any, folder: Path) -> Path:
    """Write the layers as one safetensors file with their shape in its header; the preference is not kept."""
    from safetensors.torch import save_file

    shape = shape_of(model)
    weights = {
        f"{name}.{key}": value.detach().cpu().contiguous()
        for name, layer in layers(model).items()
        for key, value in layer.state_dict().items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / FILE, metadata={"shape": json.dumps(asdict(shape))})
    return folder / FILE


def load_pblora(model: Any, source: Path | Callable[[str], Path | None]) -> bool:
    """Give a model the layers that a folder (or a function that finds files) holds; whether there are any.

    The model is frozen. Raises SettingsError for a file that cannot be read or does not fit.
    """
    from safetensors import SafetensorError, safe_open

    path = source / FILE if isinstance(source, Path) else source(FILE)
    if path is None or not path.is_file():
        return False
    try:
        with safe_open(path, framework="pt") as f:
            kept = json.loads((f.metadata() or {})["shape"])
            weights = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 - no mapping
        shape = Shape(**{**kept, "attributes": tuple(kept["attributes"]), "targets": tuple(kept["targets"])})
    except (SafetensorError, OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise SettingsError(f"{path} holds no PBLoRA layers: {str(error).splitlines()[0]}.") from None
    inject(model, shape)
    own = layers(model)
    wanted = {f"{name}.{key}": value.shape for name, layer in own.items() for key, value in layer.state_dict().items()}
    found = {name: value.shape for name, value in weights.items()}
    unlike = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))
    if unlike:
        remove(model)
        raise SettingsError(f"{path} does not fit this model: {unlike[0]} ({len(unlike)} such).")
    for name, layer in own.items():
        layer.load_state_dict({key: weights[f"{name}.{key}"] for key in layer.state_dict()})
    return True
