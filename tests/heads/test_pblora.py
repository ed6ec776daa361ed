"""PBLoRA: dW by hand, what it leaves of the base, preferences, files, and a PARM trained through the one loop."""

from __future__ import annotations

import copy
import random
from pathlib import Path

import pytest
import torch
from torch import nn

from pluralign.errors import SettingsError
from pluralign.heads.pblora import (
    FILE,
    PBLoRA,
    Shape,
    inject,
    layers,
    load_pblora,
    parm_objective,
    preference_of,
    remove,
    save_pblora,
    set_preference,
    shape_of,
    without_pblora,
)
from pluralign.objectives.parm import draw_preference
from pluralign.policy import LoRA, Policy
from pluralign.records import Preference, messages
from pluralign.scoring.layout import Scored
from pluralign.scoring.reference import model_digest
from pluralign.steering import generate
from pluralign.steering.mixture import guided
from pluralign.training.run import align
from tests.training.conftest import cache, pairs_file, sentence, settings, tiny_model  # noqa: F401 - fixtures

TWO = Shape(("good", "bread"))
IDS = torch.tensor([[5, 6, 7, 8, 9]])


def loud(tiny_model: str) -> Policy:  # noqa: F811 - the fixture
    """A model whose attention matters; fresh weights are so small that nothing in it does."""
    policy = Policy.load(tiny_model, precision="fp32")
    torch.manual_seed(1)
    with torch.no_grad():
        for p in policy.model.parameters():
            p.add_(torch.randn_like(p) * 0.2)
    return policy


@pytest.fixture
def policy(tiny_model: str) -> Policy:  # noqa: F811 - the fixture
    return loud(tiny_model)


def spread(model: nn.Module, size: float = 0.3) -> None:
    """Weights that a training might have left."""
    torch.manual_seed(0)
    with torch.no_grad():
        for layer in layers(model).values():
            for p in layer.parameters():
                p.add_(torch.randn_like(p) * size)


def logits(policy: Policy) -> torch.Tensor:
    with torch.no_grad():
        return policy.model.eval()(IDS).logits


# dW


def small() -> PBLoRA:
    """I = 2, O = 2, r_1 = 1, r_2 = 2, K = 2, s = 6/2."""
    layer = PBLoRA(2, 2, Shape(("a", "b"), fixed_rank=1, preference_rank=2, alpha=6.0))
    with torch.no_grad():
        layer.down.copy_(torch.tensor([[1.0, 2.0], [1.0, 0.0], [0.0, 1.0]]))
        layer.up.copy_(torch.tensor([[1.0, 1.0, 0.0], [-1.0, 0.0, 1.0]]))
        layer.fixed.copy_(torch.tensor([[0.5]]))
        layer.steered.copy_(torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.0, -1.0, 1.0, 0.0]]))
    return layer


def test_dw_by_hand() -> None:
    """alpha (.25, .75): W_2 = (.25, -.25; 1.5, 1); B_1 W_1 A_1 = (.5, 1; -.5, -1); B_2 = A_2 = I; s = 3."""
    layer = small()
    layer.preference = torch.tensor([0.25, 0.75])
    wanted = 3 * (torch.tensor([[0.5, 1.0], [-0.5, -1.0]]) + torch.tensor([[0.25, -0.25], [1.5, 1.0]]))
    assert torch.allclose(layer.delta(), wanted)
    x = torch.randn(3, 5, 2)
    assert torch.allclose(layer(x), x @ wanted.T, atol=1e-5)


def test_dw_is_affine_in_alpha() -> None:
    """Differences along the simplex are the same everywhere, and the part without alpha is what V = 0 leaves."""
    layer = small()

    def at(t: float) -> torch.Tensor:
        layer.preference = torch.tensor([t, 1 - t])
        return layer.delta().detach()

    steps = [at(t + 0.1) - at(t) for t in (0.0, 0.3, 0.6, 0.9)]
    assert steps[0].abs().max() > 0.1
    assert all(torch.allclose(step, steps[0], atol=1e-5) for step in steps)
    ends = at(1.0), at(0.0)
    assert torch.allclose(at(0.3), 0.3 * ends[0] + 0.7 * ends[1], atol=1e-5)
    with torch.no_grad():
        layer.steered.zero_()
    assert torch.allclose(at(0.3), 3 * torch.tensor([[0.5, 1.0], [-0.5, -1.0]]))


