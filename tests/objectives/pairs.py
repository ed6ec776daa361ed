"""Pairs of readings made of plain numbers, and the list of objectives over pairs that read sums and means alone."""

from __future__ import annotations

import torch

from pluralign.objectives import OBJECTIVES

from .toys import Given

HOME = {f"pluralign.objectives.{name}" for name in ("pairwise", "families", "pointwise", "likelihood")}
PAIRWISE = sorted(n for n, o in OBJECTIVES.items() if o.function.__module__ in HOME and o.data == "pairs")
REFERENCED = [n for n in PAIRWISE if OBJECTIVES[n].reference]
REFERENCE_FREE = [n for n in PAIRWISE if not OBJECTIVES[n].reference]


def readings(w=-10.0, l=-14.0, ref_w=-12.0, ref_l=-13.0, n_w=5, n_l=7, grad=False, dtype=torch.float32, **columns):
    """Fixture A of the specification: h_w = 2, h_l = -1, rho = 3, per token 0.4 + 1/7 = 0.542857.

    Every value may be a list. The columns "margin" 0 and "p" 1 are there unless others are given.
    """
    many = lambda x: list(x) if isinstance(x, list | tuple) else [x]
    size = max(len(many(x)) for x in (w, l, ref_w, ref_l, n_w, n_l, *columns.values()))
    full = lambda x: many(x) * (size // len(many(x)))

    def make(x, n, leaf=False):
        return Given(torch.tensor(full(x), dtype=dtype, requires_grad=leaf), torch.tensor(full(n)))

    own = {name: torch.tensor(full(x), dtype=dtype) for name, x in ({"margin": 0.0, "p": 1.0} | columns).items()}
    pair = {"w": make(w, n_w, grad), "l": make(l, n_l, grad), "ref_w": make(ref_w, n_w), "ref_l": make(ref_l, n_l)}
    return pair | own


def ratios(chosen, rejected, **more):
    """h(y_w) and h(y_l) as they are, over a reference of -20 nats each."""
    shifted = lambda h: [x - 20.0 for x in h] if isinstance(h, list | tuple) else h - 20.0
    return readings(w=shifted(chosen), l=shifted(rejected), ref_w=-20.0, ref_l=-20.0, **more)


def value(name: str, r, **hyper) -> float:
    return float(OBJECTIVES[name](r, **hyper).loss.detach())


def slopes(name: str, r, **hyper) -> tuple[float, float]:
    """Gradients of the loss by log pi(y_w) and log pi(y_l), 0 where there is none."""
    OBJECTIVES[name](r, **hyper).loss.sum().backward()
    return tuple(0.0 if r[k].sum.grad is None else float(r[k].sum.grad) for k in ("w", "l"))
