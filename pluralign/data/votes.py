"""Who preferred what, person by person: pairs from votes on statements, from annotators' ratings and rewritings, and
from comparisons that name their worker.

    Polis, CCAI       votes of a person on statements: agreed with > disagreed with; what was passed or not seen says
                      nothing (`read_votes`, `vote_pairs`)
    POPQUORN          a person's ratings of texts: better rated > worse rated; a person's own revision of an e-mail >
                      the e-mail, or > another person's revision (`rating_pairs`, `rewriting_pairs`)
    Reddit TL;DR      a worker's choice between two summaries (`tldr_pairs`; H.5 of A-IPO takes the ten busiest workers)

Every record bears its person in `user`, and in `meta` the ids of the two things compared, so that pairs of one person
can be split by what was judged, not only by pair.
"""

from __future__ import annotations

import csv
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..errors import RecordError, SettingsError
from ..records import Message, Messages, Preference
from .fields import Row, need, number, text
from .readers import csv_rows, opened

__all__ = [
    "Ballot",
    "Votes",
    "busiest",
    "draw_pairs",
    "rating_pairs",
    "read_votes",
    "rewriting_pairs",
    "tldr_pairs",
    "vote_pairs",
]

VOTES = ("clean_votes.csv", "participants-votes.csv")  # CCAI has both: what was moderated comes first
COMMENTS = {"participants-votes.csv": "comments.csv", "clean_votes.csv": "clean_comments.csv"}
MEANS = {1.0: "agreed", -1.0: "disagreed", 0.0: "passed"}
REWRITE = "Rewrite this e-mail so that it is more polite:\n\n"


@dataclass(frozen=True, slots=True)
class Ballot:
    """One person's votes, by statement id. `group`: the opinion group that Polis put the person in, if any."""

    user: str
    agreed: tuple[str, ...]
    disagreed: tuple[str, ...]
    passed: tuple[str, ...] = ()
    group: str | None = None

    @property
    def pairs(self) -> int:
        """How many pairs the votes make."""
        return len(self.agreed) * len(self.disagreed)


@dataclass(frozen=True, slots=True)
class Votes:
    """A conversation: its topic, its statements by id, and who voted how. `untold`: voted on, but without a text."""

    topic: str
    statements: Mapping[str, str]
    ballots: tuple[Ballot, ...]
    untold: tuple[str, ...] = ()
    about: Mapping[str, str] = field(default_factory=dict)


# Polis


def read_votes(votes: str | Path, comments: str | Path | None = None, *, topic: str | None = None) -> Votes:
    """A Polis export: a folder (clean_votes.csv, else participants-votes.csv, the comments beside it, summary.csv for
    the topic), or the two files. Plain or gzipped.

    In a matrix 1 is agree, -1 disagree, 0 pass, and an empty cell not seen. Statements without a text are left out of
    the ballots and named in `untold`. Raises RecordError for a cell that is no vote, SettingsError for missing files.
    """
    votes = Path(votes)
    folder = votes if votes.is_dir() else votes.parent
    if votes.is_dir():
        votes = _first(folder, VOTES)
    if comments is None:
        comments = _first(folder, [COMMENTS.get(votes.name.removesuffix(".gz"), "comments.csv")])
    about = _summary(folder)
    statements = dict(_comments(Path(comments)))
    ballots, untold = [], set()
    for where, row in _rows(votes):
        columns = {name: cell for name, cell in row.items() if name.isdecimal()}
        if not columns:
            raise RecordError("no column is the number of a statement: this is no matrix of votes.", where=where)
        found: dict[str, list[str]] = {name: [] for name in MEANS.values()}
        for name, cell in columns.items():
            if (vote := _vote(cell, name, where)) is None:
                continue
            if name not in statements:
                untold.add(name)
                continue
            found[vote].append(name)
        person = str(row.get("participant", "")).strip()
        if not person:
            raise RecordError('the row has no "participant".', where=where)
        group = str(row.get("group-id", "")).strip() or None
        cast = {name: tuple(own) for name, own in found.items()}
        ballots.append(Ballot(user=person, group=group, **cast))
    title = topic if topic is not None else about.get("topic", "")
    return Votes(title, statements, tuple(ballots), tuple(sorted(untold, key=int)), about)


def _first(folder: Path, names: Sequence[str]) -> Path:
    for name in names:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    raise SettingsError(f"{folder} has no {' or '.join(names)} (plain or .gz).")


