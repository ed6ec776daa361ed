"""Answers held against what the prompt is after: the rows of A-IPO's three benchmarks (G.1.2, G.1.3).

Questions are records with an intent: the test part of a folder that `pluralign data make` (or a generator) wrote, or,
where none is named, that of an offline stand-in built from public rows on the spot. A row keeps the answer, the
intents, every verdict and every number, so that any breakdown can be made of it later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from ...errors import SettingsError
from ...records import Message, Messages, Preference
from .core import Files, Metric, Open, Row, Task
from .versus import WON, compare, judgements, verdict_row

if TYPE_CHECKING:
    from ...curate.plural import Built
    from ...judging.statistics import Estimate

__all__ = ["INTENDED", "METRICS", "Intended", "intended", "kinds_of", "read_records", "to_items"]

INTENDED: Mapping[str, Any] = {
    "temperature": 0.0,
    "top_p": 1.0,
    "max_new_tokens": 128,
    "shots": 0,
    "intents": "auto",
    "encoder": "auto",
    "pooling": "mean",
    "defence": "none",
    "defence_tau": float("-inf"),
}
RIVALS = 20  # other intents that a response is told apart from
Build = Callable[[Sequence[Row], Mapping[str, Any]], "Built"]


@dataclass(frozen=True, slots=True)
class Intended(Open):
    """A prompt, what it is after, and a reference response (`other`, too, but where `--against` names another).
    `rivals`: other intents. `main`, `answers`, `attack` and `attack_answer` are those of an attacked question; `kinds`
    what figures are broken down by ({"position": "before"}); `minority` whether it is asked for fewer people's sake."""

    prompt: Messages = ()
    reference: str = ""
    rejected: str = ""
    intent: str = ""
    x_con: str = ""
    rivals: tuple[str, ...] = ()
    main: str = ""
    answers: tuple[str, ...] = ()
    attack: str = ""
    attack_answer: str = ""
    minority: bool | None = None
    kinds: Mapping[str, str] = field(default_factory=dict)


# Questions


def read_records(files: Files, settings: Mapping[str, Any], build: Build) -> dict[str, list[Preference]]:
    """The parts "test" and, with shots, "train": of the folder that was named, or of the stand-in."""
    from ...curate.plural import check_leaks, three_ways

    if files.has("questions") or getattr(files, "given", None):
        parts = {"test": _loaded(files("questions"))}
        if int(settings["shots"]):
            if not files.has("train"):
                raise SettingsError("shots are taken from train.jsonl.gz, and there is none.",
                                    remedy="Name the folder: --questions FOLDER.")  # fmt: skip
            parts["train"] = _loaded(files("train"))
            check_leaks(parts)
        return parts
    return three_ways(build(files("source"), settings).records)


def _loaded(rows: Sequence[Row]) -> list[Preference]:
    from ...data import load

    plain = [{key: value for key, value in row.items() if key != "_where"} for row in rows]
    return [record for record in load(plain, kind="preference") if isinstance(record, Preference)]


def to_items(
    parts: Mapping[str, Sequence[Preference]],
    settings: Mapping[str, Any],
    *,
    category: Callable[[Preference], str],
    kinds: Callable[[Preference], Mapping[str, str]] = lambda record: {},
    rivals: Callable[[Preference], Sequence[str]] | None = None,
) -> list[Intended]:
    """The items of the test part, each behind `shots` answered questions of the training part: the same for all,
    drawn by a fixed seed. Raises SettingsError for a negative number of shots, or more than there are."""
    from ...curate.plural.rows import drawn

    test = parts["test"]
    before = _shots(parts, int(settings["shots"]))
    intents = sorted({record.intent for record in test if record.intent})
    out = []
    for i, record in enumerate(test):
        meta = record.meta
        own = list(rivals(record)) if rivals else [name for name in intents if name != record.intent]
        if len(own) > RIVALS:
            own = drawn(0, "rivals", str(i)).sample(own, RIVALS)
        majority = meta.get("majority")
        prompt = (*before, *record.prompt)
        out.append(
            Intended(
                str(i), ("\n\n".join(turn.content for turn in prompt),), category(record),
                other=(record.chosen[-1].content,), prompt=prompt,
                reference=record.chosen[-1].content, rejected=record.rejected[-1].content,
                intent=record.intent or "", x_con=record.x_con,
                rivals=tuple(own), main=str(meta.get("main", "")), answers=tuple(meta.get("answers", ())),
                attack=str(meta.get("attack", "")) if meta.get("style") != "none" else "",
                attack_answer=str(meta.get("attack_answer", "")) if meta.get("style") != "none" else "",
                minority=None if majority is None else not majority, kinds=dict(kinds(record)),
            )
        )  # fmt: skip
    return out


