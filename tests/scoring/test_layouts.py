"""Every layout equals one-by-one scoring, on every architecture, in values and gradients (contract 1 and 3)."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pluralign.errors import TrainingError
from pluralign.scoring.attention import trie_mask
from pluralign.scoring.forward import forward
from pluralign.scoring.layout import Scored, lay_rows, lay_trie, split_by_tokens, trie_tokens
from pluralign.scoring.support import check_layouts, choose_layout

from .models import ROWS, TRIE, build, one_by_one

EOS = 2


def ids(rng: random.Random, n: int) -> list[int]:
    return [rng.randrange(3, 97) for _ in range(n)]


def some_sequences(seed: int = 0) -> list[Scored]:
    """Unequal lengths, pad = eos, a one-token prompt, one-token targets, EOS inside, shared target beginnings."""
    rng = random.Random(seed)
    out = []
    for prompt, w, l in [(40, 20, 30), (1, 5, 9), (12, 1, 1), (60, 50, 40)]:
        context = ids(rng, prompt)
        out += [Scored(context, [*ids(rng, w), EOS]), Scored(context, [*ids(rng, l), EOS])]
    begun = ids(rng, 12)
    context = [*ids(rng, 20), EOS, *ids(rng, 3)]
    out += [Scored(context, [*begun, 5, EOS]), Scored(context, [*begun, 6, 7, EOS]), Scored(context, begun)]
    mask = [True, False, True, True]
    return [*out, Scored(context, [9, 8, 7, EOS], mask)]


@pytest.mark.parametrize("name", [*TRIE, *ROWS])
def test_layouts_equal_one_by_one_scoring(name: str) -> None:
    model, sequences = build(name), some_sequences()
    layouts = [lay_rows] if name in ROWS else [lay_rows, lay_trie]
    with torch.no_grad():
        alone = torch.cat([one_by_one(model, s) for s in sequences])
        for lay in layouts:
            readings = forward(model, lay(sequences), ("sum", "length", "tokens"))
            torch.testing.assert_close(readings.tokens, alone, atol=1e-5, rtol=1e-5)
            assert readings.length.tolist() == [sum(s.scored) if s.scored else len(s.target) for s in sequences]
            per = torch.stack([t.sum() for t in alone.split(readings.length.tolist())])
            torch.testing.assert_close(readings.sum, per, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("name", TRIE)
def test_gradients_agree(name: str) -> None:
    sequences = some_sequences(1)
    weights = torch.randn(len(sequences), generator=torch.Generator().manual_seed(0))

    def gradients(run) -> dict[str, torch.Tensor]:
        model = build(name)
        (run(model) * weights).sum().backward()
        return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}

    alone = gradients(lambda m: torch.stack([one_by_one(m, s).sum() for s in sequences]))
    for lay in (lay_rows, lay_trie):
        ours = gradients(lambda m, lay=lay: forward(m, lay(sequences)).sum)
        assert ours.keys() == alone.keys()
        for key, expected in alone.items():
            scale = float(expected.abs().max()) + 1e-6
            torch.testing.assert_close(ours[key] / scale, expected / scale, atol=2e-4, rtol=1e-3, msg=f"{name} {key}")


@pytest.mark.parametrize("name", ROWS)
def test_models_outside_the_list_get_rows_with_a_reason(name: str) -> None:
    layout, reason = choose_layout(build(name), max_length=300)
    assert layout == "rows"
    assert reason


@pytest.mark.parametrize("name", TRIE)
def test_models_on_the_list_get_the_trie(name: str) -> None:
    assert choose_layout(build(name), max_length=256) == ("trie", "")


def test_a_window_binds_only_below_its_length() -> None:
    model = build("mistral-window")
    assert choose_layout(model, max_length=64) == ("trie", "")
    layout, reason = choose_layout(model, max_length=65)
    assert layout == "rows"
    assert "64" in reason


def test_the_first_batch_check_catches_a_window() -> None:
    rng = random.Random(0)
    context = ids(rng, 150)
    with pytest.raises(TrainingError, match="rows"):
        check_layouts(build("mistral-window"), [Scored(context, ids(rng, 20)), Scored(context, ids(rng, 30))])


def test_batch_mates_change_nothing() -> None:
    model, sequences = build("llama"), some_sequences(2)
    with torch.no_grad():
        for lay in (lay_rows, lay_trie):
            together = forward(model, lay(sequences))
            for i in (0, 3, 8):
                alone = forward(model, lay([sequences[i]]))
                torch.testing.assert_close(alone.tokens, together[[i]].tokens, atol=1e-5, rtol=1e-5)


def test_editing_one_branch_leaves_the_other() -> None:
    model, rng = build("qwen3"), random.Random(3)
    context, w, l = ids(rng, 30), ids(rng, 10), ids(rng, 12)
    with torch.no_grad():
        before = forward(model, lay_trie([Scored(context, w), Scored(context, l)]))
        after = forward(model, lay_trie([Scored(context, w), Scored(context, ids(rng, 25))]))
    torch.testing.assert_close(before[[0]].tokens, after[[0]].tokens, atol=1e-5, rtol=1e-5)


def test_the_padding_token_is_never_looked_at() -> None:
    model, sequences = build("gpt2"), some_sequences(4)
    with torch.no_grad():
        a, b = (forward(model, lay_rows(sequences, pad=pad)).tokens for pad in (EOS, 50))
    torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)


def test_hidden_readings_are_the_models_own_states() -> None:
    model, sequences = build("llama"), some_sequences(5)[:4]
    with torch.no_grad():
        for lay in (lay_rows, lay_trie):
            readings = forward(model, lay(sequences), ("last_hidden", "mean_hidden", "kl"))
            for i, s in enumerate(sequences):
                whole = torch.tensor([[*s.context, *s.target]])
                states = model.model(input_ids=whole).last_hidden_state[0]
                target = states[len(s.context) :]
                torch.testing.assert_close(readings.last_hidden[i], target[-1], atol=1e-4, rtol=1e-4)
                torch.testing.assert_close(readings.mean_hidden[i], target.mean(0), atol=1e-4, rtol=1e-4)
                before = states[len(s.context) - 1 : -1]
                torch.testing.assert_close(readings[[i]].predict_hidden, before, atol=1e-4, rtol=1e-4)


def test_lora_on_the_head_and_everywhere() -> None:
    from peft import LoraConfig, get_peft_model

    base = build("llama")
    model = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "lm_head"], task_type="CAUSAL_LM"))
    for n, p in model.named_parameters():
        if "lora_B" in n:
            torch.nn.init.normal_(p, std=0.1)
    sequences = some_sequences(6)
    alone = torch.cat([one_by_one(model, s) for s in sequences])
    for lay in (lay_rows, lay_trie):
        readings = forward(model, lay(sequences))
        torch.testing.assert_close(readings.tokens, alone, atol=1e-5, rtol=1e-5)
    readings.sum.sum().backward()
    assert all(p.grad is not None for n, p in model.named_parameters() if "lora_" in n)


def test_gradient_checkpointing_recomputes_with_the_same_trie() -> None:
    sequences = some_sequences(7)
    grads = []
    for checkpointing in (False, True):
        model = build("llama").train()
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        forward(model, lay_trie(sequences)).sum.sum().backward()
        grads.append(model.model.layers[0].self_attn.q_proj.weight.grad)
    torch.testing.assert_close(grads[0], grads[1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", TRIE)
def test_a_model_that_has_seen_a_trie_is_otherwise_as_before(name: str) -> None:
    model, sequences = build(name), some_sequences()
    head = model.lm_head.forward if hasattr(model, "lm_head") else None
    with torch.no_grad():
        before = forward(model, lay_rows(sequences)).tokens
        forward(model, lay_trie(sequences))
        torch.testing.assert_close(forward(model, lay_rows(sequences)).tokens, before, atol=1e-6, rtol=1e-6)
        prompt = torch.tensor([list(sequences[0].context)])
        mask = torch.ones_like(prompt)
        first = model.generate(prompt, attention_mask=mask, max_new_tokens=5, do_sample=False)
        torch.testing.assert_close(
            first, build(name).generate(prompt, attention_mask=mask, max_new_tokens=5, do_sample=False)
        )
    assert head is None or model.lm_head.forward == head


# The trie itself

tokens = st.lists(st.integers(0, 3), min_size=1, max_size=9)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(tokens, tokens), min_size=1, max_size=6), st.integers(1, 4))
def test_trie_paths_spell_the_sequences_and_the_mask_is_ancestry(pairs, min_shared) -> None:
    sequences = [Scored(c, t) for c, t in pairs]
    layout = lay_trie(sequences, min_shared=min_shared)
    row, positions = layout.input_ids[0], layout.position_ids[0]
    assert layout.tokens == trie_tokens(sequences, min_shared=min_shared) <= sum(len(c) + len(t) for c, t in pairs)
    visible = trie_mask(layout.trie.end)
    spelled = set()
    for path in layout.trie.paths:
        at = [i for a, b in path for i in range(a, b)]
        spelled.add(tuple(row[at].tolist()))
        assert positions[at].tolist() == list(range(len(at)))
        for depth, i in enumerate(at):  # a token sees exactly the tokens before it on its own path
            assert visible[i].nonzero()[:, 0].tolist() == at[: depth + 1]
    assert spelled == {(*s.context, *s.target) for s in sequences}
    assert sum(layout.trie.queries) == layout.tokens
    start = 0
    for s, n in zip(sequences, layout.lengths.tolist(), strict=True):
        assert layout.labels[start : start + n].tolist() == list(s.target)
        assert row[layout.states[start : start + n]].tolist() == list(s.target)
        assert positions[layout.predict[start : start + n]].tolist() == [len(s.context) - 1 + j for j in range(n)]
        start += n


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(1, 80))
def test_micro_batches_keep_the_budget_and_lose_nothing(costs, budget) -> None:
    bins = split_by_tokens(costs, budget)
    assert sorted(i for b in bins for i in b) == list(range(len(costs)))
    assert all(len(b) == 1 or sum(costs[i] for i in b) <= budget for b in bins)


def test_empty_parts_are_refused() -> None:
    for bad in (Scored([], [1]), Scored([1], []), Scored([1], [1], [False])):
        for lay in (lay_rows, lay_trie):
            with pytest.raises(ValueError):
                lay([bad])


def test_flex_attention_sees_the_same_mask() -> None:
    """The CUDA path's mask and arithmetic, run uncompiled on the CPU (the compiled kernel itself needs a GPU)."""
    from pluralign.scoring import attention

    layout = lay_trie(some_sequences(8))
    g = torch.Generator().manual_seed(0)
    n = layout.tokens
    q = torch.randn(1, 4, n, 16, generator=g)
    k, v = (torch.randn(1, 2, n, 16, generator=g) for _ in range(2))
    ours, _ = attention.trie_attention(torch.nn.Identity(), q, k, v, None, scaling=0.25, trie=layout.trie)
    flex = attention._flex(q, k, v, layout.trie, 0.25)
    torch.testing.assert_close(flex, ours, atol=1e-5, rtol=1e-5)
    dense = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=trie_mask(layout.trie.end), scale=0.25, enable_gqa=True
    )
    torch.testing.assert_close(dense.transpose(1, 2), ours, atol=1e-5, rtol=1e-5)
