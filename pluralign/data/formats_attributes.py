"""Responses that are rated on several attributes: our own generic lists, and public sets."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence

from ..errors import RecordError
from ..records import Demonstration, Message, Messages, Ranked
from .fields import (
    Row,
    common,
    conversation,
    known_attributes,
    many_attributes,
    named,
    need,
    text,
    with_system,
)
from .format_types import Format, Options, Skip, unit_mean

_FRUIT = "Name a fruit."


def _has(row: Row, *names: str) -> bool:
    return all(row.get(name) is not None for name in names)


def _columns(rated: Sequence[Mapping[str, float]]) -> dict[str, tuple[float | None, ...]]:
    """{attribute: one number or None per response} of the attributes of each response."""
    names = dict.fromkeys(name for own in rated for name in own)
    return {name: tuple(own.get(name) for own in rated) for name in names}


# --- rated lists ---------------------------------------------------------------------------------------------------


def rated(row: Row, options: Options) -> Iterator[Ranked | Skip]:
    """prompt, responses and attributes {name: [...]}, ordered by the plain mean of them or by one of them.

    A response without the ordering score is left out and counted.
    """
    said = need(row, "responses")
    if not isinstance(said, Sequence) or isinstance(said, str | bytes):
        raise RecordError(f'expected a list in "responses", found {named(said)}.')
    attributes = many_attributes(need(row, "attributes"), "attributes", len(said))
    by = options.by or "mean"
    own = [{name: values[i] for name, values in attributes.items()} for i in range(len(said))]
    scores = [unit_mean(known, {}) if by == "mean" else known.get(by) for known in own]
    kept = [i for i, score in enumerate(scores) if score is not None]
    for _ in range(len(said) - len(kept)):
        yield Skip(f"response without {by}")
    if len(kept) < 2:
        yield Skip("fewer than two rated responses")
        return
    yield Ranked(
        prompt=with_system(row, conversation(need(row, "prompt"), "prompt", role="user")),
        responses=tuple(conversation(said[i], f"responses[{i}]", role="assistant") for i in kept),
        scores=tuple(score for score in scores if score is not None),
        attributes={name: tuple(values[i] for i in kept) for name, values in attributes.items()},
        **common(row, {"prompt", "responses", "attributes"}),
    )


def _named_attributes(row: Row) -> tuple[str, ...]:
    found = row.get("attributes")
    return (*map(str, found), "mean") if isinstance(found, Mapping) else ("mean",)


RATED_LIST = Format(
    name="rated",
    title="rated lists",
    describe="prompt, responses and attributes {name: [one number or null per response]} (`by`: a name, mean)",
    needs=("prompt", "responses", "attributes"),
    recognise=lambda row: (
        _has(row, "prompt", "responses")
        and isinstance(row["responses"], list | tuple)
        and isinstance(row.get("attributes"), Mapping)
    ),
    read=rated,
    orders=_named_attributes,
    example=(
        {
            "prompt": _FRUIT,
            "responses": ["An apple.", "A carrot.", "Fruit?"],
            "attributes": {"correct": [1, 0, 0], "wit": [0.1, 0.4, None]},
        },
    ),
)


# --- just-eval ------------------------------------------------------------------------------------------------------


def just_eval(row: Row, _: Options) -> Iterator[Demonstration]:
    """input, output_cand and parsed_result {attribute: {reason, score}}; a score of "N/A" is not known."""
    found = need(row, "parsed_result")
    if not isinstance(found, Mapping):
        raise RecordError(f'expected {{attribute: {{score}}}} in "parsed_result", found {named(found)}.')
    scores = {str(name): note.get("score") if isinstance(note, Mapping) else note for name, note in found.items()}
    rating = {n: s for n, s in scores.items() if not (isinstance(s, str) and s.strip().upper() in ("", "N/A", "NONE"))}
    yield Demonstration(
        prompt=with_system(row, conversation(need(row, "input"), "input", role="user")),
        response=conversation(need(row, "output_cand"), "output_cand", role="assistant"),
        attributes=known_attributes(rating, "parsed_result"),
        **common(row, {"input", "output_cand", "parsed_result"}),
    )


JUST_EVAL = Format(
    name="just_eval",
    title="just-eval ratings",
    describe="input, output_cand and parsed_result {attribute: {reason, score}}, scores from 1 to 5",
    needs=("input", "output_cand", "parsed_result"),
    recognise=lambda row: _has(row, "input", "output_cand", "parsed_result"),
    read=just_eval,
    ranges=dict.fromkeys(("helpfulness", "clarity", "factuality", "depth", "engagement", "safety"), (1.0, 5.0)),
    example=(
        {
            "input": _FRUIT,
            "output_cand": "An apple.",
            "parsed_result": {"clarity": {"reason": "Plain.", "score": "5"}, "depth": {"score": "N/A"}},
        },
    ),
)


# --- UniEval's meta-evaluation sets ---------------------------------------------------------------------------------


def unieval(row: Row, _: Options) -> Iterator[Demonstration]:
    """source (an article, the content of a message), system_output and scores {attribute: mean human rating}."""
    yield Demonstration(
        prompt=with_system(row, conversation(need(row, "source"), "source", role="user")),
        response=conversation(need(row, "system_output"), "system_output", role="assistant"),
        attributes=known_attributes(need(row, "scores"), "scores"),
        **common({k: v for k, v in row.items() if k != "source"}, {"system_output", "scores"}),
    )


def _is_unieval(row: Row) -> bool:
    return _has(row, "source", "system_output") and isinstance(row.get("scores"), Mapping)


UNIEVAL = Format(
    name="unieval",
    title="UniEval ratings",
    describe="source, system_output and scores {attribute: number}: SFRES, SFHOT (1 to 6) and QAGS (0 to 1)",
    needs=("source", "system_output", "scores"),
    recognise=lambda row: _is_unieval(row) and row.get("context") is None,
    read=unieval,
    ranges={**dict.fromkeys(("informativeness", "naturalness", "overall"), (1.0, 6.0)), "consistency": (0.0, 1.0)},
    example=(
        {
            "source": "inform(fruit='apple')",
            "system_output": "It is an apple.",
            "scores": {"informativeness": 6.0, "naturalness": 5.5},
        },
    ),
)

_NO_FACT = "_nofact"
_TOPICAL_RANGES = {
    **dict.fromkeys(("understandability", "groundedness"), (0.0, 1.0)),
    **dict.fromkeys(("naturalness", "coherence", "engagingness"), (1.0, 3.0)),
    "overall": (1.0, 5.0),
}


def topical_key(row: Row) -> Hashable:
    """Dialogue and fact, once every field of the row has proved sound."""
    if not text(need(row, "system_output"), "system_output").strip():
        raise RecordError('"system_output" is empty.')
    known_attributes(need(row, "scores"), "scores")
    source = text(need(row, "source"), "source")
    if not source.strip():
        raise RecordError('"source" is empty.')
    return source, text(need(row, "context"), "context")


def topical_chat(rows: Sequence[Row], options: Options) -> Iterator[Ranked | Skip]:
    """Consecutive rows of one dialogue (a line a turn, the last one the user's) and one fact: a ranking by `overall`.

    The fact that the response may use is the system turn; "_nofact" is none.
    """
    by = options.by or "overall"
    ratings = [known_attributes(row["scores"], "scores") for row in rows]
    scores = [unit_mean(own, _TOPICAL_RANGES) if by == "mean" else own.get(by) for own in ratings]
    kept = [i for i, score in enumerate(scores) if score is not None]
    for _ in range(len(rows) - len(kept)):
        yield Skip(f"response without {by}")
    if len(kept) < 2:
        yield Skip("fewer than two rated responses")
        return
    fact = rows[0]["context"].strip()
    known = common({k: v for k, v in rows[0].items() if k != "source"}, {"context", "system_output", "scores"})
    systems = [str(rows[i].get("system_id", "")) for i in kept]
    yield Ranked(
        prompt=(*((Message("system", fact),) if fact and fact != _NO_FACT else ()), *_alternating(rows[0]["source"])),
        responses=tuple(
            conversation(rows[i]["system_output"].strip(), "system_output", role="assistant") for i in kept
        ),
        scores=tuple(score for score in scores if score is not None),
        attributes=_columns([ratings[i] for i in kept]),
        **{**known, "meta": {**known.get("meta", {}), "system_id": systems}},
    )


def _alternating(dialogue: str) -> Messages:
    """One turn a line; the speakers alternate and the user speaks last."""
    lines = [line.strip() for line in dialogue.splitlines() if line.strip()]
    return tuple(Message("user" if (len(lines) - i) % 2 else "assistant", line) for i, line in enumerate(lines))


TOPICAL_CHAT = Format(
    name="topical_chat",
    title="Topical-Chat ratings",
    describe="source, context, system_output and scores; rows in a row with one source make a ranking (`by`: overall, "
    "…, mean)",
    needs=("source", "context", "system_output", "scores"),
    recognise=lambda row: _is_unieval(row) and row.get("context") is not None,
    key=topical_key,
    read_together=topical_chat,
    orders=(*_TOPICAL_RANGES, "mean"),
    ranges=_TOPICAL_RANGES,
    example=tuple(
        {"source": "hi\nhello\nname a fruit\n\n", "context": "_nofact\n", "system_output": said, "scores": scores}
        for said, scores in (("an apple .", {"overall": 5, "naturalness": 3}), ("a carrot .", {"overall": 2}))
    ),
)

ATTRIBUTED = (JUST_EVAL, UNIEVAL, TOPICAL_CHAT)
