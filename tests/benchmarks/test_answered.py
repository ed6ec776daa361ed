"""AlpacaEval, Arena-Hard and MT-Bench with judges by rule: rows, figures, two turns, stops and what is not read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bench_toys import InMemory, LongerJudge, RuleJudge

from pluralign.benchmarks import alpaca_eval, arena_hard, arena_hard_v2, benchmark, mt_bench
from pluralign.benchmarks.kinds.answering import answers, temperature_of
from pluralign.benchmarks.kinds.core import Open, Task, settings_of
from pluralign.benchmarks.kinds.systems import Saved, System
from pluralign.errors import SettingsError
from pluralign.judging.answers import read_answers
from pluralign.judging.verdicts import Outcome

SHORT = {"max_new_tokens": 6, "temperature": 0.7, "top_p": 0.95}


def items(n: int = 4, other: str = "the other's answer") -> list[Open]:
    return [Open(f"q{i}", (f"what ran under tree {i}?",), "even" if i % 2 == 0 else "odd", other=(other,))
            for i in range(n)]  # fmt: skip


def said(*texts: str, name: str = "saved") -> System:
    return System(name, "file", Saved({f"q{i}": (text,) for i, text in enumerate(texts)}))


def first(a: str, b: str, place: str) -> Outcome:
    return "win" if place == "a" else "loss"


def garbage(a: str, b: str, place: str) -> None:
    return None


def test_a_row_holds_both_games_and_lengths() -> None:
    task = Task(items(3), SHORT, said("much longer than the other's answer", "the other's answer", "x"), LongerJudge())
    rows = list(alpaca_eval.run(task))
    assert [row["outcome"] for row in rows] == ["win", "tie", "loss"]
    assert [row["score"] for row in rows] == [1.0, 0.5, 0.0]
    assert [game["first"] for game in rows[0]["games"]] == ["a", "b"]
    assert rows[2]["length"] == [1, 18]
    assert benchmark("alpaca-eval").metrics[0].value(rows[1]) == 0.5


def test_first_is_a_tie_everywhere_and_garbage_no_figure() -> None:
    both = [list(alpaca_eval.run(Task(items(2), SHORT, said("one", "two"), RuleJudge(rule))))
            for rule in (first, garbage)]  # fmt: skip
    assert [(row["score"], row["consistent"]) for row in both[0]] == [(0.5, False)] * 2
    assert [(row["score"], row["consistent"]) for row in both[1]] == [(None, None)] * 2


def test_questions_without_an_answer_are_counted_not_judged() -> None:
    warned: list[str] = []
    judge = LongerJudge()
    task = Task(items(3), SHORT, said("one"), judge, warn=warned.append)
    rows = list(alpaca_eval.run(task))
    assert [row.get("failed") for row in rows] == [None, "an answer lacks", "an answer lacks"]
    assert judge.asked == ["q0"]
    assert warned == ["saved lacks answers to 2 of 3 questions"]
    with pytest.raises(SettingsError, match="answers none of the 3"):
        list(alpaca_eval.run(replace(task, system=System("s", "f", Saved({"other": ("x",)})))))
    with pytest.raises(SettingsError, match="--against"):
        list(alpaca_eval.run(replace(task, items=[replace(item, other=()) for item in items()])))


def test_length_control_takes_out_what_a_judge_of_length_sees() -> None:
    """Verdicts by length alone, the system longer in two of three: raw 2/3, at equal length near 1/2."""
    texts = ["x" * (40 if i % 3 else 4) for i in range(36)]
    task = Task(items(36, other="y" * 20), SHORT, said(*texts), LongerJudge())
    rows = list(alpaca_eval.run(task))
    raw = sum(row["score"] for row in rows) / 36
    controlled = alpaca_eval.extra(rows, {})["length_controlled"]
    assert raw == pytest.approx(2 / 3)
    assert abs(controlled.value - 0.5) < 0.06
    same = [{**row, "score": 1.0} for row in rows]
    assert "all verdicts are the same" in alpaca_eval.extra(same, {})["length_controlled"].method
    assert "fewer than 5" in alpaca_eval.extra(rows[:3], {})["length_controlled"].method


def test_arena_scores_count_a_strong_verdict_three_times() -> None:
    """One prompt is won strongly in both orders (1 six times), one lost plainly (0 twice): 6/8 for the published score,
    1/2 for the plain win rate."""
    rows = []
    for weight, text in ((3.0, "longer than the other's answer"), (1.0, "x")):
        rows += list(arena_hard.run(Task(items(1), SHORT, said(text), LongerJudge(weight=weight))))
    rows[1]["id"] = "q1"
    assert [benchmark("arena-hard").metrics[0].value(row) for row in rows] == [1.0, 0.0]
    assert arena_hard_v2.BENCHMARK.read is arena_hard.read
    assert arena_hard.extra(rows, {})["score"].value == pytest.approx(6 / 8)
    unread = list(arena_hard.run(Task(items(1), SHORT, said("x"), RuleJudge(garbage))))
    assert arena_hard.extra(unread, {})["score"].n == 0


def test_labels_of_arena_are_the_published_ones() -> None:
    """The system won where it was shown first: game 1 (the system is A) says A>B; game 0 (it is B) says A>B, a loss."""
    rows = list(arena_hard.run(Task(items(1), SHORT, said("x"), RuleJudge(first))))
    assert arena_hard._game(rows[0]).games == ("A>B", "A>B")
    assert arena_hard.extra(rows, {})["score"].value == 0.5
    one = {"outcome": "win", "first": "a", "weight": 1.0}  # a judge without an order: one game stands for both
    assert arena_hard._game({**rows[0], "games": [one]}).games == ("B>A", "A>B")


def test_style_is_counted_outside_of_code() -> None:
    text = "# Title\n\n- one\n- two\n1. three\n**bold** words\n```\n# no\n- no\n**no**\n```\n"
    row = next(iter(arena_hard.run(Task(items(1), SHORT, said(text), LongerJudge()))))
    assert row["style"][0][1:] == [1.0, 3.0, 1.0]  # headers, list items, bold spans
    assert arena_hard.length_in_words("It's 3.5, no?") == 9  # It ' s 3 . 5 , no ?


# Answers of a policy


def test_answers_are_kept_and_a_stopped_run_goes_on(system: System, tmp_path: Path) -> None:
    task = Task(items(), SHORT, system, LongerJudge(stop_at=3), tmp_path, seed=3)
    with pytest.raises(KeyboardInterrupt):
        list(alpaca_eval.run(task))
    written = read_answers(tmp_path / "answers.jsonl")
    assert len(written) == 4
    again = LongerJudge()
    rows = list(alpaca_eval.run(replace(task, judge=again)))
    assert len(read_answers(tmp_path / "answers.jsonl")) == 4
    third = LongerJudge()
    assert list(alpaca_eval.run(replace(task, judge=third))) == rows
    assert third.asked == []  # everything is in verdicts.jsonl


def test_the_second_turn_stands_on_the_systems_own_first_answer(system: System, tmp_path: Path) -> None:
    questions = [{"question_id": i, "category": "writing" if i else "math", "turns": [f"one {i}", f"two {i}"],
                  "reference": ["ref one", "ref two"]} for i in range(2)]  # fmt: skip
    bench = benchmark("mt-bench")
    settings = settings_of(bench, given={"max_new_tokens": "4"})
    judge = LongerJudge()
    read = bench.read(InMemory(questions=questions), settings)
    assert [item.references for item in read] == [("ref one", "ref two"), ()]  # math has one, writing none
    rows = list(bench.run(Task(read, settings, system, judge, tmp_path)))
    assert [(row["id"], row["turn"], row["cluster"]) for row in rows] == [
        ("0.1", 1, "0"), ("0.2", 2, "0"), ("1.1", 1, "1"), ("1.2", 2, "1")
    ]  # fmt: skip
    asked = {one.id: one for one in judge.seen}
    kept = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    firsts = {row["id"]: row["response"] for row in kept if row["turn"] == 0}
    second = asked["1.2"]
    assert [turn.content for turn in second.prompt] == ["one 1", firsts["1"], "two 1"]
    assert asked["0.2"].reference == "ref two"
    assert {row["prompt"][1]["content"] for row in kept if row["turn"] == 1} == set(firsts.values())


def test_temperatures_by_category_and_in_numbers() -> None:
    item = Open("1", ("x",), "roleplay")
    named = {"temperature": "category"}
    assert temperature_of(named, item, mt_bench.TEMPERATURES) == 0.7
    assert temperature_of(named, replace(item, category="coding"), mt_bench.TEMPERATURES) == 0
    assert temperature_of(named, replace(item, category="stem"), mt_bench.TEMPERATURES) == 0.1
    assert temperature_of({"temperature": "0.3"}, item, {}) == 0.3
    with pytest.raises(SettingsError, match='"hot"'):
        temperature_of({"temperature": "hot"}, item, {})


def test_mt_bench_scores_are_means_over_rows_not_over_turns() -> None:
    """The specification's example: turn 1 {8, 6}, turn 2 {4, unread}: 7.0, 4.0, and 6.0 in all (not 5.5)."""
    from pluralign.benchmarks.kinds.evaluation import evaluation_of

    rows = [{"system": "s", "id": f"{q}.{t}", "cluster": str(q), "turn": t, "rating": value}
            for q, t, value in ((1, 1, 8.0), (1, 2, 4.0), (2, 1, 6.0), (2, 2, None))]  # fmt: skip
    found = evaluation_of(benchmark("mt-bench"), {"s": rows}, {})
    figures = found.figures["s"]
    assert figures["turn_1"].value == 7
    assert figures["turn_2"].value == 4
    assert figures["rating"].value == 6
    assert figures["rating"].missing == 1
    assert found.failed["s"] == {"the judge's words could not be read": 1}


def test_pairs_of_two_turns_show_each_sides_own_conversation() -> None:
    item = Open("7", ("first?", "second?"), "writing", other=("b one", "b two"))
    judge = LongerJudge()
    system = System("s", "f", Saved({"7": ("a one", "a two")}))
    rows = list(mt_bench.run(Task([item], SHORT, system, judge)))
    assert [row["id"] for row in rows] == ["7.1", "7.2"]
    assert [one.id for one in judge.seen] == ["7.1", "7.2"]
    assert judge.seen[0].a == "a one"
    for side, name in ((judge.seen[1].a, "a"), (judge.seen[1].b, "b")):
        assert side == f"{name} one\n\n### User:\nsecond?\n\n### Assistant:\n{name} two"


def test_other_draws_for_other_questions_and_turns_the_same_for_the_same_seed(system: System) -> None:
    hot: dict[str, Any] = {**SHORT, "temperature": 1.0}
    same = [Open(str(i), ("what?", "what?"), "") for i in range(2)]
    found = answers(Task(same, hot, system, seed=1))
    assert found == answers(Task(same, hot, system, seed=1))
    assert found != answers(Task(same, hot, system, seed=2))
    assert found[0] != found[1]
