"""GlobalOpinionQA-Ext, offline: every option of a survey question is an intent, put in words by templates.

Source rows hold a country's answers to a question: `country`, `question`, `options` (K texts), `distribution` (K
shares). The chosen response holds the most accepted option, the rejected one another option at random (A-IPO, G.1.1);
with `pairs="all"` every option held by enough people is chosen once, weighted by its share: then majority and minority
want opposite things of one prompt. Records carry their beliefs, which GDPO reads, too (`data.beliefs.beliefs_of`).
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ...data.beliefs import SUM_TOLERANCE, beliefs_of
from ...errors import RecordError, SettingsError, nearest
from ...records import Preference
from .rows import Built, Row, comparable, drawn, pair
from .words import OPINIONS

__all__ = ["Asked", "Intents", "Pairs", "asked_rows", "belief_meta", "belief_row", "opinion_ext", "substantive"]

Pairs = Literal["top", "all"]
Intents = Literal["option", "country"]
CONTEXT = "Somebody from {country} is asked this."
_NO_OPINION = re.compile(
    r"\b(DK|REFUSED|VOL\.?)\b|\bdo not read\b|^don['\u2019]?t know|^do not know|^no answer|^refused|^other missing"
    r"|^missing\b|^not (asked|applicable|available)|^no opinion|^(can['\u2019]?t|cannot) (choose|say)"
    r"|^unsure|^not sure",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A country's answers to a question; `shares` are of those with an opinion: they add up to 1."""

    country: str
    question: str
    options: tuple[str, ...]
    shares: tuple[float, ...]


def substantive(option: str) -> bool:
    """Whether an option is an opinion, and not "don't know", "refused", or a code for missing answers."""
    return bool(option.strip()) and not _NO_OPINION.search(option.strip())


def opinion_ext(
    rows: Iterable[Row],
    *,
    countries: Sequence[str] | None = None,
    pairs: Pairs = "top",
    intents: Intents = "option",
    show_country: bool = True,
    least: float = 0.05,
    limit: int | None = None,
    seed: int = 0,
) -> Built:
    """Pairs of opinions; `countries`: only these (the paper takes ("United States",)), `show_country`: the prompt says
    where it is asked.

    Options that are no opinion or were not offered are left out, and the other shares divided by their sum. `group` is
    the country, `intent` the chosen option's text (or the country). `meta`: country, question, options, probabilities,
    accept, reject, `majority` (no other option of this country has a larger share) and `against_world` (the chosen
    option is not what the mean country of the source answers). `least`: the least share of an option chosen with
    `pairs="all"`.

    Rows of other countries, without two opinions, with shares that do not add up, and behind `limit` records are
    skipped and counted. Raises RecordError for rows of another form, SettingsError for unknown settings.
    """
    _check(countries, pairs, intents, least, limit)
    everywhere, number, why, notes = read_asked(rows)
    world = _world(everywhere)
    asked, elsewhere = _of_countries(everywhere, countries)
    skipped = Counter(why)
    skipped["another country"] += elsewhere
    counted = Counter(notes)
    records: list[Preference] = []
    used = 0
    for one in asked:
        if limit is not None and len(records) >= limit:
            skipped["behind the limit"] += 1
            continue
        counted["options tie for the first place"] += sum(s == max(one.shares) for s in one.shares) > 1
        records += _records(one, world[_key(one)], pairs, intents, show_country, least, seed)
        used += 1
    return Built(tuple(records[:limit]), number, used, dict(+skipped), dict(+counted))


def read_asked(rows: Iterable[Row]) -> tuple[list[Asked], int, dict[str, int], dict[str, int]]:
    """(what was asked where, rows, skipped by reason, notes) of GlobalOpinionQA's rows. Raises RecordError."""
    skipped: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    asked: list[Asked] = []
    number = 0
    for number, row in enumerate(rows, start=1):
        found = _asked(row, number, notes)
        if isinstance(found, str):
            skipped[found] += 1
        else:
            asked.append(found)
    return asked, number, dict(skipped), dict(+notes)


def asked_rows(
    rows: Iterable[Row], countries: Sequence[str] | None
) -> tuple[list[Asked], int, dict[str, int], dict[str, int]]:
    """`read_asked` of some countries (None: all); rows of the others are skipped. Raises SettingsError for an unknown
    country."""
    asked, number, skipped, notes = read_asked(rows)
    kept, elsewhere = _of_countries(asked, countries)
    return kept, number, {**skipped, **({"another country": elsewhere} if elsewhere else {})}, notes


def _of_countries(asked: Sequence[Asked], countries: Sequence[str] | None) -> tuple[list[Asked], int]:
    if countries is None:
        return list(asked), 0
    known = {one.country for one in asked}
    absent = min((name for name in countries if name not in known), default=None)
    if absent is not None:
        raise SettingsError(f'no usable row of the country "{absent}".{nearest(absent, known)}')
    kept = [one for one in asked if one.country in set(countries)]
    return kept, len(asked) - len(kept)


