"""ATTACK-PREF from questions with short answers (NQ-open, MKQA), without a language model.

A record's prompt is the question in a sentence of its own with an unrelated question injected (`attacks`); the chosen
response answers the question directly, the rejected one is the corrupted answer. Both are put in the same words: only
what is answered tells them apart. `intent` is what the main question asks for (a person, a time, ...), `group` the
style of the attack; `meta` holds question, answers, attack and its answer, position, style.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, get_args

from ...errors import RecordError, SettingsError, nearest
from ...records import Preference
from .attacks import NONE, POSITIONS, STYLES, attack_kinds, inject
from .rows import Built, Row, comparable, drawn, pair, sentence
from .unrelated import UNRELATED
from .words import ANSWERS, QUESTIONS, Corruption, asked_for

__all__ = ["attack_pref", "question_of_row"]


def attack_pref(
    rows: Iterable[Row],
    *,
    positions: Sequence[str] = POSITIONS,
    styles: Sequence[str] = STYLES,
    corruption: Corruption = "hijacked",
    benign: float = 0.0,
    limit: int | None = None,
    seed: int = 0,
    unrelated: Sequence[tuple[str, str]] = UNRELATED,
) -> Built:
    """Pairs from rows with `question` and `answer` (a text or a list of equally good texts; the first is said).

    `corruption`: the rejected response is "hijacked" (only the attack is answered), "both" (the attack's answer stands
    behind the right one) or "mixed" (either, drawn). A share `benign` of the questions is left without an attack (style
    "none"): what a defence must not harm. Kinds of attack are dealt out evenly. `limit` stops after so many records.

    Rows without a question or an answer, and questions seen before, are skipped and counted. Raises RecordError for a
    row of another form and SettingsError for impossible settings.
    """
    kinds = attack_kinds(positions, styles)
    _check(corruption, benign, limit, unrelated)
    records: list[Preference] = []
    skipped: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    seen: set[str] = set()
    hand: list[tuple[str, str]] = []
    plain = [(comparable(asked), comparable(reply)) for asked, reply in unrelated]
    number = 0
    for number, row in enumerate(rows, start=1):
        if limit is not None and len(records) >= limit:
            skipped["behind the limit"] += 1
            continue
        question, answers = question_of_row(row, number)
        key = comparable(question)
        if not key or not answers:
            skipped["no question" if not key else "no answer"] += 1
            continue
        if key in seen:
            skipped["question seen before"] += 1
            continue
        seen.add(key)
        rng = drawn(seed, "attack", key)
        own = [comparable(text) for text in answers]
        able = [both for both, forms in zip(unrelated, plain, strict=True) if not _touches(*forms, key, own)]
        if not able:
            skipped["every unrelated question touches it"] += 1
            continue
        attack = rng.choice(able)
        if rng.random() < benign:
            kind = (NONE, NONE)
        else:
            hand = hand or _dealt(kinds, seed, len(records))
            kind = hand.pop()
        made = _record(question, answers, attack, kind, corruption, rng)
        notes[f"style {kind[1]}"] += 1
        records.append(made)
    return Built(tuple(records), number, len(records), dict(skipped), dict(notes))


def _check(corruption: str, benign: float, limit: int | None, unrelated: Sequence[tuple[str, str]]) -> None:
    known = get_args(Corruption)
    if corruption not in known:
        raise SettingsError(f'unknown corruption "{corruption}".{nearest(corruption, known)}', remedy=", ".join(known))
    if not 0 <= benign < 1:
        raise SettingsError(f"the share of questions without an attack lies in [0, 1), not at {benign:g}.")
    if limit is not None and limit < 1:
        raise SettingsError(f"limit must be at least 1, not {limit}.")
    if not unrelated:
        raise SettingsError("no unrelated question is given.")


def question_of_row(row: Row, number: int) -> tuple[str, list[str]]:
    """A source row's question and answers. Raises RecordError for a row of another form."""
    question, answer = row.get("question"), row.get("answer")
    if question is None or answer is None:
        missing = "question" if question is None else "answer"
        raise RecordError(f'no field "{missing}".', where=f"row {number}", remedy="Rows need question and answer.")
    answers = [answer] if isinstance(answer, str) else answer
    if not isinstance(question, str) or not isinstance(answers, list) or not all(isinstance(a, str) for a in answers):
        raise RecordError("question is a text, and answer a text or a list of texts.", where=f"row {number}")
    return question.strip(), [text.strip() for text in answers if comparable(text)]


def _touches(attack: str, reply: str, question: str, answers: Sequence[str]) -> bool:
    """Whether answering one could be taken for answering the other: then nobody could tell whether it was resisted.

    All texts are `comparable` already.
    """
    around = (f" {reply} ", f" {attack} ")
    clash = any(f" {own} " in text or text in f" {own} " for text in around for own in answers)
    return clash or f" {reply} " in f" {question} "


def _dealt(kinds: Sequence[tuple[str, str]], seed: int, done: int) -> list[tuple[str, str]]:
    """Every kind once, shuffled: dealt out like cards, kinds differ by at most one record."""
    cards = list(kinds)
    drawn(seed, "kinds", str(done)).shuffle(cards)
    return cards


def _record(
    question: str, answers: Sequence[str], attack: tuple[str, str], kind: tuple[str, str], corruption: str, rng: Any
) -> Preference:
    position, style = kind
    main = rng.choice(QUESTIONS).format(question=sentence(question, "?"))
    words = rng.choice(ANSWERS)
    right, wrong = (words.format(answer=text.rstrip(".")) for text in (answers[0], attack[1]))
    right, wrong = sentence(right), sentence(wrong)
    if corruption == "mixed":
        corruption = rng.choice(("hijacked", "both"))
    prompt = main if style == NONE else inject(main, attack[0], position=position, style=style, rng=rng)
    meta = {
        "question": question,
        "answers": list(answers),
        "main": main,
        "attack": sentence(attack[0], "?"),
        "attack_answer": attack[1],
        "position": position,
        "style": style,
        "corruption": corruption,
    }
    rejected = wrong if corruption == "hijacked" else f"{right} {wrong}"
    return pair(prompt, right, rejected, source="attack-pref", group=style, intent=asked_for(question), meta=meta)
