"""Blocks of docs/studies/sga.md on what is obeyed and what can be sensed. See sga_steer.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pages import fill, table
from sga_data import NAMES
from sga_numbers import LEVELS, Rows, array, heard, pick
from sga_worlds import LONGER, ONE_AUTHOR, RIVALS, RUNGS, TOLD

from pluralign.judging.attributes import judge_sensing
from pluralign.judging.statistics import Estimate, bootstrap_interval, paired_difference

__all__ = ["write_steer_page"]

TARGET = 0.5
ONE, THREE = "setting", LONGER  # rungs whose answers are shown level by level


def write_steer_page(rows: Rows, page: Path) -> None:
    """Put every block of these cells between its markers."""
    makers: dict[str, Callable[[Rows], str]] = {
        "obeyed-setup": setup, "obeyed": partial(table_obeyed, kind=ONE),
        "obeyed-others": partial(table_others, kind=ONE), "ladder": table_ladder,
        "obeyed-three": partial(table_obeyed, kind=THREE),
        "obeyed-three-others": partial(table_others, kind=THREE), "obeyed-rivals": table_rivals,
        "told": partial(table_told, kind="told"),
        "told-one": partial(table_told, kind=ONE_AUTHOR), "obeyed-verdict": verdict,
    }  # fmt: skip
    fill(page, {name: make(rows) for name, make in makers.items()})


def asked(cells: Rows, name: str) -> np.ndarray:
    """(seed * prompt, level, K): what was measured where `name` was set to each level."""
    return np.concatenate([array(c["steer"][name]).transpose(1, 0, 2) for c in cells])


def followed(cells: Rows, *names: str) -> Estimate:
    """Spearman's correlation of the requested and the measured score over responses, the mean over `names`.

    Prompts are resampled, the same for every attribute.
    """
    got = _by_prompt(cells, names)
    return bootstrap_interval(np.arange(len(got), dtype=float), lambda items: _mean(got, items), 500, seed=0)


def followed_more(cells: Rows, others: Rows) -> Estimate:
    """How much higher the mean correlation over all attributes is in `cells` than in `others`, on the same prompts."""
    ours, theirs = (_by_prompt(each, NAMES) for each in (cells, others))
    return bootstrap_interval(
        np.arange(len(ours), dtype=float), lambda items: _mean(ours, items) - _mean(theirs, items), 500, seed=0
    )


def _by_prompt(cells: Rows, names: Sequence[str]) -> np.ndarray:
    """(prompt, seed, level, name): what was measured of the attribute that was set."""
    got = np.stack([asked(cells, n)[:, :, NAMES.index(n)] for n in names], axis=2)
    return got.reshape(len(cells), -1, *got.shape[1:]).swapaxes(0, 1)


def _mean(got: np.ndarray, items: np.ndarray) -> float:
    """Over names, of the correlations over the prompts `items`."""
    drawn = got[items.astype(int)].reshape(-1, *got.shape[2:])
    return float(np.mean([_spearman(drawn[:, :, k]) for k in range(drawn.shape[2])]))


def _spearman(y: np.ndarray) -> float:
    """Of (responses, level) with the level; 0 where all responses are alike."""
    from scipy.stats import spearmanr

    x = np.broadcast_to(LEVELS, y.shape)
    known = ~np.isnan(y)
    return float(spearmanr(x[known], y[known])[0]) if np.ptp(y[known]) > 0 else 0.0


def _prompts(table: np.ndarray, cells: Rows) -> list[int]:
    return list(range(len(table) // len(cells))) * len(cells)


def setup(rows: Rows) -> str:
    cells = pick(rows, ONE)
    if not cells:
        return "Not run."
    one = cells[0]
    prompts = len(one["steer"][NAMES[0]][0])
    ends = ", ".join(f"`{n}` {a:.2f} to {b:.2f}" for n, (a, b) in one["ranges"].items())
    return (
        f"{len(cells)} seeds; {one['examples']:,} responses to imitate, {one['steps']} steps of 16; scales: {ends}. "
        f"Steering over {prompts} held-out prompts, {prompts * len(LEVELS)} responses an attribute and seed; nats "
        f"over {len(one['heard'])} held-out responses."
    )


def table_obeyed(rows: Rows, kind: str) -> str:
    cells = pick(rows, kind)
    if not cells:
        return "Not run."
    out = []
    for name in cells[0]["steer"]:
        means = np.nanmean(asked(cells, name)[:, :, NAMES.index(name)], axis=0)
        each = ", ".join(f"{followed([c], name).value:.2f}" for c in cells)
        out.append([name, followed(cells, name).short(), each, *(f"{m:.2f}" for m in means)])
    return table(["attribute", "Spearman", "by seed", "asked 0", ".25", ".5", ".75", "1"], out)


def table_others(rows: Rows, kind: str) -> str:
    cells = pick(rows, kind)
    if not cells:
        return "Not run."
    out = []
    for name in cells[0]["steer"]:
        got = asked(cells, name)
        moved = [
            paired_difference(got[:, -1, j], got[:, 0, j], clusters=_prompts(got, cells)) for j in range(len(NAMES))
        ]
        out.append([name, *(f"**{e.short()}**" if n == name else e.short() for n, e in zip(NAMES, moved, strict=True))])
    return table(["set from 0 to 1", *NAMES], out)


def table_ladder(rows: Rows) -> str:
    """The setting, and what is left of it where one thing is otherwise."""
    out = []
    for name, rung in RUNGS.items():
        if cells := pick(rows, name):
            parts = ["yes" if part else "no" for part in (rung.whole, rung.both, rung.begun)]
            told = [followed(cells, n).short() if n in rung.names else "not shown" for n in NAMES]
            out.append([name, str(len(rung.names)), str(cells[0]["steps"]), *parts, str(len(cells)), *told,
                        heard(cells).short()])  # fmt: skip
    head = ["", "attributes shown", "steps", "whole ratings", "both responses", "beginnings", "seeds", *NAMES,
            "own scores, nats"]  # fmt: skip
    return table(head, out) if out else "Not run."


def table_rivals(rows: Rows) -> str:
    """The longer setting, and rivals on the same rows and as many steps."""
    out = []
    for name in (LONGER, *RIVALS):
        if cells := pick(rows, name):
            each = [followed(cells, n).short() for n in NAMES]
            more = followed_more(pick(rows, LONGER), cells).short() if name != LONGER else ""
            out.append([name if name != LONGER else "SGA_SFT", str(len(cells)), *each, followed(cells, *NAMES).short(),
                        more, heard(cells).short()])  # fmt: skip
    head = ["method", "seeds", *NAMES, "mean of the three", "SGA_SFT minus it", "own scores, nats"]
    return table(head, out) if out else "Not run."


def r_squared(guess: np.ndarray, true: np.ndarray, prompts: Sequence[int]) -> Estimate:
    return _of(lambda g, _, t: _r2(g, t), guess, guess, true, prompts)


def _of(f: Callable[..., float], a: np.ndarray, b: np.ndarray, true: np.ndarray, prompts: Sequence[int]) -> Estimate:
    def of(items: np.ndarray) -> float:
        i = items.astype(int)
        return f(a[i], b[i], true[i])

    return bootstrap_interval(np.arange(len(true), dtype=float), of, 1000, seed=0, clusters=prompts)


def _r2(guess: np.ndarray, true: np.ndarray) -> float:
    return float(1 - ((guess - true) ** 2).sum() / ((true - true.mean()) ** 2).sum())


def _told(rows: Rows, kind: str) -> tuple[dict[str, np.ndarray], np.ndarray, list[int]]:
    """(guesses (seed * prompt, K) by who made them, what was measured, the prompt of each row)."""
    cells = pick(rows, kind)
    made = {
        "the head": [c["sensed"] for c in cells], "a ridge on the state it reads": [c["states"]["last"] for c in cells],
        "a ridge on the mean state": [c["states"]["mean"] for c in cells],
        "a ridge on TF-IDF": [c["ridge"] for c in cells],
    }  # fmt: skip
    true = np.concatenate([array(c["truth"]) for c in cells])
    return {n: np.concatenate([array(x) for x in each]) for n, each in made.items()}, true, _prompts(true, cells)


def table_told(rows: Rows, kind: str) -> str:
    cells = pick(rows, kind)
    if not cells:
        return "Not run."
    guesses, true, prompts = _told(rows, kind)
    head, *_, words = guesses
    found = judge_sensing(guesses[head], true, TOLD, constant=cells[0]["median"], clusters=prompts)
    out = []
    for k, name in enumerate(TOLD):
        gap = _of(lambda x, y, z: _r2(x, z) - _r2(y, z), guesses[head][:, k], guesses[words][:, k], true[:, k], prompts)
        each = [r_squared(g[:, k], true[:, k], prompts).short() for g in guesses.values()]
        out.append([name, *each, gap.short(), found[name].gain.short()])
    n = len(cells[0]["truth"])
    lead = (f"R squared on {n} held-out instructions, {cells[0]['trained_on']:,} to learn from, {len(cells)} seeds, "
            f"{cells[0]['steps']} steps of 16; in the last column the error of the training median less that of the "
            "head.")  # fmt: skip
    return f"{lead}\n\n{table(['attribute', *guesses, 'head less TF-IDF', 'less error than the median'], out)}"


def verdict(rows: Rows) -> str:
    lines = []
    for kind, shown in ((ONE, "one attribute"), (THREE, "three attributes")):
        if not (cells := pick(rows, kind)):
            continue
        est = {name: followed(cells, name) for name in cells[0]["steer"]}
        mean = _list(n for n, e in est.items() if e.value > TARGET)
        surely = _list(n for n, e in est.items() if e.low > TARGET)
        lines.append(f"Steering above {TARGET:g}, {shown} shown: {mean}; with the whole interval: {surely}")
    for kind, whose in (("told", "by many"), (ONE_AUTHOR, "by one author")):
        if not pick(rows, kind):
            continue
        guesses, true, prompts = _told(rows, kind)
        for word, guess in guesses.items():
            above = (n for k, n in enumerate(TOLD) if r_squared(guess[:, k], true[:, k], prompts).low > 0)
            lines.append(
                f"Sensing, answers {whose}, R squared above 0 with the whole interval, by {word}: {_list(above)}"
            )
    return "\n".join(f"* {line}." for line in lines) or "Not run."


def _list(names: Any) -> str:
    return ", ".join(names) or "none"
