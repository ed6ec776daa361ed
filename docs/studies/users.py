"""The study of docs/studies/users.md: user-level reward heads on votes and ratings of people (A-IPO, H.5).

    python docs/studies/users.py                      # run what is missing, then write the page (about 15 minutes)
    python docs/studies/users.py --draws 1            # one draw of every cell
    python docs/studies/users.py --page               # only the page, from the rows that are there

A cell is a data set, a kind of features and a draw; all heads are trained in it, each in three sizes of which the
validation of the known people picks one. Cells are written to results.jsonl as they finish, so that the command can be
stopped and goes on where it was; then kinds of people are fitted (users_kinds.py). PLURALIGN_SHARED names the folder of
public data sets (default ../shared/data).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import torch
from pages import rows_for
from users_data import ADAPT, SETS, Split, features, read_people, split_people
from users_kinds import run_kinds
from users_page import write_page

from pluralign.heads.users import Shape, UserReward
from pluralign.heads.users_fit import Options, Pairs, adapt, fit_users, right

FEATURES = {"encoder": 4, "policy": 1}  # draws of each at most
# Three sizes of each head; lambda: H.5 names none for A-IPO-User, its sweep elsewhere is 0.1 to 0.5.
SIZES: dict[str, list[dict[str, Any]]] = {
    "shared": [{"hidden": 0}, {"hidden": 32}, {"hidden": 128}],
    "p_rlhf": [{"user_width": 4}, {"user_width": 16}, {"user_width": 64}],
    "pal": [{"prototypes": 2}, {"prototypes": 4}, {"prototypes": 8}],
    "a_ipo": [{"lam": 0.5}, {"lam": 4.0}, {"lam": 16.0}],
}


def cells(draws: int) -> Iterator[tuple[str, str, int]]:
    """(data, features, draw), one draw after the other."""
    for draw in range(draws):
        yield from ((data, kind, draw) for data, kind in product(SETS, FEATURES) if draw < FEATURES[kind])


def run_cell(data: str, kind: str, draw: int, cache: Path) -> dict[str, Any]:
    """One row: per head the size picked, and how many pairs of whom it got right."""
    started = time.time()
    people = read_people(data)
    split = split_people(people, draw)
    table = torch.tensor(features(people, kind, cache), dtype=torch.float32)
    parts = {name: Pairs.of(getattr(split, name)) for name in ("train", "validation", "test", "new", "rest")}
    row: dict[str, Any] = {
        "data": data, "features": kind, "draw": draw, "things": len(people.texts), "width": table.shape[1],
        "seen": split.seen, "unseen": split.unseen, "largest": split.largest,
        "pairs": {name: len(part) for name, part in parts.items()}, "heads": {},
    }  # fmt: skip
    for head, sizes in SIZES.items():
        options = Options(seed=draw)
        fitted = []
        for size in sizes:
            shape = Shape(kind=head, width=table.shape[1], **size)  # type: ignore[arg-type]
            model, history = fit_users(shape, len(split.seen), table, parts["train"], parts["validation"], options)
            fitted.append((max(h["accuracy"] for h in history), size, len(history), model))
        share, size, epochs, model = max(fitted, key=lambda f: f[0])
        row["heads"][head] = {
            "size": size, "validation": round(share, 4), "epochs": epochs,
            "test": tally(right(model, table, parts["test"]), parts["test"].users, len(split.seen)),
            "unseen": unseen(model, table, split, parts, options),
        }  # fmt: skip
    row["seconds"] = round(time.time() - started, 1)
    return row


def unseen(
    model: UserReward, table: torch.Tensor, split: Split, parts: dict[str, Pairs], options: Options
) -> dict[str, Any]:
    """Per k: [right, asked] of each unseen person, on pairs of new things and on the remaining pairs of known ones."""
    pairs = torch.tensor(split.adapt)
    found = {}
    for k in (k for k in ADAPT if k <= split.largest):
        own = adapt(model, table, pairs[:, :k, 0], pairs[:, :k, 1], options)
        found[str(k)] = {
            name: tally(right(model, table, parts[name], own), parts[name].users, len(split.unseen))
            for name in ("new", "rest")
        }
    return found


def tally(correct: torch.Tensor, users: torch.Tensor, count: int) -> list[list[int]]:
    """[right, asked] of each person."""
    hits = torch.bincount(users, weights=correct.double(), minlength=count).long().tolist()
    asked = torch.bincount(users, minlength=count).tolist()
    return [[h, n] for h, n in zip(hits, asked, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/studies/users"))
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--page", action="store_true", help="only write the page")
    given = parser.parse_args()
    page = Path(__file__).with_suffix(".md")
    if given.page:
        rows = rows_for(given.output / "results.jsonl", page.with_name("users_results.jsonl.gz"))
        kinds = rows_for(given.output / "kinds.jsonl", page.with_name("users_kinds.jsonl.gz"))
        return write_page(rows, kinds, page)
    given.output.mkdir(parents=True, exist_ok=True)
    path = given.output / "results.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    done = {(r["data"], r["features"], r["draw"]) for r in rows}
    todo = [c for c in cells(given.draws) if c not in done]
    for i, cell in enumerate(todo, start=1):
        row = run_cell(*cell, given.output / "features")
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        rows.append(row)
        print(f"{i}/{len(todo)} {cell} {row['seconds']} s", flush=True)
    write_page(rows, run_kinds(given.output), page)


if __name__ == "__main__":
    main()
