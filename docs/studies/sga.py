"""The study of docs/studies/sga.md: self-guided alignment at the scale of the embedded model, with measured attributes.

    python docs/studies/sga.py                      # run what is missing, then write the page
    python docs/studies/sga.py --seeds 1            # one seed of every cell
    python docs/studies/sga.py --page               # only the page, from the runs that are there

Every cell is an ordinary run of `align` from one checkpoint; cells are written to results.jsonl as they finish, seed by
seed, so that the command can be stopped and goes on where it was. PLURALIGN_SHARED names the folder of public data sets
(default ../shared/data).
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
from sga_data import NAMES, SHARED, TOP, make_split, truth
from sga_numbers import plain
from sga_page import write_page
from sga_steer import run_missing, shown, write_blocks

from pluralign import align, load
from pluralign.judging.rating import rate
from pluralign.policy import Policy
from pluralign.records import Demonstration
from pluralign.scoring.layout import Scored
from pluralign.soups import soup
from pluralign.steering.generate import answer
from pluralign.steering.requests import Request
from pluralign.terms import Scores, Term

STEPS, BATCH, RATE, PAIR_RATE = 200, 8, 3e-3, 1e-4
START_STEPS, JUDGE_STEPS, SENSE_STEPS, FIRST_RATE = 40, 120, 100, 1e-3
PROMPTS, STEERED, NEW_TOKENS = 40, 16, 56
LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the first of two conflicting attributes
LAMBDA, LAMBDAS = 10.0, (0.0, 1.0, 100.0, 1000.0)
JUST_EVAL = ("helpfulness", "clarity", "factuality", "depth", "engagement")
COMMON: dict[str, Any] = {
    "max_length": 256, "precision": "auto", "schedule": "cosine", "min_lr_ratio": 0.0, "warmup": 0.1, "epochs": 1,
    "best_metric": "none", "eval_every": 0, "lora.rank": 0, "data.validation_fraction": 0.0,
}  # fmt: skip
SHOWN = {"attributes": list(NAMES), "ranges": dict.fromkeys(NAMES, (0.0, TOP))}
# recipe, data, and what differs from the common settings
METHODS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "SFT": ("sft", "policy", {}),
    "SGA_SFT": ("sga", "policy", {"scores": {**SHOWN, "sense": LAMBDA}}),
    "SGA_SFT, both": (  # ours: both responses, each under its own scores, as the baselines have them
        "sga",
        "policy",
        {"scores": {**SHOWN, "sense": LAMBDA, "show": "own"}, "data.responses": "all"},
    ),
    "SteerLM": ("steerlm", "policy", {"scores": SHOWN}),
    "RiC": ("ric", "policy", {"scores": SHOWN}),
    "CPSFT": ("cpo_sft", "policy", {"scores": SHOWN}),
    "SGA_DPO": ("sga_dpo", "policy", {"scores": {**SHOWN, "sense": LAMBDA}}),
    "MODPO": ("modpo", f"by_{NAMES[0]}", {"scores": {"attributes": list(NAMES[1:])}}),
    "soups": ("dpo", "", {}),
}
ON_PAIRS = ("SGA_DPO", "MODPO", "soups")


@dataclass(frozen=True)
class Cell:
    """One run: a method from a seed; `sense` is lambda where it is not the method's own."""

    method: str
    seed: int
    sense: float | None = None

    @property
    def name(self) -> str:
        return (
            f"{self.method.replace(', ', '-')}{'' if self.sense is None else f'-lambda{self.sense:g}'}-seed{self.seed}"
        )


def cells(seeds: int) -> Iterator[Cell]:
    """Every cell: the main table and the sensing of rated data, then the sweep of lambda, one seed after the other."""
    for seed in range(seeds):
        yield from (Cell(m, seed) for m in METHODS)
        yield Cell("just_eval", seed)
        yield from (Cell("SGA_SFT", seed, sense) for sense in LAMBDAS)


