"""bf16 attention over a trie on a CPU, one layer: torch's kernel both ways, and with our backward pass by products.

    python bench/attention.py --workload hh uf long --turns 12

Milliseconds, the best and the median of all turns: the sides alternate in one process on the same 8 pairs, other ones
every turn, as in training: a processor's bf16 kernels are made for one shape, and in the best turn they may be there
already. 6 heads of 64, as in the model of the other benches.
"""

from __future__ import annotations

import argparse
import functools
import random
import statistics
import time
from collections.abc import Callable

import torch
import workloads
from torch import Tensor

from pluralign.scoring.attention import _by_path
from pluralign.scoring.attention_bf16 import TrieProducts
from pluralign.scoring.layout import Scored, Trie, lay_trie
from pluralign.scoring.support import keep_memory

HEADS, SIZE = 6, 64


def measure(workload: str, turns: int) -> dict[str, list[tuple[float, float]]]:
    """Side -> (forward, backward) milliseconds of each turn."""
    took: dict[str, list[tuple[float, float]]] = {"kernel": [], "products": []}
    pairs, scale = workloads.make_pairs(workload), SIZE**-0.5
    for turn in range(turns):
        batch = random.Random(turn).sample(pairs, workloads.BATCH)
        layout = lay_trie([Scored(p.prompt, y) for p in batch for y in (p.chosen, p.rejected)])
        trie = layout.trie
        assert trie is not None
        spans = [(0, own) for own in trie.queries]
        shape = (1, layout.tokens, HEADS, SIZE)  # as a model's projections leave them
        query, key, value, grad = (torch.randn(shape).bfloat16().transpose(1, 2) for _ in range(4))
        inputs = [x.requires_grad_() for x in (query, key, value)]
        sides: dict[str, Callable[[], Tensor]] = {
            "kernel": functools.partial(_kernel, inputs, trie, scale, spans),
            "products": functools.partial(TrieProducts.apply, *inputs, trie, scale, spans),
        }
        for side in list(sides)[:: 1 if turn % 2 == 0 else -1]:
            begun = time.perf_counter()
            out = sides[side]()
            middle = time.perf_counter()
            out.backward(grad)
            took[side].append((1e3 * (middle - begun), 1e3 * (time.perf_counter() - middle)))
    return took


def _kernel(inputs: list[Tensor], trie: Trie, scale: float, spans: list[tuple[int, int]]) -> Tensor:
    return _by_path(inputs[0], inputs[1], inputs[2], trie, scale, spans).transpose(1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=workloads.WORKLOADS, nargs="+", default=["hh"])
    parser.add_argument("--turns", type=int, default=12)
    settings = parser.parse_args()
    keep_memory()
    for workload in settings.workload:
        for side, turns in measure(workload, settings.turns).items():
            forward, backward = (
                f"{min(took):6.1f} ({statistics.median(took):6.1f}) ms" for took in zip(*turns, strict=True)
            )
            print(f"{workload:5} {side:9} forward {forward}, backward {backward}", flush=True)


if __name__ == "__main__":
    main()
