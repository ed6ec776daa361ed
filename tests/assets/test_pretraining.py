"""How the embedded model was pre-trained: the stream of rows, the schedule, and a run that was stopped."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from pluralign.assets import pretraining
from pluralign.assets.pretraining import Pretraining, Rows, make_loss, schedule


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretraining, "ROW", 16)
    monkeypatch.setattr(pretraining, "BATCH", 2)


def store() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 30, 40)
    return {
        "tokens": rng.integers(3, 64, lengths.sum()).astype(np.uint16), "offsets": np.cumsum([0, *lengths]),
        "source": rng.integers(0, 2, 40), "sources": np.array(["talk", "prose"]), "split": np.array(["train"] * 40),
    }  # fmt: skip


def opened(folder: Path) -> tuple[Pretraining, Any]:
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        tie_word_embeddings=True, pad_token_id=2, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    rows = Rows(store(), {"talk": 2.0}, 1), Rows(store(), {"prose": 0.5}, 2)
    return Pretraining(model, folder, *rows, rates=(1e-2, 1e-2)), make_loss(model, compiled=False)


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    whole, loss = opened(tmp_path / "whole")
    values = [whole.advance(loss, 8) for _ in range(8)]
    first, loss = opened(tmp_path / "parts")
    for _ in range(5):  # past the switch to dialogue, which is in the checkpoint
        first.advance(loss, 8)
    first.save()
    second, loss = opened(tmp_path / "parts")
    assert (second.step, second.switch) == (5, 4)
    assert [second.advance(loss, 8) for _ in range(3)] == values[5:]
    assert all(torch.equal(a, b) for a, b in zip(whole.master, second.master, strict=True))
    assert all(torch.equal(p, m.bfloat16()) for p, m in zip(second.model.parameters(), second.master, strict=True))


def test_it_learns(tmp_path: Path) -> None:
    run, loss = opened(tmp_path)
    values = [run.advance(loss, 60) for _ in range(60)]
    assert np.mean(values[-5:]) < np.mean(values[:5]) - 0.1


def test_a_signal_saves_and_the_file_of_the_folder_has_the_last_word(tmp_path: Path) -> None:
    run, loss = opened(tmp_path)

    def interrupted(ids: torch.Tensor) -> torch.Tensor:
        if run.step == 3:
            signal.raise_signal(signal.SIGTERM)
        return loss(ids)

    before = signal.getsignal(signal.SIGTERM)
    run.run(100, interrupted, judge=dict, judge_every=50)
    assert signal.getsignal(signal.SIGTERM) is before
    again, loss = opened(tmp_path)
    assert again.step == 4  # the step in which the signal came is finished
    (tmp_path / "total_steps").write_text("6")
    again.run(100, loss, judge=lambda: {"talk": 1.0}, judge_every=50)
    assert again.step == 6
    assert '"bpb": {"talk": 1.0}' in (tmp_path / "log.jsonl").read_text()


def test_rows_hold_every_document_as_often_as_the_mixture_says() -> None:
    data = store()
    rows = Rows(data, {"talk": 2.0, "prose": 0.0}, 3)
    rows.batch(0)
    ends = zip(data["offsets"][:-1], data["offsets"][1:], data["source"], strict=True)
    wanted = np.concatenate([data["tokens"][a:b] for a, b, source in ends if source == 0])
    found, counts = np.unique(rows.rows, return_counts=True)
    most = dict(zip(*np.unique(wanted, return_counts=True), strict=True))
    assert abs(rows.rows.size - 2 * wanted.size) < 16
    assert all(count <= 2 * most[token] for token, count in zip(found, counts, strict=True))


def test_any_position_can_be_asked_for() -> None:
    at_once = Rows(store(), {}, 5).batch(70)
    step_by_step = Rows(store(), {}, 5)
    for position in range(0, 70, 2):
        step_by_step.batch(position)
    assert torch.equal(step_by_step.batch(70), at_once)


def test_the_schedule() -> None:
    rates = [schedule(step, 1000) for step in range(1000)]
    assert rates[0] == 0.01
    assert rates[99] == rates[599] == 1
    assert rates[800] == pytest.approx(0.5)
    assert rates[-1] == pytest.approx(1 / 400)
