"""The tiny model of the training tests, spread out so that its choices are not all ties."""

from __future__ import annotations

import pytest
import torch

from pluralign.policy import Policy
from tests.training.conftest import tiny_model  # noqa: F401 - a fixture


@pytest.fixture
def policy(tiny_model: str) -> Policy:  # noqa: F811 - the fixture
    loaded = Policy.load(tiny_model, precision="fp32")
    torch.manual_seed(1)
    with torch.no_grad():
        for p in loaded.model.parameters():
            p.add_(torch.randn_like(p) * 0.3)
    return loaded
