"""Readers of stored verdicts: every form, gzipped or not, and one clear line for what is none."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import numpy as np
import pytest

from pluralign.errors import RecordError
from pluralign.judging.published import files_of, read_mt_bench, read_pairs, read_reward_bench, read_rmb, rows_of
from pluralign.judging.published_alpaca_eval import (
    match_instructions,
    read_annotations,
    read_difficulty,
    read_gamed,
    read_instructions,
)
from pluralign.judging.published_arena_hard import read_arena_answers, read_arena_judgments, version_of
from pluralign.judging.verdicts import Judgement, Verdict


def lines(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def array(path: Path, rows) -> Path:
    path.write_text(json.dumps(rows))
    return path


def annotation(preference, instruction="say x", model="mine", first="abc", second="abcde"):
    return {"instruction": instruction, "output_1": first, "output_2": second, "generator_1": "base",
            "generator_2": model, "preference": preference, "annotator": "judge"}  # fmt: skip


# --- files ---------------------------------------------------------------------------------------------------------


def test_lines_arrays_and_gzip_are_the_same(tmp_path):
    rows = [{"a": 1}, {"a": 2}]
    packed = tmp_path / "x.jsonl.gz"
    packed.write_bytes(gzip.compress(b'{"a": 1}\n\n{"a": 2}\n'))
    for path in (lines(tmp_path / "x.jsonl", rows), array(tmp_path / "x.json", rows), packed):
        assert [row for _, row in rows_of(path)] == rows
    assert [where.rsplit("/", 1)[1] for where, _ in rows_of(packed)] == ["x.jsonl.gz:1", "x.jsonl.gz:3"]
    assert [where.rsplit("/", 1)[1] for where, _ in rows_of(tmp_path / "x.json")] == ["x.json[0]", "x.json[1]"]


def test_damage_and_nothing(tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"a": 1}\n{"a": \n')
    with pytest.raises(RecordError, match=r"bad\.jsonl:2: the line is not JSON"):
        list(rows_of(tmp_path / "bad.jsonl"))
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(RecordError, match="holds no rows"):
        list(rows_of(tmp_path / "empty.jsonl"))


def test_folders_give_their_files(tmp_path):
    (tmp_path / "m" / "n").mkdir(parents=True)
    path = array(tmp_path / "m" / "n" / "annotations.json", [{}])
    assert files_of([tmp_path], ["annotations.json"]) == [path]
    with pytest.raises(RecordError, match="no verdicts in this folder"):
        files_of([tmp_path], ["*.jsonl"])
    with pytest.raises(RecordError, match="no such file"):
        files_of([tmp_path / "nowhere.json"], ["*.json"])


# --- AlpacaEval ----------------------------------------------------------------------------------------------------


def test_annotations(tmp_path):
    rows = [annotation(2.0), annotation(1.25, "say y"), annotation(0, "say z"), annotation(None, "w"),
            annotation(1.0, model="other")]  # fmt: skip
    mine, other = read_annotations(array(tmp_path / "annotations.json", rows))
    assert (mine.model, mine.baseline, mine.annotator) == ("mine", "base", "judge")
    assert mine.wins == [1.0, 0.25, 0.5, None]
    assert (mine.baseline_lengths, mine.model_lengths) == ([3] * 4, [5] * 4)
    assert (other.model, other.wins, mine.is_baseline) == ("other", [0.0], False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preference": 3}, r"annotations\.json\[1\]: a preference lies between 1 and 2 \(0: a tie\), not 3"),
        ({"preference": "m"}, r'\[1\]: "preference" is no number'),
        ({"output_2": None}, r'\[1\]: "output_2" is no text'),
        ({"generator_1": "third"}, "held against base and third"),
    ],
)
def test_annotations_that_are_none(tmp_path, change, message):
    path = array(tmp_path / "annotations.json", [annotation(1.5), annotation(1.5, "b") | change])
    with pytest.raises(RecordError, match=message):
        read_annotations(path)


def test_another_benchmarks_file_is_named_as_such(tmp_path):
    path = lines(tmp_path / "x.jsonl", [{"question_id": 1, "model": "m", "turn": 1, "score": 7}])
    with pytest.raises(RecordError, match=r'x\.jsonl:1: an annotation of AlpacaEval has a field "instruction"'):
        read_annotations(path)
    with pytest.raises(RecordError, match='has two "games"'):
        read_arena_judgments(path)


def test_difficulties_and_gamed_rows(tmp_path):
    (tmp_path / "d.csv").write_text(",instruction_difficulty\n0,0.5\n1,-1.25\n")
    assert read_difficulty(tmp_path / "d.csv").tolist() == [0.5, -1.25]
    (tmp_path / "g.csv").write_text(
        "model,index,preference,std_delta_len,instruction_difficulty,not_gamed_baseline\n"
        "verbose,1,0.25,-0.5,-1.25,False\nverbose,0,,1.0,0.5,False\nconcise,0,0.75,2.0,0.5,False\n"
    )
    gamed, hard = read_gamed(tmp_path / "g.csv")
    assert hard.tolist() == [0.5, -1.25]
    assert gamed.length.tolist() == pytest.approx(np.tanh([-0.5, 2.0]).tolist())
    assert (gamed.wins.tolist(), gamed.difficulty.tolist()) == ([0.25, 0.75], [-1.25, 0.5])
    with pytest.raises(RecordError, match=r'd\.csv:2: gamed rows have a column "index"'):
        read_gamed(tmp_path / "d.csv")


def test_instructions_are_matched_by_their_text(tmp_path):
    official = read_instructions(array(tmp_path / "set.json", [{"instruction": t} for t in ("a", "b", "c")]))
    assert match_instructions(["c", "a"], official, "file") == [2, 0]
    with pytest.raises(RecordError, match=r'file\[1\]: "d" is not in the question set'):
        match_instructions(["a", "d"], official, "file")
    with pytest.raises(RecordError, match="comes twice"):
        read_instructions(array(tmp_path / "twice.json", [{"instruction": "a"}] * 2))


# --- Arena-Hard ----------------------------------------------------------------------------------------------------


def test_arena_judgments_of_both_versions(tmp_path):
    new = {"uid": "u1", "category": "math", "judge": "j", "model": "org/m", "baseline": "b",
           "games": [{"score": "A>B", "judgment": {"answer": "..."}, "prompt": []}, None]}  # fmt: skip
    old = {"question_id": "q1", "model": "m", "judge": "j",
           "games": [{"user_prompt": "", "judgment": "", "score": "A>>B"}, {"score": None}]}  # fmt: skip
    first = read_arena_judgments(lines(tmp_path / "new.jsonl", [new]))
    second = read_arena_judgments(lines(tmp_path / "old.jsonl", [old]))
    assert (first[0].model, first[0].games, first[0].category, first[0].baseline) == ("m", ("A>B", None), "math", "b")
    assert (second[0].uid, second[0].games, second[0].category) == ("q1", ("A>>B", None), "arena-hard-v0.1")
    assert (version_of(first), version_of(second)) == ("v2", "v0.1")
    with pytest.raises(RecordError, match="and v2 in one"):
        version_of([*first, *second])
    bad = new | {"games": [{"score": "A is better"}, None]}
    with pytest.raises(RecordError, match=r'bad\.jsonl:1: "A is better" is no verdict'):
        read_arena_judgments(lines(tmp_path / "bad.jsonl", [bad]))


def test_arena_answers_stored_and_counted(tmp_path):
    meta = {"token_len": 40, "header_count": {"h1": 1, "h2": 2}, "list_count": {"ordered": 0, "unordered": 3},
            "bold_count": {"**": 1, "__": 0}}  # fmt: skip
    rows = [
        {"uid": "1", "model": "m", "metadata": meta},
        {"uid": "2", "model": "m", "messages": [{}, {"role": "assistant", "content": {"answer": "# A\n- **b** c"}}]},
        {"question_id": "3", "model_id": "m", "choices": [{"index": 0, "turns": [{"content": "plain words"}]}]},
    ]
    found = read_arena_answers(lines(tmp_path / "a.jsonl", rows))
    assert [(s.length, s.headers, s.lists, s.bold) for s in found.values()] == [
        (40, 3, 3, 1),
        (5, 1, 1, 1),
        (2, 0, 0, 0),
    ]
    assert list(found) == [("m", "1"), ("m", "2"), ("m", "3")]
    with pytest.raises(RecordError, match="no answer of Arena-Hard"):
        read_arena_answers(lines(tmp_path / "b.jsonl", [{"uid": "1", "model": "m"}]))


def test_real_arena_answers(shared):
    path = shared / "benchmark_questions" / "arena_hard_v0.1_answer_gpt-4-0314.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    found = read_arena_answers(path)
    assert len(found) == 500
    assert all(s.length >= 0 and s.headers >= 0 for s in found.values())
    assert sum(s.lists for s in found.values()) > 500


# --- MT-Bench ------------------------------------------------------------------------------------------------------


def test_mt_bench_single_and_pair(tmp_path):
    single = {"question_id": 81, "model": "m", "judge": ["gpt-4", "single-v1"], "score": 7, "turn": 2}
    rows = read_mt_bench(lines(tmp_path / "s.jsonl", [single, single | {"score": -1}]))
    assert [(r.question, r.turn, r.rating, r.judge) for r in rows] == [
        ("81", 2, 7.0, "gpt-4 single-v1"), ("81", 2, None, "gpt-4 single-v1"),
    ]  # fmt: skip
    pair = {"question_id": 81, "model_1": "a", "model_2": "b", "g1_winner": "model_1", "g2_winner": "error", "turn": 1}
    game = read_mt_bench(lines(tmp_path / "p.jsonl", [pair]))[0]
    assert (game.models, game.winners, game.rated) == (("a", "b"), ("model_1", None), False)
    rated = read_mt_bench(lines(tmp_path / "r.jsonl", [{**pair, "g2_winner": "tie", "m1_score": 7, "m2_score": 7}]))
    assert rated[0].rated


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"score": 12}, "a rating lies between 1 and 10"),
        ({"score": "7"}, '"score" is no number'),
        ({"turn": 0}, '"turn" is 1 or 2'),
        ({"model": None}, '"model" is no text'),
    ],
)
def test_mt_bench_rows_that_are_none(tmp_path, row, message):
    good = {"question_id": 81, "model": "m", "score": 7, "turn": 1}
    with pytest.raises(RecordError, match=rf"s\.jsonl:2: .*{message}"):
        read_mt_bench(lines(tmp_path / "s.jsonl", [good, good | row]))
    with pytest.raises(RecordError, match="no judgment of MT-Bench"):
        read_mt_bench(lines(tmp_path / "t.jsonl", [{"a": 1}]))


# --- RewardBench and RMB -------------------------------------------------------------------------------------------


def test_reward_bench_columns_and_rows(tmp_path):
    columns = {"subset": ["hep-go", "hep-js"], "scores_chosen": [1.0, [2.0]], "scores_rejected": [0.5, None],
               "text_chosen": ["", ""], "model": "rm", "model_type": "Seq. Classifier"}  # fmt: skip
    (tmp_path / "c.json").write_text(json.dumps(columns, indent=1))
    found = read_reward_bench(tmp_path / "c.json")
    assert (found.version, found.model, found.chosen, found.rejected) == (1, "rm", [1.0, 2.0], [0.5, None])
    rows = [{"subset": "Ties", "id": "ref:1", "scores": [[1.0], [0.0]], "num_correct": 1},
            {"subset": "Math", "scores": [1, 0, math.nan, 0]}]  # fmt: skip
    two = read_reward_bench(lines(tmp_path / "r.jsonl", rows))
    assert (two.version, two.ids, two.num_correct) == (2, ["ref:1", ""], [1, 1])
    assert two.scores == [[1.0, 0.0], [1.0, 0.0, None, 0.0]]
    assert read_reward_bench(array(tmp_path / "r.json", rows)).scores == two.scores


def test_reward_bench_files_that_are_none(tmp_path):
    with pytest.raises(RecordError, match="no scores of RewardBench"):
        read_reward_bench(lines(tmp_path / "x.jsonl", [{"a": 1}, {"a": 2}]))
    (tmp_path / "y.json").write_text('{"subset": ["a"], "scores_chosen": [1, 2], "scores_rejected": [1]}')
    with pytest.raises(RecordError, match="no columns of equal length"):
        read_reward_bench(tmp_path / "y.json")
    with pytest.raises(RecordError, match='"scores" is a list'):
        read_reward_bench(lines(tmp_path / "z.jsonl", [{"subset": "a", "scores": 3}] * 2))


def test_rmb_needs_scores(tmp_path):
    rows = [{"bon_uid": "1", "category_path": "BoN/x", "bon_best": {"score": 2}, "loser_list": [{"score": 1}] * 2}]
    item = read_rmb(lines(tmp_path / "b.jsonl", rows))[0]
    assert (item.key, item.best, item.others) == ("1", 2.0, (1.0, 1.0))
    pair = read_rmb(lines(tmp_path / "p.jsonl", [{"pair_uid": "2", "chosen": {"score": None}, "reject": {"score": 1}}]))
    assert (pair[0].best, pair[0].others) == (None, (1.0,))
    with pytest.raises(RecordError, match='every answer needs a "score"'):
        read_rmb(lines(tmp_path / "n.jsonl", [{"bon_best": {"answer": "x"}, "loser_list": [{"answer": "y"}]}]))


# --- pairs ---------------------------------------------------------------------------------------------------------


def test_pairs_of_every_form(tmp_path):
    own = Judgement("7", "judge", (Verdict("win"), Verdict("loss", first="b"))).as_dict()
    forms = {
        "Pluralign": ([own], {"judge": 0.5}),
        "Auto-J": ([{"scenario": "s", "label": 2, "prompt": "p", "response 1": "a", "response 2": "b"}],
                   {"label": 0.5}),
        "PandaLM": ([{"cmp_key": "k", "instruction": "i", "input": "", "response1": "a", "response2": "b",
                      "annotator1": 1, "annotator2": 2, "annotator3": 0}],
                    {"annotator1": 1.0, "annotator2": 0.0, "annotator3": 0.5}),
        "LLMBar": ([{"input": "i", "output_1": "a", "output_2": "b", "label": 2}], {"label": 0.0}),
        "JudgeBench": ([{"pair_id": "x", "source": "mmlu-pro-law", "label": "B>A"}], {"label": 0.0}),
        "RMB": ([{"pair_uid": "x", "chosen": {}, "reject": {}}], {"label": 1.0}),
        "winners": ([{"id": 3, "winner": "model_b", "judge": "me"}], {"me": 0.0}),
    }  # fmt: skip
    for name, (rows, labels) in forms.items():
        kind, found = read_pairs(lines(tmp_path / "x.jsonl", rows))
        assert (kind, dict(found[0].labels)) == (name, labels)
    assert read_pairs(lines(tmp_path / "x.jsonl", [own]))[1][0].judgement == Judgement.from_dict(own)


def test_pairs_are_the_same_by_id_or_content(tmp_path):
    row = {"scenario": "s", "label": 0, "prompt": "p", "response 1": "a", "response 2": "b"}
    _, one = read_pairs(lines(tmp_path / "x.jsonl", [row, row | {"prompt": "q"}]))
    _, other = read_pairs(lines(tmp_path / "y.jsonl", [row | {"label": 2}]))
    assert one[0].key == other[0].key != one[1].key


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"a": 1}], "no verdicts on pairs that are known here"),
        ([{"id": 1, "winner": "left"}], r'x\.jsonl:1: "winner" is one of'),
        ([{"id": 1, "winner": "a"}, {"id": 2}], r'x\.jsonl:2: a row of winners has a field "winner"'),
        ([{"id": 1, "judge": "j", "games": [{"winner": "a"}]}], "fields that are unknown"),
    ],
)
def test_pairs_that_are_none(tmp_path, rows, message):
    with pytest.raises(RecordError, match=message):
        read_pairs(lines(tmp_path / "x.jsonl", rows))


def test_real_labels(shared):
    """Counts of the data's own READMEs and files."""
    for folder, name, kind, size in [
        ("auto_j", "pairwise_human_1392.jsonl.gz", "Auto-J", 1392), ("pandalm", "testset_v1.jsonl.gz", "PandaLM", 999),
        ("llmbar", "LLMBar_Natural.jsonl.gz", "LLMBar", 100), ("judgebench", "gpt4o_pairs.jsonl.gz", "JudgeBench", 350),
    ]:  # fmt: skip
        path = shared / folder / name
        if not path.is_file():
            pytest.skip(f"{path} is not there")
        found, rows = read_pairs(path)
        assert (found, len(rows)) == (kind, size)


def test_real_rmb_scored_by_length(shared, tmp_path):
    """A reward model that likes long answers: near what three answers give by chance, and unscored rows are refused."""
    from pluralign.judging.reward_bench import best_of_all
    from pluralign.judging.statistics import share_interval

    path = shared / "rmb" / "bon_harmlessness.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    with pytest.raises(RecordError, match='every answer needs a "score"'):
        read_rmb(path)
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    for row in rows:
        for answer in [row["bon_best"], *row["loser_list"]]:
            answer["score"] = len(answer["answer"])
    items = read_rmb(lines(tmp_path / "scored.jsonl", rows))
    found = share_interval([best_of_all(item.best, item.others) for item in items])
    assert found.n == 1324
    assert 0.1 < found.value < 0.6
