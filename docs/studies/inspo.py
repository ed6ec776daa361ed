"""The study of docs/studies/inspo.md: InSPO on real pairs at the scale of the embedded model.

    python docs/studies/inspo.py                    # run what is missing, then write the page (about two hours)
    python docs/studies/inspo.py --seeds 1          # one seed of every cell
    python docs/studies/inspo.py --page             # only the page, from the runs that are there

Every cell is an ordinary run of `align` from one fine-tuned checkpoint; cells are written to results.jsonl as they
finish, seed by seed, so that the command can be stopped and goes on where it was. PLURALIGN_SHARED names the folder of
public data sets that the reward model and the UltraFeedback slice are read from (default ../shared/data).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from inspo_page import write_page
from reward import RewardModel, train_reward_model

from pluralign import align, load
from pluralign.api import HELD_OUT
from pluralign.conditioning import Conditioning, conditioned
from pluralign.policy import EMBEDDED, Policy
from pluralign.records import Preference
from pluralign.scoring.layout import Scored
from pluralign.terms import Term, reference_free_pair

SHARED = Path(os.environ.get("PLURALIGN_SHARED", Path(__file__).parents[3] / "shared" / "data"))
PAIRS = EMBEDDED.parent / "pairs" / "train.jsonl.gz"
ULTRA = SHARED / "ultrafeedback_slice"
STEPS, BATCH, LENGTH, CAP = 30, 16, 512, 0.4
GENERATED, NEW_TOKENS = 48, 48
# One learning rate for all; hyper-parameters inside the grid of D.1 (SimPO and ORPO: the paper's lists too).
METHODS: dict[str, dict[str, Any]] = {
    "DPO": {"name": "dpo", "beta": 0.1},
    "IPO": {"name": "ipo", "tau": 0.1},
    "R-DPO": {"name": "r_dpo", "beta": 0.1},
    "ORPO": {"name": "orpo"},
    "SimPO": {"name": "simpo", "beta": 2.0, "gamma": 0.5},
}
RATE = 1e-4


@dataclass(frozen=True)
class Cell:
    """One run: a method under a conditioning, on some data, at a length and a cap, from a seed."""

    method: str
    strategy: str
    seed: int
    data: str = "hh"
    length: int = LENGTH
    cap: float | None = CAP

    @property
    def name(self) -> str:
        cap = "uncapped" if self.cap is None else f"cap{self.cap:g}"
        return f"{self.data}-{self.method}-{self.strategy}-{self.length}-{cap}-seed{self.seed}"


def cells(seeds: int) -> Iterator[Cell]:
    """Every cell, the tables' main ones first, one seed after the other."""
    for seed in range(seeds):
        yield from (Cell(m, s, seed) for m, s in product(METHODS, ("none", "cross")))  # Table 2
        yield from (Cell("DPO", s, seed) for s in ("one-sided", "averaged"))  # Table 4
    for seed in range(min(seeds, 3)):
        for length, cap in product((128, 256, 512), (0.3, 0.4, 0.5, None)):  # Table 3
            if (length, cap) != (LENGTH, CAP):
                yield Cell("DPO", "cross", seed, length=length, cap=cap)
        yield from (Cell("DPO", s, seed, data="uf") for s in ("none", "cross"))  # other data


