# SPDX-License-Identifier: Apache-2.0
"""Pre-training of the embedded model on a CPU: packed rows, Muon and AdamW, checkpoints that are gone on from.

Weights are kept in float32 by the optimisers and copied to bfloat16 for the matrix products. See train_embedded.py.
"""

from __future__ import annotations

import json
import math
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

__all__ = ["Pretraining", "Rows", "bits_per_byte", "make_loss", "schedule"]

ROW = 512  # tokens in a packed row
BATCH = 8  # rows in a step
WARMUP_STEPS = 100
DECAY_FRACTION = 0.4  # share of the steps with a falling learning rate
DIALOGUE_FRACTION = 0.5  # share of the steps, at the end, with the dialogue-heavy mixture
SAVE_SECONDS = 120


class Rows:
    """An endless, seeded stream of packed rows from a mixture of sources; any position can be asked for."""

    def __init__(self, store: Any, mix: dict[str, float], seed: int) -> None:
        self.tokens, self.offsets = store["tokens"], store["offsets"]
        self.train = np.flatnonzero(store["split"] == "train")
        weights = np.array([mix.get(str(s), 1.0) for s in store["sources"]])
        self.weights = weights[store["source"][self.train]]
        self.seed = seed
        self.epoch, self.first, self.rows = -1, 0, np.zeros((0, ROW), dtype=np.uint16)

    def _next_epoch(self) -> None:
        self.first += len(self.rows)
        self.epoch += 1
        rng = np.random.default_rng([self.seed, self.epoch])
        repeats = np.floor(self.weights + rng.random(len(self.weights))).astype(int)
        order = rng.permutation(np.repeat(self.train, repeats))
        flat = np.concatenate([self.tokens[self.offsets[i] : self.offsets[i + 1]] for i in order])
        self.rows = flat[: len(flat) // ROW * ROW].reshape(-1, ROW)

    def batch(self, position: int) -> torch.Tensor:
        """Rows ``position .. position + BATCH - 1``; positions must not go backwards over an epoch."""
        picked = []
        for i in range(position, position + BATCH):
            while i >= self.first + len(self.rows):
                self._next_epoch()
            picked.append(self.rows[i - self.first])
        return torch.from_numpy(np.stack(picked).astype(np.int64))


def schedule(step: int, total: int) -> float:
    """Warm-up, constant, linear decay to zero."""
    decay = max(1, round(total * DECAY_FRACTION))
    return min(1.0, (step + 1) / WARMUP_STEPS, max(0.0, (total - step) / decay))


def make_loss(model: Any, compiled: bool) -> Any:
    """Summed next-token loss over a padded batch; pad targets do not count."""

    def loss(ids: torch.Tensor) -> torch.Tensor:
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
        logits = F.linear(hidden.reshape(-1, hidden.shape[-1]), model.lm_head.weight)
        return F.cross_entropy(logits.float(), ids[:, 1:].reshape(-1), ignore_index=2, reduction="sum")

    return torch.compile(loss) if compiled else loss


def bits_per_byte(loss: Any, store: Any, tokenizer: Any) -> dict[str, float]:
    """Held-out bits per UTF-8 byte of content (documents cut at one row; special tokens cost, but are no bytes)."""
    out = {}
    groups = {
        "dialogue": (store["split"] == "valid") & store["is_chat"],
        "prose": (store["split"] == "valid") & ~store["is_chat"],
        "heldout_pairs": store["split"] == "pairs",
    }
    for name, mask in groups.items():
        docs = [
            store["tokens"][a : min(b, a + ROW)] for i in np.flatnonzero(mask) for a, b in [store["offsets"][i : i + 2]]
        ]
        size = sum(
            len(t.encode()) for t in tokenizer.batch_decode([d.tolist() for d in docs], skip_special_tokens=True)
        )
        nats = 0.0
        for start in range(0, len(docs), BATCH):
            ids = torch.full((BATCH, ROW), 2)
            for k, d in enumerate(docs[start : start + BATCH]):
                ids[k, : len(d)] = torch.from_numpy(d.astype(np.int64))
            nats += float(loss(ids).detach())  # the graph of training, so that nothing is compiled twice
        out[name] = nats / math.log(2) / size
    return out


@dataclass
class Pretraining:
    """A run in `work`: the checkpoint that lies there is gone on from.

    `model` is brought to bfloat16 and computes; what is optimised are its weights in float32, `master`. `stable` and
    `dialogue` are the rows of the first and of the second half.
    """

    model: Any
    work: Path
    stable: Rows
    dialogue: Rows
    rates: tuple[float, float]  # of Muon and of AdamW
    master: list[Any] = field(init=False)
    names: list[str] = field(init=False)
    optimizers: list[Any] = field(init=False)
    step: int = 0
    seconds: float = 0.0
    switch: int | None = None  # the step from which rows are dialogue

    def __post_init__(self) -> None:
        self.names = [n for n, _ in self.model.named_parameters()]
        self.master = [p.detach().clone().float() for p in self.model.parameters()]
        self.model.to(torch.bfloat16)
        matrix = [m.ndim == 2 and "embed" not in n for n, m in zip(self.names, self.master, strict=True)]
        hidden, others = (
            [m for m, is_one in zip(self.master, matrix, strict=True) if is_one is x] for x in (True, False)
        )
        self.optimizers = [
            torch.optim.Muon(hidden, lr=self.rates[0], weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=self.rates[1], betas=(0.9, 0.95), weight_decay=0.0, fused=True),
        ]
        if self.checkpoint.exists():
            self._resume()
        self._show()

    @property
    def checkpoint(self) -> Path:
        return self.work / "checkpoint.pt"

    def save(self) -> None:
        """Write the checkpoint; a kill while it is written leaves the one before."""
        state = {"step": self.step, "seconds": self.seconds, "switch": self.switch}
        states = [o.state_dict() for o in self.optimizers]
        fresh = self.checkpoint.with_suffix(".tmp")
        torch.save({"master": self.master, "optimizers": states, "state": state, "names": self.names}, fresh)
        os.replace(fresh, self.checkpoint)

    def _resume(self) -> None:
        saved = torch.load(self.checkpoint, weights_only=True)
        for m, s in zip(self.master, saved["master"], strict=True):
            m.copy_(s)
        for o, s in zip(self.optimizers, saved["optimizers"], strict=True):
            o.load_state_dict(s)
        self.step, self.seconds, self.switch = (saved["state"][k] for k in ("step", "seconds", "switch"))
        print("resumed at step", self.step, flush=True)

    def _show(self) -> None:
        """Round the weights into the model that computes."""
        with torch.no_grad():
            torch._foreach_copy_(list(self.model.parameters()), self.master)

    def advance(self, loss: Any, total: int) -> float:
        """One step of `total`; the loss, nats a token."""
        begun = time.time()
        if self.switch is None and self.step >= total * (1 - DIALOGUE_FRACTION):
            self.switch = self.step
        rows = self.stable if self.switch is None else self.dialogue
        value = loss(rows.batch((self.step - (self.switch or 0)) * BATCH)) / (BATCH * (ROW - 1))
        value.backward()
        for m, p in zip(self.master, self.model.parameters(), strict=True):
            m.grad = p.grad.float()
            p.grad = None
        torch.nn.utils.clip_grad_norm_(self.master, 1.0)
        factor = schedule(self.step, total)
        for optimizer, rate in zip(self.optimizers, self.rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * factor
            optimizer.step()
        self._show()
        self.step += 1
        self.seconds += time.time() - begun
        return float(value.detach())

    def run(self, total: int, loss: Any, judge: Any, judge_every: int) -> None:
        """Up to `total` steps, or the number in work/total_steps, read every 20; SIGTERM and Ctrl-C save and end it.

        `judge` gives what is logged every `judge_every` steps and at the end, beside the loss of every 25.
        """
        stop = {"now": False}
        before = {n: signal.signal(n, lambda *_: stop.update(now=True)) for n in (signal.SIGTERM, signal.SIGINT)}
        try:
            self._loop(self._asked(total), loss, judge, judge_every, stop)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _loop(self, total: int, loss: Any, judge: Any, judge_every: int, stop: dict[str, bool]) -> None:
        saved_at = clock = time.time()
        recent: list[float] = []
        while True:
            if self.step % 20 == 0:
                total = self._asked(total)
            done = self.step >= total
            if (self.step % judge_every == 0 and self.step) or done:
                self._log(step=self.step, seconds=round(self.seconds), bpb=judge())
            if done or stop["now"] or time.time() - saved_at > SAVE_SECONDS:
                self.save()
                saved_at = time.time()
            if done or stop["now"]:
                return
            recent.append(self.advance(loss, total))
            if self.step % 25 == 0:
                speed = len(recent) * BATCH * ROW / (time.time() - clock)
                self._log(step=self.step, loss=round(sum(recent) / len(recent), 4), lr=schedule(self.step - 1, total),
                          tokens_per_second=round(speed), total=total)  # fmt: skip
                recent, clock = [], time.time()

    def _asked(self, total: int) -> int:
        override = self.work / "total_steps"
        return int(override.read_text()) if override.exists() else total

    def _log(self, **row: Any) -> None:
        with (self.work / "log.jsonl").open("a") as handle:
            handle.write(json.dumps(row) + "\n")
        print(row, flush=True)
