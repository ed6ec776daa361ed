"""The intention module over an encoder that stays as it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pluralign.data import load, prompt_hash
from pluralign.heads.intent import load_encoder
from pluralign.intents.module import Training, load_intention, train_intention
from tests.training.test_intention_module import bert, rows  # noqa: F401 - a fixture


@pytest.mark.parametrize("loss", ["softmax", "bce"])
def test_only_the_classifier_learns(bert: str, tmp_path: Path, loss: str) -> None:  # noqa: F811 - the fixture
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(160)))
    records = list(load(tmp_path / "r.jsonl"))
    how = Training(learning_rate=5e-2, epochs=25, patience=25, loss=loss, frozen=True)
    made = train_intention(records, encoder=bert, how=how)
    before, _ = load_encoder(bert)
    after = made.encoder.state_dict()
    assert all(torch.equal(weight, after[name]) for name, weight in before.state_dict().items())
    history = made.about["history"]
    assert min(h["loss"] for h in history) < 0.5 * history[0]["loss"]
    # the weights that are kept are those of the best epoch: the figures come back from the module itself
    held = min(history, key=lambda h: h["loss"])
    back = load_intention(made.save(tmp_path / "m"))
    stop = [r for r in records if prompt_hash(r, 0) < 0.1]
    right = [made.names[i] == r.intent for i, r in zip(back.posterior(stop).argmax(1), stop, strict=True)]
    assert sum(right) / len(right) == pytest.approx(held["accuracy"])
