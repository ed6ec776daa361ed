"""A cache built with one setting is never served to another; the same question is asked once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pluralign.policy import Policy
from pluralign.training.run import align
from pluralign.training.trainer import AlignTrainer


@pytest.fixture
def filled(monkeypatch) -> list[tuple[str, int]]:
    """Which blocks of references were computed."""
    seen: list[tuple[str, int]] = []
    original = AlignTrainer._fill

    def watch(self, store, examples, missing, model, split):
        seen.append((split, len(missing)))
        original(self, store, examples, missing, model, split)

    monkeypatch.setattr(AlignTrainer, "_fill", watch)
    return seen


def test_a_second_run_reads_the_cache_whatever_its_objective(settings, filled) -> None:
    align(settings("max_steps=1", output="a"))
    assert len(filled) == 2
    align(settings("max_steps=1", "beta=0.5", "learning_rate=1e-4", output="b"))
    align(settings("max_steps=1", "objective=ipo", output="c"))
    assert len(filled) == 2


@pytest.mark.parametrize("change", ["max_length=64", "template=plain", "precision=bf16", "layout=rows", "row", "model"])
def test_any_change_that_matters_computes_anew(settings, filled, change, pairs_file, tmp_path) -> None:
    align(settings("max_steps=1", output="a"))
    overrides = [change]
    if change == "row":
        rows = [json.loads(line) for line in Path(pairs_file).read_text().splitlines()]
        for row in rows:
            row["chosen"] += " x"
        other = tmp_path / "other.jsonl"
        other.write_text("".join(json.dumps(r) + "\n" for r in rows))
        overrides = [f"data.source={other}"]
    if change == "model":
        policy = Policy.load(settings().model, precision="fp32")
        policy.model.model.norm.weight.data[0] += 1e-3
        policy.save(tmp_path / "changed")
        overrides = [f"model={tmp_path / 'changed'}"]
    align(settings("max_steps=1", *overrides, output="b"))
    assert len(filled) == 4
