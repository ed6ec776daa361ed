"""Text from a policy: the same context ids as in training, the same stop tokens, and samples that do not depend on
what else is in the batch.

Every prompt has its own stream of random numbers, drawn from the seed and the prompt's place in the list; a token is
picked by walking the cumulative distribution to one of them. So a batch of prompts gives what they give one by one
(up to rounding of the model's own arithmetic), and the same seed gives the same text.

Shapes: B prompts, T tokens, V vocabulary.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from ..errors import SettingsError
from ..records import Messages, messages
from ..scoring.forward import autocast, text_config, unwrap

if TYPE_CHECKING:
    from ..policy import Policy

__all__ = ["Options", "generate"]

# Templates without control tokens: the model goes on to play the other side unless it is stopped at its name.
SPEAKERS = {
    "plain": ("\n\nUser:", "\n\nAssistant:", "\n\nSystem:", "\n\nTool:"),
    "hh": ("\n\nHuman:", "\n\nAssistant:"),
}
TAIL_TOKENS = 12  # decoded at each step to see whether a speaker's name was written: more than any of them takes

Prompt = str | Messages | Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How text is drawn. `temperature` 0 takes the likeliest token; `top_p` keeps the smallest set of that mass."""

    max_new_tokens: int = 256
    temperature: float = 0.7
    top_p: float = 0.9
    seed: int = 0

    def check(self) -> Options:
        """Itself. Raises SettingsError for a value that cannot be."""
        if self.max_new_tokens < 1:
            raise SettingsError(f"max_new_tokens must be at least 1, not {self.max_new_tokens}.")
        if not 0 <= self.temperature < float("inf"):
            raise SettingsError(f"temperature must be 0 or more, not {self.temperature}.")
        if not 0 < self.top_p <= 1:
            raise SettingsError(f"top_p must be above 0 and at most 1, not {self.top_p}.")
        return self