def test_a_fresh_layer_changes_nothing_and_all_of_it_can_be_learned(policy: Policy) -> None:
    before = logits(policy)
    inject(policy.model, TWO)
    assert torch.equal(logits(policy), before)  # B = 0
    policy.model(IDS).logits.square().sum().backward()
    fresh = next(iter(layers(policy.model).values()))
    assert fresh.up.grad.abs().max() > 0  # the first step moves B, and then the rest has a gradient
    spread(policy.model, 0.01)
    policy.model(IDS).logits.square().sum().backward()
    for layer in layers(policy.model).values():
        assert all(p.grad.abs().max() > 0 for p in layer.parameters())


def test_the_model_adds_dw_and_gives_the_base_back(policy: Policy) -> None:
    plain, start = copy.deepcopy(policy.model), model_digest(policy.model)
    names = set(policy.model.state_dict())
    chosen = inject(policy.model, TWO)
    assert len(chosen) == 2 * 3  # two layers of q, k, v
    assert set(layers(policy.model)) == set(chosen)
    assert names < set(policy.model.state_dict())  # the base's parameters keep their names
    trained = {n for n, p in policy.model.named_parameters() if p.requires_grad}
    assert trained == {n for n, _ in policy.model.named_parameters() if "pluralign_pblora" in n}
    spread(policy.model)
    assert model_digest(policy.model) == start
    set_preference(policy.model, (0.3, 0.7))
    merged = Policy(copy.deepcopy(plain), policy.tokenizer, "merged")
    with torch.no_grad():
        for name, layer in layers(policy.model).items():
            merged.model.get_submodule(name).weight += layer.delta()
    assert torch.allclose(logits(policy), logits(merged), atol=1e-4)
    base = Policy(plain, policy.tokenizer, "base")
    assert (logits(policy) - logits(base)).abs().max() > 0.1
    with without_pblora(policy.model):
        assert torch.equal(logits(policy), logits(base))
        assert set(policy.model.state_dict()) == names
    assert torch.allclose(logits(policy), logits(merged), atol=1e-4)  # and back again
    remove(policy.model)
    assert torch.equal(logits(policy), logits(base))
    assert not layers(policy.model)


def test_a_copy_has_layers_of_its_own(policy: Policy) -> None:
    inject(policy.model, TWO)
    spread(policy.model)
    twin = Policy(copy.deepcopy(policy.model), policy.tokenizer, "twin")
    set_preference(policy.model, (1, 0))
    set_preference(twin.model, (0, 1))
    assert preference_of(policy.model).tolist() == [1, 0]
    assert (logits(policy) - logits(twin)).abs().max() > 1e-3


def test_under_bf16_weights(policy: Policy) -> None:
    policy.model.bfloat16()
    inject(policy.model, TWO)
    spread(policy.model)
    out = policy.model(IDS).logits
    assert out.dtype == torch.bfloat16
    out.float().square().sum().backward()
    assert all(layer.up.grad.dtype == torch.float32 for layer in layers(policy.model).values())


# Preferences


def test_preferences_by_order_and_by_name(policy: Policy) -> None:
    inject(policy.model, TWO)
    assert preference_of(policy.model).tolist() == [0.5, 0.5]
    set_preference(policy.model, {"bread": 0.75, "good": 0.25})
    assert preference_of(policy.model).tolist() == [0.25, 0.75]
    for alpha, said in (
        ((0.5, 0.4), "adds up to 1, not 0.5, 0.4"),
        ((1.5, -0.5), "0 or more"),
        ((1.0,), r"2 weights \(good, bread\), not 1"),
        ({"good": 1.0}, "an attribute is missing"),
        ({"good": 0.5, "cheese": 0.5}, 'unknown attribute "cheese"'),
    ):
        with pytest.raises(SettingsError, match=said):
            set_preference(policy.model, alpha)
    assert preference_of(policy.model).tolist() == [0.25, 0.75]


