"""The library as the front page shows it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

import pluralign as pa
from pluralign.judging.statistics import Estimate


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLURALIGN_CACHE", str(tmp_path / "cache"))


QUICK = {"max_steps": 3, "batch_size": 8, "learning_rate": 1e-3, "kl_rows": 4, "max_length": 128}


def plan(ex):
    yield pa.Term("w", context=(ex.prompt,), target=ex.chosen, by="policy")
    yield pa.Term("l", context=(ex.prompt,), target=ex.rejected, by="policy")


def my_loss(r, *, beta=1.0):
    return pa.Outcome(torch.nn.functional.softplus(-beta * (r["w"].mean - r["l"].mean)))


def losses(run) -> list[float]:
    rows = [json.loads(line) for line in (run.output / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if row["phase"] == "train"]


def test_load_align_summary_chat(tiny_model: str, pairs_file: str, tmp_path: Path) -> None:
    data = pa.load(pairs_file)
    policy = pa.Policy.load(tiny_model)
    run = pa.align(policy, data, recipe="dpo", objective="simpo", gamma=0.0, output=tmp_path / "run", **QUICK)
    assert "accuracy: " in run.summary()
    assert "95 % interval" in run.summary()
    assert isinstance(run.policy.chat("Plan a weekend in Lisbon for a vegetarian.", max_new_tokens=5), str)
    about = json.loads((run.output / "run.json").read_text())
    assert about["settings"]["objective"] == {"name": "simpo", "gamma": 0.0}
    assert about["settings"]["rendering"]["max_length"] == 128
    assert about["data"]["train"] + about["data"]["validation"] == 64
    assert about["data"]["source"] == pairs_file
    assert run.policy.model is policy.model  # trained in place


def test_a_new_method_is_a_plan_and_a_function(tiny_model: str, pairs_file: str, tmp_path: Path) -> None:
    run = pa.align(tiny_model, pa.load(pairs_file), plan=plan, objective=my_loss, output=tmp_path / "a", **QUICK)
    assert losses(run)[0] == pytest.approx(math.log(2), abs=0.05)  # two near-equal means per token
    assert json.loads((run.output / "run.json").read_text())["settings"]["objective"] == {"name": "my_loss"}
    # its keyword is a setting like any other: beta 0 leaves exactly log 2
    flat = pa.align(
        tiny_model, pa.load(pairs_file), plan=plan, objective=my_loss, beta=0.0, output=tmp_path / "b", **QUICK
    )
    assert losses(flat) == pytest.approx([math.log(2)] * 3, abs=1e-6)


def test_the_same_settings_train_the_same_from_python_and_from_the_command_line(
    tiny_model: str, pairs_file: str, tmp_path: Path
) -> None:
    from pluralign.cli import run as cli

    done = pa.align(tiny_model, pa.load(pairs_file), recipe="dpo", output=tmp_path / "python", **QUICK)
    words = [f"{k}={v}" for k, v in QUICK.items()]
    assert (
        cli(["align", "dpo", "--model", tiny_model, "--data", pairs_file, "--output", str(tmp_path / "cli"), *words])
        == 0
    )
    rows = [json.loads(line) for line in (tmp_path / "cli" / "metrics.jsonl").read_text().splitlines()]
    assert losses(done) == [row["loss"] for row in rows if row["phase"] == "train"]


def test_rows_and_records_in_memory(tiny_model: str, tmp_path: Path) -> None:
    rows = [{"prompt": f"Question {i}?", "chosen": "Yes, gladly.", "rejected": "No."} for i in range(20)]
    run = pa.align(tiny_model, rows, output=tmp_path / "rows", **QUICK)
    records = list(pa.load(rows))
    again = pa.align(tiny_model, records, output=tmp_path / "records", training={"max_steps": 3}, **{
        k: v for k, v in QUICK.items() if k != "max_steps"})  # fmt: skip
    assert losses(run) == losses(again)
    sft = pa.align(
        tiny_model, records, recipe="sft", limit=5, validation_fraction=0.0, output=tmp_path / "sft", **QUICK
    )
    assert json.loads((sft.output / "run.json").read_text())["data"]["train"] == 5
    assert sft.metrics == {}


def test_three_rows_are_enough_to_train_on(tiny_model: str, tmp_path: Path) -> None:
    """None of them falls into the validation part; that is said and no fault."""
    rows = [{"prompt": f"{i}?", "chosen": "Yes.", "rejected": "No."} for i in (1, 2, 4)]
    run = pa.align(tiny_model, rows, output=tmp_path / "run", **QUICK)
    assert run.status == "finished"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"objective": my_loss}, "needs a plan"),
        ({"recipe": "dppo"}, 'Did you mean "dpo"'),
        ({"gamma": 1}, 'unknown setting "gamma"'),
        ({"lora": {"rank": 4}}, "lora.rank.* no effect on a policy that is loaded"),
        ({"precision": "fp32"}, "training.precision.* no effect"),
        ({"columns": {"prompt": "q"}}, "data.columns.* no effect on records in memory"),
        ({"objective": "dopo"}, 'unknown objective "dopo"'),
        ({"objective": ["dpo", "nll"]}, r"an objective is a name, not \['dpo', 'nll'\]"),
    ],
)
def test_what_cannot_work_says_so(tiny_model: str, pairs_file: str, arguments: dict, message: str) -> None:
    with pytest.raises(pa.PluralignError, match=message):
        pa.align(pa.Policy.load(tiny_model), pa.load(pairs_file), **arguments)


def test_the_callers_rendering_goes_over_the_policys_over_the_recipes(
    tiny_model: str, pairs_file: str, tmp_path: Path
) -> None:
    policy = pa.Policy.load(tiny_model, rendering={"template": "plain", "max_length": 64})
    quick = {k: v for k, v in QUICK.items() if k != "max_length"}
    run = pa.align(policy, pa.load(pairs_file), recipe="simpo", output=tmp_path / "a", **quick)  # the recipe: 2048
    assert run.policy.rendering["max_length"] == 64
    assert run.policy.renderer.template.name == "plain"
    run = pa.align(policy, pa.load(pairs_file), recipe="simpo", output=tmp_path / "b", max_length=96, **quick)
    assert run.policy.renderer.max_length == 96
    assert policy.renderer.max_length == 64


def test_evaluate_takes_names_policies_and_mappings(tiny_model: str, pairs_file: str, tmp_path: Path) -> None:
    found = pa.evaluate({"a": tiny_model, "b": pa.Policy.load(tiny_model)}, pairs_file, reference="a", output=tmp_path)
    assert isinstance(found.estimate("a", "accuracy"), Estimate)
    assert found.estimate("b", "margin").value == pytest.approx(0, abs=1e-4)
    assert found.estimate("b", "kl").value == pytest.approx(0, abs=1e-6)
    assert json.loads((tmp_path / "evaluation.json").read_text()) == found.evaluation
    alone = pa.evaluate(tiny_model, pa.load(pairs_file), limit=5)
    assert alone.evaluation["rows"][0]["model"] == "model"
    assert alone.estimate("model", "accuracy").n == 5
    with pytest.raises(pa.PluralignError, match="given twice"):
        pa.evaluate([tiny_model, tiny_model], pairs_file)


def test_the_shipped_held_out_pairs_are_no_training_pairs() -> None:
    from pluralign.api import HELD_OUT
    from pluralign.assets import PAIRS_DIR

    train, held = pa.load(PAIRS_DIR / "train.jsonl.gz"), pa.load(HELD_OUT)
    turns = [{next(m for m in r.prompt if m.role == "user").content.strip() for r in rows} for rows in (train, held)]
    assert not turns[0] & turns[1]
    assert train.counts.records > 1000
    assert held.counts.records > 300
