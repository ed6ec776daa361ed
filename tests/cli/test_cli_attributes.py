"""`pluralign evaluate attributes`: tables, sensing, sweeps, figures, saved answers, and what it says of mistakes."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from pluralign.curate.measured import measure
from pluralign.judging import answers as kept_answers
from pluralign.judging.statistics import Estimate
from pluralign.policy import Policy
from tests.training.conftest import sentence

from .conftest import Cli

SHORT = {"batch_size": 8, "learning_rate": 1e-3, "max_length": 128, "kl_rows": 0, "max_steps": 2,
         "precision": "fp32", "lora": {"rank": 0}}  # fmt: skip
MEASURED = ("words", "questions", "characters_per_word")


def rows(n: int, start: int) -> list[dict[str, Any]]:
    """Pairs whose attributes are what can be measured of them."""
    rng = random.Random(start)
    out = []
    for i in range(n):
        pair = [sentence(rng, 3, 9) + "?" * rng.randint(0, 1) for _ in range(2)]
        found = [measure(MEASURED, text) for text in pair]
        scores = {name: [one[name] for one in found] for name in MEASURED}
        out.append({"prompt": f"{start + i} {sentence(rng, 3, 6)}", "chosen": pair[0], "rejected": pair[1],
                    "attributes": scores})  # fmt: skip
    return out


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_model: str) -> Path:
    """Held-out pairs, a policy that senses scores (SGA), and a judge with a rating head."""
    from pluralign.api import align

    folder = tmp_path_factory.mktemp("world")
    write(folder / "train.jsonl", rows(40, 0))
    write(folder / "heldout.jsonl", rows(12, 1000))
    for recipe in ("sga", "attribute_model"):
        align(tiny_model, folder / "train.jsonl", recipe=recipe, output=folder / recipe, **SHORT)
    return folder


def run(cli: Cli, *words: str | Path) -> tuple[dict[str, Any], str]:
    done = cli("evaluate", "attributes", *words, "--max-new-tokens", "6", "--json")
    assert done.code == 0, done.err
    return json.loads(done.out), done.err


def rate(row: dict[str, Any], name: str) -> float:
    return Estimate.from_dict(row[name]).value


def test_ways_of_steering_against_the_reference(cli: Cli, world: Path, tmp_path: Path) -> None:
    """Table 5's rows, Figure 4 and a sweep, with every number found again from the answers that were written."""
    words = [world / "sga", "--measure", ",".join(MEASURED), "--data", world / "heldout.jsonl", "--output", "judged",
             "--fixed", "0,1", "--ground-truth", "--steer", "words", "--grid", "0,0.5,1"]  # fmt: skip
    found, _ = run(cli, *words)
    assert [row["scores"] for row in found["rows"]] == ["sensed", "0", "1", "gt"]
    assert (found["prompts"], found["attributes"]) == (12, list(MEASURED))
    answers = [json.loads(line) for line in (tmp_path / "judged" / "answers.jsonl").read_text().splitlines()]
    held = rows(12, 1000)
    for row in found["rows"]:
        mine = sorted((a for a in answers if a.get("scores") == row["scores"]), key=lambda a: a["row"])
        for name in MEASURED:
            pairs = [
                (measure([name], a["response"]).get(name, math.nan), pair["attributes"][name][0])
                for a, pair in zip(mine, held, strict=True)
            ]
            won = [1.0 if s > r else 0.5 if s == r else 0.0 for s, r in pairs if s == s]
            assert rate(row, name) == pytest.approx(sum(won) / len(won))
        rates = [rate(row, name) for name in MEASURED]
        assert rate(row, "macro") == pytest.approx(sum(rates) / 3)
        assert ("difference" in row) == (row["scores"] != "sensed")
    form = Policy.load(world / "sga").scores
    assert form is not None
    gt = next(a for a in answers if a.get("scores") == "gt" and a["row"] == 3)
    shown = dict(zip(form.names, form.unit({n: v[0] for n, v in held[3]["attributes"].items()}), strict=True))
    assert gt["asked"] == pytest.approx(shown)
    sensed = next(a for a in answers if a.get("scores") == "sensed")
    assert (sensed["asked"], set(sensed["sensed"])) == ({}, set(MEASURED))
    assert set(found["sensing"]["sga"]) == set(MEASURED)
    assert found["sensing"]["sga"]["words"]["error"]["n"] == 12
    (sweep,) = found["sweeps"]["sga"]
    assert (sweep["attribute"], sweep["at"], len(sweep["means"])) == ("words", [0, 0.5, 1], 3)
    assert -1 <= sweep["spearman"]["value"] <= 1
    assert found == json.loads((tmp_path / "judged" / "attributes.json").read_text())
    page = (tmp_path / "judged" / "attributes.html").read_text()
    assert page.count("<svg") == 3  # a radar of three attributes, errors of sensed scores, the sweep
    shown_again = cli("evaluate", "attributes", *words, "--max-new-tokens", "6")
    for text in ("sensed by sga", "macro", "difference", "gt", "words asked of sga", "rank correlation"):
        assert text in shown_again.out


