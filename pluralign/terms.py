"""Terms and plans: which responses are scored, under which context, by whom.

A plan is a plain function from one record to a few terms and columns. Names are the readings an objective asks for:
"w" and "l" (chosen, rejected), "y" (one response), "ys.0", "ys.1", ... (a list), "ref_" before any of them for the
reference. A name with a bar, "w|l", is the same target in a context that shows the other response.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

from .attributes import Place
from .errors import RecordError, RenderError
from .records import Demonstration, Labelled, Messages, Preference, Ranked, Record

__all__ = [
    "Alternative", "Aside", "Column", "Condition", "Item", "Plan", "Prefix", "Scores", "Term",
    "demonstration", "labelled", "pair", "plan_for", "ranking", "reference_free_pair",
]  # fmt: skip

By = Literal["policy", "reference"]
PROVIDED = (
    "attributes",
    "attributes_w",
    "attributes_l",
)  # columns that attribute scores bring, see conditioning.scored


@runtime_checkable
class Condition(Protocol):
    """Anything placed in the context beside the prompt; it renders itself into the turns it is given."""

    def apply(self, turns: Messages) -> Messages: ...


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another response to the same prompt, shown between the prompt and the target (InSPO, section 4 and C.2).

    It stands where a response stands, so that its tokens are a path of their own: x, y_l, y_w passes through x, y_l.
    `style` "separator": y_l, then `separator`, then the target. "turns": y_l is a finished assistant turn, `ask` a user
    turn after it, and the target the next assistant turn. `cap` is its longest length as a part of max_length (None:
    whatever fits). The renderer does the work: lengths are tokens.
    """

    response: Messages
    style: Literal["separator", "turns"] = "separator"
    separator: str = "[SEP]"
    ask: str = ""
    cap: float | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """Attribute scores in a prompt, already in words (see `attributes`), with the blanks that set them off.

    `place` "after" the last user turn, "before" it, or at the "answer": behind the assistant's header. Unless scores
    stand before the prompt, the renderer marks the last token ahead of them, where the prompt itself ends: it is what
    a sensing head reads. An empty text shows nothing and marks the same token. `soft` are ids below 0, which stand for
    vectors instead of tokens (see `heads.soft`), between that token and the text.
    """

    text: str
    place: Place = "after"
    soft: tuple[int, ...] = ()

    def apply(self, turns: Messages) -> Messages:
        """The turns with the scores in them. Raises RenderError where no user turn can hold them."""
        if self.place == "answer":
            return turns
        at = next((i for i in reversed(range(len(turns))) if turns[i].role == "user"), None)
        if at is None:
            raise RenderError("scores stand in the last user turn, and this prompt has none.")
        own = turns[at].content
        said = self.text + own if self.place == "before" else own.rstrip() + self.text
        return (*turns[:at], replace(turns[at], content=said), *turns[at + 1 :])


@dataclass(frozen=True, slots=True)
class Prefix:
    """How the response begins: a text that the model is shown at the place of its own words, and that is not scored.

    The template prints prefix and target as one assistant turn. `pieces` are tokenised apart, so that what is scored as
    an open target after the first of them (an option's number) has the ids that later terms are shown.
    """

    pieces: tuple[str, ...]

    @property
    def text(self) -> str:
        return "".join(self.pieces)


@dataclass(frozen=True, slots=True)
class Term:
    """log pi(target | context), read by the policy or the reference. `context` is (prompt, *conditions).

    `ended` False: the target is open, the beginning of a response that goes on (a letter, a digit, a phrase), and has
    no end of turn.
    """

    name: str
    context: tuple[Messages | Condition | Alternative | Prefix, ...]
    target: Messages
    by: By = "policy"
    ended: bool = True

    def turns(self) -> Messages:
        """The context as one list of turns: the prompt with every condition applied in order, but for what stands
        behind the assistant's header."""
        first, *conditions = self.context
        assert isinstance(first, tuple), "the first entry of a context is the prompt"
        turns: Messages = first
        for condition in conditions:
            if not isinstance(condition, Alternative | Prefix):
                assert isinstance(condition, Condition)
                turns = condition.apply(turns)
        return turns

    @property
    def scores(self) -> Scores | None:
        """The attribute scores in the context, if any."""
        return next((c for c in self.context if isinstance(c, Scores)), None)

    @property
    def alternative(self) -> Alternative | None:
        """The other response that the context shows, if any."""
        return next((c for c in self.context if isinstance(c, Alternative)), None)

    @property
    def prefix(self) -> tuple[str, ...]:
        """The pieces that the response begins with, unscored; empty where it begins with the target."""
        return next((c.pieces for c in self.context if isinstance(c, Prefix)), ())


