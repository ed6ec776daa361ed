"""Whole runs of the multi-objective recipes: what prompts show, what they reduce to, whether scores are obeyed."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest

from pluralign.api import settings_for
from pluralign.curate.controlled import Quota, control
from pluralign.curate.measured import measure
from pluralign.curate.score import score_responses
from pluralign.curate.scorers import measures
from pluralign.data import as_kind, load
from pluralign.errors import SettingsError
from pluralign.judging.implicit import implicit_scorer
from pluralign.policy import Policy
from pluralign.records import Demonstration, Ranked, messages, to_row
from pluralign.scoring.layout import Scored
from pluralign.steering import Request, answer
from pluralign.steering.goals import online_round, ranges_of
from pluralign.terms import Scores, Term
from pluralign.training.run import align

from .conftest import sentence
from .test_runs import losses


def write(path: Path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def said(text: str):
    return messages(text, role="assistant")


@pytest.fixture
def run(tiny_model, tmp_path):
    """Align by a recipe, a few steps on the tiny model."""

    def go(recipe: str, source: str, *overrides: str, output: str = ""):
        short = [
            f"model={tiny_model}", f"data.source={source}", f"output={tmp_path / (output or recipe)}", "precision=fp32",
            "batch_size=8", "learning_rate=1e-3", "max_steps=3", "validation_fraction=0.2", "kl_rows=0",
            "max_length=128", "epochs=1", "warmup=0",
        ]  # fmt: skip
        settings, own = settings_for(recipe, {}, [*short, *overrides])
        return align(settings, plan=own.plan if own else None)

    return go


@pytest.fixture(scope="module")
def rated_pairs(tmp_path_factory) -> str:
    """Pairs with two attributes, whole numbers from 1 to 5."""
    rng = random.Random(0)
    rows = [
        {
            "prompt": f"{i} {sentence(rng)}",
            "chosen": sentence(rng) + " good",
            "rejected": sentence(rng) + " bread",
            "attributes": {
                "helpfulness": [rng.randint(1, 5), rng.randint(1, 5)],
                "honesty": [rng.randint(1, 5), rng.randint(1, 5)],
            },
        }
        for i in range(64)
    ]
    return write(tmp_path_factory.mktemp("rated") / "pairs.jsonl", rows)


# MODPO


def test_modpo_of_its_own_objective_alone_is_dpo(run, rated_pairs) -> None:
    words = ("lora.rank=0", "beta=0.1")
    dpo = run("modpo", rated_pairs, *words, "objective=dpo", output="dpo")
    alone = run("modpo", rated_pairs, *words, "own_weight=1")
    assert losses(alone.output) == pytest.approx(losses(dpo.output), abs=1e-6)
    half = run("modpo", rated_pairs, *words, "scores.attributes=[honesty]", output="half")
    assert losses(half.output)[0] != pytest.approx(math.log(2), abs=1e-3)  # policy = reference: the margins are there
    split = run("modpo", rated_pairs, *words, "scores.attributes=[honesty]", "token_budget=256", output="split")
    assert losses(split.output) == pytest.approx(losses(half.output), abs=3e-5)


def test_modpo_without_its_margins_is_refused(run, rated_pairs, pairs_file, tmp_path) -> None:
    with pytest.raises(SettingsError, match="no attribute"):
        run("modpo", pairs_file, output="none")
    with pytest.raises(SettingsError, match=r"must be at least 0\.05"):
        run("modpo", rated_pairs, "own_weight=0.01", output="small")
    rows = [json.loads(line) for line in Path(rated_pairs).read_text().splitlines()]
    for row in rows[::2]:
        row["attributes"]["honesty"][1] = None
    with pytest.raises(SettingsError, match="lack a score of attribute 2"):
        run("modpo", write(tmp_path / "holes.jsonl", rows), output="holes")


def test_a_policy_of_another_objective_gives_the_margins(run, rated_pairs, pairs_file, tiny_model, tmp_path) -> None:
    """Stage 1: DPO on the other objective. Its implicit reward, scored once, is what stage 2 trades against."""
    first = run("modpo", pairs_file, "objective=dpo", "lora.rank=0", "learning_rate=1e-2", output="safer")
    safer, before = Policy.load(first.output), Policy.load(tiny_model)
    step = score_responses([implicit_scorer(safer, "safer", reference=before, beta=0.1)])
    pairs = list(step(load(rated_pairs)))
    gaps = [p.attributes["safer"][0] - p.attributes["safer"][1] for p in pairs]
    assert max(map(abs, gaps)) > 0.1
    source = write(tmp_path / "with_margins.jsonl", map(to_row, pairs))
    second = run("modpo", source, "lora.rank=0", "scores.attributes=[safer]", "max_steps=1", output="second")
    # policy = reference: -log sigma(-(w / w_k) gap), over rows of which the first step sees some
    expected = [math.log1p(math.exp(g)) for g in gaps]
    assert min(expected) < losses(second.output)[0] < max(expected)
    assert losses(second.output)[0] != pytest.approx(math.log(2), abs=1e-4)
    assert losses(second.output, name="other_margin")[0] != 0


# Scores in the prompt


SHOWN = {
    "ric": r"<rm1_score> 1.5 <rm2_score> -0.5",
    "cpo_sft": "<helpfulness: 5> <honesty: 2> Why?",
    "steerlm": "helpfulness:5,honesty:2\n",
}


@pytest.mark.parametrize("recipe", sorted(SHOWN))
def test_every_response_is_imitated_under_its_own_scores(run, rated_pairs, recipe) -> None:
    done = run(recipe, rated_pairs, "scores.attributes=[helpfulness, honesty]")
    assert all(math.isfinite(x) for x in losses(done.output))
    policy = Policy.load(done.output)
    form = policy.scores
    assert form is not None
    assert form.names == ("helpfulness", "honesty")
    shown = (1.5, -0.5) if recipe == "ric" else (5.0, 2.0)
    prompt = Scores(form.text(shown), form.place)
    asked = policy.tokenizer.decode(policy.renderer.prompt(messages("Why?"), scores=prompt))
    assert SHOWN[recipe] in asked
    about = json.loads((done.output / "run.json").read_text())
    assert about["data"]["train"] + about["data"]["validation"] == 128  # both responses of 64 pairs


def log_prob(policy: Policy, prompt: str, response: str, **scores: float) -> float:
    """log pi(response | prompt, scores)."""
    assert policy.scores is not None
    said_scores = Scores(policy.scores.text(scores), policy.scores.place)
    term = Term("y", (messages(prompt), said_scores), said(response))
    ((rendered,),) = policy.renderer.try_batch([([term], (), "")])
    (reading,) = policy.score([Scored(rendered.context, rendered.target, rendered.scored)])
    return float(reading.sum[0])


def test_length_follows_the_score_that_is_asked_for(run, tmp_path) -> None:
    """Where a response is as long as its score says, the policy writes short under a low one and long under a high."""
    rng = random.Random(1)
    rows = []
    for i in range(160):
        short, long = "cat", "cat cat cat cat cat cat"
        first = rng.random() < 0.5
        rows.append({
            "prompt": f"{i % 7} {sentence(rng, 2, 4)}",
            "chosen": long if first else short, "rejected": short if first else long,
            "attributes": {"length": [6, 1] if first else [1, 6]},
        })  # fmt: skip
    source = write(tmp_path / "lengths.jsonl", rows)
    done = run("ric", source, "lora.rank=0", "learning_rate=1e-2", "max_steps=60", "epochs=9", "batch_size=16")
    policy = Policy.load(done.output)
    assert policy.scores is not None
    low, high = (policy.scores.unit({"length": n})[0] for n in (1.0, 6.0))
    prefers_long = [
        log_prob(policy, "3 red tree", "cat cat cat cat cat cat", length=s)
        - log_prob(policy, "3 red tree", "cat", length=s)
        for s in (low, high)
    ]
    assert prefers_long[0] < 0 < prefers_long[1]


def test_an_online_round_of_a_policy_that_is_asked_for_its_best(run, rated_pairs, tmp_path) -> None:
    """Offline, one round of answers to goals that are measured anew, and training again on the same scales."""
    measured = score_responses([measures(["words", "questions"])])
    source = write(tmp_path / "measured.jsonl", map(to_row, measured(load(rated_pairs))))
    names = "scores.attributes=[words, helpfulness]"
    first = run("ric", source, "lora.rank=0", names)
    policy = Policy.load(first.output)
    form = policy.scores
    assert form is not None
    pairs = list(load(source))
    rows = [dict(zip(form.names, form.unit({n: v[0] for n, v in p.attributes.items()}), strict=True)) for p in pairs]
    asked = []

    def respond(prompts, goals) -> list[str]:
        asked.extend(goals)
        requests = [
            Request(p, max_new_tokens=6, attributes=goal, place=i)
            for i, (p, goal) in enumerate(zip(prompts, goals, strict=True))
        ]
        return [a.text for a in answer(policy, requests, warn=lambda _: None)]

    def rate(made):
        return list(score_responses([measures(["words"])])(made))

    olds = [r for p in pairs for r in as_kind(p, Demonstration, responses="all")]
    made = online_round(
        [p.prompt for p in pairs[:12]], ranges_of(rows), respond, rate, olds, samples=12, mixed=20, seed=1
    )
    assert len(asked) == 12
    assert set(asked[0]) == set(form.names)
    assert made.counts["originals mixed"] == 20
    assert made.counts["kept"] > 0
    new = [r for r in made.records if r.source == "online"]
    assert all(r.attributes == {"words": float(measure(["words"], r.response[0].content)["words"])} for r in new)
    again = run("ric", write(tmp_path / "round.jsonl", map(to_row, made.records)), "lora.rank=0",
                f"model={first.output}", "schedule=constant", output="round")  # fmt: skip
    assert Policy.load(again.output).scores == form  # the scales of the offline stage


# CPSFT, then CDPO


def test_the_second_stage_goes_on_in_the_words_of_the_first(run, rated_pairs, tmp_path) -> None:
    first = run("cpo_sft", rated_pairs, "scores.attributes=[helpfulness, honesty]")
    rng = random.Random(2)
    rated = [
        Ranked(
            prompt=messages(f"question {i}"),
            responses=tuple(said(f"{sentence(rng)} {k}") for k in range(3)),
            scores=(0.0, 1.0, 2.0),
            attributes={n: tuple(float(rng.randint(1, 5)) for _ in range(3)) for n in ("helpfulness", "honesty")},
        )
        for i in range(60)
    ]
    pairs = list(control([Quota(20, free=("helpfulness", "honesty")), Quota(20)])(rated))
    assert len(pairs) == 40
    source = write(tmp_path / "controlled.jsonl", map(to_row, pairs))
    assert [p.prompt for p in load(source)] == [p.prompt for p in pairs]
    second = run("cdpo_control", source, f"model={first.output}", "lora.rank=0")
    assert losses(second.output)[0] == pytest.approx(math.log(2), abs=1e-5)
    policy = Policy.load(second.output)
    assert policy.scores is not None
    assert policy.scores == Policy.load(first.output).scores
    target = pairs[0].meta["target"]
    if target:
        said_by_policy = Scores(policy.scores.text(target), policy.scores.place).apply(messages("x"))[0].content
        assert pairs[0].prompt[0].content.startswith(said_by_policy[:-1])
