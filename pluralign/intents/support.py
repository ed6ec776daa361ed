"""The last two stages of the knowledge pipeline: x_ext from a base, and x_con of what is supported."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from ..curate.pipeline import Step
from ..curate.texts import digest
from ..errors import SettingsError
from ..kept import Kept
from ..records import Record
from .bases import BaseDown, KnowledgeBase, Passage, fused
from .checking import Claim, FactChecker, Verdict
from .knowledge import LONGEST, Knowledge, knowledge_of
from .sentences import sentences
from .stages import SKIPPED, Item, stage

__all__ = ["FOUND", "check", "retrieve", "tally", "x_con_of"]

K = 5
PERTINENT = 0.45  # cosine of question and passage under MiniLM; `pipeline.PERTINENT` has others
NO_BASE = "no knowledge base"
DOWN = "the knowledge base does not answer"
FOUND = "knowledge.sqlite"  # what bases and checkers have found, by who was asked and what


# x_ext


def retrieve(
    base: KnowledgeBase | None,
    *,
    k: int = K,
    threshold: float = PERTINENT,
    steps: bool = False,
    go_on: bool = False,
    kept: Kept | None = None,
) -> Step:
    """The `k` passages nearest to the question and, with `steps`, to each step of x_aug, joined by reciprocal ranks.

    Passages below `threshold` are not pertinent; where none is left nothing is retrieved or checked, which is noted.
    Without a base, and with `go_on` where it does not answer, the same. Raises BaseDown without `go_on`; what was found
    before is kept.
    """
    if k < 1 or not -1 <= threshold <= 1:
        raise SettingsError(f"retrieval takes one passage at least and a cosine, not {k} and {threshold:g}.")
    store = kept or Kept(None)

    def work(items: Sequence[Item]) -> list[Knowledge]:
        if base is None:
            return [replace(known, passages=()).noted("retrieve", SKIPPED + NO_BASE) for _, known in items]
        asked = [(question[:LONGEST], *(known.steps if steps else ())) for question, known in items]
        try:
            found = _searched(base, asked, k, store)
        except BaseDown as error:
            if not go_on:
                raise
            why = SKIPPED + DOWN
            return [
                replace(k_, passages=(), base=f"{base.name}: {error.message}").noted("retrieve", why) for _, k_ in items
            ]
        return [_retrieved(known, base, near, threshold) for (_, known), near in zip(items, found, strict=True)]

    about = {"base": base.name if base else None, "passages": k, "threshold": threshold, "with_steps": steps}
    return stage("retrieve", work, about)


def _searched(base: KnowledgeBase, asked: Sequence[Sequence[str]], k: int, store: Kept) -> list[list[Passage]]:
    """For each list of texts the passages found for it; a base is asked about each list once."""
    who = f"{base.key} {k}"
    distinct = dict.fromkeys(map(tuple, asked))
    known: dict[tuple[str, ...], list[Passage]] = {}
    for texts in distinct:
        rows = store.get(digest((who, *texts)), json.loads)
        if rows is not None:
            known[texts] = [Passage(**row) for row in rows]
    missing = [texts for texts in distinct if texts not in known]
    answers = iter(base.search([text for texts in missing for text in texts], k) if missing else [])
    for texts in missing:
        known[texts] = fused([next(answers) for _ in texts], k)
    store.put((digest((who, *texts)), _line([asdict(p) for p in known[texts]])) for texts in missing)
    return [known[tuple(texts)] for texts in asked]


def _line(found: Any) -> str:
    return json.dumps(found, ensure_ascii=False)


def _retrieved(known: Knowledge, base: KnowledgeBase, near: Sequence[Passage], threshold: float) -> Knowledge:
    pertinent = [p for p in near if p.score >= threshold]
    rows = tuple({"id": p.id, "title": p.title, "score": round(p.score, 4), "text": p.text} for p in pertinent)
    made = replace(known, base=base.name, passages=rows)
    return made if rows else made.noted("retrieve", "nothing pertinent")


# x_con


def check(checker: FactChecker, *, keep_no_facts: bool = True, kept: Kept | None = None) -> Step:
    """Keep the supported sentences of x_aug and x_ext, as the record's x_con.

    Where nothing was retrieved there is nothing to check against: x_con is x_aug as it is, and that is noted.
    `keep_no_facts`: sentences that claim nothing (sub-questions) stay, as nothing of them can be false. Statements with
    their verdicts stand in `checked`, kept or not.
    """
    store = kept or Kept(None)

    def work(items: Sequence[Item]) -> list[Knowledge]:
        claims = [_claims(question, known) for question, known in items]
        verdicts = iter(_checked(checker, [c for many in claims for _, c in many], store))
        out = []
        for (_, known), many in zip(items, claims, strict=True):
            rows = tuple(_row(kind, claim, next(verdicts), keep_no_facts) for kind, claim in many)
            out.append(_concluded(known, rows))
        return out

    def finish(record: Record, known: Knowledge) -> dict[str, Any]:
        return {"x_con": x_con_of(known)}

    return stage("check", work, {"checker": checker.key, "keep_no_facts": keep_no_facts}, finish)


def x_con_of(known: Knowledge) -> str:
    """concat(x_aug, x_ext): the statements that were kept, those of x_aug first, one a line and each once; x_aug
    unchecked where nothing was there to check against."""
    if not known.passages:
        return "\n".join(known.steps)
    return "\n".join(
        row["text"] for part in ("aug", "ext") for row in known.checked if row["of"] == part and row["kept"]
    )


def _claims(question: str, known: Knowledge) -> list[tuple[str, Claim]]:
    texts = tuple(p["text"] for p in known.passages if p.get("text"))
    if not texts:
        return []
    aug = [("aug", s) for step in known.steps for s in sentences(step)]
    ext = [("ext", s) for s in dict.fromkeys(s for text in texts for s in sentences(text))]
    return [(kind, Claim(s, question[:LONGEST], texts)) for kind, s in (*aug, *ext)]


def _checked(checker: FactChecker, claims: Sequence[Claim], store: Kept) -> list[Verdict]:
    """A verdict for each claim; those that are kept are not asked for again, and what could not be read is not kept."""
    keys = [(c.question, c.text, *c.evidence) for c in claims]
    known: dict[tuple[str, ...], Verdict] = {}
    for key in dict.fromkeys(keys):
        row = store.get(digest((checker.key, *key)), json.loads)
        if row is not None:
            known[key] = Verdict(**row)
    missing = {key: claim for key, claim in zip(keys, claims, strict=True) if key not in known}
    found = checker.check(list(missing.values())) if missing else []
    new = dict(zip(missing, found, strict=True))
    read = [(key, verdict) for key, verdict in new.items() if verdict.label is not None]
    store.put((digest((checker.key, *key)), _line(asdict(verdict))) for key, verdict in read)
    return [(known | new)[key] for key in keys]


def _row(kind: str, claim: Claim, verdict: Verdict, keep_no_facts: bool) -> dict[str, Any]:
    stays = verdict.label == "ok" or (verdict.label == "nofact" and keep_no_facts)
    row: dict[str, Any] = {"text": claim.text, "of": kind, "label": verdict.label, "by": verdict.by, "kept": stays}
    more: Mapping[str, Any] = {"p": None if verdict.p is None else round(verdict.p, 4), "why": verdict.why or None}
    return {**row, **{name: value for name, value in more.items() if value is not None}}


def _concluded(known: Knowledge, rows: tuple[dict[str, Any], ...]) -> Knowledge:
    if not known.passages:
        why = known.notes.get("retrieve", SKIPPED + "nothing was retrieved").removeprefix(SKIPPED)
        return known.noted("check", f"{SKIPPED}{why}" if known.steps else f"{SKIPPED}{why}, and no x_aug")
    if not rows:  # the passages' texts are gone: it has been checked before
        return known
    passages = tuple({k: v for k, v in p.items() if k != "text"} for p in known.passages)
    made = replace(known, checked=rows, passages=passages)
    if not any(row["kept"] for row in rows):
        return made.noted("check", "no statement is supported")
    return made.noted("check", "a verdict is unparsed") if any(row["label"] is None for row in rows) else made


def tally(records: Iterable[Record]) -> dict[str, Counter[str]]:
    """Statements by where they are from ("aug", "ext") and their label, "unparsed" for those without."""
    out: dict[str, Counter[str]] = {"aug": Counter(), "ext": Counter()}
    for record in records:
        for row in knowledge_of(record).checked:
            out[row["of"]][row["label"] or "unparsed"] += 1
    return out
