"""How fast this machine multiplies matrices of this model's shapes, and how many operations a DPO step needs.

    achieved share = needed operations / seconds / measured matmul rate

**Needed operations** are the model's own, forward and backward, with nothing wasted: multiply and add count as two;
no padding; no recomputation; logits only where a response token is predicted; attention only over pairs of positions
that the causal mask allows; the backward costs twice the forward (one product for the input's gradient, one for the
weight's). Two counts are given:

* `rows`    chosen and rejected are separate sequences and compute the prompt each: a step over rows without padding;
* `shared`  the prompt is computed once for the pair: what the mathematics needs. The achieved share uses this one
            for both sides, so that the ratio of two shares is the ratio of two speeds.

Not counted: norms, activations, softmaxes, rotations, the embedding look-up, the optimiser (each linear in what is
counted, and small beside it), and the last layer's savings (its prompt positions feed no logits, but are counted).
The head's second projection, which a chunked backward recomputes, is stated apart as `head_recompute`.

    python bench/matmul.py            the rates, the counts of every workload, and the least seconds a step could take
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean as mean
from typing import Any

import meters
import torch
import workloads

BODY_TOKENS, HEAD_TOKENS = 2048, 512  # rows of the timed products: about a batch's tokens and response tokens
GIGA = 1e9


@dataclass(frozen=True, slots=True)
class Operations:
    """Multiplications and additions of one batch, forward and backward."""

    linear: float  # the transformer's linear layers
    attention: float  # QK' and the weighted sum of V
    head: float  # the projection to the vocabulary
    head_recompute: float  # what a recomputing backward of the head adds; in no total
    tokens: int  # positions that pass through the linear layers
    scored: int  # positions that pass through the head

    @property
    def needed(self) -> float:
        return self.linear + self.attention + self.head


def layer_shapes() -> dict[str, tuple[int, int, int]]:
    """Linear layers as (inputs, outputs, how many the model has)."""
    c = workloads.model_config()
    return {
        "attention": (c.hidden_size, c.hidden_size, 4 * c.num_hidden_layers),  # query, key, value and output
        "mlp up": (c.hidden_size, c.intermediate_size, 2 * c.num_hidden_layers),
        "mlp down": (c.intermediate_size, c.hidden_size, c.num_hidden_layers),
        "head": (c.hidden_size, c.vocab_size, 1),
    }


def count(pairs: Sequence[workloads.Pair], *, shared: bool) -> Operations:
    """Needed operations of one DPO step over `pairs`. A sequence's last token is only ever a label, never an input.

    Where prompts are shared, the state of the prompt's last token predicts both first tokens, and its logits are
    needed once. Prompts of different pairs are not shared even if equal: seeded random ones never are.
    """
    config = workloads.model_config()
    shapes = layer_shapes()
    weights = sum(n * m * times for name, (n, m, times) in shapes.items() if name != "head")
    tokens = scored = visible = 0
    for pair in pairs:
        prompt, responses = len(pair.prompt), (len(pair.chosen), len(pair.rejected))
        times = 1 if shared else len(responses)
        tokens += times * prompt + sum(r - 1 for r in responses)
        scored += times + sum(r - 1 for r in responses)
        visible += times * _triangle(prompt) + sum(_triangle(prompt + r - 1) - _triangle(prompt) for r in responses)
    projection = 2.0 * config.hidden_size * config.vocab_size * scored
    return Operations(
        linear=6.0 * weights * tokens,
        attention=3 * 4.0 * config.hidden_size * config.num_hidden_layers * visible,
        head=3 * projection,
        head_recompute=projection,
        tokens=tokens,
        scored=scored,
    )


def padded_positions(pairs: Sequence[workloads.Pair]) -> int:
    """Positions of the padded rows of one batch: what a trainer over padded rows computes."""
    return 2 * len(pairs) * max(len(p.prompt) + max(len(p.chosen), len(p.rejected)) for p in pairs)


def _triangle(n: int) -> int:
    return n * (n + 1) // 2


def rates(dtype: torch.dtype, *, repeats: int = 5, seconds: float = 0.2) -> dict[str, float]:
    """GFLOP/s of every shape's forward and its two backward products, the best of `repeats` rounds each.

    `weighted` is the rate of one forward and backward over all layers, each shape at its own best rate.
    """
    found: dict[str, float] = {}
    work = took = 0.0
    for name, (inputs, outputs, times) in layer_shapes().items():
        n = HEAD_TOKENS if name == "head" else BODY_TOKENS
        x, w, g = (torch.randn(shape).to(dtype) for shape in ((n, inputs), (outputs, inputs), (n, outputs)))
        operations = 2.0 * n * inputs * outputs
        for which, (a, b) in {"forward": (x, w.t()), "d input": (g, w), "d weight": (g.t(), x)}.items():
            best = min(_seconds(a, b, seconds) for _ in range(repeats))
            found[f"{name}, {which}"] = operations / best / GIGA
            work += operations * times
            took += best * times
    return {**found, "weighted": work / took / GIGA}


@torch.no_grad()
def _seconds(a: torch.Tensor, b: torch.Tensor, seconds: float) -> float:
    """The fastest single product within a time budget, into memory that is already there."""
    product = partial(torch.mm, a, b, out=a @ b)
    best, until = float("inf"), time.perf_counter() + seconds
    while True:
        begun = time.perf_counter()
        product()
        now = time.perf_counter()
        best = min(best, now - begun)
        if now > until:
            return best


def report() -> dict[str, Any]:
    """Rates of both dtypes, and operations per step of every workload (means over its batches)."""
    measured = {"bf16": rates(torch.bfloat16), "fp32": rates(torch.float32)}
    counted: dict[str, Any] = {}
    for name in workloads.WORKLOADS:
        chunks = workloads.batches(workloads.make_pairs(name))
        shared, rows = ([count(chunk, shared=s) for chunk in chunks] for s in (True, False))
        counted[name] = {
            "needed_gflop": mean(o.needed for o in shared) / GIGA,
            "needed_gflop_rows": mean(o.needed for o in rows) / GIGA,
            "linear_gflop": mean(o.linear for o in shared) / GIGA,
            "attention_gflop": mean(o.attention for o in shared) / GIGA,
            "head_gflop": mean(o.head for o in shared) / GIGA,
            "head_recompute_gflop": mean(o.head_recompute for o in shared) / GIGA,
            "tokens": mean(o.tokens for o in shared),
            "tokens_rows": mean(o.tokens for o in rows),
            "tokens_padded": mean(padded_positions(chunk) for chunk in chunks),
            "scored": mean(o.scored for o in shared),
            "least_seconds": {d: mean(o.needed for o in shared) / GIGA / r["weighted"] for d, r in measured.items()},
        }
    return {"rates_gflops": measured, "per_step": counted, "machine": meters.machine()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--indent", type=int, default=None, help="indent the JSON for reading")
    print(json.dumps(report(), indent=parser.parse_args().indent))


if __name__ == "__main__":
    main()
