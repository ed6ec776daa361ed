"""The preference orchestrator (PRO): from a prompt to weights of objectives, so that nobody has to give them.

A RECONSTRUCTION. Of the paper (arXiv 2511.10656) only the abstract was at hand: the normalisation, the temperature,
the adapter and its training are choices of this project. It is not Preference Ranking Optimization (2023), also "PRO".

A preferred response is taken to reveal what mattered for its prompt: the target is w*(x) = softmax(z / tau), z the
normalised scores of that response under K objectives. A small adapter on the policy's frozen state of the prompt learns
w(x) by KL(w* || w). One response is a noisy witness, so what was learned is compared with the same weights for every
prompt (`judging.attributes.judge_weights`), on prompts that were not trained on.

Judge responses made with the weights by other scores than those the targets came from: else the judge has been fitted.

Shapes: N prompts, D hidden, K objectives.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..data import prompt_hash
from ..errors import RecordError, SettingsError, nearest
from ..records import Demonstration, Labelled, Messages, Preference, Ranked, Record, messages
from ..scoring.forward import text_config, unwrap
from ..scoring.layout import Scored
from .prompt_weights import (
    Mode,
    Normaliser,
    Options,
    adapter,
    fit_adapter,
    fit_normaliser,
    scores_of,
    target_weights,
)

if TYPE_CHECKING:
    from ..policy import Policy

__all__ = [
    "FILES",
    "STATUS",
    "Fitted",
    "Orchestrator",
    "features",
    "fit_orchestrator",
    "load_orchestrator",
    "save_orchestrator",
    "scalarise",
    "with_weights",
]

FILES = ("orchestrator.safetensors", "orchestrator.json")
STATUS = "reconstruction: of arXiv 2511.10656 only the abstract was known, every choice is this project's"
PROBE = "What matters most to you in an answer?"  # its state tells whether the policy is the one that was fitted on
DRIFT = 0.05  # relative distance of the probe's state: bf16 moves it by about a hundredth, other weights by far more
Prompt = str | Messages | Sequence[Mapping[str, Any]] | Record


# Prompts


def features(
    policy: Policy,
    prompts: Sequence[Prompt],
    *,
    cache: MutableMapping[tuple[int, ...], Tensor] | None = None,
    token_budget: int = 8192,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """The policy's last hidden state at the last token of each prompt as it is shown at inference, (N, D) fp32, on the
    CPU and without gradient. `policy` is left as it is.

    Equal prompts are read once; `cache` keeps states by token ids between calls, for as long as the weights stay. A
    prompt beyond the model's positions loses its beginning (BOS stays). `progress` is told how many were read.
    """
    ids = [_ids(policy, prompt) for prompt in prompts]
    memory = {} if cache is None else cache
    new = sorted({i for i in ids if i not in memory}, key=len)  # like lengths together: little padding
    sequences = [Scored(i[:-1], i[-1:]) for i in new]
    was_training = policy.model.training
    read = policy.score(sequences, reads=("last_hidden",), token_budget=token_budget, progress=progress)
    policy.model.train(was_training)
    for key, reading in zip(new, read, strict=True):
        assert reading.last_hidden is not None, "asked for"
        memory[key] = reading.last_hidden[0].float()
    return torch.stack([memory[i] for i in ids]) if ids else torch.zeros(0, _width(policy))


def _ids(policy: Policy, prompt: Prompt) -> tuple[int, ...]:
    turns, tools = (prompt.prompt, prompt.tools) if isinstance(prompt, Record) else (messages(prompt), ())
    ids = policy.renderer.prompt(turns, tools)
    limit = getattr(text_config(unwrap(policy.model)), "max_position_embeddings", None)
    if limit and len(ids) > limit:
        ids = [ids[0], *ids[len(ids) - limit + 1 :]] if ids[0] == policy.renderer.encoder.bos_id else ids[-limit:]
    if len(ids) < 2:
        raise SettingsError("a prompt of fewer than two tokens has no context to be read in.", remedy="Give it a text.")
    return tuple(ids)


def _width(policy: Policy) -> int:
    return int(text_config(unwrap(policy.model)).hidden_size)


# The orchestrator


@dataclass(frozen=True)
class Orchestrator:
    """w(x): the adapter, the policy whose states it reads, and what it was fitted with.

    `names` is the order of the objectives; `constant` (K,) the same weights for every prompt; `probe` (D,) the state of
    one fixed prompt, which tells another policy from the right one; `facts` what else is known about the fit.
    """

    names: tuple[str, ...]
    adapter: Any
    normaliser: Normaliser
    constant: Tensor
    probe: Tensor
    policy: str = ""
    options: Options = field(default_factory=Options)
    facts: Mapping[str, Any] = field(default_factory=dict)

    @torch.no_grad()
    def weights(self, states: Tensor) -> Tensor:
        """States (N, D) to weights (N, K), fp64; each row adds up to one. Raises SettingsError for another D."""
        width = len(self.probe)
        if states.shape[-1] != width:
            raise SettingsError(f"the orchestrator reads states of {width} numbers, the policy has {states.shape[-1]}.")
        return self.adapter(states.float()).double().softmax(-1)

    def weights_for(self, policy: Policy, prompts: Sequence[Prompt], **options: Any) -> Tensor:
        """Prompts to weights (N, K) in the order of `names`; `options` as in `features`.

        Raises SettingsError where the policy's states are not those that the adapter was fitted on.
        """
        states = features(policy, [PROBE, *prompts], **options)
        if states.shape[1] == len(self.probe):
            moved = float((states[0] - self.probe).norm() / self.probe.norm())
            if not moved < DRIFT:
                raise SettingsError(
                    f'the orchestrator was fitted on other weights than those of "{policy.name}" '
                    f"(a fixed prompt's state differs by {100 * moved:.0f} %).",
                    remedy=f'Use it with "{self.policy}", or fit it anew.' if self.policy else "Fit it anew.",
                )
        return self.weights(states[1:])

    def named(self, weights: Tensor) -> list[dict[str, float]]:
        """Weights (N, K) as mappings: for prompts, soups and preference vectors, whose order may be another."""
        return [dict(zip(self.names, row, strict=True)) for row in weights.tolist()]


def scalarise(weights: Tensor, z: Tensor) -> Tensor:
    """r(x, y) = sum_k w_k z_k, (N,), for weights and normalised scores (N, K); w gets no gradient.

    Objectives whose score is NaN are dropped and the weights renormalised. Raises SettingsError for a row without any.
    """
    known = ~z.isnan()
    w = torch.where(known, weights.detach(), torch.zeros_like(weights))
    total = w.sum(-1)
    if not bool((total > 0).all()):
        raise SettingsError("a response has no score on any objective that carries weight: it has no reward.")
    return (w * torch.where(known, z, torch.zeros_like(z))).sum(-1) / total


def with_weights(
    orchestrator: Orchestrator,
    policy: Policy,
    records: Iterable[Record],
    *,
    as_attributes: bool = False,
    batch: int = 1024,
    **options: Any,
) -> Iterator[Record]:
    """The same records with `meta["weights"] = {objective: w_k(x)}`, in order; `options` as in `features`.

    `as_attributes` makes every w_k(x) an attribute `{objective}_weight` of each response besides, so that a policy can
    be trained with the weights in its context. Raises SettingsError where a record has an attribute of that name.
    """
    waiting: list[Record] = []

    def done() -> Iterator[Record]:
        found = orchestrator.named(orchestrator.weights_for(policy, waiting, **options)) if waiting else []
        for record, weights in zip(waiting, found, strict=True):
            record = replace(record, meta={**record.meta, "weights": weights})
            yield _weighted(record, weights) if as_attributes else record

    for record in records:
        waiting.append(record)
        if len(waiting) == batch:
            yield from done()
            waiting = []
    yield from done()


def _weighted(record: Record, weights: Mapping[str, float]) -> Record:
    """Weights are of the prompt: every response of the record has them."""
    own: Mapping[str, Any] = getattr(record, "attributes", {})
    new = {f"{name}_weight": w for name, w in weights.items()}
    if taken := sorted(set(new) & set(own)):
        raise SettingsError(f'a record has an attribute "{taken[0]}" already.', remedy="It was weighted before.")
    if isinstance(record, Demonstration | Labelled):
        return replace(record, attributes={**own, **new})
    if isinstance(record, Preference):
        return replace(record, attributes={**own, **{name: (w, w) for name, w in new.items()}})
    if isinstance(record, Ranked):
        return replace(record, attributes={**own, **{name: (w,) * len(record.responses) for name, w in new.items()}})
    raise RecordError(f"a {type(record).__name__.lower()} record has no attributes.", where=record.where)


# Fitting


@dataclass(frozen=True)
class Fitted:
    """An orchestrator and what it says of the held-out rows: `targets`, `predicted`, `known` (N, K), and `clusters`,
    the first user turn of each row. `history` by epoch; `left_out`: why records were not used, and how many."""

    orchestrator: Orchestrator
    targets: Tensor
    predicted: Tensor
    known: Tensor
    clusters: list[Hashable]
    history: list[dict[str, float]]
    left_out: dict[str, int]


def fit_orchestrator(
    policy: Policy,
    records: Iterable[Record],
    names: Sequence[str],
    *,
    mode: Mode = "zscore",
    options: Options | None = None,
    validation: float = 0.1,
    held_out: float = 0.1,
    token_budget: int = 8192,
    progress: Callable[[str, int], None] | None = None,
) -> Fitted:
    """Fit w(x) on the attributes `names` of preferred responses; `policy` is only read.

    Records are split by their first user turn: `held_out` of the prompts are for the report alone, `validation` of them
    decide when to stop, the rest trains; scores are normalised by what trains. `progress` is told of newly read
    "prompts", and of each "epoch" by its number.
    Raises SettingsError for names that no record has, for options that cannot be, and where a part would be empty.
    """
    options = (options or Options()).check()
    names = tuple(names)
    if not names or len(set(names)) != len(names):
        raise SettingsError(f"name each objective once, and at least one (given: {', '.join(names) or 'none'}).")
    rows, left_out = _usable(records, names, needs_rejected=mode == "advantage")
    test, stop, train = _parts(rows, held_out, validation, options.seed)
    preferred, rejected = scores_of(rows, names)
    other = rejected if mode == "advantage" else None
    normaliser = fit_normaliser(preferred[train], None if other is None else other[train], mode=mode, names=names)
    z = normaliser(preferred, other)
    known, targets = ~z.isnan(), target_weights(z, options.tau)
    count = (lambda n: progress("prompts", n)) if progress else None
    read = features(policy, [PROBE, *rows], token_budget=token_budget, progress=count)
    probe, states = read[0], read[1:]
    module, constant, history = fit_adapter(
        (states[train], targets[train], known[train]),
        (states[stop], targets[stop], known[stop]),
        options,
        progress=(lambda epoch, _: progress("epoch", epoch)) if progress else None,
    )
    sizes = {"train": train, "validation": stop, "held_out": test}
    facts = {"rows": {name: int(part.sum()) for name, part in sizes.items()}, "history": history}
    made = Orchestrator(names, module, normaliser, constant, probe, policy.name, options, facts)
    clusters: list[Hashable] = [_first_turn(r) for r, is_test in zip(rows, test.tolist(), strict=True) if is_test]
    return Fitted(made, targets[test], made.weights(states[test]), known[test], clusters, history, left_out)


def _parts(rows: Sequence[Record], held_out: float, validation: float, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """(held out, for validation, to train on), (N,) each; no first user turn lies in two of them."""
    if not (0 < validation < 1 and 0 < held_out < 1 and validation + held_out < 1):
        raise SettingsError(
            f"validation {validation:g} and held_out {held_out:g} must be shares above 0 that leave some to train on."
        )
    places = torch.tensor([prompt_hash(record, seed) for record in rows], dtype=torch.float64)
    test, train = places < held_out, places >= held_out + validation
    parts = {"held out": test, "for validation": ~test & ~train, "to train on": train}
    for what, part in parts.items():
        if not part.any():
            raise SettingsError(f"{len(rows):,} usable records: none would be {what}.", remedy="Give more prompts.")
    return parts["held out"], parts["for validation"], parts["to train on"]


def _usable(
    records: Iterable[Record], names: tuple[str, ...], *, needs_rejected: bool
) -> tuple[list[Record], dict[str, int]]:
    """Records with a score on at least one objective. Raises SettingsError where a name is nowhere."""
    rows, left_out = [], Counter[str]()
    seen, others = Counter[str](), Counter[str]()
    for record in records:
        others.update(getattr(record, "attributes", {}))
        chosen, rejected = scores_of([record], names)
        known = ~(chosen - rejected if needs_rejected else chosen)[0].isnan()
        seen.update(name for name, has in zip(names, known.tolist(), strict=True) if has)
        if known.any():
            rows.append(record)
        else:
            left_out["no score on any of the objectives"] += 1
    for name in names:
        if not seen[name]:
            have = ", ".join(others) or "none"
            raise SettingsError(f'no record has a usable score "{name}".{nearest(name, others)}',
                                remedy=f"Attributes of this data: {have}.")  # fmt: skip
    return rows, dict(left_out)


def _first_turn(record: Record) -> str:
    return next((turn for turn in record.prompt if turn.role == "user"), record.prompt[0]).content.strip()


# Files


def save_orchestrator(orchestrator: Orchestrator, folder: str | Path) -> Path:
    """`orchestrator.safetensors` and `orchestrator.json` in a folder: beside a policy, or one of its own."""
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"adapter.{name}": value for name, value in orchestrator.adapter.state_dict().items()}
    tensors |= {"probe": orchestrator.probe, "constant": orchestrator.constant}
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    save_file(tensors, folder / FILES[0])
    told = {
        "method": "pref_orchestrator",
        "status": STATUS,
        "objectives": list(orchestrator.names),
        "policy": orchestrator.policy,
        "normaliser": asdict(orchestrator.normaliser),
        "options": asdict(orchestrator.options),
        "facts": dict(orchestrator.facts),
    }
    (folder / FILES[1]).write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return folder


def load_orchestrator(folder: str | Path) -> Orchestrator:
    """The inverse of `save_orchestrator`. Raises SettingsError where the files are not there or do not fit together."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    weights, told = (Path(folder) / name for name in FILES)
    for path in (weights, told):
        if not path.is_file():
            raise SettingsError(f"there is no {path}.", remedy="Fit one: pluralign orchestrate MODEL --attributes ...")
    try:
        row = json.loads(told.read_text("utf-8"))
        tensors = load_file(weights)
        own = {k.removeprefix("adapter."): v for k, v in tensors.items() if k.startswith("adapter.")}
        names, options = tuple(row["objectives"]), Options(**row["options"]).check()
        module = adapter(len(tensors["probe"]), len(names), options.hidden)
        module.load_state_dict(own)
        stated = row["normaliser"]
        normaliser = Normaliser(stated["mode"], tuple(stated["shift"]), tuple(stated["scale"]))
        return Orchestrator(names, module.eval(), normaliser, tensors["constant"], tensors["probe"], row["policy"],
                            options, row["facts"])  # fmt: skip
    except (ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        raise SettingsError(f"{told} and {weights.name} do not make an orchestrator: {reason}") from None
