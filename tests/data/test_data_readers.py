"""Files as people have them: damaged, misnamed, zipped, empty. Each mistake is one clear line with its place."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pluralign.data import load
from pluralign.data import readers as room
from pluralign.errors import PluralignError, RecordError, SettingsError

Write = Callable[..., Path]
GOOD = {"prompt": "Name a fruit.", "chosen": "An apple.", "rejected": "A carrot."}


def other(n: int) -> dict[str, Any]:
    return {**GOOD, "prompt": f"Name fruit number {n}."}


def refused(source: Any, **options: Any) -> PluralignError:
    with pytest.raises(PluralignError) as caught:
        list(load(source, **options))
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith((".", "?"))
    return caught.value


def test_json_lines_with_blank_lines_a_mark_and_windows_ends(write: Write) -> None:
    text = "\ufeff" + json.dumps(GOOD) + "\r\n\r\n  \n" + json.dumps(other(1))
    loaded = load(write("pairs.jsonl", text.encode()))
    assert len(loaded.records()) == 2
    assert (loaded.counts.rows, loaded.counts.blank) == (2, 2)


def test_line_separators_inside_text_are_text(write: Write) -> None:
    row = {**GOOD, "chosen": "a\u2028b\u0085c"}
    (record,) = load(write("pairs.jsonl", [row]))
    assert record.chosen[0].content == "a\u2028b\u0085c"


@pytest.mark.parametrize(
    ("line", "reason", "category"),
    [
        ('{"prompt": "q", "chosen": "a", "rej', "is not JSON", "not JSON"),
        ("[1, 2]", "expected a JSON object on the line, found a list", "not JSON"),
        ('{"prompt": "q", "chosen": "a"}', 'no field "rejected" (fields found: prompt, chosen)', "missing field"),
        ('{"prompt": "q", "chosen": "a", "rejected": ""}', '"rejected" is empty', "empty"),
        ('{"prompt": "q", "chosen": "a", "rejected": "a"}', '"chosen" equals "rejected"', "chosen equals rejected"),
        ('{"prompt": "q", "chosen": 5, "rejected": "a"}', 'in "chosen", found a number', "wrong type"),
        ('{"prompt": "q", "chosen": NaN, "rejected": "a"}', 'in "chosen", found NaN', "not a finite number"),
        ('{"prompt": "q", "chosen": null, "rejected": "a"}', 'no field "chosen"', "missing field"),
        ('{"prompt": "q", "chosen": "a\\ud83d", "rejected": "b"}', "half a surrogate pair", "not UTF-8"),
        ('{"prompt": "q", "ch\\nosen\\ud800": "a"}', "prompt, ch\\nosen\\ud800", "missing field"),
        ('{"a":' * 3000, "too deep", "not JSON"),
        ('{"a": ' + "1" * 5000 + "}", "a number too long", "not JSON"),
    ],
)
def test_a_bad_line_stops_with_its_place_or_is_set_aside(
    write: Write, tmp_path: Path, line: str, reason: str, category: str
) -> None:
    path = write("pairs.jsonl", [GOOD, line, other(1), other(2)])
    error = refused(path)
    assert isinstance(error, RecordError)
    assert error.where == f"{path}:2"
    assert reason in error.reason
    assert error.remedy == "Fix the row, or pass --bad-rows quarantine to set such rows aside (1 of 4 rows)."
    aside = tmp_path / "aside" / "q.jsonl"
    loaded = load(path, bad_rows="quarantine", quarantine=aside)
    assert len(loaded.records()) == 3
    assert loaded.counts.bad == {category: 1}
    (entry,) = [json.loads(text) for text in aside.read_text().splitlines()]
    assert (entry["where"], entry["source"]) == (f"{path}:2", str(path))
    assert reason in entry["reason"]
    if category == "not JSON":
        assert entry["row"] == line
    else:
        assert json.dumps(entry["row"]) == json.dumps(json.loads(line))


def test_the_remedy_counts_every_bad_row(write: Write) -> None:
    rows = [other(n) for n in range(9_409)] + ["{", {**GOOD, "chosen": ""}, "{"]
    assert "(3 of 9,412 rows)" in refused(write("pairs.jsonl", rows)).remedy


def test_bytes_that_are_not_utf8(write: Write, tmp_path: Path) -> None:
    line = json.dumps(GOOD).encode()
    path = write("pairs.jsonl", line + b"\n" + line.replace(b"apple", b"app\xffe") + b"\n" + line + b"\n")
    error = refused(path)
    assert (error.where, "byte 0xff" in str(error)) == (f"{path}:2", True)  # type: ignore[attr-defined]
    load(path, bad_rows="quarantine", quarantine=tmp_path / "q.jsonl").count()
    assert "app\\xffe" in json.loads((tmp_path / "q.jsonl").read_text())["row"]


def test_files_that_hold_no_rows(write: Write) -> None:
    assert "the file is empty" in str(refused(write("empty.jsonl", b"")))
    assert "there are no rows" in str(refused(write("blank.jsonl", b"\n\n")))
    assert "there are no rows" in str(refused(write("array.json", b" [ ] ")))
    assert "there are no rows" in str(refused(write("header.csv", b"prompt,chosen,rejected\n")))
    assert "there are no rows" in str(refused(write("zipped.jsonl.gz", b"")))
    assert "there are no rows" in str(refused([]))


def test_names_that_do_not_exist(write: Write, tmp_path: Path) -> None:
    write("pairs.jsonl", [GOOD])
    assert 'Did you mean "pairs.jsonl"?' in str(refused(tmp_path / "pair.jsonl"))
    assert "no folder" in str(refused(tmp_path / "nowhere" / "pairs.jsonl"))
    assert "written org/name" in str(refused("ultrafeedback_binarised"))
    assert "cannot tell how to read" in str(refused(write("pairs.txt", [GOOD])))
    assert "cannot tell how to read" in str(refused(write("pairs.parquet.gz", [GOOD])))


def test_files_that_are_something_else(write: Write) -> None:
    assert "UTF-16" in str(refused(write("wide.jsonl", json.dumps(GOOD).encode("utf-16"))))
    assert "Git LFS pointer" in str(refused(write("pointer.jsonl", b"version https://git-lfs.github.com/spec/v1\n")))
    assert "Parquet" in str(refused(write("misnamed.jsonl", b"PAR1....")))
    assert "not a gzip file" in str(refused(_named(write("x.jsonl", [GOOD]), "plain.jsonl.gz")))
    assert "one JSON object over several lines" in str(refused(write("o.json", json.dumps(GOOD, indent=1).encode())))
    assert "not a readable Parquet" in str(refused(write("broken.parquet", b"PAR1 and then nothing")))
    assert "not a readable Arrow" in str(refused(write("broken.arrow", b"nothing of the kind")))


def _named(path: Path, name: str) -> Path:
    return path.rename(path.with_name(name))


def test_a_zipped_file_under_a_plain_name_is_read(write: Write) -> None:
    path = write("x.jsonl", gzip.compress(json.dumps(GOOD).encode()))
    assert len(load(path).records()) == 1


def test_a_cut_gzip_stream_stops_even_in_quarantine(write: Write, tmp_path: Path) -> None:
    path = write("pairs.jsonl.gz", [other(n) for n in range(20_000)])
    path.write_bytes(path.read_bytes()[:-2000])
    error = refused(path, bad_rows="quarantine", quarantine=tmp_path / "q.jsonl")
    assert "damaged or cut short" in str(error)


# --- arrays -------------------------------------------------------------------------------------------------------


def test_arrays_of_any_layout(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{**other(n), "note": 'é\u2028🙂 [{]}\\" ' * n, "x": [1, {"y": -1.5e-3}], "n": n} for n in range(40)]
    want = load(rows).records()
    for chunk in (1, 3, 7, 64, 1 << 20):
        monkeypatch.setattr(room, "CHUNK", chunk)
        for indent in (None, 2):
            for ascii_only in (True, False):
                text = json.dumps(rows, indent=indent, ensure_ascii=ascii_only)
                assert load(write("rows.json", ("\ufeff \n" + text + "\n ").encode())).records() == want


def test_bad_elements_have_their_index(write: Write, tmp_path: Path) -> None:
    path = write("rows.json", json.dumps([GOOD, {**GOOD, "chosen": ""}, 5]).encode())
    assert refused(path).where == f"{path}[1]"  # type: ignore[attr-defined]
    loaded = load(path, bad_rows="quarantine", quarantine=tmp_path / "q.jsonl")
    assert len(loaded.records()) == 1
    assert loaded.counts.bad == {"empty": 1, "not an object": 1}


@pytest.mark.parametrize("damage", [b"", b"]]", b'{"a": }]', b"{]", b'"', b"tru]", b"] and more", b'{"a": "\n"}]'])
@pytest.mark.parametrize("chunk", [4, 1 << 20])
def test_a_broken_array_is_never_cut_short_silently(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes, chunk: int
) -> None:
    monkeypatch.setattr(room, "CHUNK", chunk)
    path = write("rows.json", b"[" + json.dumps(GOOD).encode() + b"," + damage)
    error = refused(path, bad_rows="quarantine", quarantine=tmp_path / "q.jsonl")
    assert f"{path}[1]" in str(error) or (damage == b"] and more" and f"{path}[1]" in str(error))
    assert "not valid JSON from here on" in str(error)


def test_bytes_that_are_not_utf8_spoil_one_element(write: Write, tmp_path: Path) -> None:
    text = json.dumps([GOOD, other(1), GOOD]).encode().replace(b"number 1", b"number \xff")
    path = write("rows.json", text)
    loaded = load(path, bad_rows="quarantine", quarantine=tmp_path / "q.jsonl")
    assert len(loaded.records()) == 2
    assert loaded.counts.bad == {"not UTF-8": 1}


def test_json_lines_named_json(write: Write) -> None:
    path = write("rows.json", [GOOD, {**GOOD, "chosen": ""}])
    assert refused(path).where == f"{path}:2"  # type: ignore[attr-defined]


# --- CSV, Parquet, Arrow ------------------------------------------------------------------------------------------


def test_csv(write: Write, tmp_path: Path) -> None:
    turns = json.dumps([{"role": "user", "content": "q?"}])
    quoted = '"' + turns.replace('"', '""') + '"'
    lines = ["prompt,chosen,rejected,weight", '"Name\na fruit.",An apple.,A carrot.,0.5', ",,,",
             f"{quoted},[not json,b,", "a,b", 'q,"x"y,b,', "q,,b,"]  # fmt: skip
    path = write("pairs.csv", ("\ufeff" + "\r\n".join(lines) + "\r\n").encode())
    loaded = load(path, bad_rows="quarantine", quarantine=tmp_path / "q.jsonl")
    first, second = loaded
    assert (first.prompt[0].content, first.weight) == ("Name\na fruit.", 0.5)
    assert (second.prompt[0].content, second.chosen[0].content, second.weight) == ("q?", "[not json", 1.0)
    assert loaded.counts.bad == {"not valid CSV": 2, "empty": 1}
    assert loaded.counts.blank == 1
    entries = [json.loads(line) for line in (tmp_path / "q.jsonl").read_text().splitlines()]
    assert [e["where"] for e in entries] == [f"{path}:5", f"{path}:6", f"{path}:7"]
    assert [e["row"] for e in entries[:2]] == ["a,b", 'q,"x"y,b,']
    assert load(write("pairs.tsv.gz", b"prompt\tchosen\trejected\nq\ta,b\tc\n")).records()[0].chosen[0].content == "a,b"


def test_csv_that_cannot_be_parted(write: Write, tmp_path: Path) -> None:
    path = write("pairs.csv", b'prompt,chosen,rejected\nq,a,b\nq,"a,b\nq,a,b\n')
    error = refused(path, bad_rows="quarantine", quarantine=tmp_path / "q.jsonl")
    assert "quotation mark is never closed" in str(error)
    assert "twice" in str(refused(write("twice.csv", b"prompt,prompt\nq,a\n")))


def test_parquet_and_arrow(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{**other(n), "weight": None if n else 0.5} for n in range(600)]
    rows[400] = {**rows[400], "chosen": ""}
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=100)
    with pa.OSFile(str(tmp_path / "stream.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as out:
        out.write_table(table)
    with pa.OSFile(str(tmp_path / "file.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as out:
        out.write_table(table, max_chunksize=100)
    for name in ("rows.parquet", "stream.arrow", "file.arrow"):
        path = tmp_path / name
        assert refused(path).where == f"{path}:401"  # type: ignore[attr-defined]
        loaded = load(path, bad_rows="quarantine", quarantine=tmp_path / "q.jsonl")
        records = loaded.records()
        assert len(records) == 599
        assert (records[0].weight, records[1].weight) == (0.5, 1.0)


def test_parquet_with_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    bad = pa.array([b"a", b"\xff"], pa.binary()).view(pa.string())
    table = pa.table({"prompt": ["q", "q"], "chosen": bad, "rejected": ["b", "b"]})
    pq.write_table(table, tmp_path / "rows.parquet")
    loaded = load(tmp_path / "rows.parquet", bad_rows="quarantine", quarantine=tmp_path / "q.jsonl")
    assert len(loaded.records()) == 1
    assert loaded.counts.bad == {"not UTF-8": 1}


# --- folders ------------------------------------------------------------------------------------------------------


def test_a_folder_is_its_files_in_order(write: Write, tmp_path: Path) -> None:
    write("set/b.jsonl", [other(2)])
    write("set/a.json", json.dumps([other(1)]).encode())
    write("set/c.jsonl.gz", [{"prompt": "q", "completion": "a"}])
    write("set/README.md", b"not data")
    loaded = load(tmp_path / "set")
    assert [r.prompt[0].content for r in loaded] == ["Name fruit number 1.", "Name fruit number 2.", "q"]
    assert loaded.format == "pair, completion"
    assert loaded.describe() == "2 pairs and 1 demonstration (prompt/chosen/rejected, prompt/completion)"


def test_splits_of_a_folder_are_never_mixed(write: Write, tmp_path: Path) -> None:
    write("set/train-00.jsonl", [other(1)])
    write("set/train-01.jsonl", [other(2)])
    write("set/test.jsonl", [other(3)])
    write("set/contest.jsonl", [other(4)])
    with pytest.raises(SettingsError, match=r"several splits \(test, train\)"):
        load(tmp_path / "set")
    assert len(load(tmp_path / "set", split="train").records()) == 2
    assert len(load(tmp_path / "set", split="test").records()) == 1
    with pytest.raises(SettingsError, match='Did you mean "train"'):
        load(tmp_path / "set", split="trian")
    with pytest.raises(SettingsError, match="is a file"):
        load(tmp_path / "set" / "test.jsonl", split="test")
    (tmp_path / "none" / "inner").mkdir(parents=True)
    with pytest.raises(SettingsError, match="It has the folders inner"):
        load(tmp_path / "none")
