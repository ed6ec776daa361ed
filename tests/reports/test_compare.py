"""Runs side by side."""

from __future__ import annotations

import io
import json

import pytest

from pluralign.errors import SettingsError
from pluralign.reports import compare, comparison_table, read_run

from .conftest import dpo_metrics, evaluation, info, write_run


def printed(runs) -> str:
    from rich.console import Console

    console = Console(file=io.StringIO(), width=140)
    console.print(comparison_table(runs))
    return console.file.getvalue()


@pytest.fixture
def other(tmp_path):
    changed = info("preference", "inspo", seed=3)
    changed["settings"]["objective"] |= {"beta": 0.3, "draft_cap": 0.4}
    return write_run(tmp_path / "inspo", changed, dpo_metrics(80))


def test_only_settings_that_differ(single, other):
    found = compare([single, other])
    assert found.names == ("dpo", "inspo")
    assert dict(found.settings) == {
        "recipe": ("dpo", "inspo"),
        "seed": ("17", "3"),
        "objective.name": ("dpo", "inspo"),
        "objective.beta": ("0.1", "0.3"),
        "objective.draft_cap": ("–", "0.4"),
    }
    assert found.notes == ()


def test_final_values_carry_their_intervals(single, other):
    finals = dict(compare([single, other]).finals)
    assert [str(e) for e in finals["accuracy, last validation"]] == [".63 ± .05 (n = 322)", ".60 ± .05 (n = 322)"]


def test_a_pipeline_stands_for_its_last_stage(pipeline, other):
    finals = dict(compare([pipeline, other]).finals)
    assert str(finals["accuracy, evaluation"][0]) == ".63 ± .05 (n = 322)"
    assert finals["accuracy, evaluation"][1] is None
    assert dict(compare([pipeline, other]).settings)["objective.beta"] == ("0.2", "0.3")


def test_the_page(single, other, tmp_path):
    out = tmp_path / "compare.html"
    assert compare([single, other], out) == compare([single, other])
    text = out.read_text()
    assert text.count("<svg") == 13  # ten readings in pairs of curves, learning rate, gradient norm, speed
    assert "objective.draft_cap" in text
    assert "paired difference" in text
    before = out.read_bytes()
    compare([read_run(single), read_run(other)], out)
    assert out.read_bytes() == before


def test_the_terminal_table(single, other):
    text = printed([single, other])
    assert "accuracy, last validation  .63 ± .05 (n = 322)" in text
    assert "settings that differ" in text
    assert "objective.draft_cap" in text


def test_names_are_no_markup(tmp_path):
    for name in ("[red]a[/red]", "[b]"):
        write_run(tmp_path / name.replace("/", "|"), info("preference", "[i]dpo", model="[u]" + name), dpo_metrics(20))
    text = printed(sorted(p for p in tmp_path.iterdir()))
    assert "[b]" in text
    assert "[red]a[|red]" in text
    assert "[u][b]" in text


def test_runs_of_one_name_are_told_apart(tmp_path):
    for parent in ("first", "second"):
        write_run(tmp_path / parent / "dpo", info("preference", "dpo"), dpo_metrics(20))
    assert compare([tmp_path / "first/dpo", tmp_path / "second/dpo"]).names == ("first/dpo", "second/dpo")
    assert compare([tmp_path / "first/dpo"] * 2).names == ("first/dpo (1)", "first/dpo (2)")


def test_what_is_not_comparable_is_said(single, other):
    (single / "evaluation.json").write_text(json.dumps(evaluation()))
    (other / "evaluation.json").write_text(json.dumps({**evaluation(), "on": "other pairs"}))
    changed = json.loads((other / "run.json").read_text())
    changed["data"]["fingerprint"] = "sha256:other"
    (other / "run.json").write_text(json.dumps(changed))
    first, second = compare([single, other]).notes
    assert "different items" in first
    assert "different data" in second
    assert "different data" in printed([single, other])


def test_one_run_is_no_comparison(single):
    with pytest.raises(SettingsError, match="at least two runs, found 1"):
        compare([single])