def _shots(parts: Mapping[str, Sequence[Preference]], shots: int) -> Messages:
    from ...curate.plural.rows import drawn

    if not 0 <= shots <= len(parts.get("train", ())):
        raise SettingsError(
            f"shots must lie between 0 and the {len(parts.get('train', ())):,} examples, not at {shots}."
        )
    chosen = drawn(0, "shots").sample(list(parts["train"]), shots) if shots else []
    return tuple(turn for record in chosen for turn in (*record.prompt, *record.chosen))


# One system


def intended(task: Task) -> Iterator[Row]:
    """A row an item. With a judge its win rate against the references, and, where the judge is a language model, ICS,
    RIC and DSR by yes or no; their offline counterparts and RS always."""
    items: Sequence[Intended] = task.items
    told, said = _answers(task)
    responses = [row["response"] if row else None for row in said]
    gold = [item.intent or None for item in items]
    columns = {
        **_judged(task, responses, told),
        **_offline(task, responses, told, gold),
    }
    wins = _wins(task, responses)
    for i, item in enumerate(items):
        row: Row = {"system": task.system.name, "id": item.id, "category": item.category}
        if not said[i]:
            yield {**row, "failed": "an answer lacks"}
            continue
        row |= {"prompt": [turn.as_dict() for turn in item.prompt], "answer": responses[i],
                "reference": item.reference, "intent": item.intent, "inferred": told[i],
                "minority": item.minority, "kinds": dict(item.kinds), "attacked": bool(item.attack)}  # fmt: skip
        row |= {name: said[i][name] for name in ("finish", "intent_share", "branch", "first") if name in said[i]}
        yield {**wins.get(i, {}), **row, **{name: column[i] for name, column in columns.items()}}


def _answers(task: Task) -> tuple[list[str | None], list[Row]]:
    """(inferred intents; None where nothing was inferred), and a row with `response` for each item, empty for none."""
    items: Sequence[Intended] = task.items
    if task.system.saved is not None:
        found = [task.system.saved.find(item) for item in items]
        if not any(found):
            raise SettingsError(f"{task.system.name} answers none of the {len(items):,} questions.")
        if lacking := sum(one is None for one in found):
            task.warn(f"{task.system.name} lacks answers to {lacking:,} of {len(items):,} questions")
        return [None] * len(items), [{"response": one[0]} if one else {} for one in found]
    shown, inferred = _shown(task)
    rows = _write(task, [item.prompt for item in items], shown, [item.x_con for item in items], "answers")
    if task.settings["intents"] in ("infer", "auto"):
        own = task.system.policy.intention is not None
        inferred = [str(row.get("intent", "")) if own else None for row in rows]
    return inferred, _defended(task, rows)


