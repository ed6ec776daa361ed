"""Tables and figures of docs/studies/inspo.md from the cells that are there. See inspo.py."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pages import fill, table

from pluralign.judging.statistics import mean_interval, paired_difference, proportion_interval

__all__ = ["write_page"]

FIGURES = Path(__file__).parent.parent / "figures"
STRATEGY = {"none": "none (DPO)", "one-sided": "one-sided", "cross": "cross (InSPO)", "averaged": "averaged"}
INK = {"none": "#5b6470", "cross": "#b3471d", "one-sided": "#2f6f9f", "averaged": "#5c7f2b"}
Rows = Sequence[Mapping[str, Any]]


def write_page(output: Path, rows: Rows, page: Path) -> None:
    """Put every block between its markers; a block without data says so."""
    blocks = {
        "setup": setup(output, rows),
        "table2": table_methods(rows),
        "table4": table_strategies(rows),
        "table3": table_caps(rows),
        "data": table_data(rows),
        "cost": table_cost(rows),
    }
    fill(page, blocks)
    draw_curves(rows, FIGURES / "inspo_curves.svg")
    draw_differences(rows, FIGURES / "inspo_differences.svg")


def pick(rows: Rows, **want: Any) -> dict[int, Mapping[str, Any]]:
    """The cells that agree with `want`, by seed."""
    main = {"data": "hh", "length": 512, "cap": 0.4, **want}
    return {r["seed"]: r for r in rows if all(r[k] == v for k, v in main.items())}


def spread(cells: Mapping[int, Mapping[str, Any]], key: str, digits: int = 3) -> str:
    """Mean over seeds with its t interval."""
    if not cells:
        return "not run"
    e = mean_interval([c[key] for c in cells.values()])
    half = (e.high - e.low) / 2
    return f"{e.value:.{digits}f}" + (f" ± {half:.{digits}f}" if len(cells) > 1 else "")


def change(after: Mapping[int, Any], before: Mapping[int, Any], key: str, digits: int = 3) -> str:
    """Difference over the seeds that both have, paired, with its interval and p."""
    seeds = sorted(set(after) & set(before))
    if len(seeds) < 2:
        return ""
    e = paired_difference([after[s][key] for s in seeds], [before[s][key] for s in seeds])
    return f"{e.value:+.{digits}f} [{e.low:+.{digits}f}, {e.high:+.{digits}f}]"


def setup(output: Path, rows: Rows) -> str:
    path = output / "reward.json"
    if not rows or not path.is_file():
        return "No cell has been run yet."
    r = json.loads(path.read_text())
    e = proportion_interval(r["right"], r["held_out"])
    seeds = sorted({row["seed"] for row in rows})
    return (
        f"{len(rows)} runs, seeds {', '.join(map(str, seeds))}. The reward model was trained on {r['pairs']:,} "
        f"pairs and orders {e.value:.3f} [{e.low:.3f}, {e.high:.3f}] of {r['held_out']} other pairs as people did."
    )


def table_methods(rows: Rows) -> str:
    out = []
    for method in dict.fromkeys(r["method"] for r in rows):
        plain, shown = (pick(rows, method=method, strategy=s) for s in ("none", "cross"))
        out.append(
            [
                f"{method} (n = {len(plain)})",
                *(spread(plain, k) for k in ("accuracy", "win_rate")),
                spread(plain, "words", 1),
                "",
            ]
        )
        cells = [spread(shown, k) for k in ("accuracy", "win_rate")]
        out.append(["+ InSPO", *cells, spread(shown, "words", 1), change(shown, plain, "accuracy")])
    return table(["method", "held-out accuracy", "win rate over the start", "words", "InSPO - plain, accuracy"], out)


def table_strategies(rows: Rows) -> str:
    plain = pick(rows, method="DPO", strategy="none")
    out = []
    for strategy, title in STRATEGY.items():
        cells = pick(rows, method="DPO", strategy=strategy)
        out.append(
            [
                title,
                spread(cells, "accuracy"),
                "" if strategy == "none" else change(cells, plain, "accuracy"),
                spread(cells, "margin", 2),
                spread(cells, "conditioned_accuracy"),
                spread(cells, "conditioned_gain", 2),
                spread(cells, "chosen_drift", 2),
                spread(cells, "win_rate"),
            ]
        )
    head = ["conditioning", "accuracy", "against none", "margin, nats", "accuracy shown the other",
            "its margin, gain in nats", "chosen drift, nats", "win rate"]  # fmt: skip
    return table(head, out)


def table_caps(rows: Rows) -> str:
    caps = (0.3, 0.4, 0.5, None)
    out = []
    for length in (128, 256, 512):
        cells = [pick(rows, method="DPO", strategy="cross", length=length, cap=cap) for cap in caps]
        cells = [{s: c for s, c in found.items() if s < 3} for found in cells]
        out.append([str(length), *(spread(c, "accuracy") for c in cells)])
    return table(["MaxLen", *(f"{c:.0%}" if c else "none" for c in caps)], out)


def table_data(rows: Rows) -> str:
    out = []
    for data, title in (("hh", "HH-RLHF, 360 pairs"), ("uf", "UltraFeedback slice, 200 pairs")):
        plain, shown = (pick(rows, data=data, method="DPO", strategy=s) for s in ("none", "cross"))
        cells = [spread(c, "accuracy") for c in (plain, shown)]
        out.append([title, *cells, change(shown, plain, "accuracy"), change(shown, plain, "margin", 2)])
    return table(["held-out data", "DPO", "INS-DPO", "difference, accuracy", "difference, margin in nats"], out)


def table_cost(rows: Rows) -> str:
    out = []
    for method in dict.fromkeys(r["method"] for r in rows):
        line = [method]
        plain = pick(rows, method=method, strategy="none")
        for strategy in ("cross", "one-sided", "averaged"):
            cells = pick(rows, method=method, strategy=strategy)
            both = sorted(set(cells) & set(plain))
            ratio = [cells[s]["step_seconds"] / plain[s]["step_seconds"] for s in both]
            line.append(f"{np.median(ratio):.2f} ({min(ratio):.2f} to {max(ratio):.2f})" if ratio else "not run")
        out.append(line)
    return table(["method", "cross", "one-sided", "averaged"], out)


# Figures


def _axes(width: float, height: float, panels: int) -> Any:
    from matplotlib.figure import Figure

    fig = Figure(figsize=(width, height), layout="constrained")
    axes = fig.subplots(1, panels, squeeze=False)[0]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", color="#dddddd", linewidth=0.6)
        ax.set_axisbelow(True)
    return fig, axes


def _save(fig: Any, path: Path) -> None:
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "pluralign", "svg.fonttype": "path"}):
        buffer = io.StringIO()
        fig.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    path.write_text(buffer.getvalue(), "utf-8")


def draw_curves(rows: Rows, path: Path) -> None:
    """Figure 2's shape: training loss and held-out accuracy by step, mean over seeds, plain and under InSPO."""
    fig, axes = _axes(9.5, 3.2, 3)
    panels = (("train", "loss", "training loss, DPO"), ("validation", "accuracy", "validation accuracy, prompt alone"),
              ("validation", "conditioned_accuracy", "validation accuracy, shown the other"))  # fmt: skip
    for ax, (phase, key, title) in zip(axes, panels, strict=True):
        for strategy in STRATEGY:
            cells = pick(rows, method="DPO", strategy=strategy)
            series = [
                [(r["step"], r[key]) for r in c["curve"] if r["phase"] == phase and key in r] for c in cells.values()
            ]
            series = [s for s in series if s]
            if not series:
                continue
            steps = [step for step, _ in series[0]]
            values = np.array([[v for _, v in s] for s in series if len(s) == len(steps)])
            mean = values.mean(0)
            if phase == "train":
                mean = np.convolve(np.pad(mean, 2, mode="edge"), np.ones(5) / 5, mode="valid")
            style = "--" if strategy == "none" else "-"
            ax.plot(steps, mean, style, color=INK[strategy], label=STRATEGY[strategy], linewidth=1.6)
            if phase == "validation" and len(values) > 1:
                half = values.std(0, ddof=1) / len(values) ** 0.5
                ax.fill_between(steps, mean - half, mean + half, color=INK[strategy], alpha=0.15, linewidth=0)
        ax.set_title(title, fontsize=9, loc="left")
        ax.set_xlabel("step", fontsize=8)
        ax.tick_params(labelsize=8)
    axes[0].legend(fontsize=7, frameon=False)
    _save(fig, path)


