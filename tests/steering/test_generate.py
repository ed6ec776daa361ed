"""Generation: the same text alone and in company, the model's own distribution, and nothing but text."""

from __future__ import annotations

import pytest
import torch

from pluralign.errors import SettingsError
from pluralign.policy import Policy
from pluralign.records import messages
from pluralign.steering import Request, generate
from pluralign.steering.begin import contexts
from pluralign.steering.draw import Draw
from pluralign.steering.generate import _measure
from pluralign.steering.reader import Reader

PROMPTS = [
    "Hi",
    "Can you explain in detail how a steam engine works, and why it was replaced by others in the end?",
    [
        {"role": "user", "content": "A bird?"},
        {"role": "assistant", "content": "Crow."},
        {"role": "user", "content": "More?"},
    ],
    "What is seven times eight?",
    "Why",
]


@torch.no_grad()
def by_hand(policy: Policy, prompt: object, tokens: int) -> str:
    """The likeliest token again and again, without a cache, padding or generate()."""
    ids = policy.renderer.prompt(messages(prompt))
    written: list[int] = []
    while len(written) < tokens:
        logits = policy.model.eval()(torch.tensor([ids + written])).logits[0, -1]
        written.append(int(logits.argmax()))
        if written[-1] in policy.renderer.stop_ids:
            written.pop()
            break
    return policy.tokenizer.decode(written, skip_special_tokens=True).strip()


def test_greedy_text_is_the_models_argmax_alone_and_in_a_batch(policy: Policy) -> None:
    expected = [by_hand(policy, prompt, 12) for prompt in PROMPTS]
    assert len(set(expected)) > 2
    for size in (1, 2, 16):
        assert generate(policy, PROMPTS, max_new_tokens=12, temperature=0, batch_size=size) == expected
    assert [policy.chat(p, max_new_tokens=12, temperature=0) for p in PROMPTS] == expected


def test_samples_do_not_depend_on_batch_mates_and_repeat_by_seed(policy: Policy) -> None:
    options = {"max_new_tokens": 12, "temperature": 1.5, "top_p": 0.95}
    together = generate(policy, PROMPTS, seed=3, batch_size=16, **options)
    assert generate(policy, PROMPTS, seed=3, batch_size=1, **options) == together
    assert generate(policy, PROMPTS, seed=3, batch_size=2, **options) == together
    assert generate(policy, PROMPTS[:2], seed=3, **options) == together[:2]
    assert generate(policy, PROMPTS, seed=4, **options) != together
    assert generate(policy, ["Hi"] * 4, seed=3, **options) != [together[0]] * 4  # each place draws for itself
    state = torch.get_rng_state()
    generate(policy, PROMPTS, **options)
    assert torch.equal(torch.get_rng_state(), state)  # nobody else's random numbers are used up


def test_draws_follow_the_distribution() -> None:
    """Exact probabilities against 20,000 draws, with temperature and top-p worked out by hand."""
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    n = 20_000
    scores = probabilities.log().expand(n, 4)
    cases = [
        ((1.0, 1.0), probabilities),
        ((0.5, 1.0), probabilities**2 / (probabilities**2).sum()),
        ((1.0, 0.75), torch.tensor([0.625, 0.375, 0, 0])),
        ((1.0, 0.8), torch.tensor([0.625, 0.375, 0, 0])),
        ((1.0, 0.01), torch.tensor([1.0, 0, 0, 0])),
    ]
    for (temperature, top_p), expected in cases:
        options = {"temperature": temperature, "top_p": top_p, "max_new_tokens": 1}
        requests = [Request("", **options, place=place) for place in range(n)]
        drawn = Draw(requests, 3, torch.device("cpu"))(torch.zeros(n, 3), scores).argmax(-1)
        share = torch.bincount(drawn, minlength=4) / n
        error = (expected * (1 - expected) / n).sqrt()
        assert ((share - expected).abs() <= 5 * error + 1e-12).all(), (options, share)


def test_options_that_cannot_be(policy: Policy) -> None:
    for options in ({"temperature": -1}, {"top_p": 0}, {"top_p": 1.1}, {"max_new_tokens": 0}, {"batch_size": 0}):
        with pytest.raises(SettingsError, match=next(iter(options))):
            generate(policy, ["Hi"], **options)
    with pytest.raises(SettingsError, match="one response can be streamed"):
        generate(policy, PROMPTS, stream=print)
    with pytest.raises(SettingsError, match="the model has 512 positions"):
        generate(policy, ["Hi"], max_new_tokens=512)
    assert generate(policy, []) == []


