"""Log-probs of given answers: TruthfulQA, SafetyBench and surveys, by hand and against one-by-one scoring."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from bench_toys import InMemory
from hypothesis import given
from hypothesis import strategies as st

from pluralign.benchmarks import benchmark, safety_bench, truthful_qa
from pluralign.benchmarks.kinds.choices import option_log_probs, sequences
from pluralign.benchmarks.kinds.core import Choice, Task, settings_of
from pluralign.benchmarks.kinds.shares import far, shares_of
from pluralign.benchmarks.kinds.systems import System
from pluralign.errors import RecordError, SettingsError
from pluralign.policy import Policy
from pluralign.records import Message, messages


def choice(*options: str, best: int = 0, target: tuple[float, ...] = (), prompt: str = "who ran?") -> Choice:
    return Choice("1", messages(prompt), options, target or tuple(float(i == best) for i in range(len(options))),
                  best=best)  # fmt: skip


def test_truthful_qa_by_hand() -> None:
    """Two true answers (the best first) and two false ones with probabilities .4, .1, .3, .2.

    mc1: .4 > .3, so 1. mc2: (.4 + .1) / 1 = .5. mc3: only the first of two true ones is above .3: 1/2.
    """
    item = choice("best", "true", "false", "wrong", target=(1, 1, 0, 0))
    sums = [math.log(p) for p in (0.4, 0.1, 0.3, 0.2)]
    assert truthful_qa.mc1(item, sums) == 1
    assert truthful_qa.mc2(item, sums) == pytest.approx(0.5)
    assert truthful_qa.mc3(item, sums) == 0.5
    # the best at .3 beside a false one at .3: a tie is not enough, although another true one is likelier
    tied = [math.log(p) for p in (0.3, 0.4, 0.3, 0.1)]
    assert truthful_qa.mc1(item, tied) == 0
    assert truthful_qa.mc2(item, tied) == pytest.approx(0.7 / 1.1)
    # sums far below what exp can hold: the share is of the ratios alone, e^1 / (e^1 + 1)
    assert truthful_qa.mc2(choice("a", "b"), [-2000.0, -2001.0]) == pytest.approx(math.e / (math.e + 1))


@given(st.lists(st.floats(-300, 0), min_size=2, max_size=8), st.data())
def test_truthful_qa_figures_do_not_depend_on_a_common_factor(sums: list[float], data: Any) -> None:
    right = data.draw(st.integers(1, len(sums) - 1))
    item = choice(*map(str, sums), target=tuple(float(i < right) for i in range(len(sums))))
    shifted = [s - 64.0 for s in sums]
    assert 0 <= truthful_qa.mc2(item, sums) <= 1
    assert truthful_qa.mc2(item, shifted) == pytest.approx(truthful_qa.mc2(item, sums), abs=1e-9)
    assert truthful_qa.mc3(item, sums) >= truthful_qa.mc1(item, sums) / right


def test_truthful_qa_reads_the_published_table_and_the_hubs_rows() -> None:
    table = {"Question": "Who?", "Best Answer": "Me", "Correct Answers": "I; Me; ", "Incorrect Answers": "You; He.",
             "Category": "People"}  # fmt: skip
    hub = {
        "question": "Who?",
        "mc1_targets": {"choices": ["Me.", "You.", "He."], "labels": [1, 0, 0]},
        "mc2_targets": {"choices": ["I.", "Me.", "You.", "He."], "labels": [1, 1, 0, 0]},
    }
    one, two = truthful_qa.read(InMemory(questions=[table, hub]), {})
    assert one.options == two.options == ("Me.", "I.", "You.", "He.")  # the best first, each closed by a stop
    assert one.target == two.target == (1, 1, 0, 0)
    assert one.category == "People"
    with pytest.raises(RecordError, match=r'f.jsonl:3: no field "Question"'):
        truthful_qa.read(InMemory(questions=[{"q": "Who?", "_where": "f.jsonl:3"}]), {})


@pytest.mark.parametrize("form", ["chat", "plain"])
def test_log_probs_are_those_of_scoring_one_by_one(policy: Policy, form: str) -> None:
    """A question's answers share one pass (the trie); each alone, in a row of its own, has the same log-prob."""
    items = [choice("the cat ran", "the cat sat", "a dog", best=1), choice("bread", "no", prompt="red or blue?")]
    primer = "Q: what is red?\nA: a tree is.\n\n" if form == "plain" else ""
    together = option_log_probs(policy, items, form=form, primer=primer, layout="trie")
    for item, found, alone in zip(items, together, sequences(policy, items, form=form, primer=primer), strict=True):
        assert not isinstance(alone, str)
        for value, tokens, sequence in zip(found["log_probs"], found["tokens"], alone, strict=True):
            single = policy.score([sequence], layout="rows")[0]
            assert value == pytest.approx(float(single.sum[0]), abs=1e-4)
            assert tokens == len(sequence.target) == int(single.length[0])
        assert len(found["log_probs"]) == len(item.options)


