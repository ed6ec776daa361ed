"""Splitting, fingerprints, conversion, inspection, and pairs from rankings."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pluralign.data import convert, fingerprint, inspect, load, pairs_from_ranked, prompt_hash, split
from pluralign.errors import RecordError, SettingsError
from pluralign.records import Message, Preference, Ranked, messages, to_row


def pair(prompt: str, chosen: str = "good", **more: Any) -> Preference:
    return Preference(
        prompt=messages(prompt),
        chosen=messages(chosen, role="assistant"),
        rejected=messages("bad", role="assistant"),
        **more,
    )


def asked(records: list[Preference]) -> set[str]:
    return {r.prompt[0].content for r in records}


def ranking(*scores: float, texts: str = "abcdefgh", attributes: Any = None, **meta: Any) -> Ranked:
    said = tuple(messages(text, role="assistant") for text in texts[: len(scores)])
    return Ranked(prompt=messages("q?"), responses=said, scores=scores, attributes=attributes or {}, meta=meta)


def letters(pairs: list[Preference]) -> list[str]:
    return [p.chosen[0].content + p.rejected[0].content for p in pairs]


# --- pairs from rankings ------------------------------------------------------------------------------------------


def test_pairs_from_rankings() -> None:
    record = ranking(2.0, 5.0, 2.0, 1.0, attributes={"humour": (1, 2, None, 4), "wit": (None, None, None, 1)}, kept=1)
    skipped: Counter[str] = Counter()
    assert letters(pairs_from_ranked(record)) == ["bd"]
    assert letters(pairs_from_ranked(record, "best_rest")) == ["ba", "bc", "bd"]
    every = pairs_from_ranked(record, "all", skipped=skipped)
    assert letters(every) == ["ba", "bc", "bd", "ad", "cd"]
    assert skipped == {"tie": 1}
    assert [p.margin for p in every] == [3.0, 3.0, 4.0, 1.0, 1.0]
    assert every[0].attributes == {"humour": (2, 1)}  # nobody knows how witty these two are
    assert every[1].attributes == {"humour": (2, None)}
    assert every[2].attributes == {"humour": (2, 4), "wit": (None, 1)}
    assert pairs_from_ranked(ranking(2.0, 5.0))[0].attributes == {"score": (5.0, 2.0)}
    assert every[0].meta == {"kept": 1}
    for made in every:
        made.validate()


def test_ties_and_equal_texts_make_no_pair() -> None:
    skipped: Counter[str] = Counter()
    assert pairs_from_ranked(ranking(1.0, 1.0), skipped=skipped) == []
    assert pairs_from_ranked(ranking(1.0, 2.0, texts="aa"), skipped=skipped) == []
    assert skipped == {"tie": 1, "same text": 1}
    with pytest.raises(SettingsError, match="unknown way"):
        pairs_from_ranked(ranking(1.0, 2.0), "worst")  # type: ignore[arg-type]


# --- attributes go along --------------------------------------------------------------------------------------------


def test_attributes_stay_with_their_responses() -> None:
    row = {"prompt": "q?", "chosen": "a", "rejected": "b", "attributes": {"humour": [3, 1], "wit": [None, 2]}}

    def made(kind: str, rows: list[Any] | None = None, **options: Any) -> list[tuple[Any, ...]]:
        loaded = load(rows or [row], kind=kind, **options)
        return [(r.response[0].content, dict(r.attributes)) for r in loaded]  # type: ignore[attr-defined]

    a, b = ("a", {"humour": 3.0}), ("b", {"humour": 1.0, "wit": 2.0})
    assert made("demonstration") == [a]
    assert made("demonstration", responses="all") == [a, b]
    assert made("labelled") == [a, b]
    (ranked,) = load([row], kind="ranked")
    assert ranked.attributes == {"humour": (3.0, 1.0), "wit": (None, 2.0)}  # type: ignore[attr-defined]
    assert made("demonstration", [to_row(ranked)]) == [a]
    assert made("demonstration", [to_row(ranked)], responses="all") == [a, b]
    thumbs = load([row], kind="labelled").records()
    assert made("demonstration", thumbs) == [a]
    assert made("demonstration", thumbs, responses="all") == [a, b]
    assert [r.alternative for r in load([row], kind="demonstration", responses="all")] == [  # type: ignore[attr-defined]
        messages("b", role="assistant"), messages("a", role="assistant"),
    ]  # fmt: skip
    with pytest.raises(SettingsError, match="Known: best, all"):
        load([row], responses="worst")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"chosen": "a", "rejected": "b", "attributes": {"wit": [1]}}, "has 1 entries for 2 responses"),
        ({"chosen": "a", "rejected": "b", "attributes": {"wit": 1}}, 'a list of numbers in "attributes.wit"'),
        ({"chosen": "a", "rejected": "b", "attributes": [1, 2]}, "{attribute: [chosen, rejected]}"),
        ({"chosen": "a", "rejected": "b", "attributes": {"wit": [1, float("nan")]}}, "not a finite number"),
        ({"chosen": "a", "rejected": "b", "attributes": {"": [1, 2]}}, "an attribute has no name"),
        ({"chosen": "a", "rejected": "b", "attributes": {"w": [1, 2]}, "scores": {"w": [1, 3]}}, 'differ in "w"'),
        ({"completion": "a", "attributes": {"wit": [1]}}, 'expected a number in "attributes.wit"'),
        ({"completion": "a", "attributes": 3}, "{attribute: score}"),
        ({"responses": ["a", "b", "c"], "scores": [1, 2, 3], "attributes": {"wit": [1, 2]}}, "2 entries for 3"),
    ],
)
def test_attributes_that_cannot_be(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(RecordError) as caught:
        load([{"prompt": "q", **row}]).records()
    assert reason in caught.value.reason


def test_ranges_of_a_folder_are_those_its_files_agree_on(tmp_path: Path) -> None:
    steer = {"prompt": "p", "response": "a", "helpfulness": 1}
    both = load([steer, {**steer, "response": "b", "helpfulness": 2}])
    assert both.ranges["helpfulness"] == (0.0, 4.0)
    assert load([{"prompt": "q", "chosen": "a", "rejected": "b"}]).ranges == {}
    ultra = {
        "instruction": "q",
        "completions": [{"response": "a", "annotations": {}, "overall_score": n} for n in "12"],
    }
    (tmp_path / "a.jsonl").write_text(json.dumps(steer) + "\n")
    (tmp_path / "b.jsonl").write_text(json.dumps(ultra) + "\n")
    ranges = load(tmp_path).ranges
    assert ranges["honesty"] == (1.0, 5.0)
    assert ranges["verbosity"] == (0.0, 4.0)
    assert "helpfulness" not in ranges


# --- split --------------------------------------------------------------------------------------------------------


def test_no_prompt_is_on_both_sides() -> None:
    records = [pair(f"question {n % 300}", chosen=f"answer {n}") for n in range(900)]
    train, held = split(records, 0.2)
    assert len(train) + len(held) == 900
    assert not asked(train) & asked(held)
    assert 0.1 < len(held) / 900 < 0.3  # 300 prompts: five standard deviations are 0.12
    assert split(records, 0.2) == (train, held)
    assert split(records, 0.2, seed=1)[1] != held
    assert split(list(reversed(records)), 0.2)[1] == list(reversed(held))


def test_added_records_move_nobody() -> None:
    records = [pair(f"question {n}") for n in range(200)]
    before = asked(split(records, 0.3)[1])
    more = records + [pair(f"new {n}") for n in range(200)]
    assert asked(split(more, 0.3)[1]) & asked(records) == before


def test_only_the_first_user_turn_decides() -> None:
    first = Message("user", "q?")
    short = pair("q?")
    long = replace(short, prompt=(Message("system", "S"), first, Message("assistant", "a"), Message("user", "b")))
    assert prompt_hash(short) == prompt_hash(long) == prompt_hash(pair(" q?\n"))
    assert prompt_hash(short) != prompt_hash(short, seed=1)
    assert 0 <= prompt_hash(short) < 1


def test_a_number_holds_out_whole_prompts() -> None:
    records = [pair(f"question {n // 3}", chosen=f"{n}") for n in range(300)]
    train, held = split(records, 10)
    assert len(held) == 12
    assert not asked(train) & asked(held)


@pytest.mark.parametrize("held_out", [0, 1.5, -0.1, 1000, True])
def test_impossible_splits_are_refused(held_out: Any) -> None:
    with pytest.raises(SettingsError):
        split([pair("a"), pair("b"), pair("c")], held_out)


# --- fingerprint and conversion -----------------------------------------------------------------------------------


def test_the_fingerprint_is_about_content() -> None:
    records = [pair("a"), pair("b", meta={"x": 1, "y": 2})]
    same = [pair("a"), pair("b", meta={"y": 2, "x": 1})]
    assert fingerprint(records) == fingerprint(iter(same))
    assert len(fingerprint(records)) == 64
    variants = [[], records[:1], records[::-1], [pair("a"), pair("b", meta={"x": 1})], [pair("ab"), pair("")]]
    assert len({fingerprint(v) for v in [records, *variants]}) == 6


def test_conversion_reads_back_exactly(shared: Path, tmp_path: Path) -> None:
    for name in ("ultrafeedback_slice/eval_200", "webgpt/webgpt_test", "tulu3_samples/sft_sample"):
        loaded = load(shared / f"{name}.jsonl.gz", bad_rows="quarantine", quarantine=tmp_path / "q.jsonl")
        for target in (tmp_path / "out.jsonl", tmp_path / "out.jsonl.gz"):
            assert convert(loaded, target, overwrite=True) == loaded.counts.records
            back = load(target)
            assert back.format == "native"
            assert back.records() == loaded.records()
            assert fingerprint(back) == fingerprint(loaded)


def test_converted_files_are_reproducible_and_never_half_written(tmp_path: Path) -> None:
    records = [pair(str(n)) for n in range(20)]
    convert(records, tmp_path / "a.jsonl.gz")
    convert(records, tmp_path / "b.jsonl.gz")
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()
    assert len(gzip.decompress((tmp_path / "a.jsonl.gz").read_bytes()).splitlines()) == 20
    with pytest.raises(SettingsError, match="exists already"):
        convert(records, tmp_path / "a.jsonl.gz")
    with pytest.raises(SettingsError, match=r"written to \.jsonl"):
        convert(records, tmp_path / "a.csv")

    def breaks() -> Any:
        yield records[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(breaks(), tmp_path / "c.jsonl")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.jsonl.gz", "b.jsonl.gz"]


# --- inspect ------------------------------------------------------------------------------------------------------


def test_inspect(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": "q" * n, "chosen": "a" * (2 * n), "rejected": "b", "group": "g"} for n in range(1, 101)]
    path.write_text("\n".join(json.dumps(r) for r in [*rows, {**rows[0], "chosen": ""}]))
    loaded = load(path, bad_rows="quarantine", quarantine=tmp_path / "q.jsonl")
    found = inspect(loaded, n=2)
    assert found["kinds"] == {"preference": 100}
    assert (found["rows"], found["records"], found["set_aside"]) == (101, 100, {"empty": 1})
    assert found["prompt_turns"] == {1: 100}
    assert found["prompt_roles"] == {"user": 100}
    assert found["groups"] == {"g": 100}
    assert found["characters"]["prompt"] == {"min": 1, "p50": 51, "p90": 91, "p99": 100, "max": 100}
    assert found["characters"]["chosen"]["max"] == 200
    assert [e["prompt"][0]["content"] for e in found["examples"]] == ["q", "qq"]
    json.dumps(found)