def test_layers_that_cannot_be(policy: Policy, tiny_model: str) -> None:  # noqa: F811
    with pytest.raises(SettingsError, match=r'no linear layer "q_prj" \(it has: .*q_proj.*Did you mean "q_proj"'):
        inject(policy.model, Shape(("a",), targets=("q_prj",)))
    for shape in ({"attributes": ()}, {"attributes": ("a", "a")}, {"attributes": ("a",), "preference_rank": 0}):
        with pytest.raises(SettingsError, match=r"attributes|ranks"):
            Shape(**shape)
    for use in (shape_of, preference_of, lambda m: set_preference(m, (1.0,))):
        with pytest.raises(SettingsError, match="no PBLoRA layers"):
            use(policy.model)
    with pytest.raises(SettingsError, match="no PBLoRA layers"):
        parm_objective(policy.model, ())
    inject(policy.model, TWO)
    with pytest.raises(SettingsError, match="already"):
        inject(policy.model, TWO)
    adapted = Policy.load(tiny_model, precision="fp32", lora=LoRA(rank=2))
    with pytest.raises(SettingsError, match='no linear layer "q_proj"'):
        inject(adapted.model, TWO)


# Files


def test_files_give_the_layers_back_and_not_the_preference(
    policy: Policy,
    tiny_model: str,  # noqa: F811
    tmp_path: Path,
) -> None:
    shape = Shape(("good", "bread", "length"), ("q_proj", "o_proj"), 2, 3, 4.0)
    inject(policy.model, shape)
    spread(policy.model)
    set_preference(policy.model, (0.2, 0.3, 0.5))
    save_pblora(policy.model, tmp_path)
    again = loud(tiny_model)
    assert load_pblora(again.model, tmp_path)
    assert shape_of(again.model) == shape
    assert preference_of(again.model).tolist() == pytest.approx([1 / 3] * 3)
    set_preference(again.model, (0.2, 0.3, 0.5))
    assert torch.equal(logits(again), logits(policy))
    assert not load_pblora(Policy.load(tiny_model).model, tmp_path / "nowhere")


def test_files_that_do_not_fit(policy: Policy, tiny_model: str, tmp_path: Path) -> None:  # noqa: F811
    from safetensors.torch import load_file, save_file

    inject(policy.model, TWO)
    path = save_pblora(policy.model, tmp_path / "whole")
    fresh = Policy.load(tiny_model, precision="fp32").model
    kept = load_file(path)
    first = sorted(kept)[0]
    (tmp_path / "bare").mkdir()
    save_file(kept, tmp_path / "bare" / FILE)  # no shape
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / FILE).write_bytes(path.read_bytes()[:200])
    for folder in ("bare", "torn"):
        with pytest.raises(SettingsError, match="holds no PBLoRA layers"):
            load_pblora(fresh, tmp_path / folder)
    (tmp_path / "less").mkdir()
    from safetensors import safe_open

    with safe_open(path, framework="pt") as f:
        about = f.metadata()
    save_file({n: t for n, t in kept.items() if n != first}, tmp_path / "less" / FILE, metadata=about)
    with pytest.raises(SettingsError, match=f"does not fit this model: {first}"):
        load_pblora(fresh, tmp_path / "less")
    assert not layers(fresh)


# Training


def opposed(count: int, seed: int = 0) -> list[Preference]:
    """Responses of which one ends in "good" and the other in "bread": each has an attribute of its name."""
    rng = random.Random(seed)
    out = []
    for i in range(count):
        body = sentence(rng, 2, 5)
        ends = ["good", "bread"] if rng.random() < 0.5 else ["bread", "good"]
        chosen, rejected = (messages(f"{body} {end}", role="assistant") for end in ends)
        scores = {name: (float(ends[0] == name), float(ends[1] == name)) for name in ("good", "bread")}
        prompt = messages(f"{i} {sentence(rng, 2, 5)}")
        out.append(Preference(prompt=prompt, chosen=chosen, rejected=rejected, attributes=scores))
    return out


def lean(policy: Policy, rows: list[Preference]) -> float:
    """Mean log pi(... good) - log pi(... bread)."""
    sequences, signs = [], []
    for row in rows:
        context = policy.renderer.prompt(row.prompt)
        for response in (row.chosen, row.rejected):
            text = response[0].content
            target = policy.tokenizer.encode(text, add_special_tokens=False)
            sequences.append(Scored(context, [*target, policy.renderer.stop_ids[0]]))
            signs.append(1 if text.endswith("good") else -1)
    sums = [float(r.sum) for r in policy.score(sequences)]
    return sum(s * x for s, x in zip(signs, sums, strict=True)) / len(rows)


