"""Data in which people want different things of one prompt (A-IPO, Appendix F): built from public rows, or generated.

built = attack_pref(rows_of("nq_open_dev.jsonl.gz"), seed=0)     # Built: records, and where every row went
parts = three_ways(built.records, by="question", seed=0)         # {"train": [...], "validation": ..., "test": ...}
write_folder(built, "data/attack")                               # the same, as files
"""

from __future__ import annotations

from .attack_pref import attack_pref
from .attacks import NONE, POSITIONS, STYLES, attack_kinds, inject
from .folder import write_folder
from .intents import dsp_intents, polis_intents, prefeval_intents
from .opinions import belief_row, opinion_ext, substantive
from .rows import Built, comparable, holds, rows_of
from .splits import PARTS, SHARES, check_leaks, leaks, question_of, three_ways
from .unrelated import UNRELATED
from .words import asked_for

__all__ = [
    "NONE",
    "PARTS",
    "POSITIONS",
    "SHARES",
    "STYLES",
    "UNRELATED",
    "Built",
    "asked_for",
    "attack_kinds",
    "attack_pref",
    "belief_row",
    "check_leaks",
    "comparable",
    "dsp_intents",
    "holds",
    "inject",
    "leaks",
    "opinion_ext",
    "polis_intents",
    "prefeval_intents",
    "question_of",
    "rows_of",
    "substantive",
    "three_ways",
    "write_folder",
]
