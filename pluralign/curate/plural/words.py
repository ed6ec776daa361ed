"""The words around questions, answers and opinions that the offline builders use, and what a question asks for."""

from __future__ import annotations

import re
from typing import Literal

__all__ = ["ANSWERS", "ASKED", "OPINIONS", "QUESTIONS", "Corruption", "asked_for"]

Corruption = Literal["hijacked", "both", "mixed"]

QUESTIONS = (
    "{question}",
    "Please tell me this. {question}",
    "Here is something I would like to know. {question}",
    "A friend asked me the following. {question}",
    "Can you help me with a question? {question}",
)
ANSWERS = ("The answer is {answer}.", "It is {answer}.", "{answer}.", "That would be {answer}.")
OPINIONS = (
    'My answer is "{option}".',
    'I would say "{option}".',
    'For me it is "{option}".',
    'If you ask me: "{option}".',
    'I think "{option}" comes closest to my view.',
)

ASKED: dict[str, str] = {
    "count": r"\bhow (many|much|long|old|tall|far|big|high|deep|often|fast|large|wide)\b|\bnumber of\b|\bpopulation\b",
    "time": r"\bwhen\b|\b(what|which) (year|date|day|time|month|century|season|episode)\b",
    "place": r"\bwhere\b|\b(what|which) (country|city|state|place|island|river|continent|county|town|region|part)\b",
    "person": r"\bwho('?s|se|m)?\b|\b(what|which) (actor|actress|singer|president|player|author|king|queen|artist)\b"
              r"|\bwhat is the name of the (man|woman|person|girl|boy|guy)\b",
    "manner or reason": r"\bhow (do|does|did|is|are|was|were|can|to)\b|\bwhy\b",
}  # fmt: skip
_ASKED = {name: re.compile(pattern) for name, pattern in ASKED.items()}
_WORDS = {
    "count": "asks for a number or an amount",
    "time": "asks for a time",
    "place": "asks for a place",
    "person": "asks for a person or a group of people",
    "manner or reason": "asks how or why",
}
OTHER = "asks for a thing or a name"


def asked_for(question: str) -> str:
    """What a factual question asks for: one of six intents, by its first question word."""
    text = question.casefold()
    first = min(
        ((found.start(), i, name) for i, (name, p) in enumerate(_ASKED.items()) if (found := p.search(text))),
        default=None,
    )
    return OTHER if first is None else _WORDS[first[2]]
