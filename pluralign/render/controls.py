"""Control tokens (BOS, end of turn, role markers): telling those a template prints from those a text contains.

A dataset may hold the characters `<|im_end|>` in an answer. Encoded as they stand they would end the turn in the
middle of it, so text from data is always encoded as text. A row that contains such characters is *veiled* before the
template sees it (each control token becomes an inert word), and its rendering is then *aliased*: the tokens printed by
the template get private names, the words become the characters they stood for. Only such rows pay for this.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import RenderError
from ..records import Message, Messages

__all__ = ["Controls", "Text", "Veil", "control_tokens"]

# An alias is three private-use characters of plane 16: no tokenizer merges them, no dataset holds them by chance.
_OPEN, _CLOSE, _FIRST = "\U0010fffc", "\U0010fffd", 0x100000
_ALIAS = re.compile(f"{_OPEN}([{chr(_FIRST)}-\U0010fffb]){_CLOSE}")


class Text(NamedTuple):
    """A text to encode. `aliased`: control tokens stand as aliases, everything else is plain text."""

    text: str
    aliased: bool = False


def control_tokens(tokenizer: Any) -> tuple[str, ...]:
    """Every token of `tokenizer` that text must not be able to produce, longest first.

    These are the tokens marked special and the named ones (bos, eos, pad, ...). Added tokens that a model writes as
    part of an answer (`<think>`, `<tool_call>` where they are not marked special) are not among them.
    """
    added = getattr(tokenizer, "added_tokens_decoder", {})
    found = {token.content for token in added.values() if token.special}
    found.update(str(token) for token in tokenizer.all_special_tokens)
    return tuple(sorted((t for t in found if t.strip()), key=lambda t: (-len(t), t)))


class Controls:
    """The control tokens of one tokenizer, ready for searching, veiling and aliasing."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self.tokens = tuple(tokens)
        either = "|".join(map(re.escape, self.tokens))
        self.pattern = re.compile(either or r"(?!)")
        self.ending = re.compile(f"(?:{either})\\Z" if either else r"(?!)")
        self.closing = re.compile(f"(?:(?:{either})\\s*)+\\Z" if either else r"(?!)")
        self.aliases = {t: f"{_OPEN}{chr(_FIRST + i)}{_CLOSE}" for i, t in enumerate(self.tokens)}

    def reveal(self, text: str) -> str:
        """The text a person reads: every alias replaced by its control token."""
        return _ALIAS.sub(lambda m: self.tokens[ord(m[1]) - _FIRST], text)

    def alias_end(self, text: str) -> str | None:
        """The alias that `text` ends with, or None."""
        tail = text[-3:]
        return tail if _ALIAS.fullmatch(tail) else None

    def aliased_in(self, text: str) -> list[str]:
        """The control tokens that stand in `text` as aliases, in order."""
        return [self.tokens[ord(c) - _FIRST] for c in _ALIAS.findall(text)]

    def veil(self, turns: Iterable[Messages], tools: Sequence[Mapping[str, Any]], where: str = "") -> Veil | None:
        """A veil that hides the control tokens in these texts, or None where there are none (the usual case)."""
        strings = [m.content for messages in turns for m in messages]
        for messages in turns:
            for m in messages:
                if m.extra:
                    strings.extend(_strings(m.extra))
        if tools:
            strings.extend(_strings(tools))
        if not any(self.pattern.search(s) for s in strings):
            return None
        if any(_ALIAS.search(s) for s in strings):
            raise RenderError(
                "the text contains a control token and, besides, a private-use sequence that is reserved here.",
                where=where,
                remedy=f"Remove the character U+{ord(_OPEN):X} from the row.",
            )
        nonce = "Qzx"
        while any(nonce in s for s in strings):
            nonce += "zx"
        return Veil(self, nonce)


class Veil:
    """Hides the control tokens of one row behind inert words (`veil`), and brings their characters back (`alias`)."""

    def __init__(self, controls: Controls, nonce: str) -> None:
        self._controls = controls
        self._word = re.compile(f"{nonce}(\\d+)q")
        self._index = {t: f"{nonce}{i}q" for i, t in enumerate(controls.tokens)}

    def text(self, text: str) -> str:
        return self._controls.pattern.sub(lambda m: self._index[m[0]], text)

    def messages(self, turns: Messages) -> Messages:
        return tuple(Message(m.role, self.text(m.content), self.deep(m.extra)) for m in turns)

    def deep(self, value: Any) -> Any:
        """`value` (JSON-like) with every string in it veiled, keys included."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.deep(k): self.deep(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self.deep(v) for v in value)
        return value

    def plain(self, text: str) -> str:
        """A veiled text as the data had it."""
        return self._word.sub(lambda m: self._controls.tokens[int(m[1])], text)

    def alias(self, text: str) -> str:
        """A veiled rendering, ready for the aliased tokenizer: the template's tokens aliased, the data's plain."""
        named = self._controls.pattern.sub(lambda m: self._controls.aliases[m[0]], text)
        return self.plain(named)


def _strings(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for k, v in value.items():
            yield from _strings(k)
            yield from _strings(v)
    elif isinstance(value, list | tuple):
        for v in value:
            yield from _strings(v)