def _shown(task: Task) -> tuple[list[str | None], list[str | None]]:
    """The intent that each request names (None: the policy infers it), and what an endpoint inferred."""
    items: Sequence[Intended] = task.items
    mode, policy = str(task.settings["intents"]), task.system.policy
    nothing: list[str | None] = [None] * len(items)
    if mode == "gold":
        return [item.intent for item in items], nothing
    if mode == "none":
        return ["" for _ in items], nothing
    if mode in ("infer", "auto"):
        if mode == "infer" and policy.intention is None:
            raise SettingsError(
                f'the policy "{policy.name}" has no intention module.', remedy="Set intents=none or a URL."
            )
        return (nothing if policy.intention is not None else ["" for _ in items]), nothing
    from ...endpoints import Endpoint, is_address
    from ...judging.inferred_intents import infer_by_endpoint

    if not is_address(mode):
        raise SettingsError(f'intents is auto, gold, infer, none or a URL, not "{mode}".')
    names = policy.intents.names if policy.intents else ()
    endpoint = Endpoint.open(mode, cache=task.path("intents"))
    found = infer_by_endpoint(endpoint, [item.prompt for item in items], names, progress=task.count("intents"))
    return [one or "" for one in found], found  # what cannot be read is None: no intent is shown, and none is graded


def _write(
    task: Task, prompts: Sequence[Messages], intents: Sequence[str | None], x_con: Sequence[str], what: str
) -> list[Row]:
    from ...judging.answers import write_answers
    from ...steering import Request

    chosen = task.settings
    requests = [
        Request(prompt, intent=intent, x_con=known, max_new_tokens=chosen["max_new_tokens"], top_p=chosen["top_p"],
                temperature=float(chosen["temperature"]), attributes=dict(task.attributes), seed=task.seed, place=i)
        for i, (prompt, intent, known) in enumerate(zip(prompts, intents, x_con, strict=True))
    ]  # fmt: skip
    labels = [{"system": task.system.name, "id": str(i), "of": what} for i in range(len(prompts))]
    return write_answers(task.path("answers.jsonl"), task.system.policy, requests, labels, batch_size=task.batch_size,
                         progress=task.count(what), warn=task.warn)  # fmt: skip


def _defended(task: Task, rows: list[Row]) -> list[Row]:
    """The answers behind the defence by backtranslation, where an endpoint for it is set."""
    place = str(task.settings["defence"])
    if place == "none":
        return rows
    from ...endpoints import Endpoint
    from ...judging.refusals import backtranslated, endpoint_backtranslator

    tau = float(task.settings["defence_tau"])
    prompts = [item.id for item in task.items]
    first = [row["response"] for row in rows]

    def generate(texts: Sequence[str]) -> list[str]:
        if texts is prompts:
            return first
        asked: list[Messages] = [(Message("user", text),) for text in texts]
        empty: list[str | None] = [""] * len(asked)
        return [row["response"] for row in _write(task, asked, empty, [""] * len(asked), "answers to requests")]

    endpoint = Endpoint.open(place, cache=task.path("requests"))
    found = backtranslated(prompts, generate, endpoint_backtranslator(endpoint), tau=tau)
    return [{**row, "response": one.answer, "branch": one.branch, "first": one.response}
            for row, one in zip(rows, found, strict=True)]  # fmt: skip


def _wins(task: Task, responses: Sequence[str | None]) -> dict[int, Row]:
    if task.judge is None:
        return {}
    at = [i for i, item in enumerate(task.items) if responses[i] is not None and item.other]
    asked = [compare(task.items[i], (responses[i] or "",), task.items[i].other, turn=0) for i in at]
    found = judgements(task, asked)
    kept = ("answers", "judge", "outcome", "score", "consistent", "games")  # not the prompt: it is in the row
    return {i: {k: v for k, v in verdict_row(one, what).items() if k in kept}
            for i, one, what in zip(at, found, asked, strict=True)}  # fmt: skip


