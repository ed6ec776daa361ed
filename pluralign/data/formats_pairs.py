"""Pairs: a chosen and a rejected response to one prompt, in the layouts people publish them in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import RecordError
from ..records import Messages, Preference
from .fields import Row, conversation, named, need, number, pair_common, text, with_system
from .format_types import Format, Options, Skip
from .transcripts import is_transcript, read_transcript, split_prefix


def _has(row: Row, *names: str) -> bool:
    return all(row.get(name) is not None for name in names)


def _turns(value: Any) -> bool:
    return isinstance(value, list | tuple | Mapping)


# --- prompt, chosen, rejected -------------------------------------------------------------------------------------


def pair(row: Row, _: Options) -> Iterator[Preference]:
    """prompt, chosen, rejected: each as text or as messages.

    Where chosen and rejected are whole conversations (they begin with a system or user turn) the prompt is the
    turns they share; a `prompt` column, if there is one, must be among those turns. `messages` repeats chosen in
    several public sets and is left out then.
    """
    chosen = conversation(need(row, "chosen"), "chosen", role="assistant")
    rejected = conversation(need(row, "rejected"), "rejected", role="assistant")
    given = row.get("prompt")
    prompt = () if given is None else conversation(given, "prompt", role="user")
    if chosen and rejected and (_whole(chosen) or _whole(rejected)):
        if not (_whole(chosen) and _whole(rejected)):
            raise RecordError('one of "chosen" and "rejected" repeats the prompt and the other does not.')
        prompt = _shared(prompt, (chosen, rejected))
        chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
    elif given is None:
        raise RecordError('no field "prompt", and "chosen" and "rejected" are no conversations that hold one.')
    elif _is_turns(row) and chosen and rejected:
        prompt, (chosen, rejected) = split_prefix((prompt + chosen, prompt + rejected), at_least=len(prompt))
    used = {"prompt", "chosen", "rejected", *(("messages",) if row.get("messages") == row["chosen"] else ())}
    yield Preference(prompt=with_system(row, prompt), chosen=chosen, rejected=rejected, **pair_common(row, used))


def _is_turns(row: Row) -> bool:
    return _turns(row["chosen"]) or _turns(row["rejected"])


def _whole(turns: Messages) -> bool:
    return turns[0].role in ("system", "user")


def _shared(prompt: Messages, conversations: tuple[Messages, ...]) -> Messages:
    shared, _ = split_prefix(conversations)
    if prompt:
        said = prompt[-1].content.strip()
        if all(said != turn.content.strip() for turn in shared):
            raise RecordError('"prompt" is not among the turns that "chosen" and "rejected" share.')
    return shared


_FRUIT = "Name a fruit."
PAIR = Format(
    name="pair",
    title="prompt/chosen/rejected",
    describe="prompt, chosen and rejected as text",
    needs=("prompt", "chosen", "rejected"),
    recognise=lambda row: all(isinstance(row.get(n), str) for n in ("prompt", "chosen", "rejected")),
    read=pair,
    example=({"prompt": _FRUIT, "chosen": "An apple.", "rejected": "A carrot."},),
)


def _conversational(row: Row) -> bool:
    return _has(row, "chosen", "rejected") and (
        (_turns(row["chosen"]) and _turns(row["rejected"])) or _turns(row.get("prompt"))
    )


def _said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


CONVERSATION_PAIR = Format(
    name="conversation_pair",
    title="conversational pairs",
    describe="chosen and rejected as messages, with the prompt beside them or as the turns they share",
    needs=("chosen", "rejected"),
    recognise=_conversational,
    read=pair,
    example=(
        {
            "chosen": [_said("user", _FRUIT), _said("assistant", "An apple.")],
            "rejected": [_said("user", _FRUIT), _said("assistant", "A carrot.")],
        },
        {
            "prompt": [_said("user", _FRUIT)],
            "chosen": [_said("assistant", "An apple.")],
            "rejected": [_said("assistant", "A carrot.")],
        },
    ),
)


# --- ShareGPT -----------------------------------------------------------------------------------------------------


def sharegpt_pair(row: Row, _: Options) -> Iterator[Preference]:
    """conversations ({from, value} turns) with a chosen and a rejected last turn."""
    prompt = conversation(need(row, "conversations"), "conversations", role="user")
    yield Preference(
        prompt=with_system(row, prompt),
        chosen=conversation(need(row, "chosen"), "chosen", role="assistant"),
        rejected=conversation(need(row, "rejected"), "rejected", role="assistant"),
        **pair_common(row, {"conversations", "chosen", "rejected"}),
    )


SHAREGPT_PAIR = Format(
    name="sharegpt_pair",
    title="ShareGPT pairs",
    describe="conversations of {from, value} turns, with chosen and rejected turns",
    needs=("conversations", "chosen", "rejected"),
    recognise=lambda row: _turns(row.get("conversations")) and _has(row, "chosen", "rejected"),
    read=sharegpt_pair,
    example=(
        {
            "conversations": [{"from": "human", "value": _FRUIT}],
            "chosen": {"from": "gpt", "value": "An apple."},
            "rejected": {"from": "gpt", "value": "A carrot."},
        },
    ),
)


# --- HH-RLHF ------------------------------------------------------------------------------------------------------


def hh(row: Row, _: Options) -> Iterator[Preference]:
    """Anthropic HH: two transcripts that share all but the last turn, or a transcript as prompt and two endings."""
    chosen, rejected = (text(need(row, name), name) for name in ("chosen", "rejected"))
    given = row.get("prompt")
    if given is None:
        conversations = (read_transcript(chosen), read_transcript(rejected))
    else:
        opening = text(given, "prompt").rstrip()
        if not opening.endswith("Assistant:"):
            raise RecordError('the transcript in "prompt" does not end with "Assistant:".')
        conversations = (read_transcript(f"{opening} {chosen}"), read_transcript(f"{opening} {rejected}"))
    prompt, (first, second) = split_prefix(conversations)
    used = ("prompt", "chosen", "rejected")
    yield Preference(prompt=with_system(row, prompt), chosen=first, rejected=second, **pair_common(row, used))


def _is_hh(row: Row) -> bool:
    if not (isinstance(row.get("chosen"), str) and isinstance(row.get("rejected"), str)):
        return False
    prompt = row.get("prompt")
    if prompt is None:
        return is_transcript(row["chosen"]) or is_transcript(row["rejected"])
    return isinstance(prompt, str) and is_transcript(prompt) and prompt.rstrip().endswith("Assistant:")


HH = Format(
    name="hh",
    title="HH-RLHF transcripts",
    describe='chosen and rejected as transcripts ("\\n\\nHuman: … \\n\\nAssistant: …")',
    needs=("chosen", "rejected"),
    recognise=_is_hh,
    read=hh,
    example=(
        {
            "chosen": f"\n\nHuman: {_FRUIT}\n\nAssistant: An apple.",
            "rejected": f"\n\nHuman: {_FRUIT}\n\nAssistant: A carrot.",
        },
    ),
)


# --- question, pos_answer, neg_answer -----------------------------------------------------------------------------


def answers(row: Row, _: Options) -> Iterator[Preference]:
    """question, pos_answer, neg_answer: text, or objects with an `answer` and perhaps a `score`."""
    texts, scores = [], []
    for name in ("pos_answer", "neg_answer"):
        value = need(row, name)
        if isinstance(value, Mapping):
            score = value.get("score")
            scores.append(None if score is None else number(score, f"{name}.score"))
            value = need(value, "answer")
        texts.append(text(value, name))
    known = pair_common(row, {"question", "pos_answer", "neg_answer"})
    if len(scores) == 2 and scores[0] is not None and scores[1] is not None:
        known["attributes"] = {**known["attributes"], "score": (scores[0], scores[1])}
        known["margin"] = scores[0] - scores[1] if known["margin"] is None else known["margin"]
    details = {
        name: {k: v for k, v in row[name].items() if k not in ("answer", "score")}
        for name in ("pos_answer", "neg_answer")
        if isinstance(row[name], Mapping)
    }
    if any(details.values()):
        known["meta"] = {**known.get("meta", {}), **details}
    yield Preference(
        prompt=with_system(row, conversation(need(row, "question"), "question", role="user")),
        chosen=conversation(texts[0], "pos_answer", role="assistant"),
        rejected=conversation(texts[1], "neg_answer", role="assistant"),
        **known,
    )


ANSWERS = Format(
    name="answers",
    title="question/pos_answer/neg_answer",
    describe="a question with a positive and a negative answer, each as text or {answer, score}",
    needs=("question", "pos_answer", "neg_answer"),
    recognise=lambda row: _has(row, "question", "pos_answer", "neg_answer"),
    read=answers,
    example=({"question": _FRUIT, "pos_answer": "An apple.", "neg_answer": "A carrot."},),
)


# --- PKU-SafeRLHF -------------------------------------------------------------------------------------------------

_PKU = {"better": "better_response_id", "safer": "safer_response_id"}


def pku(row: Row, options: Options) -> Iterator[Preference]:
    """response_0, response_1 and the id of the better (default) or the safer one (`by="safer"`)."""
    column = _PKU[options.by or "better"]
    if options.by is None and column not in row:
        column = _PKU["safer"]
    index = number(need(row, column), column)
    if index not in (0, 1):
        raise RecordError(f'expected 0 or 1 in "{column}", found {row[column]!r}.')
    best, other = f"response_{int(index)}", f"response_{1 - int(index)}"
    yield Preference(
        prompt=with_system(row, conversation(need(row, "prompt"), "prompt", role="user")),
        chosen=conversation(need(row, best), best, role="assistant"),
        rejected=conversation(need(row, other), other, role="assistant"),
        **pair_common(row, {"prompt", "response_0", "response_1"}),
    )


PKU = Format(
    name="pku",
    title="PKU-SafeRLHF pairs",
    describe="response_0 and response_1 with better_response_id or safer_response_id (`by`: better, safer)",
    needs=("prompt", "response_0", "response_1", "better_response_id"),
    recognise=lambda row: (
        _has(row, "response_0", "response_1") and any(row.get(column) is not None for column in _PKU.values())
    ),
    read=pku,
    orders=tuple(_PKU),
    example=({"prompt": _FRUIT, "response_0": "A carrot.", "response_1": "An apple.", "better_response_id": 1},),
)


# --- one response per group (DSP) ---------------------------------------------------------------------------------


def groups(row: Row, options: Options) -> Iterator[Preference | Skip]:
    """query and responses {group: text}: the chosen group's response is preferred to every other group's."""
    responses = need(row, "responses")
    if not isinstance(responses, Mapping):
        raise RecordError(f'expected {{group: response}} in "responses", found {named(responses)}.')
    if len(responses) < 2:
        raise RecordError('"responses" needs the responses of at least two groups.')
    prompt = with_system(row, conversation(need(row, "query"), "query", role="user"))
    said = {str(g): conversation(r, f"responses.{g}", role="assistant") for g, r in responses.items()}
    known = pair_common(row, {"query", "responses", "group"})
    wanted = list(said) if options.group == "all" else [str(options.group)]
    for group in wanted:
        if group not in said:
            raise RecordError(f'no response of the group "{group}" (groups found: {", ".join(said)}).')
        for other, response in said.items():
            if other != group and response == said[group]:
                yield Skip("same text for both groups")
            elif other != group:
                meta = {**known.get("meta", {}), "rejected_group": other}
                yield Preference(
                    prompt=prompt, chosen=said[group], rejected=response, **{**known, "meta": meta, "group": group}
                )


def _group_names(row: Row) -> tuple[str, ...]:
    responses = row.get("responses")
    return tuple(map(str, responses)) if isinstance(responses, Mapping) else ()


GROUPS = Format(
    name="groups",
    title="one response per group",
    describe="query and responses {group: text}; needs `group`, the group whose response is preferred (or all)",
    needs=("query", "responses"),
    recognise=lambda row: _has(row, "query") and isinstance(row.get("responses"), Mapping),
    read=groups,
    groups=_group_names,
    example=({"query": "Describe rain.", "responses": {"poet": "Silver threads.", "chemist": "H2O, falling."}},),
)

PAIRS = (HH, SHAREGPT_PAIR, ANSWERS, PKU, GROUPS, PAIR, CONVERSATION_PAIR)
