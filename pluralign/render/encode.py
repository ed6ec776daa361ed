"""Text to token ids. The only place that calls a tokenizer to encode.

Two ways to encode: `start` (a text that begins the sequence) and `follow` (a text that continues one, encoded apart
from what stands before it). They differ for tokenizers that put a space before the first word of whatever they are
given (SentencePiece style): a continuation must not get that space.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from ..errors import RenderError
from .controls import Controls, Text, control_tokens

__all__ = ["Encoded", "Encoder"]

Encoded = tuple[list[int], list[tuple[int, int]]]  # ids and their (start, end) characters


class Encoder:
    """Encodes texts with one tokenizer, never adding special tokens, never reading text as a control token."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.controls = Controls(control_tokens(tokenizer))
        self.bos_id: int | None = tokenizer.bos_token_id
        self.eos_id: int | None = tokenizer.eos_token_id
        self._known_guards: dict[tuple[str, bool], list[int]] = {}

    @cached_property
    def adds_bos(self) -> bool:
        """Whether the tokenizer, left alone, puts its BOS at the start of a sequence."""
        if self.bos_id is None:
            return False
        ids = self.tokenizer("a", verbose=False)["input_ids"]
        return len(ids) > 0 and ids[0] == self.bos_id and self._plain(["a"])[0][:1] != [self.bos_id]

    @cached_property
    def pads_first_word(self) -> bool:
        """Whether a text encoded on its own gets a space (or anything else) that it would not get after another."""
        alone, guard, both = self._plain(["a", "\n", "\na"])
        return both != guard + alone

    def start(self, texts: Sequence[Text], *, where: str = "") -> list[list[int]]:
        """The ids of texts that begin a sequence, without the BOS a tokenizer would add."""
        ids = self._plain([t.text for t in texts])
        for i, text in enumerate(texts):
            if text.aliased:
                ids[i] = self._aliased(text.text, where)[0]
        return ids

    def follow(self, texts: Sequence[tuple[Text, Text]], *, where: str = "") -> list[list[int]]:
        """The ids of each (before, text): `text` encoded apart from, but as coming after, `before`."""
        if not self.pads_first_word:
            return self.start([text for _, text in texts], where=where)
        guards = [self._guards(before)[0] for before, _ in texts]
        guarded = self.start(
            [Text(g + t.text, t.aliased) for g, (_, t) in zip(guards, texts, strict=True)], where=where
        )
        return [
            _without(self._guard_ids(g, t.aliased), ids) or self._follow_one(before, t, where)[0]
            for g, ids, (before, t) in zip(guards, guarded, texts, strict=True)
        ]

    def start_offsets(self, text: Text, *, where: str = "") -> Encoded:
        if text.aliased:
            return self._aliased(text.text, where)
        return self._offsets(text.text)

    def follow_offsets(self, before: Text, text: Text, *, where: str = "") -> Encoded:
        if not self.pads_first_word:
            return self.start_offsets(text, where=where)
        return self._follow_one(before, text, where)

    def to_text(self, text: Text) -> str:
        """The characters of `text` as a person reads them."""
        return self.controls.reveal(text.text) if text.aliased else text.text

    # How

    def _plain(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        try:
            out = self.tokenizer(
                texts,
                add_special_tokens=False,
                padding=False,
                truncation=False,
                return_attention_mask=False,
                return_token_type_ids=False,
                verbose=False,
            )
        except TypeError:
            _check_unicode(texts)
            raise
        return out["input_ids"]

    def _offsets(self, text: str) -> Encoded:
        if not self.tokenizer.is_fast:
            raise RenderError("a slow tokenizer does not tell where its tokens lie in the text.")
        out = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return out["input_ids"], [tuple(o) for o in out["offset_mapping"]]

    def _aliased(self, text: str, where: str) -> Encoded:
        _check_unicode([text], where)
        encoding = self._alias_backend.encode(text, add_special_tokens=False)
        ids = [self._alias_ids.get(i, i) for i in encoding.ids]
        printed = [i for i in self._ids_of(self.controls.aliased_in(text)) if i in self._control_ids]
        if [i for i in ids if i in self._control_ids] != printed:
            raise RenderError(
                "the text contains a control token of the tokenizer that cannot be encoded as plain text.",
                where=where,
                remedy="Remove it from the row.",
            )
        return ids, list(encoding.offsets)

    def _follow_one(self, before: Text, text: Text, where: str) -> Encoded:
        for guard in self._guards(before):
            ids, offsets = self.start_offsets(Text(guard + text.text, text.aliased), where=where)
            rest = _without(self._guard_ids(guard, text.aliased), ids)
            if rest is not None:
                n = len(guard)
                return rest, [(max(a - n, 0), max(b - n, 0)) for a, b in offsets[len(ids) - len(rest) :]]
        raise RenderError(
            f'the tokenizer cannot encode this text apart from what stands before it: "{self.to_text(text)[:30]}".',
            where=where,
        )

    def _guard_ids(self, guard: str, aliased: bool) -> list[int]:
        key = (guard, aliased)
        if key not in self._known_guards:
            self._known_guards[key] = self.start([Text(guard, aliased)])[0]
        return self._known_guards[key]

    def _guards(self, before: Text) -> list[str]:
        """What to encode a continuation after: the last control token or character before it, then stand-ins."""
        if before.aliased:
            last = self.controls.alias_end(before.text)
        else:
            match = self.controls.ending.search(before.text)
            last = match[0] if match else None
        return [g for g in (last or before.text[-1:], "\n", ":", "a") if g]

    def _ids_of(self, tokens: Sequence[str]) -> list[int]:
        return self.tokenizer.convert_tokens_to_ids(list(tokens))

    @cached_property
    def _control_ids(self) -> frozenset[int]:
        """Ids that plain text may never become. `unk` is not among them: any text may hold an unknown character."""
        return frozenset(self._ids_of(self.controls.tokens)) - {self.tokenizer.unk_token_id}

    @cached_property
    def _alias_backend(self) -> Any:
        """A copy of the tokenizer whose control tokens bear private names, so that their characters are mere text."""
        from tokenizers import Tokenizer

        if not self.tokenizer.is_fast:
            raise RenderError(
                "a row contains the characters of a control token, and this (slow) tokenizer cannot encode them as "
                "plain text.",
                remedy="Use a fast tokenizer, or remove the characters from the row.",
            )
        return Tokenizer.from_str(json.dumps(_renamed(self._spec, self.controls.aliases)))

    @cached_property
    def _alias_ids(self) -> dict[int, int]:
        """Ids of the aliased copy that differ from the tokenizer's own."""
        ids = {}
        for token in self._spec["added_tokens"]:
            name = self.controls.aliases.get(token["content"], token["content"])
            ids[self._alias_backend.token_to_id(name)] = token["id"]
        return ids

    @cached_property
    def _spec(self) -> dict[str, Any]:
        return json.loads(self.tokenizer.backend_tokenizer.to_str())


def _check_unicode(texts: Sequence[str], where: str = "") -> None:
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise RenderError(
                f"the text is not valid Unicode: a lone surrogate at character {error.start} of "
                f"{text[max(error.start - 12, 0) : error.start]!r}...",
                where=where,
                remedy="Repair the row's escapes.",
            ) from error


def _without(head: list[int], ids: list[int]) -> list[int] | None:
    """`ids` after `head`, or None where they do not begin with it."""
    return ids[len(head) :] if ids[: len(head)] == head else None


def _renamed(spec: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """The tokenizer.json `spec` with tokens renamed wherever they are named, and nothing added around a sequence."""
    spec = copy.deepcopy(spec)
    spec.update(post_processor=None, truncation=None, padding=None)
    for token in spec["added_tokens"]:
        if token["content"] in names:
            token.update(content=names[token["content"]], normalized=False, special=True)
    model = spec["model"]
    made = {"".join(m.split(" ") if isinstance(m, str) else m) for m in model.get("merges") or []}
    names = {token: name for token, name in names.items() if token not in made}  # those a merge makes must stay
    vocab = model.get("vocab")
    if isinstance(vocab, dict):
        model["vocab"] = {names.get(token, token): i for token, i in vocab.items()}
    elif isinstance(vocab, list):  # Unigram: [piece, score] by position
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in vocab]
    if isinstance(model.get("unk_token"), str):
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    return spec
