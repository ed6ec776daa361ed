"""Text from a policy: the same context ids as in training, the same stop tokens, and samples that do not depend on
what else is in the batch.

Every prompt has its own stream of random numbers, drawn from the seed and the prompt's place in the list; a token is
picked by walking the cumulative distribution to one of them. So a batch of prompts gives what they give one by one
(up to rounding of the model's own arithmetic), and the same seed gives the same text.

Rows of a batch have options of their own. A batch is written in stretches of transformers' generate(): a stretch ends
once a row has its full length, or half of the rows are done, and the next goes on with the others and their cache.

Shapes: B rows, T tokens.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from ..errors import SettingsError
from ..scoring.forward import autocast, text_config, unwrap
from .begin import begin, contexts
from .caches import cache_of, taken_as
from .draw import Draw
from .padding import pad_id
from .places import Places
from .reader import Reader
from .requests import Answer, Finish, Options, Place, Prompt, Request

if TYPE_CHECKING:
    from ..policy import Policy

__all__ = ["answer", "generate"]


def generate(
    policy: Policy,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int = 256,
    temperature: float = 0.7,
    top_p: float = 0.9,
    seed: int = 0,
    attributes: Mapping[str, float] | None = None,
    intent: str | None = None,
    batch_size: int = 16,
    stream: Callable[[str], None] | None = None,
    progress: Callable[[int], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> list[str]:
    """One response a prompt, in order: text without control tokens, stripped of blanks at both ends.

    A prompt is text (one user turn) or a list of messages. One that does not fit into the model's positions beside
    `max_new_tokens` loses its beginning (BOS stays), and `warn` says so. `attributes` steer a policy that was trained
    with scores; those left out are sensed where it has a head; `intent` stands instead of
    one that is inferred. `stream` is handed the text of a single prompt piece by
    piece; `progress` how many responses are done.
    Raises SettingsError for an option that cannot be.
    """
    options: dict[str, Any] = {
        "max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p, "seed": seed,
    }  # fmt: skip
    Options(**options).check()
    if stream is not None and len(prompts) != 1:
        raise SettingsError(f"only one response can be streamed at a time, not {len(prompts)}.")
    options |= {"attributes": attributes or {}, "intent": intent}
    requests = [Request(p, **options, place=i) for i, p in enumerate(prompts)]
    on_text = (lambda _, piece: stream(piece)) if stream else None
    answers = answer(policy, requests, batch_size=batch_size, on_text=on_text, progress=progress, warn=warn)
    return [a.text for a in answers]


def answer(
    policy: Policy,
    requests: Sequence[Request],
    *,
    batch_size: int = 16,
    on_text: Callable[[int, str], None] | None = None,
    on_answer: Callable[[int, Answer], None] | None = None,
    cancelled: Callable[[int], bool] | None = None,
    progress: Callable[[int], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> list[Answer]:
    """The answers to requests with options of their own, in order; what shares a batch changes none of them.

    By the number of the request: `on_text` is handed every piece of a text as it is written, `on_answer` an answer as
    soon as it is whole, and `cancelled` is asked at every token whether to end it there. `progress` hears how many
    more are done, `warn` of prompts that lose their beginning.
    Raises SettingsError for a request that cannot be met, before anything is written.
    """
    if batch_size < 1:
        raise SettingsError(f"batch_size must be at least 1, not {batch_size}.")
    for request in requests:
        request.check()
    lengths = _measure(policy, requests, warn or _to_stderr)
    out: list[Answer | None] = [None] * len(requests)
    order = sorted(range(len(requests)), key=lambda i: lengths[i])  # like lengths together: little padding
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        rows = [Row(i, requests[i], lengths[i]) for i in batch]
        _write(policy, rows, _Watch(on_text, on_answer, cancelled))
        for row in rows:
            out[row.number] = row.answer
        if progress:
            progress(len(batch))
    return [a for a in out if a is not None]


def _to_stderr(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)


def _measure(policy: Policy, requests: Sequence[Request], warn: Callable[[str], None]) -> list[int]:
    """The length of every context, in tokens; `warn` hears of those that had to be cut."""
    shown, before = contexts(policy, requests)
    long = [i for i, ids in enumerate(shown) if len(ids) < before[i]]
    if long:
        longest = max(before[i] for i in long)
        which = (
            f"the prompt ({longest:,} tokens)"
            if len(requests) == 1
            else f"{len(long)} of {len(requests)} prompts (the longest has {longest:,} tokens)"
        )
        limit = text_config(policy.model).max_position_embeddings
        new = max(requests[i].max_new_tokens for i in long)
        warn(
            f"{which} cannot fit into the model's {limit:,} positions beside {new} new tokens; "
            "the beginning is left out."
        )
    return [len(ids) for ids in shown]


# Rows


@dataclass(frozen=True, slots=True)
class _Watch:
    """Who looks on, by the number of the request."""

    on_text: Callable[[int, str], None] | None = None
    on_answer: Callable[[int, Answer], None] | None = None
    cancelled: Callable[[int], bool] | None = None


@dataclass(slots=True)
class Row:
    """A request on its way to its answer. `number` is its place in the caller's list."""

    number: int
    request: Request
    prompt_tokens: int
    attributes: dict[str, float] = field(default_factory=dict)
    sensed: tuple[str, ...] = ()
    intent: str = ""
    intent_share: float | None = None
    reader: Reader | None = None
    places: list[Place] = field(default_factory=list)
    answer: Answer | None = None

    @property
    def left(self) -> int:
        """How many tokens it may still have."""
        assert self.reader is not None
        return self.request.max_new_tokens - len(self.reader.ids)

    def add(self, token: int, watch: _Watch) -> None:
        """One more token of it."""
        assert self.reader is not None
        ended = self.reader.add(token)
        if ended:
            self.end("stop", watch)
        elif self.left == 0:
            self.end("length", watch)
        elif watch.cancelled and watch.cancelled(self.number):
            self.end("cancelled", watch)

    def end(self, finish: Finish, watch: _Watch) -> None:
        text, tokens, places = "", 0, self.places
        if self.reader:
            text, tokens = self.reader.end(), len(self.reader.ids)
            if places and self.reader.ids[-1] in self.reader.stop_ids:
                places = places[:-1]
        self.answer = Answer(
            text, finish, self.prompt_tokens, tokens, self.attributes, self.sensed, self.intent, self.intent_share,
            tuple(places),
        )  # fmt: skip
        if watch.on_answer:
            watch.on_answer(self.number, self.answer)


