"""What sensing costs at inference: self-guided prefill beside the same prompt with the same scores given.

    python bench/sensing.py                         # the embedded model, prompts of 50 to 400 tokens
    python bench/sensing.py --model Qwen/Qwen3-0.6B --rounds 50

Both sides end where the first token of the response can be drawn. Given scores: one pass over prompt and sentence.
Sensed ones: a pass over the prompt, the head, the sentence into words and tokens, a pass over those on the same keys
and values. The two take turns in one process; the table gives medians and the median of the paired ratios with its
quartiles. A head with random weights costs what a trained one does.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from pluralign.attributes import Scale, ScoreForm
from pluralign.heads.regression import attach
from pluralign.policy import Policy
from pluralign.scoring.forward import autocast
from pluralign.steering.begin import begin
from pluralign.steering.caches import taken_as
from pluralign.steering.requests import Request
from pluralign.steering.self_guided import _open, _read, _scores

NAMES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
SENTENCE = "Tell me about wild dogs, not about stray dogs, and about where they live. "


def seconds(work: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    begun = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def prefill(policy: Policy, request: Request) -> None:
    """Everything before the first token, as generate() would do it."""
    begun = begin(policy, [request])
    done = begun.cache.get_seq_length() if begun.cache is not None else 0
    positions = (begun.mask.cumsum(-1) - 1).clamp(min=0)
    policy.model.base_model(
        input_ids=begun.ids[:, done:], attention_mask=begun.mask, position_ids=positions[:, done:],
        use_cache=True, **{str(taken_as(policy.model)): begun.cache},
    )  # fmt: skip


def own_work(policy: Policy, request: Request) -> float:
    """Seconds of what is ours alone: the head, the scores in words, their tokens."""
    start, _, finish = _open(policy, request)
    ids = torch.tensor([start], device=policy.device)
    states, _ = _read(policy, ids, torch.ones_like(ids))
    assert policy.scores is not None
    form = policy.scores
    return seconds(lambda: finish(form.text(_scores(policy, states)[0])), policy.device)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--lengths", type=int, nargs="+", default=[50, 100, 200, 400])
    settings = parser.parse_args()
    policy = Policy.load(settings.model)
    policy.scores = ScoreForm(tuple(Scale(n) for n in NAMES))
    torch.nn.init.normal_(attach(policy.model, "sensed", len(NAMES), layers=3, bounded=True).out.weight)
    policy.model.eval()
    given = dict.fromkeys(NAMES, 0.5)
    print(f"{policy.name}, {policy.device}, {torch.get_num_threads()} threads, {settings.rounds} rounds")
    print("prompt  given ms  sensed ms  sensed / given (quartiles)  ours ms")
    precision = policy.precision if policy.device.type != "cpu" else "fp32"  # as generate() has it
    for length in settings.lengths:
        words = len(policy.renderer.prompt(SENTENCE * 20)) / 20
        prompt = SENTENCE * max(1, round(length / words))
        sides = [Request(prompt, max_new_tokens=8, attributes=given), Request(prompt, max_new_tokens=8)]
        with autocast(precision, policy.device):
            taken = np.array([
                [seconds(lambda side=side: prefill(policy, side), policy.device) for side in sides]
                for _ in range(settings.rounds + 3)
            ])[3:]  # fmt: skip
            ours = np.median([own_work(policy, sides[1]) for _ in range(settings.rounds)])
        ratio = np.quantile(taken[:, 1] / taken[:, 0], [0.5, 0.25, 0.75])
        a, b = 1e3 * np.median(taken, axis=0)
        tokens = len(policy.renderer.prompt(prompt))
        print(f"{tokens:6d}  {a:8.2f}  {b:9.2f}  {ratio[0]:.3f} ({ratio[1]:.3f} to {ratio[2]:.3f})"
              f"{'':8}  {1e3 * ours:7.2f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
