"""Readings as objectives see them, made of plain numbers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Given:
    """Sums (B,), or a list (B, K) with its mask; tokens end to end where a test needs them."""

    sum: Tensor
    length: Tensor
    mask: Tensor | None = None
    tokens: Tensor | None = None
    segment: Tensor | None = None
    kl: Tensor | None = None
    collision: Tensor | None = None

    @property
    def mean(self) -> Tensor:
        return self.sum / self.length


def given(sums, lengths=None, *, grad: bool = False, dtype=torch.float32) -> Given:
    """(B,) readings."""
    total = torch.tensor(sums, dtype=dtype, requires_grad=grad)
    return Given(total, torch.ones(len(sums), dtype=torch.long) if lengths is None else torch.tensor(lengths))


def tokens(rows, *, grad: bool = False, **per_token) -> Given:
    """One row of per-token log-probs an example; `kl` and `collision` are rows of the same shape."""
    flat = lambda rs: torch.tensor([x for row in rs for x in row], dtype=torch.float32)
    leaf = flat(rows).requires_grad_(grad)
    length = torch.tensor([len(row) for row in rows])
    segment = torch.repeat_interleave(torch.arange(len(rows)), length)
    total = torch.zeros(len(rows)).index_add(0, segment, leaf)
    return Given(total, length, tokens=leaf, segment=segment, **{n: flat(v) for n, v in per_token.items()})


def pairs(w, l, ref_w, ref_l, *, grad: bool = False, dtype=torch.float32) -> dict[str, Given]:
    """Four (B,) readings under their names."""
    return {
        "w": given(w, grad=grad, dtype=dtype),
        "l": given(l, grad=grad, dtype=dtype),
        "ref_w": given(ref_w, dtype=dtype),
        "ref_l": given(ref_l, dtype=dtype),
    }


FIXTURE_A = {"w": [-10.0], "l": [-14.0], "ref_w": [-12.0], "ref_l": [-13.0]}  # h 2 and -1, rho 3


def take(readings: dict, rows: list[int]) -> dict:
    """Some examples of (B,) readings and columns."""
    at = torch.tensor(rows)
    pick = lambda x: x[at] if isinstance(x, Tensor) else Given(x.sum[at], x.length[at])
    return {name: pick(x) for name, x in readings.items()}
