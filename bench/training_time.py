"""What a run of SGA and of its rivals costs on the same pairs (the paper's Table 8, in ratios).

    python bench/training_time.py                      # the embedded model, 160 shipped pairs
    python bench/training_time.py --pairs 64 --turns 1 # a first look

A measurement is the processor time of a whole run of `align`, from rows to the saved policy, reference readings and
reading the rows included, over all pairs once. The methods take turns in one process; the table gives the median ratio
to SFT within a turn, with its range. All weights, one batch size and length for all: only what a method does differs.
Attributes are counted in the texts (words, question marks, words in the first person); their values cost nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pluralign import align, load
from pluralign.policy import EMBEDDED
from pluralign.records import Messages, Preference, to_row

NAMES = ("words", "questions", "first_person")
COMMON: dict[str, Any] = {
    "epochs": 1, "batch_size": 16, "rendering.max_length": 512, "lora.rank": 0, "data.validation_fraction": 0.0,
    "precision": "auto", "eval_every": 0, "save_every": 0, "best_metric": "none", "kl_rows": 0,
}  # fmt: skip
SHOWN = {
    "scores.attributes": list(NAMES),
    "scores.ranges": {"words": (0, 200), "questions": (0, 4), "first_person": (0, 20)},
}
# recipe, and what of its settings is not its own
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "SFT": ("sft", {}),
    "SGA_SFT": ("sga", SHOWN),
    "RiC (offline)": ("ric", SHOWN),
    "CPSFT": ("cpo_sft", SHOWN),
    "SteerLM": ("steerlm", SHOWN),
    "DPO": ("dpo", {}),
    "SGA_DPO": ("sga_dpo", SHOWN),
    "MODPO": ("modpo", {"scores.attributes": list(NAMES[1:])}),
}


def counted(turns: Messages) -> tuple[float, float, float]:
    text = " ".join(t.content for t in turns)
    return len(text.split()), text.count("?"), len(re.findall(r"\b(?:I|we|me|us|my|our)\b", text))


def with_attributes(pair: Preference) -> Preference:
    each = zip(NAMES, counted(pair.chosen), counted(pair.rejected), strict=True)
    return replace(pair, attributes={name: (w, l) for name, w, l in each})


def seconds(method: str, rows: Sequence[Preference], model: str) -> float:
    """Processor time of one run; nothing is taken from a cache."""
    recipe, own = METHODS[method]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        os.environ["PLURALIGN_CACHE"] = str(Path(folder) / "cache")
        data = Path(folder) / "pairs.jsonl"
        data.write_text("".join(json.dumps(to_row(r)) + "\n" for r in rows))
        begun = time.process_time()
        align(model, str(data), recipe=recipe, output=str(Path(folder) / "run"), **COMMON, **own)
        return time.process_time() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--pairs", type=int, default=160)
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    source = EMBEDDED.parent / "pairs" / "train.jsonl.gz"
    rows = [
        with_attributes(r) for r in islice(load(str(source), kind=Preference), given.pairs) if isinstance(r, Preference)
    ]
    seconds("SFT", rows[:16], given.model)  # warm
    taken = np.array([[seconds(m, rows, given.model) for m in METHODS] for _ in range(given.turns)])
    ratios = taken / taken[:, :1]
    print(f"{given.model}, {torch.get_num_threads()} threads, {len(rows)} pairs, {given.turns} turns")
    print("| method | processor time over SFT's (range) |\n| --- | --- |")
    for j, name in enumerate(METHODS):
        low, middle, high = ratios[:, j].min(), np.median(ratios[:, j]), ratios[:, j].max()
        print(f"| {name} | {middle:.2f} ({low:.2f} to {high:.2f}) |")


if __name__ == "__main__":
    main()
