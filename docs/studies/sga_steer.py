"""The second part of the SGA study: what it takes for scores to be obeyed, and what of them can be sensed.

    python docs/studies/sga_steer.py                  # run what is missing, then write its blocks of sga.md
    python docs/studies/sga_steer.py --only told      # one kind of cell alone
    python docs/studies/sga_steer.py --page           # the blocks from the runs that are there

Cells are ordinary runs of `align` with the recipe `sga` from the embedded model, written to steer.jsonl as they finish;
the command can be stopped and goes on where it was. `python docs/studies/sga.py --page` writes these blocks too.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pages import rows_for
from sga_data import NAMES, SHARED, TOP, truth
from sga_numbers import LEVELS, plain
from sga_steer_page import write_steer_page
from sga_worlds import LONGER, ONE_AUTHOR, RIVALS, RUNGS, TOLD, Short, short_world, state_ridge, tfidf_ridge, told_world

from pluralign import align
from pluralign.policy import Policy
from pluralign.records import Demonstration, to_row
from pluralign.scoring.layout import Scored
from pluralign.steering.generate import answer
from pluralign.steering.requests import Request
from pluralign.terms import Scores, Term

BATCH, RATE, LAMBDA = 16, 1e-3, 10.0
TOLD_STEPS = {"told": 120, ONE_AUTHOR: 400}  # 3.6 and 3.8 times through the instructions
TOLD_LAMBDA = 100.0
PROMPTS, HEARD, NEW_TOKENS = 48, 120, 48
SHIPPED = Path(__file__).with_name("sga_steer_results.jsonl.gz")
COMMON: dict[str, Any] = {
    "learning_rate": RATE, "batch_size": BATCH, "max_length": 192, "precision": "auto", "schedule": "cosine",
    "min_lr_ratio": 0.0, "warmup": 0.1, "epochs": 1, "best_metric": "none", "eval_every": 0, "lora.rank": 0,
    "data.validation_fraction": 0.0,
}  # fmt: skip


@dataclass(frozen=True)
class SteerCell:
    """One run: a rung of the ladder or a rival, or "told" and ONE_AUTHOR for the sensing of instructions."""

    kind: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.kind.replace(' ', '-')}-seed{self.seed}"


def steer_cells(seeds: int) -> Iterator[SteerCell]:
    """Every seed of the setting and of sensing, then two seeds of what is otherwise in one thing, and of the rivals."""
    first, *others = RUNGS
    for seed in range(seeds):
        yield SteerCell(first, seed)
        yield from (SteerCell(kind, seed) for kind in TOLD_STEPS)
    yield from (SteerCell(kind, seed) for seed in range(min(seeds, 2)) for kind in (*others, *RIVALS))


def run_cell(cell: SteerCell, output: Path, steps: int | None = None) -> dict[str, Any]:
    """Train one cell, measure it, throw the weights away."""
    begun = time.time()
    found = told(cell, output, steps) if cell.kind in TOLD_STEPS else obeyed(cell, output, steps)
    shutil.rmtree(output / "runs" / cell.name, ignore_errors=True)
    return {"cell": cell.name, "method": cell.kind, "seed": cell.seed, "sense": None,
            "seconds": round(time.time() - begun, 1), **found}  # fmt: skip


def trained(
    cell: SteerCell, output: Path, rows: Sequence[Demonstration], names: Sequence[str], sense: float, **more: Any
) -> Policy:
    data = output / "data" / f"{cell.name}.jsonl"
    data.parent.mkdir(parents=True, exist_ok=True)
    data.write_text("".join(json.dumps(to_row(r)) + "\n" for r in rows))
    folder = output / "runs" / cell.name
    shutil.rmtree(folder, ignore_errors=True)
    recipe = RIVALS.get(cell.kind, "sga")
    scores = {"attributes": list(names), "ranges": dict.fromkeys(names, (0.0, TOP))}
    if recipe == "sga":
        scores["sense"] = sense
    done = align("embedded", str(data), recipe=recipe, output=folder,
                 **{**COMMON, "seed": cell.seed, "scores": scores, **more})  # fmt: skip
    if done.status != "finished":  # Ctrl-C: a run that was cut short is no result
        raise KeyboardInterrupt
    done.policy.model.eval()
    return done.policy


def obeyed(cell: SteerCell, output: Path, steps: int | None) -> dict[str, Any]:
    """By attribute in the prompt: all measured ones (level, prompt, K) where it alone is set.

    The others are sensed; a rival has no head and is asked for the whole rating next to their mean in training.
    """
    rung = RUNGS[LONGER if cell.kind in RIVALS else cell.kind]
    world = short_world(SHARED, rung)
    policy = trained(cell, output, world.rows, rung.names, sense=LAMBDA, max_steps=steps or rung.steps)
    mean = {n: float(np.round(np.mean([r.attributes[n] for r in world.rows]))) / TOP for n in rung.names}
    others = {} if policy.sensing is not None else mean
    requests = [
        Request(p, attributes=shown(policy, {**others, name: level}), seed=cell.seed, place=i,
                max_new_tokens=NEW_TOKENS, top_p=0.95)
        for name in rung.names
        for level in LEVELS
        for i, p in enumerate(world.prompts[:PROMPTS])
    ]  # fmt: skip
    texts = [a.text for a in answer(policy, requests, batch_size=120)]
    table = np.array([truth(t, world.ranges) for t in texts]).reshape(len(rung.names), len(LEVELS), -1, len(NAMES))
    return {
        "examples": len(world.rows), "ranges": world.ranges, "heard": heard(policy, world, rung.names),
        "steer": {n: [plain(part) for part in own] for n, own in zip(rung.names, table, strict=True)},
        "steps": steps or rung.steps,
    }  # fmt: skip


def shown(policy: Policy, units: Mapping[str, float]) -> dict[str, float]:
    """Scores on [0, 1] on the scale that a policy is shown; NaN ones are left out."""
    if policy.scores is None or not units:
        return {}
    values = policy.scores.unit({n: TOP * u for n, u in units.items()})
    return {n: v for n, v in zip(policy.scores.names, values, strict=True) if v == v}


def heard(policy: Policy, world: Short, names: Sequence[str]) -> list[float]:
    """Nats by which held-out responses are likelier under their own scores than under those of the next one."""
    form = policy.scores
    assert form is not None
    units = [dict(zip(NAMES, row, strict=True)) for row in (np.round(world.truth * TOP) / TOP).tolist()]
    said = [form.text(shown(policy, {n: u[n] for n in names})) for u in units]
    rows = list(zip(world.held, said, said[1:] + said[:1], strict=True))[:HEARD]
    terms = [Term("y", (p, Scores(text, form.place)), y) for (p, y), own, other in rows for text in (own, other)]
    sums = policy.score([_scored(policy, t) for t in terms])
    table = np.array([float(r.sum) for r in sums]).reshape(-1, 2)
    return [round(x, 3) for x in (table[:, 0] - table[:, 1]).tolist()]


def _scored(policy: Policy, term: Term) -> Scored:
    (found,) = policy.renderer.render([term])
    return Scored(found.context, found.target, found.scored)


def told(cell: SteerCell, output: Path, steps: int | None) -> dict[str, Any]:
    """Attributes of whole responses, sensed in held-out instructions, beside a ridge on the same prompts' words."""
    world, steps = told_world(SHARED, one_author=cell.kind == ONE_AUTHOR), steps or TOLD_STEPS[cell.kind]
    states = state_ridge(world, Policy.load("embedded"))
    policy = trained(cell, output, world.rows, TOLD, sense=TOLD_LAMBDA, max_steps=steps)
    found = np.array([[row[n] for n in TOLD] for row in policy.sense(world.prompts)])
    return {
        "names": list(TOLD), "trained_on": len(world.rows), "sensed": plain(found), "truth": plain(world.truth),
        "ridge": plain(tfidf_ridge(world)), "states": {n: plain(x) for n, x in states.items()},
        "median": np.median(world.known, axis=0).round(4).tolist(),
        "mean": world.known.mean(0).round(4).tolist(), "steps": steps,
    }  # fmt: skip


