"""Every record read is kept, dropped for a reason or held out, whatever the steps."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pluralign.curate import (
    Count,
    Step,
    curate,
    exact_duplicates,
    hold_out,
    inspo,
    judged,
    length_filter,
    near_duplicates,
    quality_filter,
    safety_filter,
)
from pluralign.data import fingerprint
from pluralign.errors import PluralignError, SettingsError
from pluralign.records import Record, to_row

from .toys import LISTS, many, pair, passed

EACH = [
    exact_duplicates(),
    exact_duplicates(normalise="case", across_annotators=True),
    near_duplicates(threshold=0.5),
    near_duplicates(on="prompt", ngram=1),
    length_filter(longest=8, shortest=2),
    safety_filter(),
    safety_filter(on="responses"),
    quality_filter(),
    quality_filter(missing="drop"),
    quality_filter(from_margin=True),
]


@pytest.mark.parametrize("step", EACH, ids=lambda s: s.name)
@given(rows=LISTS)
@settings(max_examples=25, deadline=None)
def test_every_step_accounts_for_every_record(step: Step, rows: list[Record]) -> None:
    kept, count = passed(step, rows)
    assert count.read == len(rows)
    assert count.kept == len(kept)
    assert count.kept + count.dropped.total() == count.read
    assert [r for r in rows if any(r is k for k in kept)] == kept  # in order, and nothing made up
    assert count.noted.total() <= count.kept


@given(rows=LISTS, steps=st.lists(st.sampled_from(EACH), max_size=5), held=st.integers(0, 4))
@settings(max_examples=60, deadline=None)
def test_a_pipeline_adds_up_and_writes_what_it_drops(rows: list[Record], steps: list[Step], held: int) -> None:
    entries: list[Mapping[str, Any]] = []
    ends = [hold_out(held)] if held else []
    curated = curate(rows, [*steps, *ends], dropped=entries.append)
    try:
        kept = list(curated)
    except SettingsError:  # none would be left to train on: see test_filters
        return
    assert curated.balanced
    assert curated.complete
    assert len(kept) + len(curated.validation) + len(entries) == len(rows)
    told = Counter((e["step"], e["reason"]) for e in entries)
    counted: Counter[tuple[str, str]] = Counter()
    for count in curated.counts:
        counted.update({(count.step, why): n for why, n in count.dropped.items()})
    assert told == counted
    whole = [to_row(r) for r in [*kept, *curated.validation]] + [e["row"] for e in entries]
    assert sorted(map(repr, whole)) == sorted(repr(to_row(r)) for r in rows)


@given(rows=LISTS)
@settings(max_examples=20, deadline=None)
def test_a_second_pass_is_the_first_again(rows: list[Record]) -> None:
    curated = curate(rows, EACH)
    first, report = list(curated), curated.report()
    assert list(curated) == first
    assert curated.report() == report


def test_the_report_states_counts_settings_and_fingerprints() -> None:
    rows = [*many(20), many(1)[0], pair("q", "short", "s", meta={"confidence": 0.2})]
    curated = curate(rows, [exact_duplicates(), quality_filter(least=0.7), hold_out(5, seed=3)])
    report = curated.report()
    assert report["input"] == {"records": 22, "fingerprint": fingerprint(rows)}
    exact, quality, held = report["steps"]
    assert exact["dropped"] == {"exact duplicate": 1}
    assert quality["settings"] == {"least": 0.7, "field": "confidence", "from_margin": False, "missing": "keep"}
    assert (quality["dropped"], quality["noted"]) == ({"unsure": 1}, {"no confidence": 20})
    assert (held["read"], held["kept"], held["held_out"], held["settings"]["seed"]) == (20, 15, 5, 3)
    assert report["train"] == {"records": 15, "fingerprint": fingerprint(curated)}
    assert report["validation"] == {"records": 5, "fingerprint": fingerprint(curated.validation)}


def test_the_preset_is_the_papers() -> None:
    made = [(step.name, dict(step.settings)) for step in inspo(unit="tokens")]
    assert made == [
        ("exact_duplicates", {"normalise": "none", "across_annotators": False}),
        ("length", {"longest": 2048, "shortest": 32, "unit": "tokens"}),
        ("safety", {"classifier": "rules", "on": "prompt", "unparsed": "drop"}),
        ("quality", {"least": 0.6, "field": "confidence", "from_margin": False, "missing": "keep"}),
        ("hold_out", {"records": 1000, "seed": 0}),
    ]


def test_a_step_that_loses_records_is_found_out() -> None:
    def every_second(records: Iterable[Record], count: Count) -> Iterator[Record]:
        yield from (r for i, r in enumerate(records) if i % 2)

    with pytest.raises(PluralignError, match='the step "leaky" read 6 records and accounts for 3'):
        list(curate(many(6), [Step("leaky", every_second)]))


def test_a_step_of_ones_own() -> None:
    def judge(record: Record, count: Count) -> Mapping[str, Any] | None:
        return {"reason": "odd", "number": 1} if record.prompt[0].content.endswith("1") else None

    entries: list[Mapping[str, Any]] = []
    curated = curate(many(12), [Step("even", judged(judge))], dropped=entries.append)
    assert len(list(curated)) == 10
    assert entries[0] == {
        "step": "even", "reason": "odd", "where": "rows:1", "number": 1, "row": to_row(many(2)[1]),
    }  # fmt: skip


def test_nothing_comes_after_the_hold_out() -> None:
    with pytest.raises(SettingsError, match='"hold_out" must be the last step'):
        curate([], [hold_out(1), length_filter()])


def test_records_flow_one_by_one() -> None:
    """A source without an end is no obstacle to steps that look at one record at a time."""

    def endless() -> Iterator[Record]:
        i = 0
        while True:
            yield pair(f"question {i}", "yes " * 40, "no " * 40)
            i += 1

    stream = iter(curate(endless(), [exact_duplicates(), near_duplicates(), quality_filter()]))
    assert [next(stream).prompt[0].content for _ in range(3)] == ["question 0", "question 1", "question 2"]


CODE = """
import resource, sys
from pluralign.curate import curate, exact_duplicates, hold_out, length_filter
from pluralign.records import Message, Preference

def rows(n):
    for i in range(n):
        said = [f"{kind} {i} " + "word " * 200 for kind in ("question", "good", "bad")]
        prompt, chosen, rejected = ((Message("user", text),) for text in said)
        yield Preference(prompt=prompt, chosen=chosen, rejected=rejected, where=f"pairs.jsonl.gz:{i}")

def peak(n):
    curated = curate(rows(n), [exact_duplicates(), length_filter(counter=lambda ts: [40] * len(ts)), hold_out(100)])
    assert sum(1 for _ in curated) == n - 100 and curated.balanced
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

print(peak(500), peak(50_000))
"""


def test_memory_is_a_key_for_each_record() -> None:
    """50,000 rows of 3 kB (150 MB of text) cost some 250 bytes each, so that a million fits into a quarter of a GB."""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True, text=True, cwd=root)
    before, after = map(int, done.stdout.split())
    assert (after - before) * 1024 / 50_000 < 500
