"""What scores responses: local reward models of any number of outputs, and measures of the text.

A reward model is a sequence classifier of transformers. How it reads a conversation:

    chat      through its chat template, the response as the last turn
    hh        as a transcript, the way HH-RLHF has it ("\\n\\nHuman: ...\\n\\nAssistant: ...")
    pair      as two texts, the prompt and the response, which the tokenizer joins with its separator
    response  the response alone, for classifiers of single texts
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

from ..errors import SettingsError
from ..records import Messages
from .filters import chosen_of
from .measured import MEASURES, check_measures, measure
from .score import Asked, Scored, Scorer
from .texts import said

__all__ = ["Layout", "load_reward_models", "measures", "model_digest", "parse_scorer", "reward_model"]

Layout = Literal["auto", "chat", "hh", "pair", "response"]
Write = Callable[[Messages, Messages], tuple[dict[str, list[int]], str]]  # model inputs and a note
HH = {"user": "Human", "assistant": "Assistant"}


def measures(names: Sequence[str]) -> Scorer:
    """The measured attributes of those names (see `measured.MEASURES`). Raises SettingsError for an unknown one."""
    known = check_measures(names)

    def score(asked: Sequence[Asked]) -> list[Scored]:
        found = [measure(known, said(response)) for _, response in asked]
        return [Scored(tuple(values.get(name) for name in known)) for values in found]

    return Scorer(known, score, title="measured: " + "; ".join(f"{name} ({MEASURES[name][0]})" for name in known))


def parse_scorer(text: str) -> tuple[str, str, int | None]:
    """(name, model, index) of NAME=MODEL or NAME=MODEL:INDEX. Raises SettingsError for anything else."""
    name, _, model = text.partition("=")
    head, colon, tail = model.rpartition(":")
    index = None
    if colon and tail.isdecimal():
        model, index = head, int(tail)
    if not name.strip() or not model.strip():
        raise SettingsError(
            f'"{text}" names no scorer.', remedy="For example: helpful=org/reward-model, or safe=org/classifier:1"
        )
    return name.strip(), model.strip(), index


def load_reward_models(
    specs: Sequence[str], *, layout: Layout = "auto", device: str | None = None, batch: int = 16, dtype: str = "auto"
) -> list[Scorer]:
    """A scorer for each model in NAME=MODEL[:INDEX]; several names with one model share its pass.

    Models are folders or hub names, read in the type they were saved in, or in `dtype`. Raises SettingsError for a
    model that cannot be loaded, that has no trained head, or whose output has to be named.
    """
    asked: dict[str, dict[str, int | None]] = {}
    for spec in specs:
        name, model, index = parse_scorer(spec)
        if any(name in names for names in asked.values()):
            raise SettingsError(f'two scorers are named "{name}".', remedy="Give each attribute a name of its own.")
        asked.setdefault(model, {})[name] = index
    return [_load(model, names, layout, device, batch, dtype) for model, names in asked.items()]


def _load(name: str, outputs: Mapping[str, int | None], layout: Layout, device: str | None, batch: int,
          dtype: str) -> Scorer:  # fmt: skip
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        model, info = AutoModelForSequenceClassification.from_pretrained(
            name, dtype=dtype, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:  # a head of another size than the configuration says
        raise SettingsError(
            f'cannot load the reward model "{name}": {str(error).strip().splitlines()[0]}',
            remedy="Give a folder with config.json and safetensors weights, or a hub name while online.",
        ) from None
    if info["missing_keys"]:
        absent = ", ".join(sorted(info["missing_keys"])[:3])
        raise SettingsError(
            f'"{name}" has no trained classification head ({absent} would be random).',
            remedy="Give a sequence classifier, such as a reward model.",
        )
    key = model_digest(model, tokenizer)
    model = model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return reward_model(model, tokenizer, outputs, layout=layout, batch=batch, title=name, key=key)


def reward_model(
    model: Any,
    tokenizer: Any,
    outputs: Mapping[str, int | None],
    *,
    layout: Layout = "auto",
    batch: int = 16,
    title: str = "",
    key: str | None = None,
) -> Scorer:
    """A sequence classifier and its tokenizer as a scorer: {attribute: which of its outputs}, as they come (logits).

    What is longer than the model reads loses the beginning of its prompt; a response that is itself too long loses its
    own. Both are noted. layout="auto" is "chat" for tokenizers with a chat template, "pair" for those with a separator,
    else "hh". `key` names the model in stored scores (default: a digest of its weights).

    Raises SettingsError where a model of several outputs is given no index, or one it does not have.
    """
    chosen_of(layout, get_args(Layout), "layout of a reward model's input")
    indices = [_index(title or "the reward model", model, name, index) for name, index in outputs.items()]
    how = _layout(tokenizer) if layout == "auto" else layout
    limit = _limit(model, tokenizer)
    write = _writer(tokenizer, how, limit)

    def score(asked: Sequence[Asked]) -> list[Scored]:
        written = [write(prompt, response) for prompt, response in asked]
        order = sorted(range(len(written)), key=lambda i: len(written[i][0]["input_ids"]))  # little padding
        out: list[Scored] = [Scored(())] * len(written)
        for start in range(0, len(order), batch):
            part = order[start : start + batch]
            for i, logits in zip(part, _logits(model, [written[i][0] for i in part]), strict=True):
                out[i] = Scored(tuple(logits[k] for k in indices), written[i][1])
        return out

    whole = model_digest(model, tokenizer) if key is None else key
    stated = json.dumps([whole, how, limit, indices, tokenizer.chat_template if how == "chat" else ""])
    return Scorer(tuple(outputs), score, key=f"reward model {stated}", title=f"{title or 'a reward model'} ({how})")


def _index(title: str, model: Any, name: str, index: int | None) -> int:
    n = int(model.config.num_labels)
    labels = ", ".join(f"{i} {label}" for i, label in sorted(model.config.id2label.items()))
    if index is None and n > 1:
        raise SettingsError(
            f'"{title}" has {n} outputs ({labels}), and "{name}" does not say which.', remedy=f"{name}={title}:INDEX"
        )
    if index is not None and index >= n:
        raise SettingsError(f'"{title}" has no output {index} for "{name}": it has {n} ({labels}).')
    return index or 0


def _layout(tokenizer: Any) -> str:
    if getattr(tokenizer, "chat_template", None):
        return "chat"
    return "pair" if tokenizer.sep_token is not None else "hh"


def _limit(model: Any, tokenizer: Any) -> int:
    """Tokens that the model reads."""
    config = model.config.get_text_config()
    room = int(getattr(config, "max_position_embeddings", None) or 1 << 30)
    if "roberta" in config.model_type:  # its positions begin after that of the padding token
        room -= config.pad_token_id + 1
    return min(room, int(min(tokenizer.model_max_length, 1 << 30)))


# How a conversation is written


def _writer(tokenizer: Any, how: str, limit: int) -> Write:
    if how == "pair":
        return lambda prompt, response: _as_pair(tokenizer, prompt, response, limit)

    def write(prompt: Messages, response: Messages) -> tuple[dict[str, list[int]], str]:
        if how == "chat":
            try:
                rows = [turn.as_dict() for turn in (*prompt, *response)]
                text = tokenizer.apply_chat_template(rows, tokenize=False)
            except Exception as error:  # whatever a template raises
                why = " ".join(str(error).split())[:100]
                raise SettingsError(
                    f"the reward model's chat template refuses a conversation: {why}", remedy="Take another layout."
                ) from None
            ids = list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
        else:
            text = said(response) if how == "response" else transcript((*prompt, *response))
            ids = list(tokenizer(text, verbose=False)["input_ids"])
        if len(ids) <= limit:
            return {"input_ids": ids}, ""
        opening = ids[:1] if ids[0] in (tokenizer.bos_token_id, tokenizer.cls_token_id) else []
        own = len(tokenizer(said(response), add_special_tokens=False, verbose=False)["input_ids"])
        return {"input_ids": opening + ids[len(opening) - limit :]}, _cut(own > limit)

    return write


def transcript(turns: Messages) -> str:
    """The conversation as HH-RLHF writes one; what the system says comes first, without a name."""
    return "".join(f"\n\n{HH[t.role]}: {t.content}" if t.role in HH else f"\n\n{t.content}" for t in turns)


def _as_pair(tokenizer: Any, prompt: Messages, response: Messages, limit: int) -> tuple[dict[str, list[int]], str]:
    texts = (prompt[0].content if len(prompt) == 1 else transcript(prompt).strip(), said(response))
    sizes = [len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]) for text in texts]
    over = sum(sizes) + tokenizer.num_special_tokens_to_add(pair=True) - limit
    long = over >= sizes[0]  # the response leaves the prompt no room
    before, tokenizer.truncation_side = tokenizer.truncation_side, "left"
    try:
        made = tokenizer(*texts, truncation="longest_first" if long else "only_first", max_length=limit, verbose=False)
    finally:
        tokenizer.truncation_side = before
    inputs = {name: list(made[name]) for name in ("input_ids", "token_type_ids") if name in made}
    return inputs, _cut(long) if over > 0 else ""


def _cut(response: bool) -> str:
    return "response cut to what the model reads" if response else "prompt cut to what the model reads"


# The pass


def _logits(model: Any, rows: Sequence[Mapping[str, list[int]]]) -> list[list[float]]:
    """The outputs of right-padded rows, in fp32."""
    import torch

    config = model.config.get_text_config()
    given = config.pad_token_id
    # Decoders find the last token as the last that is no padding. Where the model was trained without padding, one
    # that no row has is taken, so that a row's own end is never mistaken for it.
    pad = given if given is not None else _unused(rows, config.vocab_size)
    if pad is None and len(rows) > 1:
        return [_logits(model, [row])[0] for row in rows]
    longest = max(len(row["input_ids"]) for row in rows)
    inputs = {}
    for name in rows[0]:
        filler = (pad or 0) if name == "input_ids" else 0
        inputs[name] = torch.tensor([row[name] + [filler] * (longest - len(row[name])) for row in rows])
    lengths = torch.tensor([[len(row["input_ids"])] for row in rows])
    inputs["attention_mask"] = (torch.arange(longest)[None] < lengths).long()
    config.pad_token_id = pad
    try:
        with torch.inference_mode():
            found = model.eval()(**{name: value.to(model.device) for name, value in inputs.items()}).logits
    finally:
        config.pad_token_id = given
    return [list(map(float, row)) for row in found.float().cpu()]


def _unused(rows: Sequence[Mapping[str, list[int]]], vocabulary: int) -> int | None:
    used = {i for row in rows for i in row["input_ids"]}
    return next((i for i in range(vocabulary) if i not in used), None)


def model_digest(model: Any, tokenizer: Any) -> str:
    """A hex digest of what a classifier computes: its configuration, every weight, and the tokenizer."""
    import torch

    out = hashlib.blake2b(digest_size=16)
    config = {k: v for k, v in model.config.to_dict().items() if k not in ("_name_or_path", "transformers_version")}
    out.update(json.dumps(config, sort_keys=True, default=str).encode())
    for name, weight in sorted(model.state_dict().items()):
        out.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        out.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    out.update((backend.to_str() if backend is not None else repr(sorted(tokenizer.get_vocab().items()))).encode())
    return out.hexdigest()
