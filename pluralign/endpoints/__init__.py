"""One client for any server that speaks OpenAI's chat completions, and strict readers of what it answers.

endpoint = Endpoint.open("http://localhost:8000/v1", cache=Path("replies"))
replies = endpoint.ask([Request(messages("Say yes."), max_tokens=4)])
"""

from __future__ import annotations

from .addresses import is_address, parse_address
from .budget import Budget, BudgetSpent, Spent
from .client import Endpoint
from .parsing import bracketed, json_object, last_line, spoken_part, tagged
from .quoting import escaped, fenced, inert, mark_of, quoted
from .wire import Reply, Request

__all__ = [
    "Budget",
    "BudgetSpent",
    "Endpoint",
    "Reply",
    "Request",
    "Spent",
    "bracketed",
    "escaped",
    "fenced",
    "inert",
    "is_address",
    "json_object",
    "last_line",
    "mark_of",
    "parse_address",
    "quoted",
    "spoken_part",
    "tagged",
]
