"""The two sides next to each other: pairs per second and peak memory of one DPO step, Pluralign and TRL.

    python bench/run.py --workload hh uf long --precision bf16-autocast fp32 --repeats 3 --json out.json --table

Every measurement is a fresh process, one at a time, and the sides take turns (A B A B ...), so that a machine that
drifts drifts for both; the ratio is formed within each turn and its median and range over turns are reported. Seconds
mean nothing on another machine; ratios travel better, and the losses of the two sides must agree anywhere.

Pluralign tells glibc to keep freed buffers (`pluralign.scoring.support.keep_memory`). So that the ratio compares the
trainers and not the allocator, the rival's process gets the same by default (`--rival-memory kept`); `default` is how
TRL runs out of the box, `huge` backs large buffers with huge pages. Off Linux none of the three does anything.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import workloads

HERE = Path(__file__).parent
MEMORY = {
    "default": {},
    "kept": {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1), "MALLOC_TOP_PAD_": str(64 * 2**20)},
    "huge": {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"},
}
SIDES = {
    "pluralign": ("pluralign_side.py", ("--layout", "trie")),
    "pluralign-rows": ("pluralign_side.py", ("--layout", "rows")),
    "pluralign-cross": ("pluralign_side.py", ("--conditioning", "cross")),
    "pluralign-cross-constant": ("pluralign_side.py", ("--conditioning", "cross-constant")),
    "pluralign-one-sided": ("pluralign_side.py", ("--conditioning", "one-sided")),
    "pluralign-averaged": ("pluralign_side.py", ("--conditioning", "averaged")),
    "trl": ("trl_side.py", ("--head", "all")),
    "trl-response-head": ("trl_side.py", ("--head", "response")),
}
COLUMNS = (
    "workload",
    "precision",
    "side",
    "pairs/s",
    "x TRL (range)",
    "x fastest TRL",
    "MiB over the model",
    "peak MiB",
    "share of matmul rate",
    "loss gap",
)


def measure(script: str, arguments: Sequence[str], *, python: str, memory: str) -> dict[str, Any]:
    """Run one side; the JSON object of its last line. Raises RuntimeError with the end of its output where it fails."""
    environment = {**os.environ, **MEMORY[memory]}
    done = subprocess.run(
        [python, str(HERE / script), *arguments], env=environment, capture_output=True, text=True, check=False
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        tail = "\n".join((done.stderr or done.stdout).strip().splitlines()[-15:])
        raise RuntimeError(f"{script} {' '.join(arguments)} failed with {done.returncode}:\n{tail}")
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def take_turns(settings: argparse.Namespace) -> dict[str, Any]:
    """All measurements, written to `--json` after each one; the order within a turn alternates from turn to turn."""
    runs: list[dict[str, Any]] = []
    products: list[dict[str, Any]] = []
    results = {"runs": runs, "matmul": products, "rival_memory": settings.rival_memory, "steps": settings.steps}
    for turn in range(settings.repeats):
        products.append(measure("matmul.py", (), python=sys.executable, memory="kept"))
        for workload in settings.workload:
            for precision in settings.precision:
                for side in settings.sides if turn % 2 == 0 else settings.sides[::-1]:
                    script, own = SIDES[side]
                    arguments = ["--workload", workload, "--precision", precision, "--steps", str(settings.steps), *own]
                    arguments += ["--learning-rate", str(settings.learning_rate)]
                    arguments += ["--perturbed"] if settings.perturbed else []
                    rival = side.startswith("trl")
                    python = settings.rival_python if rival else sys.executable
                    memory = settings.rival_memory if rival else "default"  # our side sets its own
                    found = measure(script, arguments, python=python, memory=memory)
                    runs.append({**found, "side": side, "turn": turn})
                    _progress(runs[-1])
                    _save(results, settings.json)
    return results


def _save(results: dict[str, Any], path: Path | None) -> None:
    if path is not None:
        path.write_text(json.dumps(results, indent=1))


def _progress(run: dict[str, Any]) -> None:
    print(
        f"turn {run['turn']} {run['workload']:5} {run['precision']:14} {run['side']:18}"
        f" {run['pairs_per_second']:8.3f} pairs/s {statistics.fmean(run['cpu_seconds']):6.1f} cpu s/step "
        f" +{run['increment_mib']:6.0f} MiB  load {run['machine']['load']:.1f}",
        file=sys.stderr,
        flush=True,
    )


def pick(results: dict[str, Any], workload: str, precision: str, side: str) -> list[dict[str, Any]]:
    key = (workload, precision, side)
    return [run for run in results["runs"] if (run["workload"], run["precision"], run["side"]) == key]


def pairs_per_second(runs: Iterable[dict[str, Any]]) -> float:
    """From the median over turns of each step's seconds: one interrupted step does not spoil a whole run."""
    seconds = [statistics.median(step) for step in zip(*(run["loop_seconds"] for run in runs), strict=True)]
    return workloads.BATCH * len(seconds) / sum(seconds)


def ratios(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]) -> list[float]:
    """Pairs per second of ours over theirs, within each turn that both completed."""
    by_turn = {b["turn"]: b["pairs_per_second"] for b in theirs}
    return [a["pairs_per_second"] / by_turn[a["turn"]] for a in ours if a["turn"] in by_turn]


def loss_gap(ours: dict[str, Any], theirs: dict[str, Any]) -> float:
    """Largest difference between the two sides' losses of the same step, the warm-up step included."""
    return max(abs(a - b) for a, b in zip(ours["losses"], theirs["losses"], strict=True))