def test_plain_form_is_what_transformers_computes(policy: Policy) -> None:
    import torch

    found = option_log_probs(policy, [choice("the cat", "bread")], form="plain")[0]
    encode = policy.tokenizer.encode
    context = encode("Q: who ran?\nA:")
    for value, option in zip(found["log_probs"], ("the cat", "bread"), strict=True):
        ids = encode(f"Q: who ran?\nA: {option}")
        assert ids[: len(context)] == context
        with torch.no_grad():
            logits = policy.model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
        wanted = sum(float(logits[i - 1, ids[i]]) for i in range(len(context), len(ids)))
        assert value == pytest.approx(wanted, abs=1e-4)


def test_the_end_of_turn_is_no_part_of_an_answer(policy: Policy) -> None:
    sequence = sequences(policy, [choice("A", "B")])[0][0]
    assert not isinstance(sequence, str)
    assert not set(sequence.target) & set(policy.renderer.stop_ids)


def test_what_does_not_fit_is_no_figure_but_a_reason(system: System) -> None:
    """The tiny model has 512 positions: a longer question is not cut into another one."""
    for form in ("chat", "plain"):
        long = choice("yes", "no", prompt="bread and tree " * 400)
        task = Task([long, choice("yes", "no")], {"form": form, "primer": ""}, system)
        first, second = truthful_qa.run(task)
        assert "does not fit" in first["failed"]
        assert "mc1" not in first
        assert "mc1" in second


def test_a_primer_is_a_file_and_belongs_to_plain_questions(system: System, tmp_path: Path) -> None:
    task = Task([choice("yes", "no")], {"form": "plain", "primer": str(tmp_path / "none.txt")}, system)
    with pytest.raises(SettingsError, match="no such file"):
        list(truthful_qa.run(task))
    (tmp_path / "primer.txt").write_text("Q: why?\nA: so.\n")
    with pytest.raises(SettingsError, match="belongs to form=plain"):
        list(
            truthful_qa.run(Task([choice("a", "b")], {"form": "chat", "primer": str(tmp_path / "primer.txt")}, system))
        )
    with pytest.raises(SettingsError, match='"poem"'):
        list(truthful_qa.run(Task([choice("a", "b")], {"form": "poem", "primer": ""}, system)))


# SafetyBench


def questions(n: int, category: str = "Privacy") -> list[dict[str, Any]]:
    return [{"id": i, "question": f"q {i}", "options": ["yes", "no"], "category": category} for i in range(n)]


def test_shots_stand_before_a_question_and_are_not_asked() -> None:
    files = InMemory(questions=questions(4), answers=[{"id": str(i), "answer": i % 2} for i in range(4)])
    settings = settings_of(benchmark("safety-bench"), "few-shot", {"shots": "2"})
    items = safety_bench.read(files, settings)
    assert [item.id for item in items] == ["2", "3"]
    turns = items[0].prompt
    assert [turn.role for turn in turns] == ["user", "assistant", "user", "assistant", "user"]
    assert [turn.content for turn in turns if turn.role == "assistant"] == ["A", "B"]  # the right letters
    assert "q 2" in turns[-1].content
    assert items[1].best == 1
    assert len(safety_bench.read(files, {**settings, "shots": 0})) == 4
    with pytest.raises(SettingsError, match="leave no question"):
        safety_bench.read(files, {**settings, "shots": 4})
    with pytest.raises(RecordError, match="no answer among its options"):
        safety_bench.read(
            InMemory(questions=questions(1), answers=[{"id": "0", "answer": 2}]), {**settings, "shots": 0}
        )


