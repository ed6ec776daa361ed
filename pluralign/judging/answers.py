"""Answers that are kept: written to a file as they come, never written twice; and the scores that judges give them.

An answer belongs to the weights that wrote it, the prompt, the scores that were asked for, and how it was drawn: all of
them are in its key, so that a file of answers can be gone on with, and is never mistaken for another policy's.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..curate.score import Asked, Scored, Scorer, score_responses
from ..curate.scorers import model_digest
from ..curate.texts import part_key
from ..errors import RecordError, RenderError
from ..records import Demonstration, Message, Messages, messages
from ..steering import Request, answer
from .lines import appending, objects_of, read_lines
from .rating import rate

if TYPE_CHECKING:
    from ..policy import Policy

__all__ = [
    "policy_key",
    "put_in_order",
    "rating_scorer",
    "read_answers",
    "read_saved",
    "score_table",
    "spoken",
    "write_answers",
]

INTENT = ("intent", "intent_share")  # of policies that infer one, and of answers to one that was given
LACKS = "an answer has a field"
KEPT = ("key", "prompt", "response", "asked", "attributes", "sensed", "finish")


def policy_key(policy: Policy) -> str:
    """A digest of everything that a policy's answers depend on: weights, adapters, heads, rendering, score form."""
    form = policy.scores.as_dict() if policy.scores else {}
    seen = [model_digest(policy.model, policy.tokenizer), policy.renderer.key(), policy.precision, form]
    seen += [policy.intents.as_dict()] if policy.intents else []
    return hashlib.sha256(json.dumps(seen, sort_keys=True).encode()).hexdigest()[:32]


def spoken(text: str) -> Messages:
    """A text as the assistant's turn."""
    return (Message("assistant", text),)


# Writing


