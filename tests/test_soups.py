"""Rewarded soups: one-hot, linearity, cross terms of averaged factors, and ingredients that do not belong together."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from pluralign.attributes import Scale, ScoreForm
from pluralign.cli import merge as command
from pluralign.errors import SettingsError
from pluralign.heads.pblora import Shape, inject
from pluralign.heads.regression import attach
from pluralign.policy import LoRA, Policy
from pluralign.soups import _beside, _by_factor, _Low, front, soup
from tests.training.conftest import tiny_model  # noqa: F401 - a fixture

IDS = torch.tensor([[5, 6, 7, 8, 9]])


def logits(policy: Policy) -> torch.Tensor:
    with torch.no_grad():
        return policy.model.eval()(IDS).logits


def moved(policy: Policy, seed: int, size: float = 0.05) -> Policy:
    """A copy with other weights: what a training would have made of it."""
    torch.manual_seed(seed)
    model = copy.deepcopy(policy.model)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(torch.randn_like(p) * size)
    return Policy(model, policy.tokenizer, policy.name, "fp32", scores=policy.scores)


@pytest.fixture
def base(tiny_model: str) -> Policy:  # noqa: F811 - the fixture
    return Policy.load(tiny_model, precision="fp32")


@pytest.fixture
def adapters(tiny_model: str) -> list[Policy]:  # noqa: F811 - the fixture
    """Three adapters of different ranks and scales on one base, none of them at its start."""
    out = []
    for i, (rank, alpha) in enumerate([(2, 4.0), (4, 4.0), (3, 9.0)]):
        out.append(moved(Policy.load(tiny_model, precision="fp32", lora=LoRA(rank=rank, alpha=alpha)), i, 0.2))
    return out


def deltas(policy: Policy) -> dict[str, torch.Tensor]:
    from peft.tuners.lora import LoraLayer

    return {
        n: m.get_delta_weight("default").detach() for n, m in policy.model.named_modules() if isinstance(m, LoraLayer)
    }


# Full checkpoints


def test_one_hot_returns_the_model_bit_for_bit(base: Policy, adapters: list[Policy]) -> None:
    full = [moved(base, 1), moved(base, 2)]
    with torch.no_grad():
        next(full[1].model.parameters())[0, 0] = torch.inf  # 0 times infinity would spoil it
    for policies, weights, at in ((full, (1, 0), 0), (full, (0, 1), 1), (adapters, (0, 1, 0), 1)):
        made = soup(policies, weights)
        wanted = policies[at].model.state_dict()
        assert made.model.state_dict().keys() == wanted.keys()
        assert all(torch.equal(t, wanted[n]) for n, t in made.model.state_dict().items())
        assert made.model is not policies[at].model


def test_every_weight_is_the_weighted_sum_and_ingredients_stay(base: Policy) -> None:
    a, b = moved(base, 1), moved(base, 2)
    before = copy.deepcopy(a.model.state_dict())
    made = soup([a, b], (0.3, 0.7)).model
    for name, p in made.named_parameters():
        wanted = 0.3 * a.model.get_parameter(name).double() + 0.7 * b.model.get_parameter(name).double()
        assert torch.equal(p, wanted.float()), name
    assert all(torch.equal(t, before[n]) for n, t in a.model.state_dict().items())
    assert made.lm_head.weight is made.model.embed_tokens.weight  # still tied
    buffers = dict(a.model.named_buffers())
    assert all(torch.equal(t, buffers[n]) for n, t in made.named_buffers())  # .3 x + .7 x is not always x


def linear(policy: Policy, values: list[float]) -> Policy:
    model = nn.Linear(len(values), 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([values]))
    return Policy(model, policy.tokenizer, policy.name)


def test_the_reward_of_a_model_linear_in_its_weights_is_linear_in_lambda(base: Policy) -> None:
    """Numbers that are exact in binary: reward(soup) = sum lambda_i reward_i without rounding."""
    parts = [linear(base, v) for v in ([1.0, 2.0, -4.0], [3.0, -1.0, 0.5], [0.0, 8.0, 1.0])]
    features = torch.tensor([[1.0, 0.5, 2.0], [-2.0, 4.0, 1.0]])
    grid = [(0.25, 0.75, 0.0), (0.5, 0.25, 0.25), (0.125, 0.125, 0.75)]
    for weights, made in front(parts, grid):
        rewards = sum(w * p.model(features) for w, p in zip(weights, parts, strict=True))
        assert torch.equal(made.model(features), rewards)


def test_sums_are_taken_wide_and_rounded_once(base: Policy) -> None:
    """In bf16, 1 + 1/256 is 1: three thirds of it would drift."""
    parts = [linear(base, [1.0, 257.0]) for _ in range(3)]
    parts[2] = linear(base, [1.0078125, 257.0])
    for p in parts:
        p.model.bfloat16()
    made = soup(parts, (0.25, 0.25, 0.5)).model.weight
    assert made.dtype == torch.bfloat16
    assert made[0, 0].item() == 1.0  # 1.00390625 lies half way, and goes to even
    assert soup(parts, (0.1, 0.2, 0.7)).model.weight[0, 0].item() == 1.0078125  # 1.00546875


def test_the_order_of_the_ingredients_does_not_matter(base: Policy, adapters: list[Policy]) -> None:
    full = [moved(base, i) for i in range(3)]
    one, other = soup(full, (0.2, 0.3, 0.5)), soup(full[::-1], (0.5, 0.3, 0.2))
    assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True))
    one, other = soup(adapters, (0.2, 0.3, 0.5)), soup(adapters[::-1], (0.5, 0.3, 0.2))
    assert all(torch.allclose(d, deltas(other)[n], atol=1e-6) for n, d in deltas(one).items())


# Adapters


def test_factors_lose_what_deltas_keep() -> None:
    """A = B = 1 and A = B = -1 both add 1; half of each adds 1 by deltas, and 0 by factors."""
    one, other = (_Low(torch.full((1, 1), v), torch.full((1, 1), v), 1.0) for v in (1.0, -1.0))
    beside, factors = _beside([one, other], [0.5, 0.5]), _by_factor([one, other], [0.5, 0.5])
    assert (beside.up @ beside.down).item() == 1.0
    assert (factors.up @ factors.down).item() == 0.0


def test_adapters_of_any_ranks_add_up_exactly(adapters: list[Policy]) -> None:
    weights = (0.2, 0.3, 0.5)
    made = soup(adapters, weights)
    parts = [deltas(p) for p in adapters]
    assert made.model.peft_config["default"].r == 2 + 4 + 3
    assert deltas(made).keys() == parts[0].keys()
    for name, delta in deltas(made).items():
        wanted = sum(w * part[name] for w, part in zip(weights, parts, strict=True))
        assert wanted.abs().max() > 0.01
        assert torch.allclose(delta, wanted, atol=1e-6), name
    beyond = soup(adapters, (1.5, 0.0, -1.0), extrapolate=True)
    for name, delta in deltas(beyond).items():
        assert torch.allclose(delta, 1.5 * parts[0][name] - parts[2][name], atol=1e-5), name


def test_scales_and_ranks_are_those_of_each_layer(base: Policy) -> None:
    """Rank-stabilised scaling, and a layer with a rank and an alpha of its own."""
    parts = []
    for seed, options in enumerate(
        [{"use_rslora": True}, {"rank_pattern": {"q_proj": 5}, "alpha_pattern": {"q_proj": 1}}]
    ):
        config = LoraConfig(r=2, lora_alpha=6, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", **options)
        model = get_peft_model(copy.deepcopy(base.model), config)
        parts.append(moved(Policy(model, base.tokenizer, base.name), seed, 0.2))
    made = soup(parts, (0.4, 0.6))
    one, other = map(deltas, parts)
    for name, delta in deltas(made).items():
        assert torch.allclose(delta, 0.4 * one[name] + 0.6 * other[name], atol=1e-6), name
    assert made.model.peft_config["default"].r == 2 + 5


def test_factors_are_the_authors_way_and_ask_for_one_rank(adapters: list[Policy]) -> None:
    with pytest.raises(SettingsError, match="one rank and one alpha"):
        soup(adapters, (0.2, 0.3, 0.5), space="factors")
    pair = [adapters[0], moved(adapters[0], 7, 0.2)]
    made, exact = soup(pair, (0.5, 0.5), space="factors"), soup(pair, (0.5, 0.5))
    layers = [dict(p.model.named_modules()) for p in pair]
    apart = 0.0
    for name, delta in deltas(made).items():
        down, up = (sum(0.5 * getattr(own[name], f)["default"].weight for own in layers) for f in ("lora_A", "lora_B"))
        assert torch.allclose(delta, 2.0 * up @ down, atol=1e-6)  # alpha 4 over rank 2
        apart = max(apart, float((delta - deltas(exact)[name]).abs().max()))
    assert apart > 0.01


def test_an_adapter_merged_into_its_base_is_the_same_policy(adapters: list[Policy], base: Policy) -> None:
    made, full = soup(adapters, (0.2, 0.3, 0.5)), soup(adapters, (0.2, 0.3, 0.5), into_base=True)
    assert type(full.model) is type(base.model)
    assert full.model.state_dict().keys() == base.model.state_dict().keys()
    assert torch.allclose(logits(full), logits(made), atol=1e-4)
    assert (logits(full) - logits(base)).abs().max() > 0.1
    assert torch.allclose(logits(soup(adapters[:1], [1], into_base=True)), logits(adapters[0]), atol=1e-4)
    with pytest.raises(SettingsError, match="these are full checkpoints"):
        soup([base], [1], into_base=True)


def test_adapters_that_are_more_than_two_factors_are_refused(adapters: list[Policy], base: Policy) -> None:
    def other(**options: object) -> Policy:
        config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", **options)
        return Policy(get_peft_model(copy.deepcopy(base.model), config), base.tokenizer, base.name)

    for options, said in (({"use_dora": True}, "use_dora"), ({"bias": "all"}, "bias=all")):
        with pytest.raises(SettingsError, match=f"only plain LoRA adapters.*{said}"):
            soup([other(**options), other(**options)], (0.5, 0.5))
    with pytest.raises(SettingsError, match=r"do not fit together: .* absent"):
        soup([adapters[0], other()], (0.5, 0.5))


# What does not belong together


def test_weights_that_cannot_be(base: Policy) -> None:
    pair = [moved(base, 1), moved(base, 2)]
    for weights, said in (
        ((0.5,), "2 policies, 1 weights"),
        ((0.5, 0.4), "add up to 0.9"),
        ((1.5, -0.5), "0 or more"),
        ((float("nan"), 1), "must be numbers"),
        ((0, 0), "not all 0"),
    ):
        with pytest.raises(SettingsError, match=said):
            soup(pair, weights)
    with pytest.raises(SettingsError, match="full checkpoints must add up to 1"):
        soup(pair, (1.0, 0.5), extrapolate=True)
    with pytest.raises(SettingsError, match='"delta" or "factors"'):
        soup(pair, (0.5, 0.5), space="sum")
    name = "model.layers.0.mlp.up_proj.weight"
    parts = [dict(p.model.named_parameters())[name] for p in pair]
    made = dict(soup(pair, (1.5, -0.5), extrapolate=True).model.named_parameters())[name]
    assert torch.allclose(made, 1.5 * parts[0] - 0.5 * parts[1])
    assert soup(pair, (0.1 + 0.2, 0.7)) is not None  # 0.30000000000000004


def saved(policy: Policy, folder: Path, start: str) -> Policy:
    """As a run leaves it: the weights, and the name of those it started from."""
    Policy(policy.model, policy.tokenizer, start).save(folder)
    return Policy.load(folder, precision="fp32")


def test_another_start_is_refused(base: Policy, tmp_path: Path) -> None:
    start, twin, stranger = (str(tmp_path / n) for n in ("start", "twin", "stranger"))
    for folder, policy in ((start, base), (twin, base), (stranger, moved(base, 9))):
        policy.model.save_pretrained(folder)
        policy.tokenizer.save_pretrained(folder)
    a = saved(moved(base, 1), tmp_path / "a", start)
    b = saved(moved(base, 2), tmp_path / "b", start)
    made = soup([a, b], (0.5, 0.5))
    assert made.name == start
    of_soups = soup([saved(made, tmp_path / "c", made.name), a], (0.5, 0.5))  # a soup has its ingredients' start
    assert of_soups.name == start
    copied = saved(moved(base, 2), tmp_path / "d", twin)  # the same weights in another folder
    assert soup([a, copied], (0.5, 0.5)).name == start
    assert soup([Policy.load(start), a], (0.5, 0.5)).name == start  # towards the start itself
    foreign = saved(moved(base, 2), tmp_path / "e", stranger)
    with pytest.raises(SettingsError, match="only policies trained from the same weights"):
        soup([a, foreign], (0.5, 0.5))
    plain = Policy.load(stranger)
    with pytest.raises(SettingsError, match=f'"{stranger}" names no start'):
        soup([a, plain], (0.5, 0.5))
    assert soup([a, plain], (0.5, 0.5), assume_same_start=True) is not None


def test_adapters_on_other_weights_are_refused(adapters: list[Policy]) -> None:
    with torch.no_grad():
        next(p for n, p in adapters[1].model.named_parameters() if "lora_" not in n).view(-1)[3] += 1e-3
    with pytest.raises(SettingsError, match="only policies trained from the same weights"):
        soup(adapters, (0.2, 0.3, 0.5))
    with pytest.raises(SettingsError, match="only policies trained from the same weights"):
        soup(adapters, (0.2, 0.3, 0.5), assume_same_start=True)  # there is no doubt about these


def test_different_shapes_kinds_vocabularies_and_templates(base: Policy, adapters: list[Policy]) -> None:
    wide = linear(base, [1.0, 2.0])
    with pytest.raises(SettingsError, match=r"weight is 1 x 2 in one and 1 x 3 in another \(1 such\)"):
        soup([wide, linear(base, [1.0, 2.0, 3.0])], (0.5, 0.5))
    with pytest.raises(SettingsError, match="one is an adapter"):
        soup([base, adapters[0]], (0.5, 0.5))
    words = SimpleNamespace(get_vocab=lambda: {"a": 0})
    with pytest.raises(SettingsError, match="different vocabularies"):
        soup([base, Policy(base.model, words, base.name)], (0.5, 0.5))
    plain = Policy(base.model, base.tokenizer, base.name, rendering={"template": "plain"})
    with pytest.raises(SettingsError, match="different templates"):
        soup([base, plain], (0.5, 0.5))
    steered = moved(base, 1)
    inject(steered.model, Shape(("helpfulness", "verbosity")))
    with pytest.raises(SettingsError, match="has PBLoRA layers"):
        soup([steered, steered], (0.5, 0.5))


# Scores


def sensing(policy: Policy, seed: int, names: tuple[str, ...] = ("helpfulness", "verbosity")) -> Policy:
    made = moved(policy, seed)
    made.scores = ScoreForm(tuple(Scale(n, 0, 4) for n in names))
    torch.manual_seed(seed)
    head = attach(made.model, "sensed", len(names), layers=2, bounded=True)
    with torch.no_grad():
        head.out.weight.normal_()
    return made


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_heads_are_averaged_where_all_have_the_same_attributes(
    kind: str, base: Policy, adapters: list[Policy], tmp_path: Path
) -> None:
    start = base if kind == "full" else adapters[0]
    a, b = sensing(start, 1), sensing(start, 2)
    made = soup([a, b], (0.25, 0.75))
    assert made.scores == a.scores
    for name, value in made.sensing.state_dict().items():
        parts = [p.sensing.state_dict()[name] for p in (a, b)]
        assert torch.allclose(value, 0.25 * parts[0] + 0.75 * parts[1], atol=1e-6)
    assert torch.equal(soup([a, b], (0, 1)).sensing.out.weight, b.sensing.out.weight)
    again = Policy.load(made.save(tmp_path / "soup"), precision="fp32")
    assert again.scores == made.scores
    assert torch.equal(again.sensing.out.weight, made.sensing.out.weight)
    assert torch.allclose(logits(again), logits(made), atol=1e-6)


def test_other_attributes_are_refused_or_left_behind(base: Policy) -> None:
    a, b = sensing(base, 1), sensing(base, 2, ("safety", "verbosity"))
    with pytest.raises(SettingsError, match=r"\(helpfulness, verbosity\) .* \(safety, verbosity\)"):
        soup([a, b], (0.5, 0.5))
    blind = moved(base, 3)
    blind.scores = a.scores
    with pytest.raises(SettingsError, match="different heads"):
        soup([a, blind], (0.5, 0.5))
    made = soup([a, b], (0.5, 0.5), keep_scores=False)
    assert made.scores is None
    assert made.sensing is None
    assert a.sensing is not None  # the ingredients keep theirs


# Folders


@pytest.mark.parametrize("into_base", [False, True])
def test_a_saved_soup_of_adapters_is_the_soup(
    adapters: list[Policy], base: Policy, tmp_path: Path, into_base: bool
) -> None:
    made = soup(adapters, (0.2, 0.3, 0.5), into_base=into_base)
    folder = made.save(tmp_path / "soup")
    assert (folder / "adapter_config.json").is_file() is not into_base
    assert torch.allclose(logits(Policy.load(folder, precision="fp32")), logits(made), atol=1e-5)


def test_the_command_writes_policies_that_load(base: Policy, tmp_path: Path) -> None:
    a, b = (saved(moved(base, i), tmp_path / str(i) / "model", base.name) for i in (1, 2))
    models = [str(tmp_path / "1"), str(tmp_path / "2")]
    options = {"space": "delta", "into_base": False, "extrapolate": False, "assume_same_start": False,
               "without_scores": False, "trust_remote_code": False}  # fmt: skip
    out = tmp_path / "soup"
    command.merge(models, out, "0.3,0.7", None, **options)
    assert torch.allclose(logits(Policy.load(out)), logits(soup([a, b], (0.3, 0.7))), atol=1e-5)
    assert json.loads((out / "soup.json").read_text())["weights"] == [0.3, 0.7]
    with pytest.raises(SettingsError, match="exists already"):
        command.merge(models, out, "0.3,0.7", None, **options)
    command.merge(models, tmp_path / "grid", None, 3, **options)
    assert sorted(p.name for p in (tmp_path / "grid").iterdir()) == ["0.00-1.00", "0.50-0.50", "1.00-0.00"]
    assert torch.equal(logits(Policy.load(tmp_path / "grid" / "0.00-1.00")), logits(b))
    for weights, grid, said in (
        (None, None, "one of --weights"),
        ("0.5,0.5", 3, "one of --weights"),
        ("a,b", None, "numbers with commas"),
        (None, 1001, "too fine"),
    ):
        with pytest.raises(SettingsError, match=said):
            command.merge(models, tmp_path / "other", weights, grid, **options)
