"""An evaluation as one self-contained page: scores, figures, how far the judges can be trusted, and every verdict.

It takes plain data (names, estimates, comparisons with their judgements, a manifest) and knows nothing of the
benchmark they came from. Scores are the caller's; what follows from the verdicts alone (counts, plain win rates, bias
of position, agreement of judges) is computed here with the functions of `judging`.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..errors import SettingsError
from ..judging.statistics import Estimate, share_interval
from ..judging.verdicts import Comparison, Judgement, Rating, Subject
from .charts import Chart
from .evaluation_charts import Measure, Scored, agreements, by_judge, category_figure, judge_figures, result_figures
from .figures import shorten
from .files import write_atomically
from .page import Card, Table, render
from .verdict_browser import KINDS, browser, compared, cut, rated, visible
from .win_bars import tally
from .wording import details, flatten, short, show

__all__ = ["Measure", "System", "evaluation_page", "write_evaluation"]

CASES, ENTRIES, VALUE = 300, 200, 2000  # shown of each: cases, entries of the manifest, characters of one


@dataclass(frozen=True, slots=True)
class System:
    """One system that was evaluated.

    `scores`: estimates by name, the headline first (a paired difference is one of them); `categories`: the headline by
    category, computed as plain win rates where it is not given and comparisons have categories. `comparisons` with
    `judgements` or `subjects` with `ratings` are what the browser shows, by any number of judges.
    """

    name: str
    scores: Mapping[str, Estimate] = field(default_factory=dict)
    categories: Mapping[str, Estimate] = field(default_factory=dict)
    comparisons: Sequence[Comparison] = ()
    judgements: Sequence[Judgement] = ()
    subjects: Sequence[Subject] = ()
    ratings: Sequence[Rating] = ()


def write_evaluation(path: str | Path, title: str, systems: Sequence[System], **options: Any) -> Path:
    """The page of `evaluation_page` with the same options, written all at once; returns its path."""
    return write_atomically(Path(path), evaluation_page(title, systems, **options))


def evaluation_page(
    title: str,
    systems: Sequence[System],
    *,
    on: str = "",
    baseline: str = "",
    measure: Measure | None = None,
    facts: Sequence[str] = (),
    charts: Sequence[Chart] = (),
    manifest: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    most: int = CASES,
) -> str:
    """The page as HTML text: the same data give the same bytes.

    `on`: what was judged (a benchmark, how many prompts); `baseline`: whose answers are the other side of every
    comparison; `measure`: the axis of the headline (by default the win rate's where there are comparisons); `charts`:
    further figures (length-controlled curves, calibration); `most`: cases in the browser, the rest is counted. Every
    text is escaped and cut to a size that a page holds. Raises SettingsError for two systems of one name, RecordError
    where verdicts and items do not belong together.
    """
    twice = next((s.name for i, s in enumerate(systems) if s.name in {o.name for o in systems[:i]}), None)
    if twice is not None:
        raise SettingsError(f'two systems are called "{twice}".', remedy="Give each a name of its own.")
    scored = [Scored(s.name, s.scores, s.categories, s.comparisons, s.judgements) for s in systems]
    if measure is None:
        measure = Measure((0.0, 1.0), 0.5) if any(s.comparisons for s in systems) else Measure()
    cases = [
        case
        for s in systems
        for case in (
            *compared(s.name, s.comparisons, s.judgements, baseline or "baseline"),
            *rated(s.name, s.subjects, s.ratings),
        )
    ]
    category_chart, categories = category_figure(scored, measure)
    agreed = agreements(scored)
    entries = list(flatten(manifest or {}).items())
    page = render(
        "evaluation.html.j2",
        title=shorten(title, 120),
        on=shorten(on, 200),
        facts=[cut(f, VALUE) for f in (*facts, *([f"against {baseline}"] if baseline else []))],
        notes=[cut(n, VALUE) for n in notes],
        cards=_cards(systems),
        scores=_scores(systems),
        charts=[*result_figures(scored, measure), *charts],
        category_chart=category_chart,
        categories=_categories(categories, systems),
        judges=_judges(systems),
        agreement=Table(("judges", "Cohen's kappa"), tuple((f"{a} and {b}", e) for (a, b), e in agreed.items())),
        judge_charts=judge_figures(scored, agreed),
        browser=browser(cases, most),
        kinds=KINDS,
        manifest=[(shorten(k, 80), cut(show(v), VALUE)) for k, v in entries[:ENTRIES]],
        manifest_left_out=max(0, len(entries) - ENTRIES),
        script=_script()[0],
        digest=_script()[1],
    )
    return visible(page)


@cache
def _script() -> tuple[Any, str]:
    """The page's script, and the digest by which its security policy knows it: no other script runs."""
    from markupsafe import Markup

    text = files(__package__).joinpath("verdicts.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return Markup(text), f"sha256-{digest}"


def _cards(systems: Sequence[System]) -> list[Card]:
    """The headline of each system."""
    found = []
    for i, s in enumerate(systems[:8]):
        name = next(iter(s.scores), None)
        if name is not None:
            e = s.scores[name]
            found.append(Card(f"{shorten(s.name, 40)}: {name}", short(e), details(e), f"s{i % 7 + 1}"))
    return found


def _scores(systems: Sequence[System]) -> Table:
    names = list(dict.fromkeys(name for s in systems for name in s.scores))
    levels = {e.level for s in systems for e in s.scores.values() if e.has_interval}
    methods = sorted({e.method for s in systems for e in s.scores.values() if e.method})
    caption = ", ".join([*(f"{100 * level:g} % intervals" for level in levels if len(levels) == 1), "; ".join(methods)])
    rows = tuple((s.name, *(s.scores.get(n) for n in names)) for s in systems)
    return Table(("system", *names), rows, caption.strip(", "))


def _categories(found: Mapping[str, Mapping[str, Estimate]], systems: Sequence[System]) -> Table | None:
    names = [s.name for s in systems if any(s.name in row for row in found.values())]
    rows = tuple((category, *(row.get(n) for n in names)) for category, row in found.items())
    return Table(("category", *names), rows) if rows else None


def _judges(systems: Sequence[System]) -> Table:
    """What each judge said of each system, counted: nothing that was asked is missing from a row."""
    rows: list[tuple[str | Estimate | None, ...]] = []
    nothing = Estimate(math.nan, math.nan, math.nan, 0)
    for s in systems:
        for judge, said in by_judge(s.judgements).items():
            t = tally(s.name, nothing, said)
            same = share_interval([j.consistent for j in said if len(j.games) > 1])
            counts = [t.wins, t.ties, t.split, t.losses, t.unread, len(s.comparisons) - len(said)]
            rows.append(
                (f"{judge}, of {s.name}", *(f"{n:,}" for n in counts), same if same.n or same.missing else None)
            )
        for judge in dict.fromkeys(r.judge for r in s.ratings):
            scores = [r.score for r in s.ratings if r.judge == judge]
            unread = scores.count(None)
            counts_of = (None, None, None, None, f"{unread:,}", f"{len(s.subjects) - len(scores):,}")
            rows.append((f"{judge}, of {s.name}", *counts_of, None))
    heads = ("judge", "won", "tied", "order decided", "lost", "not read", "not judged", "same both ways")
    return Table(heads, tuple(rows))
