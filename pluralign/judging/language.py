"""Language models behind an endpoint as judges: of pairs in both orders, by ratings from 1 to 10, by yes and no.

A reply that cannot be read is followed up once, in the same conversation; what then cannot be read either is unread,
with its words. Everything that a stored verdict depends on is in `key`: the model, every word it is asked, how it is
read.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from ..endpoints import Endpoint, Reply, Request, bracketed, json_object, spoken_part, tagged
from ..errors import SettingsError, nearest
from ..records import Message, Messages
from .verdicts import Comparison, Judgement, Outcome, Progress, Rating, Side, Subject, Verdict
from .wording import LIKELIHOOD, PAIR_STYLES, RATING, PairStyle, pair_messages, rating_messages, yes_no_messages

__all__ = ["LanguageJudge", "YesNoJudge", "pair_style"]

Read = TypeVar("Read")
ORDERS: tuple[Side, Side] = ("a", "b")
AGAIN = "The last line of your reply could not be read. Reply with that line alone, in exactly the form asked for."
TOP = 5  # log-probs that are told of a token
RATING_TOKENS, YES_NO_TOKENS = 2048, 512
REVERSED: dict[Outcome, Outcome] = {"win": "loss", "loss": "win", "tie": "tie"}
YES_NO = {
    "type": "object",
    "properties": {"reason": {"type": "string"}, "verdict": {"enum": [0, 1]}},
    "required": ["verdict"],
}


def pair_style(name: str) -> PairStyle:
    """The style of that name. Raises SettingsError for another."""
    if name not in PAIR_STYLES:
        raise SettingsError(
            f'no way of comparing is called "{name}".{nearest(name, PAIR_STYLES)}',
            remedy=f"Known: {', '.join(PAIR_STYLES)}.",
        )
    return PAIR_STYLES[name]


@dataclass(frozen=True)
class LanguageJudge:
    """Compares in both orders (a game each) under a `style`, and rates from 1 to 10 under `criteria`.

    `temperature` None leaves it to the endpoint, for models that take none; by default it is the style's, 0 but for
    AlpacaEval's, whose log-probs are read at 1. Raises what `Endpoint.ask` raises.
    """

    endpoint: Endpoint
    style: PairStyle = PAIR_STYLES["pair"]
    criteria: str = ""
    again: int = 1
    temperature: float | None = math.nan  # NaN: the style's
    low: float = RATING[0]
    high: float = RATING[1]

    @property
    def name(self) -> str:
        return self.endpoint.model

    @property
    def key(self) -> str:
        """The model, where it is, and a digest of its instructions."""
        empty = Comparison("", (Message("user", ""),), "", "", reference="-")
        subject = Subject("", empty.prompt * 2, "", reference="-")
        both = pair_messages(empty, "a", self.style)[0] + rating_messages(subject, self.criteria)
        said = [m.as_dict() for m in both]
        style = [self.style.form, self.style.max_tokens, RATING_TOKENS, self.again, AGAIN, str(self._temperature)]
        known = hashlib.sha256(json.dumps([said, style, list(self.style.labels)]).encode()).hexdigest()[:16]
        return f"language {self.endpoint.key} {self.style.name} {known}"

    def compare(self, items: Sequence[Comparison], *, progress: Progress | None = None) -> list[Judgement]:
        """Two games each, `a` first and `b` first."""
        games = [(item, first) for item in items for first in ORDERS]
        asked = [pair_messages(item, first, self.style) for item, first in games]
        tokens = self.style.form == "tokens"
        requests = [
            Request(messages, temperature=self._temperature, max_tokens=self.style.max_tokens,
                    logprobs=TOP if tokens else 0)
            for messages, _ in asked
        ]  # fmt: skip

        def read(i: int, reply: Reply) -> Verdict:
            first = games[i][1]
            return _by_tokens(reply, first) if tokens else _by_tag(reply, asked[i][1], first, self.style)

        found = _ask(self.endpoint, requests, read, lambda v: v.outcome is not None, 0 if tokens else self.again,
                     progress and (lambda done, of: progress(done // 2, of // 2)))  # fmt: skip
        return [Judgement(item.id, self.name, tuple(found[2 * i : 2 * i + 2])) for i, item in enumerate(items)]

    def rate(self, items: Sequence[Subject], *, progress: Progress | None = None) -> list[Rating]:
        """A number from 1 to 10, in double brackets at the end of the reply."""
        cold = 0.0 if self.temperature is not None else None
        requests = [Request(rating_messages(item, self.criteria), temperature=cold, max_tokens=RATING_TOKENS)
                    for item in items]  # fmt: skip

        def read(i: int, reply: Reply) -> Rating:
            number = bracketed(reply.text, self.low, self.high)
            said = spoken_part(reply.text).rpartition("\n")[0].strip()
            return Rating(items[i].id, self.name, number, reply.text, said if number is not None else _why(reply))

        return _ask(self.endpoint, requests, read, lambda r: r.score is not None, self.again, progress)

    @property
    def _temperature(self) -> float | None:
        given = self.temperature
        return self.style.temperature if given is not None and math.isnan(given) else given


@dataclass(frozen=True)
class YesNoJudge:
    """Answers one question about a response: 1 (yes) or 0 (no), in strict JSON. `enforced`: the endpoint is told the
    schema, too, which not every one takes."""

    endpoint: Endpoint
    question: str
    enforced: bool = False
    again: int = 1
    low: float = 0.0
    high: float = 1.0

    @property
    def name(self) -> str:
        return self.endpoint.model

    @property
    def key(self) -> str:
        said = [m.as_dict() for m in yes_no_messages(Subject("", (Message("user", ""),), ""), self.question)]
        known = hashlib.sha256(json.dumps([said, YES_NO, self.enforced, self.again]).encode()).hexdigest()[:16]
        return f"yes-no {self.endpoint.key} {known}"

    def rate(self, items: Sequence[Subject], *, progress: Progress | None = None) -> list[Rating]:
        """1 or 0; None where the reply is no such JSON."""
        requests = [Request(yes_no_messages(item, self.question), max_tokens=YES_NO_TOKENS,
                            schema=YES_NO if self.enforced else None) for item in items]  # fmt: skip

        def read(i: int, reply: Reply) -> Rating:
            found = json_object(reply.text, YES_NO)
            if found is None:
                return Rating(items[i].id, self.name, None, reply.text, _why(reply))
            return Rating(items[i].id, self.name, float(found["verdict"]), reply.text, str(found.get("reason", "")))

        return _ask(self.endpoint, requests, read, lambda r: r.score is not None, self.again, progress)


def _ask(
    endpoint: Endpoint,
    requests: Sequence[Request],
    read: Callable[[int, Reply], Read],
    is_read: Callable[[Read], bool],
    again: int,
    progress: Progress | None,
) -> list[Read]:
    """What is read of the replies; those that cannot be read are followed up, `again` times, and keep their first words
    where that does not help. What the endpoint refuses is not asked again."""
    asked = list(requests)
    replies = endpoint.ask(asked, progress=progress)
    found = [read(i, reply) for i, reply in enumerate(replies)]
    open_ = {i: reply for i, reply in enumerate(replies) if not is_read(found[i]) and reply.finish != "refused"}
    for _ in range(again):
        for i, reply in open_.items():
            asked[i] = replace(asked[i], messages=_followed(asked[i].messages, reply.text))
        more = endpoint.ask([asked[i] for i in open_]) if open_ else []
        for i, reply in zip(list(open_), more, strict=True):
            second = read(i, reply)
            if is_read(second):
                found[i] = second
                del open_[i]
            elif reply.finish == "refused":
                del open_[i]
            else:
                open_[i] = reply
    return found


def _followed(messages: Messages, said: str) -> Messages:
    own = (Message("assistant", said),) if said.strip() else ()
    return (*messages, *own, Message("user", AGAIN))


def _by_tag(reply: Reply, tag: str, first: Side, style: PairStyle) -> Verdict:
    label = tagged(reply.text, tag, style.labels)
    if label is None:
        return Verdict(None, first, raw=reply.text, reason=_why(reply))
    outcome, weight = style.labels[label]
    said = spoken_part(reply.text).rpartition("<" + tag)[0].strip()
    return Verdict(outcome if first == "a" else REVERSED[outcome], first, weight, None, reply.text, said)


def _by_tokens(reply: Reply, first: Side) -> Verdict:
    """AlpacaEval 2's preference: p = e^l(m) / (e^l(m) + e^l(M)), a token that is not told being impossible."""
    told = reply.logprobs[0] if reply.logprobs else ()
    mass = [sum(math.exp(lp) for token, lp in told if token.strip() == name) for name in LIKELIHOOD]
    if not sum(mass) > 0:
        return Verdict(
            None, first, raw=reply.text, reason=reply.error or "neither choice is among the likeliest tokens"
        )
    share = mass[0] / sum(mass) if first == "a" else mass[1] / sum(mass)
    outcome: Outcome = "win" if share > 0.5 else "loss" if share < 0.5 else "tie"
    return Verdict(outcome, first, share=share, raw=reply.text)


def _why(reply: Reply) -> str:
    """Why a reply could not be read."""
    return reply.error or ("cut off" if reply.finish == "length" else "not in the form asked for")
