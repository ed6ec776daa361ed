"""The adapter of lm-evaluation-harness: rows and figures from what it finds, and a task of one's own where it is
installed."""

from __future__ import annotations

import builtins
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from pluralign.benchmarks.kinds import harness
from pluralign.benchmarks.kinds.harness import rows_of, run_harness
from pluralign.errors import PluralignError, SettingsError
from pluralign.judging.statistics import share_interval

TASK = """
task: animals
dataset_path: json
dataset_kwargs:
  data_files: {{test: "{file}"}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}\\nAnswer:"
doc_to_choice: ["the cat", "a house under the tree"]
doc_to_target: label
metric_list:
  - metric: acc
  - metric: acc_norm
"""
installed = pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="needs lm-eval (extra harness)")


def test_rows_hold_what_is_a_number() -> None:
    samples = {"t": [{"doc_id": 3, "metrics": ["acc", "text", "nan"], "acc": 1, "text": "x", "nan": float("nan")}]}
    assert rows_of("m", samples) == [{"system": "m", "id": "t 3", "category": "t", "values": {"acc": 1.0}}]


def test_without_the_harness_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.split(".")[0] == "lm_eval":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(PluralignError, match=r'not installed. pip install "pluralign\[harness\]"'):
        run_harness("arc_easy", {"m": "embedded"})


def test_figures_are_means_over_documents(monkeypatch: pytest.MonkeyPatch, tiny_model: str, tmp_path: Path) -> None:
    """Three of four documents right: .75 with Wilson's interval; the model is handed over, no name of it."""

    class Fake:
        __version__ = "0"

        def simple_evaluate(self, **told: Any) -> None:
            raise AssertionError("the samples are given")

    class Manager:
        all_tasks = ("animals",)

    seen: list[Any] = []

    def samples(fake: Any, policy: Any, names: Any, manager: Any, **more: Any) -> Any:
        seen.append(policy)
        return {"animals": [{"doc_id": i, "metrics": ["acc"], "acc": float(i < 3)} for i in range(4)]}

    monkeypatch.setattr(harness, "_harness", Fake)
    monkeypatch.setattr(harness, "_manager", lambda include: Manager())
    monkeypatch.setattr(harness, "_samples", samples)
    found = run_harness("animals", {"m": tiny_model}, output=tmp_path / "out")
    assert found.figures["m"]["acc"] == share_interval([1, 1, 1, 0])
    assert hasattr(seen[0], "renderer")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["benchmark"] == "harness:animals"
    with pytest.raises(SettingsError, match=r'no task "animal". Did you mean "animals"'):
        run_harness("animal", {"m": tiny_model})


@installed
def test_a_task_of_ones_own_runs_offline(tiny_model: str, tmp_path: Path) -> None:
    """The harness's log-probs decide as ours do: acc is by the sum, each answer behind the question with one blank."""
    from pluralign.policy import Policy
    from pluralign.scoring.layout import Scored

    rows = [{"question": f"who ran under tree {i}?", "label": i % 2} for i in range(6)]
    (tmp_path / "animals.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "animals.yaml").write_text(TASK.format(file=tmp_path / "animals.jsonl"))
    found = run_harness("animals", {"tiny": tiny_model}, include=tmp_path / "tasks", output=tmp_path / "out")
    figures = found.figures["tiny"]
    assert figures["acc"].n == 6
    policy = Policy.load(tiny_model, precision="fp32")
    right = []
    for row in rows:
        context = policy.tokenizer.encode(f"{row['question']}\nAnswer:")
        sums = []
        for option in (" the cat", " a house under the tree"):
            whole = policy.tokenizer.encode(f"{row['question']}\nAnswer:{option}")
            sums.append(float(policy.score([Scored(context, whole[len(context) :])])[0].sum[0]))
        right.append(float(sums.index(max(sums)) == row["label"]))
    assert figures["acc"] == share_interval(right)
    kept = [json.loads(line) for line in (tmp_path / "out" / "items.jsonl").read_text().splitlines()]
    assert [row["values"]["acc"] for row in kept] == right
