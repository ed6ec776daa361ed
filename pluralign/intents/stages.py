"""The stages of the knowledge pipeline (A-IPO, 4.2 and Appendix I), each a step over records as `curate` has them.

    dimensions   3 to 5 elements of the question          I.1
    beliefs      8 to 10 candidates of each               I.2
    calibrate    the candidates, made more usual          I.3
    core         x_aug, and the core intents              I.4
    retrieve     x_ext, from a knowledge base
    check        x_con: the supported sentences of x_aug and x_ext

Nothing is dropped. A record for which a stage found nothing goes on without it, counted under the reason. What an
endpoint answers is kept by its cache, what a base or a checker finds by `Kept`: a pass that was killed goes on without
asking anybody twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..curate.filters import batches
from ..curate.pipeline import Count, Step
from ..records import Record
from .asking import Answer, Asking
from .bases import KnowledgeBase
from .knowledge import LONGEST, Knowledge, knowledge_of, question_of, with_knowledge
from .prompts import (
    CANDIDATES,
    STEPS,
    beliefs_prompt,
    calibration_prompt,
    core_prompt,
    dimensions_prompt,
    read_beliefs,
    read_core,
    read_dimensions,
)
from .rules import beliefs_by_rules, calibrated_by_rules, core_by_rules, elements

__all__ = ["RULES", "STAGES", "Work", "beliefs", "calibrate", "core", "dimensions", "stage"]

STAGES = ("dimensions", "beliefs", "calibrate", "core", "retrieve", "check")
RULES = "rules"
BATCH = 64  # records that are worked on together
SKIPPED = "skipped: "

Item = tuple[str, Knowledge]  # the question and what is known of it
Work = Callable[[Sequence[Item]], Sequence[Knowledge]]


def stage(name: str, work: Work, settings: Mapping[str, Any], finish: Any = None) -> Step:
    """A step that adds to what is known of each record; notes of the stage are counted. `finish` makes the record's
    other fields of it: a function from the record and its new state to changed fields."""

    def run(records: Iterable[Record], count: Count) -> Iterator[Record]:
        for batch in batches(records, BATCH):
            states = [_start(record) for record in batch]
            for record, known in zip(batch, work(states), strict=True):
                if name in known.notes:
                    count.noted[known.notes[name]] += 1
                yield with_knowledge(record, known, **(finish(record, known) if finish else {}))

    return Step(name, run, dict(settings))


def _start(record: Record) -> Item:
    return question_of(record), knowledge_of(record)


def _by(who: Asking | None) -> str:
    return who.endpoint.key if who is not None else RULES


def _asked(
    who: Asking, items: Sequence[Item], ready: Callable[[Knowledge], str], ask: Callable[[Item], Any],
    read: Callable[[Item, str], Any], take: Callable[[Item, Any], Knowledge], name: str, tokens: int,
) -> list[Knowledge]:  # fmt: skip
    """Ask about the items that are ready (`ready` gives "", else why not); unparsed answers leave a note."""
    why = [ready(known) for _, known in items]
    at = [i for i, reason in enumerate(why) if not reason]
    answers: list[Answer[Any]] = who(
        [ask(items[i]) for i in at], lambda place, text: read(items[at[place]], text), max_tokens=tokens
    )
    out = [
        known.noted(name, SKIPPED + reason) if reason else known for (_, known), reason in zip(items, why, strict=True)
    ]
    for i, answer in zip(at, answers, strict=True):
        out[i] = items[i][1].noted(name, answer.why) if answer.value is None else take(items[i], answer.value)
    return out


def _stated(who: Asking | None, **more: Any) -> dict[str, Any]:
    draws = {"again": who.again, "temperature": who.temperature} if who is not None else {}
    return {"by": _by(who), **draws, **more}


def dimensions(who: Asking | None) -> Step:
    """I.1, by an endpoint or, without one, by rules."""

    def by_rules(items: Sequence[Item]) -> list[Knowledge]:
        made = [(known, elements(question)) for question, known in items]
        return [
            replace(known, by=RULES, dimensions=found) if found else known.noted("dimensions", "no element")
            for known, found in made
        ]

    def ready(known: Knowledge) -> str:
        return ""

    def take(item: Item, found: tuple[str, ...]) -> Knowledge:
        known = replace(item[1], by=_by(who), dimensions=found)
        if len(item[0]) > LONGEST:
            return known.noted("dimensions", f"question cut after {LONGEST:,} characters")
        return known if len(found) >= 3 else known.noted("dimensions", "fewer than 3 elements")

    def by_endpoint(items: Sequence[Item]) -> list[Knowledge]:
        assert who is not None
        return _asked(who, items, ready, lambda it: dimensions_prompt(it[0]),
                      lambda it, text: read_dimensions(text, it[0]), take, "dimensions", 128)  # fmt: skip

    return stage("dimensions", by_endpoint if who else by_rules, _stated(who))


def beliefs(who: Asking | None, base: KnowledgeBase | None = None) -> Step:
    """I.2, by an endpoint, or by the titles of `base` nearest to each element."""

    def by_rules(items: Sequence[Item]) -> list[Knowledge]:
        out = []
        for _, known in items:
            if not known.dimensions or base is None:
                why = "no dimensions" if base is not None else "no knowledge base to take candidates from"
                out.append(known.noted("beliefs", SKIPPED + why))
                continue
            found = {name: many for name, many in beliefs_by_rules(known.dimensions, base).items() if many}
            out.append(replace(known, beliefs=found) if found else known.noted("beliefs", "no candidate"))
        return out

    def take(item: Item, found: dict[str, tuple[str, ...]]) -> Knowledge:
        known = replace(item[1], beliefs=found)
        odd = any(not CANDIDATES[0] <= len(many) <= CANDIDATES[1] for many in found.values())
        return known.noted("beliefs", "other than 8 to 10 candidates of an element") if odd else known

    def by_endpoint(items: Sequence[Item]) -> list[Knowledge]:
        assert who is not None
        return _asked(who, items, lambda k: "" if k.dimensions else "no dimensions",
                      lambda it: beliefs_prompt(it[0], it[1].dimensions),
                      lambda it, text: read_beliefs(text, it[1].dimensions), take, "beliefs", 768)  # fmt: skip

    return stage("beliefs", by_endpoint if who else by_rules, _stated(who))


def calibrate(who: Asking | None, base: KnowledgeBase | None = None) -> Step:
    """I.3, by an endpoint, or by what `base` has near the whole question. Where it gives nothing the candidates stay as
    they are."""

    def by_rules(items: Sequence[Item]) -> list[Knowledge]:
        out = []
        for question, known in items:
            if not known.beliefs or base is None:
                out.append(known.noted("calibrate", SKIPPED + "no beliefs"))
                continue
            kept = {n: m for n, m in calibrated_by_rules(question, dict(known.beliefs), base).items() if m}
            out.append(replace(known, beliefs=kept, calibrated=True))
        return out

    def by_endpoint(items: Sequence[Item]) -> list[Knowledge]:
        assert who is not None
        return _asked(who, items, lambda k: "" if k.beliefs else "no beliefs",
                      lambda it: calibration_prompt(it[0], it[1].beliefs),
                      lambda it, text: read_beliefs(text, list(it[1].beliefs)),
                      lambda it, found: replace(it[1], beliefs=found, calibrated=True), "calibrate", 768)  # fmt: skip

    return stage("calibrate", by_endpoint if who else by_rules, _stated(who))


def core(who: Asking | None, *, set_intent: bool = False) -> Step:
    """I.4: x_aug in 3 to 5 steps, a primary intent, and further ones. Rules make sub-questions, and name the kind of
    request. `set_intent`: the primary intent becomes the record's own, where it has none."""

    def by_rules(items: Sequence[Item]) -> list[Knowledge]:
        out = []
        for question, known in items:
            if not known.dimensions:
                out.append(known.noted("core", SKIPPED + "no dimensions"))
                continue
            steps, primary, further = core_by_rules(question, known.dimensions)
            made = replace(known, steps=steps, primary=primary, secondary=further)
            out.append(made if len(steps) >= STEPS[0] else made.noted("core", f"fewer than {STEPS[0]} steps"))
        return out

    def take(item: Item, found: tuple[tuple[str, ...], str, tuple[str, ...]]) -> Knowledge:
        return replace(item[1], steps=found[0], primary=found[1], secondary=found[2])

    def by_endpoint(items: Sequence[Item]) -> list[Knowledge]:
        assert who is not None
        return _asked(who, items, lambda k: "" if k.dimensions and k.beliefs else "no beliefs",
                      lambda it: core_prompt(it[0], it[1].dimensions, it[1].beliefs),
                      lambda it, text: read_core(text), take, "core", 768)  # fmt: skip

    def finish(record: Record, known: Knowledge) -> dict[str, Any]:
        named = set_intent and known.primary and not (record.intent and record.intent.strip())
        return {"intent": known.primary} if named else {}

    return stage("core", by_endpoint if who else by_rules, _stated(who, set_intent=set_intent), finish)