def read_steer(output: Path) -> list[dict[str, Any]]:
    path = output / "steer.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def run_missing(
    output: Path, seeds: int, only: Sequence[str] = (), minutes: float = 0, steps: int | None = None
) -> None:
    """Run the cells that steer.jsonl does not have; begin none after so many minutes (0: no limit)."""
    begun = time.time()
    output.mkdir(parents=True, exist_ok=True)
    done = {row["cell"] for row in read_steer(output)}
    missing = [c for c in steer_cells(seeds) if c.name not in done and (not only or c.kind in only)]
    for i, cell in enumerate(missing, start=1):
        if minutes and time.time() - begun > 60 * minutes:
            print(f"{len(missing) - i + 1} cells of steering are left; the same command goes on.")
            return
        row = run_cell(cell, output, steps)
        with (output / "steer.jsonl").open("a") as f:
            f.write(json.dumps(row) + "\n")
        print(f"{i}/{len(missing)} {cell.name}: {row['seconds']:.0f} s", flush=True)


def write_blocks(output: Path) -> None:
    """The blocks of sga.md, from the output folder or, where it has no such run, from the rows beside the page."""
    rows = rows_for(output / "steer.jsonl", SHIPPED)
    write_steer_page(rows, Path(__file__).with_name("sga.md"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/studies/sga"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--only", nargs="+", metavar="KIND", default=(), help='these kinds alone: told, "three attributes", ...'
    )
    parser.add_argument("--minutes", type=float, default=0, help="begin no further run after so long")
    parser.add_argument("--steps", type=int, help=argparse.SUPPRESS)  # of every run, to see whether it works at all
    parser.add_argument("--page", action="store_true", help="write the blocks from what is there, run nothing")
    settings = parser.parse_args()
    if not settings.page:
        run_missing(settings.output, settings.seeds, settings.only, settings.minutes, settings.steps)
    write_blocks(settings.output)


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
