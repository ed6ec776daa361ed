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
from pluralign.scoring.forward import forward
from pluralign.scoring.layout import lay_rows, lay_trie
from tests.scoring.models import build
from tests.scoring.test_layouts import some_sequences

dist.init_process_group("gloo")
mesh = init_device_mesh("cpu", (dist.get_world_size(),))
for name in ("llama", "llama-tied"):
    sequences = some_sequences(1)
    plain, sharded = build(name), build(name)
    for layer in sharded.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    for lay in (lay_rows, lay_trie):
        plain.zero_grad()
        sharded.zero_grad()
        a, b = forward(plain, lay(sequences)), forward(sharded, lay(sequences))
        torch.testing.assert_close(a.tokens, b.tokens, atol=1e-5, rtol=1e-5)
        a.sum.mean().backward(); b.sum.mean().backward()
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
