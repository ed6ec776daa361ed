"""Self-guided alignment: the joint loss, where its gradient goes, what is sensed, and whole runs of it."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from pluralign.attributes import Scale, ScoreForm
from pluralign.conditioning import Conditioning, conditioned, scored
from pluralign.errors import SettingsError
from pluralign.heads.regression import attach, head_of
from pluralign.objectives import OBJECTIVES
from pluralign.objectives.rating import masked_squared_error
from pluralign.policy import Policy
from pluralign.records import Preference, messages
from pluralign.steering.generate import answer
from pluralign.steering.requests import Request
from pluralign.steering.self_guided import sense
from pluralign.terms import plan_for
from pluralign.training.batch import Collator
from pluralign.training.examples import render_examples
from pluralign.training.goal import Goal, observe
from pluralign.training.run import KINDS, align

from .conftest import sentence
from .test_runs import KillAt, assert_two_processes_agree, losses

FORM = ScoreForm((Scale("help", 0, 4), Scale("length", 0, 4)))


def world(n: int, seed: int = 0) -> list[dict]:
    """Pairs whose scores the prompt tells: `help` by how many cats there are, `length` by how many dogs; one is missing
    here and there."""
    rng = random.Random(seed)
    rows = []
    for i in range(n):
        cats, dogs = rng.randint(0, 4), rng.randint(0, 4)
        words = ["cat"] * cats + ["dog"] * dogs + ["tree"] * (8 - cats - dogs)
        rng.shuffle(words)
        rows.append({
            "prompt": f"{i} {' '.join(words)}",
            "chosen": sentence(rng, 3, 8), "rejected": sentence(rng, 3, 8) + " bread",
            "attributes": {"help": [cats, rng.randint(0, 4)], "length": [None if i % 7 == 0 else dogs, 1]},
        })  # fmt: skip
    return rows


@pytest.fixture(scope="module")
def scored_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("scored") / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in world(64)))
    return str(path)


@pytest.fixture
def sga(settings, scored_file):
    def make(*overrides: str, output: str = "run"):
        base = [f"data.source={scored_file}", "scores=chosen", "scores.ranges={help: [0, 4], length: [0, 4]}"]
        return settings(*base, "scores.sense=10", *overrides, output=output)

    return make


# The loss


def pairs(n: int = 4) -> list[Preference]:
    said = lambda text: messages(text, role="assistant")
    return [
        Preference(
            prompt=messages(row["prompt"]), chosen=said(row["chosen"]), rejected=said(row["rejected"]),
            attributes={name: tuple(values) for name, values in row["attributes"].items()},
        )
        for row in world(n)
    ]  # fmt: skip


def outcome(policy: Policy, name: str, how: Conditioning, sense: float, *, layout: str = "trie"):
    """(the outcome, the readings) of an objective over a few scored pairs, policy = reference."""
    objective = OBJECTIVES[name]
    goal = Goal(objective, {}, how, sense)
    plan = conditioned(scored(plan_for(objective.data, objective.needs), FORM), how)
    from pluralign.data import as_kind

    rows = [r for ex in pairs() for r in as_kind(ex, KINDS[objective.data])]
    examples = render_examples(rows, plan, policy.renderer)
    reference = {
        n: torch.cat([policy.score([ex.sequences[n]])[0].sum for ex in examples]).numpy()
        for n in examples.named("reference")
    }
    collator = Collator(goal.names(examples.named("policy"), watched=False), layout, 8192, reference)
    (micro,) = collator(list(examples)).micro
    named = observe(policy.model, micro, goal, lambda: contextlib.nullcontext(policy.model))
    return goal.outcome(named, goal.views()), named


@pytest.fixture
def policy(tiny_model: str) -> Policy:
    """With a head that says something about a prompt."""
    loaded = Policy.load(tiny_model, precision="fp32")
    torch.manual_seed(1)
    with torch.no_grad():
        for p in loaded.model.parameters():
            p.add_(torch.randn_like(p) * 0.1)
        attach(loaded.model, "sensed", 2, layers=3, bounded=True).out.weight.normal_(0, 1)
    return loaded


def test_the_squared_error_by_hand() -> None:
    """||(.75, .25) - (.5, .5)||^2 = .125; what is missing counts nothing and has no gradient (Eq. 6, 7)."""
    found = torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]], requires_grad=True)
    nan = math.nan
    error = masked_squared_error(found, torch.tensor([[0.75, 0.25], [nan, 0.25], [nan, nan]]))
    assert error.tolist() == pytest.approx([0.125, 0.0625, 0.0])
    error.sum().backward()
    assert found.grad.tolist() == [[-0.5, 0.5], [0.0, 0.5], [0.0, 0.0]]


@pytest.mark.parametrize("name", ["sft", "dpo", "simpo", "orpo", "ipo"])
@pytest.mark.parametrize("strategy", ["none", "cross", "averaged"])
def test_the_joint_loss_is_the_base_loss_plus_lambda_times_the_squared_error(policy, name, strategy) -> None:
    """Eq. 7 and 9 under any objective and conditioning; lambda 0 is the base method on the same contexts."""
    how = Conditioning(strategy)
    base, _ = outcome(policy, name, how, 0.0)
    joint, named = outcome(policy, name, how, 1000.0)
    sensed = next(r.sensed for r in named.values() if getattr(r, "sensed", None) is not None)
    error = masked_squared_error(sensed, named["attributes"])
    torch.testing.assert_close(joint.loss, base.loss + 1000.0 * error)
    assert float(error.min()) > 0
    torch.testing.assert_close(joint.metrics["sensing_loss"], error)


@pytest.mark.parametrize("layout", ["trie", "rows"])
def test_it_is_the_raw_prompt_that_is_sensed(policy, layout) -> None:
    """The head reads the same state whatever scores the context shows, and the one that inference reads."""
    _, named = outcome(policy, "dpo", Conditioning("cross"), 1.0, layout=layout)
    alone = sense(policy_with_form(policy), [ex.prompt for ex in pairs()])
    want = torch.tensor([[s["help"], s["length"]] for s in alone])
    for reading in (named["w|l"], named["l|w"]):
        torch.testing.assert_close(reading.sensed, want, atol=1e-5, rtol=0)
    other = ScoreForm(tuple(Scale(n, -3, 9) for n in ("help", "length")))  # other numbers in the same sentence
    assert sense(policy_with_form(policy, other), [pairs()[0].prompt])[0] == pytest.approx(alone[0], abs=1e-6)


def policy_with_form(policy: Policy, form: ScoreForm = FORM) -> Policy:
    return Policy(policy.model, policy.tokenizer, policy.name, policy.precision, policy.rendering, form)


def test_the_heads_gradient_reaches_the_backbone(policy) -> None:
    error = outcome(policy, "sft", Conditioning(), 1.0)[0].metrics  # metrics carry no gradient
    assert not error["sensing_loss"].requires_grad
    with_head, named = outcome(policy, "dpo", Conditioning(), 1.0)
    sensed = named["w"].sensed
    policy.model.zero_grad()
    masked_squared_error(sensed, named["attributes"]).sum().backward()
    gradients = {n: p.grad for n, p in policy.model.named_parameters()}
    assert float(gradients["model.layers.0.self_attn.q_proj.weight"].norm()) > 0
    assert float(gradients["pluralign_sensing.body.0.weight"].norm()) > 0
    assert with_head.loss.requires_grad


@pytest.mark.parametrize("strategy", ["none", "cross", "averaged"])
def test_the_model_is_run_once_a_step(policy, monkeypatch, strategy) -> None:
    """Log-probs of every response and the sensed scores come from one forward pass, in the trie."""
    calls = []
    base = policy.model.base_model
    forward = base.forward

    @functools.wraps(forward)
    def counted(*args, **kwargs):
        calls.append(kwargs["input_ids"].shape)
        return forward(*args, **kwargs)

    goal = Goal(OBJECTIVES["simpo"], {}, Conditioning(strategy), 1.0)  # no reference to be read beside
    plan = conditioned(scored(plan_for("pairs", ("w", "l")), FORM), goal.conditioning)
    examples = render_examples(pairs(), plan, policy.renderer)
    (micro,) = Collator(goal.names(examples.named("policy"), watched=False), "trie", 8192, {})(list(examples)).micro
    monkeypatch.setattr(base, "forward", counted)
    named = observe(policy.model, micro, goal, lambda: contextlib.nullcontext(policy.model))
    assert len(calls) == 1
    assert {"sensing_loss", "sensing_error"} <= set(goal.outcome(named, goal.views()).metrics)


# Runs


def test_one_run_of_each_variant(sga) -> None:
    """SGA_SFT and SGA_DPO: the sensed scores get better than the constant they start from."""
    for objective in ("sft", "dpo"):
        how = ("max_steps=40", "learning_rate=5e-3", "best_metric=none", "eval_every=0", "scores.sense=1000")
        done = align(sga(f"objective={objective}", *how, output=objective))
        rows = [json.loads(line) for line in (done.output / "metrics.jsonl").read_text().splitlines()]
        errors = [r["sensing_loss"] for r in rows if r["phase"] == "train"]
        assert np.mean(errors[-5:]) < 0.8 * np.mean(errors[:5])
        assert done.policy.scores == FORM
        assert {"sensing_loss", "sensing_error"} <= set(done.metrics)
        assert sense(Policy.load(done.output, precision="fp32"), ["1 cat cat dog"])[0] == pytest.approx(
            sense(done.policy, ["1 cat cat dog"])[0], abs=1e-5
        )


def test_an_untrained_head_answers_with_the_mean_of_the_data(sga) -> None:
    done = align(sga("max_steps=1", "learning_rate=1e-12"))
    known = [row["attributes"]["help"][0] / 4 for row in world(64)]
    assert sense(done.policy, ["anything"])[0]["help"] == pytest.approx(float(np.mean(known)), abs=0.05)


def test_the_first_steps_of_a_run(sga) -> None:
    """SGA_DPO begins at ln 2 plus lambda times the variance of the data: a head that was not trained says the mean."""
    done = align(sga("max_steps=1"))
    first = losses(done.output)[0]
    batch = json.loads((done.output / "metrics.jsonl").read_text().splitlines()[0])
    assert first == pytest.approx(math.log(2) + 10 * batch["sensing_loss"], abs=1e-4)
    assert (
        0.05 < batch["sensing_loss"] < 0.4
    )  # two variables uniform on five points: 2 x 0.125, here 0.86 of one missing


def test_the_split_of_a_step_and_the_layout_change_nothing(sga) -> None:
    for objective in ("sft", "dpo"):
        whole = align(sga(f"objective={objective}", "max_steps=3", output=f"whole-{objective}"))
        split = align(sga(f"objective={objective}", "max_steps=3", "token_budget=256", output=f"split-{objective}"))
        rows = align(sga(f"objective={objective}", "max_steps=3", "layout=rows", output=f"rows-{objective}"))
        for other in (split, rows):
            assert losses(other.output) == pytest.approx(losses(whole.output), abs=1e-4)


def test_two_processes_follow_the_trajectory_of_one(sga, tmp_path, cache) -> None:
    """Under accelerate and gloo the head's gradients are averaged like any other weight's."""
    assert_two_processes_agree(sga, tmp_path, ("conditioning=cross",))


@pytest.mark.parametrize("more", [(), ("lora.rank=4",)])
def test_a_run_that_was_stopped_goes_on_with_its_head(sga, more) -> None:
    short = ("max_steps=4", "eval_every=2", *more)
    whole = align(sga(*short, output="whole"))
    assert align(sga(*short, output="stopped"), say=KillAt(1)).status == "stopped"
    again = align(sga(*short, output="stopped"), resume=True)
    assert losses(again.output) == losses(whole.output)
    heads = [head_of(Policy.load(run.output, precision="fp32").model, "sensed").state_dict() for run in (whole, again)]
    for name, weight in heads[0].items():
        assert torch.equal(heads[1][name], weight), name


def test_scores_of_a_trained_policy_are_kept_for_the_next_stage(sga, scored_file) -> None:
    """SGA_SFT, then SGA_DPO from it: the same scales, the head goes on, and nobody has to say so again."""
    first = align(sga("objective=sft", "max_steps=4", output="first"))
    again = sga("max_steps=1", "learning_rate=1e-12", f"model={first.output}", "scores.ranges={}", output="second")
    second = align(again)
    assert second.policy.scores == FORM
    prompt = ["3 cat cat dog tree"]
    assert sense(second.policy, prompt)[0] == pytest.approx(sense(first.policy, prompt)[0], abs=1e-5)


def test_lambda_zero_has_no_head_and_shows_the_scores_all_the_same(sga) -> None:
    done = align(sga("scores.sense=0", "max_steps=1"))
    assert done.policy.sensing is None
    assert done.policy.scores == FORM
    assert losses(done.output)[0] == pytest.approx(math.log(2), abs=1e-5)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("scores.attributes=[hlep]",), 'Did you mean "help"'),
        (("scores.wording=cpo",), "puts them first"),
        (("scores.ranges={help: [1, 1]}",), "goes from 1 to 1"),
    ],
)
def test_what_cannot_be_is_said_before_the_model_is_trained(sga, overrides, words) -> None:
    with pytest.raises(SettingsError, match=words):
        align(sga(*overrides))


def test_data_without_scores_say_so(settings) -> None:
    with pytest.raises(SettingsError, match="the data have no attribute scores"):
        align(settings("scores=chosen"))


def test_the_recipes_leave_the_arithmetic_to_the_machine() -> None:
    """The paper's bf16 where it is native. Where a CPU emulates it, a step takes many times as long."""
    from pluralign.recipes import recipes

    assert {recipes()[name].preset["training"]["precision"] for name in ("sga", "sga_dpo")} == {"auto"}


