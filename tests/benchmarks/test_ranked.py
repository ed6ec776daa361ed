"""Given responses ranked by log-probs or by a judge: RewardBench, RMB, LLMBar, JudgeBench, HH-RLHF."""

from __future__ import annotations

from typing import Any

import pytest
from bench_toys import InMemory, LongerJudge, RuleJudge

from pluralign.benchmarks import benchmark, hh_rlhf, judge_bench, llmbar, reward_bench, reward_bench_2, rmb
from pluralign.benchmarks.kinds.core import Pick, Task, settings_of
from pluralign.benchmarks.kinds.evaluation import evaluation_of
from pluralign.benchmarks.kinds.ranking import ACCURACY, AGREEMENT, JUDGE, ONE_ORDER, TIES, ranked
from pluralign.benchmarks.kinds.systems import System
from pluralign.errors import RecordError, SettingsError
from pluralign.judging.verdicts import Outcome
from pluralign.policy import Policy
from pluralign.records import messages


def pick(right: tuple[str, ...], wrong: tuple[str, ...], own: str = "1", category: str = "c") -> Pick:
    return Pick(own, messages("what ran?"), right, wrong, category)


def judged(items: list[Pick], judge: RuleJudge) -> list[dict[str, Any]]:
    return list(ranked(Task(items, {"score": "auto"}, System("j", JUDGE), judge)))


def test_policies_rank_by_log_probs_per_token_or_summed(policy: Policy, system: System) -> None:
    item = pick(("the cat ran", "a dog"), ("bread", "blue house under the tree"))
    rows = {how: next(iter(ranked(Task([item], {"score": how}, system)))) for how in ("per_token", "sum")}
    assert next(iter(ranked(Task([item], {"score": "auto"}, system)))) == rows["per_token"]
    from pluralign.scoring.layout import Scored
    from pluralign.terms import Term

    texts = (*item.right, *item.wrong)
    rendered = policy.renderer.render([Term(t, (item.prompt,), messages(t, role="assistant")) for t in texts])
    for i, one in enumerate(rendered):
        alone = policy.score([Scored(one.context, one.target)], layout="rows")[0]
        total, tokens = float(alone.sum[0]), int(alone.length[0])
        assert rows["sum"]["scores"][i] == pytest.approx(total, abs=1e-4)
        assert rows["per_token"]["scores"][i] == pytest.approx(total / tokens, abs=1e-5)
    scores = rows["sum"]["scores"]
    assert rows["sum"]["pairs"] == [[float(scores[r] > scores[w]) for w in (2, 3)] for r in (0, 1)]


def test_a_policy_against_itself_prefers_nothing(policy: Policy, system: System) -> None:
    """The implicit reward of a policy that is its own reference is 0 for every response: all are ties, and no win."""
    task = Task([pick(("the cat",), ("bread",))], {"score": "auto"}, system, reference=policy)
    row = next(iter(ranked(task)))
    assert row["scores"] == [0.0, 0.0]
    assert row["pairs"] == [[0.5]]
    assert ACCURACY.value(row) == 0
    assert TIES.value(row) == 1
    with pytest.raises(SettingsError, match="--reference"):
        list(ranked(Task([pick(("a",), ("b",))], {"score": "ratio"}, system)))
    with pytest.raises(SettingsError, match='"loud"'):
        list(ranked(Task([pick(("a",), ("b",))], {"score": "loud"}, system)))


def test_a_judge_is_right_only_in_both_orders() -> None:
    def first(a: str, b: str, place: str) -> Outcome:
        return "win" if place == "a" else "loss"

    items = [pick(("long answer",), ("short",)), pick(("x",), ("longer",), own="2")]
    by_length, by_place = judged(items, LongerJudge()), judged(items, RuleJudge(first))
    assert [ACCURACY.value(row) for row in by_length] == [1, 0]
    assert [AGREEMENT.value(row) for row in by_length] == [1, 1]
    assert [ACCURACY.value(row) for row in by_place] == [0, 0]
    assert [ONE_ORDER.value(row) for row in by_place] == [0.5, 0.5]
    assert [AGREEMENT.value(row) for row in by_place] == [0, 0]


def test_garbage_is_no_verdict() -> None:
    def garbage(a: str, b: str, place: str) -> None:
        return None

    rows = judged([pick(("a",), ("b",))], RuleJudge(garbage))
    found = evaluation_of(benchmark("llmbar"), {"j": rows}, {})
    assert found.figures["j"]["accuracy"].n == 0
    assert found.figures["j"]["accuracy"].missing == 1
    assert found.failed["j"] == {"the judge's words could not be read": 1}


def test_judge_bench_adds_up_both_games() -> None:
    """A win and a tie are for the right answer by the paper's sum, but no agreement; a win and a loss are not."""

    def row(*outcomes: Outcome) -> dict[str, Any]:
        return {"games": [[{"outcome": o} for o in outcomes]]}

    assert judge_bench.by_sum(row("win", "tie")) == 1
    assert judge_bench.by_sum(row("win", "loss")) == 0
    assert judge_bench.by_sum(row("tie", "tie")) == 0
    assert judge_bench.by_sum(row("win")) == 1
    assert judge_bench.by_sum({"games": [[{"outcome": None}, {"outcome": "win"}]]}) is None


def test_best_of_four_shares_its_credit() -> None:
    assert reward_bench_2.credit({"pairs": [[1, 1, 1]]}) == 1
    assert reward_bench_2.credit({"pairs": [[0.5, 0.5, 0.5]]}) == 0.25
    assert reward_bench_2.credit({"pairs": [[1, 0.5, 1]]}) == 0.5
    assert reward_bench_2.credit({"pairs": [[1, 0, 0.5]]}) == 0
    assert reward_bench_2.credit({"pairs": [[1, None, 1]]}) is None
    assert reward_bench_2.credit({"pairs": [[1], [1]]}) is None  # several right answers: the Ties subset


