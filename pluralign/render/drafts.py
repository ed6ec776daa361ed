"""A record on its way from terms to token ids, and how its tokens are cut to the length limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ..errors import RenderError
from ..records import Messages
from ..terms import Term
from .alternative import Insert, Middle, fit
from .controls import Text, Veil
from .parts import Parts, Segment

if TYPE_CHECKING:
    from .renderer import Renderer

__all__ = ["Draft", "Rendered", "Work", "begun", "chain", "cut", "unbegun"]


@dataclass(frozen=True, slots=True)
class Rendered:
    """The token ids of one term. Lists may be shared between terms: do not change them.

    `scored` says which target tokens count (None: all of them). `cut_context`, `cut_target` and `cut_alternative` count
    the tokens lost to truncation; the last `inserted` tokens of the context show the alternative. `mark` is the place
    of the last token before attribute scores, where the prompt itself ends (None: no scores come after the prompt).
    """

    name: str
    context: list[int]
    target: list[int]
    scored: list[bool] | None = None
    cut_context: int = 0
    cut_target: int = 0
    cut_alternative: int = 0
    inserted: int = 0
    mark: int | None = None

    @property
    def ids(self) -> list[int]:
        """Context and target as one sequence."""
        return self.context + self.target

    def __len__(self) -> int:
        return len(self.context) + len(self.target)


@dataclass(slots=True)
class Draft:
    """The texts of one record before tokenising. `contexts[i]` is the context of `terms[i]`, by number."""

    terms: list[Term]
    parts: list[Parts]
    contexts: list[int]
    turns: list[Messages]  # by context number, veiled where `veil` is set
    veil: Veil | None
    where: str
    prompts: list[str] = field(default_factory=list)  # as the template prints them, by context number
    texts: list[Text] = field(default_factory=list)  # the same with scores behind the header, ready to encode
    starts: list[Text] = field(default_factory=list)  # what of it is encoded first,
    soft: list[tuple[int, ...]] = field(default_factory=list)  # then ids that stand for vectors,
    tails: list[Text | None] = field(default_factory=list)  # and, apart from the first: from the scores on
    inserts: list[Insert | None] = field(default_factory=list)  # what follows it there

    def text(self, text: str) -> Text:
        return Text(self.veil.alias(text), True) if self.veil else Text(text)

    def last(self, number: int) -> Text:
        """The piece of a context that what follows it is encoded after."""
        return self.tails[number] or self.starts[number]


@dataclass(frozen=True, slots=True)
class Work:
    """One record on its way: its texts, the ids before truncation (contexts by number without what is inserted, targets
    by term with which of their tokens count), and what came of them."""

    draft: Draft
    contexts: list[list[int]]
    targets: list[tuple[list[int], list[bool] | None]]
    rendered: list[Rendered]


def begun(term: Term) -> Messages:
    """The target as it stands in the response, behind its prefix: veiled as a whole, for a control token may be spelled
    across the two."""
    if not term.prefix:
        return term.target
    first, *more = term.target
    return (replace(first, content="".join(term.prefix) + first.content), *more)


def unbegun(term: Term, target: Messages, veil: Veil | None) -> tuple[tuple[str, ...], Messages]:
    """(pieces of the prefix, target behind it), both veiled where the row is. `target` is `begun(term)`, veiled.

    Raises RenderError where a control token is spelled across two pieces: no part of it could be told apart then.
    """
    prefix = tuple(veil.text(piece) for piece in term.prefix) if veil else term.prefix
    if not prefix:
        return (), target
    rest = veil.text(term.target[0].content) if veil else term.target[0].content
    if target[0].content != "".join(prefix) + rest:
        raise RenderError(
            "the characters of a control token stand across the beginning of a response and its rest.",
            remedy="Change the row's text.",
        )
    return prefix, (replace(target[0], content=rest), *target[1:])


def chain(draft: Draft, before: Text, segments: Sequence[Segment]) -> list[tuple[Text, Text, Segment]]:
    """Segments as (text before, text, segment)."""
    out = []
    for segment in segments:
        text = draft.text(segment.text)
        out.append((before, text, segment))
        before = text
    return out


def cut(
    draft: Draft,
    contexts: list[list[int]],
    marks: list[int | None],
    middles: list[Middle | None],
    targets: list[tuple[list[int], list[bool] | None]],
    renderer: Renderer,
) -> list[Rendered]:
    """The ids of every term within `max_length`. Raises RenderError where that is impossible or not allowed."""
    limit = renderer.max_length
    longest = [0] * len(contexts)
    for number, (ids, _) in zip(draft.contexts, targets, strict=True):
        longest[number] = max(longest[number], len(ids))
    shown = [fit(m, len(ids), n, limit) if m else ([], 0) for m, ids, n in zip(middles, contexts, longest, strict=True)]
    prompts = [
        _shorten(ids, limit - n - len(m), limit // 4, renderer.encoder.bos_id)
        for ids, n, (m, _) in zip(contexts, longest, shown, strict=True)
    ]
    out = []
    for term, number, (ids, scored) in zip(draft.terms, draft.contexts, targets, strict=True):
        between, gave_way = shown[number]
        context = prompts[number] + between
        room = limit - len(context)
        lost = max(len(ids) - room, 0)
        if lost and (renderer.overlong == "error" or room < 1 or (scored and not any(scored[:room]))):
            raise RenderError(
                f'the response of term "{term.name}" has {len(ids):,} tokens, and {max(room, 0):,} of '
                f"rendering.max_length={limit:,} are left for it.",
                where=draft.where,
                remedy="Raise rendering.max_length, set rendering.overlong=cut, or remove the row.",
            )
        if lost:
            ids, scored = ids[:room], scored and scored[:room]
        cut_context = len(contexts[number]) - len(prompts[number])
        mark = _moved(marks[number], cut_context, draft.where)
        out.append(Rendered(term.name, context, ids, scored, cut_context, lost, gave_way, len(between), mark))
    return out


def _moved(mark: int | None, lost: int, where: str) -> int | None:
    """Where the mark is once a context has lost tokens at its beginning."""
    if mark is not None and mark <= lost:
        raise RenderError(
            "nothing is left of the prompt beside its attribute scores.",
            where=where,
            remedy="Raise rendering.max_length.",
        )
    return None if mark is None else mark - lost


def _shorten(context: list[int], room: int, least: int, bos: int | None) -> list[int]:
    """The end of the context that fits into `room` tokens, after BOS; at least `least` of them."""
    keep = max(room, min(len(context), least))
    if keep >= len(context):
        return context
    if context[0] == bos:
        return [context[0], *context[len(context) - keep + 1 :]]
    return context[len(context) - keep :]
