"""The loader: passes, limits, kinds, the quarantine file, the hub, and what it prints."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pluralign.data import load
from pluralign.errors import RecordError, SettingsError
from pluralign.records import Demonstration, Labelled, Preference, Ranked

Write = Callable[..., Path]


def row(n: int, **more: Any) -> dict[str, Any]:
    return {"prompt": f"Name fruit number {n}.", "chosen": "An apple.", "rejected": "A carrot.", **more}


def test_a_source_is_read_again_on_every_pass(write: Write) -> None:
    loaded = load(write("pairs.jsonl", [row(n) for n in range(5)]))
    assert loaded.records() == loaded.records()
    assert (loaded.counts.rows, loaded.counts.records, loaded.counts.balanced) == (5, 5, True)
    assert loaded.describe() == "5 pairs (prompt/chosen/rejected)"


def test_rows_in_memory(write: Write) -> None:
    assert len(load([row(1), row(2)]).records()) == 2
    kept = load(row(n) for n in range(100))
    assert len(kept.records()) == len(kept.records()) == 100
    once = load((row(n) for n in range(100)), streaming=True)
    assert [r.prompt[0].content for r in once] == [f"Name fruit number {n}." for n in range(100)]
    with pytest.raises(SettingsError, match="only once"):
        list(once)
    records = load([row(1, weight=2.0, id=3)]).records()
    assert load(records).records() == records
    with pytest.raises(SettingsError, match="mapping"):
        load({"train": [row(1)]})  # type: ignore[arg-type]
    with pytest.raises(RecordError, match="expected a mapping of fields"):
        list(load([row(1), 5]))


def test_limit(write: Write) -> None:
    loaded = load(write("pairs.jsonl", [row(n) for n in range(50)]), limit=7)
    assert len(loaded.records()) == 7
    assert loaded.counts.rows == 7
    assert "7 pairs (prompt/chosen/rejected), stopped at the limit of 7" in loaded.describe()
    with pytest.raises(SettingsError, match="at least 1"):
        load([row(1)], limit=0)


def test_description_of_what_was_set_aside(write: Write, tmp_path: Path) -> None:
    rows = [row(n) for n in range(1290)] + [row(0, chosen="")] * 3 + [row(0, chosen="A carrot.")] * 4
    aside = tmp_path / "q.jsonl"
    loaded = load(write("pairs.jsonl", rows), bad_rows="quarantine", quarantine=aside)
    assert loaded.describe() == (
        "1,290 pairs (prompt/chosen/rejected) · 7 rows set aside: 4 chosen equals rejected, 3 empty" + f" ({aside})"
    )


def test_no_usable_row_is_an_error(write: Write, tmp_path: Path) -> None:
    path = write("pairs.jsonl", [row(1, chosen=""), row(2, chosen=" ")])
    with pytest.raises(RecordError, match=r"no record in 2 rows \(2 empty; the first is .*:1: \"chosen\" is empty\)"):
        load(path, bad_rows="quarantine", quarantine=tmp_path / "q.jsonl").count()


def test_one_odd_row_does_not_choose_the_format(write: Write, tmp_path: Path) -> None:
    rows: list[Any] = [{"prompt": "q", "completion": "a"}, "{", row(1), row(2)]
    path = write("pairs.jsonl", rows)
    loaded = load(path, bad_rows="quarantine", quarantine=tmp_path / "q.jsonl")
    assert len(loaded.records()) == 2
    assert loaded.format == "pair"
    with pytest.raises(RecordError, match=r"pairs.jsonl:1: no field \"chosen\" \(fields found: prompt, completion\)"):
        list(load(path))


# --- the quarantine file ------------------------------------------------------------------------------------------


def entries(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_reading_again_replaces_only_the_rows_of_the_same_source(write: Write, tmp_path: Path) -> None:
    aside = tmp_path / "runs" / "q.jsonl"
    first = write("a.jsonl", [row(1), row(2, chosen=""), "{"])
    second = write("b.jsonl", [row(1, rejected=""), row(2)])
    one = load(first, bad_rows="quarantine", quarantine=aside)
    two = load(second, bad_rows="quarantine", quarantine=aside)
    one.count()
    two.count()
    list(one)  # a second pass writes nothing twice
    assert [e["where"] for e in entries(aside)] == [f"{first}:2", f"{first}:3", f"{second}:1"]
    write("a.jsonl", [row(1), row(2, chosen="")])
    load(first, bad_rows="quarantine", quarantine=aside).count()
    assert [e["where"] for e in entries(aside)] == [f"{second}:1", f"{first}:2"]


def test_a_row_is_on_disk_before_the_next_record(write: Write, tmp_path: Path) -> None:
    aside = tmp_path / "q.jsonl"
    records = iter(load(write("a.jsonl", [row(1, chosen=""), row(2), row(3)]), bad_rows="quarantine", quarantine=aside))
    next(records)
    assert len(entries(aside)) == 1


def test_only_the_first_process_of_a_run_writes(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    aside = tmp_path / "q.jsonl"
    loaded = load(write("a.jsonl", [row(1, chosen=""), row(2)]), bad_rows="quarantine", quarantine=aside)
    assert loaded.count().bad == {"empty": 1}
    assert not aside.exists()


def test_the_default_quarantine(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    load(write("a.jsonl", [row(1, chosen=""), row(2)]), bad_rows="quarantine").count()
    assert len(entries(tmp_path / "runs" / "quarantine.jsonl")) == 1
    with pytest.raises(SettingsError, match="unknown treatment"):
        load([row(1)], bad_rows="drop")  # type: ignore[arg-type]


# --- kinds --------------------------------------------------------------------------------------------------------


def test_kinds_are_converted_where_that_has_a_meaning() -> None:
    ranked = [{"prompt": "q", "responses": ["a", "b", "c"], "scores": [1, 3, 2]}]
    (pair,) = load(ranked, kind=Preference)
    assert (pair.chosen[0].content, pair.rejected[0].content, pair.margin) == ("b", "a", 2.0)
    assert len(load(ranked, kind="preference", pairs="all").records()) == 3
    (shown,) = load(ranked, kind="demonstration")
    assert isinstance(shown, Demonstration)
    assert shown.response[0].content == "b"
    up, down = load([row(1)], kind="labelled")
    assert isinstance(up, Labelled)
    assert isinstance(down, Labelled)
    assert (up.label, down.label, down.response[0].content) == (True, False, "A carrot.")
    (ranking,) = load([row(1, score_chosen=9, score_rejected=7)], kind="ranked")
    assert isinstance(ranking, Ranked)
    assert ranking.scores == (9.0, 7.0)
    thumbs = [{"prompt": "q", "completion": "a", "label": n == 0} for n in range(3)]
    loaded = load(thumbs, kind="demonstration")
    assert len(loaded.records()) == 1
    assert loaded.counts.skipped == {"thumb down": 2}


def test_kinds_that_cannot_be_made_are_refused() -> None:
    shown = [{"prompt": "q", "completion": "a"}]
    with pytest.raises(SettingsError, match="the data are demonstration records, but preference records are needed"):
        list(load(shown, kind="preference"))
    with pytest.raises(SettingsError, match="unknown kind"):
        load(shown, kind="opinion")
    with pytest.raises(SettingsError, match='Did you mean "best_worst"'):
        load(shown, pairs="bestworst")  # type: ignore[arg-type]


# --- the hub ------------------------------------------------------------------------------------------------------


def test_no_hub_is_one_clear_line() -> None:
    with pytest.raises(SettingsError) as caught:
        load("some-org/some-data")
    message = str(caught.value)
    assert 'cannot load "some-org/some-data" from the hub: HF_HUB_OFFLINE is set' in message
    assert "Pass a local file" in message
    assert "\n" not in message


class _Hub:
    """Stands for `datasets.load_dataset`, with the splits of a well-known set."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def __call__(self, name: str, config: str | None, *, split: str | None, streaming: bool) -> Any:
        import datasets

        self.asked.append((name, config, split, streaming))
        made = {s: datasets.Dataset.from_list([row(n) for n in range(3)]) for s in ("train", "test")}
        if name == "org/two":
            made = {f"{s}_prefs": data for s, data in made.items()}
        if split is not None and split not in made:
            raise ValueError(f'Unknown split "{split}". Should be one of {list(made)}.')
        found = {s: data.to_iterable_dataset() if streaming else data for s, data in made.items()}
        return found if split is None else found[split]