def test_a_tie_of_letters_is_not_right(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    from pluralign.benchmarks.kinds import choices

    told = {"log_probs": [-1.0, -1.0], "tokens": [1, 1]}
    monkeypatch.setattr(choices, "option_log_probs", lambda policy, items, **_: [told for _ in items])
    task = Task([choice("A", "B")], {"form": "chat", "primer": ""}, system)
    assert [row["right"] for row in safety_bench.run(task)] == [0.0]


# Surveys


def test_a_model_that_answers_as_people_do_is_at_no_distance(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """Letters with .3 and .1 of the mass: .6 is off the options, and 3 : 1 is what people said, so that the divergence
    is 0. Equal shares are at H(.625, .375) - (H(.5, .5) + H(.75, .25)) / 2 = .661563 - .627741 = .033822."""
    from pluralign.benchmarks.kinds import choices, shares

    told = {"log_probs": [math.log(0.3), math.log(0.1)], "tokens": [1, 1]}
    monkeypatch.setattr(choices, "option_log_probs", lambda policy, items, **_: [told for _ in items])
    items = [choice("A", "B", target=(0.75, 0.25)), choice("A", "B")]
    object.__setattr__(items[1], "target", ())  # a survey whose shares add up to nothing
    one, none = shares.shared(Task(items, {"form": "chat", "primer": ""}, system))
    assert one["divergence"] == pytest.approx(0, abs=1e-12)
    assert one["off_option"] == pytest.approx(0.6)
    assert one["uniform"] == pytest.approx(0.033822, abs=1e-6)
    assert none["failed"] == "the survey's shares add up to nothing"


def test_shares_are_checked() -> None:
    assert shares_of({}, [1, 3], ["a", "b"]) == (0.25, 0.75)
    assert shares_of({}, [0, 0], ["a", "b"]) == ()
    for bad in ([1.0], [1.0, -1.0], "ab", None):
        with pytest.raises(RecordError):
            shares_of({"_where": "f:1"}, bad, ["a", "b"])


def test_the_worst_group_is_the_farthest() -> None:
    told = [("near", 0.1), ("near", 0.12), ("far", 0.5), ("far", 0.54)]
    rows = [{"id": str(i), "category": group, "cluster": str(i), "divergence": d} for i, (group, d) in enumerate(told)]
    found = far(rows, {})["worst_group"]
    assert found.value == pytest.approx(0.52)
    assert found.low <= 0.52 <= found.high
    alone = far(rows[:1], {})["worst_group"]
    assert alone.n == 0
    assert "no group" in alone.method


def test_opinions_show_the_letters_they_are_read_by() -> None:
    row = {"question": "Question: Is it?\nOptions: A. Yes B. No\nAnswer:", "options": ["Yes", "No"], "id": 1,
           "attribute": "SEX_Female", "gold_distribution": [0.5, 0.5]}  # fmt: skip
    settings = settings_of(benchmark("opinion-qa"))
    item = benchmark("opinion-qa").read(InMemory(questions=[row]), settings)[0]
    assert item.options == ("A", "B")
    assert "Answer:" not in item.prompt[0].content
    named = benchmark("opinion-qa").read(InMemory(questions=[row]), {**settings, "persona": True})[0]
    assert "Female" in named.prompt[0].content
    with pytest.raises(RecordError, match="no option B"):
        benchmark("opinion-qa").read(InMemory(questions=[{**row, "question": "A. Yes"}]), settings)
    country = {"country": "Chile", "question": "Is it?", "options": ["Yes", "No"], "distribution": [0.25, 0.25]}
    settings = settings_of(benchmark("global-opinion-qa"), "persona")
    asked = benchmark("global-opinion-qa").read(InMemory(questions=[country]), settings)[0]
    assert asked.target == (0.5, 0.5)
    assert asked.prompt == (Message("user", asked.prompt[0].content),)
    assert "somebody from Chile" in asked.prompt[0].content
    assert "\nB. No\n" in asked.prompt[0].content
