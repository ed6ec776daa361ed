"""An evaluation from questions to manifest: resumed, repeated, held against another; and the parts it is made of."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bench_toys import LongerJudge

from pluralign.benchmarks import benchmark, benchmarks
from pluralign.benchmarks.kinds.core import Metric, Open, items_digest, settings_of
from pluralign.benchmarks.kinds.evaluation import evaluation_of
from pluralign.benchmarks.kinds.kept import keep
from pluralign.benchmarks.kinds.manifest import changed, read_manifest
from pluralign.benchmarks.kinds.questions import QuestionFiles, chosen_items, read_rows
from pluralign.benchmarks.kinds.systems import System, answer_of, open_system, saved_answers
from pluralign.benchmarks.kinds.work import Asked, rescored, run_benchmark
from pluralign.errors import PluralignError, RecordError, SettingsError
from pluralign.judging.lines import read_lines
from pluralign.judging.statistics import paired_difference

PLAIN = replace(benchmark("alpaca-eval"), extra=None)  # without the length-controlled fit, which takes its time


@pytest.fixture
def questions(tmp_path: Path) -> str:
    path = tmp_path / "questions.jsonl"
    rows = [{"instruction": f"what ran under tree {i}?", "output": "a dog " * (i + 1), "dataset": "abc"[i % 3]}
            for i in range(6)]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def asked(questions: str, systems: dict[str, System], **more: Any) -> Asked:
    given = {"max_new_tokens": 5, **more.pop("given", {})}
    more.setdefault("judge", LongerJudge())
    return Asked(PLAIN, systems, questions=questions, given=given, **more)


def test_every_benchmark_is_whole() -> None:
    assert len(benchmarks()) >= 14
    for name, one in benchmarks().items():
        assert "default" in one.settings
        for named in one.settings:
            settings_of(one, named)
        assert one.n > 0, name
        assert one.licence, name
        assert "questions" in one.sources
        assert one.title
        assert one.measures
        assert one.paper


def test_names_are_found_however_they_are_joined() -> None:
    assert benchmark("TruthfulQA") is benchmark("truthful_qa") is benchmark("truthful-qa")
    with pytest.raises(SettingsError, match='Did you mean "alpaca-eval"'):
        benchmark("alpca-eval")


def test_settings_are_typed_and_named() -> None:
    bench = benchmark("mt-bench")
    assert settings_of(bench, "sga") == {"temperature": 0.6, "top_p": 0.9, "max_new_tokens": 1024}
    assert settings_of(benchmark("alpaca-eval")) == {"temperature": 0.7, "top_p": 0.95, "max_new_tokens": 2048}
    assert settings_of(bench, given={"max_new_tokens": "7"})["max_new_tokens"] == 7
    for key, value, says in (("max_tokens", "7", "max_new_tokens"), ("top_p", "high", "a number")):
        with pytest.raises(SettingsError, match=says):
            settings_of(bench, given={key: value})
    with pytest.raises(SettingsError, match='no settings "paper"'):
        settings_of(bench, "paper")


def test_a_whole_evaluation_can_be_repeated_from_its_folder(system: System, questions: str, tmp_path: Path) -> None:
    folder = tmp_path / "judged"
    found = run_benchmark(asked(questions, {"tiny": system}, output=folder, seed=5, command="pluralign evaluate ..."))
    manifest = read_manifest(folder)
    assert manifest["systems"]["tiny"]["key"] == system.key
    assert manifest["judge"]["name"] == "rule"
    assert manifest["settings"]["max_new_tokens"] == 5
    assert manifest["questions"]["n"] == 6
    assert manifest["seed"] == 5
    assert {"python", "pluralign", "torch", "transformers"} <= set(manifest["versions"])
    assert set(manifest["files"]) == {"answers.jsonl", "items.jsonl", "verdicts.jsonl"}
    judge = LongerJudge()
    again = run_benchmark(asked(questions, {"tiny": system}, output=folder, seed=5, judge=judge))
    assert judge.asked == []
    assert again.as_dict() == found.as_dict() == rescored(folder, PLAIN).as_dict()
    assert read_manifest(folder)["files"] == manifest["files"]
    assert changed(manifest, read_manifest(folder)) == []
    assert json.loads((folder / "evaluation.json").read_text()) == found.as_dict()
    with pytest.raises(SettingsError, match='by "alpaca-eval", not by "mt-bench"'):
        rescored(folder, benchmark("mt-bench"))


def test_other_settings_in_the_same_folder_are_told(system: System, questions: str, tmp_path: Path) -> None:
    warned: list[str] = []
    for seed in (0, 1):
        run_benchmark(asked(questions, {"tiny": system}, output=tmp_path / "j", seed=seed, warn=warned.append))
    assert warned == [f"{tmp_path / 'j'} held an evaluation with other seed; its figures are replaced"]
    items = tmp_path / "items.jsonl"  # of its own: the published ones are not at hand everywhere
    row = {"Question": "what ran?", "Best Answer": "a dog", "Correct Answers": "a dog", "Incorrect Answers": "a tree"}
    items.write_text(json.dumps(row) + "\n")
    other = Asked(benchmark("truthful-qa"), {"tiny": system}, output=tmp_path / "j", questions=str(items))
    with pytest.raises(SettingsError, match="Name another --output"):
        run_benchmark(other)


def test_a_stop_at_any_verdict_loses_and_repeats_no_answer(system: System, questions: str, tmp_path: Path) -> None:
    whole = run_benchmark(asked(questions, {"tiny": system}, output=tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(asked(questions, {"tiny": system}, output=tmp_path / "cut", judge=LongerJudge(stop_at=4)))
    assert not (tmp_path / "cut" / "manifest.json").exists()
    before = (tmp_path / "cut" / "answers.jsonl").read_bytes()
    after = run_benchmark(asked(questions, {"tiny": system}, output=tmp_path / "cut"))
    assert (tmp_path / "cut" / "answers.jsonl").read_bytes() == before
    assert after.as_dict() == whole.as_dict()


def test_the_baseline_is_a_folder_a_model_or_a_file(system: System, questions: str, tmp_path: Path) -> None:
    answers = tmp_path / "other.jsonl"
    answers.write_text("".join(
        json.dumps({"prompt": f"what ran under tree {i}?", "response": "bread " * (2 * i)}) + "\n" for i in range(6)
    ))  # fmt: skip
    by_file = run_benchmark(asked(questions, {"tiny": system}, baseline=f"base={answers}"))
    assert by_file.against == "base"
    assert list(by_file.figures) == ["base", "tiny"]
    run_benchmark(asked(questions, {"base": open_system("base", str(answers))}, output=tmp_path / "base"))
    by_folder = run_benchmark(asked(questions, {"tiny": system}, baseline=str(tmp_path / "base")))
    assert by_folder.differences["tiny"]["win_rate"] == by_file.differences["tiny"]["win_rate"]
    other = LongerJudge(weight=2.0)
    with pytest.raises(SettingsError, match="another judge"):
        run_benchmark(asked(questions, {"tiny": system}, baseline=str(tmp_path / "base"), judge=other))


def test_differences_are_paired_over_common_questions() -> None:
    """Scores 1, 0, 1 against 0, 0, 1 (and one question that only one has): +1/3 over three."""
    own = [{"id": i, "x": v} for i, v in zip("abc", (1.0, 0.0, 1.0), strict=True)]
    other = [{"id": i, "x": v} for i, v in zip("dcba", (1.0, 1.0, 0.0, 0.0), strict=True)]
    bench = replace(PLAIN, metrics=(Metric("x", lambda row: row["x"], kind="share"),))
    found = evaluation_of(bench, {"one": own, "two": other}, {}, baseline=("two", other))
    assert found.differences["one"]["x"] == paired_difference([1.0, 0.0, 1.0], [0.0, 0.0, 1.0])
    assert found.differences["one"]["x"].value == pytest.approx(1 / 3)
    assert "two" not in found.differences


def test_against_replaces_the_baselines_answers(system: System, questions: str, tmp_path: Path) -> None:
    answers = tmp_path / "own.json"
    answers.write_text(json.dumps(
        [{"instruction": f"what ran under tree {i}?", "output": ""} for i in range(6)]
    ))  # fmt: skip
    found = run_benchmark(asked(questions, {"tiny": system}, against=str(answers)))
    assert found.figures["tiny"]["win_rate"].n == 0 or found.figures["tiny"]["win_rate"].value > 0.5


def test_judges_that_do_not_fit_are_refused_before_anything_is_done(system: System, questions: str) -> None:
    with pytest.raises(SettingsError, match="needs a judge"):
        run_benchmark(asked(questions, {"tiny": system}, judge=None))
    with pytest.raises(SettingsError, match="has no use for a judge"):
        run_benchmark(Asked(benchmark("truthful-qa"), {"tiny": system}, judge=LongerJudge()))

    class Mute:
        name, key = "mute", "mute"

    with pytest.raises(SettingsError, match="mute cannot compare"):
        run_benchmark(asked(questions, {"tiny": system}, judge=Mute()))


# Parts


def test_kept_values_outlive_a_stop_and_a_torn_line(tmp_path: Path) -> None:
    path, calls = tmp_path / "kept.jsonl", []

    def work(part: Any) -> list[int]:
        calls.append(list(part))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return [10 * i for i in part]

    keys = ["a", "b", "a", "c", "d"]
    with pytest.raises(KeyboardInterrupt):
        keep(path, keys, work, chunk=2)
    with path.open("a") as file:
        file.write('{"key": "c", "val')  # killed while writing
    seen: list[tuple[int, int]] = []
    assert keep(path, keys, work, chunk=2, progress=lambda *n: seen.append(n)) == [0, 10, 0, 30, 40]
    assert calls == [[0, 1], [3, 4], [3, 4]]  # what is the same is worked out once, what is kept not again
    assert seen == [(2, 4), (4, 4)]
    path.write_text("{}\n")
    with pytest.raises(RecordError, match=r'kept.jsonl:1: there is no field "key"'):
        keep(path, keys, work)
    path.write_text("nonsense\n")
    with pytest.raises(RecordError, match="not valid JSON"):
        list(read_lines(path))


def test_answers_are_read_from_every_public_form(tmp_path: Path) -> None:
    item = Open("7", ("Who ran?", "And then?"), "")
    single = Open("7", ("Who ran?",), "")
    rows = {
        "ours": {"prompt": [{"role": "user", "content": "Who ran?"}], "response": "A cat."},
        "alpaca": {"instruction": "Who ran? ", "output": "A cat.", "generator": "x"},
        "arena": {"uid": "7", "messages": [{"role": "user", "content": "?"},
                                           {"role": "assistant", "content": {"answer": "A cat."}}]},
        "fastchat": {"question_id": 7, "choices": [{"turns": ["A cat.", "A dog."]}]},
    }  # fmt: skip
    for name, row in rows.items():
        saved = saved_answers(name, [row])
        assert saved.find(single) == ("A cat.",), name
        assert saved.find(item) == (("A cat.", "A dog.") if name == "fastchat" else None)
    turns = [{"id": "7", "turn": t, "prompt": "x", "response": f"r{t}"} for t in (0, 1)]
    assert saved_answers("answers.jsonl", turns).find(item) == ("r0", "r1")
    with pytest.raises(RecordError, match="two different answers"):
        saved_answers("f", [rows["alpaca"], {**rows["alpaca"], "output": "other"}])
    with pytest.raises(RecordError, match="no answer that can be read"):
        saved_answers("f", [{"text": "x"}])
    with pytest.raises(RecordError, match="do not end with an answer"):
        answer_of([{"role": "user", "content": "?"}])
    with pytest.raises(SettingsError, match="no such file"):
        open_system("x", str(tmp_path / "none.jsonl"))
    with pytest.raises(SettingsError, match="is a file of answers"):
        _ = System("x", "f", saved_answers("f", [rows["ours"]])).policy


def test_a_limit_is_spread_over_the_set() -> None:
    assert chosen_items(range(10), limit=3) == [0, 3, 6]
    assert chosen_items(range(10), skip=8) == [8, 9]
    assert chosen_items(range(4), limit=9) == [0, 1, 2, 3]
    assert chosen_items(range(10), only=lambda i: i % 2 == 0, limit=2) == [0, 4]
    with pytest.raises(SettingsError, match="no question is left"):
        chosen_items(range(3), skip=3)


def test_only_takes_questions_by_id_or_text(system: System, questions: str, tmp_path: Path) -> None:
    (tmp_path / "only.txt").write_text("what ran under tree 4?\n\n what ran under tree 1?\n")
    found = run_benchmark(asked(questions, {"tiny": system}, only=str(tmp_path / "only.txt")))
    assert found.on.startswith("2 of")
    with pytest.raises(SettingsError, match=r"--only .*: no such file"):
        run_benchmark(asked(questions, {"tiny": system}, only=str(tmp_path / "none.txt")))


def test_questions_that_cannot_be_found_say_where_to_look(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PLURALIGN_SHARED", str(tmp_path))
    with pytest.raises(SettingsError, match=r"--questions PATH; or a folder of them: PLURALIGN_SHARED"):
        QuestionFiles(benchmark("arena-hard"))("questions")
    with pytest.raises(SettingsError, match="HF_HUB_OFFLINE"):
        QuestionFiles(benchmark("truthful-qa"))("questions")
    with pytest.raises(SettingsError, match="no such file"):
        QuestionFiles(benchmark("truthful-qa"), "nowhere.jsonl")("questions")
    (tmp_path / "truthfulqa_817.jsonl.gz").write_text("")
    with pytest.raises(PluralignError):
        QuestionFiles(benchmark("truthful-qa"), str(tmp_path))("questions")
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"a": 1}\nnot json\n')
    with pytest.raises(RecordError, match=r"bad.jsonl:2"):
        read_rows(bad)


def test_a_digest_tells_items_apart() -> None:
    one, two = Open("1", ("a",)), Open("1", ("a",), other=("x",))
    assert items_digest([one]) == items_digest([Open("1", ("a",))])
    assert len({items_digest(items) for items in ([one], [two], [one, two], [two, one])}) == 4


@pytest.mark.parametrize(
    ("name", "n"),
    [("alpaca-eval", 805), ("arena-hard", 500), ("arena-hard-v2", 750), ("mt-bench", 80), ("truthful-qa", 817),
     ("safety-bench", 2100), ("llmbar", 419), ("judge-bench", 350), ("global-opinion-qa", 4062),
     ("opinion-qa", 2266)],
)  # fmt: skip
def test_public_sets_are_read_whole(name: str, n: int, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLURALIGN_SHARED", str(shared))
    one = benchmark(name)
    files = QuestionFiles(one)
    if not files.has("questions"):
        pytest.skip(f"{name} is not in {shared}")
    items = one.read(files, settings_of(one))
    assert len(items) == one.n == n
    ids = [item.id for item in items]
    assert len(set(ids)) == len(ids)
    if name in ("alpaca-eval", "arena-hard"):
        assert all(item.other for item in items)
    if name == "mt-bench":
        assert sum(bool(item.references) for item in items) == 30


def test_the_lists_of_rmb_are_read_whole(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLURALIGN_SHARED", str(shared))
    one = benchmark("rmb")
    files = QuestionFiles(one)
    if not files.has("lists helpfulness"):
        pytest.skip(f"rmb is not in {shared}")
    items = one.read(files, settings_of(one, "best-of-n"))
    assert len(items) == 1683 + 1324
    assert len({item.id for item in items}) == len(items)
    assert all(len(item.right) == 1 and len(item.wrong) >= 2 for item in items)


def test_losing_everything_is_no_certainty() -> None:
    """Eight losses of eight: Wilson's upper end is z^2 / (n + z^2) = 3.8415 / 11.8415 = .3244, not 0."""
    rows = [{"id": str(i), "score": 0.0, "category": ""} for i in range(8)]
    found = evaluation_of(PLAIN, {"s": rows}, {}).figures["s"]["win_rate"]
    assert (found.value, found.low) == (0.0, 0.0)
    assert found.high == pytest.approx(0.3244, abs=1e-4)
