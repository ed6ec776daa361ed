"""Where a rendering is cut: what the model is shown, what it would write, what the tools write in between.

The context is the template's own rendering of the prompt with the generation header, as at inference. The target is
what the full conversation prints after it, up to the end-of-turn token; text printed after that token (a newline,
usually) belongs to the next turn and is left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..errors import PluralignError, RenderError
from ..records import Message, Messages
from .controls import Controls
from .template import Template, Tools

__all__ = ["Parts", "Probe", "Segment", "Style", "probe", "split"]

PLAIN_REMEDY = "Set rendering.template=plain, or use a template that prints a prompt the same way in both."

# A generation prompt may end in an opened or an empty block of reasoning that the finished turn does not show.
_REASONING = re.compile(r"(?P<open><(?P<tag>think|thinking|reasoning|seed:think)>)\s*(?P<close></(?P=tag)>\s*)?\Z")


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of the target. `scored`: written by the model, not by a tool or the template. `end`: the template's
    end-of-turn token that it closes with, if any."""

    text: str
    scored: bool
    end: str = ""


@dataclass(frozen=True, slots=True)
class Parts:
    """The texts of one term. `closed`: an opened reasoning block of the generation prompt was closed, empty."""

    context: str
    segments: tuple[Segment, ...]
    closed: bool = False


@dataclass(frozen=True, slots=True)
class Probe:
    """What a template prints around a response: `lead` between the prompt and it, `end` (the end-of-turn token, the
    last where several stand side by side, empty where there is none) and `tail` after that. `header`: whether asking
    for a generation prompt changes what is printed."""

    lead: str
    end: str
    tail: str
    header: bool


@dataclass(frozen=True, slots=True)
class Style:
    """How one renderer writes: its template, the control tokens, what the template prints around a response, and
    whether responses keep their end-of-turn token."""

    template: Template
    controls: Controls
    probe: Probe | None
    eos: bool


_WORD = "Zq7Xw"


def probe(template: Template, controls: Controls) -> Probe | None:
    """What `template` prints around a response of one inert word; None where it cannot render even that."""
    question, answer = Message("user", "Jv4Kt"), Message("assistant", _WORD)
    try:
        prompt = template.write((question,), (), True)
        full = template.write((question, answer), (), False)
        bare = template.write((question,), (), False)
    except PluralignError:
        return None
    if not full.startswith(prompt) or _WORD not in full[len(prompt) :]:
        lead, after = "", full.partition(_WORD)[2]
    else:
        lead, _, after = full[len(prompt) :].partition(_WORD)
    found = controls.pattern.search(after)
    if found is None:
        return Probe(lead, "", after, prompt != bare)
    while following := controls.pattern.match(after, found.end()):
        found = following
    return Probe(lead, found[0], after[found.end() :], prompt != bare)


def split(
    style: Style,
    prompt: str,
    turns: Messages,
    target: Messages,
    tools: Tools,
    prefix: Sequence[str] = (),
    ended: bool = True,
) -> Parts:
    """Cut the conversation `turns + target`. `prompt` is `template.write(turns, tools, True)`, rendered by the caller.

    `prefix` are pieces that the response begins with, a segment each that is not scored; `ended` False leaves out
    whatever the template prints after the target. Both are for a target of one turn.
    Raises RenderError where the template does not print the prompt as the beginning of the whole, and where the
    target is not the assistant's.
    """
    if target[0].role != "assistant" or target[-1].role != "assistant":
        raise RenderError(
            f"a response begins and ends with an assistant turn, found {', '.join(t.role for t in target)}.",
            remedy="Move the other turns into the prompt.",
        )
    partial = bool(prefix) or not ended
    if partial and len(target) > 1:
        raise RenderError("only a response of one turn can begin with a given text, or stay open.")
    if partial:
        target = (replace(target[0], content="".join(prefix) + target[0].content),)
    whole = style.template.write((*turns, *target), tools, False)
    if len(target) > 1:
        return Parts(prompt, _several(style, prompt, whole, turns, target, tools))
    body, closed = _continuation(prompt, whole, target[0])
    segment = _end(style, body, style.eos and ended)
    return Parts(prompt, _opened(segment, target[0].content, prefix, ended) if partial else (segment,), closed)


def _opened(segment: Segment, content: str, prefix: Sequence[str], ended: bool) -> tuple[Segment, ...]:
    """The segment of one turn cut behind each piece of `prefix`, and, unless `ended`, behind its `content`.

    Places are counted from the end: what a template or its reasoning block prints goes before the content.
    """
    text = segment.text.removesuffix(segment.end) if segment.end else segment.text
    written = text if text.endswith(content) else text.rstrip()  # templates may set a blank before the end of turn
    said = content.rstrip() if written != text else content
    if not written.endswith(said.lstrip()):  # and before the content, or trim it
        raise RenderError(
            "the template does not print a response as it is, so that its beginning cannot be found.",
            remedy=PLAIN_REMEDY,
        )
    out, at, left = [], 0, len(said)
    for piece in prefix:
        left -= len(piece)
        stop = len(written) - left
        out.append(Segment(written[at:stop], False))
        at = stop
    last = segment.text[at:] if ended else written[at:]
    return (*out, Segment(last, True, segment.end))