# Writing


@torch.no_grad()
def _write(policy: Policy, rows: Sequence[Row], watch: _Watch) -> None:
    """Answer the rows of a batch."""
    for row in rows:
        if watch.cancelled and watch.cancelled(row.number):
            row.end("cancelled", watch)
    live = [row for row in rows if row.answer is None]
    if not live:
        return
    core = unwrap(policy.model)  # adapters sit inside its layers
    core.eval()
    precision = policy.precision if policy.device.type != "cpu" else "fp32"
    with autocast(precision, policy.device):
        begun = begin(policy, [row.request for row in live])
        ids, mask, cache = begun.ids, begun.mask, begun.cache
        for i, row in enumerate(live):
            row.prompt_tokens = int(mask[i].sum())
            row.attributes, row.sensed = begun.attributes[i], begun.sensed[i]
            row.intent, row.intent_share = begun.intents[i] if begun.intents else ("", None)
            row.reader = Reader(policy, _teller(row, watch), row.request.stop)
        drawn = any(row.request.temperature for row in live)
        draw = Draw([row.request for row in live], ids.shape[1], ids.device) if drawn else None
        while True:
            written = _stretch(policy, core, live, watch, ids, mask, cache, draw)
            going = [n for n, row in enumerate(live) if row.answer is None]
            if not going:
                return
            keep = torch.tensor(going, device=ids.device)
            live = [live[n] for n in going]
            new = written.sequences.shape[1] - ids.shape[1]
            ids = written.sequences[keep]
            mask = torch.cat([mask[keep], mask.new_ones(len(live), new)], dim=1)
            cache = _rows_of(cache_of(written), keep)
            if draw:
                draw.keep(keep)


def _teller(row: Row, watch: _Watch) -> Callable[[str], None] | None:
    on_text = watch.on_text
    return (lambda piece: on_text(row.number, piece)) if on_text and row.request.stream else None


def _stretch(
    policy: Policy,
    core: Any,
    live: Sequence[Row],
    watch: _Watch,
    ids: Tensor,
    mask: Tensor,
    cache: Any | None,
    draw: Draw | None,
) -> Any:
    """generate() until the first of the rows has its full length, or half of them are done.

    No row is carried on beyond its own length, done or not: the model may have no positions there.
    """
    own = GenerationConfig(
        max_new_tokens=min(row.left for row in live),
        do_sample=False,  # `Draw` has already chosen
        eos_token_id=list(policy.renderer.stop_ids),
        pad_token_id=pad_id(policy),
        use_cache=True,
        return_dict_in_generate=True,
    )
    seen = None
    if any(row.request.logprobs is not None for row in live):
        seen = Places([row.request for row in live], lambda token: str(policy.tokenizer.decode([token])))
    with _settings(core, own):
        return core.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=own,
            logits_processor=LogitsProcessorList([look for look in (seen, draw) if look is not None]),
            stopping_criteria=StoppingCriteriaList([_Rows(live, watch, seen)]),
            **({} if cache is None else {str(taken_as(core)): cache}),
        )


def _rows_of(cache: Any | None, keep: Tensor) -> Any | None:
    """The cache of some rows; None where this kind cannot be split, so that the next stretch reads its text anew."""
    layers = getattr(cache, "layers", None)
    if cache is None or not layers or not all(hasattr(layer, "batch_select_indices") for layer in layers):
        return None
    cache.batch_select_indices(keep)
    return cache


@contextlib.contextmanager
def _settings(model: Any, own: GenerationConfig) -> Iterator[None]:
    """Ours instead of the checkpoint's: generate() would fill whatever we leave open from there."""
    before = model.generation_config
    model.generation_config = own
    try:
        yield
    finally:
        model.generation_config = before


class _Rows(StoppingCriteria):
    """Hands every new token to its row; a stretch ends when half of its rows are done."""

    def __init__(self, rows: Sequence[Row], watch: _Watch, seen: Places | None) -> None:
        self.rows, self.watch, self.seen, self.over = rows, watch, seen, False

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        if not self.over:  # some devices run one step more than was asked for, and take it back
            for n, (row, token) in enumerate(zip(self.rows, input_ids[:, -1].tolist(), strict=True)):
                if row.answer is not None:
                    continue
                if self.seen is not None and row.request.logprobs is not None:
                    row.places.append(self.seen.of(n, token))
                row.add(token, self.watch)
        done = [row.answer is not None for row in self.rows]
        self.over = self.over or 2 * sum(done) >= len(done)
        return torch.tensor([self.over or d for d in done], dtype=torch.bool, device=input_ids.device)
