"""Implicit rewards of a policy as an attribute: worked out the long way, and as the margins of MODPO."""

from __future__ import annotations

import pytest
import torch

from pluralign.curate import curate
from pluralign.errors import RecordError, RenderError, SettingsError
from pluralign.judging.implicit import implicit_rewards, implicit_scores
from pluralign.policy import LoRA, Policy
from pluralign.records import Demonstration, Labelled, Preference, Ranked, messages
from tests.judging.test_preferences import PAIRS, by_hand, noisy
from tests.training.conftest import tiny_model  # noqa: F401 - a fixture


def said(text: str):
    return messages(text, role="assistant")


def test_rewards_are_scaled_log_ratios(tiny_model) -> None:  # noqa: F811 - the fixture
    policy, reference = noisy(tiny_model, 1), noisy(tiny_model, 2)
    found = implicit_rewards(policy, PAIRS, reference=reference, beta=0.3, token_budget=256)
    for pair, rewards in zip(PAIRS, found, strict=True):
        for side, reward in zip(("chosen", "rejected"), rewards, strict=True):
            expected = 0.3 * (by_hand(policy, pair, side)[0] - by_hand(reference, pair, side)[0])
            assert reward == pytest.approx(expected, abs=1e-4)
    assert max(abs(r) for rewards in found for r in rewards) > 0.1


def test_every_kind_of_record_gets_its_own(tiny_model) -> None:  # noqa: F811
    policy, reference = noisy(tiny_model, 1), noisy(tiny_model, 2)
    pair = PAIRS[0]
    records = [
        pair,
        Ranked(prompt=pair.prompt, responses=(pair.rejected, pair.chosen, said("So so.")), scores=(0.0, 2.0, 1.0)),
        Demonstration(prompt=pair.prompt, response=pair.chosen, attributes={"safe": 1.0}),
        Labelled(prompt=pair.prompt, response=pair.rejected, label=False),
    ]
    out = list(implicit_scores(policy, "helpful", reference=reference)(records))
    w, l = out[0].attributes["helpful"]
    ranked = out[1].attributes["helpful"]
    assert ranked[:2] == pytest.approx((l, w), abs=1e-5)
    assert len(ranked) == 3
    assert out[2].attributes == pytest.approx({"safe": 1.0, "helpful": w}, abs=1e-5)
    assert out[3].attributes["helpful"] == pytest.approx(l, abs=1e-5)
    assert all(type(r.validate()) is type(given) for r, given in zip(out, records, strict=True))
    assert isinstance(out[0], Preference)


def test_the_base_under_an_adapter_is_its_reference(tiny_model) -> None:  # noqa: F811
    """A forgotten toggle would make every reward 0."""
    policy = Policy.load(tiny_model, precision="fp32", lora=LoRA(rank=2))
    fresh = implicit_rewards(policy, PAIRS)
    assert all(r == 0.0 for rewards in fresh for r in rewards)  # B = 0: the adapter is nothing yet
    torch.manual_seed(0)
    with torch.no_grad():
        for name, p in policy.model.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.5)
    found = implicit_rewards(policy, PAIRS)
    named = implicit_rewards(policy, PAIRS, reference=Policy.load(tiny_model, precision="fp32"))
    assert min(abs(r) for rewards in found for r in rewards) > 1e-3
    for a, b in zip(found, named, strict=True):
        assert a == pytest.approx(b, abs=1e-4)


def test_as_a_step_it_is_counted(tiny_model, tmp_path) -> None:  # noqa: F811
    policy, reference = noisy(tiny_model, 1), noisy(tiny_model, 2)
    policy.rendering["max_length"] = reference.rendering["max_length"] = 24
    policy.rendering["overlong"] = reference.rendering["overlong"] = "error"
    long = Demonstration(prompt=messages("Why?"), response=said("because " * 60))
    assert isinstance(implicit_rewards(policy, [long], reference=reference)[0], RenderError)
    made = curate([*PAIRS[:2], long], [implicit_scores(policy, "safer", reference=reference)])
    records = list(made)
    assert [r.prompt for r in records] == [p.prompt for p in PAIRS[:2]]
    (count,) = made.counts
    assert made.balanced
    assert count.dropped["cannot be rendered"] == 3 - len(records) > 0
    assert made.report()["steps"][0]["settings"]["attribute"] == "safer"


def test_what_gives_no_reward_is_refused(tiny_model) -> None:  # noqa: F811
    policy, reference = noisy(tiny_model, 1), noisy(tiny_model, 2)
    with pytest.raises(SettingsError, match="reference must be named"):
        implicit_rewards(policy, PAIRS)
    with pytest.raises(SettingsError, match="one model"):
        implicit_rewards(policy, PAIRS, reference=policy)
    with pytest.raises(SettingsError, match="beta must be a positive number"):
        implicit_scores(policy, "safer", reference=reference, beta=0.0)
    step = implicit_scores(policy, "safer", reference=reference)
    with pytest.raises(RecordError, match='an attribute "safer" already'):
        list(step(step(PAIRS[:1])))
