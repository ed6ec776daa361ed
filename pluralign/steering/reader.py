"""Token ids to the text that a person reads, whole or piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..policy import Policy

__all__ = ["Reader"]

# Templates without control tokens: the model goes on to play the other side unless it is stopped at its name.
SPEAKERS = {
    "plain": ("\n\nUser:", "\n\nAssistant:", "\n\nSystem:", "\n\nTool:"),
    "hh": ("\n\nHuman:", "\n\nAssistant:"),
}
MORE = 4  # tokens: a character may take that many, and the first of a stop text may have begun before it


class Reader:
    """The text of one response while it is written. `stop` are texts that end it; `tell` is handed its pieces."""

    def __init__(self, policy: Policy, tell: Callable[[str], None] | None = None, stop: Sequence[str] = ()) -> None:
        self.tokenizer, self.stop_ids = policy.tokenizer, frozenset(policy.renderer.stop_ids)
        self.stop = (*SPEAKERS.get(policy.renderer.template.name, ()), *stop)
        self.tail = MORE * (1 + max((len(text) for text in self.stop), default=0))
        self.tell = tell
        self.ids: list[int] = []
        self.told = 0

    def add(self, token: int) -> bool:
        """One more token; whether it ends the response. What is sure of the text so far is told."""
        self.ids.append(token)
        ended = token in self.stop_ids or self._is_stopped()
        if self.tell and not ended:
            text = self.text(self.ids, whole=False)
            # hold back half a character, trailing blanks, and what may be the beginning of a stop text
            begun = [n for name in self.stop for n in range(1, len(name)) if text.endswith(name[:n])]
            self._tell(text[: len(text) - max(begun, default=0)].rstrip("\ufffd").rstrip())
        return ended

    def end(self) -> str:
        """The whole text. What had been held back is told."""
        text = self.text(self.ids)
        self._tell(text)
        return text

    def text(self, ids: Sequence[int], *, whole: bool = True) -> str:
        """The text of `ids` up to where the response ends; `whole`: nothing follows, so that blanks at its end go."""
        end = next((i for i, token in enumerate(ids) if token in self.stop_ids), len(ids))
        text = self._decode(ids[:end])
        for name in self.stop:
            text = text.partition(name)[0]
        return text.strip() if whole else text.lstrip()

    def _is_stopped(self) -> bool:
        if not self.stop:
            return False
        text = self._decode(self.ids[-self.tail :])
        return any(name in text for name in self.stop)

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _tell(self, text: str) -> None:
        if self.tell and len(text) > self.told:
            self.tell(text[self.told :])
            self.told = len(text)
