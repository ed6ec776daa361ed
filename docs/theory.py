"""The numbers and figures of docs/theory.md, computed on finite worlds.

    python docs/theory.py            # print the blocks (about a minute), or those named: counter minimisers
    python docs/theory.py --write    # put them into docs/theory.md, and draw docs/figures/theory_*.svg
    python docs/theory.py --check    # fail where page or figures are not what the code computes

tests/theory/test_page.py checks all but the SLOW block.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pluralign.objectives import OBJECTIVES
from pluralign.theory import choice, invariance, tabular, transfer
from pluralign.theory.worlds import PSI, STEPPED, World, monotone, world

sys.path.insert(0, str(Path(__file__).parent))  # wherever this file is loaded from

import theory_intents

PAGE = Path(__file__).with_name("theory.md")
FIGURES = Path(__file__).with_name("figures")
WORLDS = 2000
SHOWN = ("separable", "thurstone", "unequal", "crowd", "contextual", "free")
SLOW = ("worth",)


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(c) for c in line) + " |" for line in lines)


def percent(mask: Any) -> str:
    share = 100 * float(np.mean(mask))
    return f"{share:.0f} %" if share in (0, 100) else f"{share:.1f} %"


def below(error: float) -> str:
    """A bound that processors agree on: the next power of ten, 1e-6 at the least."""
    return f"< 1e{max(-6, int(np.ceil(np.log10(error + 1e-300))))}"


# Proposition 3.1


def counter() -> str:
    rows = []
    for name, (first, second) in invariance.counter_scores().items():
        rows.append([name, f"{first:.2f}", f"{second:.2f}", "first" if first > second else "second"])
    return table(["Psi, reference", "first candidate", "second candidate", "pi-bar takes the"], rows)


def completions() -> str:
    """For which P(alternative a > alternative b) the candidates also beat the alternatives."""
    fits = []
    for thousandths in range(1, 1000):
        a = thousandths / 1000
        plain, skewed = invariance.counter_example(a), invariance.counter_example(a, invariance.SKEWED)
        made = [
            invariance.best_fixed(plain)[0],
            invariance.best_fixed(plain, PSI["log-odds"])[0],
            invariance.best_fixed(skewed)[0],
        ]
        if [m.nonzero()[0].tolist() for m in made] == [[1], [0], [0]]:
            fits.append(a)
    return f"As printed for P(a > b) from {min(fits):.3f} to {max(fits):.3f}, of the thousandths between 0 and 1."


# Theorem 3.2


@cache
def family(name: str, responses: int) -> tuple[World, invariance.Comparison]:
    made = world(np.random.default_rng(7), name, WORLDS, responses)
    return made, invariance.compare(made)


def moves(made: World, best: Callable[..., Any]) -> Any:
    """(X,): whether the set of best responses changes with any of the Psi or with the reference."""
    rng = np.random.default_rng(8)
    others = [made.under(world(rng, "separable", len(made.prompts), made.reference.shape[1]).reference) for _ in "ab"]
    psis = [*PSI.values(), *(monotone(rng) for _ in range(4))]
    first = best(made)
    changed = np.zeros(len(made.prompts), dtype=bool)
    for w in (made, *others):
        for psi in psis:
            changed |= (best(w, psi) != first).reshape(len(changed), -1).any(axis=1)
    return changed


def superiority() -> str:
    rows = []
    for name in SHOWN:
        made, c = family(name, 8)
        shares = (moves(made, invariance.best_fixed), moves(made, invariance.best_replies), ~c.common)
        values = (f"{v.mean():.3f}" for v in (c.forgotten, c.bar, c.star))
        rows.append([name, *map(percent, shares), *values])
    head = ["worlds", "pi-bar moves", "pi\\* moves", "V(pi\\*) > V(pi-bar)"]
    return table([*head, "V(pi\\* forgetting y')", "V(pi-bar)", "V(pi\\*)"], rows)


def readings() -> str:
    """What becomes of the theorem without strict increase, and without y = z."""
    made = family("contextual", 8)[0]
    strict, shares = invariance.best_replies(made), []
    for name, psi in STEPPED.items():
        flat = invariance.best_replies(made, psi)
        assert flat[strict].all(), "a non-decreasing Psi loses no best reply"
        shares.append(f"{name} {percent((flat & ~strict).any(axis=1))}")
    lost = [percent(value < c.bar - 1e-12) for value, c in map(_without_repeats, ("separable", "contextual"))]
    return (
        f"Alternatives with more best replies under Psi without strict increase (contextual): {', '.join(shares)}.\n"
        f"Worlds where a pi\\* that must not repeat y' falls below pi-bar: separable {lost[0]}, contextual {lost[1]}."
    )


def _without_repeats(name: str) -> tuple[Any, invariance.Comparison]:
    """(V of the best reply that is not y' itself, the comparison), per world."""
    made, c = family(name, 8)
    others = np.where(np.eye(8, dtype=bool), -np.inf, made.preference)
    return (others.max(axis=1) * made.reference).sum(1), c


def temperature() -> str:
    made = family("contextual", 8)[0]
    other = made.under(np.random.default_rng(9).dirichlet(np.ones(8), size=WORLDS) * 0.8 + 0.2 / 8)
    best, rows = invariance.best_replies(made), []
    for beta in (1.0, 0.1, 0.01):
        made_by = {
            (r, p): choice.gibbs(w.reference, invariance.transformed(w, PSI[p]), beta)
            for r, w in (("one", made), ("other", other))
            for p in ("identity", "log-odds")
        }
        apart = lambda a, b, of=made_by: (np.abs(of[a] - of[b]).sum(1) / 2).mean()
        first = made_by["one", "log-odds"].argmax(1)
        hit = np.take_along_axis(best, first[:, None, :], axis=1)
        rows.append(
            [
                f"{beta:g}",
                f"{apart(('one', 'identity'), ('one', 'log-odds')):.2f}",
                f"{apart(('one', 'log-odds'), ('other', 'log-odds')):.2f}",
                percent(hit),
            ]
        )
    return table(["beta", "distance between two Psi", "between two references", "most likely y is a best reply"], rows)


# Theorem 4.1


def allowed() -> str:
    made = {n: family("separable", n)[0] for n in (2, 4, 8)}
    rows = [[n, *(percent(choice.admissible(w, b)) for b in (0.1, 1.0, 10.0))] for n, w in made.items()]
    bound = {n: choice.strength_bound(np.full((1, n), 1 / n), 0.1)[0] for n in (100, 10_000)}
    says = " and ".join(f"{1 / (1 + np.exp(-v)):.4f} (for {n:,} equally likely responses)" for n, v in bound.items())
    least = min(float(choice.excess(family(name, 4)[0], b).min()) for name in SHOWN for b in (0.1, 1.0, 10.0))
    shown = table(["responses", "beta = 0.1", "beta = 1", "beta = 10"], rows)
    return (
        f"{shown}\n\nAt beta = 0.1 the log-odds are, in root mean square, at most those of a preference of "
        f"{says}.\nWith y = z included, worlds of 4 responses that fit: {'none' if least > 0 else 'some'}."
    )


@cache
def recovered(beta: float) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    made = choice.admissible_world(rng, 6, 4, beta)
    r = choice.reward(made, beta, rng.normal(size=(6, 4)))
    exact = choice.gibbs(made.reference, r, beta)
    odds = 2 * choice.half_log_odds(made)
    fitted, loss = tabular.fit_objective(made, beta=beta)
    mimic = tabular.mimic(made, beta)
    off = lambda p: np.abs(tabular.margins(made, p, beta) - odds).max()
    worth = lambda p: float(made.prompts @ invariance.value(made, p))
    return {
        "seven": np.abs(tabular.fit_regularised(made, r, beta) - exact).max(),
        "loss": abs(loss - tabular.least_loss(made)),
        "margin": off(fitted),
        "raw": np.abs(fitted - exact).max(),
        "clean": np.abs(tabular.antisymmetrised(made, fitted) - exact).max(),
        "mimic": off(mimic),
        "values": [worth(p) for p in (exact, fitted, mimic)],
    }


def minimisers() -> str:
    both = [recovered(b) for b in (1.0, 0.1)]
    line = lambda what, key: [what, *(below(m[key]) for m in both)]
    rows = [
        line("(7) maximised numerically, from (11)", "seven"),
        line("loss of (10) at its minimum, from the entropy of the labels", "loss"),
        line("fitted margin, from the log-odds", "margin"),
        ["fitted policy itself, from (11)", *(f"{m['raw']:.2f}" for m in both)],
        line("fitted policy made antisymmetric, from (11)", "clean"),
        line("margins of the policy that repeats y', from the log-odds", "mimic"),
    ]
    shown = table(["largest difference", "beta = 1", "beta = 0.1"], rows)
    three = ", ".join(f"{v:.3f}" for v in both[0]["values"])
    return f"{shown}\n\nWin rate V at beta = 1 of (11), of the fitted policy, of the one that repeats y': {three}."


# Transfer


@cache
def courses(objective: str) -> dict[str, transfer.Course]:
    torch.set_num_threads(1)
    s = transfer.setting(1, circular=1.0)
    made = {p: transfer.train(s, p, objective) for p in transfer.POLICIES}
    return {**made, "plain": transfer.train(s, "shared", objective, conditioned=False)}


def carried() -> str:
    rows = []
    for name in (n for n in transfer.TABLE_1 if n in OBJECTIVES):
        c = courses(name)
        held = [f"{round(c[p].held_alone[-1], 2) + 0.0:.2f}" for p in ("reply", "shared", "both", "plain")]
        seen = [f"{c[p].sighted[-1]:.2f}" for p in ("tabular", "reply")]
        rows.append([f"`{name}`", *seen, f"{c['tabular'].moved:.0f} (exact)", *held])
    head = ["objective", "tabular, seeing y'", "g only, seeing y'", "tabular", "g only", "f only", "f and g"]
    return table([*head, "no conditioning"], rows)


def worth() -> str:
    torch.set_num_threads(1)
    rows = []
    for circular in (0.0, 1.5, 3.0):
        values = []
        for seed in range(40):
            s = transfer.setting(seed, circular=circular, prompts=48)
            plain = transfer.train(s, "shared", "dpo", conditioned=False)
            best = (np.einsum("xyz,xz->xy", s.held_out.preference, s.held_out.reference)).max(1).mean()
            values.append((plain.value, transfer.train(s, "both", "dpo").value, float(best)))
        v = np.array(values)
        d = v[:, 1] - v[:, 0]
        mean = [f"{m:.3f}" for m in v.mean(0)]
        rows.append([f"{circular:g}", *mean, f"{d.mean():+.4f} ± {2.02 * d.std(ddof=1) / np.sqrt(len(d)):.4f}"])
    return table(["interaction", "DPO", "INS-DPO (f and g)", "V(pi-bar)", "difference, 95 % interval"], rows)


MAKERS: dict[str, Callable[[], str]] = {
    f.__name__: f
    for f in (counter, completions, superiority, readings, temperature, allowed, minimisers, carried, worth)
}
MAKERS |= {name: lambda make=make: table(*make()) for name, make in theory_intents.MAKERS.items()}  # type: ignore[misc]

# Figures


def gaps() -> tuple[Any, dict[str, Any]]:
    """The share of worlds whose advantage is at most so large, by family."""
    at = np.linspace(0, 0.35, 71)
    lines = {name: (family(name, 8)[1].gap[:, None] <= at + 1e-12).mean(0) for name in SHOWN}

    def draw(ax: Any, colours: Sequence[str]) -> None:
        flat = [n for n in SHOWN if lines[n][0] == 1]
        for name, y in lines.items():
            if name not in flat:
                ax.plot(at, y, color=colours[SHOWN.index(name)], label=name)
        ax.plot(at, np.ones_like(at), color=colours[0], linestyle=(0, (4, 2)), label=" and ".join(flat))
        ax.set_ylim(0, 1.04)
        ax.set_title("share of worlds with an advantage of at most ...")
        ax.set_xlabel("V(π*) − V(π̄), win rate against the reference")
        ax.legend(loc="lower right")

    return [draw], {name: y[::10] for name, y in lines.items()}


def curves() -> tuple[Any, dict[str, Any]]:
    """Margins of INS-DPO in the sight of the alternative, and without it."""
    c = courses("dpo")
    names = {
        "tabular": "tabular",
        "reply": "g only",
        "shared": "f only",
        "both": "f and g",
        "plain": "DPO, no conditioning",
    }

    def panel(title: str, of: Callable[[str], Any], legend: bool) -> Callable[[Any, Sequence[str]], None]:
        def draw(ax: Any, colours: Sequence[str]) -> None:
            for i, (name, label) in enumerate(names.items()):
                dash = (0, (4, 2)) if name in ("plain", "tabular") else "-"
                ax.plot(of(name), color=colours[i], label=label, linestyle=dash, zorder=4 if name == "tabular" else 3)
            ax.set_title(title)
            ax.set_xlabel("step")
            if legend:
                ax.legend(loc="upper left")

        return draw

    seen: Callable[[str], Any] = lambda n: c[n].held_sighted
    alone: Callable[[str], Any] = lambda n: c[n].held_alone
    draws = [
        panel("margin in the sight of y', nats", seen, True),
        panel("margin at the prompt alone, nats", alone, False),
    ]
    return draws, {n: np.concatenate([seen(n)[::30], alone(n)[::30]]) for n in names}


PICTURES: dict[str, tuple[Callable[[], tuple[Any, dict[str, Any]]], str]] = {
    "gap": (gaps, "How much a policy gains by seeing the alternative, over random worlds"),
    "transfer": (curves, "What is learned in the sight of the alternative, with it and without it"),
    "lambda": (theory_intents.over_lambda, "The loss of three data sets as lambda grows"),
}


def picture(name: str) -> tuple[str, dict[str, list[float]]]:
    """(SVG, the values it shows). The values also stand in its description, for readers that cannot see it."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    from pluralign.reports import figures

    make, title = PICTURES[name]
    draws, data = make()
    shown = {k: [round(float(x), 4) for x in v] for k, v in data.items()}
    sheet = Path(figures.__file__).with_name("page.css").read_text("utf-8")
    ink = dict(reversed(re.findall(r"--(\w+): (#\w{6})", sheet)))  # the first of each name: the light colours
    settings: Any = {k: v for k, v in mpl.rcParamsDefault.items() if not k.startswith("backend")}
    with mpl.rc_context(settings | figures.STYLE | {"svg.hashsalt": name, "legend.fontsize": 9}):
        fig = Figure(figsize=(4.2 * len(draws) + (1.2 if len(draws) == 1 else 0), 3.2), layout="constrained")
        axes = fig.subplots(1, len(draws), squeeze=False, sharey=True)[0]
        for ax, draw in zip(axes, draws, strict=True):
            draw(ax, [ink[c] for c in ("s1", "s0", "s2", "s3", "s4", "s5")])
        buffer = io.StringIO()
        FigureCanvasSVG(fig).print_svg(buffer, metadata={"Date": None, "Creator": None})
    text = re.sub(r"<metadata>.*?</metadata>", "", buffer.getvalue(), flags=re.DOTALL)
    for key, placeholder in figures.PLACEHOLDERS.items():
        text = text.replace(placeholder, ink[key])
    head = (
        f'<title>{title}</title>\n<desc>{json.dumps(shown)}</desc>\n<rect width="100%" height="100%" fill="#ffffff"/>'
    )
    text = re.sub(r"(<svg[^>]*>)", lambda m: f"{m[1]}\n{head}", text, count=1)
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n", shown


# The page


def blocks(names: Iterable[str] = MAKERS) -> dict[str, str]:
    return {name: MAKERS[name]() for name in names}


def on_page(text: str) -> dict[str, str]:
    return dict(re.findall(r"<!-- theory:(\w+) -->\n(.*?)\n<!-- /theory -->", text, flags=re.S))


NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")


def near(shown: str, made: str) -> bool:
    """The words exactly, the numbers as far as processors agree."""
    a, b = ([float(x) for x in NUMBER.findall(t)] for t in (shown, made))
    return NUMBER.sub("#", shown) == NUMBER.sub("#", made) and bool(np.allclose(a, b, rtol=0.02, atol=0.011))


def stale(names: Iterable[str] = MAKERS) -> list[str]:
    """Names of the blocks and figures that are not what the code computes."""
    page = on_page(PAGE.read_text("utf-8"))
    out = [name for name, made in blocks(names).items() if not near(page.get(name, ""), made)]
    for name in PICTURES:
        file = FIGURES / f"theory_{name}.svg"
        told = re.search(r"<desc>(.*?)</desc>", file.read_text("utf-8")) if file.is_file() else None
        made = json.dumps(picture(name)[1])
        if told is None or not near(told[1], made):
            out.append(file.name)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "names", nargs="*", choices=[*MAKERS, []], metavar="block", help="the blocks to print, all if none"
    )
    parser.add_argument("--write", action="store_true", help="renew docs/theory.md and its figures")
    parser.add_argument("--check", action="store_true", help="fail where they are out of date")
    given = parser.parse_args()
    if given.check:
        if wrong := stale():
            raise SystemExit(f"out of date: {', '.join(wrong)}. Renew with: python docs/theory.py --write")
        return
    if not given.write:
        for name in given.names or MAKERS:
            print(f"--- {name}\n{MAKERS[name]()}\n", flush=True)
        return
    made = blocks()
    page = PAGE.read_text("utf-8")
    for name, text in made.items():
        pattern = rf"(<!-- theory:{name} -->\n).*?(<!-- /theory -->)"
        page, found = re.subn(pattern, lambda m, t=text: f"{m[1]}{t}\n{m[2]}", page, flags=re.S)
        if found != 1:
            raise SystemExit(f"{PAGE.name} has {found} blocks theory:{name}, not one.")
    PAGE.write_text(page, "utf-8")
    FIGURES.mkdir(exist_ok=True)
    for name in PICTURES:
        (FIGURES / f"theory_{name}.svg").write_text(picture(name)[0], "utf-8")


if __name__ == "__main__":
    main()
