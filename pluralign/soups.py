"""Rewarded soups: policies that were trained from one start, averaged in the space of their weights.

theta(lambda) = sum_i lambda_i theta_i with lambda on the simplex (Rame et al. 2023, arXiv 2306.04488). One policy is
trained for each reward, and every trade-off between the rewards is then a policy of its own, at no further training.

LoRA adapters are averaged as what they add to the weights, sum_i lambda_i s_i B_i A_i (`space="delta"`): their ranks
are put side by side, which is exact. Averaging the factors instead (`space="factors"`, as the authors' code does) is
another thing: (sum_i lambda_i B_i)(sum_i lambda_i A_i) has cross terms, and A = B = 1 with A = B = -1 gives 0 at
lambda = 1/2 where both ingredients add 1.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .errors import SettingsError
from .heads.pblora import layers
from .heads.regression import attach, head_of, without_heads
from .policy import Policy, kept_settings, resolve_name
from .scoring.forward import HEADS
from .scoring.reference import model_digest

__all__ = ["SPACES", "front", "soup"]

SPACES = ("delta", "factors")
NEAR = 1e-6  # how far from 1 weights may add up: 0.1 + 0.2 + 0.7 is not 1 in binary


def soup(
    policies: Sequence[Policy],
    weights: Sequence[float],
    *,
    space: str = "delta",
    into_base: bool = False,
    extrapolate: bool = False,
    assume_same_start: bool = False,
    keep_scores: bool = True,
) -> Policy:
    """The policy at sum_i weights_i theta_i; the ingredients stay as they are.

    Ingredients are all full checkpoints or all LoRA adapters. A weight of 1 on one of them gives it back bit for bit;
    elsewhere sums are taken in fp64 and rounded once, and the order of the ingredients does not matter. `into_base`
    adds the averaged adapter to its base in fp32 and returns a full policy. `extrapolate` allows weights below 0 and
    above 1, and for adapters another sum than 1 (of full checkpoints, that would scale the start itself). Policies
    that take attribute scores must take the same ones; their heads are averaged like any other weight, which means
    something where these began alike (runs of one seed). `keep_scores=False` leaves scores and heads behind.

    Raises SettingsError for weights that cannot be, ingredients of different kinds or shapes, and ingredients that did
    not start from the same weights. A full checkpoint names its start in the file beside it; `assume_same_start` takes
    your word where none is named or the start is no longer there.
    """
    weights = _weights(weights, len(policies), space, extrapolate, full=not any(map(_is_adapted, policies)))
    _check_alike(policies)
    start = _common_start(policies, assume_same_start)
    scores = _common_scores(policies) if keep_scores else None
    used = [(p, w) for p, w in zip(policies, weights, strict=True) if w]  # 0 times infinity is not 0
    models, shares = [p.model for p, _ in used], [w for _, w in used]
    with contextlib.ExitStack() as stack:
        for model in models:
            stack.enter_context(without_heads(model))
        if shares == [1.0]:
            model = copy.deepcopy(models[0])
        elif _is_adapted(policies[0]):
            model = _average_adapters(models, shares, space)
        else:
            model = _average(models, shares)
    if into_base:
        model = _into_base(model)
    if keep_scores:
        _average_heads(model, [p.model for p, _ in used], shares)
    first = policies[0]
    return Policy(model, first.tokenizer, start, first.precision, dict(first.rendering), scores)


def front(
    policies: Sequence[Policy], grid: Iterable[Sequence[float]], **options: Any
) -> Iterator[tuple[tuple[float, ...], Policy]]:
    """(weights, soup) for every row of a grid, made when it is asked for and never written.

    `judging.fronts.simplex_grid` gives the grid of the paper; options are those of `soup`.
    """
    for row in grid:
        weights = tuple(float(w) for w in row)
        yield weights, soup(policies, weights, **options)


def _weights(weights: Sequence[float], count: int, space: str, extrapolate: bool, *, full: bool) -> list[float]:
    if space not in SPACES:
        raise SettingsError(f'space must be "delta" or "factors", not "{space}".')
    if not count or len(weights) != count:
        raise SettingsError(f"a soup needs one weight for each policy: {count} policies, {len(weights)} weights.")
    out = [float(w) for w in weights]
    shown = ", ".join(f"{w:g}" for w in out)
    if not all(map(math.isfinite, out)) or not any(out):
        raise SettingsError(f"weights must be numbers, and not all 0: {shown}.")
    total = math.fsum(out)
    if not extrapolate and (min(out) < 0 or abs(total - 1) > NEAR):
        raise SettingsError(
            f"weights must be 0 or more and add up to 1: {shown} add up to {total:g}.",
            remedy="`extrapolate` allows others.",
        )
    if full and abs(total - 1) > NEAR:
        raise SettingsError(f"weights of full checkpoints must add up to 1: {shown} add up to {total:g}.")
    return out


# Which policies may be averaged


def _is_adapted(policy: Policy) -> bool:
    return hasattr(policy.model, "peft_config")


def _check_alike(policies: Sequence[Policy]) -> None:
    """Raises SettingsError for policies of different kinds, shapes, vocabularies or templates."""
    first, *others = policies
    steered = next((p for p in policies if layers(p.model)), None)
    if steered is not None:
        raise SettingsError(
            f'"{steered.name}" has PBLoRA layers, whose factors do not add up.',
            remedy="One such policy holds every trade-off: `heads.pblora.set_preference`.",
        )
    vocabulary = first.tokenizer.get_vocab()
    for other in others:
        both = f'"{first.name}" and "{other.name}"'
        if _is_adapted(first) != _is_adapted(other):
            raise SettingsError(
                f"of {both} one is an adapter and the other is not.",
                remedy="Merge the adapter into its base first: `pluralign merge RUN --weights 1 --into-base`.",
            )
        if other.tokenizer.get_vocab() != vocabulary:
            raise SettingsError(f"{both} have different vocabularies.")
        if other.renderer.template.source != first.renderer.template.source:
            raise SettingsError(f"{both} are shown their prompts by different templates.")


def _common_start(policies: Sequence[Policy], assume: bool) -> str:
    """The name of the weights that every ingredient started from (or is itself).

    Adapters carry theirs. A full checkpoint names its start; where the names differ, the weights in those places are
    compared.
    """
    starts = [_start(p) for p in policies]
    name = starts[0] or policies[0].name
    if _is_adapted(policies[0]):
        digests = [model_digest(p.model) for p in policies]
        if other := next((i for i, d in enumerate(digests) if d != digests[0]), None):
            _refuse_starts(policies[0], policies[other])
        return name
    if assume or len(policies) == 1:
        return name
    # an ingredient may also be the start of the others, and policies in memory bear its name
    known = [{resolve_name(n): n for n in (p.name, s) if n} for p, s in zip(policies, starts, strict=True)]
    for weigh in (False, True):
        paths = [{_weights_digest(path): n for path, n in k.items()} for k in known] if weigh else known
        shared = set.intersection(*map(set, paths))
        if shared:
            return next(name for key, name in paths[0].items() if key in shared)
    unlike = next((i for i, k in enumerate(paths) if not set(k) & set(paths[0])), 1)
    return _refuse_starts(policies[0], policies[unlike])


def _start(policy: Policy) -> str | None:
    """What a saved policy says that it was trained from."""
    if _is_adapted(policy):
        config = policy.model.peft_config[policy.model.active_adapter]
        return str(config.base_model_name_or_path) if config.base_model_name_or_path else None
    start = kept_settings(resolve_name(policy.name)).get("base")
    return str(start) if start else None


def _refuse_starts(one: Policy, other: Policy) -> str:
    def said(p: Policy) -> str:
        start = _start(p)
        return f'"{p.name}" started from "{start}"' if start else f'"{p.name}" names no start'

    raise SettingsError(
        f"{said(one)} and {said(other)}: only policies trained from the same weights can be averaged.",
        remedy="Train both from one model; for full checkpoints that do not name their start, `assume_same_start`.",
    )


def _weights_digest(path: str) -> str:
    """Hex digest of the tensors in a model folder by name; the name itself of what is no folder here."""
    from safetensors import safe_open

    files = sorted(p for p in Path(path).glob("*.safetensors") if p.name.startswith(("model", "adapter_model")))
    if not files:
        return path
    state = hashlib.blake2b(digest_size=32)
    for file in files:
        with safe_open(file, framework="pt") as f:
            for name in sorted(f.keys()):
                tensor = f.get_tensor(name).contiguous()
                state.update(f"{name}|{tuple(tensor.shape)}|{tensor.dtype}".encode())
                state.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()


def _common_scores(policies: Sequence[Policy]) -> Any:
    """The score form of all policies. Raises SettingsError where they take, sense or rate different attributes."""
    first = policies[0]
    for other in policies[1:]:
        if other.scores != first.scores:
            said = [", ".join(p.scores.names) if p.scores else "none" for p in (first, other)]
            raise SettingsError(
                f'"{first.name}" takes attribute scores ({said[0]}) and "{other.name}" others ({said[1]}), '
                "or in other words or on another scale.",
                remedy="`keep_scores=False` makes a soup that takes none.",
            )
        if _shapes_of_heads(other) != _shapes_of_heads(first):
            raise SettingsError(
                f'"{first.name}" and "{other.name}" have different heads.',
                remedy="`keep_scores=False` makes a soup without any.",
            )
    return first.scores


def _shapes_of_heads(policy: Policy) -> dict[str, Any]:
    return {r: head.as_dict() for r in HEADS if (head := head_of(policy.model, r)) is not None}


# Averages


def _sum(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """sum_i w_i t_i in fp64 on the first one's device, added up by size: the same bits in any order of the parts."""
    device = tensors[0].device
    parts = [w * t.detach().to(device, torch.float64) for t, w in zip(tensors, weights, strict=True)]
    return torch.stack(parts).sort(dim=0).values.sum(0)


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


