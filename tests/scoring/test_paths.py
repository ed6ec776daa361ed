"""The mask of a sequence that attends over its path."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pluralign.scoring import paths
from pluralign.scoring.paths import lower_right


@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (3, 3), (2, 7), (1, 8), (5, 9), (9, 9)])
def test_a_query_sees_all_but_the_own_tokens_behind_it(
    queries: int, keys: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "SQUARE", 8)  # 9 keys are more than what is kept
    paths._square.cache_clear()
    mask = lower_right(queries, keys, torch.zeros((), dtype=torch.bfloat16))
    paths._square.cache_clear()
    seen = [[j <= i + keys - queries for j in range(keys)] for i in range(queries)]
    assert mask.dtype == torch.bfloat16
    assert torch.equal(mask == 0, torch.tensor(seen))
    assert torch.equal(mask == -torch.inf, ~torch.tensor(seen))


def test_a_mask_first_asked_for_without_gradients_serves_a_backward_pass() -> None:
    paths._square.cache_clear()
    query = torch.ones(1, 1, 2, 4, requires_grad=True)
    with torch.inference_mode():
        lower_right(2, 3, query)
    F.scaled_dot_product_attention(
        query, *torch.rand(2, 1, 1, 3, 4), attn_mask=lower_right(2, 3, query)
    ).sum().backward()
    assert query.grad is not None


def test_what_is_kept_does_not_grow() -> None:
    paths._square.cache_clear()
    like = torch.zeros((), dtype=torch.float32)
    held = {lower_right(q, k, like).untyped_storage().data_ptr() for k in range(2, 60) for q in range(1, k)}
    assert len(held) == 1
