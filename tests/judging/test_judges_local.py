"""Judges that need no endpoint: scores, rules, embeddings, panels, the local one; and judges by a word."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pluralign.curate.score import Scored, Scorer
from pluralign.data import load
from pluralign.encoders import HashedWords
from pluralign.errors import PluralignError, SettingsError
from pluralign.judging import bradley_terry
from pluralign.judging.bradley_terry import choose_penalty, fit_bradley_terry, local_judge, states_of, train_local
from pluralign.judging.judges import make_judge
from pluralign.judging.panel import Panel, panel_agreement, panel_votes
from pluralign.judging.rules import holds, rule_judge
from pluralign.judging.scored import ScoreJudge, embedding_judge, scorer_judge
from pluralign.judging.verdicts import Comparison, Judgement, Subject, Verdict
from pluralign.policy import Policy
from pluralign.records import Preference, messages
from tests.training.conftest import tiny_model  # noqa: F401 - a fixture


def pair(a: str, b: str, prompt: str = "question", **more: Any) -> Comparison:
    return Comparison(f"{a}|{b}", messages(prompt), a, b, **more)


def length(items: Sequence[Subject]) -> list[tuple[float | None, str]]:
    return [(float(len(i.response)), "") if i.response != "?" else (None, "no idea") for i in items]


def outcomes(judge: Any, *items: Comparison) -> list[str | None]:
    return [found.outcome for found in judge.compare(list(items))]


# Scores


def test_the_higher_score_wins_in_one_game() -> None:
    judge = ScoreJudge("length", "k", length)
    found = judge.compare([pair("long", "a"), pair("a", "long"), pair("ab", "cd")])
    assert [j.outcome for j in found] == ["win", "loss", "tie"]
    assert [len(j.games) for j in found] == [1, 1, 1]
    assert [j.consistent for j in found] == [None] * 3
    assert found[0].games[0].raw == "[4.0, 1.0]"


def test_shares_are_sigmoids_of_differences() -> None:
    """4 - 1 = 3 characters: sigmoid(3) = .9526; and far apart nothing overflows."""
    judge = ScoreJudge("length", "k", length, shares=True)
    (found,) = judge.compare([pair("long", "a")])
    assert found.score == pytest.approx(1 / (1 + math.exp(-3)))
    wide = ScoreJudge("w", "k", lambda items: [(1e4 * len(i.response), "") for i in items], shares=True)
    assert [j.score for j in wide.compare([pair("long", "a"), pair("a", "long")])] == [1.0, 0.0]


@pytest.mark.parametrize(("gap", "outcome"), [(0, "tie"), (1, "tie"), (2, "win")])
def test_ties_within_a_tolerance(gap: int, outcome: str) -> None:
    judge = ScoreJudge("length", "k", length, tolerance=1.0)
    assert outcomes(judge, pair("a" * (1 + gap), "b")) == [outcome]


def test_no_score_is_unread_and_says_why() -> None:
    judge = ScoreJudge("length", "k", length)
    (found,) = judge.compare([pair("?", "b")])
    assert (found.outcome, found.score, found.games[0].reason) == (None, None, "a: no idea")
    odd = ScoreJudge("odd", "k", lambda items: [(math.inf if i.response == "a" else 0.0, "") for i in items])
    assert outcomes(odd, pair("a", "b")) == [None]
    (rating,) = judge.rate([Subject("i", messages("q"), "?")])
    assert (rating.score, rating.reason) == (None, "no idea")


def test_the_same_response_is_scored_once_and_progress_ends() -> None:
    asked: list[str] = []

    def score(items: Sequence[Subject]) -> list[tuple[float | None, str]]:
        asked.extend(i.response for i in items)
        return length(items)

    steps: list[tuple[int, int]] = []
    many = [pair("base", "x" * (i % 90)) for i in range(100)]
    found = ScoreJudge("n", "k", score).compare(many, progress=lambda *n: steps.append(n))
    assert len(asked) == len(set(asked)) == 91
    assert [j.outcome for j in found[:6]] == ["win", "win", "win", "win", "tie", "loss"]
    assert steps[-1] == (100, 100)


def test_a_scorer_as_a_judge() -> None:
    def score(asked: Any) -> list[Scored]:
        return [Scored((len(y[0].content), -len(y[0].content))) for _, y in asked]

    scorer = Scorer(("helpful", "brief"), score, key="k", title="two", ranges={"brief": (-9, 0)})
    assert outcomes(scorer_judge(scorer, "helpful"), pair("long", "a")) == ["win"]
    brief = scorer_judge(scorer, "brief")
    assert outcomes(brief, pair("long", "a")) == ["loss"]
    assert (brief.low, brief.high) == (-9, 0)
    assert brief.key != scorer_judge(scorer, "helpful").key
    with pytest.raises(SettingsError, match="helpful, brief"):
        scorer_judge(scorer)
    with pytest.raises(SettingsError, match='Did you mean "helpful"'):
        scorer_judge(scorer, "helpfull")


def test_the_nearer_response_wins() -> None:
    judge = embedding_judge(HashedWords())
    assert outcomes(
        judge,
        pair("red foxes hunt mice", "stocks fell", "what do red foxes hunt"),
        pair("stocks fell", "red foxes hunt mice", "what do red foxes hunt"),
        pair("red foxes", "stocks fell", "what do red foxes hunt", reference="stocks"),
        pair("same words", "same words"),
    ) == ["win", "loss", "loss", "tie"]
    (rating,) = judge.rate([Subject("i", messages("red fox"), "red fox")])
    assert rating.score == pytest.approx(1, abs=1e-6)


# Rules


def test_rules() -> None:
    item, same = pair("longer one", "short"), pair("ab", "cd")
    assert outcomes(rule_judge("longer"), item, same) == ["win", "tie"]
    assert outcomes(rule_judge("shorter"), item, same) == ["loss", "tie"]
    (first,) = rule_judge("first").compare([item])
    assert (first.score, first.consistent) == (0.5, False)
    with pytest.raises(SettingsError, match='Did you mean "longer"'):
        rule_judge("long")


def test_the_response_that_holds_the_answer() -> None:
    judge = rule_judge("right")
    assert outcomes(
        judge, pair("It is 42.", "It is 421.", reference="42"), pair("no", "New  York City", reference="new york"),
        pair("x", "y", reference="z"), pair("z", "Z!", reference="z"), pair("x", "y"),
    ) == ["win", "loss", "tie", "tie", None]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "answer", "found"),
    [("Paris.", "paris", True), ("Parisian", "paris", False), ("a+b", "a+b", True), ("", "x", False), ("x", " ", False),
     ("the cat\nsat", "cat sat", True)],
)  # fmt: skip
def test_holding_an_answer(text: str, answer: str, found: bool) -> None:
    assert holds(text, answer) is found


# Panels


class Says:
    def __init__(self, name: str, outcome: Any) -> None:
        self.name, self.key, self.outcome = name, f"says {name} {outcome}", outcome

    def compare(self, items: Sequence[Comparison], *, progress: Any = None) -> list[Judgement]:
        if progress:
            progress(len(items), len(items))
        return [Judgement(i.id, self.name, (Verdict(self.outcome),)) for i in items]


@pytest.mark.parametrize(
    ("votes", "outcome"),
    [
        (("win", "win", "loss"), "win"), (("loss", "loss", "loss"), "loss"), (("win", "loss"), "tie"),
        (("win", "loss", "tie"), "tie"), (("win", "win", None), "win"), (("win", None, None), None),
        (("win", "loss", None), "tie"), ((None, None), None), (("win", None), None), (("tie", "tie", "win"), "tie"),
        (("win", "win", "loss", "loss"), "tie"),
    ],
)  # fmt: skip
def test_most_judges_decide(votes: tuple[Any, ...], outcome: str | None) -> None:
    panel = Panel(tuple(Says(f"j{i}", vote) for i, vote in enumerate(votes)))
    steps: list[tuple[int, int]] = []
    (found,) = panel.compare([pair("a", "b")], progress=lambda *n: steps.append(n))
    assert found.outcome == outcome
    assert panel_votes(found) == {f"j{i}": vote for i, vote in enumerate(votes)}
    assert steps[-1] == (len(votes), len(votes))


def test_a_panel_reports_how_far_it_agrees() -> None:
    """By hand: 3 items, two judges; one disagreement. Coincidences: ww 2, ll 2, wl 1 + lw 1; n = 6, n_w = n_l = 3.
    alpha = 1 - (n - 1) D / (n_w n_l 2) = 1 - 5 * 2 / 18 = 4/9."""
    a, b = ("win", "loss", "win"), ("win", "loss", "loss")
    found = [
        Panel((Says("x", p), Says("y", q))).compare([pair(str(i), "b")])[0]
        for i, (p, q) in enumerate(zip(a, b, strict=True))
    ]
    assert panel_agreement(found).value == pytest.approx(4 / 9)
    with pytest.raises(SettingsError, match="not a panel's"):
        panel_votes(Judgement("i", "x", (Verdict("win", raw="words"),)))


def test_a_panel_is_of_different_judges() -> None:
    with pytest.raises(SettingsError, match="different judges"):
        Panel((Says("x", "win"), Says("x", "loss")))
    one, other = Panel((Says("x", "win"), Says("y", "win"))), Panel((Says("x", "win"), Says("z", "win")))
    assert one.key != other.key


# The local judge


def test_the_fit_is_that_of_a_known_model() -> None:
    """Pairs drawn from P = sigmoid(u . gap) give u back; by hand in one dimension with gaps of +-1: the maximum is at
    log(wins / losses), here 3 to 1."""
    gaps = np.array([[1.0]] * 300 + [[-1.0]] * 100)
    assert fit_bradley_terry(gaps, 0.0)[0] == pytest.approx(math.log(3), abs=1e-4)
    rng = np.random.default_rng(0)
    u = np.array([1.5, -1.0, 0.0])
    x = rng.normal(size=(20_000, 3))
    x[rng.random(20_000) > 1 / (1 + np.exp(-x @ u))] *= -1
    assert fit_bradley_terry(x, 1.0) == pytest.approx(u, abs=0.07)
    assert abs(fit_bradley_terry(x, 1e6)).max() < 0.05


def test_the_penalty_is_chosen_on_unseen_groups() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(200, 40))
    groups = [f"g{i}" for i in range(200)]
    assert choose_penalty(noise, groups, (1.0, 1e4)) == 1e4
    told = rng.normal(size=(2000, 2)) + 1
    assert choose_penalty(told, [f"g{i}" for i in range(2000)], (1.0, 1e6)) == 1.0


@pytest.fixture(scope="module")
def policy(tiny_model: str) -> Policy:  # noqa: F811
    return Policy.load(tiny_model, precision="fp32")


def toy_pairs(n: int) -> list[Preference]:
    return [Preference(prompt=messages(f"say {i}"), chosen=messages("yes yes", role="assistant"),
                       rejected=messages("no", role="assistant")) for i in range(n)]  # fmt: skip


def test_a_head_learns_and_says_how_often_it_is_right(policy: Policy) -> None:
    steps: list[tuple[str, int, int]] = []
    head = train_local(policy, toy_pairs(20), toy_pairs(8), lambda *s: steps.append(s))
    assert head.accuracy.value == 1.0
    assert (head.accuracy.n, head.about["pairs"]) == (8, 20)
    assert steps[-1] == ("local judge: held-out pairs", 8, 8)
    judge = bradley_terry.head_judge(policy, head, key="k", name="n")
    (found,) = judge.compare([pair("yes yes", "no", "say 3")])
    assert found.outcome == "win"
    assert found.score is not None
    assert found.score > 0.5
    (empty,) = judge.compare([pair("", "no")])
    assert empty.outcome is not None


def test_states_do_not_depend_on_what_shares_a_prompt(policy: Policy) -> None:
    prompts = [messages("a question of some length, is it not?")] * 3
    said = [messages(t, role="assistant") for t in ("one", "two three", "one")]
    together = states_of(policy, prompts, said)
    for i in range(3):
        assert states_of(policy, prompts[:1], said[i : i + 1])[0] == pytest.approx(together[i], abs=1e-4)


def test_the_local_judge_is_trained_once(tmp_path: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """On a tiny model in the embedded one's place, and few pairs, so that it is quick."""
    real = Policy.load
    monkeypatch.setattr(Policy, "load", classmethod(lambda cls, name, **o: real(tiny_model, precision="fp32")))
    few = {name: toy_pairs(n) for name, n in (("train", 12), ("heldout", 4))}
    monkeypatch.setattr("pluralign.data.load", lambda path, **o: few[Path(path).name.split(".")[0]])
    trained: list[int] = []
    train = train_local
    monkeypatch.setattr(bradley_terry, "train_local", lambda *a: trained.append(1) or train(*a))  # type: ignore[func-returns-value]
    first, again = local_judge(folder=tmp_path), local_judge(folder=tmp_path)
    assert (len(trained), first.key, first.name) == (1, again.key, "local")
    item = pair("yes yes", "no")
    assert first.compare([item]) == again.compare([item])
    (kept,) = tmp_path.iterdir()
    kept.write_text("{}")
    with pytest.raises(PluralignError, match="Delete the file"):
        local_judge(folder=tmp_path)


