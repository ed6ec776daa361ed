"""Several policies writing one text: the mixture worked out by hand, its reductions, and what it is the optimum of."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from pluralign.attributes import Scale, ScoreForm
from pluralign.errors import SettingsError
from pluralign.heads.regression import attach
from pluralign.policy import LoRA, Policy
from pluralign.records import messages
from pluralign.steering import generate
from pluralign.steering.mixture import guided, mix_logits, mod, rescaled
from pluralign.theory.tabular import fit_regularised
from pluralign.theory.worlds import World, world
from tests.scoring.models import config

PROMPTS = [
    "Hi",
    "Can you explain in detail how a steam engine works, and why it was replaced by others in the end?",
    "What is seven times eight?",
    "Why",
]
DRAWN = {"max_new_tokens": 10, "temperature": 1.3, "top_p": 0.9, "seed": 2}
GREEDY = {"max_new_tokens": 10, "temperature": 0}


@pytest.fixture
def other(policy: Policy) -> Policy:
    """Another policy with the same tokenizer."""
    model = copy.deepcopy(policy.model)
    torch.manual_seed(5)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.3)
    return Policy(model, policy.tokenizer, "other", "fp32")


@torch.no_grad()
def by_hand(voices: list[tuple[Policy, float]], prompt: object, tokens: int) -> str:
    """The likeliest token of the product of powers again and again, without caches, padding or logits."""
    first = voices[0][0]
    starts = [p.renderer.prompt(messages(prompt)) for p, _ in voices]
    written: list[int] = []
    while len(written) < tokens:
        product = torch.ones(())
        for (p, c), start in zip(voices, starts, strict=True):
            product = product * p.model.eval()(torch.tensor([start + written])).logits[0, -1].double().softmax(-1) ** c
        written.append(int(product.argmax()))
        if written[-1] in first.renderer.stop_ids:
            written.pop()
            break
    return first.tokenizer.decode(written, skip_special_tokens=True).strip()


# One step


def test_the_geometric_mean_by_hand() -> None:
    """(.7, .2, .1) and (.1, .3, .6) at one half: (.350675, .324662, .324662)."""
    p, q = torch.tensor([[0.7, 0.2, 0.1]]), torch.tensor([[0.1, 0.3, 0.6]])
    mixed = mix_logits([p.log(), q.log()], [0.5, 0.5]).softmax(-1)[0]
    assert mixed.tolist() == pytest.approx([0.350675, 0.324662, 0.324662], abs=1e-6)
    shifted = mix_logits([p.log() + 40, q.log() - 7], [0.5, 0.5]).softmax(-1)[0]  # logits, not log-probs
    assert torch.allclose(shifted, mixed, atol=1e-5)


def test_one_hot_is_that_model_to_the_bit_and_infinities_of_others_are_not_seen() -> None:
    logits = torch.randn(2, 7)
    wild = torch.full((2, 7), -torch.inf)
    assert torch.equal(mix_logits([logits, wild], [1.0, 0.0]), logits)
    assert mix_logits([logits, wild], [0.5, 0.5]).isneginf().all()
    assert torch.equal(mix_logits([logits, torch.randn(2, 9)], [1.0, 0.0]), logits)
    assert mix_logits([logits, torch.randn(2, 9)], [0.5, 0.5]).shape == (2, 7)
    assert mix_logits([logits.bfloat16(), logits.bfloat16()], [0.5, 0.5]).dtype == torch.float32


# Whole texts


@pytest.mark.parametrize("options", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_one_hot_writes_what_the_policy_alone_writes(policy: Policy, other: Policy, options: dict) -> None:
    texts = [generate(p, PROMPTS, **options) for p in (policy, other)]
    assert texts[0] != texts[1]
    for weights, wanted in (((1, 0), texts[0]), ((0, 1), texts[1])):
        for size in (1, 16):
            assert mod([policy, other], PROMPTS, weights=weights, batch_size=size, **options) == wanted
    assert mod([policy, policy], PROMPTS, weights=(0.5, 0.5), **options) == texts[0]
    assert guided(policy, other, PROMPTS, coefficient=0, **options) == texts[0]


def test_greedy_mixtures_follow_the_product_of_powers(policy: Policy, other: Policy) -> None:
    for weights in ((0.5, 0.5), (0.2, 0.8)):
        voices = list(zip((policy, other), weights, strict=True))
        wanted = [by_hand(voices, prompt, 10) for prompt in PROMPTS]
        assert len(set(wanted)) > 2
        for size in (1, 3, 16):
            assert mod([policy, other], PROMPTS, weights=weights, batch_size=size, **GREEDY) == wanted
        assert wanted not in (generate(policy, PROMPTS, **GREEDY), generate(other, PROMPTS, **GREEDY))
    beyond = [by_hand([(policy, 1.5), (other, -0.5)], prompt, 10) for prompt in PROMPTS]
    assert mod([policy, other], PROMPTS, weights=(1.5, -0.5), extrapolate=True, **GREEDY) == beyond
    steered = [by_hand([(policy, 1.0), (other, 2.0)], prompt, 10) for prompt in PROMPTS]
    assert guided(policy, other, PROMPTS, coefficient=2.0, **GREEDY) == steered


def test_samples_do_not_depend_on_batch_mates_and_repeat_by_seed(policy: Policy, other: Policy) -> None:
    options = {**DRAWN, "weights": (0.4, 0.6)}
    together = mod([policy, other], PROMPTS, **options)
    assert mod([policy, other], PROMPTS, batch_size=1, **options) == together
    assert mod([other, policy], PROMPTS, **{**options, "weights": (0.6, 0.4)}) == together
    assert mod([policy, other], PROMPTS, **{**options, "seed": 3}) != together
    assert mod([policy, other], [], **options) == []


def test_every_policy_reads_the_prompt_in_its_own_template(policy: Policy, other: Policy) -> None:
    system = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    assert mod([policy, other], [system], weights=(0.5, 0.5), **GREEDY) == [
        by_hand([(policy, 0.5), (other, 0.5)], system, 10)
    ]
    told = Policy(other.model, other.tokenizer, "told", "fp32", {"template": "plain"})
    wanted = [by_hand([(policy, 0.5), (told, 0.5)], prompt, 10) for prompt in PROMPTS]
    assert mod([policy, told], PROMPTS, weights=(0.5, 0.5), **GREEDY) == wanted
    assert mod([policy, other], PROMPTS, weights=(0.5, 0.5), **GREEDY) != wanted


def test_a_policy_with_a_sensing_head_senses_for_itself(policy: Policy, other: Policy) -> None:
    other.scores = ScoreForm((Scale("helpfulness", 0, 4), Scale("verbosity", 0, 4)))
    torch.manual_seed(0)
    head = attach(other.model, "sensed", 2, layers=1, bounded=True)
    with torch.no_grad():
        head.out.weight.normal_()
    wanted = generate(other, PROMPTS, **GREEDY)
    assert mod([policy, other], PROMPTS, weights=(0, 1), **GREEDY) == wanted
    assert mod([other, other], PROMPTS, weights=(0.5, 0.5), **GREEDY) == wanted
    assert mod([policy, other], PROMPTS, weights=(0.5, 0.5), **GREEDY) != wanted


def test_adapters_and_their_base_are_mixed_like_any_policies(tiny_model: str, policy: Policy) -> None:
    adapted = Policy.load(tiny_model, precision="fp32", lora=LoRA(rank=2))
    torch.manual_seed(3)
    with torch.no_grad():
        for name, p in adapted.model.named_parameters():
            if "lora_" in name:
                p.add_(torch.randn_like(p))
    wanted = [by_hand([(policy, 0.5), (adapted, 0.5)], prompt, 6) for prompt in PROMPTS]
    assert mod([policy, adapted], PROMPTS, weights=(0.5, 0.5), max_new_tokens=6, temperature=0) == wanted


@pytest.mark.parametrize("name", ["mistral-window", "gemma2", "gpt2", "qwen3-next"])
def test_models_with_other_caches(policy: Policy, name: str) -> None:
    """Windows, soft caps, learned positions, linear attention: each beside itself writes what it writes alone."""
    made = config(name)
    made.vocab_size = len(policy.tokenizer)
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(made).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    one = Policy(model, policy.tokenizer, name, "fp32")
    wanted = generate(one, PROMPTS, max_new_tokens=80, temperature=0)
    assert mod([one, one], PROMPTS, weights=(0.5, 0.5), max_new_tokens=80, temperature=0) == wanted
    assert mod([one, policy], PROMPTS, weights=(1, 0), max_new_tokens=80, temperature=0) == wanted


def test_a_model_without_keys_and_values_is_refused(policy: Policy) -> None:
    made = config("mamba")
    made.vocab_size = len(policy.tokenizer)
    mamba = Policy(AutoModelForCausalLM.from_config(made), policy.tokenizer, "mamba", "fp32")
    with pytest.raises(SettingsError, match='"mamba" keeps no keys and values'):
        mod([policy, mamba], PROMPTS, weights=(0.5, 0.5))


def test_what_cannot_be_mixed(policy: Policy, other: Policy) -> None:
    for weights, said in (((0.5,), "2 policies, 1 weights"), ((0.5, 0.4), "add up to 0.9"), ((1.5, -0.5), "0 or more")):
        with pytest.raises(SettingsError, match=said):
            mod([policy, other], PROMPTS, weights=weights)
    with pytest.raises(SettingsError, match="coefficient"):
        guided(policy, other, PROMPTS, coefficient=float("nan"))
    for options in ({"temperature": -1}, {"top_p": 0}, {"max_new_tokens": 0}, {"batch_size": 0}):
        with pytest.raises(SettingsError, match=next(iter(options))):
            mod([policy, other], PROMPTS, weights=(0.5, 0.5), **options)
    strange = copy.copy(other)
    strange.tokenizer = SimpleNamespace(get_vocab=lambda: {"a": 0})
    with pytest.raises(SettingsError, match="different vocabularies"):
        mod([policy, strange], PROMPTS, weights=(0.5, 0.5))
    said: list[str] = []
    mod([policy, other], ["word " * 800, "Hi"], weights=(0.5, 0.5), warn=said.append, **GREEDY)
    assert len(said) == 2  # each policy cuts for itself
    assert "1 of 2 prompts" in said[0]


# What the mixture is the optimum of


def optimum(made: World, reward: np.ndarray, beta: float) -> np.ndarray:
    """(X, N) argmax of E[r] - beta KL(pi || pi_ref), found numerically."""
    return fit_regularised(made, np.repeat(reward[:, :, None], reward.shape[1], axis=2), beta)[:, :, 0]


def test_responses_of_the_mixture_are_optimal_for_the_weighted_rewards() -> None:
    """Policies that are optimal for r_1, r_2, r_3 mixed at w: the optimum for sum w_i r_i, weights below 0 included."""
    rng = np.random.default_rng(0)
    made = world(rng, "separable", 3, 6)
    rewards = rng.normal(size=(3, 3, 6))
    single = [torch.from_numpy(np.log(optimum(made, r, 0.5))) for r in rewards]
    for w in ((0.2, 0.3, 0.5), (1.0, 0.0, 0.0), (1.2, 0.3, -0.5)):
        mixed = mix_logits(single, w).softmax(-1).numpy()
        assert np.abs(mixed - optimum(made, np.tensordot(w, rewards, 1), 0.5)).max() < 1e-5
    arithmetic = sum(x * p.exp().numpy() for x, p in zip((0.2, 0.3, 0.5), single, strict=True))
    assert np.abs(arithmetic - optimum(made, np.tensordot((0.2, 0.3, 0.5), rewards, 1), 0.5)).max() > 1e-3


def test_policies_of_different_betas_need_other_weights() -> None:
    """beta .2 and .8 at w = (.5, .5): log-probs count .2 and .8, and the KL strength is .5."""
    assert rescaled((0.5, 0.5), (0.2, 0.8)) == pytest.approx([0.2, 0.8])
    assert rescaled((0.3, 0.7), (0.1, 0.1)) == pytest.approx([0.3, 0.7])
    rng = np.random.default_rng(1)
    made = world(rng, "separable", 2, 5)
    rewards, betas, w = rng.normal(size=(2, 2, 5)) / 4, (0.2, 0.8), (0.4, 0.6)
    single = [torch.from_numpy(np.log(optimum(made, r, b))) for r, b in zip(rewards, betas, strict=True)]
    wanted = optimum(made, np.tensordot(w, rewards, 1), 0.4 * 0.2 + 0.6 * 0.8)
    assert np.abs(mix_logits(single, rescaled(w, betas)).softmax(-1).numpy() - wanted).max() < 1e-5
    assert np.abs(mix_logits(single, w).softmax(-1).numpy() - wanted).max() > 1e-3
    for bad in ((0.1,), (0.1, 0.0), (0.1, float("inf"))):
        with pytest.raises(SettingsError, match="betas"):
            rescaled((0.5, 0.5), bad)


def test_betas_reach_the_decoding(policy: Policy, other: Policy) -> None:
    wanted = mod([policy, other], PROMPTS, weights=(0.2, 0.8), **GREEDY)
    assert mod([policy, other], PROMPTS, weights=(0.5, 0.5), betas=(0.2, 0.8), **GREEDY) == wanted


def test_drawn_token_by_token_whole_responses_are_near_the_optimum_and_not_at_it() -> None:
    """Two tokens of two: each step is normalised for itself, and the normaliser depends on the first token."""
    first = [torch.tensor([0.5, 0.5]).double(), torch.tensor([0.5, 0.5]).double()]
    second = [torch.tensor([[0.9, 0.1], [0.5, 0.5]]).double(), torch.tensor([[0.1, 0.9], [0.5, 0.5]]).double()]
    whole = [f[:, None] * s for f, s in zip(first, second, strict=True)]
    optimal = mix_logits([w.log().view(1, -1) for w in whole], [0.5, 0.5]).softmax(-1).view(2, 2)
    start, after = (mix_logits([t.log() for t in part], [0.5, 0.5]).softmax(-1) for part in (first, second))
    assert optimal.sum(1).tolist() == pytest.approx([0.375, 0.625])  # the first token leads to disagreement
    assert start.tolist() == pytest.approx([0.5, 0.5])
    assert (start[:, None] * after)[0].tolist() == pytest.approx([0.25, 0.25])
