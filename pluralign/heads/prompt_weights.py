"""Weights of objectives for a prompt: targets from scores, the adapter that predicts them, and its loss.

The arithmetic of the preference orchestrator (`orchestrator`), which is a RECONSTRUCTION: of the paper (arXiv
2511.10656) only the abstract was at hand, and every choice below is this project's.

Shapes: N prompts, D hidden, K objectives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ..errors import PluralignError, RecordError, SettingsError, nearest
from ..records import Demonstration, Labelled, Preference, Ranked, Record

__all__ = [
    "MODES",
    "Mode",
    "Normaliser",
    "Options",
    "Rows",
    "adapter",
    "constant_weights",
    "fit_adapter",
    "fit_normaliser",
    "pro_loss",
    "scores_of",
    "target_weights",
]

Mode = Literal["zscore", "min-max", "advantage"]
MODES: tuple[str, ...] = get_args(Mode)
Rows = tuple[Tensor, Tensor, Tensor]  # states (N, D), targets (N, K), known (N, K)


# Targets


@dataclass(frozen=True, slots=True)
class Normaliser:
    """z = (r - shift) / scale for each objective; in "advantage" r is the score over that of the rejected response."""

    mode: Mode
    shift: tuple[float, ...]
    scale: tuple[float, ...]

    def __call__(self, chosen: Tensor, rejected: Tensor | None = None) -> Tensor:
        """(N, K) scores of preferred (and rejected) responses to z (N, K); NaN stays NaN."""
        raw = _raw(self.mode, chosen, rejected)
        return (raw - raw.new_tensor(self.shift)) / raw.new_tensor(self.scale)


def fit_normaliser(
    chosen: Tensor, rejected: Tensor | None = None, *, mode: Mode = "zscore", names: Sequence[str] = ()
) -> Normaliser:
    """Shift and scale from the training set, `chosen` and `rejected` (N, K) with NaN for missing scores.

    "zscore": mean and standard deviation; "min-max": the least score and the range; "advantage": no shift, the root of
    the mean squared difference of the two scores (so that zero keeps its meaning and no reward model's unit wins).
    Raises SettingsError for a mode that does not exist and for an objective that never varies.
    """
    if mode not in MODES:
        raise SettingsError(f'unknown normalisation "{mode}".{nearest(mode, MODES)}')
    raw = _raw(mode, chosen, rejected)
    shift, scale = [], []
    for k, column in enumerate(raw.T):
        known = column[~column.isnan()]
        name = names[k] if k < len(names) else f"objective {k + 1}"
        low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
        spread = {
            "zscore": lambda x: float(x.std(correction=0)),
            "min-max": lambda x: float(x.max() - x.min()),
            "advantage": lambda x: float(x.square().mean().sqrt()),
        }[mode]
        if not high > low:
            what = "the preferred responses" if mode != "advantage" else "preferred against rejected responses"
            raise SettingsError(f'"{name}" never varies over {what} ({len(known):,} scores).', remedy="Leave it out.")
        shift.append({"zscore": float(known.mean()), "min-max": low, "advantage": 0.0}[mode])
        scale.append(spread(known))
    return Normaliser(mode, tuple(shift), tuple(scale))


def _raw(mode: str, chosen: Tensor, rejected: Tensor | None) -> Tensor:
    chosen = torch.as_tensor(chosen, dtype=torch.float64)
    if mode != "advantage":
        return chosen
    if rejected is None:
        raise SettingsError('"advantage" needs the scores of rejected responses.', remedy="Give pairs, or use zscore.")
    return chosen - torch.as_tensor(rejected, dtype=torch.float64)


def target_weights(z: Tensor, tau: float = 1.0) -> Tensor:
    """w* = softmax(z / tau) over the known objectives, (N, K); zero where z is NaN, and a row of zeros where all are.

    z = (1, -.5, .2), tau 1: (.597922, .133414, .268664). Raises SettingsError unless tau is positive.
    """
    if not 0 < tau < math.inf:
        raise SettingsError(f"tau must be above 0 and finite, not {tau}.")
    known = ~z.isnan()
    logits = torch.where(known, z, torch.zeros_like(z)).double() / tau
    return torch.where(known.any(-1, keepdim=True), _masked_log_softmax(logits, known).exp(), 0.0)


def _masked_log_softmax(logits: Tensor, known: Tensor) -> Tensor:
    """log softmax over the known entries; about -inf elsewhere, finite so that gradients are zero and not NaN."""
    floor = torch.finfo(logits.dtype).min / 4
    return logits.masked_fill(~known, floor).log_softmax(-1)


def scores_of(records: Iterable[Record], names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """(preferred, rejected) scores of the named attributes, (N, K) fp64 each, NaN where missing.

    A pair's chosen and rejected responses; of a ranking the best and the worst; a demonstration or a thumb up has a
    preferred response alone, a thumb down a rejected one alone.
    """
    sides = [_sides(record, names) for record in records]
    shape = (len(sides), len(names))
    chosen, rejected = (torch.tensor([s[i] for s in sides], dtype=torch.float64).reshape(shape) for i in (0, 1))
    return chosen, rejected


def _sides(record: Record, names: Sequence[str]) -> tuple[list[float], list[float]]:
    nothing = [math.nan] * len(names)

    def number(value: float | None) -> float:
        return math.nan if value is None else float(value)

    if isinstance(record, Preference):
        pairs = [record.attributes.get(name, (None, None)) for name in names]
        return [number(p[0]) for p in pairs], [number(p[1]) for p in pairs]
    if isinstance(record, Ranked):
        order = sorted(range(len(record.scores)), key=record.scores.__getitem__)
        lists = [record.attributes.get(name, (None,) * len(order)) for name in names]
        return [number(v[order[-1]]) for v in lists], [number(v[order[0]]) for v in lists]
    if isinstance(record, Demonstration | Labelled):
        own = [number(record.attributes.get(name)) for name in names]
        return (nothing, own) if isinstance(record, Labelled) and not record.label else (own, nothing)
    raise RecordError(f"a {type(record).__name__.lower()} record has no preferred response.", where=record.where)


# The adapter and its loss


def adapter(width: int, objectives: int, hidden: int = 256, *, start: Tensor | None = None, seed: int = 0) -> Any:
    """LayerNorm -> Linear(D, 256) -> GELU -> Linear(256, K): states (N, D) to logits (N, K), softmax outside.

    It begins at the constant weights `start` (K,), default uniform, whatever the prompt: what has learned nothing is
    then no worse than constant weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, objectives)
        ).float()
    last: Any = made[-1]
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    if start is not None:
        with torch.no_grad():
            last.bias.copy_(torch.as_tensor(start).clamp_min(1e-4).log())
    return made


