"""An attribute model trained by our own command, and its scores."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch

from pluralign.errors import SettingsError
from pluralign.judging.rating import rate
from pluralign.objectives import OBJECTIVES
from pluralign.policy import Policy
from pluralign.training.run import align

from .conftest import sentence


class Read:
    def __init__(self, rated: list[list[float]]) -> None:
        self.rated = torch.tensor(rated, requires_grad=True)


def test_regression_by_hand() -> None:
    """(.5 - 1)^2 + (.25 - 0)^2 = .3125; a missing score counts nothing."""
    y = Read([[0.5, 0.25], [0.5, 9.0]])
    out = OBJECTIVES["rating"]({"y": y, "attributes": torch.tensor([[1.0, 0.0], [1.0, torch.nan]])})
    assert out.loss.tolist() == pytest.approx([0.3125, 0.25])
    out.loss.sum().backward()
    assert y.rated.grad.tolist() == [[-1.0, 0.5], [-1.0, 0.0]]


def test_comparisons_by_hand() -> None:
    """Gap 2 in the right order: ln(1 + e^-2) = .126928; a tie and a missing score say nothing and move nothing."""
    w, l = Read([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]), Read([[-1.0, 3.0, 1.0], [5.0, 0.0, 0.0]])
    nan = torch.nan
    out = OBJECTIVES["rating_bt"]({
        "w": w, "l": l, "attributes_w": torch.tensor([[4.0, 2.0, nan], [1.0, nan, 1.0]]),
        "attributes_l": torch.tensor([[1.0, 2.0, 0.0], [1.0, 0.0, 1.0]]),
    })  # fmt: skip
    assert out.loss.tolist() == pytest.approx([0.126928, 0.0], abs=1e-6)
    assert out.metrics["rating_accuracy"].tolist() == [1.0, 0.5]
    out.loss.sum().backward()
    assert w.rated.grad[0, 0] < 0 < l.rated.grad[0, 0]  # the preferred one is raised
    assert float(w.rated.grad[0, 1:].abs().sum() + w.rated.grad[1].abs().sum()) == 0


def test_one_attribute_is_bradley_terry() -> None:
    w, l = Read([[0.3]]), Read([[1.1]])
    r = {"w": w, "l": l, "attributes_w": torch.tensor([[1.0]]), "attributes_l": torch.tensor([[0.0]])}
    want = -torch.nn.functional.logsigmoid(torch.tensor(0.3 - 1.1))
    torch.testing.assert_close(OBJECTIVES["rating_bt"](r).loss, want[None])


@pytest.mark.parametrize("objective", ["rating", "rating_bt"])
def test_a_trained_judge_tells_good_words_from_bad(settings, tmp_path, objective) -> None:
    """`good` scores high and `bread` low on one attribute; on the other it is the other way round."""
    rng = random.Random(0)
    rows = [
        {"prompt": f"{i} {sentence(rng, 3, 6)}", "chosen": f"good {sentence(rng, 1, 4)} good good",
         "rejected": f"bread {sentence(rng, 1, 4)} bread bread",
         "attributes": {"joy": [5, 1], "food": [None, 3] if i % 5 else [1, 3]}}
        for i in range(200)
    ]  # fmt: skip
    path = tmp_path / "rated.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = align(settings(
        f"data.source={path}", f"objective={objective}", "data.responses=all", "max_steps=40", "learning_rate=1e-2",
        "batch_size=16", "eval_every=0", "best_metric=none", "kl_rows=0", "scores.layers=1",
    ))  # fmt: skip
    judge = Policy.load(done.output, precision="fp32")
    assert judge.scores.names == ("food", "joy")
    found = rate(judge, ["What is there?"] * 2, ["good tree good good", "bread tree bread bread"])
    assert found.shape == (2, 2)
    assert found[0, 1] > found[1, 1] + 1
    assert found[1, 0] > found[0, 0]
    if objective == "rating":
        assert np.abs(found[:, 1] - [5, 1]).max() < 1.0  # in the data's units


def test_a_policy_without_a_rating_head_is_no_judge(tiny_model) -> None:
    with pytest.raises(SettingsError, match="no rating head"):
        rate(Policy.load(tiny_model), ["x"], ["y"])
