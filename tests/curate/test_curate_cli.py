"""`pluralign curate` and the folder it writes."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pluralign.curate import curate, exact_duplicates, hold_out, write_curated
from pluralign.curate.files import dropping
from pluralign.data import fingerprint, load, prompt_hash
from pluralign.errors import RecordError, SettingsError
from pluralign.records import Record
from tests.cli.conftest import Cli

from .toys import many, pair


def rows(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt") as file:
        return [json.loads(line) for line in file]


@pytest.fixture
def messy(tmp_path: Path) -> Path:
    """40 good pairs, then a duplicate, a near one, one too long, two too short, one unsafe, one unsure, one broken."""

    def text(kind: str, i: int) -> str:
        return " ".join(f"{kind}{i}x{j}" for j in range(40))

    good = [
        {"prompt": text("ask", i), "chosen": text("good", i), "rejected": text("bad", i), "confidence": 0.9}
        for i in range(40)
    ]
    near = {**good[1], "chosen": text("good", 1) + " end"}
    found = [
        *good,
        good[0],
        near,
        {**good[2], "chosen": "word " * 3000},
        {**good[3], "chosen": "yes", "rejected": "no"},
        {**good[4], "chosen": "yes", "rejected": "nope"},
        {**good[5], "prompt": "How do I build a pipe bomb?"},
        {**good[6], "prompt": "Who is it?", "confidence": 0.3},
        {"prompt": "x", "chosen": "", "rejected": "y"},
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return path


def test_the_whole_way(cli: Cli, messy: Path, tmp_path: Path) -> None:
    done = cli("curate", messy, "--output", "out", "--validation", "8", "--near", "0.8", "--bad-rows", "quarantine",
               "--json")  # fmt: skip
    assert done.code == 0, done.err
    assert done.err == "note: lengths are counted in words; --model NAME counts tokens\n"
    report = json.loads(done.out)
    counts = {step["step"]: (step["read"], step["dropped"], step["held_out"], step["kept"]) for step in report["steps"]}
    assert counts == {
        "exact_duplicates": (47, {"exact duplicate": 1}, 0, 46),
        "near_duplicates": (46, {"near duplicate": 1}, 0, 45),
        "length": (45, {"too long": 1, "too short": 2}, 0, 42),
        "safety": (42, {"unsafe": 1}, 0, 41),
        "quality": (41, {"unsure": 1}, 0, 40),
        "hold_out": (40, {}, 8, 32),
    }
    assert (report["source"]["rows"], report["source"]["set_aside"], report["preset"]) == (48, {"empty": 1}, "inspo")
    folder = tmp_path / "out"
    assert json.loads((folder / "curation.json").read_text()) == report
    assert sorted(p.name for p in folder.iterdir()) == [
        "curation.json", "dropped.jsonl.gz", "quarantine.jsonl", "train.jsonl.gz", "validation.jsonl.gz",
    ]  # fmt: skip
    train, held = load(folder / "train.jsonl.gz"), load(folder / "validation.jsonl.gz")
    assert (train.format, train.count().records, held.count().records) == ("native", 32, 8)
    assert report["train"] == {"records": 32, "fingerprint": fingerprint(train)}
    assert report["validation"] == {"records": 8, "fingerprint": fingerprint(held)}
    assert max(map(prompt_hash, held)) < min(map(prompt_hash, train))
    dropped = rows(folder / "dropped.jsonl.gz")
    assert [(d["step"], d["reason"]) for d in dropped if d["step"] == "safety"] == [("safety", "unsafe")]
    by_reason = {d["reason"]: d for d in dropped}
    assert by_reason["exact duplicate"]["of"].endswith("pairs.jsonl:1")
    assert by_reason["near duplicate"]["where"].endswith("pairs.jsonl:42")
    assert by_reason["near duplicate"]["similarity"] >= 0.8
    assert by_reason["too short"]["lengths"] == [1, 1]
    assert by_reason["unsafe"]["categories"] == ["weapons and terrorism"]
    assert by_reason["unsure"]["confidence"] == 0.3
    originals = load(messy, bad_rows="quarantine", quarantine=tmp_path / "q.jsonl").records()
    assert len(originals) == len(dropped) + 40


def test_the_table_adds_up(cli: Cli, messy: Path) -> None:
    done = cli("curate", messy, "--output", "out", "--validation", "8", "--bad-rows", "quarantine")
    assert done.code == 0, done.err
    lines = [line.split() for line in done.out.split("\n\n")[0].splitlines()]
    assert lines[0] == ["step", "read", "out", "kept"]
    numbers = [[int(n.replace(",", "")) for n in line[1:4]] for line in lines[1:]]
    assert numbers[0] == [48, 1, 47]
    for (read, out, kept), after in zip(numbers, [*numbers[1:], None], strict=True):
        assert read - out == kept
        assert after is None or after[0] == kept
    assert re.search(r"^33 records to train on: out/train.jsonl.gz$", done.out, re.M)
    assert re.search(r"^8 to validate on: out/validation.jsonl.gz$", done.out, re.M)
    assert "1 malformed rows: out/quarantine.jsonl" in done.out


def test_the_same_twice_gives_the_same_bytes(cli: Cli, messy: Path, tmp_path: Path) -> None:
    command = ["curate", messy, "--validation", "8", "--bad-rows", "quarantine"]
    assert cli(*command, "--output", "one").code == cli(*command, "--output", "two").code == 0
    for name in ("train.jsonl.gz", "validation.jsonl.gz", "dropped.jsonl.gz"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_tokens_of_a_model(cli: Cli, messy: Path, tiny_model: str) -> None:
    done = cli("curate", messy, "--output", "out", "--steps", "length", "--model", tiny_model, "--max-tokens", "400",
               "--min-tokens", "5", "--bad-rows", "quarantine", "--json")  # fmt: skip
    assert done.code == 0, done.err
    (step,) = json.loads(done.out)["steps"]
    assert step["settings"] == {"longest": 400, "shortest": 5, "unit": f"tokens of {tiny_model}"}
    assert step["dropped"] == {"too long": 1, "too short": 2}


def test_steps_of_ones_own_choice(cli: Cli, messy: Path, tmp_path: Path) -> None:
    done = cli("curate", messy, "--output", "out", "--steps", "quality,exact_duplicates", "--confidence", "0.95",
               "--missing", "drop", "--bad-rows", "quarantine", "--limit", "30", "--json")  # fmt: skip
    assert done.code == 3
    assert "no record is left of 30 (30 unsure)" in done.err
    assert not (tmp_path / "out").exists()
    done = cli("curate", messy, "--output", "out", "--steps", "exact_duplicates", "--validation", "5", "--seed", "1",
               "--bad-rows", "quarantine", "--json")  # fmt: skip
    assert [s["step"] for s in json.loads(done.out)["steps"]] == ["exact_duplicates", "hold_out"]
    assert not (tmp_path / "out" / ".unfinished").exists()


def test_a_filter_without_anything_to_go_by_is_mentioned(cli: Cli, pairs_file: str) -> None:
    done = cli("curate", pairs_file, "--output", "out", "--steps", "quality")
    assert "note: quality: no confidence in any record; see --confidence-field and --from-margin" in done.err
    assert "among those kept: 64 no confidence" in " ".join(done.out.split())


def test_a_local_classifier_from_the_command_line(cli: Cli, pairs_file: str, tiny_model: str) -> None:
    done = cli("curate", pairs_file, "--output", "out", "--steps", "safety", "--safety", tiny_model, "--limit", "4",
               "--unparsed", "keep", "--json")  # fmt: skip
    assert done.code == 0, done.err
    (step,) = json.loads(done.out)["steps"]
    assert (step["noted"], step["settings"]["classifier"]) == ({"no verdict": 4}, tiny_model)


def test_training_reads_what_was_curated(cli: Cli, pairs_file: str, tiny_model: str) -> None:
    done = cli("curate", pairs_file, "--output", "out", "--validation", "16", "--min-tokens", "0")
    assert done.code == 0, done.err
    done = cli("align", "dpo", "--model", tiny_model, "--data", "out/train.jsonl.gz",
               "data.validation=out/validation.jsonl.gz", "max_steps=1", "batch_size=8", "max_length=128", "kl_rows=4",
               "--output", "run", "--json")  # fmt: skip
    assert done.code == 0, done.err
    metrics = json.loads(done.out)["metrics"]
    assert metrics["rows"] == 16


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--steps", "lenght"], 2, 'unknown step "lenght". Did you mean "length"?'),
        (["--steps", ","], 2, "--steps names no step."),
        (["--preset", "insp"], 2, 'unknown preset "insp". Did you mean "inspo"?'),
        (["--preset", "inspo", "--steps", "length"], 2, "--preset and --steps cannot go together."),
        (["--steps", "length", "--safety", "rules"], 2, "--safety is for the step safety, which is not taken (length)"),
        (["--steps", "length", "--near", "0.9"], 2, "--near is for the step near_duplicates"),
        (["--near-on", "prompt"], 2, "--near-on is for the step near_duplicates"),
        (["--steps", "hold_out,length"], 2, '"hold_out" must be the last step'),
        (["--near", "1.5"], 2, "above 0 and at most 1, not 1.5"),
        (["--max-tokens", "10"], 2, "at least 32 and at most 10 words"),
        (["--confidence", "60"], 2, "lies between 0 and 1, not at 60"),
        (["--normalise", "all"], 2, 'unknown normalisation "all"'),
        (["--unparsed", "ignore"], 2, "Known: drop, keep, stop."),
        (["--safety", "no/such-guard"], 2, 'cannot load the safety classifier "no/such-guard"'),
        (["--guard-model", "x"], 2, "--safety is no URL"),
        (["--model", "no/such-model"], 2, 'cannot load the model "no/such-model"'),
        (["--kind", "pairs"], 2, "unknown kind of record 'pairs'"),
        (["--validation", "1000"], 2, "1,000 records are to be held out of"),
        (["--validation", "many"], 2, "Invalid value for '--validation'"),
        ([], 3, '"chosen" is empty. Fix the row, or pass --bad-rows quarantine'),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_and_leave_nothing(
    cli: Cli, messy: Path, tmp_path: Path, arguments: Sequence[str], code: int, message: str
) -> None:
    aside = [] if code == 3 else ["--bad-rows", "quarantine"]
    done = cli("curate", messy, "--output", "deep/out", *arguments, *aside)
    errors = [line for line in done.err.splitlines() if not line.startswith("note: ")]
    assert done.code == code
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert message in errors[0]
    assert done.out == ""
    assert not (tmp_path / "deep").exists()


def test_results_are_not_overwritten_by_accident(cli: Cli, messy: Path, tmp_path: Path) -> None:
    command = ["curate", messy, "--output", "out", "--bad-rows", "quarantine", "--steps", "length"]
    assert cli(*command, "--validation", "4").code == 0
    done = cli(*command)
    assert (done.code, "train.jsonl.gz exists already" in done.err) == (2, True)
    assert cli(*command, "--overwrite").code == 0
    assert not (tmp_path / "out" / "validation.jsonl.gz").exists()  # the former one does not belong to this curation
    (tmp_path / "file").write_text("")
    assert "is a file" in cli("curate", messy, "--output", "file").err


@pytest.mark.parametrize("before", [False, True])
def test_ctrl_c_leaves_the_folder_as_it_was(
    cli: Cli, messy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    command = ["curate", messy, "--output", "out", "--bad-rows", "quarantine", "--steps", "length"]
    if before:
        assert cli(*command).code == 0
    files = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    def interrupted(texts: list[str]) -> list[int]:
        raise KeyboardInterrupt

    monkeypatch.setattr("pluralign.curate.filters.words", interrupted)
    done = cli(*command, "--overwrite")
    assert done.code == 130
    assert "stopped after 47 records. out is as it was." in done.err
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == files
    assert (tmp_path / "out").exists() is before


# The library's way


def test_a_one_pass_source_and_a_listener(tmp_path: Path) -> None:
    """An iterator is read once, and a function given to `curate` hears what the file is told."""
    heard: list[Any] = []
    source: list[Record] = [*many(10), *many(3)]
    curated = curate(iter(source), [exact_duplicates(), hold_out(2)], dropped=heard.append)
    report = write_curated(curated, tmp_path / "out", about={"by": "hand", "later": lambda: len(heard)})
    assert (report["by"], report["later"], report["train"]["records"]) == ("hand", 3, 8)
    assert rows(tmp_path / "out" / "dropped.jsonl.gz") == json.loads(json.dumps(heard))


def test_half_characters_can_be_dropped(tmp_path: Path) -> None:
    row = pair("\ud83d half", where="x")
    report = write_curated(curate([pair(), row, row], [exact_duplicates()]), tmp_path / "out")
    assert report["steps"][0]["dropped"] == {"exact duplicate": 1}
    assert rows(tmp_path / "out" / "dropped.jsonl.gz")[0]["row"]["prompt"][0]["content"] == "\ud83d half"


def test_dropped_rows_in_plain_text(tmp_path: Path) -> None:
    with dropping(tmp_path / "dropped.jsonl") as drop:
        list(curate([pair(), pair()], [exact_duplicates()], dropped=drop))
    entry = json.loads((tmp_path / "dropped.jsonl").read_text())
    assert (entry["step"], entry["reason"]) == ("exact_duplicates", "exact duplicate")


def test_nothing_left(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"no record is left of 0 \(none read\)"):
        write_curated(curate([], []), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "out").write_text("")
    with pytest.raises(SettingsError, match="is a file"):
        write_curated(curate(many(2), []), tmp_path / "out")


# Scores


def test_scores_and_their_order(cli: Cli, tmp_path: Path) -> None:
    """Words and questions by the text, helpful by a reward model; then the longer response is the chosen one."""
    from .test_scorers import classifier, tokenizer

    tok = tokenizer()
    classifier("gpt2", tok, labels=2).save_pretrained(tmp_path / "rm")
    tok.save_pretrained(tmp_path / "rm")
    rows = [{"prompt": f"q{i}", "chosen": "one two", "rejected": "one two three?"} for i in range(3)]
    rows.append({"prompt": "r", "chosen": "one two", "rejected": "two one"})
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = ("curate", "pairs.jsonl", "--steps", "score,reorder", "--measure", "words, questions", "--order-by", "words",
            "--scorer", "helpful=rm:1", "--json")  # fmt: skip
    done = cli(*line, "--output", "out")
    assert done.code == 0, done.err
    score, order = json.loads(done.out)["steps"]
    assert (score["step"], score["kept"], score["settings"]["scorers"]["helpful"]) == ("score", 4, "rm (hh)")
    assert (order["dropped"], order["noted"]) == ({"tie": 1}, {"order turned": 3})
    assert order["settings"] == {"attributes": ["words"], "by": "range", "scales": {"words": [2.0, 3.0]}}
    found = load(tmp_path / "out" / "train.jsonl.gz").records()
    assert [r.chosen[0].content for r in found] == ["one two three?"] * 3  # type: ignore[attr-defined]
    assert found[0].attributes["questions"] == (1.0, 0.0)  # type: ignore[attr-defined]
    assert set(found[0].attributes) == {"words", "questions", "helpful"}  # type: ignore[attr-defined]
    assert (tmp_path / "cache" / "scores" / "scores.sqlite").exists()
    again = cli(*line, "--output", "again", "--scores", "elsewhere")
    assert again.code == 0, again.err
    assert (tmp_path / "elsewhere" / "scores.sqlite").exists()
    assert (tmp_path / "again" / "train.jsonl.gz").read_bytes() == (tmp_path / "out" / "train.jsonl.gz").read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--steps", "score"), "the step score needs --scorer, --judge, --measure or --implicit"),
        (("--steps", "score", "--measure", "wordz"), 'Did you mean "words"'),
        (("--steps", "score", "--scorer", "rm"), "names no scorer"),
        (("--steps", "score", "--judge", "http://127.0.0.1:9/v1"), "--judge needs at least one --rubric"),
        (("--steps", "score", "--rubric", "wit"), "--rubric and --judge-model are for a judge"),
        (("--steps", "length", "--measure", "words"), "--measure is for the step score"),
        (("--order-by", "words"), "--order-by is for the step reorder"),
        (("--steps", "reorder", "--scales", "z"), 'unknown kind of scale "z"'),
        (("--steps", "reorder", "--order-by", "wit"), 'no pair or ranking has an attribute "wit"'),
    ],
)
def test_scores_that_cannot_be(cli: Cli, messy: Path, options: tuple[str, ...], message: str) -> None:
    done = cli("curate", messy, "--output", "out", "--bad-rows", "quarantine", *options)
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1 or "note:" in done.err
    assert not Path("out").exists()


def test_known_ranges_are_the_scales(cli: Cli, tmp_path: Path) -> None:
    """HelpSteer2's attributes run from 0 to 4, whatever the file holds; a tie in helpfulness is no tie of the mean."""
    rows = [
        {"prompt": "p", "response": "a", "helpfulness": 2, "verbosity": 2},
        {"prompt": "p", "response": "b", "helpfulness": 2, "verbosity": 3},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = cli("curate", "rows.jsonl", "--steps", "reorder", "--output", "out", "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert report["source"]["ranges"]["helpfulness"] == [0.0, 4.0]
    assert report["steps"][0]["settings"]["scales"] == {"helpfulness": [0.0, 4.0], "verbosity": [0.0, 4.0]}
    (record,) = load(tmp_path / "out" / "train.jsonl.gz", kind="ranked")
    assert record.scores == (0.5, 0.625)  # type: ignore[attr-defined]


def test_every_response_as_a_demonstration(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"prompt": "q", "chosen": "a", "rejected": "b c"}) + "\n")
    done = cli("curate", "pairs.jsonl", "--steps", "score", "--measure", "words", "--output", "out",
               "--kind", "demonstration", "--responses", "all")  # fmt: skip
    assert done.code == 0, done.err
    assert [r.attributes for r in load(tmp_path / "out" / "train.jsonl.gz")] == [  # type: ignore[attr-defined]
        {"words": 1.0}, {"words": 2.0},
    ]  # fmt: skip