def test_a_step_reads_one_alpha_in_layers_and_loss_and_evaluation_the_given_one(policy: Policy) -> None:
    inject(policy.model, TWO)
    set_preference(policy.model, (0.9, 0.1))
    made = parm_objective(policy.model, TWO.attributes, seed=3)
    policy.model.train()
    running = made.update({}, {})
    assert torch.equal(preference_of(policy.model), draw_preference(3, 0, 2))
    assert {tuple(layer.current.tolist()) for layer in layers(policy.model).values()} == {
        tuple(draw_preference(3, 0, 2).tolist())
    }
    running = made.update(running, {})
    assert torch.equal(preference_of(policy.model), draw_preference(3, 1, 2))
    assert running == {"step": 2}
    resumed = parm_objective(policy.model, TWO.attributes, seed=3).update({"step": 7}, {})
    assert resumed == {"step": 8}
    assert torch.equal(preference_of(policy.model), draw_preference(3, 7, 2))
    policy.model.eval()
    assert preference_of(policy.model).tolist() == pytest.approx([0.9, 0.1])


def run(policy: Policy, settings, output: str, *more: str, resume: bool = False, steps: int = 24):  # noqa: F811
    own = settings(
        f"max_steps={steps}", "learning_rate=2e-2", "schedule=constant", "warmup=0", "batch_size=16", "eval_every=0",
        "save_every=8", "best_metric=none", "validation_fraction=0", "scores.normal=none",
        "scores.attributes=[good, bread]", *more, output=output,
    )  # fmt: skip
    objective = parm_objective(policy.model, own.scores.attributes, seed=own.seed)
    return align(own, data=opposed(96), policy=policy, objective=objective, resume=resume)


def test_one_guide_learns_both_trade_offs_and_steers_a_frozen_base(
    policy: Policy,
    tiny_model: str,  # noqa: F811
    settings,  # noqa: F811
) -> None:
    base = loud(tiny_model)
    held = opposed(12, seed=1)
    inject(policy.model, TWO)
    before = lean(policy, held)
    run(policy, settings, "parm", steps=120)
    found = {}
    for alpha in ((1.0, 0.0), (0.5, 0.5), (0.0, 1.0)):
        set_preference(policy.model, alpha)
        found[alpha] = lean(policy, held) - before
    assert found[1.0, 0.0] > 1 > -1 > found[0.0, 1.0], found
    assert found[1.0, 0.0] > found[0.5, 0.5] > found[0.0, 1.0]
    assert model_digest(policy.model) == model_digest(base.model)
    prompts, options = [row.prompt for row in held[:3]], {"max_new_tokens": 8, "temperature": 0}
    plain = generate(base, prompts, **options)
    assert guided(base, policy, prompts, coefficient=0, **options) == plain
    texts = []
    for alpha in ((1.0, 0.0), (0.0, 1.0)):
        set_preference(policy.model, alpha)
        texts.append(" ".join(guided(base, policy, prompts, coefficient=4.0, **options)))
    assert texts[0] != texts[1]


def test_attributes_in_another_order_are_refused(policy: Policy) -> None:
    """alpha (1, 0) must not mean one thing in training and another in use."""
    inject(policy.model, TWO)
    for names in (("bread", "good"), ("good",), ()):
        with pytest.raises(SettingsError, match="weigh good, bread, and the run's attributes are"):
            parm_objective(policy.model, names)


def test_a_stopped_run_resumes_to_the_same_layers(
    policy: Policy,
    tiny_model: str,  # noqa: F811
    settings,  # noqa: F811
) -> None:
    other = loud(tiny_model)
    for one in (policy, other):
        inject(one.model, TWO)
    run(policy, settings, "whole")
    run(other, settings, "part", steps=8)
    again = loud(tiny_model)
    inject(again.model, TWO, seed=9)
    run(again, settings, "part", resume=True)
    wanted = {n: p for n, p in policy.model.named_parameters() if "pluralign_pblora" in n}
    for name, p in again.model.named_parameters():
        if name in wanted:
            assert torch.allclose(p, wanted[name], atol=1e-6), name
