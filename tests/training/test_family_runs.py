"""Whole runs of objectives that want more than four log-probs: of the step, of the reference each step, of lists."""

from __future__ import annotations

import json

import pytest
import torch

from pluralign.errors import SettingsError
from pluralign.policy import Policy
from pluralign.training import trainer
from pluralign.training.callbacks import Say
from pluralign.training.run import align

from .test_runs import assert_same_weights, losses


@pytest.mark.parametrize("method", ["kto", "bco", "bco_pair", "aot", "aot_unpaired", "tdpo2", "ld_dpo", "wpo"])
def test_the_split_of_a_step_changes_nothing(settings, method) -> None:
    """Baselines, shifts and quantiles are those of the whole step, whatever fits into one forward pass."""
    whole = align(settings(f"objective={method}", "max_steps=3", output="whole"))
    split = align(settings(f"objective={method}", "max_steps=3", "token_budget=256", output="split"))
    assert losses(split.output) == pytest.approx(losses(whole.output), abs=3e-5)
    assert losses(split.output, "validation") == pytest.approx(losses(whole.output, "validation"), abs=3e-5)


@pytest.mark.parametrize("how", ["cross", "averaged", "one-sided"])
def test_conditioned_runs_do_not_depend_on_layout_or_split(settings, how) -> None:
    whole = align(settings(f"conditioning={how}", "max_steps=3", output="whole"))
    split = align(settings(f"conditioning={how}", "max_steps=3", "token_budget=256", output="split"))
    rows = align(settings(f"conditioning={how}", "max_steps=3", "layout=rows", output="rows"))
    for other in (split, rows):
        assert losses(other.output) == pytest.approx(losses(whole.output), abs=3e-5)
    last = json.loads((whole.output / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"accuracy", "margin", "conditioned_accuracy", "conditioned_margin", "conditioning_gap"} <= set(last)


class References(Say):
    """Counts the blocks of reference readings that were computed."""

    def __init__(self) -> None:
        self.blocks = 0

    def step(self, name: str, step: int, total: int, logs: dict[str, float]) -> None:
        self.blocks += name == "reference"


def test_inspo_reads_plain_dpos_reference_from_the_cache(settings, cache) -> None:
    first, second = References(), References()
    align(settings("max_steps=1", output="plain"), say=first)
    align(settings("max_steps=1", "conditioning=cross", "conditioning.style=turns", output="shown"), say=second)
    assert first.blocks > 0
    assert second.blocks == 0


def test_a_context_without_gradient_has_the_same_loss_and_other_weights(settings) -> None:
    whole = align(settings("conditioning=cross", "max_steps=4", output="whole"))
    cheap = align(settings("conditioning=cross", "context_gradient=false", "max_steps=4", output="cheap"))
    assert losses(cheap.output)[0] == pytest.approx(losses(whole.output)[0], abs=1e-5)
    assert losses(cheap.output)[-1] != losses(whole.output)[-1]
    for wrong in (("conditioning=averaged",), ("conditioning=cross", "layout=rows")):
        with pytest.raises(SettingsError, match="context_gradient=false is not possible"):
            align(settings(*wrong, "context_gradient=false", output="-".join(wrong)))


def test_running_numbers_survive_a_stop(settings) -> None:
    """BCO's shift is part of the checkpoint."""
    from .test_runs import KillAt

    class Stop(KillAt):
        def step(self, name: str, step: int, total: int, logs: dict[str, float]) -> None:
            super().step("dpo" if name != "reference" else name, step, total, logs)

    straight = align(settings("objective=bco", "max_steps=6", output="straight"))
    first = align(settings("objective=bco", "max_steps=6", output="broken"), say=Stop(2))
    assert first.status == "stopped"
    second = align(settings("objective=bco", "max_steps=6", output="broken"), resume=True)
    assert losses(second.output) == losses(straight.output)
    assert_same_weights(straight.output, second.output)


@pytest.mark.parametrize("method", ["kto", "tdpo2", "ld_dpo"])
def test_adapters_off_are_the_live_reference(settings, method) -> None:
    """Policy = reference at the first step, with a LoRA as without."""
    full = align(settings(f"objective={method}", "max_steps=1", output="full"))
    lora = align(settings(f"objective={method}", "max_steps=1", "lora.rank=4", output="lora"))
    assert losses(lora.output)[0] == pytest.approx(losses(full.output)[0], abs=1e-5)


@pytest.mark.parametrize("method", ["plackett_luce", "rrhf"])
def test_lists_of_different_lengths(settings, method, tmp_path) -> None:
    rows = []
    for i in range(40):
        said = [f"answer {i} number {k}" for k in range(2 + i % 3)]
        rows.append({
            "record": "ranked", "prompt": [{"role": "user", "content": f"question {i}"}],
            "responses": [[{"role": "assistant", "content": text}] for text in said],
            "scores": [float(len(said) - k) for k in range(len(said))],
        })  # fmt: skip
    (tmp_path / "lists.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    source = f"data.source={tmp_path / 'lists.jsonl'}"
    whole = align(settings(f"objective={method}", source, "max_steps=3", output="whole"))
    split = align(settings(f"objective={method}", source, "max_steps=3", "token_budget=256", output="split"))
    assert losses(split.output) == pytest.approx(losses(whole.output), abs=3e-5)
    shown = align(settings(f"objective={method}", source, "conditioning=cross", "max_steps=1", output="shown"))
    assert losses(shown.output)[0] > 0


def test_every_pass_runs_in_the_precision_of_the_run(settings, tiny_model, monkeypatch) -> None:
    """A reference that was loaded beside the policy, too: transformers' own context does nothing."""
    seen = []
    plain = trainer.forward

    def watched(*args, **kwargs):
        seen.append(torch.is_autocast_enabled("cpu"))
        return plain(*args, **kwargs)

    monkeypatch.setattr(trainer, "forward", watched)
    align(settings("precision=bf16", f"reference={tiny_model}", "max_steps=1", output="bf16"))
    assert len(seen) >= 3
    assert all(seen)


def test_a_hyper_parameter_that_cannot_be_is_named(settings) -> None:
    with pytest.raises(SettingsError, match="objective gpo: "):
        align(settings("objective=gpo", "curve=bad", "max_steps=1"))


def test_inference_knows_nothing_of_the_conditioning(settings, tiny_model) -> None:
    """What an InSPO policy is shown and writes is what transformers alone shows and writes, to the token."""
    from transformers import AutoModelForCausalLM

    run = align(settings("conditioning=cross", "max_steps=2", output="shown"))
    policy = Policy.load(run.output, precision="fp32")
    ids = policy.renderer.prompt("Name a fruit.")
    assert ids == Policy.load(tiny_model, precision="fp32").renderer.prompt("Name a fruit.")
    assert policy.tokenizer.convert_tokens_to_ids("<|sep|>") not in ids
    plain = AutoModelForCausalLM.from_pretrained(run.output / "model", dtype=torch.float32)
    stops = list(policy.renderer.stop_ids)
    wrote = plain.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=12, eos_token_id=stops)[0, len(ids) :]
    text = policy.tokenizer.decode(wrote, skip_special_tokens=True).strip()
    assert policy.generate(["Name a fruit."], temperature=0.0, max_new_tokens=12) == [text]


@pytest.mark.parametrize("how", ["cross", "averaged"])
def test_a_response_counts_once_for_losses_per_token(settings, how) -> None:
    """However often it is read: where nothing is shown (dropout 1), training is that of no conditioning."""
    plain = align(settings("objective=sft", "max_steps=3", output="plain"))
    shown = align(
        settings("objective=sft", f"conditioning={how}", "conditioning.dropout=1", "max_steps=3", output="shown")
    )
    assert losses(shown.output) == pytest.approx(losses(plain.output), abs=1e-5)
    # validation does show it, and another context does not halve a loss
    assert losses(shown.output, "validation")[0] == pytest.approx(losses(plain.output, "validation")[0], rel=0.2)


def test_a_last_batch_of_one_is_left_out_where_prompts_meet_other_responses(settings) -> None:
    """KTO pairs each prompt with the next example's response: one example alone, at an epoch's end, has no other."""
    first = align(settings("objective=kto", "max_steps=1", output="count"))
    rows = json.loads((first.output / "run.json").read_text())["data"]["train"]
    run = align(settings("objective=kto", f"batch_size={rows - 1}", "max_steps=2", output="run"))
    assert len(losses(run.output)) == 2
