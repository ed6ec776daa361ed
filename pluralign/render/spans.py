"""Which token is whose: roles for every token of a rendered term. For people (the audit), not for training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from ..errors import RenderError
from ..records import Message, Messages
from ..terms import Term
from .template import Template, Tools

if TYPE_CHECKING:
    from .controls import Text
    from .encode import Encoded
    from .parts import Segment
    from .renderer import Draft, Rendered, Renderer

__all__ = ["ROLES", "VECTOR", "Shown", "Span", "show"]

VECTOR = "⟦z⟧"  # how a vector in the place of a token is shown
ROLES = ("bos", "system", "user", "assistant", "tool", "template", "condition", "target", "eos")


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens [start, end) of context + target, all of one role (one of ROLES)."""

    role: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Shown:
    """A rendered term as a person looks at it: spans that partition the ids, and the characters of each token
    (empty for the second and later tokens of one character)."""

    rendered: Rendered
    spans: tuple[Span, ...]
    tokens: tuple[str, ...]


Token = tuple[str, str]  # role, characters
Piece = tuple[str, str]  # characters, role


def show(renderer: Renderer, terms: Sequence[Term], tools: Tools = (), where: str = "") -> list[Shown]:
    """Render the terms of one record and say what every token is. Raises RenderError as `Renderer.render` does."""
    draft = renderer.draft(terms, tools, where)
    out = []
    for i, rendered in enumerate(renderer.render(terms, tools, where)):
        context = _context_tokens(renderer, draft, i, tools)
        prompt = len(rendered.context) - rendered.inserted
        shown = rendered.context[prompt:]
        whole = prompt + rendered.cut_context
        if len(context) == whole - 1:
            context.insert(0, ("bos", str(renderer.tokenizer.bos_token)))
        elif context and rendered.context[0] == renderer.encoder.bos_id:
            context[0] = ("bos", context[0][1])
        keep = prompt
        if rendered.cut_context:
            head = context[:1] if rendered.context[0] == renderer.encoder.bos_id else []
            context = head + context[whole - keep + len(head) :]
        context += [("condition", renderer.tokenizer.decode([t])) for t in shown]
        target = _target_tokens(renderer, draft, i)[: len(rendered.target)]
        tokens = context + target
        assert len(tokens) == len(rendered), "every token has one role"
        out.append(Shown(rendered, _spans([role for role, _ in tokens]), tuple(text for _, text in tokens)))
    return out


def _spans(roles: Sequence[str]) -> tuple[Span, ...]:
    out, at = [], 0
    for role, run in groupby(roles):
        n = len(list(run))
        out.append(Span(role, at, at + n))
        at += n
    return tuple(out)


def _context_tokens(renderer: Renderer, draft: Draft, i: int, tools: Tools) -> list[Token]:
    number = draft.contexts[i]
    text = draft.texts[number]
    first = draft.terms[i].context[0]
    assert isinstance(first, tuple), "the first entry of a context is the prompt"
    if draft.veil:
        first, tools = draft.veil.messages(first), draft.veil.deep(tuple(tools))
    pieces = _context_pieces(renderer.template, draft.prompts[number], draft.turns[number], first, tools)
    if draft.veil:
        pieces = [(draft.veil.alias(piece), role) for piece, role in pieces]
    pieces.append((text.text[sum(len(piece) for piece, _ in pieces) :], "condition"))  # scores behind the header
    start, tail = draft.starts[number], draft.tails[number]
    vectors = [("condition", VECTOR)] * len(draft.soft[number])
    if not renderer.tokenizer.is_fast:
        ids, more = renderer.encoder.start([start])[0], renderer.encoder.follow([(start, tail)])[0] if tail else []
        out = [("template", renderer.tokenizer.decode([t])) for t in ids + more]
        return [*out[: len(ids)], *vectors, *out[len(ids) :]]
    ids, offsets = renderer.encoder.start_offsets(start, where=draft.where)
    count = len(ids)
    if tail:
        more, after = renderer.encoder.follow_offsets(start, tail, where=draft.where)
        n = len(start.text)
        ids, offsets = ids + more, offsets + [(a + n, b + n) for a, b in after]
    tokens = _tokens(renderer, text, (ids, offsets), pieces)
    return [*tokens[:count], *vectors, *tokens[count:]]


