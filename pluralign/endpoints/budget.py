"""What may be spent at an endpoint, and what was: requests, tokens, US dollars. The limit is a hard stop.

Before a request is sent its worst case is set aside: no tokenizer makes more tokens than there are bytes, and an answer
is at most as long as was asked for. What the endpoint says it used replaces that when the answer is there.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..errors import PluralignError, SettingsError

__all__ = ["Budget", "BudgetSpent", "Spent"]

_AMOUNT = re.compile(r"(\d+(?:_\d{3})*(?:\.\d+)?)\s*(usd|tokens|requests)(?:@(\d+(?:\.\d+)?)/(\d+(?:\.\d+)?))?")
REMEDY = "For example 500requests, 200000tokens, or 5usd@2/8 (USD per million prompt and answer tokens)."


class BudgetSpent(PluralignError):
    """The next request could cost more than is left. What was answered is kept."""

    exit_code = 5


@dataclass(slots=True)
class Spent:
    """What an endpoint was asked for in this process. Answers from the cache cost nothing and are not in it.

    `usd` is 0 where no prices are known. `guessed`: requests whose tokens the endpoint did not report, or that were
    given up; they are counted with their worst case.
    """

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float = 0.0
    guessed: int = 0

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def __str__(self) -> str:
        """`12 requests, 3,400 tokens, 0.02 USD`."""
        money = f", {self.usd:.2f} USD" if self.usd else ""
        guess = f" ({self.guessed:,} requests estimated)" if self.guessed else ""
        return f"{self.requests:,} requests, {self.tokens:,} tokens{money}{guess}"


@dataclass
class Budget:
    """Limits, each None where there is none, and what was spent of them; shared by whoever is given it, in any thread.

    `prices`: USD per million tokens of prompts and of answers. A limit in USD needs them.
    """

    requests: int | None = None
    tokens: int | None = None
    usd: float | None = None
    prices: tuple[float, float] | None = None
    spent: Spent = field(default_factory=Spent)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)
    _aside: list[tuple[int, int]] = field(default_factory=list, repr=False, compare=False)  # worst cases under way

    def __post_init__(self) -> None:
        if self.usd is not None and self.prices is None:
            raise SettingsError("a budget in USD needs the model's prices.", remedy=REMEDY)
        if any(limit is not None and limit < 0 for limit in (self.requests, self.tokens, self.usd)):
            raise SettingsError("a budget is not negative.")

    @classmethod
    def parse(cls, text: str, prices: tuple[float, float] | None = None) -> Budget:
        """The budget in words: `5usd@2/8`, `200000tokens`, `500requests`, or several with commas between them.

        Raises SettingsError for anything else, and for USD without prices.
        """
        limits: dict[str, float] = {}
        for part in text.lower().split(","):
            found = _AMOUNT.fullmatch(part.strip())
            if found is None or found[2] in limits or (found[2] != "usd" and ("." in found[1] or found[3])):
                raise SettingsError(f'"{part.strip()}" is no budget.', remedy=REMEDY)
            limits[found[2]] = float(found[1].replace("_", ""))
            prices = (float(found[3]), float(found[4])) if found[3] else prices
        requests, tokens = (int(limits[name]) if name in limits else None for name in ("requests", "tokens"))
        return cls(requests, tokens, limits.get("usd"), prices)

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """USD; 0 without prices."""
        per_prompt, per_answer = self.prices or (0.0, 0.0)
        return (prompt_tokens * per_prompt + completion_tokens * per_answer) / 1e6

    def set_aside(self, worst: tuple[int, int]) -> bool | None:
        """Whether a request of at most these tokens (prompt, answer) may be sent now; it is then counted on.

        None: not now, but perhaps once what is under way has turned out cheaper than it might be.
        """
        with self._lock:
            if self._fits([*self._aside, worst]):
                self._aside.append(worst)
                return True
            return None if self._aside and self._fits([worst]) else False

    def settle(self, worst: tuple[int, int], used: tuple[int, int] | None, *, guessed: bool = False) -> None:
        """What a request that was set aside has used; None: it was sent and used no tokens."""
        with self._lock:
            self._aside.remove(worst)
            prompt, answer = used or (0, 0)
            self.spent.requests += 1
            self.spent.prompt_tokens += prompt
            self.spent.completion_tokens += answer
            self.spent.usd += self.cost(prompt, answer)
            self.spent.guessed += guessed

    def _fits(self, more: Sequence[tuple[int, int]]) -> bool:
        prompt, answer = sum(p for p, _ in more), sum(a for _, a in more)
        spent = self.spent
        return (
            (self.requests is None or spent.requests + len(more) <= self.requests)
            and (self.tokens is None or spent.tokens + prompt + answer <= self.tokens)
            and (self.usd is None or spent.usd + self.cost(prompt, answer) <= self.usd + 1e-12)
        )

    def __str__(self) -> str:
        """`5 USD, 500 requests`; `no limit`."""
        parts = [f"{self.usd:g} USD"] if self.usd is not None else []
        parts += [f"{self.tokens:,} tokens"] if self.tokens is not None else []
        parts += [f"{self.requests:,} requests"] if self.requests is not None else []
        return ", ".join(parts) or "no limit"
