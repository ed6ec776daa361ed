"""Pairs with intents from public preference sets: PrefEval's preferences, DSP's domains, the opinion groups of Polis.

In each the same or a similar prompt is answered differently for different intents. `meta["question"]` is what the
record is about, whoever asks it: splits keep it on one side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

from ...data.votes import Votes
from ...errors import RecordError, SettingsError, nearest
from ...records import Message, Messages, Preference
from .rows import Built, Row, drawn, pair

__all__ = ["Form", "Rejected", "dsp_intents", "polis_intents", "prefeval_intents"]

Form = Literal["hidden", "stated"]
Rejected = Literal["one", "all"]
VOTES = (
    ("I agree with this statement.", "I disagree with this statement."),
    ("Yes, I agree.", "No, I disagree."),
    ("I am for it.", "I am against it."),
    ("I support that.", "I oppose that."),
)
_TURNS = (("user", "query"), ("assistant", "assistant_options"), ("user", "user_selection"),
          ("assistant", "assistant_acknowledgment"))  # fmt: skip


def prefeval_intents(
    rows: Iterable[Row],
    *,
    form: Form = "hidden",
    dialogues: Iterable[Row] | None = None,
    intents: Literal["preference", "topic"] = "preference",
    rejected: Rejected = "one",
    seed: int = 0,
) -> Built:
    """PrefEval (`mcq_options`): the question, the answer that fits the preference (the first of
    `classification_task_options`) and one or all of the others. The intent is the preference, `group` and
    `meta["domain"]` its topic.

    `form`: the prompt holds the question alone, or the preference before it. `dialogues` (rows of
    `implicit_preference_choice_based`) puts the talk before the question from which the preference can be inferred;
    questions without one are skipped and counted. Raises RecordError for rows of another form.
    """
    _known(("form", form, get_args(Form)), ("intents", intents, ("preference", "topic")))
    _known(("choice of rejected responses", rejected, get_args(Rejected)))
    talks = None if dialogues is None else {_about(row, i): _talk(row, i) for i, row in enumerate(dialogues, start=1)}
    records: list[Preference] = []
    skipped: Counter[str] = Counter()
    number = used = 0
    for number, row in enumerate(rows, start=1):
        preference, question = _about(row, number)
        topic = str(row.get("_topic") or row.get("topic") or "")
        options = _texts(row, "classification_task_options", number)
        others = [text for text in dict.fromkeys(options[1:]) if text != options[0]]
        if not others:
            skipped["no other option"] += 1
            continue
        before: Messages = ()
        if talks is not None:
            if (preference, question) not in talks:
                skipped["no dialogue"] += 1
                continue
            before = talks[preference, question]
        asked = f"{preference}\n\n{question}" if form == "stated" else question
        meta: dict[str, Any] = {"question": question, "preference": preference, "domain": topic}
        for other in _some(others, rejected, seed, preference, question):
            records.append(
                pair((*before, Message("user", asked)), options[0], other, source="prefeval", group=topic or None,
                     intent=preference if intents == "preference" else topic, meta=meta)
            )  # fmt: skip
        used += 1
    return Built(tuple(records), number, used, dict(skipped))


def dsp_intents(rows: Iterable[Row], *, rejected: Rejected = "one", seed: int = 0) -> Built:
    """DSP: each domain's answer to a query, preferred to that of one or all other domains where its user is after it.

    Rows hold `query` and `responses` {domain: text}. The intent and the group are the domain, so the same prompt is
    answered in as many ways as there are domains. Equal texts of two domains are left out and counted in `notes`.
    """
    _known(("choice of rejected responses", rejected, get_args(Rejected)))
    records: list[Preference] = []
    skipped: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    number = used = 0
    for number, row in enumerate(rows, start=1):
        query, responses = _text(row, "query", number), row.get("responses")
        if not isinstance(responses, Mapping):
            raise RecordError('expected {domain: response} in "responses".', where=f"row {number}")
        said = {str(domain): text.strip() for domain, text in responses.items() if isinstance(text, str)}
        before = len(records)
        for domain, text in said.items():
            others = {name: other for name, other in said.items() if name != domain and other and other != text}
            notes["same text in two domains"] += sum(name != domain and said[name] == text for name in said)
            if not text or not others:
                continue
            for name in _some(sorted(others), rejected, seed, domain, query):
                meta = {"question": query, "domain": domain, "rejected_domain": name}
                made = pair(query, text, others[name], source="dsp", group=domain, intent=domain, meta=meta)
                records.append(made)
        if len(records) > before:
            used += 1
        else:
            skipped["no two different responses"] += 1
    return Built(tuple(records), number, used, dict(skipped), dict(+notes))


def polis_intents(votes: Votes, *, at_least: int = 10, contested: bool = False, seed: int = 0) -> Built:
    """Each statement as each opinion group of a Polis conversation answers it: rows are statements times groups.

    The group's more frequent vote is chosen, the opposite rejected, in the same words; the intent is the group.
    `meta`: statement, agree and disagree (counts in the group), `majority` (everybody's more frequent vote is the same)
    and `contested` (groups differ on it). Cells with fewer than `at_least` votes and ties are skipped and counted;
    `contested=True` skips the statements on which all groups agree. Raises SettingsError without opinion groups.
    """
    groups = sorted({ballot.group for ballot in votes.ballots if ballot.group is not None})
    if not groups:
        raise SettingsError("no vote has an opinion group.", remedy="Take an export with a group-id a participant.")
    tally: Counter[tuple[str, str, bool]] = Counter()
    for ballot in votes.ballots:
        for name, agrees in ((ballot.agreed, True), (ballot.disagreed, False)):
            tally.update((key, statement, agrees) for statement in name for key in {ballot.group or "", "*"})
    records: list[Preference] = []
    skipped: Counter[str] = Counter()
    used = 0
    for number, statement in votes.statements.items():
        counts = {g: (tally[g, number, True], tally[g, number, False]) for g in (*groups, "*")}
        sides = {g: a > d for g, (a, d) in counts.items() if g != "*" and a + d >= at_least and a != d}
        differ = len(set(sides.values())) > 1
        for group in groups:
            agree, disagree = counts[group]
            if agree + disagree < at_least:
                skipped["too few votes"] += 1
            elif agree == disagree:
                skipped["tie"] += 1
            elif contested and not differ:
                skipped["groups agree"] += 1
            else:
                said = drawn(seed, "votes", statement).choice(VOTES)
                chosen, other = said if sides[group] else said[::-1]
                everybody = counts["*"][0] > counts["*"][1]
                meta = {"question": statement, "agree": agree, "disagree": disagree, "contested": differ,
                        "majority": everybody == sides[group], "topic": votes.topic}  # fmt: skip
                prompt = f'Here is a statement: "{statement.strip()}" Do you agree with it?'
                intent = f"opinion group {group}"
                records.append(pair(prompt, chosen, other, source="polis", group=group, intent=intent, meta=meta))
                used += 1
    return Built(tuple(records), len(votes.statements) * len(groups), used, dict(skipped))


def _known(*given: tuple[str, str, Sequence[str]]) -> None:
    for what, value, known in given:
        if value not in known:
            raise SettingsError(
                f'unknown {what} "{value}".{nearest(value, known)}', remedy=f"Known: {', '.join(known)}."
            )


def _some(others: Sequence[str], rejected: str, seed: int, *key: str) -> Sequence[str]:
    return others if rejected == "all" else [drawn(seed, "rejected", *key).choice(others)]


def _text(row: Row, name: str, number: int) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise RecordError(f'expected a text in "{name}".', where=f"row {number}")
    return value.strip()


def _texts(row: Row, name: str, number: int) -> list[str]:
    value = row.get(name)
    if not isinstance(value, list) or not value or not all(isinstance(t, str) and t.strip() for t in value):
        raise RecordError(f'expected a list of texts in "{name}".', where=f"row {number}")
    return [text.strip() for text in value]


def _about(row: Row, number: int) -> tuple[str, str]:
    return _text(row, "preference", number), _text(row, "question", number)


def _talk(row: Row, number: int) -> Messages:
    talk = row.get("conversation")
    if not isinstance(talk, Mapping):
        raise RecordError('expected a dialogue in "conversation".', where=f"row {number}")
    return tuple(Message(role, _text(talk, name, number)) for role, name in _TURNS)
