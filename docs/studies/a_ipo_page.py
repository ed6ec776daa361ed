"""Tables and the figure of docs/studies/a_ipo.md from the rows of a_ipo.py. See there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from a_ipo_data import SETS
from a_ipo_judge import TOLD
from pages import fill, keep_rows, table
from sga_figures import standalone

from pluralign.judging.statistics import Estimate, mean_interval, paired_difference, share_interval

__all__ = ["write_page"]

Rows = Sequence[Mapping[str, Any]]
ORDER = ("base", "SFT", "DPO", "GDPO", "Inf-Intent", "A-IPO (-I)", "A-IPO (-sim)", "A-IPO", "A-IPO, K = 3", *TOLD)
FIGURE = "a_ipo_margins.svg"


def write_page(rows: Rows, page: Path) -> None:
    """Put every block between its markers, the rows into a file beside the page, the figure into its folder."""
    blocks = {"setup": setup(rows), "pairs": pairs(rows), "answers": answers(rows), "intents": intents(rows)}
    blocks |= {"parts": parts(rows), "attacks": attacks(rows), "written": written(rows)}
    fill(page, blocks)
    keep_rows(rows, page.with_name("a_ipo_results.jsonl.gz"))
    drawn = margins(rows)
    if drawn:
        (page.parents[1] / "figures" / FIGURE).write_text(standalone(drawn), "utf-8")


def own(rows: Rows, data: str, method: str) -> list[Mapping[str, Any]]:
    return sorted((r for r in rows if r["data"] == data and r["method"] == method), key=lambda r: r["seed"])


def items(rows: Rows, data: str, method: str, field: str) -> list[float]:
    """One field of every held-out item, seed after seed. A seed has test prompts of its own."""
    return [float(v) for r in own(rows, data, method) for v in r.get(field, ())]


def beside_dpo(rows: Rows, data: str, method: str, field: str = "right") -> tuple[list[float], list[float]]:
    """A field of a method and of DPO on the same pairs: of the seeds that both have been run with."""
    seeds = {r["seed"] for r in own(rows, data, "DPO")} & {r["seed"] for r in own(rows, data, method)}
    shared = [r for r in rows if r["seed"] in seeds]
    return items(shared, data, method, field), items(shared, data, "DPO", field)


def shown(e: Estimate) -> str:
    return e.short() if e.n else "–"


def methods(rows: Rows, data: str) -> list[str]:
    return [m for m in ORDER if own(rows, data, m)]


def setup(rows: Rows) -> str:
    seeds = sorted({r["seed"] for r in rows})
    sizes = {d: own(rows, d, "base") for d in SETS}
    lacking = [d for d, r in sizes.items() if not r]
    told = [f"{d}: {r[0]['train']} training and {len(r[0]['right'])} test pairs a seed" for d, r in sizes.items() if r]
    encoders = sorted({r["encoder"] for r in rows})
    missing = f" Not run yet: {', '.join(lacking)}." if lacking else ""
    runs = f"{len(rows)} runs, seeds {', '.join(map(str, seeds))}."
    return f"{runs} {'; '.join(told)}. Encoder: {', '.join(encoders)}.{missing}"


def pairs(rows: Rows) -> str:
    """Accuracy on held-out pairs, and the paired difference from DPO."""
    out = []
    for method in ORDER:
        line = [method]
        for data in SETS:
            mine = items(rows, data, method, "right")
            if not mine:
                line += ["–", "–"]
                continue
            line.append(shown(share_interval(mine)))
            both = beside_dpo(rows, data, method)
            line.append(shown(paired_difference(*both)) if both[0] and method != "DPO" else "")
        out.append(line)
    return table(["method", *(h for d in SETS for h in (d, "less DPO"))], out)


def written(rows: Rows) -> str:
    """RS of a method's answers less that of DPO's to the same prompts."""
    out = []
    for method in ORDER:
        each = [beside_dpo(rows, data, method, "rs") for data in SETS]
        if method != "DPO":
            out.append([method, *(shown(paired_difference(*both)) if both[0] else "–" for both in each)])
    return table(["method", *SETS], out)


def answers(rows: Rows) -> str:
    """RS: cosine of a generated answer with the preferred one; with another prompt's; with the rejected one."""
    out = []
    for method in ORDER:
        line = [method]
        for data in SETS:
            each = [items(rows, data, method, f) for f in ("rs", "rs_rejected", "rs_shuffled")]
            line.append(" / ".join(shown(mean_interval(v)) for v in each) if each[0] else "–")
        out.append(line)
    return table(["method", *SETS], out)


def intents(rows: Rows) -> str:
    """Whether the intent that is inferred is the record's own (ICS, by exact agreement)."""
    out = []
    for method in ("Inf-Intent", "A-IPO (-sim)", "A-IPO", "A-IPO, K = 3"):
        out.append([method, *(shown(share_interval(items(rows, d, method, "intent_right"))) for d in SETS)])
    return table(["method", *SETS], out)


def parts(rows: Rows) -> str:
    """Accuracy by part: opinions with and against the world's, attacks by style."""
    out = []
    for data in ("opinions", "attacks"):
        for part in sorted({p for r in own(rows, data, "DPO") for p in r["part"]}):
            line = [f"{data}: {SETS[data].by} {part}"]
            for method in ("SFT", "DPO", "A-IPO"):
                each = [(x, p) for r in own(rows, data, method) for x, p in zip(r["right"], r["part"], strict=True)]
                line.append(shown(share_interval([float(x) for x, p in each if p == part])))
            out.append(line)
    return table(["part", "SFT", "DPO", "A-IPO"], out)


def attacks(rows: Rows) -> str:
    """What stands in generated answers to attacked questions."""
    out = [
        [m, *(shown(share_interval(items(rows, "attacks", m, f))) for f in ("resisted", "answered"))]
        for m in methods(rows, "attacks")
    ]
    return table(["method", "the attack's answer is absent", "the right answer is there"], out)


def margins(rows: Rows) -> str:
    """Figure 2: mean reward margin over steps on the attacks, with the similarity (Eq. 43) and the policy's own."""
    from pluralign.reports.figures import Curve, curves, palette
    from pluralign.reports.runs import Series

    wanted = (
        ("DPO", "DPO", "margin"),
        ("A-IPO (-sim)", "A-IPO (-sim)", "margin"),
        ("A-IPO, with similarity", "A-IPO", "margin"),
        ("A-IPO, policy alone", "A-IPO", "policy_margin"),
    )
    lines = []
    for n, (label, method, field) in enumerate(wanted):
        logs = [r["log"] for r in own(rows, "attacks", method) if r["log"]]
        if logs:
            steps = tuple(e["step"] for e in logs[0])
            means = tuple(sum(log[i][field] for log in logs) / len(logs) for i in range(len(steps)))
            nothing = (math.nan,) * len(steps)
            colour, dash = palette(n, len(wanted))
            lines.append(Curve(label, Series(steps, means, nothing, nothing), colour, dash))
    return curves(lines, key="margins", title="Reward margin over steps", unit="margin") if lines else ""