def test_the_shipped_pairs_share_no_prompt() -> None:
    """What the local judge's accuracy rests on."""
    files = (str(bradley_terry.PAIRS_DIR / f"{name}.jsonl.gz") for name in ("train", "heldout"))
    train, held = ({p.prompt[0].content.strip().lower() for p in load(file)} for file in files)
    assert len(train) > 1000
    assert not train & held


# By a word


def test_judges_by_a_word(tmp_path: Path) -> None:
    assert make_judge("rule:longer").name == "rule:longer"
    assert make_judge("embedding:tfidf").name == "embedding hashed words"
    panel = make_judge("panel:rule:longer, rule:shorter,embedding:tfidf")
    assert [j.name for j in panel.judges] == ["rule:longer", "rule:shorter", "embedding hashed words"]
    assert not hasattr(panel, "rate")
    assert not hasattr(make_judge("rule:longer"), "rate")


@pytest.mark.parametrize(
    ("text", "match"),
    [("gpt-4", "names no judge"), ("rewrd:x", 'Did you mean "reward"'), ("rule:", "names no judge"),
     ("local:x", "names no judge"), ("panel:rule:longer", "two or more"), ("panel:rule:longer,panel:a,b", "no panels"),
     ("reward:/nowhere", "cannot load the reward model"), ("openai:", "names no model"), ("rule:best", "no rule"),
     ("", "names no judge")],
)  # fmt: skip
def test_what_is_no_judge(text: str, match: str) -> None:
    with pytest.raises(SettingsError, match=match):
        make_judge(text)


