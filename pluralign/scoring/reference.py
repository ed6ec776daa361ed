"""Reference readings, computed once and kept on disk under a key of everything that could change them.

The key covers the model's weights, the tokenizer and template, every rendered id, precision and layout. Readings are
written in blocks of rows as safetensors files, each with a digest, so that a killed run goes on where it stopped, a
damaged file is found and computed anew, and two runs may share one folder (writes are atomic).
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

__all__ = ["BLOCK_ROWS", "ReadingStore", "cache_folder", "digest", "model_digest"]

BLOCK_ROWS = 1024


def cache_folder() -> Path:
    """$PLURALIGN_CACHE, or `pluralign` under the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("PLURALIGN_CACHE") or Path(base) / "pluralign")


def digest(*parts: object) -> str:
    """Hex sha256 of JSON-ready parts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def ids_digest(rows: Iterable[Sequence[Sequence[int]]]) -> str:
    """Hex sha256 over every id of every row; lengths are part of it, so that no two different rows collide."""
    state = hashlib.sha256()
    for row in rows:
        for ids in row:
            state.update(len(ids).to_bytes(8, "little"))
            state.update(np.asarray(ids, dtype=np.int64).tobytes())
        state.update(b"|")
    return state.hexdigest()


def model_digest(model: torch.nn.Module) -> str:
    """Hex digest of the weights as they are in memory (names, shapes, types, bytes) and of the configuration.

    LoRA adapters are left out: with adapters off the base model is the reference. So are our heads, which no log-prob
    depends on, but for the vectors that stand in prompts (`heads.soft`): those that the run began with.
    """
    state = hashlib.blake2b(digest_size=32)
    for name, p in model.named_parameters():
        if "lora_" in name or "pluralign_" in name:
            continue
        state.update(f"{name.replace('.base_layer', '')}|{tuple(p.shape)}|{p.dtype}".encode())
        flat = p.detach().cpu().contiguous().view(-1)
        state.update(flat.view(torch.uint8).numpy().data)
    for name, first in model.named_buffers():
        if name.endswith("pluralign_intention.prefix.first"):
            state.update(b"prefix" + first.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    config = getattr(model, "config", None)
    if config is not None:
        kept = {k: v for k, v in config.to_dict().items() if not k.startswith("_") and k != "use_cache"}
        state.update(json.dumps(kept, sort_keys=True, default=str).encode())
    return state.hexdigest()


@dataclass(frozen=True)
class ReadingStore:
    """Named float32 columns over `rows` rows, kept in blocks under `folder/key`."""

    folder: Path
    key: str
    rows: int

    @property
    def home(self) -> Path:
        return self.folder / self.key[:32]

    @property
    def blocks(self) -> list[tuple[int, int]]:
        return [(a, min(a + BLOCK_ROWS, self.rows)) for a in range(0, self.rows, BLOCK_ROWS)]

    def missing(self) -> list[tuple[int, int]]:
        """Blocks that are not there, or are damaged (those are removed)."""
        return [b for b in self.blocks if self._read(b) is None]

    def write(self, block: tuple[int, int], columns: Mapping[str, np.ndarray]) -> None:
        """Write one block atomically. Raises ValueError for a wrong length or a value that is not finite."""
        arrays = {}
        for name, column in columns.items():
            array = np.ascontiguousarray(column, dtype=np.float32)
            if array.shape != (block[1] - block[0],):
                raise ValueError(f"{name}: expected {block[1] - block[0]} values, got {array.shape}.")
            if not np.isfinite(array).all():
                row = block[0] + int(np.flatnonzero(~np.isfinite(array))[0])
                raise ValueError(f"{name}: the reference gives {array[row - block[0]]} on row {row}.")
            arrays[name] = array
        self.home.mkdir(parents=True, exist_ok=True)
        meta = {"key": self.key, "digest": _array_digest(arrays), "block": json.dumps(block)}
        with tempfile.NamedTemporaryFile(dir=self.home, suffix=".part", delete=False) as f:
            f.write(save(arrays, metadata=meta))
        os.replace(f.name, self._path(block))

    def load(self) -> dict[str, np.ndarray]:
        """All columns, (rows,) each. Raises FileNotFoundError while blocks are missing."""
        read = [self._read(b) for b in self.blocks]
        if any(r is None for r in read):
            raise FileNotFoundError(f"{self.home}: {sum(r is None for r in read)} of {len(read)} blocks are missing.")
        whole = [r for r in read if r is not None]
        return {name: np.concatenate([r[name] for r in whole]) for name in (whole[0] if whole else {})}

    def _path(self, block: tuple[int, int]) -> Path:
        return self.home / f"{block[0]:09d}.safetensors"

    def _read(self, block: tuple[int, int]) -> dict[str, np.ndarray] | None:
        path = self._path(block)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="np") as f:
                meta = f.metadata() or {}
                arrays = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 - no mapping
        except (SafetensorError, OSError):
            arrays, meta = {}, {}
        expected = {"key": self.key, "block": json.dumps(block), "digest": _array_digest(arrays)}
        if meta == expected:
            return arrays
        path.unlink(missing_ok=True)
        return None


def _array_digest(arrays: Mapping[str, np.ndarray]) -> str:
    state = hashlib.sha256()
    for name in sorted(arrays):
        state.update(name.encode() + arrays[name].tobytes())
    return state.hexdigest()
