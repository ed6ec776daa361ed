"""What the cells of the SGA study hold, as numbers with intervals. See sga.py.

Intervals are over prompts; the rows of a prompt from several seeds stay together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sga_data import NAMES

from pluralign.judging.attributes import judge_sensing, win_rates
from pluralign.judging.fronts import evaluate_front, reference_point
from pluralign.judging.statistics import Estimate, bootstrap_interval, mean_interval

__all__ = [
    "LEVELS",
    "Facts",
    "Rows",
    "array",
    "by_lambda",
    "correlation",
    "fronts",
    "heard",
    "pick",
    "plain",
    "pooled",
    "rated",
    "rates",
    "sensing",
    "settings_of",
    "steerable",
    "steered",
]  # fmt: skip

LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
Rows = Sequence[Mapping[str, Any]]
Facts = Mapping[str, Any]


def pick(rows: Rows, method: str, sense: float | None = None) -> list[Mapping[str, Any]]:
    """The cells of a method, one a seed."""
    return [r for r in rows if r["method"] == method and r["sense"] == sense]


def array(values: Any) -> np.ndarray:
    """Nested lists with null for what is missing."""
    return np.array(values, dtype=np.float64)


def plain(table: np.ndarray) -> list[Any]:
    """JSON-ready, three decimals, null where a value is missing."""
    return [[None if x != x else round(x, 3) for x in row] for row in np.asarray(table, dtype=float).tolist()]


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
        return float(spearmanr(x[known], y[known])[0]) if np.ptp(y[known]) > 0 else 0.0

    return bootstrap_interval(np.arange(len(got), dtype=float), of, 500, seed=0, clusters=prompts)


def steerable(rows: Rows) -> dict[str, list[Mapping[str, Any]]]:
    names = dict.fromkeys(r["method"] for r in rows if "steer" in r)
    return {name: cells for name in names if (cells := pick(rows, name))}


def heard(cells: Rows) -> Estimate:
    """Nats that the right scores are worth to the likelihood of held-out responses; above 0: the policy reads them."""
    values = np.concatenate([array(c["heard"]) for c in cells])
    return mean_interval(values, clusters=list(range(len(values) // len(cells))) * len(cells))


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


def by_lambda(rows: Rows, facts: Facts) -> dict[float, list[Mapping[str, Any]]]:
    found = {r["sense"]: pick(rows, "SGA_SFT", r["sense"]) for r in rows if r["sense"] is not None}
    return dict(sorted((found | {facts["lambda"]: pick(rows, "SGA_SFT")}).items()))


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
