"""Reading a run folder: whole, partial and malformed."""

from __future__ import annotations

import json
import math

import pytest

from pluralign.errors import PluralignError, RecordError, SettingsError
from pluralign.reports import read_run

from .conftest import HELD_OUT, info, write_lines, write_run


def test_a_pipeline_is_read_whole(pipeline):
    run = read_run(pipeline)
    assert run.name == "quickstart"
    assert [part.name for part in run.parts] == ["sft", "dpo"]
    assert [stage.name for stage in run.stages] == ["sft", "dpo"]
    assert [row.model for row in run.evaluation.rows] == ["base", "sft", "dpo"]
    assert run.evaluation.rows[2].values["accuracy"].n == HELD_OUT
    assert set(run.evaluation.groups) == {"helpful", "harmless", "red team"}
    assert run.samples[0].prompt[0].role == "system"
    assert run.samples[1].prompt[0].role == "user"
    assert run.samples[1].responses["sft"] == "A crow and a gull."
    assert run.notes == ()


def test_series_and_last_value(single):
    run = read_run(single)
    accuracy = run.series("accuracy", "validation")
    assert accuracy.steps == tuple(range(0, 161, 20))
    assert accuracy.values[0] == 0.5
    assert accuracy.low[0] == pytest.approx(0.447)
    last = run.last("accuracy")
    assert (last.n, last.value, last.high) == (HELD_OUT, accuracy.values[-1], accuracy.high[-1])
    assert run.last("no such reading") is None
    assert run.series("no such reading", "train").steps == ()
    assert all(math.isnan(x) for x in run.series("chosen_length", "validation").low)
    assert "accuracy" in run.names()
    assert not [name for name in run.names() if name.endswith(("_low", "_high"))]


@pytest.mark.parametrize("kept", ["run.json", "metrics.jsonl", "evaluation.json", "samples.jsonl"])
def test_any_one_file_is_enough(pipeline, tmp_path, kept):
    alone = tmp_path / "alone"
    alone.mkdir()
    source = pipeline / kept if (pipeline / kept).exists() else pipeline / "dpo" / kept
    (alone / kept).write_bytes(source.read_bytes())
    run = read_run(alone)
    assert [bool(run.info), bool(run.metrics), run.evaluation is not None, bool(run.samples)].count(True) == 1


def test_parts_stand_in_the_order_they_were_made(tmp_path):
    write_run(tmp_path / "r" / "a", info("preference", "dpo", created="2025-01-02T00:00:00"), [])
    write_run(tmp_path / "r" / "b", info("sft", "sft", created="2025-01-01T00:00:00"), [])
    (tmp_path / "r" / "checkpoint-40").mkdir()
    assert [part.name for part in read_run(tmp_path / "r").parts] == ["b", "a"]


def test_no_run_folder(tmp_path):
    (tmp_path / "inspo").mkdir()
    with pytest.raises(SettingsError, match=r'no run folder "[^"]*/inpso"\. Did you mean "inspo"\?'):
        read_run(tmp_path / "inpso")
    with pytest.raises(SettingsError, match=r"holds none of run\.json"):
        read_run(tmp_path / "inspo")


def test_a_resumed_run_keeps_the_later_values(tmp_path):
    rows = [{"step": s, "phase": "train", "loss": v} for s, v in ((1, 9.0), (2, 8.0), (3, 7.0), (2, 5.0), (3, 4.0))]
    run = read_run(write_run(tmp_path / "r", {}, rows))
    assert run.series("loss", "train").values == (9.0, 5.0, 4.0)
    assert run.notes == ("2 steps were logged more than once (a resumed run); the later values are shown.",)


def test_a_line_cut_off_while_being_written_is_left_out_and_said(tmp_path):
    path = write_run(tmp_path / "r", {}, [{"step": 1, "phase": "train", "loss": 1.0}])
    with (path / "metrics.jsonl").open("a") as f:
        f.write('{"step": 2, "pha')
    run = read_run(path)
    assert len(run.metrics) == 1
    assert "(2) was cut off while being written" in run.notes[0]


def test_not_a_number_is_legal_and_null_is_absent(tmp_path):
    path = write_run(tmp_path / "r", {}, [{"step": 1, "phase": "train", "loss": math.nan, "kl": None}])
    row = read_run(path).metrics[0]
    assert math.isnan(row.numbers["loss"])
    assert "kl" not in row.numbers


def test_unicode_line_separators_do_not_split_a_line(tmp_path):
    (tmp_path / "r").mkdir()
    write_lines(tmp_path / "r" / "samples.jsonl", [{"prompt": "a\u2028b\x85c", "responses": {"m": "x\u2029y"}}])
    assert read_run(tmp_path / "r").samples[0].responses == {"m": "x\u2029y"}


def test_windows_text_is_read(tmp_path):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "metrics.jsonl").write_bytes(b'\xef\xbb\xbf{"step": 1, "phase": "train", "loss": 2}\r\n\r\n')
    assert read_run(tmp_path / "r").metrics[0].numbers == {"loss": 2.0}


