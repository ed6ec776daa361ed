"""Which figures an evaluation gets: what follows from its scores and verdicts, as far as there is something to draw."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..judging.agreement import agreement_matrix
from ..judging.position import games_by_order, position_report
from ..judging.statistics import Estimate, mean_interval
from ..judging.verdicts import Comparison, Judgement
from ..judging.win_rates import win_rate
from .charts import Chart
from .figures import Bar, bars, palette, shorten
from .matrices import MOST_CATEGORIES, MOST_JUDGES, MOST_SYSTEMS, agreement_heat, category_heat
from .scatter import Point, length_bins, length_effect, length_scatter
from .win_bars import position_strip, tally, win_bars

__all__ = ["Measure", "Scored", "agreements", "by_judge", "category_figure", "judge_figures", "result_figures"]

BARS = 12  # systems in one figure of win rates
EFFECTS = 4  # systems with a figure of lengths each


@dataclass(frozen=True, slots=True)
class Measure:
    """The axis of the headline: its `limits` (0 and 1, 1 and 10), and the value of no skill, where there is one."""

    limits: tuple[float, float] | None = None
    reference: float | None = None


@dataclass(frozen=True, slots=True)
class Scored:
    """A system as the figures need it."""

    name: str
    scores: Mapping[str, Estimate]
    categories: Mapping[str, Estimate]
    comparisons: Sequence[Comparison]
    judgements: Sequence[Judgement]


def by_judge(judgements: Sequence[Judgement]) -> dict[str, list[Judgement]]:
    """Judgements by judge, in order of first appearance."""
    found: dict[str, list[Judgement]] = {}
    for j in judgements:
        found.setdefault(j.judge, []).append(j)
    return found


def result_figures(systems: Sequence[Scored], measure: Measure) -> list[Chart]:
    """The headline by system, plain win rates over their counts, and what length has to do with them."""
    found = []
    headline = next((name for s in systems for name in s.scores), "")
    named = shorten(headline, 40)
    rows = [
        Bar(s.name, s.scores[headline], palette(i % 7, 7)[0]) for i, s in enumerate(systems) if headline in s.scores
    ]
    if rows:
        title = f"{named[:1].upper()}{named[1:]} by system"
        unit, frame = named, {"reference": measure.reference, "limits": measure.limits}
        svg = bars(rows[:BARS], key="headline", title=title, unit=unit, **frame)  # type: ignore[arg-type]
        found.append(Chart(title, svg, _rest(len(rows), BARS, "systems")))
    tallies = [
        tally(s.name if len(judged) == 1 else f"{s.name}, {judge}", win_rate([j.score for j in said]).rate, said)
        for s in systems
        for judged in [by_judge(s.judgements)]
        for judge, said in judged.items()
    ]
    if tallies:
        note = "Plain win rates. By order: the two games contradict each other, which counts as a tie."
        svg = win_bars(tallies[:BARS], key="wins", title="Verdicts by system")
        found.append(Chart("Verdicts by system", svg, f"{note} {_rest(len(tallies), BARS, 'rows')}".strip()))
    return found + _lengths(systems)


def _lengths(systems: Sequence[Scored]) -> list[Chart]:
    found, points, others = [], [], []
    for i, s in enumerate(systems):
        judged = by_judge(s.judgements)
        if not judged:
            continue
        said = {j.id: j.score for j in next(iter(judged.values()))}
        lengths = [(len(c.a), len(c.b)) for c in s.comparisons]
        rate = win_rate(list(said.values())).rate
        points.append(Point(s.name, mean_interval([a for a, _ in lengths]), rate))
        others += [b for _, b in lengths]
        ratios = length_bins([a for a, _ in lengths], [b for _, b in lengths], [said.get(c.id) for c in s.comparisons])
        if ratios.bins and i < EFFECTS:
            title = f"Length and verdicts, {s.name}" if len(systems) > 1 else "Length and verdicts"
            note = "Win rate in fifths of the ratio of lengths, over the single verdicts (spread to be seen)."
            if ratios.left_out:
                note += f" {ratios.left_out:,} left out: not read, or an empty response."
            found.append(Chart(title, length_effect(ratios, key=f"effect-{i}", title=title), note))
    drawn = points[:MOST_SYSTEMS]
    if len(drawn) > 1 and any(math.isfinite(p.rate.value) for p in drawn):
        svg = length_scatter(drawn, baseline=sum(others) / len(others), key="lengths", title="Length and win rate")
        found.insert(0, Chart("Length and win rate", svg, _rest(len(points), MOST_SYSTEMS, "systems")))
    return found


def category_figure(systems: Sequence[Scored], measure: Measure) -> tuple[Chart | None, dict[str, dict[str, Estimate]]]:
    """The headline by category and system as a heat map, and the numbers behind it: all of them, in order of n."""
    found: dict[str, dict[str, Estimate]] = {}
    for s in systems:
        for category, e in (s.categories or _by_category(s)).items():
            found.setdefault(category or "(none)", {})[s.name] = e
    ordered = sorted(found, key=lambda c: -max(e.n for e in found[c].values()))
    found = {c: found[c] for c in ordered}
    names = [s.name for s in systems if any(s.name in row for row in found.values())]
    if not found or (len(found) == 1 and len(names) == 1):
        return None, found
    shown = {c: found[c] for c in ordered[:MOST_CATEGORIES]}
    note = _rest(len(found), MOST_CATEGORIES, "categories, by size")
    note = f"{note} {_rest(len(names), MOST_SYSTEMS, 'systems')}".strip()
    title = "By category"
    svg = category_heat(shown, names[:MOST_SYSTEMS], key="categories", title=title, limits=measure.limits,
                        reference=measure.reference)  # fmt: skip
    return Chart(title, svg, note), found


def _by_category(s: Scored) -> dict[str, Estimate]:
    judged = by_judge(s.judgements)
    if not judged:
        return {}
    said = {j.id: j.score for j in next(iter(judged.values()))}
    scores: dict[str, list[float | None]] = {}
    for c in s.comparisons:
        if c.category and c.id in said:
            scores.setdefault(c.category, []).append(said[c.id])
    return {category: win_rate(found).rate for category, found in scores.items()}


def agreements(systems: Sequence[Scored]) -> dict[tuple[str, str], Estimate]:
    """Cohen's kappa of the outcomes of every two judges over all systems; {} for fewer than two judges."""
    said: dict[str, dict[tuple[str, str], str | None]] = {}
    for s in systems:
        for j in s.judgements:
            said.setdefault(j.judge, {})[(s.name, j.id)] = j.outcome
    judges = list(said)[:MOST_JUDGES]
    items = list(dict.fromkeys(item for judge in judges for item in said[judge]))
    if len(judges) < 2:
        return {}
    return agreement_matrix({judge: [said[judge].get(item) for item in items] for judge in judges})


