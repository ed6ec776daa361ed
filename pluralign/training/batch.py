"""From examples to one optimiser step: micro-batches under a token budget, each with its layout and given readings."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..conditioning import NO_INTENT, bare, is_conditioned, plain, slot_of
from ..errors import TrainingError
from ..heads.intent import padded
from ..scoring.constant import tokens_of
from ..scoring.forward import Readings
from ..scoring.layout import Beside, Layout, Scored, split_by_tokens, trie_tokens
from ..scoring.support import lay_out
from .examples import Example

__all__ = ["Batch", "Collator", "Given", "Micro", "by_name"]

Index = dict[str, Tensor]  # name -> (B,) number of the sequence in a layout; (B, K), -1 where there is none, for lists


@dataclass(frozen=True, slots=True)
class Given:
    """Readings that are no forward pass's of this step, or a list of responses: (B,), or (B, K) with a mask.

    `sensed` (B, K') are the scores that the sensing head reads from the prompt, the same for the whole list, `intent`
    (B, N) likewise the intention module's logits; `sim` (B, K) is each response's similarity to the intent. A list has
    `tokens` (M,) where they were asked for, `segment` (M,) the place b K + k of the response each belongs to."""

    sum: Tensor
    length: Tensor
    mask: Tensor | None = None
    sensed: Tensor | None = None
    tokens: Tensor | None = None
    segment: Tensor | None = None
    intent: Tensor | None = None
    sim: Tensor | None = None

    @property
    def mean(self) -> Tensor:
        return self.sum / self.length

    def to(self, device: Any) -> Given:
        each = (getattr(self, name) for name in self.__slots__)
        return Given(*(None if x is None else x.to(device) for x in each))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Micro:
    """One forward pass: B examples, their policy terms in one layout (example by example, term by term).

    `reference` and `mismatched` are further layouts for objectives that read the reference while they train.
    """

    layout: Layout
    index: Index
    weight: Tensor  # (B,)
    length: Tensor  # (B,) scored tokens of each example, every response once, however often it is read
    given: dict[str, Any]  # readings, and columns as plain tensors
    wheres: tuple[str, ...]
    reference: tuple[Layout, Index] | None = None
    mismatched: Layout | None = None

    def to(self, device: Any) -> Micro:
        return replace(
            self,
            layout=self.layout.to(device),
            weight=self.weight.to(device),
            length=self.length.to(device),
            given={n: g.to(device) for n, g in self.given.items()},
            reference=self.reference and (self.reference[0].to(device), self.reference[1]),
            mismatched=self.mismatched and self.mismatched.to(device),
        )


@dataclass(frozen=True, slots=True)
class Batch:
    """What one process contributes to an optimiser step."""

    micro: tuple[Micro, ...]
    examples: int
    tokens: int  # scored tokens of the responses, for per-token objectives

    def to(self, device: Any, non_blocking: bool = False) -> Batch:
        return replace(self, micro=tuple(m.to(device) for m in self.micro))


def by_name(readings: Readings, index: Index, *, tokens: bool = False) -> dict[str, Any]:
    """The readings of a pass under the names of their terms; lists as one (B, K) reading, with `tokens` if wanted."""
    out: dict[str, Any] = {}
    for name, at in index.items():
        if at.ndim == 1:
            out[name] = readings[at]
            continue
        mask = (at >= 0).to(readings.sum.device)
        safe = at.clamp(min=0).to(readings.sum.device)
        sums, lengths = readings.sum[safe].masked_fill(~mask, 0.0), readings.length[safe].masked_fill(~mask, 1)
        sensed = None if readings.sensed is None else readings.sensed[safe[:, 0]]
        each: dict[str, Tensor] = {}
        if tokens:
            own = readings[at[at >= 0]]
            each = {"tokens": own.tokens, "segment": mask.flatten().nonzero()[:, 0][own.segment]}
        if readings.intent is not None:
            each["intent"] = readings.intent[safe[:, 0]]
        if readings.sim is not None:
            each["sim"] = readings.sim[safe].masked_fill(~mask, 0.0)
        out[name] = Given(sums, lengths, mask, sensed, **each)
    return out


@dataclass
class Collator:
    """Examples -> Batch. `reference` maps reference terms to (N,) sums over the whole table, by row.

    `live` names reference terms that get a layout of their own beside the policy's. `mismatched` adds, for every
    example, its prompt with the next one's response. `dropout` is the share of examples whose conditioned terms are
    read without the other response. `noise` gives each example standard normals, drawn anew in every epoch. `intents`
    hands over what an intention module reads; `draw` picks one of each example's candidate intents by its stored share.
    """

    names: tuple[str, ...]  # policy terms
    layout: str
    token_budget: int
    reference: Mapping[str, np.ndarray]
    live: tuple[str, ...] = ()
    mismatched: bool = False
    context_gradient: bool = True
    max_length: int = 0
    dropout: float = 0.0
    seed: int = 0
    noise: bool = False
    intents: bool = False
    draw: bool = False

    def __call__(self, examples: Sequence[Example]) -> Batch:
        examples = [self.dropped(self.drawn(ex)) for ex in examples]
        partners = _rotated(examples) if self.mismatched else [None] * len(examples)
        groups = split_by_tokens([self.cost(ex) for ex in examples], self.token_budget)
        micro = tuple(self.micro([examples[i] for i in g], [partners[i] for i in g]) for g in groups)
        return Batch(micro, len(examples), sum(int(m.length.sum()) for m in micro))

    def cost(self, ex: Example) -> int:
        """Tokens one example adds to a forward pass."""
        own = self._own(ex, self.names)
        if any(s.constant for s in own):
            return tokens_of(own)
        if self.layout == "trie":
            return trie_tokens(own)
        return len(own) * max(len(s.context) + len(s.target) for s in own)

    def micro(self, examples: Sequence[Example], partners: Sequence[Scored | None] | None = None) -> Micro:
        """One forward pass over these examples."""
        laid, index = self._lay(examples, self.names, beside=self.intents)
        once = [n for n in self.names if not is_conditioned(n)] or self.names
        return Micro(
            laid,
            index,
            torch.tensor([ex.weight for ex in examples], dtype=torch.float32),
            torch.tensor([sum(map(_length, self._own(ex, once))) for ex in examples]),
            {**self._given(examples), **_columns(examples), **self._noise(examples), **_slots(examples)},
            tuple(ex.where for ex in examples),
            self._lay(examples, self.live) if self.live else None,
            self._lay_mismatched(examples, partners or ()) if self.mismatched else None,
        )

    def dropped(self, ex: Example) -> Example:
        """The example with, by chance, its conditioned terms read as plain ones; contexts constant where wanted."""
        if self.context_gradient:
            ex = replace(ex, sequences={n: replace(s, constant=None) for n, s in ex.sequences.items()})
        if not self.dropout or _draw(self.seed, ex.epoch, ex.row) >= self.dropout:
            return ex
        plain = {n: ex.sequences[bare(n)] if is_conditioned(n) else s for n, s in ex.sequences.items()}
        return replace(ex, sequences=plain)

    def drawn(self, ex: Example) -> Example:
        """The example under one of its candidate intents, whose terms then have slot 0."""
        if not self.draw:
            return ex
        shares = [v for n, v in ex.columns.items() if n.startswith("candidate_q.")]
        dice = _draw(self.seed, ex.epoch, ex.row, "intent") * sum(shares)
        slot = min(int(np.searchsorted(np.cumsum(shares), dice, side="right")), len(shares) - 1)
        kept = {_at_first(n): s for n, s in ex.sequences.items() if slot_of(n) in (None, slot)}
        return replace(ex, sequences=kept, slot=slot)

    def _intent(self, ex: Example, name: str) -> int:
        slot = slot_of(name)
        number = ex.slot if ex.slot is not None else slot
        return NO_INTENT if slot is None else int(ex.columns[f"candidates.{number}"])

    def _noise(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """The column "noise" (B, K): standard normals, one for each place of the longest list."""
        if not self.noise:
            return {}
        rows, wide = [], 1 + max(map(_place, self.names))
        for ex in examples:
            seed = int(_draw(self.seed, ex.epoch, ex.row, "noise") * 2**53)
            rows.append(torch.randn(wide, generator=torch.Generator().manual_seed(seed)))
        return {"noise": torch.stack(rows)}

    def _own(self, ex: Example, names: Sequence[str]) -> list[Scored]:
        return [ex.sequences[n] for n in names if n in ex.sequences]

    def _lay(self, examples: Sequence[Example], names: Sequence[str], *, beside: bool = False) -> tuple[Layout, Index]:
        sequences: list[Scored] = []
        owners: list[int] = []
        intents: list[int] = []
        index: Index = {}
        wide = {_stem(n): 1 + max(_place(m) for m in names if _stem(m) == _stem(n)) for n in names if "." in n}
        for name in dict.fromkeys(_stem(n) for n in names):
            shape = (len(examples), wide[name]) if name in wide else (len(examples),)
            index[name] = torch.full(shape, -1)
        for b, ex in enumerate(examples):
            for name in names:
                if name in ex.sequences:
                    at = (b, _place(name)) if "." in name else (b,)
                    index[_stem(name)][at] = len(sequences)
                    sequences.append(ex.sequences[name])
                    owners.append(b)
                    intents.append(self._intent(ex, name) if beside else NO_INTENT)
        laid = lay_out(self.layout, sequences)
        if beside:
            laid = replace(laid, beside=_beside(intents, owners, [ex.aside for ex in examples]))
        return laid, {n: _trimmed(i) for n, i in index.items()}

    def _given(self, examples: Sequence[Example]) -> dict[str, Given]:
        rows = np.array([ex.row for ex in examples])
        parts: dict[str, dict[int, tuple[Tensor, Tensor]]] = {}
        for name, column in self.reference.items():
            if self.draw and slot_of(name):
                continue  # read under slot 0, whichever intent was drawn
            found = [ex.sequences.get(name) for ex in examples]
            lengths = torch.tensor([-1 if s is None else _length(s) for s in found])
            sums = torch.from_numpy(column[rows])
            if self.draw and slot_of(name) is not None:
                own = [self.reference[_at_slot(name, ex.slot or 0)][ex.row] for ex in examples]
                sums = torch.tensor(np.array(own))
            parts.setdefault(_stem(name), {})[_place(name)] = sums, lengths
        out = {}
        for stem, each in parts.items():
            sums, lengths = (torch.stack([each[k][i] for k in sorted(each)], 1) for i in (0, 1))
            mask = lengths >= 0
            wide = "." in next(n for n in self.reference if _stem(n) == stem)
            keep = mask.any(0) if wide else slice(None)
            given = Given(sums.masked_fill(~mask, 0.0)[:, keep], lengths.clamp(min=1)[:, keep], mask[:, keep])
            out[stem] = given if wide else Given(given.sum[:, 0], given.length[:, 0])
        return out

    def _lay_mismatched(self, examples: Sequence[Example], partners: Sequence[Scored | None]) -> Layout:
        """log pi(y' | x): each prompt with another example's response (KTO's estimate of the KL)."""
        sequences = []
        for ex, other in zip(examples, partners, strict=True):
            assert other is not None, "every example has a partner"
            context = _response(ex).context
            room = max(1, self.max_length - len(context))
            scored = other.scored and other.scored[:room]
            sequences.append(Scored(context, other.target[:room], scored if scored and any(scored) else None))
        return lay_out(self.layout, sequences)


def _rotated(examples: Sequence[Example]) -> list[Scored]:
    """Each example's partner is the next one's response: the responses of the step as a whole are the same ones."""
    if len(examples) < 2:
        raise TrainingError(
            "this objective pairs each prompt with another example's response, and a step has one example.",
            remedy="Raise training.batch_size to at least 2 for each process.",
        )
    return [_response(examples[(i + 1) % len(examples)]) for i in range(len(examples))]


def _response(ex: Example) -> Scored:
    """The one response of an example; under its likeliest intent where there are several."""
    return ex.sequences["y"] if "y" in ex.sequences else ex.sequences["y@0"]


def _beside(intents: Sequence[int], owners: Sequence[int], texts: Sequence[Sequence[int]]) -> Beside:
    """What an intention module reads of a layout's sequences; `texts` are the ids of an encoder of its own, if any."""
    at, owner = torch.tensor(intents), torch.tensor(owners)
    if not any(texts):
        return Beside(at, owner)
    return Beside(at, owner, *padded(texts))


def _slots(examples: Sequence[Example]) -> dict[str, Tensor]:
    """The column "slot" (B,): which candidate intent was drawn, where one was."""
    return {} if examples[0].slot is None else {"slot": torch.tensor([ex.slot for ex in examples])}


def _columns(examples: Sequence[Example]) -> dict[str, Tensor]:
    """Columns of the data as (B,) tensors, or (B, K) for lists (0 where a list is shorter); labels are booleans."""
    out: dict[str, Tensor] = {}
    names = dict.fromkeys(n for ex in examples for n in ex.columns)
    for stem in dict.fromkeys(_stem(n) for n in names):
        own = sorted((n for n in names if _stem(n) == stem), key=_place)
        values = torch.tensor([[ex.columns.get(n, 0.0) for n in own] for ex in examples], dtype=torch.float32)
        out[stem] = values if "." in own[0] else values[:, 0]
        if stem == "label":
            out[stem] = out[stem] > 0.5
    return out


def _stem(name: str) -> str:
    """ "ys.3" is one of "ys", "ys.3@1|other" one of "ys@1|other"."""
    return plain(name).partition(".")[0] + name[len(plain(name)) :]


def _place(name: str) -> int:
    number = plain(name).partition(".")[2]
    return int(number) if number else 0


def _at_slot(name: str, slot: int) -> str:
    """The same term under another candidate intent."""
    return f"{plain(name)}@{slot}{name[len(bare(name)) :]}"


def _at_first(name: str) -> str:
    return name if slot_of(name) is None else _at_slot(name, 0)


def _trimmed(index: Tensor) -> Tensor:
    """Without the last columns that no example of the micro-batch has."""
    return index if index.ndim == 1 else index[:, : int((index >= 0).any(0).nonzero().max()) + 1]


def _length(s: Scored) -> int:
    return len(s.target) if s.scored is None else sum(s.scored)


def _draw(seed: int, epoch: int, row: int, what: str = "") -> float:
    """Uniform in [0, 1): the same for the same row and epoch, however the run is split, stopped or resumed."""
    digest = hashlib.blake2b(f"{seed}|{epoch}|{row}{what and f'|{what}'}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64