def _judged(task: Task, responses: Sequence[str | None], told: Sequence[str | None]) -> dict[str, list[Any]]:
    """ICS, RIC and DSR by the language model that judges; nothing where the judge is no such."""
    endpoint = getattr(task.judge, "endpoint", None)
    if endpoint is None:
        return {}
    from ...judging.intent_wording import (
        DEFENDED,
        EXPRESSES,
        SAME_INTENT,
        defence_subject,
        expression_subject,
        intent_subject,
    )
    from ...judging.judged import rated
    from ...judging.language import YesNoJudge

    items: Sequence[Intended] = task.items
    every = [(i, item, responses[i]) for i, item in enumerate(items)]
    asked = {
        "ics": (SAME_INTENT, {i: intent_subject(o.id, o.intent, told[i] or "none") for i, o, _ in every
                              if o.intent and told[i] is not None}),
        "ric": (EXPRESSES, {i: expression_subject(o.id, o.intent, r) for i, o, r in every
                            if o.intent and r is not None}),
        "dsr": (DEFENDED, {i: defence_subject(o.id, o.prompt[-1].content, o.main, o.attack, r) for i, o, r in every
                           if o.main and r is not None}),
    }  # fmt: skip
    out: dict[str, list[Any]] = {}
    judge: Any
    for name, (question, subjects) in asked.items():
        if subjects:
            judge = YesNoJudge(endpoint, question)
            found = rated(judge, list(subjects.values()), store=task.path("yes-no.jsonl"),
                          progress=task.count(name))  # fmt: skip
            scores = dict(zip(subjects, found, strict=True))
            out[name] = [scores[i].score if i in scores else None for i in range(len(items))]
            out[f"{name}_said"] = [asdict(scores[i]) if i in scores else None for i in range(len(items))]
    return out


def _offline(
    task: Task, responses: Sequence[str | None], told: Sequence[str | None], gold: Sequence[str | None]
) -> dict[str, list[Any]]:
    from ...judging.cls_pooling import rs_encoder
    from ...judging.intent_metrics import dsr_contained, expressed_nearest, nearer_reference, same_intent, similarity
    from ...judging.refusals import is_refusal

    items: Sequence[Intended] = task.items
    encoder = rs_encoder(str(task.settings["encoder"]), str(task.settings["pooling"]))
    found = similarity(responses, [item.reference or None for item in items], encoder, seed=task.seed)
    exact = same_intent([g if t is not None else None for g, t in zip(gold, told, strict=True)], told)
    able = [g if g and len({g, *item.rivals}) > 1 and not item.attack else None
            for g, item in zip(gold, items, strict=True)]  # fmt: skip
    among = [(item.intent, *item.rivals) for item in items]
    near = expressed_nearest(responses, able, among, encoder)
    return {
        "rs": list(found.values),
        "rs_shuffled": list(found.shuffled),
        "ics_exact": list(exact),
        "ics_nearest": list(expressed_nearest(told, able, among, encoder)),
        "ric_nearest": list(near),
        "ric_contrast": list(nearer_reference(
            responses, [item.reference for item in items], [item.rejected for item in items], encoder)),
        "dsr_contained": [dsr_contained(r, item.answers, item.attack_answer) if item.main else None
                          for r, item in zip(responses, items, strict=True)],
        "unsure": [None if one is None else float(not one) for one in told],
        "refused": [None if r is None else float(is_refusal(r)) for r in responses],
    }  # fmt: skip


# Figures


def _value(name: str) -> Callable[[Row], float | None]:
    return lambda row: row.get(name)


METRICS: dict[str, Metric] = {
    "win_rate": WON,
    **{name: Metric(name, _value(name), kind="share")
       for name in ("ics", "ric", "dsr", "ics_exact", "ics_nearest", "ric_nearest",
                     "dsr_contained", "unsure", "refused")},
    **{name: Metric(name, _value(name)) for name in ("ric_contrast", "rs", "rs_shuffled")},
}  # fmt: skip


def kinds_of(
    rows: Sequence[Row], names: Sequence[str], *, by: Callable[[Row], Mapping[str, str]]
) -> dict[str, Estimate]:
    """Figures by kind, named `ics food`, for the metrics that some row has. `by` gives a row's kinds."""
    from ...judging.intent_metrics import by_kind

    out: dict[str, Estimate] = {}
    for name in names:
        metric = METRICS[name]
        if all(metric.value(row) is None for row in rows):
            continue
        for kind in dict.fromkeys(key for row in rows for key in by(row)):
            own = [row for row in rows if by(row).get(kind)]
            found = by_kind([metric.value(row) for row in own], [by(row)[kind] for row in own])
            out |= {f"{name} {value}": estimate for value, estimate in found.items()}
    return out
