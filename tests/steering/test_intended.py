"""Intents at inference: inferred or given, in the same cache, and the same text as inferring first and writing then."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pluralign.errors import SettingsError
from pluralign.heads.intent import attach_intention
from pluralign.intention import IntentForm
from pluralign.policy import Policy
from pluralign.records import messages
from pluralign.steering import Request, answer
from pluralign.steering.begin import contexts
from pluralign.steering.intended import infer_intents

NAMES = ("a short answer", "a joke", "comfort")
PROMPTS = ["How do I keep bread fresh?", "Tell me of your day.", "I am sad today, what can I do about it?"]


@pytest.fixture(scope="module")
def policy() -> Policy:
    """The embedded model with an intention head whose answers differ from prompt to prompt."""
    made = Policy.load("embedded", precision="fp32")
    made.intents = IntentForm(NAMES)
    torch.manual_seed(0)
    module = attach_intention(made.model, "intent", len(NAMES))
    torch.nn.init.normal_(module.classifier.weight, std=2.0)
    return made


def ask(policy: Policy, **options: Any) -> list[Any]:
    return answer(policy, [Request(p, max_new_tokens=8, temperature=0, **options) for p in PROMPTS])


def test_inferred_intents_stand_in_the_context_and_give_the_text_of_two_passes(policy: Policy) -> None:
    one = ask(policy)
    q = infer_intents(policy, PROMPTS)
    assert [a.intent for a in one] == [next(iter(row)) for row in q]
    assert [a.intent_share for a in one] == pytest.approx([max(row.values()) for row in q], abs=1e-4)
    assert len({a.intent for a in one}) > 1, "else this tests nothing"
    two = [answer(policy, [Request(p, max_new_tokens=8, temperature=0, intent=a.intent)])[0]
           for p, a in zip(PROMPTS, one, strict=True)]  # fmt: skip
    assert [a.text for a in one] == [a.text for a in two]
    assert all(a.intent_share is None for a in two), "a given intent is not inferred"


def test_the_context_is_the_prompt_with_the_intent_at_its_end(policy: Policy) -> None:
    shown, _ = contexts(policy, [Request(PROMPTS[0], intent="a joke")])
    assert policy.intents is not None
    said = PROMPTS[0] + policy.intents.text(1)
    plain = Policy(policy.model, policy.tokenizer, "plain", "fp32")
    text = policy.tokenizer.decode(shown[0])
    assert text == policy.tokenizer.decode(plain.renderer.prompt(messages(said)))


def test_an_empty_intent_shows_none_and_an_unsure_module_abstains(policy: Policy) -> None:
    bare = Policy(policy.model, policy.tokenizer, "bare", "fp32")
    plain = answer(bare, [Request(p, max_new_tokens=8, temperature=0) for p in PROMPTS])
    assert [a.text for a in ask(policy, intent="")] == [a.text for a in plain]
    sure = Policy(policy.model, policy.tokenizer, "sure", "fp32", intents=IntentForm(NAMES, threshold=1.0))
    found = ask(sure)
    unsure = [i for i, a in enumerate(found) if not a.intent]
    assert unsure
    assert all(found[i].text == plain[i].text for i in unsure)
    assert all(a.intent_share is not None for a in found)


def test_any_policy_can_be_told_an_intent(policy: Policy) -> None:
    """Inf-Intent: a policy that was never trained with intents is shown one at inference."""
    plain = Policy(policy.model, policy.tokenizer, "plain", "fp32")
    plain.model.pluralign_intention, module = None, plain.model.pluralign_intention
    try:
        told = answer(plain, [Request(PROMPTS[0], max_new_tokens=8, temperature=0, intent="anything at all")])[0]
        assert (told.intent, told.intent_share) == ("anything at all", None)
    finally:
        plain.model.pluralign_intention = module


def test_wrong_intents_are_refused_before_anything_is_written(policy: Policy) -> None:
    with pytest.raises(SettingsError, match=r'unknown intent "a joker".*Did you mean "a joke"'):
        ask(policy, intent="a joker")


def test_generate_takes_an_intent_for_all(policy: Policy) -> None:
    texts = policy.generate(PROMPTS[:2], intent="comfort", max_new_tokens=4, temperature=0)
    assert texts == [a.text for a in answer(policy, [
        Request(p, max_new_tokens=4, temperature=0, intent="comfort", place=i) for i, p in enumerate(PROMPTS[:2])
    ])]  # fmt: skip
