"""A plausible pipeline folder, made from plain functions of the step (no results: only something to draw)."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pluralign.judging import mean_interval, proportion_interval

HELD_OUT = 322
FINGERPRINT = "sha256:5d1c0f6e2b7a"


def wobble(step: int, k: int = 1) -> float:
    """Noise of unit variance that is the same everywhere."""
    return random.Random(1000 * step + k).gauss(0, 0.7)


def write_lines(path: Path, rows: Any) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def info(stage: str, recipe: str, **changes: Any) -> dict[str, Any]:
    settings = {
        "training": {"learning_rate": 5e-6, "epochs": 1, "batch_size": 16, "warmup": 0.1, "precision": "fp32"},
        "objective": {"name": recipe, "beta": 0.1, "label_smoothing": 0.0},
        "lora": None,
    }
    return {
        "command": f"pluralign align {recipe} --model embedded --data hh.jsonl --output runs/{recipe}",
        "recipe": recipe,
        "created": "2025-03-04T05:06:07+00:00",
        "versions": {"pluralign": "0.1.0", "torch": "2.9.0", "transformers": "5.10.0"},
        "seed": 17,
        "model": {"name": "embedded", "parameters": 2_400_000, "dtype": "float32"},
        "data": {
            "source": "hh.jsonl",
            "format": "hh",
            "fingerprint": FINGERPRINT,
            "train": 1290,
            "validation": HELD_OUT,
            "set_aside": {
                "duplicate": 41,
                "chosen equals rejected": 6,
                "empty response": 3,
                "longer than the limit": 17,
            },
            "truncated": {"context": 58, "target": 4, "tokens": 3120},
        },
        "settings": settings,
        "stage": stage,
        "status": "finished",
        "seconds": 104.2,
        "tokens": 1_234_567,
    } | changes


def sft_metrics(steps: int = 40) -> Iterator[dict[str, Any]]:
    for s in range(1, steps + 1):
        loss = 2.02 + 0.4 * math.exp(-s / 9)
        yield {"step": s, "epoch": s / steps, "phase": "train", "loss": loss + 0.05 * wobble(s), "learning_rate": 1e-5}
        if s % 10 == 0:
            yield {"step": s, "phase": "validation", "loss": loss, "loss_low": loss - 0.02, "loss_high": loss + 0.02}


def dpo_metrics(steps: int = 160) -> Iterator[dict[str, Any]]:
    for s in range(steps + 1):
        grown = 1 - math.exp(-s / 60)
        margin, chosen = 1.6 * grown, -0.8 * grown
        row = {
            "loss": math.log1p(math.exp(-0.6 * margin)),
            "accuracy": 0.5 + 0.14 * grown,
            "margin": margin,
            "chosen_logp": -92 + chosen,
            "rejected_logp": -97 + chosen - margin,
            "chosen_drift": chosen,
            "rejected_drift": chosen - margin,
            "kl": 0.9 * grown**2,
            "chosen_length": 61 + 2 * grown,
            "rejected_length": 58 - 1.5 * grown,
        }
        if s:
            noisy = {
                k: v + (0.12 if k == "accuracy" else 0.1 if abs(v) < 5 else 6) * wobble(s, i)
                for i, (k, v) in enumerate(row.items())
            }
            noisy["accuracy"] = round(16 * min(1, max(0, noisy["accuracy"]))) / 16
            noisy |= {
                "learning_rate": 5e-6 * min(1, s / 16) * (1 - s / (steps + 1)),
                "grad_norm": 1.4 + 0.5 * wobble(s, 9),
            }
            noisy |= {"pairs_per_second": 18 + wobble(s, 11), "reference_cache_hits": 16}
            yield {"step": s, "epoch": s / steps, "phase": "train", **noisy}
        if s % 20 == 0:
            widths = {
                "loss": 0.02,
                "accuracy": 0.053,
                "margin": 0.16,
                "chosen_drift": 0.13,
                "rejected_drift": 0.15,
                "kl": 0.05,
            }
            bounds = {f"{k}_low": row[k] - w for k, w in widths.items()} | {
                f"{k}_high": row[k] + w for k, w in widths.items()
            }
            yield {"step": s, "epoch": s / steps, "phase": "validation", "n": HELD_OUT, **row, **bounds}


def evaluation() -> dict[str, Any]:
    def row(model: str, share: float, margin: float, kl: float, n: int = HELD_OUT) -> dict[str, Any]:
        spread = [margin + 1.5 * wobble(i) for i in range(n)]
        return {
            "model": model,
            "accuracy": proportion_interval(round(share * n), n).as_dict(),
            "margin": mean_interval(spread).as_dict(),
            "kl": mean_interval([kl + 0.2 * wobble(i, 3) for i in range(n)]).as_dict(),
        }

    models = (("base", 0.50, 0.0, 0.0), ("sft", 0.52, 0.2, 0.3), ("dpo", 0.63, 1.5, 0.8))
    groups = {"helpful": (240, 0.02), "harmless": (60, -0.04), "red team": (22, -0.16)}
    return {
        "on": "322 held-out pairs",
        "judge": "the policy's own log-probabilities",
        "rows": [row(*m) for m in models],
        "groups": {g: [row(m, s + shift, mg, kl, n) for m, s, mg, kl in models] for g, (n, shift) in groups.items()},
    }


SAMPLES = [
    {
        "prompt": [
            {"role": "system", "content": "You are a careful cook."},
            {"role": "user", "content": "Can I keep cooked rice overnight?"},
        ],
        "responses": {
            "base": "Rice rice rice. Human: what about",
            "sft": "Yes, you can keep it in the fridge.",
            "dpo": "Yes. Cool it within an hour, keep it in the fridge in a closed box, and eat it the next day.\n\n"
            "Heat it until it steams all the way through.",
        },
    },
    {
        "prompt": "Name two birds.",
        "responses": {
            "base": "two birds. Name two birds.",
            "sft": "A crow and a gull.",
            "dpo": "The crow and the gull.",
        },
    },
    {
        "prompt": "ما هي عاصمة لبنان؟",
        "responses": {"base": "", "sft": "بيروت.", "dpo": "عاصمة لبنان هي بيروت."},
    },
    *({"prompt": f"Count to {i}.", "responses": {"base": "1", "sft": "1, 2", "dpo": "1, 2, 3"}} for i in range(4, 8)),
]


def write_run(path: Path, run_info: dict[str, Any], metrics: Any) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "run.json").write_text(json.dumps(run_info, indent=2))
    write_lines(path / "metrics.jsonl", metrics)
    return path


def write_pipeline(path: Path) -> Path:
    """quickstart/: sft/, dpo/, an evaluation and samples."""
    changed = info("preference", "dpo", created="2025-03-04T05:08:00+00:00", seconds=70.1)
    changed["defaults"] = json.loads(json.dumps(changed["settings"]))
    changed["settings"]["training"]["learning_rate"] = 2e-5
    changed["settings"]["objective"]["beta"] = 0.2
    write_run(path / "sft", info("sft", "sft", seconds=34.0), sft_metrics())
    write_run(path / "dpo", changed, dpo_metrics())
    top = info("preference", "quickstart", command="pluralign quickstart --output runs/quickstart")
    (path / "run.json").write_text(json.dumps({**top, "settings": {}}))
    (path / "evaluation.json").write_text(json.dumps(evaluation(), indent=2))
    write_lines(path / "samples.jsonl", SAMPLES)
    return path


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    return write_pipeline(tmp_path / "quickstart")


@pytest.fixture
def single(tmp_path: Path) -> Path:
    """One preference run without an evaluation or samples."""
    return write_run(tmp_path / "dpo", info("preference", "dpo"), dpo_metrics())
