"""Whole runs: what they leave, what changes nothing, what stops them, and that they resume exactly."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pluralign.errors import SettingsError, TrainingError
from pluralign.objectives import Outcome
from pluralign.policy import Policy
from pluralign.terms import reference_free_pair
from pluralign.training.callbacks import Say
from pluralign.training.run import align

from .conftest import plural

ROOT = Path(__file__).resolve().parents[2]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def losses(folder: Path, phase: str = "train", name: str = "loss") -> list[float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row[name] for row in rows if row["phase"] == phase]


def assert_same_weights(a: Path, b: Path, **tolerance: float) -> None:
    left, right = weights(a), weights(b)
    assert left.keys() == right.keys()
    for name in left:
        if tolerance:
            torch.testing.assert_close(left[name], right[name], **tolerance, msg=name)
        else:
            assert torch.equal(left[name], right[name]), name


def test_a_run_leaves_what_it_promises(settings, tmp_path) -> None:
    run = align(settings())
    about = json.loads((run.output / "run.json").read_text())
    assert about["status"] == "finished"
    assert about["data"]["train"] + about["data"]["validation"] == 64
    assert about["model"]["layout"] == "trie"
    assert losses(run.output)[0] == pytest.approx(math.log(2), abs=1e-6)  # policy = reference
    assert losses(run.output)[-1] < math.log(2)
    validation = [json.loads(x) for x in (run.output / "metrics.jsonl").read_text().splitlines()]
    last = [row for row in validation if row["phase"] == "validation"][-1]
    assert last["accuracy_low"] <= last["accuracy"] <= last["accuracy_high"]
    assert last["kl"] > 0
    assert not (run.output / "work").exists()
    again = Policy.load(run.output)
    assert again.rendering["max_length"] == 128
    assert "accuracy" in run.summary()


@pytest.mark.parametrize("objective", ["sft", "ipo", "simpo"])
def test_every_objective_trains(settings, objective) -> None:
    run = align(settings(f"objective={objective}", "max_steps=6"))
    curve = losses(run.output, "validation")
    assert curve[-1] < curve[0] or objective == "ipo"
    assert all(math.isfinite(x) for x in curve)


def test_layout_budget_and_batching_do_not_change_the_training(settings) -> None:
    """Contract 7: the same data gives the same gradients at any split; contract 3: in either layout."""
    whole = align(settings("max_steps=4", output="whole"))
    split = align(settings("max_steps=4", "token_budget=256", output="split"))
    rows = align(settings("max_steps=4", "layout=rows", output="rows"))
    for other in (split, rows):
        assert losses(other.output) == pytest.approx(losses(whole.output), abs=2e-5)
        assert_same_weights(whole.output, other.output, atol=3e-4, rtol=1e-3)


def test_sft_is_normalised_by_tokens_over_the_whole_step(settings) -> None:
    whole = align(settings("objective=sft", "max_steps=3", output="whole"))
    split = align(settings("objective=sft", "max_steps=3", "token_budget=256", output="split"))
    assert losses(split.output) == pytest.approx(losses(whole.output), abs=1e-5)


class KillAt(Say):
    def __init__(self, step: int) -> None:
        self.at = step

    def step(self, name: str, step: int, total: int, logs: dict[str, float]) -> None:
        if name == "dpo" and step == self.at:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("step", [1, 3, 4])
def test_stopped_and_resumed_equals_uninterrupted(settings, step) -> None:
    straight = align(settings(output="straight"))
    first = align(settings(output="broken"), say=KillAt(step))
    assert first.status == "stopped"
    assert json.loads((first.output / "run.json").read_text())["step"] == step + 1  # it ends the step it is in
    second = align(settings(output="broken"), resume=True)
    assert second.status == "finished"
    assert losses(second.output) == losses(straight.output)
    assert_same_weights(straight.output, second.output)


def test_killed_without_mercy_and_resumed(settings, tmp_path, cache) -> None:
    """SIGKILL between checkpoints: it goes on from the last one, with the references from disk."""
    straight = align(settings(output="straight"))
    script = tmp_path / "victim.py"
    keys = settings(output="victim").model_dump_json()
    script.write_text(
        "import os, sys\nfrom pluralign.training.run import align\nfrom pluralign.training.settings import Settings\n"
        "from pluralign.training.callbacks import Say\n"
        "class Kill(Say):\n    def step(self, name, step, total, logs):\n"
        "        if name == 'dpo' and step == 5: os.kill(os.getpid(), 9)\n"
        f"align(Settings.model_validate_json({keys!r}), say=Kill())\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, str(script)], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == -9, done.stderr[-2000:]
    resumed = align(settings(output="victim"), resume=True)
    assert losses(resumed.output) == losses(straight.output)
    assert_same_weights(straight.output, resumed.output)


def test_an_own_plan_and_loss(settings) -> None:
    def loss(r, *, beta: float = 1.0) -> Outcome:
        return Outcome(torch.nn.functional.softplus(-beta * (r["w"].mean - r["l"].mean)))

    run = align(settings("epochs=3", "best_metric=none"), plan=reference_free_pair, objective=loss)
    curve = losses(run.output, "validation")
    assert curve[-1] < curve[0]


def test_a_non_finite_loss_stops_with_the_step_and_the_row(settings) -> None:
    def broken(r) -> Outcome:
        return Outcome(r["w"].sum * float("nan"))

    with pytest.raises(TrainingError, match=r"loss is nan at step 1 \(.*\).*learning_rate"):
        align(settings("best_metric=none"), plan=reference_free_pair, objective=broken)


def test_the_falling_chosen_likelihood_is_reported(settings) -> None:
    warnings: list[str] = []

    class Listen(Say):
        def warn(self, text: str) -> None:
            warnings.append(text)

    align(settings("learning_rate=0.05", "collapse_nats=0.5", "max_steps=8", "clip=0"), say=Listen())
    assert any("chosen responses lost" in w for w in warnings)


def test_the_best_checkpoint_is_kept_and_patience_stops(settings) -> None:
    run = align(settings("learning_rate=0.5", "epochs=10", "patience=2", "eval_every=2", "clip=0", "warmup=0"))
    curve = losses(run.output, "validation")
    assert len(losses(run.output)) < 60  # ten epochs would be 60 steps and more
    assert run.metrics["loss"] == pytest.approx(min(curve), abs=1e-6)


def test_lora_is_its_own_reference(settings, tiny_model) -> None:
    run = align(settings("lora.rank=4", "max_steps=4"))
    assert losses(run.output)[0] == pytest.approx(math.log(2), abs=1e-6)
    assert (run.output / "model" / "adapter_model.safetensors").is_file()
    back = Policy.load(run.output)
    assert type(back.model).__name__.startswith("Peft")


def test_a_finished_folder_is_not_overwritten(settings) -> None:
    align(settings("max_steps=1"))
    with pytest.raises(SettingsError, match="holds a run already"):
        align(settings("max_steps=1"))


def test_two_processes_follow_the_trajectory_of_one(settings, tmp_path, cache) -> None:
    """accelerate launch over gloo: the same losses, and weights to rounding; also of a loss over the whole step, and of
    a head and vectors that take part in the pass."""
    data = plural(tmp_path / "plural.jsonl", 64)
    assert_two_processes_agree(
        settings, tmp_path, ("objective=dpo",), ("objective=aot", "conditioning=averaged"),
        (f"data.source={data}", "intents=infer", "intents.soft=2", "intents.similarity=0.2", "intents.candidates=2"),
    )  # fmt: skip


def assert_two_processes_agree(settings, tmp_path, *methods) -> None:
    """Every method alone, then all of them, one after the other, in two processes."""
    ones = [align(settings("max_steps=5", *words, output=f"one-{i}")) for i, words in enumerate(methods)]
    keys = [settings("max_steps=5", *words, output=f"two-{i}").model_dump_json() for i, words in enumerate(methods)]
    script = tmp_path / "ranks.py"
    script.write_text(
        "from pluralign.scoring import reference\nfrom pluralign.training.run import align\n"
        "from pluralign.training.settings import Settings\n"
        "reference.BLOCK_ROWS = 16  # several blocks, so that both processes compute references\n"
        f"for keys in {keys!r}:\n    align(Settings.model_validate_json(keys))\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PLURALIGN_CACHE": str(tmp_path / "other")}
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines",
               "1", "--mixed_precision", "no", "--dynamo_backend", "no", str(script)]  # fmt: skip
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    for i, one in enumerate(ones):
        two = tmp_path / f"two-{i}"
        assert losses(two) == pytest.approx(losses(one.output), abs=1e-5)
        assert losses(two, "validation") == pytest.approx(losses(one.output, "validation"), abs=1e-5)
        assert_same_weights(one.output, two, atol=1e-4, rtol=1e-3)


def test_fsdp2_does_not_round_what_the_model_returns() -> None:
    from types import SimpleNamespace

    from torch.distributed.fsdp import MixedPrecisionPolicy

    from pluralign.training.checkpoints import keep_readings_whole

    rounding = MixedPrecisionPolicy(torch.bfloat16, torch.bfloat16, torch.bfloat16)
    plugin = SimpleNamespace(fsdp_version=2, mixed_precision_policy=rounding)
    keep_readings_whole(SimpleNamespace(state=SimpleNamespace(fsdp_plugin=plugin)))
    assert plugin.mixed_precision_policy.param_dtype is torch.bfloat16
    assert plugin.mixed_precision_policy.output_dtype is None
    assert plugin.mixed_precision_policy.reduce_dtype is torch.float32


def test_an_adapter_on_a_bf16_checkpoint_in_fp32(settings) -> None:
    """fp32 arithmetic needs fp32 weights: the frozen base is read as such, and both layouts agree."""
    done = align(settings("model=embedded", "lora.rank=4", "max_steps=1", "eval_every=0", "kl_rows=0"))
    assert {p.dtype for p in done.policy.model.parameters()} == {torch.float32}