@dataclass(frozen=True, slots=True)
class Column:
    """A number that comes with a record: a margin, a label, a score."""

    name: str
    value: float


@dataclass(frozen=True, slots=True)
class Aside:
    """Token ids beside a record's terms, for a head that reads with an encoder and a tokenizer of its own."""

    ids: tuple[int, ...]


Item = Term | Column | Aside
Plan = Callable[[Any], Iterable[Item]]


def demonstration(ex: Demonstration | Preference | Labelled) -> Iterable[Term]:
    """SFT: log pi(y | x), where y is the demonstration or the chosen response."""
    yield Term("y", (ex.prompt,), ex.chosen if isinstance(ex, Preference) else ex.response)


def reference_free_pair(ex: Preference) -> Iterable[Term]:
    """log pi(y_w | x) and log pi(y_l | x)."""
    yield Term("w", (ex.prompt,), ex.chosen)
    yield Term("l", (ex.prompt,), ex.rejected)


def pair(ex: Preference) -> Iterable[Term]:
    """The four log-probs of the DPO family: policy and reference, chosen and rejected."""
    yield from reference_free_pair(ex)
    yield Term("ref_w", (ex.prompt,), ex.chosen, by="reference")
    yield Term("ref_l", (ex.prompt,), ex.rejected, by="reference")


def labelled(ex: Labelled) -> Iterable[Term | Column]:
    """One response with its thumb: log pi(y | x), log pi_ref(y | x), and 1 for up, 0 for down."""
    yield Term("y", (ex.prompt,), ex.response)
    yield Term("ref_y", (ex.prompt,), ex.response, by="reference")
    yield Column("label", float(ex.label))


def ranking(ex: Ranked) -> Iterable[Term | Column]:
    """Every response of a list with its score, in the order of the data; the number may differ from row to row."""
    for by, prefix in (("policy", ""), ("reference", "ref_")):
        for i, response in enumerate(ex.responses):
            yield Term(f"{prefix}ys.{i}", (ex.prompt,), response, by=by)  # type: ignore[arg-type]
    for i, score in enumerate(ex.scores):
        yield Column(f"scores.{i}", score)


PLANS: dict[str, Plan] = {"demonstrations": demonstration, "pairs": pair, "labels": labelled, "lists": ranking}
COLLATED = ("mismatched", "ref_mismatched")  # made of two records when a batch is put together


def plan_for(kind: str, needs: Iterable[str], optional: Iterable[str] = ()) -> Plan:
    """The plan whose terms and columns are what an objective over records of that kind reads.

    Names that no term has are columns: a field of the record (`margin`) or an entry of its `meta`. `optional` ones are
    taken where a record has them.
    """
    needs = tuple(n for n in needs if n not in (*COLLATED, *PROVIDED))
    base = PLANS[kind]

    def plan(ex: Record) -> Iterable[Item]:
        found = set()
        for item in base(ex):
            assert not isinstance(item, Aside)
            stem = item.name.partition(".")[0]
            if stem in needs:
                found.add(stem)
                yield item
        for name in needs:
            if name not in found:
                yield Column(name, _number(ex, name))
        for name in optional:
            if getattr(ex, name, None) is not None or name in ex.meta:
                yield Column(name, _number(ex, name))

    return plan


def _number(ex: Record, name: str) -> float:
    value = getattr(ex, name, None)
    value = ex.meta.get(name) if value is None else value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RecordError(
            f'the objective reads "{name}", and this row has {"none" if value is None else repr(value)[:40]}.',
            remedy=f'Give every row a number "{name}", or choose another objective.',
        )
    return float(value)
