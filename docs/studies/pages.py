"""What the pages of all studies share: blocks between markers, tables, and the rows beside a page."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["fill", "keep_rows", "rows_for", "table"]


def fill(page: Path, blocks: Mapping[str, str]) -> None:
    """Put every block between its markers, <!-- name --> and <!-- /name -->; the page has to have them."""
    text = page.read_text("utf-8")
    for name, block in blocks.items():
        lead, mark, tail = text.partition(f"<!-- {name} -->\n")
        end = f"<!-- /{name} -->"
        if not mark or end not in tail:
            raise SystemExit(f"{page} has no block <!-- {name} -->")
        text = f"{lead}{mark}{block}\n{tail[tail.index(end) :]}"
    page.write_text(text, "utf-8")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown."""
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *rows])


def keep_rows(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Rows as gzipped JSON lines. The same rows make the same bytes."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows).encode())
    path.write_bytes(buffer.getvalue())


def rows_for(path: Path, shipped: Path) -> list[dict[str, Any]]:
    """The rows of a run or, where there is none, those beside the page: none is ever written from nothing."""
    if path.is_file():
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    print(f"{path} is not there; the page is written from {shipped.name}.")
    with gzip.open(shipped, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]