def generate(
    policy: Policy,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int = 256,
    temperature: float = 0.7,
    top_p: float = 0.9,
    seed: int = 0,
    batch_size: int = 16,
    stream: Callable[[str], None] | None = None,
    progress: Callable[[int], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> list[str]:
    """One response a prompt, in order: text without control tokens, stripped of blanks at both ends.

    A prompt is text (one user turn) or a list of messages. One that does not fit into the model's positions beside
    `max_new_tokens` loses its beginning (BOS stays), and `warn` says so. `stream` is handed the text of a single
    prompt piece by piece; `progress` how many responses are done.
    Raises SettingsError for an option that cannot be.
    """
    options = Options(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed).check()
    if batch_size < 1:
        raise SettingsError(f"batch_size must be at least 1, not {batch_size}.")
    if stream is not None and len(prompts) != 1:
        raise SettingsError(f"only one response can be streamed at a time, not {len(prompts)}.")
    contexts = _contexts(policy, prompts, options, warn or _to_stderr)
    out = [""] * len(contexts)
    order = sorted(range(len(contexts)), key=lambda i: len(contexts[i]))  # like lengths together: little padding
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        for i, text in zip(batch, _write(policy, [contexts[i] for i in batch], batch, options, stream), strict=True):
            out[i] = text
        if progress:
            progress(len(batch))
    return out


def _to_stderr(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)


# Contexts


def _contexts(
    policy: Policy, prompts: Sequence[Prompt], options: Options, warn: Callable[[str], None]
) -> list[list[int]]:
    """What the model is shown, cut from the left to what its positions leave beside the response."""
    limit = getattr(text_config(policy.model), "max_position_embeddings", None)
    room = limit - options.max_new_tokens if limit else None
    if room is not None and room < 1:
        raise SettingsError(f"max_new_tokens={options.max_new_tokens} leaves no room: the model has {limit} positions.")
    contexts = [policy.renderer.prompt(messages(prompt)) for prompt in prompts]
    long = [i for i, ids in enumerate(contexts) if room is not None and len(ids) > room]
    if long:
        assert room is not None
        longest = max(len(contexts[i]) for i in long)
        one = len(prompts) == 1
        which = (
            f"the prompt ({longest:,} tokens)"
            if one
            else f"{len(long)} of {len(prompts)} prompts (the longest has {longest:,} tokens)"
        )
        warn(
            f"{which} cannot fit into the model's {limit:,} positions beside {options.max_new_tokens} new tokens; "
            "the beginning is left out."
        )
        bos = policy.renderer.encoder.bos_id
        for i in long:
            ids = contexts[i]
            keeps_bos = ids[0] == bos and room > 1
            contexts[i] = [ids[0], *ids[len(ids) - room + 1 :]] if keeps_bos else ids[len(ids) - room :]
    return contexts


# Writing


@torch.no_grad()
def _write(
    policy: Policy,
    contexts: Sequence[list[int]],
    places: Sequence[int],
    options: Options,
    stream: Callable[[str], None] | None,
) -> list[str]:
    """The responses to a batch of contexts; `places` are their numbers in the caller's list, which seed their draws."""
    renderer = policy.renderer
    width = max(len(ids) for ids in contexts)
    pad = policy.tokenizer.pad_token_id if policy.tokenizer.pad_token_id is not None else renderer.stop_ids[0]
    ids = torch.full((len(contexts), width), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, context in enumerate(contexts):  # padding on the left; the mask knows the structure, not the pad id
        ids[i, width - len(context) :] = torch.tensor(context, dtype=torch.long)
        mask[i, width - len(context) :] = 1
    reader = _Reader(policy, stream)
    draws = LogitsProcessorList([_Draw(options, places, width, policy.device)] if options.temperature else [])
    speakers = SPEAKERS.get(renderer.template.name, ())
    stops = StoppingCriteriaList([_NextSpeaker(policy.tokenizer, speakers, width)] if speakers else [])
    own = GenerationConfig(
        max_new_tokens=options.max_new_tokens,
        do_sample=False,  # `_Draw` has already chosen
        eos_token_id=list(renderer.stop_ids),
        pad_token_id=pad,
        use_cache=True,
    )
    core = unwrap(policy.model)  # adapters sit inside its layers
    core.eval()
    precision = policy.precision if policy.device.type != "cpu" else "fp32"
    with autocast(precision, policy.device), _settings(core, own):
        written = core.generate(
            input_ids=ids.to(policy.device),
            attention_mask=mask.to(policy.device),
            generation_config=own,
            logits_processor=draws,
            stopping_criteria=stops,
            streamer=reader if stream else None,
        )
    return [reader.text(row) for row in written[:, width:].tolist()]


@contextlib.contextmanager
def _settings(model: Any, own: GenerationConfig) -> Iterator[None]:
    """Ours instead of the checkpoint's: generate() would fill whatever we leave open from there."""
    before = model.generation_config
    model.generation_config = own
    try:
        yield
    finally:
        model.generation_config = before


class _Draw(LogitsProcessor):
    """Temperature, top-p and the draw itself, with one uniform number a row and step that no other row can change."""

    def __init__(self, options: Options, places: Sequence[int], width: int, device: torch.device) -> None:
        self.options, self.width = options, width
        rows = []
        for place in places:
            own = torch.Generator().manual_seed((options.seed * 1_000_003 + place) % 2**63)
            rows.append(torch.rand(options.max_new_tokens, generator=own, dtype=torch.float64))
        self.uniform = torch.stack(rows).to(device)  # (B, max_new_tokens)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """(B, V) scores with all but the drawn token at -inf."""
        mass = (scores.double() / self.options.temperature).softmax(-1)
        ordered, tokens = mass.sort(dim=-1, descending=True)
        cut = ordered.cumsum(-1) - ordered >= self.options.top_p  # the first token always stays
        # walked in the vocabulary's order, not by size: rounding may swap equals, and must not move the goal
        total = mass.masked_fill(cut.scatter(-1, tokens, cut), 0.0).cumsum(-1)
        goal = self.uniform[:, input_ids.shape[1] - self.width, None] * total[:, -1:]
        at = torch.searchsorted(total, goal, right=True).clamp(max=mass.shape[-1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(-1, at, 0.0)


class _NextSpeaker(StoppingCriteria):
    """Ends a row once it has begun the other side's turn."""

    def __init__(self, tokenizer: Any, speakers: Sequence[str], width: int) -> None:
        self.tokenizer, self.speakers, self.width = tokenizer, speakers, width

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        tails = self.tokenizer.batch_decode(input_ids[:, max(self.width, input_ids.shape[1] - TAIL_TOKENS) :])
        done = [any(name in tail for name in self.speakers) for tail in tails]
        return torch.tensor(done, dtype=torch.bool, device=input_ids.device)


class _Reader(BaseStreamer):
    """Token ids to the text a person reads, whole or piece by piece."""

    def __init__(self, policy: Policy, stream: Callable[[str], None] | None) -> None:
        self.tokenizer, self.stop_ids = policy.tokenizer, set(policy.renderer.stop_ids)
        self.speakers = SPEAKERS.get(policy.renderer.template.name, ())
        self.stream = stream
        self.ids: list[int] = []
        self.told, self.seen_prompt = 0, False

    def text(self, ids: Sequence[int], *, whole: bool = True) -> str:
        end = next((i for i, token in enumerate(ids) if token in self.stop_ids), len(ids))
        text: str = self.tokenizer.decode(ids[:end], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        for name in self.speakers:
            text = text.partition(name)[0]
        return text.strip() if whole else text.lstrip()

    def put(self, value: Tensor) -> None:
        if not self.seen_prompt:
            self.seen_prompt = True
            return
        self.ids += value.flatten().tolist()
        text = self.text(self.ids, whole=False)
        # hold back half a character, trailing blanks, and what may be the beginning of a speaker's name
        begun = [n for name in self.speakers for n in range(1, len(name)) if text.endswith(name[:n])]
        sure = text[: len(text) - max(begun, default=0)].rstrip("\ufffd").rstrip()
        self._tell(sure)

    def end(self) -> None:
        self._tell(self.text(self.ids))

    def _tell(self, text: str) -> None:
        assert self.stream is not None
        if len(text) > self.told:
            self.stream(text[self.told :])
            self.told = len(text)
