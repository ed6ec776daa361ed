"""The recipe `parm` from the command's settings to a folder that loads and steers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pluralign.api import settings_for
from pluralign.errors import SettingsError
from pluralign.heads.pblora import FILE, layers, preference_of, set_preference, shape_of
from pluralign.policy import Policy
from pluralign.training.run import align
from tests.training.conftest import cache, tiny_model  # noqa: F401 - fixtures

from .test_pblora import IDS, opposed

SHORT = ["max_steps=2", "validation_fraction=0", "kl_rows=0", "precision=fp32", "scores.attributes=[good, bread]"]


def logits(policy: Policy) -> torch.Tensor:
    with torch.no_grad():
        return policy.model.eval()(IDS).logits


def test_a_run_leaves_a_plain_base_and_its_layers(tiny_model: str, tmp_path: Path) -> None:  # noqa: F811
    own = settings_for("parm", {"model": tiny_model, "output": str(tmp_path / "run")}, SHORT)[0]
    made = align(own, data=opposed(64)).policy
    assert shape_of(made.model).attributes == ("good", "bread")
    assert (tmp_path / "run" / "model" / FILE).is_file()
    again = Policy.load(tmp_path / "run", precision="fp32")
    assert again.scores is None  # scores were columns: no prompt shows any
    for alpha in ((1.0, 0.0), (0.2, 0.8)):
        for policy in (made, again):
            set_preference(policy.model, alpha)
        assert torch.equal(logits(again), logits(made))
    assert preference_of(again.model).tolist() == pytest.approx([0.2, 0.8])
    base = Policy.load(tiny_model, precision="fp32")
    assert any(layer.up.abs().max() > 0 for layer in layers(again.model).values())
    assert not torch.equal(logits(base), logits(again))
    (tmp_path / "run" / "model" / FILE).unlink()
    assert torch.equal(logits(Policy.load(tmp_path / "run", precision="fp32")), logits(base))


def test_a_guide_is_trained_on_with_its_own_attributes_only(tiny_model: str, tmp_path: Path) -> None:  # noqa: F811
    own = settings_for("parm", {"model": tiny_model, "output": str(tmp_path / "run")}, SHORT)[0]
    align(own, data=opposed(64))
    more = {"model": str(tmp_path / "run"), "output": str(tmp_path / "more")}
    turned = settings_for("parm", more, [*SHORT, "scores.attributes=[bread, good]"])[0]
    with pytest.raises(SettingsError, match="weigh good, bread, and the run's attributes are bread, good"):
        align(turned, data=opposed(64))
    made = align(settings_for("parm", {**more, "output": str(tmp_path / "again")}, SHORT)[0], data=opposed(64)).policy
    assert shape_of(made.model).attributes == ("good", "bread")


def test_without_a_rank_it_is_a_plain_objective(tiny_model: str, tmp_path: Path) -> None:  # noqa: F811
    own = settings_for("parm", {"model": tiny_model, "output": str(tmp_path / "run")}, [*SHORT, "lora.rank=0"])[0]
    made = align(own, data=opposed(64)).policy
    assert not layers(made.model)
    assert not torch.equal(logits(made), logits(Policy.load(tiny_model, precision="fp32")))
