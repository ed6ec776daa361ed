"""The formats on real public files: every row of every file is accounted for.

The counts below were taken from the files by other means (a script that knows nothing of this library).
"""

from __future__ import annotations

import gzip
import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pluralign.data import Loaded, load
from pluralign.errors import SettingsError
from pluralign.records import Preference, Ranked

FILES = [
    # file, format, rows, records by kind, rows set aside by reason
    ("hh_rlhf/harmless_base", "hh", 1836, {"Preference": 1833}, {"empty": 3}),
    ("hh_rlhf/helpful", "text_score", 1888, {"Preference": 1885}, {"empty": 3}),
    ("webgpt/webgpt_test", "text_score", 901, {"Preference": 656, "Ranked": 245}, {}),
    ("ultrafeedback_slice/clean_1000", "pair", 1000, {"Preference": 994}, {"chosen equals rejected": 4, "empty": 2}),
    ("ultrafeedback_slice/eval_200", "pair", 200, {"Preference": 199}, {"chosen equals rejected": 1}),
    ("ultrafeedback_slice/label_flip_20", "pair", 1000, {"Preference": 994}, {"chosen equals rejected": 4, "empty": 2}),
    ("llamafactory_demo/dpo_en_demo", "sharegpt_pair", 300, {"Preference": 300}, {}),
    ("llamafactory_demo/kto_en_demo", "labelled", 300, {"Labelled": 300}, {}),
    ("llamafactory_demo/alpaca_en_demo", "alpaca", 999, {"Demonstration": 999}, {}),
    ("llamafactory_demo/identity", "alpaca", 91, {"Demonstration": 91}, {}),
    ("tulu3_samples/preference_sample", "conversation_pair", 100, {"Preference": 100}, {}),
    ("tulu3_samples/sft_sample", "messages", 100, {"Demonstration": 100}, {}),
    ("hh_derived/dove_anthropic_helpful_val_sft", "alpaca", 486, {"Demonstration": 486}, {}),
    ("hh_derived/themis_hh_train", "answers", 493, {"Preference": 493}, {}),
    ("hh_derived/themis_hh_test", "answers", 83, {"Preference": 82}, {"empty": 1}),
    ("hh_derived/themis_webgpt_test", "answers", 134, {"Preference": 122}, {"empty": 12}),
    ("just_eval/gpt35_0301_five_attributes", "just_eval", 800, {"Demonstration": 800}, {}),
    ("just_eval/safety_scores_by_system", "just_eval", 3000, {"Demonstration": 3000}, {}),
    ("just_eval/system_outputs", "alpaca", 13000, {"Demonstration": 12999}, {"empty": 1}),
    ("unieval/qags_cnndm", "unieval", 235, {"Demonstration": 235}, {}),
    ("unieval/qags_xsum", "unieval", 239, {"Demonstration": 239}, {}),
    ("unieval/sfhot", "unieval", 875, {"Demonstration": 875}, {}),
    ("unieval/sfres", "unieval", 1181, {"Demonstration": 1181}, {}),
    ("unieval/topical_chat", "topical_chat", 360, {"Ranked": 60}, {}),
    ("hhh_prometheus/hhh_alignment_221", "hhh", 221, {"Preference": 221}, {}),
    ("rmb/bon_helpfulness", "rmb", 1683, {"Ranked": 1683}, {}),
    ("rmb/bon_harmlessness", "rmb", 1324, {"Ranked": 1324}, {}),
    ("rmb/pairwise_helpfulness", "rmb", 6784, {"Preference": 6780}, {"chosen equals rejected": 4}),
    ("rmb/pairwise_harmlessness", "rmb", 4848, {"Preference": 4840}, {"chosen equals rejected": 6, "empty": 2}),
    ("text_dialogue/lima", "alpaca", 1029, {"Demonstration": 1029}, {}),
]
MAPPED = [
    ("hh_derived/dove_anthropic_helpful_val_conditional_pref",
     {"prompt": "i_chosen", "chosen": "r_chosen", "rejected": "r_reject"}, 353, 353),
    ("hh_derived/dove_anthropic_helpful_test", {"prompt": "instruction", "response": "gold_response"}, 403, 403),
    ("hh_derived/dove_tldr_test", {"prompt": "instruction", "response": "gold_response"}, 500, 500),
    ("rmb/pairwise_harmlessness",
     {"prompt": "conversation_input", "chosen": "chosen.answer", "rejected": "reject.answer"}, 4848, None),
]  # fmt: skip


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).split(b"\n") if line.strip()]


