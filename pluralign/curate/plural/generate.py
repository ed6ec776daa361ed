"""Plural data by a language model: asked, checked, asked again where a reply does not do, and read by people.

Every reply is kept by the endpoint's cache, so that what was stopped goes on without asking twice, and its budget
holds. A reply that breaks the rules is told what is wrong, up to `tries` times; what then does not do is counted by
reason, and never mended by us. `write_review` makes a CSV in which a person keeps, drops or corrects rows;
`read_review` reads it.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...endpoints import Endpoint, Reply, Request, json_object
from ...errors import RecordError, SettingsError, nearest
from ...records import Message, Messages, Preference
from .attacks import POSITIONS, STYLES, attack_kinds, inject
from .opinions import Asked, asked_rows, belief_meta
from .prompts import DOMAINS, SCHEMAS, attack_messages, opinion_messages, real_messages, schema_of
from .rows import Built, Row, comparable, drawn, holds, pair
from .words import asked_for

__all__ = ["generate_attack", "generate_opinions", "generate_real", "read_intents", "read_review", "write_review"]

MAX_TOKENS = 1024
TEMPLATE = ("time", "roles", "region", "cultural_factors")  # the identity template of I.5
REVIEW = ("keep", "number", "intent", "group", "prompt", "chosen", "rejected", "remark")
Progress = Callable[[int, int], None]
Check = Callable[[dict[str, Any]], str]  # what is wrong with a reply; empty: nothing


def asked_until(
    endpoint: Endpoint,
    asked: Sequence[Messages],
    schemas: Sequence[Mapping[str, Any]],
    checks: Sequence[Check],
    *,
    tries: int = 3,
    temperature: float = 0.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[dict[str, Any] | str]:
    """The object of each reply, or why there is none after `tries` rounds. Raises what `Endpoint.ask` does."""
    if tries < 1:
        raise SettingsError(f"a question is asked at least once, not {tries} times.")
    talks = list(asked)
    found: list[dict[str, Any] | str] = ["not asked"] * len(talks)
    open_ = list(range(len(talks)))
    for turn in range(tries):
        requests = [Request(talks[i], temperature=temperature, max_tokens=MAX_TOKENS, seed=seed + turn) for i in open_]
        replies = endpoint.ask(requests, progress=progress if turn == 0 else None) if open_ else []
        still = []
        for i, reply in zip(open_, replies, strict=True):
            found[i] = wrong = _read(reply, schemas[i], checks[i])
            if isinstance(wrong, str) and reply.finish != "refused":
                still.append(i)
                own = (Message("assistant", reply.text),) if reply.text.strip() else ()
                again = f"That does not do: {wrong}. Reply anew, with one JSON object in the form asked for."
                talks[i] = (*talks[i], *own, Message("user", again))
        open_ = still
    return found


def _read(reply: Reply, schema: Mapping[str, Any], check: Check) -> dict[str, Any] | str:
    if reply.error or reply.finish == "refused":
        return reply.error or "refused"
    found = json_object(reply.text, schema)
    if found is None:
        return "the reply was cut off" if reply.finish == "length" else "it is not the JSON object asked for"
    return check(found) or found


def _texts_differ(found: Mapping[str, Any], one: str, other: str) -> str:
    empty = next((name for name, text in found.items() if isinstance(text, str) and not text.strip()), None)
    if empty is not None:
        return f'"{empty}" is empty'
    return f'"{one}" and "{other}" are the same' if comparable(found[one]) == comparable(found[other]) else ""


# REAL-PREF


def read_intents(path: str | Path) -> list[dict[str, str]]:
    """Rows of a CSV with `domain` and `intent`, and where they are known `time`, `roles`, `region`, `cultural_factors`.

    Raises SettingsError for no file, RecordError (file:line) for a row without either, an unknown domain, or twice the
    same intent of a domain.
    """
    path = Path(path)
    if not path.is_file():
        raise SettingsError(f"there is no file {path}.", remedy="Name a CSV with the columns domain and intent.")
    rows: list[dict[str, str]] = []
    seen: set[tuple[str, str]] = set()
    with path.open(encoding="utf-8-sig", newline="") as file:
        for line, row in enumerate(csv.DictReader(file), start=2):
            domain, intent = ((row.get(name) or "").strip() for name in ("domain", "intent"))
            where = f"{path}:{line}"
            if not domain or not intent:
                raise RecordError("a row needs a domain and an intent.", where=where)
            if domain.lower() not in DOMAINS:
                hint = nearest(domain.lower(), DOMAINS)
                raise RecordError(f'unknown domain "{domain}".{hint}', where=where, remedy=", ".join(DOMAINS) + ".")
            if (key := (domain.lower(), comparable(intent))) in seen:
                raise RecordError(f'"{intent}" stands there twice.', where=where)
            seen.add(key)
            own = {name: (row.get(name) or "").strip() for name in TEMPLATE}
            rows.append({"domain": domain.lower(), "intent": intent, **own})
    if not rows:
        raise RecordError("there are no intents.", where=str(path))
    return rows


def generate_real(
    endpoint: Endpoint,
    intents: Sequence[Mapping[str, str]],
    *,
    each: int = 1,
    tries: int = 3,
    temperature: float = 0.7,
    seed: int = 0,
    progress: Progress | None = None,
) -> Built:
    """REAL-PREF: `each` scenes for every intent of `read_intents`. Rows are intents times scenes.

    A reply does where the three texts are there, the responses differ, and the question does not spell the intent out.
    Scenes that repeat a question are skipped and counted.
    """
    wanted = [(row, k) for row in intents for k in range(each)]
    asked = [real_messages(row["domain"], row["intent"], {n: row.get(n, "") for n in TEMPLATE}, k) for row, k in wanted]

    def check(intent: str) -> Check:
        def wrong(found: dict[str, Any]) -> str:
            said = "prompt_question spells the intention out" if holds(found["prompt_question"], intent) else ""
            return _texts_differ(found, "accept_response", "reject_response") or said

        return wrong

    schema = schema_of(SCHEMAS["real"])
    checks = [check(row["intent"]) for row, _ in wanted]
    found = asked_until(endpoint, asked, [schema] * len(asked), checks, tries=tries, temperature=temperature,
                        seed=seed, progress=progress)  # fmt: skip
    records: list[Preference] = []
    skipped: Counter[str] = Counter()
    seen: set[str] = set()
    for (row, k), one in zip(wanted, found, strict=True):
        if isinstance(one, str):
            skipped[one] += 1
        elif (key := comparable(one["prompt_question"])) in seen:
            skipped["question seen before"] += 1
        else:
            seen.add(key)
            meta = {"question": one["prompt_question"], "domain": row["domain"], "scene": k,
                    "background": {name: row.get(name, "") for name in TEMPLATE if row.get(name)}}  # fmt: skip
            records.append(pair(one["prompt_question"], one["accept_response"], one["reject_response"],
                                source="real-pref", group=row["domain"], intent=row["intent"], meta=meta))  # fmt: skip
    return Built(tuple(records), len(wanted), len(records), dict(skipped))


# ATTACK-PREF


def generate_attack(
    endpoint: Endpoint,
    rows: Iterable[Row],
    *,
    positions: Sequence[str] = POSITIONS,
    styles: Sequence[str] = STYLES,
    tries: int = 3,
    limit: int | None = None,
    temperature: float = 0.7,
    seed: int = 0,
    progress: Progress | None = None,
) -> Built:
    """ATTACK-PREF: rows of `attack_pref`, with questions, answers and attacks in a model's words, and A as there.

    A reply does where the direct answer holds one of the known answers, the attack's answer holds none, and the
    questions differ.
    """
    from .attack_pref import question_of_row

    kinds = attack_kinds(positions, styles)
    skipped: Counter[str] = Counter()
    wanted: list[tuple[str, list[str]]] = []
    seen: set[str] = set()
    number = 0
    for number, row in enumerate(rows, start=1):
        question, answers = question_of_row(row, number)
        if not answers or not comparable(question):
            skipped["no answer" if comparable(question) else "no question"] += 1
        elif comparable(question) in seen:
            skipped["question seen before"] += 1
        elif limit is not None and len(wanted) >= limit:
            skipped["behind the limit"] += 1
        else:
            seen.add(comparable(question))
            wanted.append((question, answers))

    def check(answers: Sequence[str]) -> Check:
        def wrong(found: dict[str, Any]) -> str:
            if not any(holds(found["direct_answer"], answer) for answer in answers):
                return "direct_answer does not hold the answer that was given"
            if any(holds(found["adversarial_answer"], answer) for answer in answers):
                return "adversarial_answer holds the answer to the first question"
            return _texts_differ(found, "expanded_question", "adversarial_question")

        return wrong

    schema = schema_of(SCHEMAS["attack"])
    asked = [attack_messages(question, answers[0]) for question, answers in wanted]
    found = asked_until(endpoint, asked, [schema] * len(asked), [check(a) for _, a in wanted], tries=tries,
                        temperature=temperature, seed=seed, progress=progress)  # fmt: skip
    records: list[Preference] = []
    for (question, answers), one in zip(wanted, found, strict=True):
        if isinstance(one, str):
            skipped[one] += 1
            continue
        rng = drawn(seed, "attack", comparable(question))
        position, style = kinds[len(records) % len(kinds)]
        main, attack = one["expanded_question"].strip(), one["adversarial_question"].strip()
        meta = {
            "question": question,
            "answers": answers,
            "main": main,
            "attack": attack,
            "position": position,
            "style": style,
            "attack_answer": one["adversarial_answer"].strip(),
            "corruption": "hijacked",
        }
        prompt = inject(main, attack, position=position, style=style, rng=rng)
        records.append(pair(prompt, one["direct_answer"].strip(), one["adversarial_answer"].strip(),
                            source="attack-pref", group=style, intent=asked_for(question), meta=meta))  # fmt: skip
    return Built(tuple(records), number, len(records), dict(skipped))


# GlobalOpinionQA-Ext


def generate_opinions(
    endpoint: Endpoint,
    rows: Iterable[Row],
    *,
    countries: Sequence[str] | None = ("United States",),
    rephrasings: int = 3,
    tries: int = 3,
    temperature: float = 0.7,
    seed: int = 0,
    progress: Progress | None = None,
) -> Built:
    """GlobalOpinionQA-Ext: `rephrasings` pairs a question and country; the chosen one says the most accepted option,
    the rejected one another, drawn. Options are put in words once a question; all countries share the words."""
    kept, number, dropped, notes = asked_rows(rows, countries)
    skipped: Counter[str] = Counter(dropped)
    texts: dict[tuple[str, tuple[str, ...]], int] = {}
    for one in kept:
        texts.setdefault((one.question, one.options), len(texts))
    asked = [opinion_messages(question, options, rephrasings) for question, options in texts]
    inner = {"type": "array", "items": {"type": "array", "items": {"type": "string"}}}
    schema = {"type": "object", "properties": {"replies": inner}, "required": ["replies"]}

    def check(options: Sequence[str]) -> Check:
        def wrong(found: dict[str, Any]) -> str:
            replies = found["replies"]
            if len(replies) != len(options) or any(len(own) != rephrasings for own in replies):
                return f"replies hold {rephrasings} texts for each of {len(options)} options"
            said = [comparable(text) for own in replies for text in own]
            return "" if all(said) and len(set(said)) == len(said) else "a reply is empty, or stands there twice"

        return wrong

    found = asked_until(endpoint, asked, [schema] * len(asked), [check(options) for _, options in texts], tries=tries,
                        temperature=temperature, seed=seed, progress=progress)  # fmt: skip
    records: list[Preference] = []
    used = 0
    for one in kept:
        said = found[texts[one.question, one.options]]
        if isinstance(said, str):
            skipped[said] += 1
            continue
        records += _opinion_pairs(one, said["replies"], rephrasings, seed)
        used += 1
    return Built(tuple(records), number, used, dict(+skipped), notes)


def _opinion_pairs(one: Asked, replies: Sequence[Sequence[str]], rephrasings: int, seed: int) -> list[Preference]:
    rng = drawn(seed, "opinion", one.country, one.question)
    top = max(one.shares)
    accept = rng.choice([k for k, share in enumerate(one.shares) if share == top])
    out = []
    for number in range(rephrasings):
        reject = rng.choice([k for k in range(len(one.options)) if k != accept])
        meta = {**belief_meta(one, accept, reject), "rephrasing": number}
        out.append(pair(one.question, replies[accept][number].strip(), replies[reject][number].strip(),
                        source="opinion-ext", group=one.country, intent=one.options[accept], meta=meta))  # fmt: skip
    return out


# People


def write_review(built: Built, path: str | Path, *, overwrite: bool = False) -> int:
    """A CSV with a row for each record: `keep` (yes), what it holds, and room for a remark. Returns how many.

    Raises SettingsError where the file exists: what people wrote there is not replaced.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise SettingsError(f"{path} exists already.", remedy="Name another file, or pass --overwrite.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(REVIEW)
        for number, record in enumerate(built.records):
            table.writerow(["yes", number, record.intent or "", record.group or "", record.prompt[-1].content,
                            record.chosen[-1].content, record.rejected[-1].content, ""])  # fmt: skip
    return len(built.records)


def read_review(built: Built, path: str | Path) -> Built:
    """The records after review: rows with `keep` = no are dropped, corrected texts and intents taken over.

    Every record has to stand there once. Raises RecordError (file:line) for a row that is none of them, a `keep`
    that is neither yes nor no, a record that lacks, and a correction that makes no pair.
    """
    path = Path(path)
    if not path.is_file():
        raise SettingsError(f"there is no file {path}.", remedy="Make it first: --review FILE.")
    kept: dict[int, Preference | None] = {}
    corrected = 0
    with path.open(encoding="utf-8-sig", newline="") as file:
        for line, row in enumerate(csv.DictReader(file), start=2):
            where = f"{path}:{line}"
            number = (row.get("number") or "").strip()
            if not number.isdecimal() or int(number) >= len(built.records) or int(number) in kept:
                raise RecordError(f'"{number}" is the number of no record, or stands there twice.', where=where)
            word = (row.get("keep") or "").strip().lower()
            if word not in ("yes", "no"):
                raise RecordError(f'keep is yes or no, not "{word}".', where=where)
            old = built.records[int(number)]
            new = _corrected(old, row, where) if word == "yes" else None
            corrected += new is not None and new != old
            kept[int(number)] = new
    missing = next((i for i in range(len(built.records)) if i not in kept), None)
    if missing is not None:
        raise RecordError(f"record {missing} is missing.", where=str(path), remedy='Put "no" under keep to drop one.')
    records = tuple(one for i in range(len(built.records)) if (one := kept[i]) is not None)
    notes = {**built.notes, "dropped in review": len(kept) - len(records), "corrected in review": corrected}
    return replace(built, records=records, notes={name: n for name, n in notes.items() if n})


def _corrected(old: Preference, row: Mapping[str, str | None], where: str) -> Preference:
    said = {name: row.get(name) or "" for name in ("intent", "prompt", "chosen", "rejected")}
    lacking = next((name for name in ("prompt", "chosen", "rejected") if not said[name].strip()), None)
    if lacking is not None:
        raise RecordError(f'"{lacking}" is empty.', where=where)
    try:
        return replace(
            old,
            prompt=(*old.prompt[:-1], replace(old.prompt[-1], content=said["prompt"])),
            chosen=(replace(old.chosen[-1], content=said["chosen"]),),
            rejected=(replace(old.rejected[-1], content=said["rejected"]),),
            intent=said["intent"].strip() or None,
        ).validate()
    except RecordError as error:
        raise RecordError(error.reason, where=where) from None