def _rows(path: Path) -> Iterator[tuple[str, Row]]:
    for raw in csv_rows(path):
        where = f"{path}:{raw.place}"
        if raw.error is not None:
            raise RecordError(raw.error, where=where)
        if raw.row is not None:
            yield where, raw.row


def _comments(path: Path) -> Iterator[tuple[str, str]]:
    for where, row in _rows(path):
        try:
            yield str(need(row, "comment-id")).strip(), text(need(row, "comment-body"), "comment-body").strip()
        except RecordError as error:
            raise RecordError(error.reason, where=where) from None


def _summary(folder: Path) -> dict[str, str]:
    """summary.csv: a name and a value in each row. Nothing where there is no such file."""
    for path in (folder / "summary.csv", folder / "summary.csv.gz"):
        if path.is_file():
            with opened(path) as file:
                lines = file.read().decode("utf-8-sig").splitlines(keepends=True)
            return {cells[0]: cells[1] for cells in csv.reader(lines) if len(cells) > 1}
    return {}


def _vote(cell: Any, name: str, where: str) -> str | None:
    if cell is None or cell == "":
        return None
    try:
        return MEANS[number(cell, name)]
    except (KeyError, RecordError):
        raise RecordError(f'"{cell}" in column {name} is no vote (1, -1, 0 or empty).', where=where) from None


