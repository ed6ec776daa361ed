"""Responses with scores: pairs where there are two that differ, rankings where there are more or a tie."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

from ..errors import RecordError
from ..records import Messages, Preference, Ranked
from .fields import (
    Row,
    common,
    conversation,
    many_attributes,
    named,
    need,
    number,
    optional_number,
    pair_common,
    text,
    with_system,
)
from .format_types import Format, Options, Skip, unit_mean
from .transcripts import is_transcript, read_marked_prompt, read_transcript, split_prefix

_FRUIT = "Name a fruit."


def _list(value: Any, name: str) -> Sequence[Any]:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise RecordError(f'expected a list in "{name}", found {named(value)}.')
    return value


def _numbers(value: Any, name: str) -> tuple[float, ...]:
    return tuple(number(v, f"{name}[{i}]") for i, v in enumerate(_list(value, name)))


def _same_length(name: str, these: Sequence[Any], other: str, those: Sequence[Any]) -> None:
    if len(these) != len(those):
        raise RecordError(f'"{name}" has {len(these)} entries but "{other}" has {len(those)}.')


# --- transcripts with scores (DSP) --------------------------------------------------------------------------------


def text_score(row: Row, _: Options) -> Iterator[Preference | Ranked]:
    """text: transcripts of one dialogue; score: one number each. Two that differ make a pair, the rest a ranking."""
    transcripts = [text(t, f"text[{i}]") for i, t in enumerate(_list(need(row, "text"), "text"))]
    scores = _numbers(need(row, "score"), "score")
    _same_length("text", transcripts, "score", scores)
    if len(transcripts) < 2:
        raise RecordError(f'"text" needs at least two transcripts, found {len(transcripts)}.')
    prompt, responses = split_prefix([read_transcript(t) for t in transcripts])
    prompt = with_system(row, prompt)
    if len(scores) == 2 and scores[0] != scores[1]:
        best = int(scores[1] > scores[0])
        both = (scores[best], scores[1 - best])
        known = pair_common(row, {"text", "score"})
        known = {**known, "attributes": {**known["attributes"], "score": both}}
        known["margin"] = both[0] - both[1] if known["margin"] is None else known["margin"]
        yield Preference(prompt=prompt, chosen=responses[best], rejected=responses[1 - best], **known)
    else:
        known = common(row, {"text", "score", "attributes"})
        known["attributes"] = many_attributes(row.get("attributes"), "attributes", len(responses))
        yield Ranked(prompt=prompt, responses=responses, scores=scores, **known)


TEXT_SCORE = Format(
    name="text_score",
    title="transcripts with scores",
    describe="text (two or more transcripts of one dialogue) and score (one number each)",
    needs=("text", "score"),
    recognise=lambda row: (
        isinstance(row.get("text"), list | tuple)
        and isinstance(row.get("score"), list | tuple)
        and any(is_transcript(t) for t in row["text"])
    ),
    read=text_score,
    example=(
        {
            "text": [f"\n\nHuman: {_FRUIT}\n\nAssistant: An apple.", f"\n\nHuman: {_FRUIT}\n\nAssistant: A carrot."],
            "score": [1.0, 0.0],
        },
    ),
)


# --- ranked lists -------------------------------------------------------------------------------------------------

_RANKS = ("rankings", "ranking", "ranks", "rank")


def ranked(row: Row, _: Options) -> Iterator[Ranked]:
    """prompt, responses, and one of: scores (higher is better), rankings (1 is best), chosen (index of the best).

    `attributes`: {name: one number or null per response}.
    """
    name = "responses" if row.get("responses") is not None else "completions"
    responses = [conversation(r, f"{name}[{i}]", role="assistant") for i, r in enumerate(_list(need(row, name), name))]
    by = _scored_by(row)
    if by == "chosen":
        index = number(row["chosen"], "chosen")
        if index not in range(len(responses)):
            raise RecordError(f'"chosen" is {row["chosen"]!r}, not an index into {len(responses)} responses.')
        scores = tuple(float(i == index) for i in range(len(responses)))
    else:
        sign = -1.0 if by in _RANKS else 1.0
        scores = tuple(sign * s for s in _numbers(row[by], by))
    _same_length(name, responses, by, scores)
    yield Ranked(
        prompt=with_system(row, conversation(need(row, "prompt"), "prompt", role="user")),
        responses=tuple(responses),
        scores=scores,
        attributes=many_attributes(row.get("attributes"), "attributes", len(responses)),
        **common(row, {"prompt", name, by, "attributes"}),
    )


def _scored_by(row: Row) -> str:
    for name in ("scores", *_RANKS, "chosen"):
        if row.get(name) is not None:
            return name
    need(row, "scores", "rankings", "chosen")
    raise AssertionError("need() raises where all are absent")


RANKED = Format(
    name="ranked",
    title="ranked lists",
    describe="prompt and responses with scores (higher is better), rankings (1 is best) or chosen (an index)",
    needs=("prompt", "responses", "scores"),
    recognise=lambda row: (
        row.get("prompt") is not None
        and isinstance(row.get("responses", row.get("completions")), list | tuple)
        and any(row.get(name) is not None for name in ("scores", *_RANKS, "chosen"))
    ),
    read=ranked,
    example=(
        {"prompt": _FRUIT, "responses": ["An apple.", "Fruit?", "A carrot."], "scores": [3, 2, 1]},
        {"prompt": _FRUIT, "responses": ["A carrot.", "An apple."], "rankings": [2, 1]},
        {"prompt": _FRUIT, "responses": ["A carrot.", "An apple."], "chosen": 1},
    ),
)


# --- UltraFeedback ------------------------------------------------------------------------------------------------

_ASPECTS = ("instruction_following", "honesty", "truthfulness", "helpfulness")
_ASPECT_RANGES = dict.fromkeys(_ASPECTS, (1.0, 5.0))


def ultrafeedback(row: Row, options: Options) -> Iterator[Ranked | Skip]:
    """instruction and completions with ratings per aspect; ordered by overall_score, an aspect, or their mean.

    Missing ratings and "N/A" are None; a completion without the ordering score is left out and counted.
    """
    by = options.by or "overall_score"
    completions = _list(need(row, "completions"), "completions")
    if not all(isinstance(c, Mapping) for c in completions):
        raise RecordError('expected objects with a "response" in "completions".')
    rated = [(c, {a: _rating(c, a) for a in _ASPECTS}) for c in completions]
    scored = [(c, ratings, _order(by, c, ratings)) for c, ratings in rated]
    kept = [(c, ratings, score) for c, ratings, score in scored if score is not None]
    for _ in range(len(completions) - len(kept)):
        yield Skip(f"completion without {by}")
    if len(kept) < 2:
        if len(kept) == len(completions):
            raise RecordError(f'"completions" needs at least two responses, found {len(completions)}.')
        yield Skip("fewer than two rated completions")
        return
    known = common(row, {"instruction", "completions", "models"})
    attributes = {a: tuple(ratings[a] for _, ratings, _ in kept) for a in _ASPECTS}
    meta = {**known.get("meta", {}), "models": [str(c.get("model", "")) for c, _, _ in kept]}
    yield Ranked(
        prompt=with_system(row, conversation(need(row, "instruction"), "instruction", role="user")),
        responses=tuple(
            conversation(need(c, "response"), f"completions[{i}].response", role="assistant")
            for i, (c, _, _) in enumerate(kept)
        ),
        scores=tuple(score for _, _, score in kept),
        attributes={a: values for a, values in attributes.items() if any(v is not None for v in values)},
        **{**known, "meta": meta},
    )


def _rating(completion: Row, aspect: str) -> float | None:
    annotations = completion.get("annotations")
    note = annotations.get(aspect) if isinstance(annotations, Mapping) else None
    value = note.get("Rating") if isinstance(note, Mapping) else note
    if value is None or (isinstance(value, str) and value.strip().upper() in ("", "N/A", "NONE")):
        return None
    return number(value, f"annotations.{aspect}.Rating")


def _order(by: str, completion: Row, ratings: Mapping[str, float | None]) -> float | None:
    if by == "mean":
        return unit_mean(ratings, _ASPECT_RANGES)
    if by in ratings:
        return ratings[by]
    value = completion.get(by)
    return None if value is None or value in ("", "N/A") else number(value, by)


ULTRAFEEDBACK = Format(
    name="ultrafeedback",
    title="UltraFeedback completions",
    describe="instruction and rated completions (`by`: overall_score, fine-grained_score, an aspect, mean)",
    needs=("instruction", "completions"),
    recognise=lambda row: (
        isinstance(row.get("instruction"), str)
        and isinstance(row.get("completions"), list | tuple)
        and any(isinstance(c, Mapping) and "response" in c for c in row["completions"])
    ),
    read=ultrafeedback,
    orders=("overall_score", "fine-grained_score", *_ASPECTS, "mean"),
    ranges=_ASPECT_RANGES,
    example=(
        {
            "instruction": _FRUIT,
            "completions": [
                {
                    "model": "a",
                    "response": "An apple.",
                    "overall_score": 8.5,
                    "annotations": {"helpfulness": {"Rating": "5"}, "honesty": {"Rating": "N/A"}},
                },
                {
                    "model": "b",
                    "response": "A carrot.",
                    "overall_score": 3.0,
                    "annotations": {"helpfulness": {"Rating": "2"}, "honesty": {"Rating": "4"}},
                },
            ],
        },
    ),
)


# --- HelpSteer ----------------------------------------------------------------------------------------------------

_ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
_ATTRIBUTE_RANGES = dict.fromkeys(_ATTRIBUTES, (0.0, 4.0))


def helpsteer_key(row: Row) -> Hashable:
    """The prompt, once every field of the row has proved sound: a bad row must not spoil its neighbours."""
    text(need(row, "response"), "response")
    optional_number(row, "weight")
    for attribute in _ATTRIBUTES:
        optional_number(row, attribute)
    number(need(row, "helpfulness"), "helpfulness")
    if not row["response"].strip():
        raise RecordError('"response" is empty.')
    prompt = text(need(row, "prompt"), "prompt")
    if not prompt.strip():
        raise RecordError('"prompt" is empty.')
    return prompt


def helpsteer(rows: Sequence[Row], options: Options) -> Iterator[Preference | Ranked | Skip]:
    """Consecutive rows with one prompt: two that differ in helpfulness, an attribute or the mean make a pair, others a
    ranking."""
    by = options.by or "helpfulness"
    if len(rows) == 1:
        yield Skip("no second response to the prompt")
        return
    rated = [{a: optional_number(row, a) for a in _ATTRIBUTES} for row in rows]
    scores = [unit_mean(own, _ATTRIBUTE_RANGES) if by == "mean" else own[by] for own in rated]
    ordered = [score for score in scores if score is not None]
    if len(ordered) < len(rows):
        yield Skip(f"response without {by}")
        return
    used = {"prompt", "response", *_ATTRIBUTES}
    prompt = with_system(rows[0], read_marked_prompt(rows[0]["prompt"]))
    responses: list[Messages] = [conversation(row["response"], "response", role="assistant") for row in rows]
    is_pair = len(rows) == 2 and ordered[0] != ordered[1]
    best = int(ordered[1] > ordered[0])
    order = [best, 1 - best] if is_pair else list(range(len(rows)))
    columns = {a: tuple(rated[i][a] for i in order) for a in _ATTRIBUTES}
    attributes: Any = {a: values for a, values in columns.items() if any(v is not None for v in values)}
    if is_pair:
        yield Preference(
            prompt=prompt,
            chosen=responses[best],
            rejected=responses[1 - best],
            margin=ordered[best] - ordered[1 - best],
            attributes=attributes,
            **common(rows[best], used),
        )
    else:
        yield Ranked(
            prompt=prompt, responses=tuple(responses), scores=tuple(ordered), attributes=attributes,
            **common(rows[0], used),
        )  # fmt: skip


HELPSTEER2 = Format(
    name="helpsteer2",
    title="HelpSteer2 ratings",
    describe="one rated response a row; rows in a row with one prompt make a pair (`by`: helpfulness, …, mean)",
    needs=("prompt", "response", "helpfulness"),
    recognise=lambda row: all(row.get(n) is not None for n in ("prompt", "response", "helpfulness")),
    key=helpsteer_key,
    read_together=helpsteer,
    orders=(*_ATTRIBUTES, "mean"),
    ranges=_ATTRIBUTE_RANGES,
    example=(
        {"prompt": _FRUIT, "response": "An apple.", "helpfulness": 4, "correctness": 4, "verbosity": 1},
        {"prompt": _FRUIT, "response": "A carrot.", "helpfulness": 1, "correctness": 0, "verbosity": 1},
    ),
)


def helpsteer_preference(row: Row, _: Options) -> Iterator[Preference | Skip]:
    """response_1, response_2 and preference_strength: below 0 the first is better, above 0 the second."""
    strength = number(need(row, "preference_strength"), "preference_strength")
    said = [conversation(need(row, n), n, role="assistant") for n in ("response_1", "response_2")]
    if strength == 0:
        yield Skip("tie")
        return
    best = int(strength > 0)
    known = pair_common(row, {"prompt", "response_1", "response_2", "preference_strength"})
    prompt = read_marked_prompt(text(need(row, "prompt"), "prompt"))
    yield Preference(
        prompt=with_system(row, prompt),
        chosen=said[best],
        rejected=said[1 - best],
        **{**known, "margin": abs(strength) if known["margin"] is None else known["margin"]},
    )


HELPSTEER2_PREFERENCE = Format(
    name="helpsteer2_preference",
    title="HelpSteer2 preferences",
    describe="response_1, response_2 and preference_strength (below 0: the first is better)",
    needs=("prompt", "response_1", "response_2", "preference_strength"),
    recognise=lambda row: all(row.get(n) is not None for n in ("response_1", "response_2", "preference_strength")),
    read=helpsteer_preference,
    example=({"prompt": _FRUIT, "response_1": "A carrot.", "response_2": "An apple.", "preference_strength": 2},),
)

RATED = (TEXT_SCORE, ULTRAFEEDBACK, HELPSTEER2, HELPSTEER2_PREFERENCE, RANKED)