def _continuation(prompt: str, whole: str, answer: Message) -> tuple[str, bool]:
    """What `whole` prints after `prompt`, and whether an opened reasoning block had to be closed for it."""
    if whole.startswith(prompt):
        return whole[len(prompt) :], False
    block = _REASONING.search(prompt)
    if block is None or not whole.startswith(prompt[: block.start()]):
        raise _apart(prompt, whole)
    body = whole[block.start() :]
    if block["close"]:  # the prompt shows an empty block: the answer follows it
        if body.startswith(block["open"]):
            raise RenderError(
                "the generation prompt shows an empty reasoning block, and the response brings its own.",
                remedy="Switch reasoning on (rendering.options.enable_thinking=true, for many models), or remove it.",
            )
        return body, False
    # The prompt leaves the block open and the finished turn does not show it: the model writes the reasoning (where
    # the row has one), closes the block, then writes the answer.
    tag = block["tag"]
    if body.startswith(f"<{tag}>"):
        return body.removeprefix(f"<{tag}>").lstrip("\n"), False
    before, close, after = answer.content.partition(f"</{tag}>")
    if close:
        gap = after[: len(after) - len(after.lstrip())]
        return before.removeprefix(f"<{tag}>").lstrip("\n") + close + gap + body.lstrip(), False
    reasoning = answer.extra.get("reasoning_content") or answer.extra.get("reasoning")
    if isinstance(reasoning, str) and reasoning.strip():
        return f"{reasoning.strip()}\n</{tag}>\n\n{body.lstrip()}", False
    return f"\n</{tag}>\n\n{body}", True


def _end(style: Style, body: str, eos: bool) -> Segment:
    """The segment of a finished turn: up to its end-of-turn token, without what the template prints after it."""
    run = style.controls.closing.search(body)
    if run:
        # Of several closing tokens the one after an ordinary answer ends the turn (Phi-3 prints EOS after it); where
        # that one is missing (a tool call may end otherwise) it is the last.
        found = list(style.controls.pattern.finditer(body, run.start()))
        end = next((token for token in found if style.probe and token[0] == style.probe.end), found[-1])
        return Segment(body[: end.end()], True, end[0]) if eos else Segment(body[: end.start()], True)
    tail = style.probe.tail if style.probe and not style.probe.end else ""
    if tail and body.endswith(tail):
        body = body.removesuffix(tail) + tail.rstrip()
    return Segment(body, True)


def _several(
    style: Style, prompt: str, whole: str, turns: Messages, target: Messages, tools: Tools
) -> tuple[Segment, ...]:
    """The segments of a target of several turns: each assistant turn scored, what stands between them not."""
    segments: list[Segment] = []
    at = len(prompt)
    for i, turn in enumerate(target):
        if turn.role != "assistant":
            continue
        shown = style.template.write((*turns, *target[:i]), tools, True) if i else prompt
        if not whole.startswith(shown) or len(shown) < at:
            raise _apart(shown, whole)
        segments.append(Segment(whole[at : len(shown)], False))
        after = whole[len(shown) :]
        if i == len(target) - 1:
            segments.append(_end(style, after, style.eos))
        else:
            segments.append(_written(style, shown, after, (*turns, *target[: i + 1]), tools))
            at = len(shown) + len(segments[-1].text)
    return tuple(s for s in segments if s.text)


def _written(style: Style, shown: str, after: str, turns: Messages, tools: Tools) -> Segment:
    """The assistant turn that `after` begins with, up to its end of turn."""
    alone = style.template.write(turns, tools, False)
    if not alone.startswith(shown):
        raise _apart(shown, alone)
    segment = _end(style, alone[len(shown) :], True)
    if after.startswith(segment.text):
        return segment
    # The turn is printed differently when it is the last one (an empty reasoning block, say), but ends the same.
    at = after.find(segment.end) if segment.end else -1
    if at < 0:
        raise _apart(alone, shown + after)
    return Segment(after[: at + len(segment.end)], True, segment.end)


def _apart(prompt: str, whole: str) -> RenderError:
    at = next((i for i, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b), min(len(prompt), len(whole)))
    return RenderError(
        "the template prints the prompt differently before and after the answer: "
        f"{prompt[at : at + 24]!r} at inference, {whole[at : at + 24]!r} in the full conversation (character {at}).",
        remedy=PLAIN_REMEDY,
    )
