"""Tables of docs/studies/users.md from the rows of users.py, and the rows beside the page. See users.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pages import fill, keep_rows, table

from pluralign.judging.statistics import Estimate, mean_interval, paired_difference

__all__ = ["write_page"]

HEADS = {"shared": "one head for all", "p_rlhf": "P-RLHF-Lite", "pal": "PAL-Lite", "a_ipo": "A-IPO-User"}
TITLES = {
    "ccai": "CCAI", "bowling-green": "Polis: Bowling Green", "housing": "Polis: affordable housing",
    "taxes": "Polis: taxes", "land-bank": "Polis: land bank", "popquorn": "POPQUORN, offensiveness",
}  # fmt: skip
Rows = Sequence[Mapping[str, Any]]


def write_page(rows: Rows, kinds: Rows, page: Path) -> None:
    """Put every block between its markers, and the rows into a file beside the page."""
    blocks = {
        "setup": setup(rows),
        "table6": table6(rows, "encoder"),
        "table7": table7(rows, "encoder", "new"),
        "table7-rest": table7(rows, "encoder", "rest"),
        "sets": table_sets(rows),
        "policy": table_policy(rows),
        "sizes": table_sizes(rows),
        "kinds": table_kinds(kinds),
    }
    fill(page, blocks)
    keep_rows(rows, page.with_name("users_results.jsonl.gz"))
    keep_rows(kinds, page.with_name("users_kinds.jsonl.gz"))


# From rows to people


def pick(rows: Rows, **want: Any) -> list[Mapping[str, Any]]:
    return [r for r in rows if all(r[k] == v for k, v in want.items())]


def people(rows: Rows, head: str, k: int | None, part: str = "new") -> dict[tuple[str, int], float]:
    """Accuracy of each person (data set, number), mean over its draws; k None: known people's test pairs."""
    found: dict[tuple[str, int], list[float]] = {}
    for row in rows:
        own = row["heads"][head]
        if k is not None and str(k) not in own["unseen"]:
            continue
        who, tallies = (row["seen"], own["test"]) if k is None else (row["unseen"], own["unseen"][str(k)][part])
        for person, (right, asked) in zip(who, tallies, strict=True):
            if asked:
                found.setdefault((row["data"], person), []).append(right / asked)
    return {person: sum(each) / len(each) for person, each in found.items()}


def mean(values: Mapping[Any, float]) -> Estimate:
    return mean_interval(list(values.values()))


def shown(e: Estimate) -> str:
    return "not run" if not e.n else f"{e.value:.3f} ± {(e.high - e.low) / 2:.3f}"


def change(after: Mapping[Any, float], before: Mapping[Any, float]) -> str:
    """Mean difference over the people that both have, with its interval."""
    both = sorted(set(after) & set(before))
    if len(both) < 2:
        return "not run"
    e = paired_difference([after[p] for p in both], [before[p] for p in both])
    return f"{e.value:+.3f} [{e.low:+.3f}, {e.high:+.3f}]"


# Blocks


def setup(rows: Rows) -> str:
    if not rows:
        return "No cell has been run yet."
    lines = []
    for data, title in TITLES.items():
        own = pick(rows, data=data)
        if not own:
            continue
        draws = [f"{len(pick(own, features=f))} ({f})" for f in ("encoder", "policy") if pick(own, features=f)]
        seen, unseen, train = (
            f"{min(v)} to {max(v)}" if min(v) < max(v) else f"{v[0]}"
            for v in (
                [len(r["seen"]) for r in own],
                [len(r["unseen"]) for r in own],
                [r["pairs"]["train"] for r in own],
            )
        )
        lines.append([title, f"{own[0]['things']:,}", seen, unseen, train, f"{own[0]['largest']}", ", ".join(draws)])
    head = ["data", "statements or texts", "known people", "unseen people", "training pairs", "largest k", "draws"]
    return table(head, lines)


def table6(rows: Rows, features: str) -> str:
    own = pick(rows, features=features)
    base = people(own, "shared", None)
    return table(
        ["head", "accuracy", "people", "against one head for all"],
        [[title, shown(mean(people(own, head, None))), f"{len(people(own, head, None)):,}",
          "" if head == "shared" else change(people(own, head, None), base)] for head, title in HEADS.items()],
    )  # fmt: skip


def table7(rows: Rows, features: str, part: str) -> str:
    """Only data sets whose unseen people have 200 pairs, so that every row is of the same people."""
    own = [r for r in pick(rows, features=features) if r["largest"] == 200]
    lines = []
    for k in (0, 50, 100, 200):
        each = {head: people(own, head, k, part) for head in HEADS}
        lines.append([f"k = {k}", *(shown(mean(each[head])) for head in HEADS)])
    gain = [change(people(own, h, 200, part), people(own, h, 0, part)) for h in HEADS if h != "shared"]
    lines.append(["k = 200 minus k = 0", "", *gain])
    count = len(people(own, "shared", 0, part))
    return table([f"{count} unseen people", *HEADS.values()], lines)


def table_sets(rows: Rows) -> str:
    """Per data set: known people, and unseen people at k = 0 and the largest k, on new things."""
    lines = []
    for data, title in TITLES.items():
        own = pick(rows, data=data, features="encoder")
        if not own:
            continue
        largest = own[0]["largest"]
        for head, name in HEADS.items():
            zero, most = (people(own, head, k) for k in (0, largest))
            lines.append([title if head == "shared" else "", name, shown(mean(people(own, head, None))),
                          shown(mean(zero)), "" if head == "shared" else change(most, zero)])  # fmt: skip
    return table(["data", "head", "known people", "unseen, k = 0", "largest k minus k = 0"], lines)


def table_policy(rows: Rows) -> str:
    """Encoder against the policy's states on the draws that both have."""
    both = {(r["data"], r["draw"]) for r in pick(rows, features="policy")}
    lines = []
    for head, title in HEADS.items():
        parts = [[r for r in pick(rows, features=f) if (r["data"], r["draw"]) in both] for f in ("encoder", "policy")]
        each = [people(part, head, None) for part in parts]
        lines.append([title, *(shown(mean(e)) for e in each), change(each[1], each[0])])
    return table(["head, known people", "encoder", "policy's mean state", "policy minus encoder"], lines)


def table_sizes(rows: Rows) -> str:
    lines = []
    for head, title in HEADS.items():
        count: dict[str, int] = {}
        for row in rows:
            text = ", ".join(f"{name} {value:g}" for name, value in row["heads"][head]["size"].items())
            count[text] = count.get(text, 0) + 1
        picked = sorted(count.items(), key=lambda c: -c[1])
        lines.append([title, "; ".join(f"{text}: {n}" for text, n in picked)])
    return table(["head", "size picked by validation: cells"], lines)


def table_kinds(rows: Rows) -> str:
    lines = []
    for row in rows:
        likely, same = Estimate.from_dict(row["held_out"]), Estimate.from_dict(row["agreement"])
        one = row["kinds"] == 1
        lines.append([
            TITLES[row["data"]] if one else "", f"{row['kinds']}", ", ".join(f"{e:.2f}" for e in row["eta"]),
            f"{likely.value:.3f} ± {(likely.high - likely.low) / 2:.3f} (n = {likely.n})",
            f"{row['largest']:.3f}" if one else f"{same.value:.3f} [{same.low:.3f}, {same.high:.3f}] (n = {same.n})",
        ])  # fmt: skip
    head = ["conversation", "kinds", "shares", "held-out people, nats a pair", "agreement with Polis's groups"]
    return table(head, lines) if lines else "Not fitted yet."