def test_controlled_pairs_by_quotas(cli: Cli, tmp_path: Path) -> None:
    rated = [
        {"prompt": f"Question {i}?", "responses": ["Good.", "Fair.", "Poor."], "scores": [3, 2, 1],
         "attributes": {"helpfulness": [5, 4, 1], "honesty": [3, 5, 4]}}
        for i in range(12)
    ]  # fmt: skip
    path = tmp_path / "rated.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rated))
    out = tmp_path / "out"
    done = cli("curate", str(path), "--output", str(out), "--steps", "control", "--quota", "4:helpfulness=4",
               "--quota", "3:honesty=any", "--quota", "2")  # fmt: skip
    assert done.code == 0, done.err
    made = rows(out / "train.jsonl.gz")
    assert len(made) == 9
    asked = [row["prompt"][-1]["content"] for row in made]
    assert sum(text.startswith("<helpfulness: 4> ") for text in asked) == 4
    assert sum(text.startswith("<honesty: ") for text in asked) == 3
    wanted = [row for row in made if row["prompt"][-1]["content"].startswith("<helpfulness: 4> ")]
    assert all(row["chosen"][0]["content"] == "Fair." or row["rejected"][0]["content"] != "Fair." for row in wanted)


@pytest.mark.parametrize("spec", ["many:helpfulness=4", "4:helpfulness=high", "4"])
def test_quotas_that_cannot_be(cli: Cli, spec: str, tmp_path: Path) -> None:
    done = cli("curate", "embedded", "--output", str(tmp_path / "x"), "--steps", "control", "--quota", spec)
    assert done.code == 2
    assert "--quota" in done.err


