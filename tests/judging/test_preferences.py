"""The judgement of pairs against log-probs worked out the long way, and what is kept of it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from pluralign.attributes import Scale, ScoreForm
from pluralign.errors import RecordError, SettingsError
from pluralign.heads.intent import attach_intention
from pluralign.heads.regression import attach
from pluralign.heads.soft import begin_prefix
from pluralign.intention import IntentForm
from pluralign.judging.preferences import evaluate_preferences
from pluralign.judging.scores import Pair, compare_scores, pair_id, read_scores
from pluralign.judging.statistics import mean_interval, paired_difference, proportion_interval
from pluralign.policy import Policy
from pluralign.records import Demonstration, Preference, messages
from pluralign.reports import read_run
from pluralign.scoring.layout import Scored
from pluralign.steering import Request, answer
from pluralign.steering.begin import contexts
from tests.training.conftest import tiny_model  # noqa: F401 - a fixture


def pair(prompt: str, chosen: str, rejected: str, group: str | None = None) -> Preference:
    sides = (messages(text, role="assistant") for text in (chosen, rejected))
    return Preference(prompt=messages(prompt), chosen=next(sides), rejected=next(sides), group=group)


PAIRS = [
    pair("How are you?", "Very well, thank you. And you?", "No.", "a"),
    pair("Name a bird.", "A crow.", "A long walk by the sea in the rain.", "a"),
    pair("Seven times eight?", "56", "Fifty, I think, or so.", "b"),
    pair("Why?", "Because it rains.", "Because it is so and was so and will be.", "b"),
    pair("A city?", "Lisbon", "Rome is one.", "b"),
]


def noisy(model: str, seed: int, scale: float = 0.2) -> Policy:
    policy = Policy.load(model, precision="fp32")
    torch.manual_seed(seed)
    with torch.no_grad():
        for p in policy.model.parameters():
            p.add_(torch.randn_like(p) * scale)
    return policy


@pytest.fixture
def policies(tiny_model: str) -> dict[str, Policy]:  # noqa: F811 - the fixture
    return {"base": noisy(tiny_model, 1), "sft": noisy(tiny_model, 2), "dpo": noisy(tiny_model, 3)}


@torch.no_grad()
def by_hand(policy: Policy, record: Preference, side: str) -> tuple[float, int, torch.Tensor]:
    """(log-prob, tokens, log-softmax at each response token) from whole logits of one unpadded sequence."""
    prompt = policy.renderer.prompt(record.prompt)
    text = getattr(record, side)[0].content
    end = policy.tokenizer.convert_tokens_to_ids("<|end|>")
    target = [*policy.tokenizer.encode(text, add_special_tokens=False), end]
    logits = policy.model.eval()(torch.tensor([prompt + target])).logits[0].float().log_softmax(-1)
    at = logits[len(prompt) - 1 : -1]
    return float(at.gather(-1, torch.tensor(target)[:, None]).sum()), len(target), at


def test_every_figure_worked_out_the_long_way(policies: dict[str, Policy]) -> None:
    two = {name: policies[name] for name in ("base", "dpo")}
    found = evaluate_preferences(two, PAIRS, reference=policies["base"], token_budget=256)
    hand = {name: [(by_hand(p, r, "chosen"), by_hand(p, r, "rejected")) for r in PAIRS] for name, p in two.items()}
    for name, rows in hand.items():
        per_token = [w[0] / w[1] > l[0] / l[1] for w, l in rows]
        summed = [w[0] > l[0] for w, l in rows]
        assert found.estimate(name, "accuracy") == proportion_interval(sum(per_token), 5)
        assert found.estimate(name, "accuracy_sum") == proportion_interval(sum(summed), 5)
        assert found.estimate(name, "ties").value == 0
        assert found.estimate(name, "chosen_length").value == sum(w[1] for w, _ in rows) / 5
        assert found.estimate(name, "rejected_length").value == sum(l[1] for _, l in rows) / 5
    drifts = [(p[0][0] - r[0][0], p[1][0] - r[1][0]) for p, r in zip(hand["dpo"], hand["base"], strict=True)]
    margins = mean_interval([w - l for w, l in drifts])
    assert found.estimate("dpo", "margin").value == pytest.approx(margins.value, abs=1e-3)
    assert found.estimate("dpo", "margin").low == pytest.approx(margins.low, abs=1e-3)
    assert found.estimate("dpo", "implicit_accuracy").value == sum(w > l for w, l in drifts) / 5
    assert found.estimate("dpo", "chosen_drift").value == pytest.approx(sum(w for w, _ in drifts) / 5, abs=1e-3)
    kl = [(r[0][2].exp() * (r[0][2] - p[0][2])).sum(-1).mean() for p, r in zip(hand["dpo"], hand["base"], strict=True)]
    assert found.estimate("dpo", "kl").value == pytest.approx(float(torch.stack(kl).mean()), rel=1e-4)
    assert found.estimate("dpo", "kl").n == 5
    a, b = ([float(w[0] / w[1] > l[0] / l[1]) for w, l in hand[name]] for name in ("dpo", "base"))
    assert found.estimate("dpo", "accuracy_difference") == paired_difference(a, b)
    assert "margin" not in found.evaluation["rows"][0]  # the reference is not held against itself
    assert "accuracy_difference" not in found.evaluation["rows"][0]


def test_a_policy_is_read_as_it_is_deployed(tiny_model: str, policies: dict[str, Policy]) -> None:  # noqa: F811
    """Scores sensed, an intent inferred, its vectors and words: the context that its own answer would have."""
    asked = noisy(tiny_model, 4)
    asked.scores = ScoreForm((Scale("calm", 0, 4), Scale("length", 0, 4)))
    asked.intents = IntentForm(("a joke", "comfort", "facts"), soft=2)
    torch.manual_seed(0)
    attach(asked.model, "sensed", 2, layers=1, bounded=True)
    module = attach_intention(asked.model, "intent", 3)
    for weights in (asked.sensing.out.weight, module.classifier.weight):  # type: ignore[union-attr]
        torch.nn.init.normal_(weights, std=2.0)
    begin_prefix(asked.model, 2)
    found = evaluate_preferences({"base": policies["base"], "asked": asked}, PAIRS, reference=policies["base"])
    assert found.evaluation["beside"] == {"asked": "the scores that it senses and the intent that it infers"}
    said = set()
    for i, record in enumerate(PAIRS):
        (got,) = answer(asked, [Request(record.prompt, max_new_tokens=1, temperature=0)])
        said.add((got.intent, *got.attributes.values()))
        told = Request(record.prompt, max_new_tokens=1, attributes=got.attributes, intent=got.intent)
        ids = contexts(asked, [told])[0][0]
        assert len([x for x in ids if x < 0]) == 2
        for side in ("chosen", "rejected"):
            response = getattr(record, side)[0].content
            end = asked.tokenizer.convert_tokens_to_ids("<|end|>")
            target = [*asked.tokenizer.encode(response, add_special_tokens=False), end]
            (read,) = asked.score([Scored(ids, target)])
            assert found.scores[i]["scores"]["asked"][side == "rejected"] == pytest.approx(float(read.sum), abs=1e-4)
    assert len(said) > 2, "else this tests little"
    assert "kl" in found.evaluation["rows"][1]


def test_the_budget_changes_nothing(policies: dict[str, Policy]) -> None:
    one, other = (evaluate_preferences(policies, PAIRS, token_budget=n).scores for n in (64, 8192))
    for a, b in zip(one, other, strict=True):
        for name in policies:
            assert a["scores"][name] == pytest.approx(b["scores"][name], abs=1e-4)


def test_each_against_what_it_was_trained_from(policies: dict[str, Policy]) -> None:
    chain = {"sft": policies["base"], "dpo": policies["sft"]}
    found = evaluate_preferences(policies, PAIRS, reference=chain)
    alone = evaluate_preferences({"dpo": policies["dpo"]}, PAIRS, reference=policies["sft"])
    assert found.estimate("dpo", "margin").value == pytest.approx(alone.estimate("dpo", "margin").value, abs=1e-4)
    assert [row.get("reference") for row in found.evaluation["rows"]] == [None, "base", "sft"]
    assert "margin" not in found.evaluation["rows"][0]
    assert list(alone.scores[0]["scores"]) == ["dpo", "reference"]
    with pytest.raises(SettingsError, match='a policy is called "reference"'):
        evaluate_preferences({"reference": policies["dpo"]}, PAIRS, reference=policies["sft"])


def test_the_same_policy_twice_differs_by_nothing(policies: dict[str, Policy]) -> None:
    base = policies["base"]
    found = evaluate_preferences({"a": base, "b": base}, PAIRS)
    gap = found.estimate("b", "accuracy_difference")
    assert (gap.value, gap.p_value) == (0, 1)


def test_a_tie_is_no_win(policies: dict[str, Policy]) -> None:
    """Responses that are cut to the same tokens: neither is ahead."""
    short = Policy(policies["base"].model, policies["base"].tokenizer, "short", "fp32", {"max_length": 32})
    same = "word " * 100
    found = evaluate_preferences({"short": short}, [pair("Go?", same + "yes", same + "no")])
    assert found.estimate("short", "accuracy").value == 0
    assert found.estimate("short", "ties").value == 1
    assert found.evaluation["truncated"] == 1


def test_pairs_that_cannot_be_rendered_are_counted_as_missing(policies: dict[str, Policy]) -> None:
    base, rendering = policies["base"], {"max_length": 32, "overlong": "error"}
    strict = Policy(base.model, base.tokenizer, "b", "fp32", rendering)
    found = evaluate_preferences({"strict": strict}, [*PAIRS, pair("Go?", "word " * 100, "no")])
    assert found.estimate("strict", "accuracy").n == 5
    assert found.estimate("strict", "accuracy").missing == 1
    assert sum(found.failed.values()) == 1
    assert found.scores[-1]["scores"]["strict"] is None


def test_pairs_with_one_first_turn_are_one_cluster(policies: dict[str, Policy]) -> None:
    twice = [*PAIRS, *[pair(p.prompt[0].content, p.rejected[0].content, p.chosen[0].content) for p in PAIRS]]
    found = evaluate_preferences({"base": policies["base"]}, twice)
    assert "5 clusters" in found.estimate("base", "accuracy").method
    assert found.estimate("base", "accuracy").value == pytest.approx(0.5)
    assert found.estimate("base", "accuracy").low >= 0
    # every prompt has one right and one wrong answer: between prompts nothing varies
    assert found.estimate("base", "accuracy").high == pytest.approx(0.5)


def test_groups_have_rows_of_their_own(policies: dict[str, Policy]) -> None:
    found = evaluate_preferences(policies, PAIRS, reference=policies["base"])
    groups = found.evaluation["groups"]
    assert list(groups) == ["a", "b"]
    assert [groups[g][0]["accuracy"]["n"] for g in groups] == [2, 3]
    parts = [groups[g][2]["margin"]["value"] * groups[g][2]["margin"]["n"] for g in groups]
    assert sum(parts) / 5 == pytest.approx(found.estimate("dpo", "margin").value)
    assert found.scores[0]["group"] == "a"


def test_what_is_written_is_what_a_report_reads(policies: dict[str, Policy], tmp_path: Path) -> None:
    found = evaluate_preferences(policies, PAIRS, reference=policies["base"], on="five pairs")
    found.write(tmp_path / "run")
    evaluation = read_run(tmp_path / "run").evaluation
    assert evaluation is not None
    assert (evaluation.on, [row.model for row in evaluation.rows]) == ("five pairs", ["base", "sft", "dpo"])
    assert evaluation.rows[2].values["margin"] == found.estimate("dpo", "margin")
    assert set(evaluation.groups) == {"a", "b"}
    assert list(read_scores(tmp_path / "run").values()) == json.loads(json.dumps(found.scores))


def test_two_evaluations_are_compared_on_the_pairs_they_share(policies: dict[str, Policy], tmp_path: Path) -> None:
    evaluate_preferences({"m": policies["sft"]}, PAIRS[:4]).write(tmp_path / "a")
    evaluate_preferences({"m": policies["dpo"]}, PAIRS[1:]).write(tmp_path / "b")
    both = evaluate_preferences({k: policies[k] for k in ("sft", "dpo")}, PAIRS[1:4])
    gaps = compare_scores(tmp_path / "a", tmp_path / "b")
    expected = both.estimate("dpo", "accuracy_difference")
    assert (gaps["accuracy"].value, gaps["accuracy"].n) == (expected.value, 3)
    ahead = {name: [Pair(*row["scores"][name]).gap_per_token for row in both.scores] for name in ("sft", "dpo")}
    assert gaps["gap"].value == pytest.approx((sum(ahead["dpo"]) - sum(ahead["sft"])) / 3, abs=1e-4)
    assert compare_scores(tmp_path / "a", tmp_path) == {}


def test_damaged_scores_name_their_line(tmp_path: Path) -> None:
    for text in ('{"id": "a"}', '{"id": "a", "scores": {"m": [1]}}', "{", "[]"):
        (tmp_path / "scores.jsonl").write_text(f"\n{text}\n")
        with pytest.raises(RecordError, match=r"scores\.jsonl:2: no line of scores"):
            read_scores(tmp_path)


def test_an_id_is_of_the_texts_alone() -> None:
    one = PAIRS[0]
    moved = Preference(prompt=one.prompt, chosen=one.chosen, rejected=one.rejected, source="x", meta={"where": "y:1"})
    swapped = Preference(prompt=one.prompt, chosen=one.rejected, rejected=one.chosen)
    assert pair_id(one) == pair_id(moved) != pair_id(swapped)
    assert len({pair_id(p) for p in PAIRS}) == 5


def test_nothing_to_judge(policies: dict[str, Policy]) -> None:
    with pytest.raises(SettingsError, match="no policy"):
        evaluate_preferences({}, PAIRS)
    with pytest.raises(RecordError, match="no pairs"):
        evaluate_preferences(policies, [])
    demonstration = Demonstration(prompt=messages("a"), response=messages("b", role="assistant"))
    with pytest.raises(RecordError, match="pair 1: a demonstration record is no pair"):
        evaluate_preferences(policies, [demonstration])  # type: ignore[list-item]


def test_progress_counts_every_pair(policies: dict[str, Policy]) -> None:
    seen: list[tuple[str, int, int]] = []
    evaluate_preferences({"base": policies["base"]}, PAIRS, token_budget=64, progress=lambda *a: seen.append(a))
    assert seen[-1] == ("base", 5, 5)
    assert len(seen) > 1


def test_log_two_for_policy_equal_to_reference(policies: dict[str, Policy]) -> None:
    twin = Policy(policies["base"].model, policies["base"].tokenizer, "twin", "fp32")
    found = evaluate_preferences({"twin": twin}, PAIRS, reference=policies["base"])
    margin = found.estimate("twin", "margin").value
    assert math.log1p(math.exp(-margin)) == pytest.approx(math.log(2), abs=1e-6)
    assert found.estimate("twin", "kl").value == pytest.approx(0, abs=1e-7)