def belief_meta(one: Asked, accept: int, reject: int) -> dict[str, Any]:
    """What a record says of its question: options, shares, which option either response holds, and who is more."""
    return {
        "country": one.country,
        "question": one.question,
        "options": list(one.options),
        "probabilities": list(one.shares),
        "accept": accept,
        "reject": reject,
        "majority": one.shares[accept] == max(one.shares),
    }


def _check(countries: Sequence[str] | None, pairs: str, intents: str, least: float, limit: int | None) -> None:
    for what, value, known in (("way to make pairs", pairs, get_args(Pairs)), ("kind", intents, get_args(Intents))):
        if value not in known:
            remedy = f"Known: {', '.join(known)}."
            raise SettingsError(f'unknown {what} of intents or pairs "{value}".{nearest(value, known)}', remedy=remedy)
    if countries is not None and (isinstance(countries, str) or not countries):
        raise SettingsError("countries are a list of names.")
    if not 0 <= least < 1:
        raise SettingsError(f"the least share of a chosen option lies in [0, 1), not at {least:g}.")
    if limit is not None and limit < 1:
        raise SettingsError(f"limit must be at least 1, not {limit}.")


def _asked(row: Row, number: int, notes: Counter[str]) -> Asked | str:
    """A source row, or the reason why it is skipped."""
    where = f"row {number}"
    for name in ("country", "question", "options", "distribution"):
        if row.get(name) is None:
            raise RecordError(f'no field "{name}".', where=where)
    options, shares = row["options"], row["distribution"]
    if not isinstance(options, list) or not isinstance(shares, list) or len(options) != len(shares):
        raise RecordError('"options" and "distribution" are lists of one length.', where=where)
    if not all(isinstance(p, int | float) and math.isfinite(p) and p >= 0 for p in shares):
        raise RecordError('"distribution" holds what is no share.', where=where)
    if abs(math.fsum(shares) - 1) > SUM_TOLERANCE:
        return "shares do not add up to 1"
    texts = [f"{o:g}" if isinstance(o, int | float) else " ".join(str(o).split()) for o in options]
    kept = [(text, float(p)) for text, p in zip(texts, shares, strict=True) if substantive(text)]
    notes["options that are no opinion"] += len(texts) - len(kept)
    if len({text for text, _ in kept}) < len(kept):
        return "an option stands there twice"
    total = math.fsum(p for _, p in kept)
    if len(kept) < 2 or total <= 0:
        return "fewer than two opinions"
    own = (str(row["country"]).strip(), str(row["question"]).strip())
    return Asked(*own, tuple(text for text, _ in kept), tuple(p / total for _, p in kept))


def _key(one: Asked) -> tuple[str, frozenset[str]]:
    return comparable(one.question), frozenset(one.options)


def _world(asked: Sequence[Asked]) -> dict[tuple[str, frozenset[str]], str]:
    """What the mean country answers, by question and options (the first by name where options tie)."""
    sums: defaultdict[Any, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    for one in asked:
        for option, share in zip(one.options, one.shares, strict=True):
            sums[_key(one)][option] += share
    return {key: min(own, key=lambda option: (-own[option], option)) for key, own in sums.items()}


def _records(
    one: Asked, world: str, pairs: str, intents: str, show_country: bool, least: float, seed: int
) -> Iterator[Preference]:
    top = max(one.shares)
    firsts = [k for k, share in enumerate(one.shares) if share == top]
    rng = drawn(seed, "opinion", one.country, one.question)
    accepted = (
        [rng.choice(firsts)] if pairs == "top" else [k for k, p in enumerate(one.shares) if p >= max(least, 1e-9)]
    )
    for accept in accepted:
        reject = rng.choice([k for k in range(len(one.options)) if k != accept])
        words = rng.choice(OPINIONS)
        meta = {**belief_meta(one, accept, reject), "against_world": one.options[accept] != world}
        context = f"{CONTEXT.format(country=one.country)}\n\n" if show_country else ""
        yield pair(
            f"{context}{one.question}",
            words.format(option=one.options[accept]),
            words.format(option=one.options[reject]),
            source="opinion-ext",
            group=one.country,
            intent=one.options[accept] if intents == "option" else one.country,
            weight=1.0 if pairs == "top" else one.shares[accept],
            meta=meta,
        )


def belief_row(record: Preference) -> dict[str, Any]:
    """A record of `opinion_ext` as a row of the format `beliefs` (GDPO). Raises RecordError for one without beliefs."""
    beliefs = beliefs_of(record)
    reject = record.meta["reject"]
    prompt, question = record.prompt[-1].content, str(record.meta["question"])
    context = prompt.removesuffix(question).strip()
    row = {
        "context": context,
        "question": question,
        "options": list(beliefs.options),
        "probabilities": list(beliefs.shares),
        "accept_choice_id": beliefs.accept,
        "accept_choice": beliefs.options[beliefs.accept],
        "accept_response": record.chosen[-1].content,
        "reject_choice_id": reject,
        "reject_choice": beliefs.options[reject],
        "reject_response": record.rejected[-1].content,
        "majority": beliefs.majority,
        "group": record.group,
        "intent": record.intent,
        "source": record.source,
    }
    return row if record.weight == 1.0 else {**row, "weight": record.weight}
