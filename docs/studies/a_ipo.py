"""The study of docs/studies/a_ipo.md: A-IPO, its ablations and its rivals where people want different things.

    python docs/studies/a_ipo.py                  # run what is missing, then write the page and its figure
    python docs/studies/a_ipo.py --seeds 1        # a first look
    python docs/studies/a_ipo.py --page           # only the page, from the rows that are there

A cell is a data set, a method and a seed; its row goes to results.jsonl as soon as it is finished, so that the command
can be stopped and goes on where it was. PLURALIGN_SHARED names the folder of public data sets (default ../shared/data).
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from a_ipo_data import SETS, Parts, parts_of
from a_ipo_judge import TOLD, judge
from a_ipo_page import write_page
from pages import rows_for

import pluralign as pa
from pluralign.curate.plural import belief_row
from pluralign.data import load
from pluralign.policy import Policy

# What every method has alike: steps, pairs a step, learning rate, precision. Methods differ in the rest.
STAGE: dict[str, Any] = {
    "batch_size": 16, "eval_every": 0, "best_metric": "none", "kl_rows": 0, "warmup": 0.1, "schedule": "cosine",
    "validation_fraction": 0.0, "optimizer": "adamw", "rendering.max_length": 384, "save_every": 0,
}  # fmt: skip
TUNING = {**STAGE, "learning_rate": 5e-4, "max_steps": 40}
PREFERENCE = {**STAGE, "learning_rate": 2e-4, "max_steps": 40}
INTENDED = {"intents.show": "infer", "intents.similarity": 0.2, "intents.kl": 0.01, "intents.module_rate": 1e-3}

# Method -> (recipe, settings, starts from). Those without are not trained: a policy, and how it is asked.
METHODS: dict[str, tuple[str, dict[str, Any]] | None] = {
    "base": None,
    "SFT": ("sft", TUNING),
    "DPO": ("dpo", PREFERENCE),
    "GDPO": ("gdpo", PREFERENCE),
    "Inf-Intent": None,
    "A-IPO": ("a_ipo", {**PREFERENCE, **INTENDED}),
    "A-IPO (-I)": ("a_ipo", {**PREFERENCE, **INTENDED, "intents.show": "average"}),
    "A-IPO (-sim)": ("a_ipo", {**PREFERENCE, **INTENDED, "intents.similarity": 0.0}),
    "A-IPO, K = 3": ("a_ipo", {**PREFERENCE, **INTENDED, "intents.candidates": 3}),
    **dict.fromkeys(TOLD),
}


def cells(seeds: int) -> Iterator[tuple[str, str, int]]:
    """(data, method, seed), one seed of everything before the next; GDPO only where there are shares of beliefs."""
    for seed in range(seeds):
        for data, about in SETS.items():
            yield from ((data, m, seed) for m in METHODS if m != "GDPO" or about.beliefs)


def train(method: str, parts: Parts, seed: int, folder: Path) -> tuple[str | Path, list[dict[str, Any]]]:
    """(the trained policy's folder, its log); what stands there already is taken."""
    known = METHODS[method]
    assert known is not None, "asked only of methods that are trained"
    recipe, settings = known
    if (folder / "model").is_dir():
        return folder, _log(folder)
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was stopped
    if recipe in ("sft", "gdpo"):
        start: str | Path = "embedded"
    else:
        start, _ = train("SFT", parts, seed, folder.with_name("SFT"))
    if recipe == "gdpo":  # its own fine-tuning stage, which has beliefs
        start = folder.with_name("GDPO_SFT")
        rows = list(load([belief_row(r) for r in parts.train]))
        if not (start / "model").is_dir():
            shutil.rmtree(start, ignore_errors=True)
            pa.align("embedded", rows, recipe="gdpo_sft", output=start, seed=seed, **TUNING)
        pa.align(str(start), rows, recipe="gdpo", output=folder, seed=seed, **settings)
    else:
        pa.align(str(start), parts.train, recipe=recipe, output=folder, seed=seed, **settings)
    return folder, _log(folder)


def _log(folder: Path) -> list[dict[str, Any]]:
    """The training log, thinned to what Figure 2 draws."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    wanted = ("step", "margin", "policy_margin", "delta_sim", "loss")
    return [{n: round(line[n], 4) for n in wanted if n in line} for line in lines if line["phase"] == "train"]


def run_cell(data: str, method: str, seed: int, work: Path, answers: int) -> dict[str, Any]:
    """One row: what held-out pairs, generated answers and inferred intents say of one method."""
    started = time.time()
    parts = parts_of(data, seed)
    folder = work / f"{data}-{seed}"
    log: list[dict[str, Any]] = []
    if method == "base":
        policy = Policy.load("embedded")
    elif method == "Inf-Intent":  # DPO's policy, shown what A-IPO's module infers, which it was never trained with
        policy = Policy.load(train("DPO", parts, seed, folder / "DPO")[0])
    elif method in TOLD:  # a policy that is shown each record's own intent
        policy = Policy.load(train(TOLD[method], parts, seed, folder / TOLD[method])[0])
    else:
        where, log = train(method, parts, seed, folder / method.replace(" ", "_"))
        policy = Policy.load(where)
    guide = None
    if method == "Inf-Intent":
        guide = Policy.load(train("A-IPO", parts, seed, folder / "A-IPO")[0])
    trained = time.time()
    row = judge(policy, method, parts, guide=guide, answers=answers, seed=seed)
    seconds = {"training": round(trained - started, 1), "judging": round(time.time() - trained, 1)}
    return {"data": data, "method": method, "seed": seed, "train": len(parts.train), **row, "log": log, **seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/studies/a_ipo"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--answers", type=int, default=24, help="held-out prompts that are answered in text")
    parser.add_argument("--page", action="store_true", help="only write the page")
    given = parser.parse_args()
    page = Path(__file__).with_suffix(".md")
    if given.page:
        rows = rows_for(given.output / "results.jsonl", page.with_name("a_ipo_results.jsonl.gz"))
        return write_page(rows, page)
    given.output.mkdir(parents=True, exist_ok=True)
    path = given.output / "results.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    done = {(r["data"], r["method"], r["seed"]) for r in rows}
    todo = [c for c in cells(given.seeds) if c not in done]
    for i, cell in enumerate(todo, start=1):
        row = run_cell(*cell, given.output / "policies", given.answers)
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        rows.append(row)
        print(f"{i}/{len(todo)} {cell} {row['training'] + row['judging']:.0f} s", flush=True)
    write_page(rows, page)


if __name__ == "__main__":
    main()
