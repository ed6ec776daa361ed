"""Data of the SGA study: real prompts and responses whose attributes are measured, so that what is true is known.

Every response gets ratings from 0 to 4, linear between the 5 % and 95 % quantiles of the policies' training
responses and clipped beyond them. Of a pair, the response with the higher mean rating is the chosen one (SGA, B.2).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pluralign import load
from pluralign.api import HELD_OUT
from pluralign.curate.measured import measure
from pluralign.records import Demonstration, Messages, Preference, to_row

__all__ = ["NAMES", "SHARED", "TOP", "Split", "make_split", "ratings", "truth"]

# name in the prompt: (measure, what is made of its value)
ATTRIBUTES = {
    "length": ("words", "log2(1 + words)"),
    "questions": ("questions", "question marks"),
    "first_person": ("first_person", "share of words that are I, we or a form of them"),
}
NAMES = tuple(ATTRIBUTES)
SHARED = Path(os.environ.get("PLURALIGN_SHARED", Path(__file__).parents[3] / "shared" / "data"))
TOP = 4.0  # ratings go from 0 to TOP, as those of HelpSteer2
MOST_WORDS, MOST_PROMPT = 40, 30
SOURCES = ("hh_rlhf/harmless_base.jsonl.gz", "ultrafeedback_slice/clean_1000.jsonl.gz",
           "llamafactory_demo/dpo_en_demo.jsonl.gz")  # fmt: skip
PAIRS = HELD_OUT.parent / "train.jsonl.gz"
SHARES = {"judge": 0.3, "validation": 0.06}  # of the prompts; the rest trains policies


@dataclass(frozen=True)
class Split:
    """Pairs by use (no prompt in two of them), the raw range of every attribute, and files that `align` reads."""

    pairs: Mapping[str, list[Preference]]
    ranges: Mapping[str, tuple[float, float]]
    files: Mapping[str, Path]


def raw(text: str) -> dict[str, float]:
    """The measured attributes of a text in their own units; some are missing where it has no word."""
    found = measure([m for m, _ in ATTRIBUTES.values()], text)
    out = {name: found[m] for name, (m, _) in ATTRIBUTES.items() if m in found}
    return out | {"length": math.log2(1 + found["words"])}


def truth(text: str, ranges: Mapping[str, tuple[float, float]]) -> list[float]:
    """(K,) attributes of a text on [0, 1]; NaN where one has no value."""
    found = raw(text)
    return [min(max((found.get(n, math.nan) - ranges[n][0]) / (ranges[n][1] - ranges[n][0]), 0.0), 1.0)
            if n in found else math.nan for n in NAMES]  # fmt: skip


def ratings(response: Messages, ranges: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    return {n: round(TOP * u, 3) for n, u in zip(NAMES, truth(response[-1].content, ranges), strict=True)}


def make_split(shared: Path, output: Path) -> Split:
    """Read, keep short single turns, split by prompt, rate, order; files go to output/data."""
    held = _short(load(str(HELD_OUT), kind=Preference))
    known = {_key(p) for p in held}
    pool = [p for source in (PAIRS, *(shared / s for s in SOURCES))
            for p in _short(load(str(source), kind=Preference, bad_rows="quarantine"))]  # fmt: skip
    parts: dict[str, list[Preference]] = {"policy": [], "judge": [], "validation": [], "held": held}
    for pair in pool:
        if _key(pair) not in known:
            parts[_part(_key(pair))].append(pair)
    ranges = _ranges(parts["policy"])
    ordered = {name: [o for p in pairs for o in _ordered(p, ranges, NAMES)] for name, pairs in parts.items()}
    ordered["held"] = list({_key(p): p for p in ordered["held"]}.values())  # a prompt is judged once
    folder = output / "data"
    folder.mkdir(parents=True, exist_ok=True)
    sets: dict[str, Sequence[Any]] = {"policy": ordered["policy"], "judge": ordered["judge"]}
    for name in NAMES:
        sets[f"by_{name}"] = [o for p in ordered["policy"] for o in _ordered(p, ranges, (name,))]
    sets["just_eval"], sets["just_eval_held"] = _just_eval(shared)
    files = {name: folder / f"{name}.jsonl" for name in sets}
    for name, rows in sets.items():
        files[name].write_text("".join(json.dumps(to_row(r)) + "\n" for r in rows))
    return Split(ordered, ranges, files)


def _short(pairs: Iterable[Any], most: float = MOST_WORDS, prompt: int = MOST_PROMPT) -> list[Preference]:
    """Pairs whose responses have 3 to `most` words, with the last user turn alone as the prompt, of up to `prompt`."""
    out = []
    for pair in pairs:
        last = pair.prompt[-1]
        sides = [r[-1].content for r in (pair.chosen, pair.rejected)]
        sizes = [measure(["words"], text)["words"] for text in (*sides, last.content)]
        if last.role == "user" and min(sizes[:2]) >= 3 and max(sizes[:2]) <= most and sizes[2] <= prompt:
            out.append(replace(pair, prompt=(last,), chosen=pair.chosen[-1:], rejected=pair.rejected[-1:], margin=None,
                               attributes={}, meta={}))  # fmt: skip
    return out


def _key(pair: Preference) -> str:
    return same(pair.prompt[-1].content)


def same(text: str) -> str:
    """What texts that differ in case and blanks alone have in common."""
    return " ".join(text.lower().split())


def _part(key: str) -> str:
    """Where a prompt belongs, by its hash."""
    u = int(hashlib.sha1(key.encode()).hexdigest()[:8], 16) / 16**8
    return "judge" if u < SHARES["judge"] else "validation" if u < sum(SHARES.values()) else "policy"


def _ranges(pairs: Sequence[Preference]) -> dict[str, tuple[float, float]]:
    """The 5 % and 95 % quantiles of every attribute over all responses."""
    rows = [raw(r[-1].content) for p in pairs for r in (p.chosen, p.rejected)]
    ends = {n: np.quantile([r[n] for r in rows if n in r], [0.05, 0.95]) for n in NAMES}
    return {n: (round(float(a), 4), round(float(b), 4)) for n, (a, b) in ends.items()}


def _ordered(pair: Preference, ranges: Mapping[str, tuple[float, float]], by: Sequence[str]) -> list[Preference]:
    """The pair with the higher mean rating over `by` chosen; nothing where both have the same."""
    own = [(ratings(r, ranges), r) for r in (pair.chosen, pair.rejected)]
    if any(v != v for values, _ in own for v in values.values()):
        return []
    own.sort(key=lambda row: -sum(row[0][n] for n in by))
    (first, chosen), (second, rejected) = own
    if sum(first[n] for n in by) == sum(second[n] for n in by):
        return []
    both = {n: (first[n], second[n]) for n in NAMES}
    return [replace(pair, chosen=chosen, rejected=rejected, attributes=both)]


def _just_eval(shared: Path) -> tuple[list[Demonstration], list[Demonstration]]:
    """GPT-4's ratings of one system's answers (1 to 5), every fourth prompt held out; answers shortened."""
    rows: Any = load(str(shared / "just_eval" / "gpt35_0301_five_attributes.jsonl.gz"), kind=Demonstration,
                     bad_rows="quarantine")  # fmt: skip
    keep: dict[bool, list[Demonstration]] = {True: [], False: []}
    for row in rows:
        digest = hashlib.sha1(row.prompt[-1].content.encode()).hexdigest()
        words = row.response[-1].content.split(" ")[:MOST_WORDS]
        short = replace(row.response[-1], content=" ".join(words))
        keep[int(digest[:4], 16) % 4 == 0].append(replace(row, response=(short,), meta={}))
    return keep[False], keep[True]