def test_hub_names_configurations_and_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    hub = _Hub()
    monkeypatch.setattr(datasets, "load_dataset", hub)
    loaded = load("org/data:config", streaming=True)
    assert loaded.name == "org/data:config [train]"
    assert len(loaded.records()) == len(loaded.records()) == 3
    assert hub.asked == [("org/data", "config", None, True)]
    assert len(load("org/data", split="test").records()) == 3
    with pytest.raises(SettingsError, match="several splits: train_prefs, test_prefs"):
        load("org/two")
    with pytest.raises(SettingsError, match='Unknown split "dev"'):
        load("org/data", split="dev")


def test_a_data_set_object_is_rows_in_memory() -> None:
    import datasets

    loaded = load(datasets.Dataset.from_list([row(n) for n in range(3)]))
    assert len(loaded.records()) == len(loaded.records()) == 3
    with pytest.raises(SettingsError, match="the splits train"):
        load(datasets.DatasetDict({"train": datasets.Dataset.from_list([row(1)])}))


def test_a_saved_data_set_is_a_folder(tmp_path: Path) -> None:
    import datasets

    datasets.Dataset.from_list([row(n) for n in range(3)]).save_to_disk(str(tmp_path / "saved"))
    assert len(load(tmp_path / "saved").records()) == 3


def test_the_data_room_does_not_load_torch(write: Write) -> None:
    path = write("pairs.jsonl", [row(1)])
    code = (
        "import sys, pluralign.data as d; list(d.load(sys.argv[1]));"
        "heavy = {'torch', 'transformers', 'datasets', 'pyarrow', 'matplotlib'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, cwd=Path(__file__).parents[2])
