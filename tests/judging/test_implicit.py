"""Implicit rewards of a policy as an attribute: worked out the long way, and through the step that scores."""

from __future__ import annotations

import pytest
import torch

from pluralign.curate import curate
from pluralign.curate.score import score_responses
from pluralign.errors import SettingsError
from pluralign.judging.implicit import implicit_rewards, implicit_scorer
from pluralign.policy import LoRA, Policy
from pluralign.records import Demonstration, Ranked, messages
from tests.judging.test_preferences import PAIRS, by_hand, noisy
from tests.training.conftest import tiny_model  # noqa: F401 - a fixture


def said(text: str):
    return messages(text, role="assistant")


ASKED = [(p.prompt, y) for p in PAIRS for y in (p.chosen, p.rejected)]


def values(found) -> list[float]:
    return [s.values[0] for s in found]


def test_rewards_are_scaled_log_ratios(tiny_model) -> None:  # noqa: F811 - the fixture
    policy, reference = noisy(tiny_model, 1), noisy(tiny_model, 2)
    found = values(implicit_rewards(policy, ASKED, reference=reference, beta=0.3, token_budget=256))
    expected = [
        0.3 * (by_hand(policy, pair, side)[0] - by_hand(reference, pair, side)[0])
        for pair in PAIRS
        for side in ("chosen", "rejected")
    ]
    assert found == pytest.approx(expected, abs=1e-4)
    assert max(map(abs, found)) > 0.1


def test_the_scoring_step_writes_them_to_every_response(tiny_model, tmp_path) -> None:  # noqa: F811
    policy, reference = noisy(tiny_model, 1), noisy(tiny_model, 2)
    pair = PAIRS[0]
    records = [
        pair,
        Ranked(prompt=pair.prompt, responses=(pair.rejected, pair.chosen, said("So so.")), scores=(0.0, 2.0, 1.0)),
        Demonstration(prompt=pair.prompt, response=pair.chosen, attributes={"safe": 1.0}),
    ]
    made = curate(records, [score_responses([implicit_scorer(policy, "helpful", reference=reference)], store=tmp_path)])
    out = list(made)
    w, l = out[0].attributes["helpful"]
    assert (w, l) == pytest.approx(values(implicit_rewards(policy, ASKED[:2], reference=reference)), abs=1e-6)
    assert out[1].attributes["helpful"][:2] == (l, w)
    assert out[2].attributes == {"safe": 1.0, "helpful": w}
    assert all(r.validate() is r for r in out)
    # what is stored belongs to these weights, this reference and this beta
    mine = implicit_scorer(policy, "helpful", reference=reference)
    assert implicit_scorer(policy, "other name", reference=reference).key == mine.key
    others = [
        implicit_scorer(noisy(tiny_model, 3), "helpful", reference=reference),
        implicit_scorer(policy, "helpful", reference=noisy(tiny_model, 3)),
        implicit_scorer(policy, "helpful", reference=reference, beta=0.2),
    ]
    assert len({mine.key, *(s.key for s in others)}) == 4


def test_the_base_under_an_adapter_is_its_reference(tiny_model) -> None:  # noqa: F811
    """A forgotten toggle would make every reward 0."""
    policy = Policy.load(tiny_model, precision="fp32", lora=LoRA(rank=2))
    assert values(implicit_rewards(policy, ASKED)) == [0.0] * len(ASKED)  # B = 0: the adapter is nothing yet
    before = implicit_scorer(policy, "helpful").key
    torch.manual_seed(0)
    with torch.no_grad():
        for name, p in policy.model.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.5)
    found = values(implicit_rewards(policy, ASKED))
    named = values(implicit_rewards(policy, ASKED, reference=Policy.load(tiny_model, precision="fp32")))
    assert min(map(abs, found)) > 1e-3
    assert found == pytest.approx(named, abs=1e-4)
    assert implicit_scorer(policy, "helpful").key != before


def test_what_cannot_be_read_has_no_reward_and_says_why(tiny_model) -> None:  # noqa: F811
    policy, reference = noisy(tiny_model, 1), noisy(tiny_model, 2)
    long = (messages("Why?"), said("because " * 60))
    policy.rendering["max_length"] = reference.rendering["max_length"] = 40
    cut, whole = implicit_rewards(policy, [long, ASKED[0]], reference=reference)
    assert cut.note == "cut to fit"
    assert cut.values[0] is not None
    assert whole.note == ""
    strict, other = noisy(tiny_model, 1), noisy(tiny_model, 2)
    strict.rendering |= {"max_length": 40, "overlong": "error"}
    refused, whole = implicit_rewards(strict, [long, ASKED[0]], reference=other)
    assert refused.values == (None,)
    assert refused.note
    assert whole.values[0] is not None


def test_what_gives_no_reward_is_refused(tiny_model) -> None:  # noqa: F811
    policy, reference = noisy(tiny_model, 1), noisy(tiny_model, 2)
    with pytest.raises(SettingsError, match="reference must be named"):
        implicit_rewards(policy, ASKED)
    with pytest.raises(SettingsError, match="one model"):
        implicit_scorer(policy, "safer", reference=policy)
    with pytest.raises(SettingsError, match="beta must be a positive number"):
        implicit_scorer(policy, "safer", reference=reference, beta=0.0)