@torch.no_grad()
def _average(models: Sequence[nn.Module], weights: Sequence[float]) -> nn.Module:
    """Full checkpoints. Tensors that are equal in all of them (what was frozen, positions) are left alone."""
    out = copy.deepcopy(models[0])
    others = [_tensors(m) for m in models]
    _check_keys([{name: t.shape for name, t in own.items()} for own in others])
    for name, tensor in _tensors(out).items():
        own = [each[name] for each in others]
        if all(torch.equal(own[0], t.to(own[0].device)) for t in own[1:]):
            continue
        if not tensor.is_floating_point():
            raise SettingsError(f"{name} holds whole numbers that differ: they cannot be averaged.")
        tensor.copy_(_sum(own, weights))
    return out


def _check_keys(shapes: Sequence[Mapping[str, Any]]) -> None:
    """Raises SettingsError where one model has a tensor that another lacks, or has in another shape."""
    for other in shapes[1:]:
        unlike = sorted(n for n in {*shapes[0], *other} if shapes[0].get(n) != other.get(n))
        if unlike:
            said = [" x ".join(map(str, s[unlike[0]])) if unlike[0] in s else "absent" for s in (shapes[0], other)]
            raise SettingsError(
                f"the policies do not fit together: {unlike[0]} is {said[0]} in one and {said[1]} in another "
                f"({len(unlike)} such)."
            )


