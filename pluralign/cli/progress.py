"""A run as lines: a bar where there is a terminal, a few plain lines where there is none."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from ..judging.statistics import Estimate, format_number
from ..training.callbacks import Say
from .console import clock, console, is_first, warn

__all__ = ["LABEL", "Progress"]

LABEL = 9  # width of the first column
RECENT = 10  # steps whose mean is shown
PLAIN_LINES = 10  # lines of a stage where there is no terminal
SHOWN = ("accuracy", "rating_accuracy", "loss", "sensing_error", "rating_error")


class Progress(Say):
    """Speaks for one run at a time. `noun` is what the rows are called; `err` moves everything to stderr; `brief`
    leaves out what a run says of its data and model."""

    def __init__(self, *, noun: str = "rows", err: bool = False, brief: bool = False) -> None:
        self.console, self.noun, self.brief = console(err=err), noun, brief
        self.live = self.console.is_terminal
        self.speaks = is_first()
        self.bars: Any = None
        self.tasks: dict[str, Any] = {}
        self.began: dict[str, float] = {}
        self.told: dict[str, int] = {}
        self.first: dict[str, list[float]] = {}
        self.latest: dict[str, deque[float]] = {}

    def line(self, label: str, text: str) -> None:
        """`  label     text`."""
        if self.speaks:
            (self.bars.console if self.bars else self.console).print(f"  {label:<{LABEL}} {text}", markup=False)

    # What the run says

    def note(self, text: str) -> None:
        if not self.brief:
            self.line("note", text)

    def warn(self, text: str) -> None:
        if self.speaks and self.bars:
            self.bars.console.print(f"warning: {text}", style="yellow", markup=False)
        else:
            warn(text)

    def data(self, about: dict[str, Any], train: int, validation: int) -> None:
        if self.brief:
            return
        parts = [f"{train:,} {self.noun} train"]
        parts += [f"{validation:,} validation"] if validation else []
        aside = {reason: n for reason, n in about.get("set_aside", {}).items() if n}
        if aside:
            parts.append(f"{sum(aside.values()):,} rows skipped: {', '.join(f'{n:,} {r}' for r, n in aside.items())}")
        cut = about.get("truncated", {})
        if cut.get("contexts") or cut.get("targets"):
            parts.append(f"truncated: {cut['contexts']:,} prompts, {cut['targets']:,} responses")
        self.line("data", f"{' · '.join(parts)}  ({about.get('source', '')})")

    @contextlib.contextmanager
    def working(self, name: str) -> Iterator[Callable[[int], None]]:
        if not (self.live and self.speaks):
            yield lambda n: None
            return
        with self.console.status(f"{name} …") as status:
            done = 0

            def count(n: int) -> None:
                nonlocal done
                done += n
                status.update(f"{name} … {done:,}")

            yield count

    def step(self, name: str, step: int, total: int, logs: dict[str, float]) -> None:
        if not self.speaks:
            return
        if name not in self.began or step < self.told.get(name, 0):
            self.began[name], self.told[name] = time.time(), 0
        figures = self._figures(logs)
        if self.live:
            self._bar(name, step, total, figures)
        elif step >= total or (step - self.told[name]) * PLAIN_LINES >= total:
            self.told[name] = step
            parts = [f"{step}/{total}", figures, clock(time.time() - self.began[name])]
            self.line(name, "  ".join(filter(None, parts)))

    def validated(self, step: int, metrics: dict[str, float]) -> None:
        parts = [f"{name.replace('_', ' ')} {_with_interval(name, metrics)}" for name in SHOWN if name in metrics]
        if "kl" in metrics:
            parts.append(f"kl {format_number(metrics['kl'], 3)}")
        rows = f"n = {int(metrics['rows']):,}" if "rows" in metrics else ""
        self.line("  held", f"step {step}: {' · '.join(parts)}  ({rows})")

    def done(self) -> None:
        if self.bars:
            self.bars.stop()
        self.bars, self.tasks = None, {}
        self.first.clear()
        self.latest.clear()
        self.began.clear()
        self.told.clear()

    # Parts

    def _figures(self, logs: dict[str, float]) -> str:
        """Accuracy where there is one, else the loss: the mean of the first steps and that of the latest."""
        name = next((n for n in SHOWN if n in logs), None)
        if name is None:
            return ""
        first, latest = self.first.setdefault(name, []), self.latest.setdefault(name, deque(maxlen=RECENT))
        latest.append(float(logs[name]))
        now = format_number(sum(latest) / len(latest), 2)
        if len(first) < RECENT:
            first.append(float(logs[name]))
            return f"{name} {now}"
        return f"{name} {format_number(sum(first) / len(first), 2)} → {now}"

    def _bar(self, name: str, step: int, total: int, figures: str) -> None:
        from rich import progress

        if self.bars is None:
            self.bars = progress.Progress(
                progress.TextColumn("  {task.description}", markup=False),
                progress.BarColumn(bar_width=24),
                progress.MofNCompleteColumn(),
                progress.TextColumn("{task.fields[figures]}", markup=False),
                progress.TimeElapsedColumn(),
                console=self.console,
            )
            self.bars.start()
        if name not in self.tasks:
            self.tasks[name] = self.bars.add_task(f"{name:<{LABEL}}", total=total, figures=figures)
        self.bars.update(self.tasks[name], completed=step, total=total, figures=figures)


def _with_interval(name: str, metrics: dict[str, float]) -> str:
    """`.58 ± .05`, from a value and its ends."""
    value = metrics[name]
    low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
    if low is None or high is None or low != low:
        return format_number(value, 2)
    return Estimate(value, low, high, 0).short()