GOOD = '{"step": 1, "phase": "train", "loss": 2}\n'
ROW = '{"model": "base", "accuracy": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9}}'


@pytest.mark.parametrize(
    ("name", "text", "line", "message"),
    [
        ("metrics.jsonl", GOOD + "{oops}\n" + GOOD, 2, "not valid JSON"),
        ("metrics.jsonl", GOOD + '"text"\n', 2, "expected an object, found text"),
        ("metrics.jsonl", GOOD + '\n{"phase": "train"}\n', 3, '"step" must be a whole number >= 0, found null'),
        ("metrics.jsonl", '{"step": 1.5, "phase": "train"}\n', 1, "found 1.5"),
        ("metrics.jsonl", '{"step": true, "phase": "train"}\n', 1, "found true"),
        ("metrics.jsonl", '{"step": 1, "phase": "validaton"}\n', 1, 'Did you mean "validation"?'),
        ("metrics.jsonl", '{"step": 1, "phase": "train", "loss": "low"}\n', 1, '"loss" must be a number, found text'),
        ("metrics.jsonl", '{"step": 1, "phase": "train", "kl": 1, "kl_low": 3, "kl_high": 2}\n', 1, "[3, 2]"),
        (
            "metrics.jsonl",
            '{"step": 1, "phase": "train", "kl": 9, "kl_low": 1, "kl_high": 2}\n',
            1,
            "not hold its value",
        ),
        ("metrics.jsonl", GOOD.encode() + b'{"step": "\xff"}\n', 2, "not UTF-8"),
        ("run.json", '{\n  "command": "x",\n  "seed" 3\n}', 3, "not valid JSON"),
        (
            "run.json",
            '{\n  "recipe": "dpo",\n  "data": {\n    "train": "many"\n  }\n}',
            4,
            "data.train: expected a count",
        ),
        (
            "run.json",
            '{\n "data": {"set_aside": {\n  "duplicate": -1}}}',
            3,
            "data.set_aside.duplicate: expected a count",
        ),
        ("run.json", '{\n\n"status": "finishd"}', 3, 'Did you mean "finished"?'),
        ("run.json", '{\n"settings": [1]}', 2, "settings: expected an object, found a list"),
        ("run.json", '{"seconds": -4}', 1, "seconds: expected a number >= 0, found -4"),
        ("run.json", "[]", 1, "expected an object, found a list"),
        ("evaluation.json", '{"on": "x"}', 1, "rows: expected a list of rows, found null"),
        (
            "evaluation.json",
            f'{{"rows": [\n{ROW},\n{{"accuracy": 1}}]}}',
            3,
            'rows[1]: a row needs the name of its "model"',
        ),
        ("evaluation.json", f'{{"rows": [\n{ROW},\n{ROW}]}}', 3, 'rows[1]: the model "base" has two rows'),
        ("evaluation.json", '{"rows": [\n{"model": "m",\n"accuracy": {"value": 1}}]}', 3, 'an estimate needs "n"'),
        ("evaluation.json", '{"rows": [{"model": "m", "kl": [1]}]}', 1, "rows[0].kl: expected an object, found a list"),
        (
            "evaluation.json",
            '{"rows": [], "groups": {\n"g": [\n{"model": "m", "kl": {"value": 2, "low": 3, "high": 4, "n": 1}}]}}',
            3,
            "groups.g[0].kl: the interval [3, 4] does not hold the value 2",
        ),
        ("samples.jsonl", '{"responses": {}}\n', 1, 'a sample needs a "prompt"'),
        (
            "samples.jsonl",
            '{"prompt": "a", "responses": {}}\n{"prompt": [3], "responses": {}}\n',
            2,
            "message 0 is not a",
        ),
        ("samples.jsonl", '{"prompt": "a"}\n', 1, '"responses" must be an object of texts by model, found null'),
        (
            "samples.jsonl",
            '{"prompt": "a", "responses": {"m": 3}}\n',
            1,
            'the response of "m" must be text, found a number',
        ),
        ("samples.jsonl", '{"prompt": "a", "resp', 1, "the last line is cut off"),
    ],
)
def test_a_malformed_file_is_one_clear_line(tmp_path, name, text, line, message):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(PluralignError) as caught:
        read_run(tmp_path)
    assert isinstance(caught.value, RecordError)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_malformed_part_names_its_own_file(pipeline):
    (pipeline / "dpo" / "metrics.jsonl").write_text("3\n")
    with pytest.raises(RecordError, match=r"dpo/metrics\.jsonl:1: expected an object"):
        read_run(pipeline)


def test_unknown_entries_of_run_json_are_kept(tmp_path):
    path = write_run(tmp_path / "r", info("sft", "sft", device="cpu", model="a name"), [])
    assert json.loads((path / "run.json").read_text())["device"] == read_run(path).info["device"] == "cpu"