@torch.no_grad()
def _average_heads(model: Any, models: Sequence[Any], weights: Sequence[float]) -> None:
    """Give `model` the averages of the heads of `models`, which all have the same ones."""
    for reading in HEADS:
        heads = [h for m in models if (h := head_of(m, reading)) is not None]
        if heads:
            own = attach(model, reading, **heads[0].as_dict())
            own.load_state_dict({n: _sum([h.state_dict()[n] for h in heads], weights) for n in own.state_dict()})


# Adapters


@dataclass(frozen=True, slots=True)
class _Low:
    """What an adapter adds to one weight: scale * up @ down."""

    down: Tensor  # (r, in), the paper's A
    up: Tensor  # (out, r), the paper's B
    scale: float


def _low_rank(model: Any) -> dict[str, _Low]:
    """A LoRA by the name of the adapted layer. Raises SettingsError for adapters that are more than two factors."""
    from peft.tuners.lora import LoraLayer

    name = model.active_adapter
    config = model.peft_config[name]
    peft_type = getattr(config.peft_type, "value", config.peft_type)
    more = [what for what in ("use_dora", "modules_to_save", "lora_bias") if getattr(config, what, None)]
    more += [f"bias={config.bias}"] if getattr(config, "bias", "none") != "none" else []
    if peft_type != "LORA" or more:
        raise SettingsError(
            f"only plain LoRA adapters can be averaged, and this is {peft_type} {' '.join(more)}".rstrip() + ".",
            remedy="Merge it into its base first (`into_base`), and average the full checkpoints.",
        )
    out = {}
    for path, module in model.named_modules():
        if isinstance(module, LoraLayer):
            layer: Any = module
            if name not in layer.lora_A:
                raise SettingsError(f"the adapter of {path} is not of two plain factors.")
            down, up = layer.lora_A[name].weight, layer.lora_B[name].weight
            if down.dim() != 2:
                raise SettingsError(f"the adapter of {path} is not of two matrices.")
            out[path] = _Low(down, up, float(layer.scaling[name]))
    return out


