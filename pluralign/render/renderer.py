"""Records to token ids: the context a model is shown and the target it would write after it, tokenised apart.

The contract, in one place:

* context ids are exactly what the model sees at inference (`Renderer.prompt` is the same code);
* target ids follow them; where the boundary lies is never guessed from text, so it is exact even where a tokenizer
  would merge across it (the audit counts such merges);
* one BOS at the start if the template or the tokenizer uses one, one end of turn per response that has ended;
* attribute scores that follow the prompt are tokenised apart from it, so that the prompt's own ids, and the token that
  a sensing head reads, do not depend on them;
* text from data never becomes a control token (see `controls`);
* truncation keeps the target and the end of the prompt; where the context shows another response (`Alternative`), that
  gives way first. Terms of one record that share a context keep the same part of it, whichever target is longer, so
  that their log-probs are conditioned on the same prompt.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

from ..attributes import Place
from ..errors import RenderError, SettingsError
from ..records import Messages, messages
from ..terms import Prefix, Scores, Term
from .alternative import Middle, insert, middle, separator
from .controls import Text
from .drafts import Draft, Rendered, Work, begun, chain, cut, unbegun
from .encode import Encoder
from .parts import Parts, Segment, Style, probe, split
from .spans import Shown, show
from .template import Template, Tools, resolve

__all__ = ["Draft", "Rendered", "Renderer", "Row", "Work"]

Row = tuple[Sequence[Term], Tools, str]  # the terms of one record, its tools, where it comes from
Finish = Callable[..., list[int]]  # (scores in words, ids that stand for vectors) -> what follows a prompt

_WORD = "Zq7Xw"  # stands at the end of a turn's content, to see where the template prints it
REVISION = 1  # raise it whenever the same settings would give other ids: reference caches are keyed by it
SMALLEST = 16  # tokens; below this no context and target fit


class Renderer:
    """Renders terms with one tokenizer, one template and one length limit. Holds no model.

    `max_length` limits context + target, in tokens. `overlong` says what happens to a target that does not fit even
    beside a quarter of `max_length` of context: "cut" keeps its first tokens (its end of turn is lost, and counted),
    "error" raises RenderError. `eos=False` leaves the end of turn off; `score_eos=False` shows it, but leaves it out of
    log-probs and lengths (InSPO, C.1). `options` go to the chat template.

    Raises SettingsError for settings that cannot work.
    """

    def __init__(
        self,
        tokenizer: Any,
        template: str = "auto",
        max_length: int = 1024,
        overlong: Literal["cut", "error"] = "cut",
        eos: bool = True,
        score_eos: bool = True,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if max_length < SMALLEST:
            raise SettingsError(f"rendering.max_length is {max_length}; it must be at least {SMALLEST} tokens.")
        if overlong not in ("cut", "error"):
            raise SettingsError(f'rendering.overlong is "{overlong}"; it must be "cut" or "error".')
        self.tokenizer = tokenizer
        self.max_length, self.overlong, self.eos, self.score_eos = max_length, overlong, eos, score_eos
        self.template: Template = resolve(template, tokenizer, options)
        self.encoder = Encoder(tokenizer)
        self.style = Style(self.template, self.encoder.controls, probe(self.template, self.encoder.controls), eos)
        if eos and self.encoder.eos_id is None and not (self.style.probe and self.style.probe.end):
            raise SettingsError(
                "the tokenizer has no EOS token and the template prints no end of turn.",
                remedy="Set tokenizer.eos_token, or rendering.eos=false.",
            )

    # Rendering

    def render(self, terms: Sequence[Term], tools: Tools = (), where: str = "") -> list[Rendered]:
        """The ids of the terms of one record, in order. Raises RenderError naming `where`."""
        return self.render_batch([(terms, tools, where)])[0]

    def render_batch(self, rows: Sequence[Row]) -> list[list[Rendered]]:
        """`render` for many records, tokenised in one call; the results are identical."""
        out = self.try_batch(rows)
        for result in out:
            if isinstance(result, RenderError):
                raise result
        return [result for result in out if not isinstance(result, RenderError)]

    def try_batch(self, rows: Sequence[Row]) -> list[list[Rendered] | RenderError]:
        """Like `render_batch`, with the error of a row that cannot be rendered in its place."""
        return [work if isinstance(work, RenderError) else work.rendered for work in self.work(rows)]

    def work(self, rows: Sequence[Row]) -> list[Work | RenderError]:
        """Everything known about each row on its way to ids, for `try_batch` and the audit."""
        drafts = [self._try_draft(row) for row in rows]
        done = iter(self._tokenise([d for d in drafts if isinstance(d, Draft)]))
        return [next(done) if isinstance(d, Draft) else d for d in drafts]

    def prompt(
        self,
        turns: Messages | str | Sequence[Mapping[str, Any]],
        tools: Tools = (),
        scores: Scores | None = None,
        prefix: Sequence[str] = (),
    ) -> list[int]:
        """The ids a model is shown for these turns at inference, with the generation header, not truncated. `prefix`
        are the pieces that its response begins with, the same ids as those of a term's `Prefix`."""
        turns = messages(turns)
        if prefix:
            context: tuple[Any, ...] = (turns, *([scores] if scores else []), Prefix(tuple(prefix[:-1])))
            last = messages(prefix[-1], role="assistant")
            (work,) = self.work([([Term("prefix", context, last, ended=False)], tools, "")])
            if isinstance(work, RenderError):
                raise work
            return work.contexts[0] + work.targets[0][0]
        if scores is None or scores.place == "before":
            return self._opened(scores.apply(turns) if scores else turns, tools, None)[0]
        start, finish = self.opened(turns, tools, scores.place)
        return start + finish(scores.text, scores.soft)

    def opened(
        self, turns: Messages | str | Sequence[Mapping[str, Any]], tools: Tools = (), place: Place = "after"
    ) -> tuple[list[int], Finish]:
        """`prompt` in two: the ids up to the token that a sensing head reads, which no scores change, and a function
        from scores in words, and ids that stand for vectors ahead of them, to the ids that follow. `place` is where the
        scores stand: "after" or "answer"."""
        mark = Scores("", place)
        return self._opened(mark.apply(messages(turns)), tools, mark)

    def _opened(self, turns: Messages, tools: Tools, mark: Scores | None) -> tuple[list[int], Finish]:
        veil = self.encoder.controls.veil([turns], tools)
        if veil:
            turns, tools = veil.messages(turns), veil.deep(tuple(tools))
        text = lambda t: Text(veil.alias(t), True) if veil else Text(t)
        first, rest = self._around_scores(self.template.write(turns, tools, True), turns, mark, tools)
        start = text(first)

        def finish(scores: str, soft: Sequence[int] = ()) -> list[int]:
            after = text(scores + (rest or ""))
            return [*soft, *(self.encoder.follow([(start, after)])[0] if after.text else [])]

        return self.begin(self.encoder.start([start])[0]), finish

    def spans(self, terms: Sequence[Term], tools: Tools = (), where: str = "") -> list[Shown]:
        """`render` with the role and the characters of every token, for people and audits (slower)."""
        return show(self, terms, tools, where)

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """The ids at which generation ends: the template's end of turn and the tokenizer's EOS."""
        ids = [] if self.encoder.eos_id is None else [self.encoder.eos_id]
        end = self.style.probe.end if self.style.probe else ""
        if end and end != self.tokenizer.bos_token:
            ids.insert(0, self.tokenizer.convert_tokens_to_ids(end))
        return tuple(dict.fromkeys(ids))

    def key(self) -> str:
        """A hash of everything that decides the ids: tokenizer content, template, settings, and (for templates that
        print the date) what they print today. Where the tokenizer was loaded from does not matter."""
        seen = self.style.probe
        settings = [REVISION, self.template.name, self.template.source, self.max_length, self.overlong, self.eos]
        settings += [] if self.score_eos else ["without eos"]
        parts = [self._tokenizer_key, *map(repr, settings), repr(seen), self._sample()]
        return hashlib.sha256("\x00".join(parts).encode()).hexdigest()[:32]

    # Texts

    def _try_draft(self, row: Row) -> Draft | RenderError:
        try:
            return self.draft(*row)
        except RenderError as error:
            return _named(error, row[2])

    def draft(self, terms: Iterable[Term], tools: Tools = (), where: str = "") -> Draft:
        """The texts of one record: its distinct contexts, each rendered once, and every target."""
        terms = list(terms)
        all_turns = [term.turns() for term in terms]
        targets = [begun(term) for term in terms]
        others = [term.alternative.response if term.alternative else () for term in terms]
        veil = self.encoder.controls.veil([*all_turns, *targets, *others], tools, where)
        if veil:
            all_turns, targets, others = ([veil.messages(t) for t in ts] for ts in (all_turns, targets, others))
            tools = veil.deep(tuple(tools))
        out = Draft(terms, [], [], [], veil, where)
        known: list[tuple[Any, ...]] = []  # turns, alternative and its veiled response, scores, by number
        made: list[tuple[int, Messages, tuple[str, ...], bool, Parts]] = []
        for term, turns, target, other in zip(terms, all_turns, targets, others, strict=True):
            own = (turns, term.alternative, other, term.scores)
            number = _index(known, own)
            if number == len(known):
                known.append(own)
                self._add_context(out, term, turns, other, tools)
            key = number, target, term.prefix, term.ended
            parts = next((p for *known_key, p in made if tuple(known_key) == key), None)
            if parts is None:
                shown = out.inserts[number]
                prompt, before = (shown.prompt, shown.turns) if shown else (out.prompts[number], turns)
                prefix, rest = unbegun(term, target, veil)
                parts = split(self.style, prompt, before, rest, tools, prefix, term.ended)
                made.append((*key, parts))
            out.parts.append(parts)
            out.contexts.append(number)
        return out

    def _add_context(self, out: Draft, term: Term, turns: Messages, response: Messages, tools: Tools) -> None:
        number = _index(out.turns, turns)
        prompt = self.template.write(turns, tools, True) if number == len(out.turns) else out.prompts[number]
        out.turns.append(turns)
        out.prompts.append(prompt)
        start, tail = self._around_scores(prompt, turns, term.scores, tools)
        out.texts.append(out.text(start + (tail or "")))
        out.starts.append(out.text(start))
        out.tails.append(None if tail is None else out.text(tail))
        out.soft.append(() if tail is None or term.scores is None else term.scores.soft)
        other = term.alternative
        if other is None:
            out.inserts.append(None)
            return
        after = separator(other.separator, self.tokenizer.sep_token, self.encoder.controls)
        out.inserts.append(insert(self.style, prompt, turns, other, response, after, tools))

    def _around_scores(
        self, prompt: str, turns: Messages, scores: Scores | None, tools: Tools
    ) -> tuple[str, str | None]:
        """The text of a context up to the scores, and from there on: it is encoded apart, so that what comes before is
        the same whatever is asked for. (text, None) where there are no scores, or they come first."""
        if scores is None or scores.place == "before":
            return prompt, None
        if scores.place == "answer":
            return prompt, scores.text
        at = next(i for i in reversed(range(len(turns))) if turns[i].role == "user")
        own = turns[at].content
        bare = own[: len(own) - len(scores.text)] if scores.text else own.rstrip()
        shown = (*turns[:at], replace(turns[at], content=bare + _WORD), *turns[at + 1 :])
        found = self.template.write(shown, tools, True)
        place = found.rfind(_WORD)
        same = found[:place] == prompt[:place] and prompt[place:].startswith(scores.text)
        if place < 1 or not own.endswith(scores.text) or not same:
            raise RenderError(
                "the template does not print the last user turn as it is, so that its end cannot be found.",
                remedy="Set rendering.template=plain.",
            )
        return prompt[:place], prompt[place:]

    # Ids

    def _tokenise(self, drafts: Sequence[Draft]) -> list[Work | RenderError]:
        """Encode the texts of many records in two calls, each distinct text once."""
        starts: dict[Text, list[int]] = {text: [] for draft in drafts for text in draft.starts}
        follows: dict[tuple[Text, Text], list[int]] = {
            (before, text): [] for draft in drafts for before, text in self._continuations(draft)
        }
        try:
            starts = dict(zip(starts, self.encoder.start(list(starts)), strict=True))
            follows = dict(zip(follows, self.encoder.follow(list(follows)), strict=True))
        except RenderError as error:
            if len(drafts) == 1:
                return [_named(error, drafts[0].where)]
            return [result for draft in drafts for result in self._tokenise([draft])]  # find the row
        return [self._assemble(draft, starts, follows) for draft in drafts]

    def _assemble(
        self, draft: Draft, starts: Mapping[Text, list[int]], follows: Mapping[tuple[Text, Text], list[int]]
    ) -> Work | RenderError:
        try:
            contexts = [self.begin(starts[text], draft.where) for text in draft.starts]
            marks = [None if tail is None else len(ids) - 1 for ids, tail in zip(contexts, draft.tails, strict=True)]
            contexts = [
                ids if tail is None else [*ids, *soft, *follows[start, tail]]
                for ids, start, soft, tail in zip(contexts, draft.starts, draft.soft, draft.tails, strict=True)
            ]
            middles = [self._middle(draft, number, follows) for number in range(len(contexts))]
            targets = []
            for i in range(len(draft.terms)):
                pieces = [(follows[before, text], segment) for before, text, segment in self.pieces(draft, i)]
                targets.append(self._ended(pieces, draft.terms[i], draft.where))
            return Work(draft, contexts, targets, cut(draft, contexts, marks, middles, targets, self))
        except RenderError as error:
            return _named(error, draft.where)

    def pieces(self, draft: Draft, i: int) -> list[tuple[Text, Text, Segment]]:
        """The target of term `i` as (text before, text, segment)."""
        shown = draft.inserts[draft.contexts[i]]
        before = draft.text(shown.after) if shown else draft.last(draft.contexts[i])
        return chain(draft, before, draft.parts[i].segments)

    def _continuations(self, draft: Draft) -> Iterator[tuple[Text, Text]]:
        """Every (text before, text) that has to be encoded apart."""
        for i in range(len(draft.terms)):
            yield from ((before, text) for before, text, _ in self.pieces(draft, i))
        for number, shown in enumerate(draft.inserts):
            tail = draft.tails[number]
            if tail is not None:
                yield draft.starts[number], tail
            if shown:
                pieces = chain(draft, draft.last(number), shown.segments)
                yield from ((before, text) for before, text, _ in pieces)
                yield pieces[-1][1], draft.text(shown.after)

    def _middle(self, draft: Draft, number: int, follows: Mapping[tuple[Text, Text], list[int]]) -> Middle | None:
        shown = draft.inserts[number]
        if shown is None:
            return None
        pieces = chain(draft, draft.last(number), shown.segments)
        ids = [follows[before, text] for before, text, _ in pieces]
        return middle(shown, ids, follows[pieces[-1][1], draft.text(shown.after)])

    def begin(self, ids: list[int], where: str = "") -> list[int]:
        """Context ids with the BOS that a tokenizer would add and the template does not print."""
        bos = self.encoder.bos_id
        if self.encoder.adds_bos and ids[:1] != [bos]:
            return [bos, *ids]  # type: ignore[list-item]
        if ids:
            return ids
        start = bos if bos is not None else self.encoder.eos_id
        if start is None:
            raise RenderError("empty prompt: the model has nothing to start from.", where=where)
        return [start]

    def _ended(
        self, pieces: Sequence[tuple[list[int], Segment]], term: Term, where: str
    ) -> tuple[list[int], list[bool] | None]:
        """Target ids with one end of turn, unless the term is open, and which of them the model wrote."""
        ids = [i for piece, _ in pieces for i in piece]
        ended = bool(pieces[-1][1].end)
        own = pieces[-1][0] if term.prefix else ids
        if len(own) <= ended:
            raise RenderError(
                "the response is empty once rendered.", where=where, remedy="Remove the row, or give it a response."
            )
        closes = self.eos and term.ended
        if closes and not ended:
            assert self.encoder.eos_id is not None, "checked when the renderer was made"
            ids.append(self.encoder.eos_id)
        if all(segment.scored for _, segment in pieces) and (self.score_eos or not closes):
            return ids, None
        scored = [segment.scored for piece, segment in pieces for _ in piece]
        scored += [True] * (len(ids) - len(scored))
        if closes and not self.score_eos:
            scored[-1] = False
        return ids, scored

    # Keys

    @cached_property
    def _tokenizer_key(self) -> str:
        tokenizer = self.tokenizer
        if tokenizer.is_fast:
            spec = json.loads(tokenizer.backend_tokenizer.to_str())
            spec.update(truncation=None, padding=None)  # state of the last call, not content
        else:
            added = {i: str(t) for i, t in sorted(tokenizer.added_tokens_decoder.items())}
            spec = {"class": type(tokenizer).__name__, "vocab": tokenizer.get_vocab(), "added": added}
        special = {k: str(v) for k, v in tokenizer.special_tokens_map.items()}
        split_special = bool(getattr(tokenizer, "split_special_tokens", False))
        text = json.dumps([spec, special, split_special], sort_keys=True, ensure_ascii=False, default=str)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def _sample(self) -> str:
        try:
            return self.template.write(messages("Jv4Kt"), (), True)
        except RenderError:
            return ""


def _named(error: RenderError, where: str) -> RenderError:
    """The error with the row it belongs to."""
    return error if error.where else RenderError(error.reason, where=where, remedy=error.remedy)


def _index(known: Sequence[Any], turns: Any) -> int:
    """The position of what equals `turns` in `known`, or its length."""
    return next((i for i, other in enumerate(known) if other is turns or other == turns), len(known))
