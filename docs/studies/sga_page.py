"""Tables of docs/studies/sga.md from the cells that are there. See sga.py."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pages import fill, keep_rows, table
from sga_data import ATTRIBUTES, NAMES
from sga_figures import draw
from sga_numbers import (
    Facts,
    Rows,
    array,
    by_lambda,
    correlation,
    fronts,
    heard,
    pick,
    pooled,
    rated,
    rates,
    sensing,
    settings_of,
    steerable,
    steered,
)

from pluralign.judging.attributes import MACRO, judge_sensing, plain_rows, steering_table, wins
from pluralign.judging.fronts import compare_hypervolumes
from pluralign.judging.statistics import Estimate, paired_difference

__all__ = ["write_page"]

FIXED = ("0.25", "0.5", "1")


def write_page(output: Path, rows: Rows, page: Path) -> None:
    """Put every block between its markers; a block without data says so. Draws the figures.

    Without facts.json, which a run writes and which is not kept beside the page, they stay as they are.
    """
    path = output / "facts.json"
    if not rows or not path.is_file():
        print(f"{output} has no finished run of the first part: its blocks and figures stay as they are.")
        return
    facts = json.loads(path.read_text())
    makers: dict[str, Callable[[Rows, Facts], str]] = {
        "setup": setup, "measured": table_measured, "judged": table_judged, "steering": table_steering,
        "partial": table_partial, "strategies": table_strategies, "sensing": table_sensing, "rated": table_rated,
        "lambda": table_lambda, "front": table_front, "verdict": verdict,
    }  # fmt: skip
    fill(page, {name: make(rows, facts) for name, make in makers.items()})
    draw(rows, facts)
    keep_rows(rows, page.with_name("sga_results.jsonl.gz"))


def setup(rows: Rows, facts: Facts) -> str:
    seeds = sorted({r["seed"] for r in rows})
    n = facts["pairs"]
    own = {"length": 1, "questions": 0, "first_person": 3}
    ends = {name: " to ".join(f"{x:.{own[name]}f}" for x in facts["ranges"][name]) for name in NAMES}
    scales = "; ".join(f"`{name}`, {ATTRIBUTES[name][1]} ({ends[name]})" for name in NAMES)
    right = judge_sensing(array(facts["judge"]), array(facts["truth"]), NAMES)
    quality = ", ".join(f"{name} {one.r2.short()}" for name, one in right.items())
    return (
        f"{len(rows)} runs, seeds {', '.join(map(str, seeds))}. Pairs: {n['policy']:,} for policies, {n['judge']:,} "
        f"for the judge, {n['validation']} to choose settings by, {n['held']} held out. Attributes and the ends of "
        f"their scales: {scales}. The judge's R squared against what was measured, on the held-out chosen responses: "
        f"{quality}.\n\n"
        f"Every cell: {facts['steps']} steps of {facts['batch']} responses (half as many pairs), at {facts['rate']:g} "
        f"({facts['pair_rate']:g} on pairs); lambda is {facts['lambda']:g} unless a table says more. Win rates are "
        f"over {facts['prompts']} held-out prompts, steering and fronts over {facts['steered']} of them, sensing over "
        f"all {n['held']}."
    )


def _wins(rows: Rows, facts: Facts, by: str) -> str:
    out = []
    for title, strategy, cells in settings_of(rows):
        found = rates(cells, strategy, by, facts)
        single = [rates([c], strategy, by, facts)[MACRO].value for c in cells]
        each = ", ".join(f"{v:.2f}".lstrip("0") for v in single)
        out.append([title, *(found[n].short() for n in NAMES), found[MACRO].short(), each])
    return table(["method, scores asked for", *NAMES, "macro average", "by seed"], out)


def table_measured(rows: Rows, facts: Facts) -> str:
    return _wins(rows, facts, "truth")


def table_judged(rows: Rows, facts: Facts) -> str:
    return _wins(rows, facts, "judge")


def table_steering(rows: Rows, facts: Facts) -> str:
    out = []
    for name, cells in steerable(rows).items():
        line = []
        for k in range(len(NAMES)):
            means = np.nanmean(steered(cells)[:, k, :, k], axis=0)
            line.append(f"{correlation(cells, k).short()} ({means[0]:.2f} to {means[-1]:.2f})")
        out.append([name, *line, heard(cells).short()])
    return table(["method", *NAMES, "own scores over another's, nats"], out)


def table_partial(rows: Rows, facts: Facts) -> str:
    cells = steerable(rows).get("SGA_SFT", [])
    if not cells:
        return "Not run."
    got = steered(cells)
    prompts = list(range(len(got) // len(cells))) * len(cells)
    out = []
    for k, name in enumerate(NAMES):
        moved = [paired_difference(got[:, k, -1, j], got[:, k, 0, j], clusters=prompts) for j in range(len(NAMES))]
        out.append([name, *(f"**{e.short()}**" if j == k else e.short() for j, e in enumerate(moved))])
    return table(["set from 0 to 1", *NAMES], out)


def table_strategies(rows: Rows, facts: Facts) -> str:
    cells = pick(rows, "SGA_SFT")
    if not cells:
        return "Not run."
    order = (*FIXED, "gt", "sensed")
    names = {"gt": "ground truth", "sensed": "sensed", "1": "1.0"}
    scores = {s: pooled(cells, s, "truth", facts)[0] for s in order}
    _, reference, prompts = pooled(cells, "sensed", "truth", facts)
    found = steering_table(scores, reference, NAMES, clusters=prompts)
    near = {s: float(np.nanmean(np.abs(scores[s] - reference))) for s in order}
    out = []
    for row in plain_rows(found):
        s = row["scores"]
        shown = {k: Estimate.from_dict(v).short() for k, v in row.items() if k != "scores"}
        out.append(
            [names.get(s, s), *(shown[n] for n in (*NAMES, MACRO)), shown.get("difference", ""), f"{near[s]:.3f}"]
        )
    head = ["scores", *NAMES, "macro average", "minus sensed", "distance to the reference's attributes"]
    return table(head, out)


def _verdict(gain: Estimate) -> str:
    if not gain.has_interval:
        return "no interval"
    return "sensed is better" if gain.low > 0 else "the constant is better" if gain.high < 0 else "not told apart"


def _sensing_table(found: Mapping[str, Any]) -> str:
    out = [[name, one.error.short(), one.constant.short(), one.gain.short(), _verdict(one.gain), one.r2.short(),
            one.near.short()] for name, one in found.items()]  # fmt: skip
    head = ["attribute", "mean error, sensed", "of the training median", "gain", "which", "R squared", "within 0.2"]
    return table(head, out)


def table_sensing(rows: Rows, facts: Facts) -> str:
    cells = pick(rows, "SGA_SFT")
    return _sensing_table(sensing(cells, facts)) if cells else "Not run."


def table_rated(rows: Rows, facts: Facts) -> str:
    cells = pick(rows, "just_eval")
    if not cells:
        return "Not run."
    held = len(cells[0]["held_truth"])
    counts = f"{cells[0]['trained_on']} prompts to learn from, {held} held out, n = {len(cells)} seeds."
    return f"{counts}\n\n{_sensing_table(rated(cells))}"


def table_lambda(rows: Rows, facts: Facts) -> str:
    out = []
    for value, cells in by_lambda(rows, facts).items():
        if not cells:
            continue
        own = "sensed" if "sensed" in cells[0]["main"] else "mean"
        r2 = np.mean([e.r2.value for e in sensing(cells, facts).values()]) if "sensed" in cells[0] else None
        rho = np.mean([correlation(cells, k).value for k in range(len(NAMES))])
        out.append([f"{value:g} (n = {len(cells)})", rates(cells, own, "truth", facts)[MACRO].short(),
                    rates(cells, own, "judge", facts)[MACRO].short(), "no head" if r2 is None else f"{r2:.2f}",
                    f"{rho:.2f}"])  # fmt: skip
    head = [
        "lambda",
        "win rate, measured",
        "win rate, judged",
        "R squared of sensing, mean",
        "Spearman of steering, mean",
    ]
    return table(head, out)


def table_front(rows: Rows, facts: Facts) -> str:
    found = fronts(rows, facts)
    if not found:
        return "Not run."
    a, b = facts["conflict"]
    lead = (f"`{a}` and `{b}` conflict most: over the policies' training responses they correlate at "
            f"{facts['correlation']:.2f}.")  # fmt: skip
    out = []
    for method, (r, report) in found.items():
        gap = ""
        if method != "SGA_SFT" and "SGA_SFT" in found and r.shape[1] == found["SGA_SFT"][0].shape[1]:
            n = len(pick(rows, method))
            prompts = list(range(r.shape[1] // n)) * n
            gap = compare_hypervolumes(r, found["SGA_SFT"][0], reference=report.reference, clusters=prompts,
                                       resamples=500).short()  # fmt: skip
        told = [report.controllability[n].value for n in (a, b)]
        out.append([method, report.hypervolume.short(), gap, report.spread.short(),
                    *("–" if v != v else f"{v:.2f}" for v in told)])  # fmt: skip
    head = ["method", "hypervolume", "SGA_SFT minus it", "spread", f"Spearman of {a}", f"of {b}"]
    return f"{lead}\n\n{table(head, out)}"


def verdict(rows: Rows, facts: Facts) -> str:
    """What the intervals allow to be said, and no more."""
    steer = {name: [correlation(cells, k) for k in range(len(NAMES))] for name, cells in steerable(rows).items()}
    lines = [
        "Held-out responses are likelier under their own scores than under another's (interval above 0): "
        + _listed(name for name, cells in steerable(rows).items() if heard(cells).low > 0),
        "Steering, correlation with an interval above 0: "
        + _listed(f"{name} ({NAMES[k]})" for name, es in steer.items() for k, e in enumerate(es) if e.low > 0),
        "Steering above the target of .5: "
        + _listed(f"{name} ({NAMES[k]})" for name, es in steer.items() for k, e in enumerate(es) if e.value > 0.5),
    ]
    found = {f"{m} ({n})": e for m in ("SGA_SFT", "SGA_SFT, both", "SGA_DPO") if pick(rows, m)
             for n, e in sensing(pick(rows, m), facts).items()}  # fmt: skip
    lines.append(
        "Sensing measured attributes with R squared above 0: " + _listed(n for n, e in found.items() if e.r2.low > 0)
    )
    if cells := pick(rows, "just_eval"):
        better = _listed(n for n, e in rated(cells).items() if e.r2.low > 0)
        lines.append(f"Sensing GPT-4's ratings with R squared above 0: {better}")
    base = pick(rows, "SFT")
    for name in ("SGA_SFT", "SGA_SFT, both"):
        if base and (cells := pick(rows, name)) and len(cells) == len(base):
            (s, r, prompts), (b, _, _) = (
                pooled(cells, "sensed", "truth", facts),
                pooled(base, "plain", "truth", facts),
            )
            gap = paired_difference(wins(s, r).mean(1), wins(b, r).mean(1), clusters=prompts)
            lines.append(f"{name} under sensed scores minus SFT, win rate measured, macro average: {gap}")
    return "\n".join(f"* {line.rstrip('.')}." for line in lines)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