@torch.no_grad()
def _average_adapters(models: Sequence[Any], weights: Sequence[float], space: str) -> Any:
    """A LoRA on a copy of the first one's base: side by side (exact), or factor by factor (as the paper's code)."""
    parts = [_low_rank(m) for m in models]
    _check_keys([{n: (low.up.shape[0], low.down.shape[1]) for n, low in part.items()} for part in parts])
    join = _beside if space == "delta" else _by_factor
    joined = {name: join([part[name] for part in parts], weights) for name in parts[0]}
    rank = max(low.down.shape[0] for low in joined.values())
    out = _fresh(models[0], rank)
    layers = dict(out.named_modules())
    for name, low in joined.items():
        down, up = layers[name].lora_A["default"].weight, layers[name].lora_B["default"].weight
        down.zero_()
        up.zero_()  # a layer of a lower rank than others leaves the rest at zero
        down[: low.down.shape[0]] = low.down
        up[:, : low.up.shape[1]] = low.scale * low.up
    return out


def _beside(lows: Sequence[_Low], weights: Sequence[float]) -> _Low:
    """sum_i w_i s_i B_i A_i as one product: [w_1 s_1 B_1, w_2 s_2 B_2, ...] [A_1; A_2; ...]."""
    down = torch.cat([low.down.to(lows[0].down) for low in lows], dim=0)
    up = torch.cat([(w * low.scale) * low.up.to(lows[0].up) for low, w in zip(lows, weights, strict=True)], dim=1)
    return _Low(down, up, 1.0)


def _by_factor(lows: Sequence[_Low], weights: Sequence[float]) -> _Low:
    if len({(low.down.shape[0], low.scale) for low in lows}) > 1:
        raise SettingsError(
            'space="factors" needs adapters of one rank and one alpha.', remedy='Use space="delta", which is exact.'
        )
    down, up = _sum([low.down for low in lows], weights), _sum([low.up for low in lows], weights)
    return _Low(down, up, lows[0].scale)


def _fresh(model: Any, rank: int) -> Any:
    """A LoRA of that rank and of scale 1, on a copy of the model's base and on the same layers."""
    from peft import get_peft_model

    config = copy.deepcopy(model.peft_config[model.active_adapter])
    config.r, config.lora_alpha, config.use_rslora = rank, rank, False
    config.rank_pattern, config.alpha_pattern, config.init_lora_weights = {}, {}, True
    config.inference_mode = False
    base = copy.deepcopy(model).unload()
    if hasattr(base, "peft_config"):
        del base.peft_config  # else peft takes it for a model that is adapted already
    return get_peft_model(base, config)


def _into_base(model: Any) -> Any:
    """The full fp32 model that adapter and base make together."""
    if not hasattr(model, "merge_and_unload"):
        raise SettingsError("into_base merges an adapter into its base, and these are full checkpoints.")
    merged = model.float().merge_and_unload()
    if hasattr(merged, "peft_config"):
        del merged.peft_config
    return merged.requires_grad_(True)
