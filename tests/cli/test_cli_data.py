"""`pluralign data`: inspect, audit, convert."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import pluralign as pa

from .conftest import Cli

ROWS = [{"q": f"Question {i}?", "good": "Yes, gladly.", "bad": "No."} for i in range(5)]
COLUMNS = ["--columns", "prompt=q", "--columns", "chosen=good", "--columns", "rejected=bad"]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def test_inspect_for_people_and_for_scripts(cli: Cli, rows: Path) -> None:
    shown = cli("data", "inspect", rows, *COLUMNS)
    assert shown.code == 0
    for words in ("5 preference", "Question 0?", "chosen, assistant: Yes, gladly.", "p50"):
        assert words in shown.out
    found = json.loads(cli("data", "inspect", rows, *COLUMNS, "--limit", "3", "--examples", "1", "--json").out)
    assert (found["records"], len(found["examples"]), found["first_bad"]) == (3, 1, None)


def test_inspect_counts_bad_rows_instead_of_stopping(cli: Cli, rows: Path, tmp_path: Path) -> None:
    rows.write_text(rows.read_text() + '{"q": "x", "good": "", "bad": "y"}\n{\n')
    shown = cli("data", "inspect", rows, *COLUMNS)
    assert shown.code == 0
    assert "2 malformed rows; the first is" in shown.err
    assert "rows.jsonl:6" in shown.err
    assert not (tmp_path / "runs").exists()  # it only looked
    found = json.loads(cli("data", "inspect", rows, *COLUMNS, "--json").out)
    assert sum(found["set_aside"].values()) == 2


def test_the_shipped_pairs_by_name(cli: Cli) -> None:
    found = json.loads(cli("data", "inspect", "embedded", "--json").out)
    assert found["records"] == 1385


def test_audit_shows_tokens_and_fails_on_a_breach(cli: Cli, rows: Path, tiny_model: str, tmp_path: Path) -> None:
    shown = cli("data", "audit", rows, *COLUMNS, "--model", tiny_model, "--show", "1", "--ids")
    assert shown.code == 0
    assert "ok: 5 rows, no breaches" in shown.out
    assert "<bos>" in shown.out
    assert "<target>" in shown.out
    bad = tmp_path / "bad.jsonl"
    bad.write_text(json.dumps({"prompt": "a", "chosen": "b <|end|>", "rejected": "c"}) + "\n")
    broken = cli("data", "audit", bad, "--model", tiny_model, "--json")
    assert broken.code == 3
    found = json.loads(broken.out)
    assert len(found["breaches"]) == 1
    assert "control token" in found["breaches"][0]


def test_audit_renders_as_a_trained_run_would(cli: Cli, short: list[str], rows: Path) -> None:
    """A run folder brings its own length and template."""
    assert cli("align", "dpo", *short, "template=plain", "--output", "run").code == 0
    found = json.loads(cli("data", "audit", rows, *COLUMNS, "--model", "run", "--json").out)
    assert (found["template"], found["max_length"]) == ("plain", 128)
    found = json.loads(cli("data", "audit", rows, *COLUMNS, "--model", "run", "--template", "chat", "--json").out)
    assert found["template"] == "chat"


def test_convert_writes_what_load_reads_back(cli: Cli, rows: Path, tmp_path: Path) -> None:
    done = cli("data", "convert", rows, "out/pairs.jsonl.gz", *COLUMNS)
    assert done.code == 0
    assert "5 rows written to out/pairs.jsonl.gz" in done.out
    again = list(pa.load(tmp_path / "out" / "pairs.jsonl.gz"))
    assert [r.prompt[0].content for r in again] == [row["q"] for row in ROWS]
    refused = cli("data", "convert", rows, "out/pairs.jsonl.gz", *COLUMNS)
    assert refused.code == 2
    assert "--overwrite" in refused.err
    replaced = cli("data", "convert", rows, "out/pairs.jsonl.gz", *COLUMNS, "--overwrite", "--limit", "2", "--json")
    assert json.loads(replaced.out)["written"] == 2
    responses = cli("data", "convert", rows, "sft.jsonl", *COLUMNS, "--kind", "demonstration")
    assert responses.code == 0
    assert json.loads((tmp_path / "sft.jsonl").read_text().splitlines()[0])["record"] == "demonstration"


def test_audit_shows_the_other_response(cli: Cli, rows: Path) -> None:
    how = ["--conditioning", "cross", "--style", "turns"]
    shown = cli("data", "audit", rows, *COLUMNS, *how, "--show", "1")
    assert shown.code == 0
    assert "<condition>" in shown.out
    assert "chosen after rejected" in shown.out
    wrong = cli("data", "audit", rows, *COLUMNS, "--conditioning", "cros")
    assert (wrong.code, 'Did you mean "cross"' in wrong.err) == (2, True)


def test_audit_shows_attribute_scores(cli: Cli, tmp_path: Path) -> None:
    rows = [
        {"prompt": f"Name a fruit, {i}.", "chosen": "An apple.", "rejected": "No.", "attributes": {"help": [i % 5, 0]}}
        for i in range(10)
    ]
    path = tmp_path / "rated.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    shown = cli("data", "audit", str(path), "--model", "embedded", "--scores", "sga", "--show", "1")
    assert shown.code == 0, shown.err
    assert "<condition>" in shown.out
    assert "no breaches" in shown.out
    assert 'Did you mean "sga"' in cli("data", "audit", str(path), "--model", "embedded", "--scores", "sgaa").err
    assert "no attribute scores" in cli("data", "audit", "embedded", "--model", "embedded", "--scores", "ric").err
