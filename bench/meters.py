"""What both sides measure with: a clock around optimiser steps, resident memory, and the name of the machine."""

from __future__ import annotations

import os
import resource
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
from transformers import TrainerCallback

MIB = 2**20
NOTABLE_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "bf16", "sve", "i8mm")


class StepClock(TrainerCallback):
    """Seconds per optimiser step of any `transformers.Trainer`.

    `loop` runs from the end of one step to the end of the next, so batching and collating are inside it: what a run
    pays. `step` runs from the trainer's `on_step_begin` to its `on_step_end` (forward, backward, clipping, optimiser).
    `cpu` is the processor time of the loop over all threads, spinning included. The first step warms up: not counted,
    but the peak memory counts it.
    """

    def __init__(self) -> None:
        self.loop: list[float] = []
        self.step: list[float] = []
        self.cpu: list[float] = []
        self._begun = 0.0
        self._last: tuple[float, float] | None = None

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._begun = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        now, cpu = time.perf_counter(), time.process_time()
        if self._last is not None:
            self.loop.append(now - self._last[0])
            self.step.append(now - self._begun)
            self.cpu.append(cpu - self._last[1])
        self._last = now, cpu


def resident() -> float:
    """Resident memory of this process now, in MiB."""
    return psutil.Process().memory_info().rss / MIB


def peak_resident() -> float:
    """The most memory this process held resident since the last `reset_peak`, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MIB if sys.platform == "darwin" else peak / 1024


def reset_peak() -> bool:
    """Start the high-water mark of resident memory afresh. False where the kernel does not let us: it then covers the
    whole life of the process, and the report says so."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return peak_resident() < resident() + 64


def machine() -> dict[str, Any]:
    """Processor, its flags that matter to matrix products, cores, threads and library versions."""
    import torch

    model, flags = "", []
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line.partition(":") for line in cpuinfo.read_text().splitlines()]
        fields = {key.strip(): value.strip() for key, _, value in reversed(lines)}
        model = fields.get("model name", fields.get("CPU part", ""))
        present = set(fields.get("flags", fields.get("Features", "")).split())
        flags = [flag for flag in NOTABLE_FLAGS if flag in present]
    return {
        "processor": model,
        "flags": flags,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "versions": {name: _version(name) for name in ("torch", "transformers", "accelerate", "trl", "pluralign")},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def result(side: str, workload: str, precision: str, **fields: Any) -> dict[str, Any]:
    """The JSON object that a side prints as its last line; `fields` are its own settings and measurements."""
    return {"side": side, "workload": workload, "precision": precision, **fields, "machine": machine()}


def summary(clock: StepClock, losses: list[float], *, batch: int, base_mib: float, peak_covers: str) -> dict[str, Any]:
    """The measurements shared by both sides. Memory in MiB, times in seconds; `losses` includes the warm-up step."""
    ordered = sorted(clock.loop)
    middle = len(ordered) // 2
    median = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    return {
        "pairs_per_second": batch * len(clock.loop) / sum(clock.loop),
        "median_seconds": median,
        "loop_seconds": clock.loop,
        "step_seconds": clock.step,
        "cpu_seconds": clock.cpu,
        "base_mib": base_mib,
        "peak_mib": peak_resident(),
        "increment_mib": peak_resident() - base_mib,
        "peak_covers": peak_covers,
        "losses": losses,
    }
