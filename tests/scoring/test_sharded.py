"""Under FSDP2 the exchanged head stays a call of its own module: the same log-probs and gradients as unsharded."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

RANK = """
import torch, torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.distributed.device_mesh import init_device_mesh
from dataclasses import replace
from pluralign.heads.regression import attach
from pluralign.scoring.forward import forward
from pluralign.scoring.layout import lay_rows, lay_trie
from tests.scoring.models import build
from tests.scoring.test_layouts import some_sequences

dist.init_process_group("gloo")
mesh = init_device_mesh("cpu", (dist.get_world_size(),))
for name in ("llama", "llama-tied"):
    sequences = [replace(s, mark=len(s.context) - 1) for s in some_sequences(1)]
    plain, sharded = build(name), build(name)
    for model in (plain, sharded):
        torch.manual_seed(5)
        torch.nn.init.normal_(attach(model, "sensed", 2, layers=2, bounded=True).out.weight)
    for layer in sharded.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    for lay in (lay_rows, lay_trie):
        plain.zero_grad()
        sharded.zero_grad()
        reads = ("sum", "length", "sensed")
        a, b = forward(plain, lay(sequences), reads), forward(sharded, lay(sequences), reads)
        torch.testing.assert_close(a.tokens, b.tokens, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(a.sensed, b.sensed, atol=1e-5, rtol=1e-5)
        (a.sum.mean() + a.sensed.sum()).backward(); (b.sum.mean() + b.sensed.sum()).backward()
        for (n, p), q in zip(plain.named_parameters(), sharded.parameters(), strict=True):
            torch.testing.assert_close(q.grad.full_tensor(), p.grad, atol=1e-4, rtol=1e-3, msg=n)
dist.destroy_process_group()
print("agreed")
"""


def test_fsdp2_over_two_processes(tmp_path) -> None:
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    base = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port), "WORLD_SIZE": "2"}  # fmt: skip
    ranks = [
        subprocess.Popen([sys.executable, str(script)], env={**base, "RANK": str(r)}, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, text=True)
        for r in range(2)
    ]  # fmt: skip
    try:
        outputs = [r.communicate(timeout=200)[0] for r in ranks]
    finally:
        for r in ranks:
            r.kill()
    assert all("agreed" in o for o in outputs), "\n".join(o[-2500:] for o in outputs)
