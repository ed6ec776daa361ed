"""The preference orchestrator: hand-worked values of its specification, reductions, recovery, an untouched policy."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pluralign.errors import SettingsError
from pluralign.heads.orchestrator import (
    FILES,
    Orchestrator,
    features,
    fit_orchestrator,
    load_orchestrator,
    save_orchestrator,
    scalarise,
    with_weights,
)
from pluralign.heads.prompt_weights import (
    Normaliser,
    Options,
    adapter,
    constant_weights,
    fit_adapter,
    fit_normaliser,
    pro_loss,
    scores_of,
    target_weights,
)
from pluralign.judging.attributes import judge_weights
from pluralign.policy import Policy
from pluralign.records import Demonstration, Labelled, Preference, Ranked, messages
from pluralign.steering.goals import target_scores
from tests.training.conftest import tiny_model  # noqa: F401 - a fixture

NAN = math.nan
Z = torch.tensor([[1.0, -0.5, 0.2]], dtype=torch.float64)
W = (0.597922, 0.133414, 0.268664)


def known(targets: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(targets, dtype=torch.bool)


# --- targets --------------------------------------------------------------------------------------------------


def test_the_target_of_the_specification():
    assert target_weights(Z)[0].tolist() == pytest.approx(W, abs=1e-6)


def test_adding_a_constant_to_all_scores_changes_nothing():
    assert torch.allclose(target_weights(Z + 7.3), target_weights(Z))


def test_temperature_runs_from_one_hot_to_uniform():
    assert target_weights(Z, 1e9)[0].tolist() == pytest.approx([1 / 3] * 3)
    assert target_weights(Z, 1e-3)[0].tolist() == pytest.approx([1, 0, 0])
    for tau in (0.0, -1.0, NAN):
        with pytest.raises(SettingsError, match="tau"):
            target_weights(Z, tau)


def test_one_objective_has_all_the_weight():
    assert target_weights(torch.tensor([[3.0], [-2.0]])).tolist() == [[1], [1]]


def test_a_missing_score_is_dropped_and_the_rest_renormalised():
    found = target_weights(torch.tensor([[1.0, NAN, 0.2], [NAN, NAN, NAN]]))
    a, b = math.exp(1.0), math.exp(0.2)
    assert found[0].tolist() == pytest.approx([a / (a + b), 0, b / (a + b)])
    assert found[1].tolist() == [0, 0, 0]


def test_permuting_objectives_permutes_targets():
    order = [2, 0, 1]
    assert torch.equal(target_weights(Z[:, order]), target_weights(Z)[:, order])


def test_normalisers_by_hand():
    chosen = torch.tensor([[1.0, 10.0], [3.0, 30.0], [5.0, NAN]])
    rejected = torch.tensor([[0.0, 20.0], [1.0, 10.0], [5.0, 10.0]])
    z = fit_normaliser(chosen)
    assert (z.shift, z.scale) == ((3.0, 20.0), (pytest.approx(math.sqrt(8 / 3)), 10.0))
    assert z(chosen)[0].tolist() == pytest.approx([-2 / math.sqrt(8 / 3), -1])
    assert z(chosen)[2, 1].isnan()
    low = fit_normaliser(chosen, mode="min-max")
    assert low(chosen)[:2].tolist() == [[0, 0], [0.5, 1]]
    gap = fit_normaliser(chosen, rejected, mode="advantage")
    assert gap.shift == (0, 0)
    assert gap.scale == (pytest.approx(math.sqrt(5 / 3)), pytest.approx(math.sqrt(250)))
    assert gap(chosen, rejected)[0].tolist() == pytest.approx([1 / math.sqrt(5 / 3), -10 / math.sqrt(250)])


@pytest.mark.parametrize("mode", ["zscore", "min-max", "advantage"])
def test_the_unit_of_a_reward_model_does_not_matter(mode):
    """A constant difference of scale between reward models must not make the weights collapse to one objective."""
    rng = torch.Generator().manual_seed(0)
    chosen, rejected = torch.randn(50, 2, generator=rng), torch.randn(50, 2, generator=rng)
    unit = torch.tensor([1.0, 1000.0])
    plain = target_weights(fit_normaliser(chosen, rejected, mode=mode)(chosen, rejected))
    scaled = target_weights(fit_normaliser(chosen * unit, rejected * unit, mode=mode)(chosen * unit, rejected * unit))
    assert torch.allclose(plain, scaled)


def test_what_cannot_be_normalised_is_told():
    same = torch.ones(4, 1)
    with pytest.raises(SettingsError, match='"helpful" never varies'):
        fit_normaliser(same, names=("helpful",))
    with pytest.raises(SettingsError, match="rejected responses"):
        fit_normaliser(torch.randn(4, 1), mode="advantage")
    with pytest.raises(SettingsError, match='Did you mean "zscore"'):
        fit_normaliser(torch.randn(4, 1), mode="zscores")  # type: ignore[arg-type]


def test_scores_of_every_kind_of_record():
    x, y, no = messages("x"), messages("y", role="assistant"), messages("no", role="assistant")
    records = [
        Preference(prompt=x, chosen=y, rejected=no, attributes={"a": (1.0, 0.5), "b": (None, 2.0)}),
        Ranked(prompt=x, responses=(no, y), scores=(0.0, 1.0), attributes={"a": (3.0, 4.0), "b": (None, 6.0)}),
        Demonstration(prompt=x, response=y, attributes={"b": 7.0}),
        Labelled(prompt=x, response=no, label=False, attributes={"a": 8.0}),
    ]
    chosen, rejected = scores_of(records, ("a", "b"))
    assert torch.equal(chosen.nan_to_num(-1).long(), torch.tensor([[1, -1], [4, 6], [-1, 7], [-1, -1]]))
    assert rejected.nan_to_num(-1).tolist() == [[0.5, 2], [3, -1], [-1, -1], [8, -1]]


# --- loss -----------------------------------------------------------------------------------------------------


def test_the_loss_of_the_specification():
    """Uniform weights: KL .169265; with eta, the KL of the prediction to uniform on top."""
    w = target_weights(Z)
    assert pro_loss(torch.zeros(1, 3, dtype=torch.float64), w).item() == pytest.approx(0.169265, abs=1e-6)
    assert pro_loss(Z, w).item() == pytest.approx(0, abs=1e-12)
    assert pro_loss(Z, w, eta=0.5).item() == pytest.approx(0.5 * 0.169265, abs=1e-6)


def test_the_gradient_moves_weights_towards_the_target():
    logits = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    pro_loss(logits, target_weights(Z)).sum().backward()
    assert logits.grad[0].tolist() == pytest.approx([1 / 3 - w for w in W], abs=1e-6)


def test_a_missing_score_says_nothing_about_its_objective():
    z = torch.tensor([[1.0, NAN, 0.2]], dtype=torch.float64)
    logits = torch.tensor([[0.3, 5.0, -0.4]], dtype=torch.float64, requires_grad=True)
    loss = pro_loss(logits, target_weights(z), known=~z.isnan())
    loss.sum().backward()
    assert logits.grad[0, 1] == 0
    alone = pro_loss(logits[:, [0, 2]], target_weights(z[:, [0, 2]]))
    assert loss.item() == pytest.approx(alone.item())


def test_the_constant_is_the_mean_target_and_the_best_one_where_scores_are_missing():
    w = target_weights(torch.randn(200, 3, generator=torch.Generator().manual_seed(0)).double())
    assert torch.allclose(constant_weights(w), w.mean(0))
    z = torch.randn(300, 3, generator=torch.Generator().manual_seed(1)).double() + torch.tensor([1.0, 0.0, -1.0])
    z[:150, 0], z[100:200, 2] = NAN, NAN
    seen, w = ~z.isnan(), target_weights(z)
    found = constant_weights(w, seen)
    loss = lambda c: pro_loss(c.log().expand(300, 3), w, known=seen).mean().item()
    assert found.sum().item() == pytest.approx(1)
    for k in range(3):
        step = torch.zeros(3, dtype=torch.float64)
        step[k] = 0.02
        for near in (found + step, found - step):
            assert loss(found) < loss(near / near.sum())


# --- the adapter ----------------------------------------------------------------------------------------------


def clusters(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """States of prompts from three clusters, and noisy targets about the weights of each."""
    rng = torch.Generator().manual_seed(seed)
    centres = torch.randn(3, 16, generator=torch.Generator().manual_seed(9))
    truth = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.25, 0.05, 0.7]])
    which = torch.randint(3, (n,), generator=rng)
    states = centres[which] + 0.2 * torch.randn(n, 16, generator=rng)
    targets = target_weights(truth[which].double().log() + 0.3 * torch.randn(n, 3, generator=rng).double())
    return states, targets, truth[which].double()


FAST = Options(learning_rate=3e-3, epochs=20, patience=5)


def fitted(states: torch.Tensor, targets: torch.Tensor, options: Options = FAST):
    cut = len(states) * 4 // 5
    rows = [(states[p], targets[p], known(targets[p])) for p in (slice(0, cut), slice(cut, None))]
    return fit_adapter(*rows, options)


def test_the_weights_of_three_clusters_are_recovered():
    """Mean absolute error below .03 on prompts that were not trained on, and far better than constant weights."""
    module, constant, history = fitted(*clusters(1500)[:2])
    states, targets, truth = clusters(300, seed=1)
    with torch.no_grad():
        found = module(states).softmax(-1)
    assert (found - truth).abs().mean() < 0.03
    assert judge_weights(targets, found, constant).is_better
    assert history[-1]["validation"] < 0.3 * history[0]["validation"]


def test_scores_that_do_not_depend_on_the_prompt_are_not_said_to_be_learned():
    rng = torch.Generator().manual_seed(3)
    states = torch.randn(1200, 16, generator=rng)
    targets = target_weights(torch.randn(1200, 3, generator=rng).double() + torch.tensor([1.0, 0.0, 0.0]))
    module, constant, _ = fitted(states[:1000], targets[:1000], Options(learning_rate=1e-3, epochs=5))
    with torch.no_grad():
        found = module(states[1000:]).softmax(-1)
    assert (found - constant).abs().mean() < 0.05
    report = judge_weights(targets[1000:], found, constant)
    assert not report.is_better
    assert report.verdict.startswith("Not shown")


def test_the_untrained_adapter_says_the_constant_weights():
    states, targets, _ = clusters(50)
    module = adapter(16, 3, start=constant_weights(targets))
    assert torch.allclose(module(states).softmax(-1), targets.mean(0).float().expand(50, 3), atol=1e-6)


def test_permuting_objectives_permutes_what_is_learned():
    states, targets, _ = clusters(300)
    order = [2, 0, 1]
    options = replace(FAST, epochs=3)
    plain, permuted = fitted(states, targets, options)[0], fitted(states, targets[:, order], options)[0]
    assert torch.allclose(plain(states).softmax(-1)[:, order], permuted(states).softmax(-1), atol=0.02)


def test_the_same_seed_gives_the_same_adapter_and_nobody_elses_numbers_are_used_up():
    states, targets, _ = clusters(200)
    before = torch.get_rng_state()
    first, again = (fitted(states, targets, replace(FAST, epochs=2))[0] for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    other = fitted(states, targets, replace(FAST, epochs=2, seed=1))[0]
    assert not torch.equal(first[1].weight, other[1].weight)


def test_it_stops_when_validation_gets_worse_and_keeps_the_best():
    rng = torch.Generator().manual_seed(0)
    states = torch.randn(60, 16, generator=rng)
    targets = target_weights(3 * torch.randn(60, 3, generator=rng).double())
    module, _, history = fitted(states, targets, Options(learning_rate=1e-2, epochs=100, patience=3))
    best = min(range(len(history)), key=lambda i: history[i]["validation"])
    assert len(history) == best + 4 < 101
    with torch.no_grad():
        kl = pro_loss(module(states[48:]), targets[48:]).mean().item()
    assert kl == pytest.approx(history[best]["validation"])


def test_one_objective_is_learned_as_one():
    states = torch.randn(40, 16, generator=torch.Generator().manual_seed(0))
    module, constant, _ = fitted(states, torch.ones(40, 1, dtype=torch.float64))
    assert constant.tolist() == [1]
    assert (module(states).softmax(-1) == 1).all()


@pytest.mark.parametrize(
    "wrong", [{"tau": 0.0}, {"learning_rate": NAN}, {"epochs": 0}, {"eta": -1.0}, {"batch_size": 0}]
)
def test_options_that_cannot_be(wrong):
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        Options(**wrong).check()


# --- rewards --------------------------------------------------------------------------------------------------


def test_scalarised_rewards_by_hand():
    w = torch.tensor([[0.5, 0.3, 0.2]], requires_grad=True)
    z = torch.tensor([[1.0, -1.0, 2.0]], requires_grad=True)
    reward = scalarise(w, z)
    reward.sum().backward()
    assert reward.item() == pytest.approx(0.6)
    assert w.grad is None
    assert z.grad[0].tolist() == pytest.approx([0.5, 0.3, 0.2])
    assert scalarise(w, torch.tensor([[1.0, NAN, 2.0]])).item() == pytest.approx((0.5 + 0.4) / 0.7)
    with pytest.raises(SettingsError, match="no score"):
        scalarise(w, torch.full((1, 3), NAN))


# --- on a policy ----------------------------------------------------------------------------------------------

TOPICS = (("the red cat sat", "helpful"), ("under a blue tree", "honest"))


def rows(n: int = 160) -> list[Preference]:
    """Half of the prompts are about one thing, where helpfulness is high; half about another, where honesty is."""
    rng = torch.Generator().manual_seed(0)
    made = []
    for i in range(n):
        said, high = TOPICS[i % 2]
        noise = (0.3 * torch.randn(4, generator=rng)).tolist()
        a, b = (4.0, 1.0) if high == "helpful" else (1.0, 4.0)
        made.append(
            Preference(
                prompt=messages(f"{said} {i} and {said}"),
                chosen=messages(f"yes {i}", role="assistant"),
                rejected=messages(f"no {i}", role="assistant"),
                attributes={"helpful": (a + noise[0], 1.0 + noise[1]), "honest": (b + noise[2], 1.0 + noise[3])},
            )
        )
    return made


@pytest.fixture(scope="module")
def policy(tiny_model: str) -> Policy:  # noqa: F811 - the fixture
    return Policy.load(tiny_model, precision="fp32")


@pytest.fixture(scope="module")
def made(policy: Policy):
    return fit_orchestrator(policy, rows(), ("helpful", "honest"), options=replace(FAST, seed=1))


@torch.no_grad()
def test_features_are_the_states_of_the_last_prompt_token(policy: Policy):
    prompts = ["the cat", "a dog ran under the red house and then", "the cat"]
    found = features(policy, prompts)
    for row, prompt in zip(found, prompts, strict=True):
        ids = torch.tensor([policy.renderer.prompt(messages(prompt))])
        state = policy.model.eval()(ids, output_hidden_states=True).hidden_states[-1][0, -1]
        assert torch.allclose(row, state.float(), atol=1e-5)
    assert not found.requires_grad


def test_known_prompts_are_not_read_again(policy: Policy, monkeypatch: pytest.MonkeyPatch):
    cache: dict = {}
    counted: list[int] = []
    first = features(policy, ["the cat", "the dog", "the cat"], cache=cache, progress=counted.append)
    assert (len(cache), sum(counted)) == (2, 2)
    monkeypatch.setattr(Policy, "score", lambda self, sequences, **_: [] if not sequences else pytest.fail("read"))
    assert torch.equal(features(policy, ["the dog", "the cat"], cache=cache), first[[1, 0]])


def test_a_prompt_beyond_the_models_positions_loses_its_beginning(policy: Policy):
    long = features(policy, ["bread " * 900 + "the cat"])
    assert long.shape == (1, 32)
    assert long.isfinite().all()


def test_what_matters_for_a_prompt_is_learned_and_the_policy_is_left_alone(policy: Policy, made):
    before = {name: p.clone() for name, p in policy.model.state_dict().items()}
    again = fit_orchestrator(policy, rows(), ("helpful", "honest"), options=replace(FAST, epochs=1))
    assert all(torch.equal(before[name], p) for name, p in policy.model.state_dict().items())
    assert all(p.grad is None for p in policy.model.parameters())
    assert again.orchestrator.facts["rows"].keys() == {"train", "validation", "held_out"}
    weights = made.orchestrator.weights_for(policy, ["the red cat sat 7 and the red cat sat", "under a blue tree 3"])
    assert weights.sum(-1).tolist() == pytest.approx([1, 1])
    assert weights[0, 0] > 0.6
    assert weights[1, 0] < 0.4
    report = judge_weights(
        made.targets, made.predicted, made.orchestrator.constant, known=made.known, clusters=made.clusters
    )
    assert report.is_better
    assert report.gain.n == made.orchestrator.facts["rows"]["held_out"]


def test_saved_and_loaded_it_says_the_same(policy: Policy, made, tmp_path: Path):
    save_orchestrator(made.orchestrator, tmp_path / "o")
    assert sorted(p.name for p in (tmp_path / "o").iterdir()) == sorted(FILES)
    told = json.loads((tmp_path / "o" / FILES[1]).read_text())
    assert told["method"] == "pref_orchestrator"
    assert "reconstruction" in told["status"]
    loaded = load_orchestrator(tmp_path / "o")
    prompts = ["the red cat", messages("a tree")]
    assert torch.equal(loaded.weights_for(policy, prompts), made.orchestrator.weights_for(policy, prompts))
    assert loaded.names == ("helpful", "honest")
    assert loaded.normaliser == made.orchestrator.normaliser
    assert loaded.options == made.orchestrator.options


def test_the_same_policy_in_another_precision_is_not_refused(policy: Policy, made):
    rounded = Policy.load(policy.name, precision="bf16")
    found = [made.orchestrator.weights_for(p, ["the cat", "a tree"]) for p in (policy, rounded)]
    assert torch.allclose(*found, atol=0.05)


def test_another_policy_is_refused(policy: Policy, made, tmp_path: Path):
    other = Policy.load(policy.name, precision="fp32")
    with torch.no_grad():
        for p in other.model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(SettingsError, match="fitted on other weights"):
        made.orchestrator.weights_for(other, ["the cat"])
    wide = replace(made.orchestrator, probe=torch.zeros(64))
    with pytest.raises(SettingsError, match="states of 64 numbers"):
        wide.weights_for(policy, ["the cat"])


def test_records_get_their_weights(policy: Policy, made):
    found = list(with_weights(made.orchestrator, policy, rows(5), batch=2))
    assert [r.prompt for r in found] == [r.prompt for r in rows(5)]
    weights = found[0].meta["weights"]
    assert list(weights) == ["helpful", "honest"]
    assert sum(weights.values()) == pytest.approx(1)
    assert weights["helpful"] == pytest.approx(made.orchestrator.weights_for(policy, [rows(5)[0]])[0, 0].item())


def test_weights_become_attributes_of_every_response(policy: Policy, made):
    x, y = messages("the red cat"), messages("y", role="assistant")
    ranked = Ranked(prompt=x, responses=(y, messages("z", role="assistant"), y), scores=(1.0, 2.0, 3.0))
    shown = Demonstration(prompt=x, response=y, attributes={"helpful": 3.0})
    pair, ranking, single = with_weights(made.orchestrator, policy, [rows(1)[0], ranked, shown], as_attributes=True)
    w = single.meta["weights"]["honest"]
    assert single.attributes == {"helpful": 3.0, "helpful_weight": pytest.approx(1 - w), "honest_weight": w}
    assert ranking.attributes["honest_weight"] == (w, w, w)
    assert list(pair.attributes) == ["helpful", "honest", "helpful_weight", "honest_weight"]
    assert pair.attributes["honest_weight"] == (pair.meta["weights"]["honest"],) * 2
    for record in (pair, ranking, single):
        record.validate()
    with pytest.raises(SettingsError, match="already"):
        list(with_weights(made.orchestrator, policy, [pair], as_attributes=True))


def test_weights_are_a_preference_for_rewards_in_context(policy: Policy, made):
    """K = 2, the range of both 0 to 4: what weighs at least a half is asked for in full, the other in proportion."""
    weights = made.orchestrator.named(made.orchestrator.weights_for(policy, ["the red cat sat 7 and the red cat sat"]))
    asked = target_scores(weights[0], {"helpful": (0.0, 4.0), "honest": (0.0, 4.0)})
    assert asked["helpful"] == 4
    assert asked["honest"] == pytest.approx(4 * 2 * weights[0]["honest"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": ("helpfull", "honest")}, 'no record has a usable score "helpfull". Did you mean "helpful"'),
        ({"names": ()}, "at least one"),
        ({"names": ("helpful", "helpful")}, "once"),
        ({"validation": 0.6, "held_out": 0.5}, "leave some to train on"),
        ({"held_out": 1e-9}, "none would be held out"),
    ],
)
def test_what_cannot_be_fitted_is_told(policy: Policy, options, message):
    given = {"names": ("helpful", "honest"), **options}
    with pytest.raises(SettingsError, match=message):
        fit_orchestrator(policy, rows(20), given.pop("names"), **given)


def test_rows_without_scores_are_left_out_and_counted(policy: Policy):
    bare = [replace(r, attributes={}) for r in rows(6)]
    found = fit_orchestrator(policy, [*rows(60), *bare], ("helpful", "honest"), mode="advantage",
                             options=Options(epochs=1))  # fmt: skip
    assert found.left_out == {"no score on any of the objectives": 6}
    assert sum(found.orchestrator.facts["rows"].values()) == 60
    assert found.orchestrator.normaliser.mode == "advantage"


@pytest.mark.parametrize("damage", ["missing", "json", "weights", "options"])
def test_damaged_files_are_told(made, tmp_path: Path, damage: str):
    folder = save_orchestrator(made.orchestrator, tmp_path)
    told = json.loads((folder / FILES[1]).read_text())
    if damage == "missing":
        (folder / FILES[0]).unlink()
    elif damage == "json":
        (folder / FILES[1]).write_text("{")
    elif damage == "weights":
        (folder / FILES[0]).write_bytes(b"nothing")
    else:
        (folder / FILES[1]).write_text(json.dumps({**told, "objectives": ["one"]}))
    with pytest.raises(SettingsError, match=r"orchestrator\.(safetensors|json)"):
        load_orchestrator(folder)


def test_weights_are_for_objectives_by_name():
    made = Orchestrator(("a", "b"), None, Normaliser("zscore", (0, 0), (1, 1)), torch.ones(2) / 2, torch.ones(1))
    assert made.named(torch.tensor([[0.25, 0.75]])) == [{"a": 0.25, "b": 0.75}]
