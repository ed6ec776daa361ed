"""The numbers and the figure of the A-IPO part of docs/theory.md; docs/theory.py prints and checks them.

Every block is (head of a table, its rows), drawn from fixed seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pluralign.theory import intents, intents_bounds

Table = tuple[Sequence[str], list[list[str]]]
PAIRS, DRAWS = 2000, 2000


def share(mask: Any) -> str:
    value = 100 * float(np.mean(mask))
    return f"{value:.0f} %" if value in (0, 100) else f"{value:.1f} %"


def logit(q: float) -> float:
    return math.log(q / (1 - q))


def shift() -> Table:
    """Lemma D.1, Corollaries D.1 and D.2: lambda just above the printed bound, by the sign of dsim."""
    rng = np.random.default_rng(0)
    base, size = rng.normal(size=PAIRS), rng.uniform(0.05, 1, size=PAIRS)
    rows = []
    for name, margin in (
        ("right at all (D.1)", 0.0),
        ("margin 0.5 (Cor. D.1)", 0.5),
        ("0.8 likely (Cor. D.2)", logit(0.8)),
    ):
        cells = []
        for sign in (1, -1):
            dsim = sign * size
            lam = np.maximum((margin - base) / dsim, 0) + 1e-3  # the corollaries' bound; the lemma's for dsim > 0
            cells.append(share(base + lam * dsim >= margin))
        reach = [intents.lambdas(float(b), float(d), margin)[0] for b, d in zip(base, size, strict=True)]
        rows.append([name, *cells, f"{np.median(reach):.2f}", share(np.array(reach) <= 0.5)])
    head = ["wanted", "dsim > 0: reached", "dsim < 0: reached", "median lambda needed", "needing at most 0.5"]
    return head, rows


def conventions() -> Table:
    """Log-odds of one pair, and the gap of log-ratios at which a preference of 0.9 is fitted."""
    rows = []
    for lam in (0.1, 0.2, 0.5):
        cells = []
        for convention in ("rewards", "rewards over beta"):
            move = intents.log_odds(np.array(0.0), np.array(1.0), 0.1, lam, convention)  # type: ignore[arg-type]
            scale = 0.1 if convention == "rewards" else 1.0
            cells += [f"{float(move):.1f}", f"{(logit(0.9) - float(move)) / scale:.2f}"]
        rows.append([f"{lam:g}", *cells])
    head = ["lambda", "Eq. 9: shift", "gap fitted", "Cor. D.3: shift", "gap fitted"]
    return head, rows


def data_set(rng: np.random.Generator, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """(base, dsim) of 50 pairs. All have a mean dsim of at least 0; `kind` says how they come by it."""
    while True:
        base = rng.normal(size=50)
        if kind == "every dsim at least 0":
            return base, rng.uniform(0, 0.4, size=50)
        dsim = np.clip(rng.normal(0.05, 0.3, size=50), -1, 1)
        if kind == "larger where the policy is right":
            dsim = np.clip(dsim + 0.15 * base, -1, 1)
        if dsim.mean() >= 0:
            return base, dsim


KINDS = ("every dsim at least 0", "of both signs", "larger where the policy is right")


def datasets() -> Table:
    """Theorem 5.3's second half."""
    rows = []
    for kind in KINDS:
        rng = np.random.default_rng(1)
        sets = [data_set(rng, kind) for _ in range(500)]
        falls = [intents.nonincreasing(d) for _, d in sets]
        grows = [intents.slope(b, d, 0.0) > 0 for b, d in sets]
        best = [intents.best_lambda(b, d, 100.0) for b, d in sets]
        worse = [intents.dataset_nll(b, d, 5.0) > intents.dataset_nll(b, d, 0.0) for b, d in sets]
        median = "none" if all(falls) else f"{np.median(best):.2f}"
        rows.append([kind, share(falls), share(grows), median, share(worse)])
    head = ["data sets of 50 pairs", "never grows", "grows at once", "median best lambda", "worse at 5 than at 0"]
    return head, rows


def carries() -> Table:
    """Theorem 5.1: the policy that Eq. 10 fits, and how similar to the intent what it says is."""
    rng = np.random.default_rng(2)
    sim, noise = rng.random((20, 6)), rng.normal(size=(20, 6))
    reward = 2 * sim + noise  # people do want the intent
    reference = 0.8 * rng.dirichlet(np.ones(6), size=20) + 0.2 / 6
    rows = []
    for lam in (0.0, 0.5, 2.0, 4.0):
        policy, _ = intents.tilted(reward, sim, reference, 1.0, lam)
        off = np.abs(intents.fit_pairs(reward[:2], sim[:2], reference[:2], 1.0, lam) - policy[:2]).max()
        slope = intents.sim_slope(policy, sim, 1.0).mean()
        rows.append([
            f"{lam:g}", "< 1e-5" if off < 1e-5 else f"{off:.0e}", f"{(policy * sim).sum(-1).mean():.3f}",
            f"{slope:.3f}", f"{(policy * reward).sum(-1).mean():.3f}",
        ])  # fmt: skip
    return ["lambda", "fit from the closed form", "E[sim] of the policy", "its slope", "E[r] of the policy"], rows