def read(path: Path, tmp_path: Path, **options: Any) -> Loaded:
    return load(path, bad_rows="quarantine", quarantine=tmp_path / "quarantine.jsonl", **options)


@pytest.mark.parametrize(("name", "form", "rows", "kinds", "bad"), FILES, ids=[f[0] for f in FILES])
def test_every_row_is_accounted_for(
    shared: Path, tmp_path: Path, name: str, form: str, rows: int, kinds: dict[str, int], bad: dict[str, int]
) -> None:
    path = shared / f"{name}.jsonl.gz"
    loaded = read(path, tmp_path)
    records = loaded.records()
    counts = loaded.counts
    assert loaded.format == form
    assert (counts.rows, counts.kinds, counts.bad) == (rows, kinds, bad)
    assert rows == counts.used + sum(bad.values())
    assert len(records) == counts.records == sum(kinds.values())
    # what was set aside lies in the quarantine as it was, under the line it came from
    if bad:
        source = rows_of(path)
        entries = [json.loads(line) for line in (tmp_path / "quarantine.jsonl").read_text().splitlines()]
        assert len(entries) == sum(bad.values())
        for entry in entries:
            file, _, line = entry["where"].rpartition(":")
            assert (file, source[int(line) - 1]) == (str(path), entry["row"])


def test_votes_of_three_annotators(shared: Path, tmp_path: Path) -> None:
    path = shared / "pandalm/testset_v1.jsonl.gz"
    rows = rows_of(path)
    votes = [[row[f"annotator{i}"] for i in (1, 2, 3)] for row in rows]
    loaded = read(path, tmp_path)
    records = loaded.records()
    counts = loaded.counts
    assert (counts.rows, counts.bad) == (999, {"empty": 53, "wrong type": 6})  # six responses are a bare True
    assert counts.skipped == {"tie": sum(v.count(1) == v.count(2) for v in votes)} == {"tie": 85}
    assert len(records) == 999 - 85 - 59
    by_index = {row["idx"]: v for row, v in zip(rows, votes, strict=True)}
    for record in records:
        assert isinstance(record, Preference)
        own = by_index[record.meta["idx"]]
        most = max(own.count(1), own.count(2))
        assert record.attributes == {"votes": (most, min(own.count(1), own.count(2)))}


@pytest.mark.parametrize(
    ("name", "holders"),
    [
        # attribute: how many records have it
        ("just_eval/gpt35_0301_five_attributes", {"helpfulness": 800, "factuality": 761, "depth": 796}),
        ("unieval/topical_chat", {"overall": 60, "groundedness": 60}),
        ("unieval/sfres", {"informativeness": 1181, "naturalness": 1181}),
    ],
)
def test_attributes_are_the_ratings_of_the_file(
    shared: Path, tmp_path: Path, name: str, holders: dict[str, int]
) -> None:
    path = shared / f"{name}.jsonl.gz"
    loaded = read(path, tmp_path)
    records = loaded.records()
    for attribute, count in holders.items():
        values = [v for r in records for v in _values(r.attributes.get(attribute))]  # type: ignore[attr-defined]
        given = [_rating(row, attribute) for row in rows_of(path)]
        assert [v for v in given if v is not None] == values
        assert sum(attribute in r.attributes for r in records) == count  # type: ignore[attr-defined]
        low, high = loaded.ranges[attribute]
        assert low <= min(values) < max(values) <= high


def _values(value: Any) -> tuple[float, ...]:
    return value if isinstance(value, tuple) else () if value is None else (value,)


def _rating(row: dict[str, Any], attribute: str) -> float | None:
    value = row["scores"][attribute] if "scores" in row else row["parsed_result"][attribute]["score"]
    return None if value == "N/A" else float(value)


def test_the_goal_of_a_comparison_is_its_attribute(shared: Path, tmp_path: Path) -> None:
    path = shared / "hhh_prometheus/hhh_alignment_221.jsonl.gz"
    found = Counter(name for r in read(path, tmp_path) for name in r.attributes)  # type: ignore[attr-defined]
    assert found == {"honest": 61, "helpful": 59, "harmless": 58, "other": 43}
    record = next(iter(read(shared / "rmb/bon_harmlessness.jsonl.gz", tmp_path)))
    assert isinstance(record, Ranked)
    assert record.attributes == {"harmlessness": (1.0, 0.0, 0.0)}
    assert record.prompt[-1].extra == {}  # no chat template knows a turn's language