def test_answers_are_not_written_twice(cli: Cli, world: Path, tmp_path: Path, monkeypatch) -> None:
    words = [world / "sga", "--judge", world / "attribute_model", "--data", world / "heldout.jsonl", "--output", "j"]
    whole, _ = run(cli, *words)
    path = tmp_path / "j" / "answers.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    assert len(lines) == 12
    path.write_text("".join(lines[:7]) + lines[7][:20])  # as a kill leaves it
    asked: list[int] = []
    real = kept_answers.answer
    monkeypatch.setattr(
        kept_answers, "answer", lambda p, requests, **o: asked.append(len(requests)) or real(p, requests, **o)
    )
    again, _ = run(cli, *words)
    assert asked == [5]
    assert again == whole
    assert sorted(path.read_text().splitlines()) == sorted("".join(lines).splitlines())
    run(cli, *words, "--seed", "1")
    assert asked == [5, 12]  # other answers are asked for, and the old ones stay
    assert len(path.read_text().splitlines()) == 24


def test_a_judge_of_our_own_and_answers_of_others(cli: Cli, world: Path, tiny_model: str, tmp_path: Path) -> None:
    held = rows(12, 1000)
    write(tmp_path / "same.jsonl", [{"prompt": row["prompt"], "response": row["chosen"]} for row in held[:9]])
    found, _ = run(
        cli, f"same={tmp_path / 'same.jsonl'}", f"base={tiny_model}", f"sga={world / 'sga'}", "--judge",
        world / "attribute_model", "--data", world / "heldout.jsonl", "--fixed", "1",
    )  # fmt: skip
    assert [row["scores"] for row in found["rows"]] == ["same", "base", "sga · sensed", "sga · 1"]
    same = found["rows"][0]
    for name in found["attributes"]:  # the reference responses themselves: a tie everywhere
        assert (same[name]["value"], same[name]["n"], same[name]["missing"]) == (0.5, 9, 3)
    assert found["notes"] == ["same lacks answers to 3 of 12 prompts"]
    assert found["judges"] == {"characters_per_word, questions, words": f"rating head of {world / 'attribute_model'}"}
    assert found["rows"][1]["difference"]["n"] == 9


def test_some_scores_given_and_the_others_sensed(cli: Cli, world: Path, tmp_path: Path) -> None:
    found, _ = run(cli, world / "sga", "--judge", "measured", "--data", world / "heldout.jsonl", "--attributes",
                   "words=1", "--limit", "5", "--output", "j")  # fmt: skip
    assert (found["rows"][0]["scores"], found["prompts"]) == ("sga", 5)
    row = json.loads((tmp_path / "j" / "answers.jsonl").read_text().splitlines()[0])
    assert (row["scores"], row["attributes"]["words"], sorted(row["sensed"])) == (
        "words=1", 1.0, ["characters_per_word", "questions"],
    )  # fmt: skip


def test_a_judge_of_the_rounds_that_made_a_policy_is_named(cli: Cli, world: Path, tmp_path: Path) -> None:
    done = cli(
        "rounds", world / "sga", "--mix", world / "train.jsonl", "--measure", ",".join(MEASURED), "--samples", "6",
        "--rounds", "1", "--max-new-tokens", "5", "training.max_steps=1", "--output", "on",
    )  # fmt: skip
    assert done.code == 0, done.err
    measured = ["--measure", ",".join(MEASURED), "--data", world / "heldout.jsonl", "--limit", "3"]
    assert "was trained on what this judge chose" in run(cli, "on/round-1/run", *measured)[1]
    assert "was trained on" not in run(cli, world / "sga", *measured)[1]


def test_mistakes(cli: Cli, world: Path, tiny_model: str, tmp_path: Path) -> None:
    write(tmp_path / "bare.jsonl", [{"prompt": "Why?"}])
    write(tmp_path / "other.jsonl", [{"prompt": "Why?", "response": "Because."}])
    write(tmp_path / "unrated.jsonl", [{"prompt": "Why?", "chosen": "Because.", "rejected": "No."}])
    held, judge = ["--data", world / "heldout.jsonl"], ["--measure", "words"]
    for words, code, says in (
        ([tiny_model, *held, *judge, "--fixed", "1"], 2, "takes no attribute scores"),
        ([tiny_model, *held, *judge, "--steer", "words"], 2, "takes no attribute scores"),
        ([tiny_model, *held, "--judge", tiny_model], 2, "has no rating head"),
        ([tiny_model, *held, "--judge", "measured"], 2, "can be measured"),
        ([tiny_model, *held], 2, "there is no judge"),
        ([tiny_model, "--data", "bare.jsonl", *judge], 3, "Held-out data hold a reference response"),
        (["other.jsonl", *held, *judge], 2, "answers none of the 12 prompts"),
        ([world / "sga", "--data", "unrated.jsonl", *judge, "--ground-truth"], 2, "have no score on"),
        ([world / "sga", *held, *judge, "--fixed", "3"], 2, "must lie between 0 and 1"),
        ([world / "sga", *held, *judge, "--fixed", "high"], 2, "--fixed takes numbers"),
        ([world / "sga", *held, *judge, "--steer", "wit"], 2, 'unknown attribute "wit"'),
        ([world / "sga", *held, *judge, "--steer", "questions"], 2, 'no judge scores "questions"'),
        ([world / "sga", *held, *judge, "--grid", "0,1"], 2, "--grid belongs to --steer"),
        ([world / "sga", *held, *judge, "--attributes", "wit=1"], 2, 'unknown attribute "wit"'),
    ):
        done = cli("evaluate", "attributes", *words, "--max-new-tokens", "2")
        assert done.code == code, (words, done.err)
        assert says in done.err
        assert done.err.count("\n") == 1, "one line"