def write_answers(
    path: Path | None,
    policy: Policy,
    requests: Sequence[Request],
    labels: Sequence[Mapping[str, Any]],
    *,
    batch_size: int = 16,
    progress: Callable[[int, int], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """A row for each request, in order: its label, `prompt`, `response`, `asked`, `attributes`, `sensed`, `finish`.

    Each row is on disk as soon as it is written; rows that `path` holds already are taken from there. `progress` hears
    how many of how many are done. Without a path nothing is kept. Raises RecordError for a file that is no such file.
    """
    own = policy_key(policy)
    keys = [_request_key(own, r) for r in requests]
    known = read_answers(path) if path else {}
    missing = list({key: i for i, key in enumerate(keys) if key not in known}.values())  # what is the same, once
    done = sum(key in known for key in keys)
    if progress:
        progress(done, len(requests))
    count = Counter(keys)
    with appending(path) as append:

        def keep(number: int, got: Any) -> None:
            nonlocal done
            i = missing[number]
            known[keys[i]] = row = {
                "key": keys[i],
                "prompt": [m.as_dict() for m in messages(requests[i].turns)],
                "response": got.text,
                "asked": dict(requests[i].attributes),
                "attributes": got.attributes,
                "sensed": list(got.sensed),
                "finish": got.finish,
                **({"intent": got.intent, "intent_share": got.intent_share} if policy.intents or got.intent else {}),
            }
            append({**labels[i], **row})
            done += count[keys[i]]
            if progress:
                progress(done, len(requests))

        answer(policy, [requests[i] for i in missing], batch_size=batch_size, on_answer=keep, warn=warn)
    return [
        {**label, **{name: known[key][name] for name in (*KEPT, *INTENT) if name in KEPT or name in known[key]}}
        for key, label in zip(keys, labels, strict=True)
    ]


def _request_key(policy: str, request: Request) -> str:
    seen = {
        "policy": policy,
        "prompt": [m.as_dict() for m in messages(request.turns)],
        "tools": list(request.tools),
        "attributes": dict(request.attributes),
        **({} if request.intent is None else {"intent": request.intent}),
        **({"x_con": request.x_con} if request.x_con else {}),
        "stop": list(request.stop),
        "drawn": [request.max_new_tokens, request.temperature, request.top_p, request.seed, request.place],
    }
    return hashlib.sha256(json.dumps(seen, sort_keys=True, default=str).encode()).hexdigest()[:32]


def read_answers(path: Path) -> dict[str, dict[str, Any]]:
    """The rows of a file of answers by key; none where there is no file.

    A last line that was cut off while it was written is taken off the file. Raises RecordError for any other damage.
    """
    return {str(row["key"]): row for row in read_lines(path, KEPT, lacks=LACKS)}


def put_in_order(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a file of answers anew: these rows in this order, then what else it held. All at once."""
    own = {row["key"] for row in rows}
    others = [row for key, row in read_answers(path).items() if key not in own]
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in [*rows, *others]), "utf-8")
    unfinished.replace(path)


def read_saved(path: Path) -> dict[bytes, str]:
    """{prompt: response} of saved answers, JSON lines with `prompt` (text or messages) and `response` (text), such as
    `pluralign generate --output` writes. Prompts are told by `part_key`. Raises RecordError for anything else, and
    where a prompt is answered twice in different words."""
    found: dict[bytes, str] = {}
    for row in objects_of(path.read_bytes(), path, ("prompt", "response"), lacks=LACKS):
        if not isinstance(row["response"], str):
            raise RecordError('"response" is not a text.', where=str(path))
        key = part_key(messages(row["prompt"]))
        if found.setdefault(key, row["response"]) != row["response"]:
            raise RecordError("a prompt has two different responses.", where=str(path))
    return found


# Judging


def rating_scorer(judge: Policy) -> Scorer:
    """A policy with a rating head as a scorer: every attribute it was trained on, in the data's own units.

    A response that cannot be rendered has no score, and the reason as its note. Raises SettingsError for a policy
    without a rating head.
    """
    rate(judge, [], [])  # raises for what is no judge
    assert judge.scores is not None, "rate() has looked"
    names = judge.scores.names

    def one_by_one(asked: Sequence[Asked]) -> list[Scored]:
        out = []
        for prompt, response in asked:
            try:
                out.append(Scored(tuple(map(float, rate(judge, [prompt], [_text(response)])[0]))))
            except RenderError as error:
                out.append(Scored((None,) * len(names), error.reason))
        return out

    def score(asked: Sequence[Asked]) -> list[Scored]:
        try:
            table = rate(judge, [prompt for prompt, _ in asked], [_text(response) for _, response in asked])
        except RenderError:  # of one of them
            return one_by_one(asked)
        return [Scored(tuple(map(float, row))) for row in table]

    ranges = {s.name: (s.low, s.high) for s in judge.scores.scales} if judge.scores.normal == "range" else {}
    return Scorer(names, score, key=f"rating {policy_key(judge)}", title=f"rating head of {judge.name}", ranges=ranges)


def _text(response: Messages) -> str | Messages:
    """A single turn as text, for which `rate` knows what an empty one is."""
    return response[0].content if len(response) == 1 and not response[0].extra else response


def score_table(
    scorers: Sequence[Scorer],
    asked: Sequence[tuple[Messages, Messages | None]],
    *,
    store: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float64]:
    """(N, K) scores of responses by every scorer, attributes in the order of the scorers; NaN where there is none.

    A response of None was never written: its row is NaN. `store` is a folder that keeps scores by content.
    """
    names = [name for scorer in scorers for name in scorer.names]
    table = np.full((len(asked), len(names)), math.nan)
    places = [i for i, (_, response) in enumerate(asked) if response is not None]
    records = [Demonstration(prompt=asked[i][0], response=asked[i][1] or ()) for i in places]
    for done, (i, record) in enumerate(zip(places, score_responses(scorers, store=store)(records), strict=True), 1):
        assert isinstance(record, Demonstration), "the step keeps what it is given"
        table[i] = [record.attributes.get(name, math.nan) for name in names]
        if progress:
            progress(done, len(places))
    return table
