"""`pluralign evaluate preferences`, `compare` and `report`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pluralign.judging.scores import read_scores

from .conftest import Cli


@pytest.fixture
def two_runs(cli: Cli, short: list[str]) -> None:
    assert cli("align", "dpo", *short, "--output", "runs/dpo").code == 0
    assert cli("align", "simpo", *short, "--output", "runs/simpo").code == 0


def test_models_side_by_side(cli: Cli, two_runs: None, tiny_model: str, pairs_file: str, tmp_path: Path) -> None:
    models = [f"base={tiny_model}", "runs/dpo", "new=runs/simpo"]
    arguments = ["evaluate", "preferences", *models, "--reference", "base", "--data", pairs_file, "--limit", "20"]
    shown = cli(*arguments, "--output", "judged")
    assert shown.code == 0
    header = shown.out.splitlines()[0].split()
    assert header == ["base", "dpo", "new"]
    for words in ("accuracy", "implicit accuracy", "margin", "kl", "accuracy difference", "95 % intervals", "n = 20"):
        assert words in shown.out
    found = json.loads(cli(*arguments, "--json").out)
    assert found == json.loads((tmp_path / "judged" / "evaluation.json").read_text())
    assert [row["model"] for row in found["rows"]] == ["base", "dpo", "new"]
    assert len(read_scores(tmp_path / "judged")) == 20


def test_compare_runs_by_settings_and_by_pairs(cli: Cli, two_runs: None, pairs_file: str, tmp_path: Path) -> None:
    plain = cli("compare", "runs/dpo", "runs/simpo", "--output", "side.html")
    assert plain.code == 0
    assert "settings that differ" in plain.out
    assert "objective.name" in plain.out
    assert "paired" not in plain.out.replace("paired difference on the same items", "")
    assert (tmp_path / "side.html").is_file()
    for name in ("dpo", "simpo"):
        assert (
            cli("evaluate", "preferences", f"runs/{name}", "--data", pairs_file, "--output", f"runs/{name}").code == 0
        )
    paired = cli("compare", "runs/dpo", "runs/simpo")
    assert "paired, simpo − dpo: accuracy" in paired.out
    found = json.loads(cli("compare", "runs/dpo", "runs/simpo", "--json").out)
    assert found["paired"]["simpo − dpo"]["accuracy"]["n"] == 64
    judged = json.loads(cli("compare", "runs/dpo", "runs/simpo", "--on", pairs_file, "--limit", "9", "--json").out)
    assert [row["accuracy"]["n"] for row in judged["judged"]["rows"]] == [9, 9]
    assert "accuracy_difference" in judged["judged"]["rows"][1]


def test_report_of_a_run(cli: Cli, two_runs: None, tmp_path: Path) -> None:
    path = tmp_path / "runs" / "dpo" / "report.html"
    path.unlink()
    assert cli("report", "runs/dpo").out.strip() == "runs/dpo/report.html"
    assert path.is_file()
    assert json.loads(cli("report", "runs/dpo", "--json").out) == {"report": "runs/dpo/report.html"}