def test_reward_bench_two_by_its_published_formula() -> None:
    """The specification's example of the Ties subset: 1.007616."""
    rows = [
        {"id": "tied:1", "category": "Ties", "scores": [3.0, 2.5, 1.0], "pairs": [[1], [1]]},
        {"id": "ref:1", "category": "Ties", "scores": [2.0, 1.0], "pairs": [[1]]},
    ]
    assert reward_bench_2.extra(rows, {})["Ties"].value == pytest.approx(1.007616, abs=1e-6)
    four = [{"id": "a", "category": "Math", "scores": [1.0] * 4, "pairs": [[0.5] * 3]}]
    assert reward_bench_2.extra(four, {})["Math"].value == 0.25
    assert "no scores" in reward_bench_2.extra([{"id": "a", "category": "Math", "pairs": [[1]]}], {})["overall"].method


def test_reward_bench_sections_weigh_subsets_as_published() -> None:
    """Chat with accuracies .98, .9, .95, 1, .95 on subsets of 100, 95, 95, 28 and 40: .949022."""
    rows = []
    for subset, accuracy in (("alpacaeval-easy", 0.98), ("alpacaeval-length", 0.9), ("alpacaeval-hard", 0.95),
                             ("mt-bench-easy", 1.0), ("mt-bench-med", 0.95)):  # fmt: skip
        rows += [{"id": f"{subset} {i}", "category": subset, "pairs": [[float(i < round(accuracy * 100))]]}
                 for i in range(100)]  # fmt: skip
    assert reward_bench.extra(rows, {})["Chat"].value == pytest.approx(0.949022, abs=1e-6)
    other = reward_bench.extra([{"id": "1", "category": "mine", "pairs": [[1.0]]}], {})
    assert "mine" in other["overall"].method


def test_readers_name_the_place_of_a_bad_row() -> None:
    settings: dict[str, Any] = {"part": "all"}
    row = {"input": "x", "output_1": "a", "output_2": "b", "label": 2}
    assert llmbar.read(InMemory(questions=[row]), {})[0].right == ("b",)
    with pytest.raises(RecordError, match=r"f:2: .*1 or 2"):
        llmbar.read(InMemory(questions=[{**row, "label": 3, "_where": "f:2"}]), {})
    pair = {"pair_id": "1", "source": "mmlu-pro-law", "question": "?", "response_A": "a", "response_B": "b",
            "label": "B>A"}  # fmt: skip
    item = judge_bench.read(InMemory(questions=[pair]), {})[0]
    assert (item.right, item.category) == (("b",), "knowledge")
    with pytest.raises(RecordError, match="A>B or B>A"):
        judge_bench.read(InMemory(questions=[{**pair, "label": "A=B"}]), {})
    lists = {"conversation_input": [{"role": "user", "content": "hi", "language": "English"}],
             "category_path": "BoN_set/Helpfulness/x", "bon_best": {"answer": "a"},
             "loser_list": [{"answer": "b"}, {"answer": "c"}]}  # fmt: skip
    files = InMemory(questions=[], pairs_harmlessness=[], lists_helpfulness=[lists], lists_harmlessness=[])
    item = rmb.read(files, settings)[0]
    assert (item.right, item.wrong, item.category) == (("a",), ("b", "c"), "best-of-n Helpfulness")
    with pytest.raises(SettingsError, match='part is "some"'):
        rmb.read(files, {"part": "some"})
    with pytest.raises(RecordError, match="no losers"):
        rmb.read(InMemory(**{**files.roles, "lists_helpfulness": [{**lists, "loser_list": []}], "questions": [],
                             "pairs_harmlessness": [], "lists_harmlessness": []}), settings)  # fmt: skip


def test_pairs_and_lists_of_rmb_are_two_figures() -> None:
    rows = [
        {"id": "1", "category": "pairs Helpfulness", "pairs": [[1.0]]},
        {"id": "2", "category": "best-of-n Helpfulness", "pairs": [[1.0, 0.0]]},
        {"id": "3", "category": "best-of-n Harmlessness", "pairs": [[1.0, 1.0]]},
    ]
    figures = evaluation_of(benchmark("rmb"), {"s": rows}, settings_of(benchmark("rmb"))).figures["s"]
    assert (figures["pairs"].value, figures["pairs"].n) == (1.0, 1)
    assert (figures["best_of_n"].value, figures["best_of_n"].n) == (0.5, 2)


def test_held_out_pairs_are_those_of_evaluate_preferences(policy: Policy, system: System) -> None:
    from pluralign.judging.preferences import evaluate_preferences

    talk = "\n\nHuman: what ran?\n\nAssistant: "
    good = [{"chosen": f"{talk}the cat {i}", "rejected": f"{talk}bread under {i}"} for i in range(3)]
    empty = {"chosen": talk, "rejected": f"{talk}x"}
    items = hh_rlhf.read(InMemory(questions=[*good, empty]), {})
    rows = list(hh_rlhf.run(Task(items, {}, system, reference=policy)))
    assert "empty" in rows[3]["failed"]
    pairs: Any = items[:3]
    known = evaluate_preferences({"tiny": policy}, pairs).estimate("tiny", "accuracy")
    bench = benchmark("hh-rlhf")
    found = evaluation_of(bench, {"tiny": rows}, {}).figures["tiny"]
    assert found["accuracy"].value == known.value
    assert (found["accuracy"].n, found["accuracy"].missing) == (3, 1)
    assert "margin" not in found  # a policy is not held against itself
