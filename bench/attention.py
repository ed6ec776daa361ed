"""bf16 attention over a trie on a CPU, one layer: torch's kernel both ways, and with our backward pass by products.

    python bench/attention.py --workload hh uf long --turns 12

Milliseconds, the best of all turns: the sides alternate in one process on the same 8 pairs, so that a loud machine is
loud for both. 6 heads of 64, as in the model of the other benches.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
import workloads
from torch import Tensor

from pluralign.scoring.attention import _by_path
from pluralign.scoring.attention_bf16 import TrieProducts
from pluralign.scoring.layout import Scored, lay_trie
from pluralign.scoring.support import keep_memory

HEADS, SIZE = 6, 64


def measure(workload: str, turns: int) -> dict[str, tuple[float, float]]:
    """Side -> (forward, backward) milliseconds."""
    pairs = workloads.make_pairs(workload)[workloads.BATCH : 2 * workloads.BATCH]
    layout = lay_trie([Scored(p.prompt, y) for p in pairs for y in (p.chosen, p.rejected)])
    trie, scale = layout.trie, SIZE**-0.5
    assert trie is not None
    spans = [(0, own) for own in trie.queries]
    shape = (1, layout.tokens, HEADS, SIZE)  # as a model's projections leave them
    query, key, value, grad = (torch.randn(shape).bfloat16().transpose(1, 2) for _ in range(4))
    inputs = [x.requires_grad_() for x in (query, key, value)]
    sides: dict[str, Callable[[], Tensor]] = {
        "kernel": lambda: _by_path(*inputs, trie, scale, spans).transpose(1, 2),
        "products": lambda: TrieProducts.apply(*inputs, trie, scale, spans),
    }
    best = dict.fromkeys(sides, (float("inf"), float("inf")))
    for turn in range(turns):
        for side in list(sides)[:: 1 if turn % 2 == 0 else -1]:
            begun = time.perf_counter()
            out = sides[side]()
            middle = time.perf_counter()
            out.backward(grad)
            took = (1e3 * (middle - begun), 1e3 * (time.perf_counter() - middle))
            best[side] = min(best[side][0], took[0]), min(best[side][1], took[1])
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=workloads.WORKLOADS, nargs="+", default=["hh"])
    parser.add_argument("--turns", type=int, default=12)
    settings = parser.parse_args()
    keep_memory()
    for workload in settings.workload:
        for side, (forward, backward) in measure(workload, settings.turns).items():
            print(f"{workload:5} {side:9} forward {forward:6.1f} ms, backward {backward:6.1f} ms", flush=True)


if __name__ == "__main__":
    main()