def pro_loss(logits: Tensor, targets: Tensor, *, known: Tensor | None = None, eta: float = 0.0) -> Tensor:
    """KL(w* || w) + eta KL(w || uniform) of each row, (N,), nats; w = softmax(logits).

    Where an objective is not `known`, w is renormalised over those that are: a missing score says nothing about what a
    prompt needs. The second part is over all K. (0.597922, 0.133414, 0.268664) against uniform: 0.169265.
    """
    known = torch.ones_like(targets, dtype=torch.bool) if known is None else known
    logp = _masked_log_softmax(logits, known)
    target = targets.to(logp.dtype)
    kl = (torch.xlogy(target, target) - torch.where(known, target * logp, torch.zeros_like(logp))).sum(-1)
    if eta:
        full = logits.log_softmax(-1)
        kl = kl + eta * ((full.exp() * full).sum(-1) + math.log(logits.shape[-1]))
    return kl


def constant_weights(targets: Tensor, known: Tensor | None = None, *, rounds: int = 200) -> Tensor:
    """The one c (K,) with the least mean KL(w* || c): the mean target; with missing scores, where c is renormalised
    over what is known, the fixed point of c_k = sum_i w*_ik / sum_{i: k known} 1 / sum_{j known} c_j (Hunter 2004)."""
    w = targets.double()
    if known is None or bool(known.all()):
        return w.mean(0)
    seen = known.double()
    c = torch.full_like(w[0], 1 / w.shape[1])
    for _ in range(rounds):
        c = w.sum(0) / (seen / (seen @ c).unsqueeze(1).clamp_min(1e-12)).sum(0).clamp_min(1e-12)
        c = c / c.sum()
    return c


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How an adapter is fitted. `patience`: epochs without a lower validation KL after which it stops."""

    tau: float = 1.0
    eta: float = 0.0
    hidden: int = 256
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    batch_size: int = 64
    epochs: int = 3
    patience: int = 2
    seed: int = 0

    def check(self) -> Options:
        """Itself. Raises SettingsError for a value that cannot be."""
        for name in ("tau", "learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise SettingsError(f"{name} must be above 0 and finite, not {getattr(self, name)}.")
        for name in ("hidden", "batch_size", "epochs", "patience"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} must be at least 1, not {getattr(self, name)}.")
        for name in ("eta", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SettingsError(f"{name} must be 0 or more, not {getattr(self, name)}.")
        return self


def fit_adapter(
    train: Rows,
    validation: Rows,
    options: Options | None = None,
    *,
    progress: Callable[[int, float], None] | None = None,
) -> tuple[Any, Tensor, list[dict[str, float]]]:
    """(adapter, constant weights (K,), history by epoch): the adapter of the epoch with the lowest validation KL.

    `history[0]` is the untrained adapter, which says the constant weights. The same rows and seed give the same
    adapter. `progress(epoch, validation KL)`. Raises SettingsError for options that cannot be, PluralignError for a
    loss that is not finite.
    """
    options = (options or Options()).check()
    states, targets, known = train
    constant = constant_weights(targets, known)
    module = adapter(states.shape[1], targets.shape[1], options.hidden, start=constant, seed=options.seed)
    module.to(states.device)
    optimiser = torch.optim.AdamW(module.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay)
    shuffle = torch.Generator().manual_seed(options.seed)
    history = [{"epoch": 0.0, "validation": _mean_kl(module, validation)}]
    best, kept = history[0]["validation"], _copy(module)
    since = 0
    for epoch in range(1, options.epochs + 1):
        total = 0.0
        for at in torch.randperm(len(states), generator=shuffle).split(options.batch_size):
            loss = pro_loss(module(states[at].float()), targets[at], known=known[at], eta=options.eta).mean()
            if not loss.isfinite():
                raise PluralignError("the orchestrator's loss is not finite.", remedy="Lower the learning rate.")
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += float(loss.detach()) * len(at)
        history.append({"epoch": epoch, "train": total / len(states), "validation": _mean_kl(module, validation)})
        if progress:
            progress(epoch, history[-1]["validation"])
        if history[-1]["validation"] < best:
            best, kept, since = history[-1]["validation"], _copy(module), 0
        elif (since := since + 1) >= options.patience:
            break
    module.load_state_dict(kept)
    return module.eval(), constant, history


@torch.no_grad()
def _mean_kl(module: nn.Module, rows: Rows) -> float:
    states, targets, known = rows
    return float(pro_loss(module(states.float()), targets, known=known).mean())


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}