def test_densities_for_bco(cli: Cli, tmp_path: Path) -> None:
    """Thumbs down whose prompts are like those of thumbs up weigh more than the rest; then `bco` trains on them."""

    def row(i: int, topic: str, up: bool) -> dict[str, Any]:
        return {"prompt": f"{topic} {i}?", "completion": f"It is {i}.", "label": up}

    rated = [row(i, "Tell me about wild dogs and wolves", True) for i in range(12)]
    rated += [row(i, "Tell me about wild dogs and wolves", False) for i in range(4)]
    rated += [row(i, "What is the sum of four and", False) for i in range(8)]
    path = tmp_path / "labels.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rated))
    out = tmp_path / "out"
    done = cli("curate", str(path), "--output", str(out), "--kind", "labelled", "--steps", "density")
    assert done.code == 0, done.err
    made = rows(out / "train.jsonl.gz")
    found = {(r["label"], "wolves" in r["prompt"][0]["content"]): [] for r in made}
    for r in made:
        found[r["label"], "wolves" in r["prompt"][0]["content"]].append(r["meta"]["density"])
    assert set(found[True, True]) == {1.0}
    assert min(found[False, True]) > max(found[False, False])
    wrong = cli("curate", "embedded", "--output", str(tmp_path / "x"), "--steps", "density")
    assert wrong.code == 2
    assert "--kind labelled" in wrong.err
