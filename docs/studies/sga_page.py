"""Tables and figures of docs/studies/sga.md from the cells that are there. See sga.py."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from sga_data import ATTRIBUTES, NAMES

from pluralign.judging.attributes import MACRO, judge_sensing, plain_rows, steering_table, win_rates
from pluralign.judging.fronts import compare_hypervolumes, evaluate_front, reference_point
from pluralign.judging.statistics import Estimate, bootstrap_interval, mean_interval, paired_difference
from pluralign.reports.steering_figures import Line, Profile, error_histogram, front, radar, sweep

__all__ = ["write_page"]

FIGURES = Path(__file__).parent.parent / "figures"
LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
FIXED = ("0.25", "0.5", "1")
Rows = Sequence[Mapping[str, Any]]
Facts = Mapping[str, Any]


def write_page(output: Path, rows: Rows, page: Path) -> None:
    """Put every block between its markers; a block without data says so. Draws the figures."""
    path = output / "facts.json"
    if not rows or not path.is_file():
        raise SystemExit(f"{output} has no finished run: nothing to write a page from.")
    facts = json.loads(path.read_text())
    makers: dict[str, Callable[[Rows, Facts], str]] = {
        "setup": setup, "measured": table_measured, "judged": table_judged, "steering": table_steering,
        "partial": table_partial, "strategies": table_strategies, "sensing": table_sensing, "rated": table_rated,
        "lambda": table_lambda, "front": table_front,
    }  # fmt: skip
    text = page.read_text("utf-8")
    for name, make in makers.items():
        if f"<!-- {name} -->\n" not in text or f"\n<!-- /{name} -->" not in text:
            raise SystemExit(f"{page} has no block <!-- {name} -->")
        lead, _, tail = text.partition(f"<!-- {name} -->\n")
        rest = tail[tail.index(f"<!-- /{name} -->") :]
        text = f"{lead}<!-- {name} -->\n{make(rows, facts)}\n{rest}"
    page.write_text(text, "utf-8")
    draw(rows, facts)


# What the cells hold


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def pick(rows: Rows, method: str, sense: float | None = None) -> list[Mapping[str, Any]]:
    """The cells of a method, one a seed."""
    return [r for r in rows if r["method"] == method and r["sense"] == sense]


def array(values: Any) -> np.ndarray:
    """Nested lists with null for what is missing."""
    return np.array(values, dtype=np.float64)


def pooled(cells: Rows, strategy: str, by: str, facts: Facts) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """(scores, reference scores, prompt of each row) of all seeds under one strategy, as measured or as judged."""
    own = [array(c["main"][strategy][by]) for c in cells]
    n = len(own[0])
    reference = array(facts[by])[:n]
    return np.concatenate(own), np.concatenate([reference] * len(own)), list(range(n)) * len(own)


def rates(cells: Rows, strategy: str, by: str, facts: Facts) -> dict[str, Estimate]:
    s, r, prompts = pooled(cells, strategy, by, facts)
    return win_rates(s, r, NAMES, clusters=prompts)


def settings_of(rows: Rows) -> list[tuple[str, str, list[Mapping[str, Any]]]]:
    """(title, strategy, cells) of every line of the main tables."""
    titles = {"plain": "", "sensed": ", sensed", "mean": ", training mean", "1": ", all at 1"}
    out = []
    for method in dict.fromkeys(r["method"] for r in rows if r["method"] != "just_eval"):
        cells = pick(rows, method)
        out += [(method + words, s, cells) for s, words in titles.items() if cells and s in cells[0]["main"]]
    return out


# Blocks


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
        f"{quality}."
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


def steered(cells: Rows) -> np.ndarray:
    """(seed * prompt, attribute asked, level, attribute measured)."""
    each = [np.stack([array(c["steer"][n]) for n in NAMES]) for c in cells]  # (K, level, prompt, K)
    return np.concatenate([e.transpose(2, 0, 1, 3) for e in each])


def correlation(cells: Rows, k: int) -> Estimate:
    """Spearman's correlation of requested level and measured attribute over responses; prompts are resampled."""
    from scipy.stats import spearmanr

    got = steered(cells)[:, k, :, k]
    prompts = list(range(len(got) // len(cells))) * len(cells)

    def of(items: np.ndarray) -> float:
        y = got[items.astype(int)]
        x = np.broadcast_to(LEVELS, y.shape)
        known = ~np.isnan(y)
        return float(spearmanr(x[known], y[known])[0]) if np.nanstd(y) > 0 else 0.0

    return bootstrap_interval(np.arange(len(got), dtype=float), of, 500, seed=0, clusters=prompts)


def steerable(rows: Rows) -> dict[str, list[Mapping[str, Any]]]:
    names = dict.fromkeys(r["method"] for r in rows if "steer" in r)
    return {name: cells for name in names if (cells := pick(rows, name))}


def table_steering(rows: Rows, facts: Facts) -> str:
    out = []
    for name, cells in steerable(rows).items():
        line = []
        for k in range(len(NAMES)):
            means = np.nanmean(steered(cells)[:, k, :, k], axis=0)
            line.append(f"{correlation(cells, k).short()} ({means[0]:.2f} to {means[-1]:.2f})")
        out.append([name, *line, heard(cells).short()])
    return table(["method", *NAMES, "own scores over another's, nats"], out)


def heard(cells: Rows) -> Estimate:
    """Nats that the right scores are worth to the likelihood of held-out responses; above 0: the policy reads them."""
    values = np.concatenate([array(c["heard"]) for c in cells])
    return mean_interval(values, clusters=list(range(len(values) // len(cells))) * len(cells))


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


def sensing(cells: Rows, facts: Facts) -> Any:
    """Sensed against measured scores of the held-out chosen responses, all seeds, and the training median."""
    truth = array(facts["truth"])
    many = list(range(len(truth))) * len(cells)
    sensed = np.concatenate([array(c["sensed"]) for c in cells])
    return judge_sensing(sensed, np.concatenate([truth] * len(cells)), NAMES, constant=facts["median"], clusters=many)


def rated(cells: Rows) -> Any:
    truth = array(cells[0]["held_truth"])
    many = list(range(len(truth))) * len(cells)
    sensed, names = np.concatenate([array(c["sensed"]) for c in cells]), cells[0]["names"]
    true = np.concatenate([truth] * len(cells))
    return judge_sensing(sensed, true, names, constant=cells[0]["median"], clusters=many)


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


def by_lambda(rows: Rows, facts: Facts) -> dict[float, list[Mapping[str, Any]]]:
    found = {r["sense"]: pick(rows, "SGA_SFT", r["sense"]) for r in rows if r["sense"] is not None}
    return dict(sorted((found | {facts["lambda"]: pick(rows, "SGA_SFT")}).items()))


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


def fronts(rows: Rows, facts: Facts) -> dict[str, tuple[np.ndarray, Any]]:
    """By method: rewards (P, N, 2) of the conflicting attributes, all seeds, and their figures."""
    places = [NAMES.index(n) for n in facts["conflict"]]
    floor = reference_point(array(facts["start"])[:, places])
    out = {}
    for method in dict.fromkeys(r["method"] for r in rows if "front" in r):
        cells = pick(rows, method)
        r = np.concatenate([array(c["front"]) for c in cells], axis=1)
        prompts = list(range(r.shape[1] // len(cells))) * len(cells)
        w = np.array([(x, 1 - x) for x in LEVELS])
        out[method] = (
            r,
            evaluate_front(w, r, reference=floor, names=facts["conflict"], clusters=prompts, resamples=500),
        )
    return out


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


# Figures


def draw(rows: Rows, facts: Facts) -> None:
    made: dict[str, str] = {}
    order = [(t, s, c) for t, s, c in settings_of(rows) if s in ("plain", "sensed", "mean")][:7]
    profiles = [Profile(t, rates(c, s, "truth", facts), t.startswith("SGA_SFT")) for t, s, c in order]
    if profiles:
        made["radar"] = radar(profiles, names=NAMES, key="sga-radar", title="Win rates by attribute")
    if cells := pick(rows, "SGA_SFT"):
        made["errors"] = error_histogram(
            list(sensing(cells, facts).values()), key="sga-errors", title="Errors of sensing"
        )
    if cells := pick(rows, "just_eval"):
        made["rated"] = error_histogram(list(rated(cells).values()), key="sga-rated", title="Errors, rated data")
    swept = {v: c for v, c in by_lambda(rows, facts).items() if c and v > 0}
    if len(swept) > 1:
        lines = [Line(label, list(swept), [rates(c, "sensed", by, facts)[MACRO] for c in swept.values()])
                 for label, by in (("measured", "truth"), ("judged", "judge"))]  # fmt: skip
        made["lambda"] = sweep(
            lines, setting="lambda", unit="win rate, macro average", key="sga-lambda", title="lambda"
        )
    if steerable(rows):
        made["steering"] = _steering_figure(rows)
    if found := fronts(rows, facts):
        made["front"] = front({n: report for n, (_, report) in found.items()}, key="sga-front", title="Fronts")
    for name, svg in made.items():
        (FIGURES / f"sga_{name}.svg").write_text(standalone(svg), "utf-8")


def _steering_figure(rows: Rows) -> str:
    """Measured against requested scores of the first attribute, one line a method."""
    lines = []
    for name, cells in steerable(rows).items():
        got = steered(cells)[:, 0, :, 0]
        prompts = list(range(len(got) // len(cells))) * len(cells)
        values = [mean_interval(got[:, i], clusters=prompts) for i in range(len(LEVELS))]
        lines.append(Line(name, LEVELS, values))
    return sweep(lines, setting="requested", unit=f"{NAMES[0]}, measured", key="sga-steering", title="Steering")


def standalone(svg: str) -> str:
    """An inline figure as a file of its own: the report's variables become its colours in daylight, on paper."""
    css = files("pluralign.reports").joinpath("page.css").read_text("utf-8")
    colours = dict(reversed(re.findall(r"--(\w+): (#\w+);", css)))  # the first one counts
    plain = re.sub(r"var\(--(\w+)\)", lambda m: colours[m[1]], svg)
    width, height = (float(x) for x in re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', plain)[0])
    size = f'width="{1.6 * width:.0f}" height="{1.6 * height:.0f}"'
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    head = f'<svg {spaces} {size} font-family="DejaVu Sans, sans-serif" '
    paper = f'<rect width="100%" height="100%" fill="{colours["paper"]}"/>'
    return plain.replace("<svg ", head, 1).replace("</title>", "</title>\n" + paper, 1) + "\n"
