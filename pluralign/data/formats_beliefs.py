"""Questions with options: who holds which belief, and a pair of responses that argue for two of them (GDPO)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ..errors import RecordError
from ..records import Message, Preference
from .beliefs import option_number, shares_of, texts_of
from .fields import Row, conversation, flag, need, pair_common, text, with_system
from .format_types import Format, Options

_USED = ("context", "question", "options", "probabilities", "accept_choice_id", "accept_choice", "accept_response",
         "reject_choice_id", "reject_choice", "reject_response", "majority")  # fmt: skip


def beliefs(row: Row, _: Options) -> Iterator[Preference]:
    """context, question, options, probabilities, accept_choice_id, accept_response, reject_response.

    The prompt is the context, a blank line and the question, in one user turn (the context may be left out, or be turns
    of a conversation before the question). Options are counted from 0; `accept_choice` and `reject_choice`, their
    texts, are checked against the numbers. Lists may be JSON texts, as CSV files have them.
    """
    options = texts_of(_list(need(row, "options"), "options"))
    meta: dict[str, Any] = {
        "options": list(options),
        "probabilities": list(shares_of(_list(need(row, "probabilities"), "probabilities"), len(options))),
        "accept": _choice(row, "accept", options),
    }
    if row.get("reject_choice_id") is not None:
        meta["reject"] = _choice(row, "reject", options)
    if row.get("majority") is not None:
        meta["majority"] = flag(row["majority"], "majority")
    known = pair_common(row, set(_USED))
    known["meta"] = {**known.get("meta", {}), **meta}
    said = lambda name: (Message("assistant", text(need(row, name), name)),)
    yield Preference(
        prompt=with_system(row, _prompt(row)),
        chosen=said("accept_response"),
        rejected=said("reject_response"),
        **known,
    )


def _prompt(row: Row) -> tuple[Message, ...]:
    question = text(need(row, "question"), "question")
    context = row.get("context")
    if context is None or context == "":
        return (Message("user", question),)
    if isinstance(context, str):
        return (Message("user", f"{context.strip()}\n\n{question}"),)
    turns = conversation(context, "context", role="user")
    if turns and turns[-1].role == "user":  # two user turns in a row are no conversation to most templates
        return (*turns[:-1], Message("user", f"{turns[-1].content.strip()}\n\n{question}"))
    return (*turns, Message("user", question))


def _choice(row: Row, side: str, options: tuple[str, ...]) -> int:
    number = option_number(need(row, f"{side}_choice_id"), f"{side}_choice_id", len(options))
    said = row.get(f"{side}_choice")
    if said is not None and said != options[number]:
        raise RecordError(
            f'"{side}_choice" is not the option that "{side}_choice_id" names.', remedy="Count options from 0."
        )
    return number


def _list(value: Any, name: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise RecordError(f'"{name}" is a text and no JSON list.') from None


BELIEFS = Format(
    name="beliefs",
    title="belief distributions",
    describe="question (and context), options and probabilities; accept_choice_id, accept_response, reject_response",
    needs=("question", "options", "probabilities", "accept_choice_id", "accept_response", "reject_response"),
    recognise=lambda row: all(
        row.get(name) is not None
        for name in ("question", "options", "probabilities", "accept_response", "reject_response")
    ),
    read=beliefs,
    example=(
        {
            "context": "Two neighbours talk about their town.",
            "question": "Should shops open on Sundays?",
            "options": ["Yes", "No"],
            "probabilities": [0.7, 0.3],
            "accept_choice_id": 1,
            "accept_choice": "No",
            "accept_response": "One quiet day a week does everybody good.",
            "reject_choice_id": 0,
            "reject_choice": "Yes",
            "reject_response": "People should shop when they have the time.",
        },
    ),
)
