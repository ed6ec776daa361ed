"""`pluralign orchestrate`: fit, report, ask, and mark records; every mistake in one line."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from pluralign.cli import app, orchestrate
from pluralign.data import load

from .conftest import Cli

WORDS = ("cat", "dog", "tree", "house", "bread")


@pytest.fixture(autouse=True, scope="module")
def registered() -> None:
    """The command under its name, whether or not the command line lists it yet."""
    if not any(command.name == "orchestrate" for command in app.registered_commands):
        app.command("orchestrate", epilog=orchestrate.EPILOG)(orchestrate.orchestrate)


@pytest.fixture(scope="module")
def rated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs on two topics: in one the preferred response is helpful, in the other honest."""
    rng = random.Random(0)
    path = tmp_path_factory.mktemp("rated") / "rated.jsonl"
    rows = []
    for i in range(120):
        about, helpful, honest = (("red", 4, 1), ("blue", 1, 4))[i % 2]
        rows.append(
            {
                "record": "preference",
                "prompt": [{"role": "user", "content": f"{about} {about} {rng.choice(WORDS)} {i}"}],
                "chosen": [{"role": "assistant", "content": f"yes {i}"}],
                "rejected": [{"role": "assistant", "content": f"no {i}"}],
                "attributes": {"helpful": [helpful + rng.random(), 1.0], "honest": [honest + rng.random(), 1.0]},
            }
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


FIT = ["--attributes", "helpful,honest", "--epochs", "20", "--learning-rate", "3e-3", "--batch-size", "8"]


@pytest.fixture
def fitted(cli: Cli, tiny_model: str, rated: Path) -> str:
    assert cli("orchestrate", tiny_model, "--data", rated, "--output", "weights", *FIT).code == 0
    return "weights"


def test_fit_and_report(cli: Cli, tiny_model: str, rated: Path, tmp_path: Path) -> None:
    shown = cli("orchestrate", tiny_model, "--data", rated, "--output", "weights", *FIT)
    assert shown.code == 0, shown.err
    for words in ("held out", "constant weights", "KL to the targets", "entropy", "one each"):
        assert words in shown.out
    assert "says nothing about responses" in shown.out
    told = json.loads((tmp_path / "weights" / "orchestrator.json").read_text())
    assert told["objectives"] == ["helpful", "honest"]
    assert told["facts"]["report"]["gain"]["n"] == told["facts"]["rows"]["held_out"]
    assert "reconstruction" in told["status"]
    assert cli("orchestrate", tiny_model, "--data", rated, "--output", "weights", *FIT).code == 2  # not overwritten
    again = cli("orchestrate", tiny_model, "--data", rated, "--output", "weights", *FIT, "--overwrite", "--json")
    assert json.loads(again.out)["report"] == told["facts"]["report"]  # seeded


def test_weights_of_prompts(cli: Cli, fitted: str) -> None:
    asked = ["--prompt", "red red cat 7", "--prompt", "blue blue tree 9"]
    shown = cli("orchestrate", fitted, *asked)
    assert shown.code == 0, shown.err
    assert "helpful" in shown.out
    assert "blue blue tree 9" in shown.out
    rows = json.loads(cli("orchestrate", fitted, *asked, "--json").out)["rows"]
    assert [sum(row["weights"].values()) for row in rows] == [pytest.approx(1), pytest.approx(1)]
    assert rows[0]["weights"]["helpful"] > rows[1]["weights"]["helpful"] + 0.1


def test_records_get_weights(cli: Cli, fitted: str, rated: Path, tmp_path: Path) -> None:
    shown = cli("orchestrate", fitted, "--data", rated, "--limit", "9", "--output", "weighted.jsonl")
    assert shown.code == 0, shown.err
    assert "9 records" in shown.err
    records = list(load(tmp_path / "weighted.jsonl"))
    assert [r.prompt for r in records] == [r.prompt for r in load(rated, limit=9)]
    assert all(sum(r.meta["weights"].values()) == pytest.approx(1) for r in records)
    assert records[0].attributes == next(iter(load(rated))).attributes
    assert cli("orchestrate", fitted, "--data", rated, "--output", "weighted.jsonl").code == 2  # not overwritten
    arguments = ["--data", rated, "--limit", "2", "--output", "shown.jsonl.gz", "--as-attributes"]
    assert cli("orchestrate", fitted, *arguments).code == 0
    first = next(iter(load(tmp_path / "shown.jsonl.gz")))
    assert first.attributes["honest_weight"] == (first.meta["weights"]["honest"],) * 2


def test_it_moves_with_its_policy(cli: Cli, fitted: str, tiny_model: str, rated: Path, tmp_path: Path) -> None:
    """Beside a policy it reads that one; elsewhere the one it was fitted on, or --policy."""
    import shutil

    shutil.copytree(tiny_model, tmp_path / "moved")
    for file in (tmp_path / "weights").iterdir():
        shutil.copy(file, tmp_path / "moved" / file.name)
    asked = ["--prompt", "red red cat 7", "--json"]
    found = [cli("orchestrate", *where, *asked) for where in (["moved"], ["weights"], ["weights", "--policy", "moved"])]
    assert [f.code for f in found] == [0, 0, 0]
    assert found[0].out == found[1].out == found[2].out
    told = json.loads((tmp_path / "weights" / "orchestrator.json").read_text())
    assert Path(told["policy"]).is_absolute()
    wrong = cli("orchestrate", "weights", "--policy", "embedded", *asked)
    assert wrong.code == 2
    assert "states of 32 numbers" in wrong.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["MODEL", "--attributes", "helpful"], "needs --data and --output"),
        (["MODEL", "--data", "RATED", "--output", "w", "--attributes", "helpfull"], 'Did you mean "helpful"'),
        (["MODEL", "--data", "RATED", "--output", "w", "--attributes", " , "], "at least one"),
        (["MODEL", "--data", "RATED", "--output", "w", "--attributes", "helpful", "--tau", "0"], "tau must be above 0"),
        (["MODEL", "--data", "RATED", "--output", "w", "--attributes", "helpful", "--normalise", "rank"], "min-max"),
        (["MODEL", "--data", "RATED", "--output", "w", "--attributes", "helpful", "--held-out", "0"], "shares above 0"),
        (["MODEL", "--data", "RATED", "--output", "w", "--attributes", "helpful", "--prompt", "x"], "fitted"),
        (["MODEL", "--prompt", "x"], "orchestrator.safetensors"),
        (["MODEL"], "one of --prompt and --data"),
        (["MODEL", "--data", "RATED"], "--output weighted.jsonl"),
    ],
)
def test_mistakes_are_one_line(cli: Cli, tiny_model: str, rated: Path, arguments: list[str], message: str) -> None:
    named = {"MODEL": tiny_model, "RATED": str(rated)}
    shown = cli("orchestrate", *(named.get(a, a) for a in arguments))
    assert shown.code == 2
    lines = [line for line in shown.err.splitlines() if not line.startswith(("Loading", "Writing"))]
    assert len(lines) == 1, shown.err
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert not Path("w").exists()