class Study:
    """What all cells share: data, the checkpoint they start from, the judge, the reference responses."""

    def __init__(self, output: Path, steps: int | None, part: str = "held") -> None:
        self.output, self.steps = output, steps
        output.mkdir(parents=True, exist_ok=True)
        self.data = make_split(SHARED, output)
        self.start = self._trained("start", "sft", "embedded", "policy", START_STEPS, {})
        rated = {"scores": {**SHOWN, "normal": "range"}, "data.responses": "all"}
        self.judge = Policy.load(self._trained("judge", "attribute_model", "embedded", "judge", JUDGE_STEPS, rated))
        held = self.data.pairs[part]
        self.held = [p.prompt for p in held]
        self.responses = [p.chosen for p in held]
        self.chosen = np.array([truth(p.chosen[-1].content, self.data.ranges) for p in held])
        known = np.array([[p.attributes[n][i] for n in NAMES] for p in self.data.pairs["policy"] for i in (0, 1)]) / TOP
        self.mean = dict(zip(NAMES, known[::2].mean(0), strict=True))  # of the chosen responses
        between = np.atleast_2d(np.corrcoef(known.T))
        a, b = np.unravel_index(np.argmin(between), between.shape)
        self.conflict = (NAMES[min(a, b)], NAMES[max(a, b)])
        self._facts(held, known[::2], float(between[a, b]))

    def _trained(self, name: str, recipe: str, model: str, data: str, steps: int, more: dict[str, Any]) -> Path:
        folder = self.output / name
        if not (folder / "model" / "model.safetensors").is_file():
            shutil.rmtree(folder, ignore_errors=True)
            align(
                model,
                str(self.data.files[data]),
                recipe=recipe,
                output=folder,
                **{
                    **COMMON,
                    "learning_rate": FIRST_RATE,
                    "batch_size": 2 * BATCH,
                    "max_steps": self.steps or steps,
                    **more,
                },
            )
        return folder

    def _facts(self, held: Sequence[Any], chosen: np.ndarray, correlation: float) -> None:
        """What the page says of data and judge."""
        path = self.output / "facts.json"
        if path.is_file():
            return
        judged = self.judged(self.held, [p.chosen[-1].content for p in held])
        (base,) = self.texts(Policy.load(self.start), self.held[:STEERED], [{}], seed=99)
        facts = {
            "pairs": {name: len(pairs) for name, pairs in self.data.pairs.items()},
            "ranges": self.data.ranges, "conflict": list(self.conflict), "correlation": correlation,
            "median": np.median(chosen, axis=0).tolist(), "mean": list(self.mean.values()),
            "truth": plain(self.chosen), "judge": plain(judged), "start": plain(self.measured(base)),
            "steps": STEPS, "batch": BATCH, "rate": RATE, "pair_rate": PAIR_RATE, "prompts": PROMPTS,
            "steered": STEERED, "lambda": LAMBDA,
        }  # fmt: skip
        path.write_text(json.dumps(facts))

    # Judging

    def measured(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([truth(t, self.data.ranges) for t in texts])

    def judged(self, prompts: Sequence[Any], texts: Sequence[str]) -> np.ndarray:
        return rate(self.judge, prompts, texts) / TOP

    def texts(self, policy: Policy, prompts: Sequence[Any], ways: Sequence[Any], seed: int) -> list[list[str]]:
        """Responses by way of asking: scores on [0, 1], one mapping for all prompts or one for each."""
        requests = [
            Request(p, attributes=shown(policy, own), seed=seed, place=i, max_new_tokens=NEW_TOKENS, top_p=0.95)
            for asked in ways
            for i, (p, own) in enumerate(zip(prompts, _each(asked, len(prompts)), strict=True))
        ]
        found = [a.text for a in answer(policy, requests, batch_size=128)]
        return [found[i : i + len(prompts)] for i in range(0, len(found), len(prompts))]

    def asked(self, policy: Policy, given: Mapping[str, float]) -> dict[str, float]:
        """The given scores; where nothing senses the others, the training mean stands for them."""
        return dict(given) if policy.sensing is not None else {**self.mean, **given}

    def main(self, policy: Policy, seed: int) -> dict[str, Any]:
        """Responses to the held-out prompts under every strategy that the policy has, measured and judged."""
        prompts = self.held[:PROMPTS]
        strategies: dict[str, Any] = {"plain": {}}
        if policy.scores is not None:
            strategies = {"mean": self.mean} if policy.sensing is None else {"sensed": {}}
            strategies |= {f"{x:g}": dict.fromkeys(NAMES, x) for x in (0.25, 0.5, 1.0)}
            strategies["gt"] = [dict(zip(NAMES, row, strict=True)) for row in self.chosen[:PROMPTS].tolist()]
        out = {}
        written = self.texts(policy, prompts, list(strategies.values()), seed)
        for name, texts in zip(strategies, written, strict=True):
            out[name] = {"truth": plain(self.measured(texts)), "judge": plain(self.judged(prompts, texts))}
        return out

    def steering(self, policy: Policy, seed: int, prompts: int = STEERED) -> dict[str, Any]:
        """By attribute: measured attributes (level, prompt, K) where it alone is set to every level."""
        ways = [self.asked(policy, {n: x}) for n in NAMES for x in LEVELS]
        found = [plain(self.measured(t)) for t in self.texts(policy, self.held[:prompts], ways, seed)]
        return {n: found[k * len(LEVELS) : (k + 1) * len(LEVELS)] for k, n in enumerate(NAMES)}

    def heard(self, policy: Policy) -> list[float]:
        """Nats by which the held-out chosen responses are likelier under their own scores than under another's."""
        assert policy.scores is not None
        units = [dict(zip(NAMES, row, strict=True)) for row in self.chosen.tolist()]
        texts = [policy.scores.text(shown(policy, u)) for u in units]
        place = policy.scores.place
        rows = list(zip(self.held, self.responses, texts, texts[-1:] + texts[:-1], strict=True))[:PROMPTS]
        terms = [Term("y", (p, Scores(text, place)), y) for p, y, own, other in rows for text in (own, other)]
        rendered = [policy.renderer.render([t])[0] for t in terms]
        found = policy.score([Scored(r.context, r.target, r.scored) for r in rendered])
        sums = np.array([float(r.sum) for r in found]).reshape(-1, 2)
        return [round(x, 3) for x in (sums[:, 0] - sums[:, 1]).tolist()]

    def front(self, policy: Policy, seed: int) -> list[Any]:
        """Measured attributes (weight, prompt, 2) of the conflicting two, asked for as RiC's map has it."""
        both = [(min(2 * w, 1.0), min(2 * (1 - w), 1.0)) for w in WEIGHTS]
        ways = [self.asked(policy, dict(zip(self.conflict, units, strict=True))) for units in both]
        return [self.pair(texts) for texts in self.texts(policy, self.held[:STEERED], ways, seed)]

    def pair(self, texts: Sequence[str]) -> list[Any]:
        return plain(self.measured(texts)[:, [NAMES.index(n) for n in self.conflict]])

    # Runs

    def run(self, cell: Cell) -> dict[str, Any]:
        """Train one cell, judge it, throw the weights away."""
        begun = time.time()
        found = {"just_eval": self.rated, "soups": self.soups}.get(cell.method, self.trained)(cell)
        shutil.rmtree(self.output / "runs" / cell.name, ignore_errors=True)
        return {"cell": cell.name, **cell.__dict__, "seconds": round(time.time() - begun, 1), **found}

    def align(self, cell: Cell, data: str, recipe: str, more: Mapping[str, Any], name: str = "") -> Policy:
        pairs = cell.method in ON_PAIRS
        settings = {**COMMON, "learning_rate": PAIR_RATE if pairs else RATE, "batch_size": BATCH // (2 if pairs else 1),
                    "max_steps": self.steps or STEPS, "seed": cell.seed, **more}  # fmt: skip
        folder = self.output / "runs" / cell.name / (name or "run")
        shutil.rmtree(folder, ignore_errors=True)
        done = align(self.start, str(self.data.files[data]), recipe=recipe, output=folder, **settings)
        if done.status != "finished":  # Ctrl-C: a run that was cut short is no result
            raise KeyboardInterrupt
        done.policy.model.eval()
        return done.policy

    def trained(self, cell: Cell) -> dict[str, Any]:
        recipe, data, more = METHODS[cell.method]
        if cell.sense is not None:
            more = {"scores": {**more["scores"], "sense": cell.sense}}
        begun = time.time()
        policy = self.align(cell, data, recipe, more)
        out: dict[str, Any] = {"train_seconds": round(time.time() - begun, 1)}
        policy.scores = policy.scores if cell.method != "MODPO" else None  # it is shown none
        out["main"] = self.main(policy, cell.seed)
        if policy.sensing is not None:
            out["sensed"] = [[round(row[n], 4) for n in NAMES] for row in policy.sense(self.held)]
        if policy.scores is not None:
            out |= {"steer": self.steering(policy, cell.seed), "heard": self.heard(policy)}
            out |= {"front": self.front(policy, cell.seed)} if cell.sense is None else {}
        return out

    def soups(self, cell: Cell) -> dict[str, Any]:
        """One DPO run for each of the conflicting attributes, and every mixture of the two."""
        begun = time.time()
        both = [self.align(cell, f"by_{n}", "dpo", {}, name=n) for n in self.conflict]
        out: dict[str, Any] = {"train_seconds": round(time.time() - begun, 1), "front": []}
        for w in WEIGHTS:
            mixed = soup(both, (w, 1 - w), assume_same_start=True)
            (texts,) = self.texts(mixed, self.held[:STEERED], [{}], cell.seed)
            out["front"].append(self.pair(texts))
            if w == 0.5:
                out["main"] = self.main(mixed, cell.seed)
        return out

    def rated(self, cell: Cell) -> dict[str, Any]:
        """Ratings that GPT-4 gave, sensed on prompts that were not trained on; units of [0, 1]."""
        scores = {"attributes": list(JUST_EVAL), "ranges": dict.fromkeys(JUST_EVAL, (1.0, 5.0)), "sense": LAMBDA}
        policy = self.align(cell, "just_eval", "sga", {"scores": scores, "max_steps": self.steps or SENSE_STEPS})
        train, held = ([[(r.attributes.get(n, np.nan) - 1) / 4 for n in JUST_EVAL] for r in read(path)]
                       for path in (self.data.files["just_eval"], self.data.files["just_eval_held"]))  # fmt: skip
        prompts = [r.prompt for r in read(self.data.files["just_eval_held"])]
        found = [[round(row[n], 4) for n in JUST_EVAL] for row in policy.sense(prompts)]
        middle = {"median": np.nanmedian(train, axis=0).tolist(), "mean": np.nanmean(train, axis=0).tolist()}
        return {"names": list(JUST_EVAL), "sensed": found, "held_truth": plain(np.array(held)),
                "trained_on": len(train), **middle}  # fmt: skip


def _each(asked: Any, count: int) -> Sequence[Mapping[str, float]]:
    return [asked] * count if isinstance(asked, Mapping) else asked


def read(path: Path) -> list[Demonstration]:
    rows: Any = load(str(path), kind=Demonstration)
    return list(rows)


def read_results(output: Path) -> list[dict[str, Any]]:
    path = output / "results.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/studies/sga"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", metavar="METHOD", help="run these methods alone (the page shows all)")
    parser.add_argument("--minutes", type=float, help="begin no further run after so long")
    parser.add_argument("--steps", type=int, help=argparse.SUPPRESS)  # of every run, to see whether it works at all
    parser.add_argument("--page", action="store_true", help="write the page from what is there, run nothing")
    settings = parser.parse_args()
    if not settings.page:
        begun = time.time()
        done = {row["cell"] for row in read_results(settings.output)}
        missing = [
            c for c in cells(settings.seeds) if c.name not in done and (not settings.only or c.method in settings.only)
        ]
        study = Study(settings.output, settings.steps) if missing else None
        for i, cell in enumerate(missing, start=1):
            if settings.minutes and time.time() - begun > 60 * settings.minutes:
                print(f"{len(missing) - i + 1} cells are left; the same command goes on.")
                break
            assert study is not None
            row = study.run(cell)
            with (settings.output / "results.jsonl").open("a") as f:
                f.write(json.dumps(row) + "\n")
            left = (time.time() - begun) / i * (len(missing) - i) / 60
            print(f"{i}/{len(missing)} {cell.name}: {row['seconds']:.0f} s; {left:.0f} min left", flush=True)
        if not settings.only:
            run_missing(settings.output, settings.seeds, (), settings.minutes or 0, settings.steps)
    write_page(settings.output, read_results(settings.output), Path(__file__).with_suffix(".md"))
    write_blocks(settings.output)


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
