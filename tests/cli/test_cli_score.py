"""`pluralign score`: tables and JSON from files as benchmarks store them, and one line for what is none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pluralign.judging.verdicts import Judgement, Verdict

from .conftest import Cli


def lines(path: Path, rows: list) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def annotations(path: Path, model: str, seed: int, turn: list[int] | None = None, n: int = 60) -> Path:
    rng = np.random.default_rng(seed)
    rows = [
        {"instruction": f"task {i}", "output_1": "x" * 200, "output_2": "y" * int(size), "generator_1": "base",
         "generator_2": model, "preference": 1 + float(size > 200) * 0.8 + 0.1, "annotator": "judge"}
        for i, size in enumerate(rng.integers(100, 400, n))
    ]  # fmt: skip
    path.write_text(json.dumps([rows[i] for i in turn] if turn else rows))
    return path


def test_alpaca_eval(cli: Cli, tmp_path: Path) -> None:
    one, two = annotations(tmp_path / "one.json", "one", 0), annotations(tmp_path / "two.json", "two", 1)
    shown = cli("score", "alpaca-eval", one, two, "--resamples", "20")
    assert shown.code == 0
    for words in ("length-controlled", "as published", "one", "two − one", "length_controlled_minimal", "95 %"):
        assert words in shown.out
    found = json.loads(cli("score", "alpaca-eval", one, two, "--resamples", "20", "--json").out)
    rows = {row["model"]: row for row in found["rows"]}
    assert rows["one"]["raw"]["value"] > 0.6
    assert abs(rows["one"]["rate"]["value"] - 0.5) < 0.1  # a judge of length
    assert rows["one"]["rate"]["low"] < rows["one"]["rate"]["value"] < rows["one"]["rate"]["high"]
    assert set(found["differences"]["two − one"]) == {"raw", "controlled"}


def test_alpaca_eval_matched_by_instruction(cli: Cli, tmp_path: Path) -> None:
    turn = np.random.default_rng(3).permutation(60).tolist()
    plain, turned = annotations(tmp_path / "a.json", "m", 0), annotations(tmp_path / "b.json", "m", 0, turn)
    questions = tmp_path / "set.json"
    questions.write_text(json.dumps([{"instruction": f"task {i}"} for i in range(60)]))
    rng = np.random.default_rng(4)
    hard = rng.normal(size=60)
    gamed = "index,preference,std_delta_len,instruction_difficulty\n" + "".join(
        f"{i},{rng.random():.3f},{rng.normal():.3f},{hard[i]:.6f}\n" for _ in range(2) for i in range(60)
    )
    (tmp_path / "gamed.csv").write_text(gamed)
    options = ["--gamed", tmp_path / "gamed.csv", "--resamples", "10", "--json"]
    matched = [json.loads(cli("score", "alpaca-eval", f, *options, "--instructions", questions).out)["rows"][0]
               for f in (plain, turned)]  # fmt: skip
    assert matched[0]["variant"] == "length_controlled_v1"
    assert matched[0]["rate"]["value"] == pytest.approx(matched[1]["rate"]["value"])
    by_place = cli("score", "alpaca-eval", turned, *options)
    assert "given to rows by their place" in by_place.err


def judgment(uid: int, model: str, first: str | None, second: str | None, category: str = "hard_prompt") -> dict:
    games = [None if label is None else {"score": label} for label in (first, second)]
    return {"uid": str(uid), "model": model, "category": category, "baseline": "base", "judge": "j", "games": games}


def test_arena_hard_by_category_and_with_style(cli: Cli, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = ["A>>B", "A>B", "A=B", "B>A", "B>>A"]
    rows = [judgment(i, m, *rng.choice(labels, 2).tolist(), c)
            for c in ("math", "coding") for m in ("m", "n") for i in range(20)]  # fmt: skip
    rows.append(judgment(99, "m", None, "A>B", "math"))
    judged = lines(tmp_path / "judged.jsonl", rows)
    found = json.loads(cli("score", "arena-hard", judged, "--json").out)
    # the second category is taken from all judgments, not from what the first one left
    assert {c: len(part["scores"]) for c, part in found["categories"].items()} == {"math": 2, "coding": 2}
    only = json.loads(cli("score", "arena-hard", judged, "--category", "coding", "--category", "math", "--json").out)
    assert only["categories"]["math"] == found["categories"]["math"]
    unread = {s["model"]: s["unread_rows"] for s in found["categories"]["math"]["scores"]}
    assert unread == {"m": 1, "n": 0}
    answers = lines(tmp_path / "answers.jsonl", [
        {"uid": str(i), "model": m, "messages": [{"role": "assistant", "content": {"answer": "word " * int(k)}}]}
        for m in ("m", "n", "base") for i, k in enumerate(rng.integers(5, 60, 20))
    ])  # fmt: skip
    shown = cli("score", "arena-hard", judged, "--answers", answers, "--control", "length", "--resamples", "4")
    assert shown.code == 0
    for words in ("style-controlled", "as published", "math (v2), against base", "unread"):
        assert words in shown.out
    assert cli("score", "arena-hard", judged, "--control", "length").code == 2
    assert 'Did you mean "math"' in cli("score", "arena-hard", judged, "--category", "maths").err


def test_mt_bench_single_and_pairs(cli: Cli, tmp_path: Path) -> None:
    single = [{"question_id": q, "model": m, "turn": t, "score": s, "judge": ["gpt-4", "single-v1"]}
              for m, scores in (("a", (8, 6, 4, -1)), ("b", (9, 7, 6, 5)))
              for (q, t), s in zip(((1, 1), (2, 1), (1, 2), (2, 2)), scores, strict=True)]  # fmt: skip
    questions = lines(
        tmp_path / "q.jsonl", [{"question_id": 1, "category": "math"}, {"question_id": 2, "category": "x"}]
    )
    path = lines(tmp_path / "single.jsonl", single)
    shown = cli("score", "mt-bench", path, "--questions", questions)
    assert shown.code == 0
    for words in ("turn 1", "turn 2", "math", "unread", "paired difference"):
        assert words in shown.out
    found = json.loads(cli("score", "mt-bench", path, "--json").out)["single"]
    assert (found["a"]["score"]["score"]["value"], found["a"]["score"]["score"]["missing"]) == (6.0, 1)
    assert found["b"]["difference"]["value"] == pytest.approx((1 + 1 + 2) / 3)
    pair = {"model_1": "a", "model_2": "b", "g1_winner": "model_1", "g2_winner": "model_2", "turn": 1}
    pairs = [{"question_id": q, **pair} for q in range(12)]
    biased = cli("score", "mt-bench", lines(tmp_path / "pair.jsonl", pairs))
    assert "a : b" in biased.out
    assert "prefers a place" in biased.err


def test_reward_bench(cli: Cli, tmp_path: Path) -> None:
    columns = {"subset": ["alpacaeval-easy", "mt-bench-hard", "donotanswer", "math-prm"], "model": "rm",
               "scores_chosen": [1, 1, 0, 1], "scores_rejected": [0, 1, 0, None]}  # fmt: skip
    (tmp_path / "scores.json").write_text(json.dumps(columns))
    two = lines(tmp_path / "two.jsonl", [
        {"subset": "Ties", "id": "tied:1", "scores": [3.0, 2.5, 1.0], "num_correct": 2},
        {"subset": "Ties", "id": "ref:1", "scores": [2.0, 1.0], "num_correct": 1},
        {"subset": "Math", "id": "9", "scores": [1.0, 1.0, 1.0, 1.0], "num_correct": 1},
    ])  # fmt: skip
    shown = cli("score", "reward-bench", tmp_path / "scores.json", two)
    assert shown.code == 0
    for words in ("rm (v1)", "Chat Hard", "math-prm", "two (v2)", "Ties", "unscored"):
        assert words in shown.out
    models = json.loads(cli("score", "reward-bench", two, "--json").out)["models"]
    subsets = models["two (two.jsonl)"]["subsets"]
    assert subsets["Ties"]["value"] == pytest.approx(1.007616, abs=5e-7)
    assert subsets["Math"]["value"] == 0.25
    rmb = lines(tmp_path / "rmb.jsonl", [{"bon_uid": "1", "category_path": "BoN/x", "bon_best": {"score": s},
                                          "loser_list": [{"score": 1}]} for s in (2, 1)])  # fmt: skip
    assert json.loads(cli("score", "reward-bench", rmb, "--json").out)["models"]["rmb.jsonl"]["overall"]["value"] == 0.5


def test_pairs_position_and_agreement(cli: Cli, tmp_path: Path) -> None:
    first = [
        Judgement(str(i), "always first", (Verdict("win"), Verdict("loss", first="b"))).as_dict() for i in range(12)
    ]
    one = lines(tmp_path / "one.jsonl", first)
    two = lines(tmp_path / "two.jsonl", [{"id": i, "winner": "tie" if i % 2 else "a"} for i in range(14)])
    shown = cli("score", "pairs", one, two)
    assert shown.code == 0
    assert "the order of the responses decides" in shown.err
    assert "share 12 of 12 and 14 pairs" in shown.err
    found = json.loads(cli("score", "pairs", one, two, "--json").out)
    assert found["files"][str(one)]["position"]["biased"]
    assert found["files"][str(one)]["win_rates"]["always first"]["rate"]["value"] == 0.5
    assert found["agreement"]["one.jsonl : two.jsonl"]["alike"]["value"] == 0.5
    garbage = [Judgement(str(i), "mute", (Verdict(None), Verdict(None, first="b"))).as_dict() for i in range(5)]
    silent = json.loads(cli("score", "pairs", lines(tmp_path / "mute.jsonl", garbage), "--json").out)
    rate = next(iter(silent["files"].values()))["win_rates"]["mute"]["rate"]
    assert (rate["value"], rate["n"], rate["missing"]) == (None, 0, 5)  # no score, and it says of how many


@pytest.mark.parametrize("command", ["alpaca-eval", "arena-hard", "mt-bench", "reward-bench", "pairs"])
def test_wrong_files_get_one_line_with_their_place(cli: Cli, tmp_path: Path, command: str) -> None:
    found = cli("score", command, lines(tmp_path / "wrong.jsonl", [{"a": 1}, {"a": 2}]))
    assert found.code == 3
    assert found.err.count("\n") == 1
    assert "wrong.jsonl:1" in found.err
    absent = cli("score", command, tmp_path / "absent.jsonl")
    assert (absent.code, absent.err.count("\n")) == (3, 1)


def test_help_names_the_commands(cli: Cli) -> None:
    shown = cli("score", "--help")
    for command in ("alpaca-eval", "arena-hard", "mt-bench", "reward-bench", "pairs"):
        assert command in shown.out