def draw_differences(rows: Rows, path: Path) -> None:
    """InSPO minus plain, held-out accuracy, per method, with 95 % intervals over seeds."""
    fig, (ax,) = _axes(5.5, 2.6, 1)
    methods = list(dict.fromkeys(r["method"] for r in rows))
    for y, method in enumerate(methods):
        plain, shown = (pick(rows, method=method, strategy=s) for s in ("none", "cross"))
        seeds = sorted(set(plain) & set(shown))
        gaps = [shown[s]["accuracy"] - plain[s]["accuracy"] for s in seeds]
        ax.plot(gaps, [y + 0.18] * len(gaps), "o", color="#9aa3ad", markersize=3)
        if len(seeds) > 1:
            e = mean_interval(gaps)
            ax.errorbar(
                e.value, y, xerr=[[e.value - e.low], [e.high - e.value]], fmt="o", color=INK["cross"], capsize=3
            )
    ax.axvline(0, color="#5b6470", linewidth=0.9, linestyle=":")
    ax.set_yticks(range(len(methods)), methods, fontsize=9)
    ax.set_ylim(len(methods) - 0.5, -0.5)
    ax.set_title("InSPO minus plain, held-out accuracy at the prompt", fontsize=9, loc="left")
    ax.tick_params(axis="x", labelsize=8)
    _save(fig, path)