class Study:
    """What all cells share: the checkpoint they start from, the pairs they are judged on, the reward model."""

    def __init__(self, output: Path, device: str | None = None) -> None:
        self.output = output
        self.output.mkdir(parents=True, exist_ok=True)
        self.start = self._fine_tuned()
        self.held: dict[str, list[Preference]] = {"hh": list(load(str(HELD_OUT), kind=Preference))}  # type: ignore[arg-type]
        ultra: Any = load(str(ULTRA / "eval_200.jsonl.gz"), kind=Preference, bad_rows="quarantine")  # one bad row
        self.held["uf"] = list(ultra)
        self.reward: RewardModel = train_reward_model(SHARED, [*load(str(PAIRS)), *self.held["hh"]])
        self.base = Policy.load(self.start)
        self.reference = {name: self.scores(self.base, name) for name in self.held}
        self.prompts = [ex.prompt for ex in self.held["hh"][:GENERATED]]
        self.baseline = self.reward.score(self.prompts, self.samples(self.base, seed=10_000))
        (self.output / "reward.json").write_text(json.dumps(self.reward.about, indent=1))

    def _fine_tuned(self) -> Path:
        """The embedded model after a little supervised fine-tuning on the chosen responses: everyone's start."""
        folder = self.output / "start"
        if not (folder / "model" / "model.safetensors").is_file():
            shutil.rmtree(folder, ignore_errors=True)
            align("embedded", str(PAIRS), recipe="sft", output=folder, learning_rate=3e-4, batch_size=32,
                  max_steps=40, best_metric="none", eval_every=0)  # fmt: skip
        return folder

    def scores(self, policy: Policy, data: str) -> dict[str, np.ndarray]:
        """Per held-out pair: summed log-probs of w, l, w|l and l|w, and the lengths of w and l."""
        plan = conditioned(reference_free_pair, Conditioning("cross", draft_cap=CAP))
        policy = Policy(policy.model, policy.tokenizer, policy.name, policy.precision, {"max_length": 1024})
        terms = [[t for t in plan(ex) if isinstance(t, Term)] for ex in self.held[data]]
        flat: list[Scored] = []
        groups: list[list[int]] = []
        for own, ex in zip(terms, self.held[data], strict=True):
            rendered = policy.renderer.render(own, ex.tools)
            groups.append(list(range(len(flat), len(flat) + len(rendered))))
            flat += [Scored(r.context, r.target, r.scored) for r in rendered]
        names = [t.name for t in terms[0]]
        found = policy.score(flat, groups=groups)
        out = {n: np.array([float(found[g[i]].sum) for g in groups]) for i, n in enumerate(names)}
        lengths = {f"|{n}|": np.array([float(found[g[names.index(n)]].length) for g in groups]) for n in ("w", "l")}
        return out | lengths

    def samples(self, policy: Policy, seed: int) -> list[str]:
        return policy.generate(self.prompts, max_new_tokens=NEW_TOKENS, temperature=0.7, top_p=0.95, seed=seed,
                               batch_size=32)  # fmt: skip

    def run(self, cell: Cell) -> dict[str, Any]:
        """Train one cell, judge it, throw the weights away."""
        folder = self.output / "runs" / cell.name
        shutil.rmtree(folder, ignore_errors=True)
        source = str(PAIRS) if cell.data == "hh" else str(ULTRA / "clean_1000.jsonl.gz")
        begun = time.time()
        done = align(
            self.start, source, recipe="inspo_small", output=folder, objective=METHODS[cell.method],
            conditioning={"strategy": cell.strategy, "draft_cap": cell.cap}, max_length=cell.length,
            learning_rate=RATE, batch_size=BATCH, max_steps=STEPS, seed=cell.seed, eval_every=10,
            **{"data.validation": str(HELD_OUT), "data.validation_rows": 60, "data.bad_rows": "quarantine",
               "training.kl_rows": 8},
        )  # fmt: skip
        if done.status != "finished":  # Ctrl-C: a run that was cut short is no result
            raise KeyboardInterrupt
        row = {
            "cell": cell.name,
            **cell.__dict__,
            "seconds": round(time.time() - begun, 1),
            **self.judge(done.policy, cell),
        }
        row["step_seconds"] = _step_seconds(folder)
        row["curve"] = _curve(folder)
        shutil.rmtree(folder / "model", ignore_errors=True)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        return row

    def judge(self, policy: Policy, cell: Cell) -> dict[str, Any]:
        """Held-out accuracy and margins, at the prompt and under the other response; lengths; the reward's verdict."""
        policy.model.eval()
        s, ref = self.scores(policy, cell.data), self.reference[cell.data]
        margin = (s["w"] - ref["w"]) - (s["l"] - ref["l"])
        shown = (s["w|l"] - ref["w"]) - (s["l|w"] - ref["l"])
        before = (ref["w|l"] - ref["w"]) - (ref["l|w"] - ref["l"])
        texts = self.samples(policy, seed=cell.seed)
        ours, theirs = self.reward.score(self.prompts, texts), self.baseline
        return {
            "accuracy": float((margin > 0).mean()),
            "margin": float(margin.mean()),
            "conditioned_accuracy": float((shown > 0).mean()),
            "conditioned_margin": float(shown.mean()),
            "conditioned_gain": float((shown - before).mean()),
            "chosen_drift": float((s["w"] - ref["w"]).mean()),
            "per_token": float((s["w"] / s["|w|"] > s["l"] / s["|l|"]).mean()),
            "words": float(np.mean([len(t.split()) for t in texts])),
            "win_rate": float(np.mean((ours > theirs) + 0.5 * (ours == theirs))),
        }


def _step_seconds(folder: Path) -> float:
    """Median seconds a training step, from the run's own record."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rates = [r["pairs_per_second"] for r in rows if r["phase"] == "train" and r.get("pairs_per_second")]
    return BATCH / float(np.median(rates))


def _curve(folder: Path) -> list[dict[str, float]]:
    """Loss of training, and validation figures, by step."""
    keep = ("step", "phase", "loss", "accuracy", "margin", "conditioned_accuracy", "conditioned_margin")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: r[k] if isinstance(r[k], str | int) else round(r[k], 4) for k in keep if k in r} for r in rows]


def read_results(output: Path) -> list[dict[str, Any]]:
    path = output / "results.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/studies/inspo"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--minutes", type=float, help="begin no further run after so long")
    parser.add_argument("--page", action="store_true", help="write the page from what is there, run nothing")
    settings = parser.parse_args()
    wanted = list(cells(settings.seeds))
    if not settings.page:
        begun = time.time()
        done = {row["cell"] for row in read_results(settings.output)}
        missing = [c for c in wanted if c.name not in done]
        study = Study(settings.output) if missing else None
        for i, cell in enumerate(missing, start=1):
            spent = time.time() - begun
            if settings.minutes and spent > 60 * settings.minutes:
                print(f"{len(missing) - i + 1} cells are left; the same command goes on.")
                break
            assert study is not None
            row = study.run(cell)
            with (settings.output / "results.jsonl").open("a") as f:
                f.write(json.dumps(row) + "\n")
            left = (time.time() - begun) / i * (len(missing) - i) / 60
            print(f"{i}/{len(missing)} {cell.name}: accuracy {row['accuracy']:.3f}, {row['seconds']:.0f} s; "
                  f"{left:.0f} min left", flush=True)  # fmt: skip
    rows = read_results(settings.output)
    if not rows:
        raise SystemExit(f"{settings.output} has no finished run: the page and its figures stay as they are.")
    write_page(settings.output, rows, Path(__file__).with_suffix(".md"))


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
