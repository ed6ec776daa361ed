"""Log-probs of given answers, each prompt computed once for all of them.

    chat    the question is a user turn, an answer the assistant's turn, as the model was trained to be shown them; the
            end of turn does not count
    plain   "Q: ...\\nA:" and " ..." after it, behind `primer` (the text of a file), as base models are asked

Shapes: N items, O options of an item. Readings are nats, summed over an answer's tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import RenderError, SettingsError
from ...records import Message, Messages
from .core import Choice, Row, Task
from .kept import digest_of, keep

if TYPE_CHECKING:
    from ...policy import Policy
    from ...scoring.layout import Scored

__all__ = ["FORMS", "LETTERS", "graded", "lettered", "option_log_probs", "primer_of", "sequences", "settings_for"]

FORMS = ("chat", "plain")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def graded(task: Task, grade: Callable[[Choice, Sequence[float], Sequence[int]], Row]) -> Iterator[Row]:
    """A row for each item: its id, category, log-probs and lengths, and what `grade` makes of them. An item that cannot
    be rendered has no log-probs and the reason."""
    settings = task.settings
    form, primer = str(settings["form"]), primer_of(settings.get("primer", ""))
    policy = task.system.policy
    keys = [digest_of([task.system.key, form, primer, [m.as_dict() for m in c.prompt], c.options]) for c in task.items]
    read = keep(
        task.path("readings.jsonl"),
        keys,
        lambda part: option_log_probs(policy, [task.items[i] for i in part], form=form, primer=primer),
        progress=task.count("questions"),
    )
    for item, found in zip(task.items, read, strict=True):
        row: Row = {"system": task.system.name, "id": item.id, "category": item.category, "cluster": item.cluster}
        if "failed" in found:
            yield {**row, "failed": found["failed"]}
            continue
        sums, lengths = found["log_probs"], found["tokens"]
        yield {**row, "log_probs": sums, "tokens": lengths, **grade(item, sums, lengths)}


def option_log_probs(
    policy: Policy, items: Sequence[Choice], *, form: str = "chat", primer: str = "", layout: str = "auto",
    token_budget: int = 8192,
) -> list[dict[str, Any]]:  # fmt: skip
    """{"log_probs": nats of every option, "tokens": their lengths} for each item, or {"failed": why}.

    All options of an item are read in one pass that computes their prompt once (layout "trie").
    """
    found = sequences(policy, items, form=form, primer=primer)
    flat: list[Scored] = []
    groups: list[list[int]] = []
    for one in found:
        if isinstance(one, str):
            continue
        groups.append(list(range(len(flat), len(flat) + len(one))))
        flat += one
    readings = policy.score(flat, groups=groups, layout=layout, token_budget=token_budget) if flat else []
    at = iter(groups)
    out: list[dict[str, Any]] = []
    for one in found:
        if isinstance(one, str):
            out.append({"failed": one})
            continue
        own = [readings[i] for i in next(at)]
        out.append({"log_probs": [float(r.sum[0]) for r in own], "tokens": [int(r.length[0]) for r in own]})
    return out


def sequences(
    policy: Policy, items: Sequence[Choice], *, form: str = "chat", primer: str = ""
) -> list[list[Scored] | str]:
    """The sequences of every item's options, or why it cannot be rendered. Raises SettingsError for an unknown form."""
    if form not in FORMS:
        raise SettingsError(f'the form of a question is "{form}"; known: {", ".join(FORMS)}.')
    if form == "chat" and primer:
        raise SettingsError("a primer belongs to form=plain.")
    return _chat(policy, items) if form == "chat" else [_plain(policy, item, primer) for item in items]


def _chat(policy: Policy, items: Sequence[Choice]) -> list[list[Scored] | str]:
    from ...render.renderer import Renderer
    from ...scoring.layout import Scored
    from ...terms import Term

    # The end of turn is no part of an answer, and what were truncated would be another question: as at inference,
    # there is room for as much as the model has positions.
    room = _positions(policy) or policy.renderer.max_length
    renderer = Renderer(policy.tokenizer, **{**policy.rendering, "eos": False, "max_length": room})
    rows = [
        ([Term(str(i), (item.prompt,), (Message("assistant", o),)) for i, o in enumerate(item.options)], (), item.id)
        for item in items
    ]
    out: list[list[Scored] | str] = []
    for rendered in renderer.try_batch(rows):
        if isinstance(rendered, RenderError):
            out.append(rendered.reason)
        elif any(one.cut_context or one.cut_target for one in rendered):
            out.append(f"it does not fit into {room:,} tokens")
        else:
            out.append([Scored(one.context, one.target, one.scored) for one in rendered])
    return out


def _plain(policy: Policy, item: Choice, primer: str) -> list[Scored] | str:
    from ...scoring.layout import Scored

    encode = policy.tokenizer.encode
    context_text = f"{primer}{question_text(item.prompt)}\nA:"
    context = encode(context_text)
    limit = _positions(policy)
    out = []
    for option in item.options:
        whole = encode(f"{context_text} {option}")
        if whole[: len(context)] != context:  # the tokenizer merges across the boundary
            whole = context + encode(f" {option}", add_special_tokens=False)
        if len(whole) == len(context):
            return "an option has no token of its own"
        if limit is not None and len(whole) > limit:
            return f"it does not fit into the model's {limit:,} positions"
        out.append(Scored(context, whole[len(context) :]))
    return out


def _positions(policy: Policy) -> int | None:
    """How many tokens the model has positions for, where it says so."""
    from ...scoring.forward import text_config

    return getattr(text_config(policy.model), "max_position_embeddings", None)


def question_text(prompt: Messages) -> str:
    """`Q: ...`, the turns of a prompt as plain text."""
    return "Q: " + "\n".join(turn.content for turn in prompt)


def primer_of(name: Any) -> str:
    """The text of a file that stands before a plain question, with a blank line after it; none for an empty name."""
    if not name:
        return ""
    path = Path(str(name))
    if not path.is_file():
        raise SettingsError(f"primer={name}: no such file.", remedy="Name a text file of questions and answers.")
    try:
        return path.read_text("utf-8").rstrip() + "\n\n"
    except UnicodeDecodeError:
        raise SettingsError(f"primer={name}: the text is not UTF-8.") from None


def lettered(question: str, options: Sequence[str], ask: str) -> Messages:
    """A user turn with the question, its options behind letters, and what is asked for."""
    lines = [question, *(f"{LETTERS[i]}. {option}" for i, option in enumerate(options)), ask]
    return (Message("user", "\n".join(lines)),)


def settings_for(form: str = "chat") -> Mapping[str, Mapping[str, Any]]:
    """Named settings of a benchmark of given answers."""
    return {"default": {"form": form, "primer": ""}, "plain": {"form": "plain"}}
