"""Pluralign: align language models with what people want when people want different things."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public names and where they live; imported when first used, so that `pluralign --help` does not load torch.
_PUBLIC = {
    "Demonstration": "records", "Labelled": "records", "Message": "records", "Preference": "records",
    "Ranked": "records", "PluralignError": "errors", "Term": "terms", "load": "data", "Policy": "policy",
    "LoRA": "policy", "Outcome": "objectives", "OBJECTIVES": "objectives", "align": "api", "evaluate": "api",
    "report": "reports", "compare": "reports",
}  # fmt: skip
__all__ = [*sorted(_PUBLIC), "__version__"]

if TYPE_CHECKING:
    from .api import align as align
    from .api import evaluate as evaluate
    from .data import load as load
    from .errors import PluralignError as PluralignError
    from .objectives import OBJECTIVES as OBJECTIVES
    from .objectives import Outcome as Outcome
    from .policy import LoRA as LoRA
    from .policy import Policy as Policy
    from .records import Demonstration as Demonstration
    from .records import Labelled as Labelled
    from .records import Message as Message
    from .records import Preference as Preference
    from .records import Ranked as Ranked
    from .reports import compare as compare
    from .reports import report as report
    from .terms import Term as Term


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'pluralign' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