def judge_figures(systems: Sequence[Scored], agreed: Mapping[tuple[str, str], Estimate]) -> list[Chart]:
    """How far the order of showing decides, and how far judges agree."""
    found = []
    judged = by_judge([j for s in systems for j in s.judgements])
    both = {
        judge: [j for j in said if {g.first for g in j.games} == {"a", "b"}]
        for judge, said in list(judged.items())[:MOST_JUDGES]
    }
    reports = {judge: position_report(*games_by_order(said)) for judge, said in both.items() if said}
    if reports:
        note = "Both games of each comparison. Biased: the advantage of being shown first is significant."
        svg = position_strip(reports, key="position", title="Does the order decide?")
        found.append(Chart("Does the order decide?", svg, note))
    judges = list(dict.fromkeys(judge for pair in agreed for judge in pair))
    if len(judges) > 2:  # of two, the table says it all
        svg = agreement_heat(judges, agreed, key="agreement", title="Agreement of the judges", unit="Cohen's kappa")
        note = f"0: no more than chance; 1: the same verdicts. {_rest(len(judged), MOST_JUDGES, 'judges')}".strip()
        found.append(Chart("Agreement of the judges", svg, note))
    return found


def _rest(n: int, most: int, what: str) -> str:
    return f"The first {most} of {n} {what}." if n > most else ""