def risk() -> Table:
    """Lemma 5.1 and Theorem 5.2: what knowing the intent is worth, exactly and from a table of labels."""
    rng = np.random.default_rng(3)
    rows = []
    for name, spread in (
        ("opposed intents (.9 and .1)", 0.4),
        ("intents that differ (.7 and .5)", 0.1),
        ("no difference", 0.0),
    ):
        middle = {0.4: 0.5, 0.1: 0.6, 0.0: 0.8}[spread]
        p = (middle + spread, middle - spread)
        exact = intents.gain(np.array([[[x / 2, (1 - x) / 2] for x in p]]))
        cells = [f"{exact:+.3f}"]
        for n in (4, 20, 100):
            apart = np.mean([intents.estimated_log_loss(x, n // 2) for x in p])
            cells.append(f"{_pooled(p, n) - apart:+.3f}")
        rows.append([name, *cells])
    worlds = [intents.gain(rng.dirichlet(np.ones(24)).reshape(2, 4, 3)) for _ in range(DRAWS)]
    rows.append([f"smallest of {DRAWS:,} random worlds", f"{min(worlds):+.3f}", "", "", ""])
    return ["log loss saved by knowing the intent, nats", "exact", "4 labels", "20 labels", "100 labels"], rows


def _pooled(p: tuple[float, float], n: int) -> float:
    """Expected log loss where the n labels, half of each intent, are counted together."""
    half = n // 2
    k = np.arange(half + 1)
    odds = [np.array([math.comb(half, int(i)) for i in k]) * x**k * (1 - x) ** (half - k) for x in p]
    at = (k[:, None] + k[None, :] + 1) / (2 * half + 2)
    mean = sum(p) / 2
    return float((np.outer(odds[0], odds[1]) * (-mean * np.log(at) - (1 - mean) * np.log1p(-at))).sum())


def bounds() -> Table:
    """Eq. 3, 9 and 10: how often each is a bound, over random posteriors."""
    rng = np.random.default_rng(4)
    drawn = [
        (rng.dirichlet(np.ones(4)), rng.dirichlet(np.ones(4)), 1 / (1 + np.exp(-3 * rng.normal(size=4))))
        for _ in range(DRAWS)
    ]
    rows = []
    for name, gamma in (("1 (Eq. 3)", 1.0), ("0.1", 0.1), ("0.01 (swept)", 0.01), ("0 (Eq. 9, swept)", 0.0)):
        value = np.array([intents_bounds.elbo(q, prior, p, gamma) for q, prior, p in drawn])
        under_prior = value <= np.array([intents_bounds.log_mixture(prior, p) for _, prior, p in drawn]) + 1e-12
        under_q = value <= np.array([intents_bounds.log_mixture(q, p) for q, _, p in drawn]) + 1e-12
        rows.append([name, share(under_prior), share(under_q)])
    return ["gamma", "below log E_prior[sigma]", "below log E_q[sigma]"], rows


def surrogate() -> Table:
    """Appendix E: one label, two intents as likely whose sigma are 1 - e and e."""
    rows = []
    q, s = np.array([0.5, 0.5]), np.ones(1)
    for e in (0.5, 0.1, 0.001):
        p = np.array([[1 - e], [e]])
        values = intents_bounds.bce_at_mean(q, p, s), intents_bounds.expected_bce(q, p, s)
        rows.append([f"{e:g}", *(f"{v:.3f}" for v in values)])
    return ["e", "BCE at the mean (Eq. 5)", "expected BCE (ELBO)"], rows


def limits() -> Table:
    """Appendix B.1: Eq. 24 and 25 for sigma .9 and .1, with more and more people of the first intent."""
    rows = []
    for majority in (0.5, 0.9, 0.99):
        c = intents_bounds.cases(-np.log(np.array([0.9, 0.1])), np.array([majority, 1 - majority]))
        _, q = intents_bounds.inner_minimum(-np.log(np.array([0.9, 0.1])), np.array([majority, 1 - majority]))
        rows.append([f"{majority:g}", *(f"{x:.3f}" for x in (c.best, c.intent, c.average, c.worst)), f"{q[1]:.3f}"])
    return ["majority", "best intent", "A-IPO (Eq. 24)", "average", "worst intent", "q of the minority"], rows


MAKERS: dict[str, Callable[[], Table]] = {
    f.__name__: f for f in (shift, conventions, datasets, carries, risk, bounds, surrogate, limits)
}


def over_lambda() -> tuple[Any, dict[str, Any]]:
    """The NLL of one data set of each kind over lambda."""
    at = np.linspace(0, 6, 61)
    lines = {}
    for kind in KINDS:
        base, dsim = data_set(np.random.default_rng(7), kind)
        lines[kind] = np.array([intents.dataset_nll(base, dsim, x) for x in at])

    def draw(ax: Any, colours: Sequence[str]) -> None:
        for i, (kind, y) in enumerate(lines.items()):
            ax.plot(at, y, color=colours[i], label=kind)
        ax.set_title("−log σ(Δ_base + λ Δsim), mean of 50 pairs, nats")
        ax.set_xlabel("λ")
        ax.set_ylim(0.3, 1.6)
        ax.legend(loc="upper left")

    return [draw], {kind: y[::10] for kind, y in lines.items()}