def _target_tokens(renderer: Renderer, draft: Draft, i: int) -> list[Token]:
    out: list[Token] = []
    pieces = renderer.pieces(draft, i)
    for before, text, segment in pieces:
        if renderer.tokenizer.is_fast:
            found = renderer.encoder.follow_offsets(before, text, where=draft.where)
            tokens = _tokens(renderer, text, found, _target_pieces(draft, i, text, segment))
        else:
            unscored = "condition" if draft.terms[i].prefix else "tool"
            role = "target" if segment.scored else unscored
            tokens = [(role, renderer.tokenizer.decode([t])) for t in renderer.encoder.follow([(before, text)])[0]]
        if segment.end and tokens:
            tokens[-1] = ("eos", tokens[-1][1])
        out += tokens
    if renderer.eos and draft.terms[i].ended and not pieces[-1][2].end:
        out.append(("eos", str(renderer.tokenizer.eos_token)))
    return out


def _target_pieces(draft: Draft, i: int, text: Text, segment: Segment) -> list[Piece]:
    if segment.scored:
        return [(text.text, "target")]
    if draft.terms[i].prefix:
        return [(text.text, "condition")]
    others = [turn for turn in draft.terms[i].target if turn.role != "assistant"]
    return _find(text.text, others, [[(turn.content, turn.role)] for turn in others])


def _tokens(renderer: Renderer, text: Text, found: Encoded, pieces: Sequence[Piece]) -> list[Token]:
    """Each token with the role of its first character and the characters that no token before it showed."""
    roles = [role for piece, role in pieces for _ in range(len(piece))]
    out, shown = [], 0
    for start, end in found[1]:
        role = roles[min(start, len(roles) - 1)] if roles else "template"
        out.append((role, renderer.encoder.to_text(text._replace(text=text.text[max(start, shown) : end]))))
        shown = max(shown, end)
    return out


# Whose characters are whose


def _context_pieces(template: Template, text: str, turns: Messages, prompt: Messages, tools: Tools) -> list[Piece]:
    """`text` (the context) cut into pieces by role.

    The same turns are rendered once more with an inert word for each content; what stands between the words is the
    template's. Where a template treats contents by what they say, they are searched for in order instead.
    """
    parts = _by_condition(turns, prompt)
    nonce = "Wq9Kz"
    while nonce in text:
        nonce += "q9"
    words = [f"{nonce}{i}v" if turn.content.strip() else turn.content for i, turn in enumerate(turns)]
    shadow = tuple(Message(turn.role, word, turn.extra) for turn, word in zip(turns, words, strict=True))
    try:
        frame = template.write(shadow, tools, True)
    except RenderError:
        return _find(text, turns, parts)
    out: list[Piece] = []
    rest = text
    for i, turn in enumerate(turns):
        if not turn.content.strip():
            continue
        before, word, frame = frame.partition(words[i])
        following = frame[: frame.find(nonce)] if nonce in frame else frame
        body = next((c for c in _trims(turn.content) if rest[len(before) :].startswith(c + following)), None)
        if not word or not rest.startswith(before) or body is None:
            return _find(text, turns, parts)
        out += [(before, "template"), *_trimmed(parts[i], turn.content, body)]
        rest = rest[len(before) + len(body) :]
    return [*out, (rest, "template")] if rest == frame else _find(text, turns, parts)


def _find(text: str, turns: Sequence[Message], parts: Sequence[list[Piece]]) -> list[Piece]:
    """Contents searched for in order; what is not found (text that the template rewrote) counts as the template's."""
    out: list[Piece] = []
    for turn, part in zip(turns, parts, strict=True):
        body = turn.content.strip()
        at = text.find(body) if body else -1
        if at >= 0:
            out += [(text[:at], "template"), *_trimmed(part, turn.content, body)]
            text = text[at + len(body) :]
    return [*out, (text, "template")]


def _trims(content: str) -> tuple[str, ...]:
    return content, content.strip(), content.lstrip(), content.rstrip()


def _trimmed(part: Sequence[Piece], content: str, body: str) -> list[Piece]:
    """The pieces of `content`, cut down to `body` (the content without some of its outer white space)."""
    skip, out = content.find(body), []
    left = len(body)
    for piece, role in part:
        piece, skip = piece[skip:], max(skip - len(piece), 0)
        out.append((piece[:left], role))
        left -= len(out[-1][0])
    return out


def _by_condition(turns: Messages, prompt: Messages) -> list[list[Piece]]:
    """For each turn its content in pieces: the prompt's own under its role, what a condition added as "condition"."""
    left = list(prompt)
    out: list[list[Piece]] = []
    for turn in turns:
        own = next((m for m in left if m == turn), None)
        if own is None:
            own = next((m for m in left if m.role == turn.role and m.content and m.content in turn.content), None)
        if own is None:
            out.append([(turn.content, "condition")])
            continue
        left.remove(own)
        before, body, after = turn.content.partition(own.content) if own.content else ("", turn.content, "")
        out.append([(before, "condition"), (body, turn.role), (after, "condition")])
    return out