# Sensing


def test_the_head_recovers_the_scores_of_a_synthetic_world(tiny_model, settings, tmp_path: Path) -> None:
    """R^2 above 0.95 on prompts that were not trained on."""
    path = tmp_path / "world.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in world(600, seed=1)))
    done = align(settings(
        f"data.source={path}", "objective=sft", "scores=chosen", "scores.sense=1000", "max_steps=150", "batch_size=64",
        "learning_rate=5e-3", "eval_every=0", "best_metric=none", "kl_rows=0",
    ))  # fmt: skip
    held = [row for row in world(200, seed=2) if row["attributes"]["length"][0] is not None]
    found = sense(done.policy, [row["prompt"] for row in held])
    for name in ("help", "length"):
        wanted = np.array([row["attributes"][name][0] / 4 for row in held])
        guess = np.array([f[name] for f in found])
        assert 1 - ((wanted - guess) ** 2).sum() / ((wanted - wanted.mean()) ** 2).sum() > 0.95, name


def test_requested_scores_are_obeyed_and_the_others_stay_sensed(settings, tmp_path: Path) -> None:
    """Steering against truth: the share of "bread" in an answer follows the score that asks for it (Spearman > .5)."""
    from scipy.stats import spearmanr

    rng = random.Random(0)
    words = ("cat", "tree", "red", "house", "dog")
    rows = []
    for _ in range(400):
        bread = rng.randint(0, 4)
        chosen = " ".join("bread" if rng.random() < bread / 4 else "tree" for _ in range(4))
        scores = {"bread": [bread, 0], "calm": [rng.randint(0, 4), 2]}
        prompt = f"Say something, {rng.choice(words)} {rng.choice(words)}."
        rows.append({"prompt": prompt, "chosen": chosen, "rejected": "no", "attributes": scores})
    path = tmp_path / "steered.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    policy = align(settings(
        f"data.source={path}", "objective=sft", "scores=chosen", "scores.sense=10", "max_steps=400",
        "scores.ranges={bread: [0, 4], calm: [0, 4]}", "batch_size=16", "learning_rate=5e-3", "eval_every=0",
        "best_metric=none", "kl_rows=0", "save_every=0", "validation_fraction=0",
    )).policy  # fmt: skip
    prompts = [f"Say something, {a} {b}." for a in words[:3] for b in words[3:]]
    asked = [0.0, 0.25, 0.5, 0.75, 1.0]
    requests = [Request(p, max_new_tokens=24, temperature=0, attributes={"bread": v}, place=i)
                for i, (p, v) in enumerate((p, v) for p in prompts for v in asked)]  # fmt: skip
    given = answer(policy, requests)
    counts = [a.text.split().count("bread") for a in given]
    assert spearmanr([r.attributes["bread"] for r in requests], counts).statistic > 0.5
    free = answer(policy, [Request(r.turns, max_new_tokens=1) for r in requests])
    assert {a.sensed for a in given} == {("calm",)}
    assert [a.attributes["calm"] for a in given] == [a.attributes["calm"] for a in free]
