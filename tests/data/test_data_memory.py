"""Loading holds rows, not files: memory stays flat however long the file is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Iterates a file in a fresh process and prints the resident memory (KiB) at the two marks, and the count.
CODE = """
import sys
from pluralign.data import load

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4

path, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
marks, n = [], 0
for n, record in enumerate(load(path), 1):
    if n in (first, last):
        marks.append(resident())
print(*marks, n)
"""


def growth(path: Path, first: int, last: int) -> float:
    """MiB of resident memory gained between the two marks of one pass."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(path), str(first), str(last)],
        check=True, capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    before, after, n = map(int, done.stdout.split())
    assert n == last
    return (after - before) / 1024


def row(n: int) -> dict[str, str]:
    return {"prompt": f"Question {n}? " + "x" * 80, "chosen": "a" * 150, "rejected": "b" * 150}


def write(path: Path, rows: int) -> Path:
    """About 430 bytes a row."""
    with path.open("w") as file:
        if path.suffix == ".json":
            file.write("[" + json.dumps(row(0)))
            file.writelines(",\n" + json.dumps(row(n)) for n in range(1, rows))
            file.write("]")
        elif path.suffix == ".csv":
            file.write("prompt,chosen,rejected\n")
            file.writelines(",".join(row(n).values()) + "\n" for n in range(rows))
        else:
            file.writelines(json.dumps(row(n)) + "\n" for n in range(rows))
    return path


needs_proc = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc to read resident memory")


@needs_proc
def test_memory_is_flat_for_json_lines(tmp_path: Path) -> None:
    # 100,000 rows are 43 MB: holding even a tenth of them would show
    assert growth(write(tmp_path / "rows.jsonl", 130_000), 30_000, 130_000) < 4


@needs_proc
@pytest.mark.parametrize("name", ["rows.json", "rows.csv"])
def test_memory_is_flat_for_arrays_and_tables(tmp_path: Path, name: str) -> None:
    assert growth(write(tmp_path / name, 60_000), 20_000, 60_000) < 6


@needs_proc
def test_memory_is_flat_for_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "rows.parquet"
    schema = pa.schema([(name, pa.string()) for name in row(0)])
    with pq.ParquetWriter(path, schema) as out:
        for start in range(0, 60_000, 5_000):
            out.write_table(pa.Table.from_pylist([row(n) for n in range(start, start + 5_000)], schema))
    assert growth(path, 20_000, 60_000) < 12


@needs_proc
@pytest.mark.skipif("PLURALIGN_LONG_TESTS" not in os.environ, reason="takes a minute: set PLURALIGN_LONG_TESTS=1")
def test_a_million_rows(tmp_path: Path) -> None:
    assert growth(write(tmp_path / "rows.jsonl", 1_000_000), 50_000, 1_000_000) < 4