def best_rates(results: dict[str, Any]) -> dict[str, float]:
    """The best weighted matmul rate over all turns, GFLOP/s, by dtype."""
    return {d: max(m["rates_gflops"][d]["weighted"] for m in results["matmul"]) for d in ("bf16", "fp32")}


def needed_gflop(workload: str, steps: int) -> float:
    """Needed operations (prompts shared) of the timed steps, in units of 1e9."""
    from matmul import GIGA, count

    pairs = workloads.make_pairs(workload)[: steps * workloads.BATCH]
    return count(pairs, shared=True).needed / GIGA


def table(results: dict[str, Any], baseline: str = "trl") -> str:
    """The markdown of docs/performance.md: one row per workload, precision and side, and the machine under it."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS)]
    keys = dict.fromkeys((run["workload"], run["precision"], run["side"]) for run in results["runs"])
    order = {key: i for i, key in enumerate(dict.fromkeys(key[:2] for key in keys))}
    for key in sorted(keys, key=lambda key: order[key[:2]]):
        lines.append("| " + " | ".join(_row(results, *key, baseline)) + " |")
    return "\n".join([*lines, "", machine_line(results)])


def _row(results: dict[str, Any], workload: str, precision: str, side: str, baseline: str) -> list[str]:
    """The cells of one row, in the order of COLUMNS."""
    runs, theirs = (pick(results, workload, precision, name) for name in (side, baseline))
    conditioned = runs[0].get("conditioning", "none") != "none"  # another loss, and more tokens than are counted
    speed = pairs_per_second(runs)
    gain = gap = against = ""
    if found := ratios(runs, theirs):
        gain = f"{statistics.median(found):.2f} ({min(found):.2f}-{max(found):.2f})"
        gap = "" if conditioned else f"{loss_gap(runs[0], theirs[0]):.1e}"
    if fastest := fastest_rival(results, workload, precision, baseline):
        against = f"{speed / fastest:.2f}"
    rate = best_rates(results)["fp32" if precision == "fp32" else "bf16"]
    seconds = workloads.BATCH * results["steps"] / speed
    share = needed_gflop(workload, results["steps"]) / seconds / rate
    memory, peak = (statistics.median(run[name] for run in runs) for name in ("increment_mib", "peak_mib"))
    return [
        *(workload, precision, side, f"{speed:.2f}", gain, against),
        *(f"{memory:.0f}", f"{peak:.0f}", "" if conditioned else f"{share:.0%}", gap),
    ]


def fastest_rival(results: dict[str, Any], workload: str, precision: str, side: str) -> float:
    """Its most pairs per second over the measured precisions of the same family (bf16 weights or autocast; fp32)."""
    family = precision.split("-")[0]
    precisions = {run["precision"] for run in results["runs"] if run["precision"].startswith(family)}
    speeds = [pairs_per_second(runs) for p in precisions if (runs := pick(results, workload, p, side))]
    return max(speeds, default=0.0)


def machine_line(results: dict[str, Any]) -> str:
    machine = next((r["machine"] for r in results["runs"] if r["side"].startswith("trl")), None)
    machine = machine or results["runs"][-1]["machine"]
    rates = best_rates(results)
    versions = ", ".join(f"{name} {v}" for name, v in machine["versions"].items() if v != "absent")
    loads = [run["machine"]["load"] for run in results["runs"]]
    busy = " (the machine was shared: trust only the ratios)" if max(loads) > machine["threads"] + 0.5 else ""
    turns = 1 + max(run["turn"] for run in results["runs"])
    flags = ", ".join(machine["flags"]) or "no notable flags"
    parts = (
        f"{machine['processor'] or 'unnamed processor'} ({flags})",
        f"{machine['cores']} cores, {machine['threads']} threads",
        versions,
        f"measured matmul rate bf16 {rates['bf16']:.0f} and fp32 {rates['fp32']:.0f} GFLOP/s",
        f"the rival's memory: {results['rival_memory']}",
        f"{turns} turns of {results['steps']} steps of {workloads.BATCH} pairs",
        f"load average {min(loads):.1f} to {max(loads):.1f}{busy}",
    )
    return "; ".join(parts) + "."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", nargs="+", choices=workloads.WORKLOADS, default=list(workloads.WORKLOADS))
    parser.add_argument("--precision", nargs="+", choices=workloads.PRECISIONS, default=["bf16-autocast", "fp32"])
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=["pluralign", "trl"])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--steps", type=int, default=workloads.PAIRS // workloads.BATCH, help="timed steps of 8 pairs")
    parser.add_argument("--perturbed", action="store_true", help="policy unlike its reference: losses tell them apart")
    parser.add_argument("--learning-rate", type=float, default=1e-6, help="0 keeps every loss a function of the data")
    parser.add_argument("--rival-memory", choices=MEMORY, default="kept", help="how glibc treats TRL's freed buffers")
    parser.add_argument("--rival-python", default=sys.executable, help="interpreter of the environment that has trl")
    parser.add_argument("--json", type=Path, help="write every measurement here")
    parser.add_argument("--table", action="store_true", help="print the markdown table")
    parser.add_argument("--from-json", type=Path, help="measure nothing, print the table of an earlier --json")
    settings = parser.parse_args()
    results = json.loads(settings.from_json.read_text()) if settings.from_json else take_turns(settings)
    if settings.table or settings.from_json or not settings.json:
        print(table(results))


if __name__ == "__main__":
    main()