def draw_pairs(better: Sequence[str], worse: Sequence[str], most: int | None, rng: random.Random) -> list[Any]:
    """At most `most` different (better, worse) pairs, in a drawn order; all of them where there are fewer."""
    whole = len(better) * len(worse)
    count = whole if most is None else min(most, whole)
    return [(better[i // len(worse)], worse[i % len(worse)]) for i in rng.sample(range(whole), count)]


def vote_pairs(votes: Votes, *, most: int | None = 200, at_least: int = 1, seed: int = 0) -> Iterator[Preference]:
    """For each person at most `most` pairs of a statement agreed with and one disagreed with, to the topic as prompt.

    People with fewer than `at_least` pairs are left out. Statements that read the same make no pair. The draw of a
    person depends on the seed and the person alone. Raises SettingsError for a conversation without a topic.
    """
    if not votes.topic.strip():
        raise SettingsError("the conversation has no topic, which is the prompt.", remedy='Give one: topic="...".')
    prompt = (Message("user", votes.topic.strip()),)
    for ballot in votes.ballots:
        if ballot.pairs < at_least:
            continue
        rng = random.Random(f"{seed}/{ballot.user}")
        for chosen, rejected in draw_pairs(ballot.agreed, ballot.disagreed, most, rng):
            if votes.statements[chosen] != votes.statements[rejected]:
                yield _pair(prompt, votes.statements[chosen], votes.statements[rejected], ballot.user, ballot.group,
                            {"chosen_id": chosen, "rejected_id": rejected})  # fmt: skip


def _pair(
    prompt: Messages, chosen: str, rejected: str, user: str, group: str | None, meta: Mapping[str, Any],
    margin: float | None = None,
) -> Preference:  # fmt: skip
    said = [(Message("assistant", t),) for t in (chosen, rejected)]
    made = Preference(prompt=prompt, chosen=said[0], rejected=said[1], user=user, group=group, meta=meta, margin=margin)
    made.validate()
    return made


# Annotators


def rating_pairs(
    rows: Iterable[Row], *, score: str = "offensiveness", item: str = "instance_id", body: str = "text",
    lower_is_better: bool = True, prompt: str = "Which message is better?", most: int | None = 200, seed: int = 0,
) -> Iterator[Preference]:  # fmt: skip
    """Pairs of texts that one person rated differently (POPQUORN: the less offensive one is chosen); ties say nothing.

    Rows have `user_id`, `item`, `body` and `score`; the margin is the difference of the two ratings. Rows without a
    `user_id` belong to nobody and are left out. Raises RecordError for rows of another form.
    """
    rated: dict[str, dict[str, tuple[str, float]]] = {}
    for i, row in enumerate(rows):
        if user := _person(row, i):
            with _at(i):
                rated.setdefault(user, {})[str(need(row, item))] = (
                    text(need(row, body), body), number(need(row, score), score)
                )  # fmt: skip
    asked = (Message("user", prompt),)
    for user, own in rated.items():
        sign = -1.0 if lower_is_better else 1.0
        goods = {i: sign * value for i, (_, value) in own.items()}
        found = [(a, b) for a in own for b in own if goods[a] > goods[b] and own[a][0] != own[b][0]]
        rng = random.Random(f"{seed}/{user}")
        for a, b in rng.sample(found, len(found) if most is None else min(most, len(found))):
            meta = {"chosen_id": a, "rejected_id": b}
            yield _pair(asked, own[a][0], own[b][0], user, None, meta, goods[a] - goods[b])


def rewriting_pairs(
    rows: Iterable[Row], *, against: Literal["original", "others"] = "original", ask: str = REWRITE
) -> Iterator[Preference]:
    """POPQUORN's e-mails: a person's own revision over the e-mail ("original"), or over the revisions that others made
    of it ("others": nobody was asked to compare these; that people prefer their own is an assumption).

    Rows without a `user_id`, and revisions that read like what they would be held against, are left out.
    """
    by_item: dict[str, list[tuple[str, str, str]]] = {}
    for i, row in enumerate(rows):
        if user := _person(row, i):
            with _at(i):
                before, after = (text(need(row, name), name) for name in ("original email", "revised email"))
                by_item.setdefault(str(need(row, "instance_id")), []).append((user, before, after))
    for item, own in by_item.items():
        for user, before, after in own:
            rivals = [before] if against == "original" else [other for who, _, other in own if who != user]
            for rival in dict.fromkeys(rivals):
                if after.strip() and rival.strip() and after.strip() != rival.strip():
                    yield _pair((Message("user", ask + before),), after, rival, user, None, {"item": item})


def _person(row: Row, i: int) -> str:
    if "user_id" not in row:
        raise RecordError('no field "user_id".', where=f"row {i}")
    return str(row["user_id"] or "").strip()


class _at:
    """Name the row in a RecordError of the block."""

    def __init__(self, i: int) -> None:
        self.i = i

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        if isinstance(error, RecordError) and not error.where:
            raise RecordError(error.reason, where=f"row {self.i}", remedy=error.remedy) from None


# Reddit TL;DR


def tldr_pairs(
    rows: Iterable[Row], *, policies: Sequence[str] | None = None, prefer: Mapping[str, str] | None = None
) -> Iterator[Preference]:
    """Comparisons of summarize_from_feedback: info.post (and title), two summaries (text, policy), choice, worker.

    `policies` keeps comparisons both of whose summaries come from one whose name begins so (PAL: the supervised ones,
    "sup"). `prefer` decides anew by length, by worker, as PAL's variant has it: {"worker": "longer" or "shorter"}
    (in words; equally long: no pair). Summaries that read the same make no pair. Raises RecordError for other rows.
    """
    for i, row in enumerate(rows):
        with _at(i):
            made = _comparison(row, policies, prefer or {})
        if made is not None:
            yield made


def _comparison(row: Row, policies: Sequence[str] | None, prefer: Mapping[str, str]) -> Preference | None:
    info, both, worker = need(row, "info"), need(row, "summaries"), text(need(row, "worker"), "worker")
    if not isinstance(info, Mapping) or not isinstance(both, list | tuple) or len(both) != 2:
        raise RecordError('expected an object "info" and two "summaries".')
    texts = [text(need(s, "text"), "summaries.text").strip() for s in both]
    made_by = [str(s.get("policy", "")) for s in both]
    choice = int(number(need(row, "choice"), "choice"))
    if choice not in (0, 1):
        raise RecordError(f'"choice" is {choice}, expected 0 or 1.')
    if policies is not None and not all(name.startswith(tuple(policies)) for name in made_by):
        return None
    if worker in prefer:
        if prefer[worker] not in ("longer", "shorter"):
            raise SettingsError(f'worker {worker} prefers "longer" or "shorter", not "{prefer[worker]}".')
        words = [len(t.split()) for t in texts]
        if words[0] == words[1]:
            return None
        choice = int((words[1] > words[0]) == (prefer[worker] == "longer"))
    if texts[0] == texts[1]:
        return None
    title = str(info.get("title") or "").strip()
    post = text(need(info, "post", "article"), "info.post").strip()
    asked = f"Summarise this post.\n\n{title}\n\n{post}" if title else f"Summarise this post.\n\n{post}"
    meta = {"item": str(info.get("id", "")), "policies": [made_by[choice], made_by[1 - choice]]}
    return _pair((Message("user", asked),), texts[choice], texts[1 - choice], worker, None, meta)


def busiest(records: Iterable[Preference], people: int = 10) -> list[Preference]:
    """The pairs of the people with most of them (ties: by name), in the order they came: TL;DR's ten workers."""
    kept = list(records)
    count = Counter(r.user for r in kept if r.user is not None)
    most = {name for name, _ in sorted(count.items(), key=lambda c: (-c[1], c[0]))[:people]}
    return [r for r in kept if r.user in most]