def test_an_unknown_way_of_comparing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k" * 20)
    with pytest.raises(SettingsError, match='Did you mean "arena-hard"'):
        make_judge("openai:gpt-4.1", style="arena")


def test_a_reward_model_from_a_folder(tmp_path: Path) -> None:
    """A tiny classifier saved in bf16 is read in fp32: its scores are that of the same weights widened."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    words = {w: i for i, w in enumerate(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "yes", "no", "question"])}
    base = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    base.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=base, pad_token="[PAD]", sep_token="[SEP]", unk_token="[UNK]",
                                        cls_token="[CLS]", model_max_length=32)  # fmt: skip
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(vocab_size=7, hidden_size=16, num_hidden_layers=1, num_labels=1,
                                                     num_attention_heads=2, intermediate_size=16))  # fmt: skip
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    judge = make_judge(f"reward:{tmp_path}")
    ratings = judge.rate([Subject(t, messages("question"), t) for t in ("yes", "no", "yes no")])
    scores = [r.score for r in ratings]
    assert len(set(scores)) == 3
    (found,) = judge.compare([pair("yes", "no")])
    assert found.outcome == ("win" if scores[0] > scores[1] else "loss")
    ids = [words["question"], words["yes"]]
    with torch.no_grad():
        by_hand = model.float().eval()(torch.tensor([ids])).logits[0, 0]
    assert scores[0] == pytest.approx(float(by_hand), abs=1e-5)


@given(st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), max_size=6))
@settings(max_examples=30, deadline=None)
def test_exchanging_the_responses_exchanges_the_outcome(texts: list[tuple[str, str]]) -> None:
    back = {"win": "loss", "loss": "win", "tie": "tie"}
    for judge in (
        rule_judge("longer"),
        rule_judge("shorter"),
        ScoreJudge("l", "k", length),
        embedding_judge(HashedWords()),
    ):
        there = outcomes(judge, *(pair(a, b) for a, b in texts))
        again = outcomes(judge, *(pair(b, a) for a, b in texts))
        assert again == [back.get(one) if one else None for one in there]