def test_control_tokens_are_never_printed(policy: Policy) -> None:
    """A model that writes nothing else: everything but text is left out, and an end of turn ends it."""
    controls = [i for i in policy.tokenizer.all_special_ids if i not in policy.renderer.stop_ids]
    text = policy.tokenizer.encode("good bread", add_special_tokens=False)
    stop = policy.renderer.stop_ids[0]
    reader = Reader(policy)
    assert reader.text([*controls, *text, *controls, stop, *text]) == "good bread"
    for response in generate(policy, PROMPTS, max_new_tokens=24, temperature=5.0, top_p=1.0):
        assert not any(token in response for token in policy.tokenizer.all_special_tokens)


def test_a_long_prompt_loses_its_beginning_and_keeps_bos(policy: Policy) -> None:
    said: list[str] = []
    long = "one two three four five six seven eight nine ten " * 100 + "And now?"
    ids = policy.renderer.prompt(messages(long))
    requests = [Request(turns, max_new_tokens=8, temperature=0) for turns in ("short", long)]
    assert contexts(policy, requests[1:]) == ([[ids[0], *ids[-(512 - 8 - 1) :]]], [len(ids)])
    assert _measure(policy, requests[1:], said.append) == [504]
    assert len(said) == 1
    assert f"the prompt ({len(ids):,} tokens)" in said[0]
    said.clear()
    assert _measure(policy, requests, said.append) == [len(policy.renderer.prompt(messages("short"))), 504]
    assert "1 of 2 prompts" in said[0]
    generate(policy, ["short", long], max_new_tokens=8, temperature=0, warn=said.append)
    assert len(said) == 2


def test_streaming_gives_the_same_text_in_pieces(policy: Policy) -> None:
    for prompt in PROMPTS:
        pieces: list[str] = []
        whole = policy.chat(prompt, max_new_tokens=16, temperature=1.0, stream=pieces.append)
        assert "".join(pieces) == whole
        assert all(pieces)


def test_half_characters_are_held_back(policy: Policy) -> None:
    """A character of several tokens appears once it is whole."""
    pieces: list[str] = []
    reader = Reader(policy, pieces.append)
    ids = policy.tokenizer.encode("a ü 語 🙂 b", add_special_tokens=False)
    assert len(ids) > 9
    for token in ids:
        reader.add(token)
    reader.end()
    assert "".join(pieces) == "a ü 語 🙂 b"
    assert not any("\ufffd" in piece for piece in pieces)


def test_templates_without_control_tokens_end_at_the_next_speaker(policy: Policy) -> None:
    plain = Policy(policy.model, policy.tokenizer, policy.name, "fp32", {"template": "plain"})
    pieces: list[str] = []
    reader = Reader(plain, pieces.append)
    for token in plain.tokenizer.encode(" Good bread.\n\nIndeed.\n\nUser: More?", add_special_tokens=False):
        reader.add(token)
        assert "User" not in "".join(pieces)
    reader.end()
    assert "".join(pieces) == "Good bread.\n\nIndeed."


def test_generation_stops_at_the_next_speaker(policy: Policy) -> None:
    """A head that can only write one sentence again and again: it is stopped long before the limit."""
    plain = Policy(policy.model, policy.tokenizer, policy.name, "fp32", {"template": "hh"})
    script = plain.tokenizer.encode(" Yes.\n\nHuman: Why?", add_special_tokens=False)
    calls = []
    original = plain.model.forward

    def scripted(*args, **kwargs):
        out = original(*args, **kwargs)
        out.logits[:, -1] = -100.0
        out.logits[:, -1, script[len(calls) % len(script)]] = 100.0
        calls.append(1)
        return out

    plain.model.forward = scripted
    try:
        assert plain.chat("Well?", max_new_tokens=200, temperature=0) == "Yes."
    finally:
        plain.model.forward = original
    assert len(calls) <= len(script)


def test_the_checkpoints_own_generation_settings_are_not_mixed_in(policy: Policy) -> None:
    expected = policy.chat("Hi", max_new_tokens=12, temperature=0)
    config = policy.model.generation_config
    before = config.to_dict()
    config.do_sample, config.temperature, config.repetition_penalty, config.top_k = True, 3.0, 5.0, 2
    config.no_repeat_ngram_size = 1
    try:
        assert policy.chat("Hi", max_new_tokens=12, temperature=0) == expected
    finally:
        for name, value in before.items():
            setattr(config, name, value)