@pytest.mark.parametrize(("name", "columns", "rows", "records"), MAPPED, ids=[m[0] for m in MAPPED])
def test_mapped_columns(
    shared: Path, tmp_path: Path, name: str, columns: dict[str, str], rows: int, records: int | None
) -> None:
    loaded = read(shared / f"{name}.jsonl.gz", tmp_path, columns=columns)
    made = len(loaded.records())
    assert loaded.counts.rows == rows
    assert made + loaded.counts.bad.total() == rows
    assert records is None or made == records


def test_no_text_is_lost_from_transcripts(shared: Path, tmp_path: Path) -> None:
    path = shared / "hh_rlhf/harmless_base.jsonl.gz"
    rows = rows_of(path)
    loaded = iter(read(path, tmp_path))
    compared = 0
    for row in rows:
        if (
            not row["chosen"].rsplit("Assistant:", 1)[1].strip()
            or not row["rejected"].rsplit("Assistant:", 1)[1].strip()
        ):
            continue
        record = next(loaded)
        assert isinstance(record, Preference)
        for side, response in (("chosen", record.chosen), ("rejected", record.rejected)):
            words = [w for w in row[side].split() if w not in ("Human:", "Assistant:")]
            kept = [w for turn in (*record.prompt, *response) for w in turn.content.split()]
            assert [w for w in kept if w not in ("Human:", "Assistant:")] == words
        assert [a.role != b.role for a, b in itertools.pairwise((*record.prompt, *record.chosen))].count(False) == 0
        compared += 1
    assert compared == 1833


def test_scores_of_the_slice_become_margins(shared: Path, tmp_path: Path) -> None:
    path = shared / "ultrafeedback_slice/label_flip_20.jsonl.gz"
    records = read(path, tmp_path).records()
    by_index = {row["source_index"]: row for row in rows_of(path)}
    flipped = 0
    for record in records:
        assert isinstance(record, Preference)
        row = by_index[record.meta["source_index"]]
        assert record.margin == row["metadata"]["score_chosen"] - row["metadata"]["score_rejected"]
        flipped += record.meta["metadata"]["noise"]["selected"]
    assert flipped == sum(row["metadata"]["noise"]["selected"] for row in by_index.values() if row["chosen"].strip()
                          and row["rejected"].strip() and row["chosen"] != row["rejected"])  # fmt: skip


def test_graded_webgpt_ties_are_counted_when_pairs_are_asked_for(shared: Path, tmp_path: Path) -> None:
    loaded = read(shared / "webgpt/webgpt_test.jsonl.gz", tmp_path, kind="preference")
    records = loaded.records()
    assert len(records) == 656
    assert loaded.counts.skipped == {"tie": 245}
    assert {r.margin for r in records} == {1.0, 2.0}
    assert "656 pairs (transcripts with scores) · 245 rows without a record: 245 ties" in loaded.describe()


def test_domains_make_pairs_for_the_group_that_is_named(shared: Path, tmp_path: Path) -> None:
    path = shared / "dsp_domain/dsp.jsonl.gz"
    with pytest.raises(SettingsError, match="academy, business, entertainment, literature, normal"):
        load(path)
    rows = rows_of(path)
    same = sum(r["responses"][g] == r["responses"]["academy"] for r in rows for g in r["responses"] if g != "academy")
    loaded = load(path, group="academy")
    records = loaded.records()
    assert {r.group for r in records} == {"academy"}
    assert len(records) == 4 * 513 - same
    counts = loaded.counts
    assert counts.records + counts.partial.total() + 4 * counts.skipped["same text for both groups"] == 4 * 513
    assert counts.rows == counts.used + counts.skipped.total() == 513
    everyone = load(path, group="all").count()
    assert everyone.records + everyone.partial.total() + 20 * everyone.skipped.total() == 20 * 513


def test_graded_answers_as_ranked_lists(shared: Path) -> None:
    """The same graded answers through the generic format for ranked lists."""
    rows = rows_of(shared / "webgpt/webgpt_test.jsonl.gz")[:50]
    ranked = [{"prompt": r["text"][0][:40], "responses": r["text"], "scores": r["score"]} for r in rows]
    records = load(ranked).records()
    assert all(isinstance(r, Ranked) for r in records)
    assert [r.scores for r in records] == [tuple(r["score"]) for r in rows]
