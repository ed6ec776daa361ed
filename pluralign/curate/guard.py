"""A local generative safety classifier of the Llama Guard kind, through transformers.

Its chat template holds the instruction and the categories; it is given a conversation and answers `safe`, or `unsafe`
and the categories of the last turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import SettingsError
from ..records import Message, Messages
from .verdicts import Classifier, Verdict, parse_verdict

__all__ = ["guard_model", "load_guard"]

ANSWER = 48  # tokens: "unsafe" and every category


def load_guard(name: str, *, device: str | None = None, batch: int = 8) -> Classifier:
    """The classifier in a folder or under a hub name, in the type it was saved in. Raises SettingsError."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        model: Any = AutoModelForCausalLM.from_pretrained(name, dtype="auto", use_safetensors=True)
    except (OSError, ValueError) as error:
        raise SettingsError(
            f'cannot load the safety classifier "{name}": {str(error).strip().splitlines()[0]}',
            remedy="Give a folder with config.json and safetensors weights, a hub name while online, or a URL.",
        ) from None
    return guard_model(model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")), tokenizer, batch=batch)


def guard_model(model: Any, tokenizer: Any, *, batch: int = 8) -> Classifier:
    """A causal model and its tokenizer as a classifier: greedy decoding, the answer parsed strictly.

    Turns of the system and of tools are left out: such templates know a user and an agent. What the template refuses,
    what holds its control tokens, and what is longer than the model reads has no verdict; nothing is cut. Raises
    SettingsError where the tokenizer has no chat template, or one that does not print the conversation.
    """
    write = _writer(tokenizer)
    config = getattr(model.config, "text_config", model.config)
    limit = int(getattr(config, "max_position_embeddings", None) or 1 << 30) - ANSWER

    def classify(conversations: Sequence[Messages]) -> list[Verdict]:
        out: list[Verdict] = [Verdict(None)] * len(conversations)
        ready: list[tuple[int, list[int]]] = []
        for number, turns in enumerate(conversations):
            ids = write(turns)
            if isinstance(ids, str):
                out[number] = Verdict(None, answer=ids)
            elif len(ids) > limit:
                out[number] = Verdict(
                    None, answer=f"not asked: {len(ids):,} tokens, and the classifier reads {limit:,}"
                )
            else:
                ready.append((number, ids))
        ready.sort(key=lambda pair: len(pair[1]))  # little padding
        for start in range(0, len(ready), batch):
            part = ready[start : start + batch]
            for (number, _), answer in zip(part, _answers(model, tokenizer, [ids for _, ids in part]), strict=True):
                out[number] = parse_verdict(answer)
        return out

    return classify


def _writer(tokenizer: Any) -> Any:
    """A function from a conversation to ids, or to the reason why there are none. Some templates want the content of a
    turn as text, some as a list of typed parts: the one that prints it is taken."""
    if not getattr(tokenizer, "chat_template", None):
        raise SettingsError("the safety classifier has no chat template, and that is where its instruction stands.")

    def as_text(turn: Message) -> Any:
        return turn.content

    def as_parts(turn: Message) -> Any:
        return [{"type": "text", "text": turn.content}]

    probe = (Message("user", "Qz7Kv"), Message("assistant", "Wj4Xp"))
    for content in (as_text, as_parts):
        try:
            printed = tokenizer.apply_chat_template(_rows(probe, content), tokenize=False, add_generation_prompt=True)
        except Exception:  # whatever a template raises
            continue
        if printed.count("Qz7Kv") == 1 and printed.count("Wj4Xp") == 1 and "'type'" not in printed:
            break
    else:
        raise SettingsError("the chat template of the safety classifier does not print the conversation it is given.")

    controls = [str(t) for t in tokenizer.added_tokens_decoder.values() if t.special]

    def write(turns: Messages) -> list[int] | str:
        rows = _rows(turns, content)
        if not rows:
            return "not asked: no turn of a user or an assistant"
        found = next((c for c in controls for t in turns if c in t.content), None)
        if found:  # it could end the conversation, and answer in the classifier's place
            return f"not asked: the text holds the classifier's control token {found}"
        try:
            text = tokenizer.apply_chat_template(rows, tokenize=False, add_generation_prompt=True)
        except Exception as error:
            return f"not asked: the template refuses it ({' '.join(str(error).split())[:100]})"
        return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    return write


def _rows(turns: Messages, content: Any) -> list[dict[str, Any]]:
    return [{"role": t.role, "content": content(t)} for t in turns if t.role in ("user", "assistant") and t.content]


def _answers(model: Any, tokenizer: Any, prompts: list[list[int]]) -> list[str]:
    """Greedy continuations of left-padded prompts."""
    import torch

    longest = max(map(len, prompts))
    pad = next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)
    ids = torch.tensor([[pad] * (longest - len(p)) + p for p in prompts], device=model.device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    with torch.inference_mode():
        out = model.eval().generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=ANSWER, do_sample=False, temperature=None, top_p=None,
            top_k=None, pad_token_id=pad,
        )  # fmt: skip
    return list(tokenizer.batch_decode(out[:, longest:], skip_special_tokens=True))
