"""Answers by belief: the shares a policy has, which option is drawn, and what stands before the answer."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch

from pluralign.data.beliefs import Beliefs
from pluralign.errors import SettingsError
from pluralign.records import messages
from pluralign.steering import Request, answer
from pluralign.steering.beliefs import Spread, believe, drawn, spread
from pluralign.terms import Prefix, Term

TWO = Beliefs(("Yes", "No"), (0.7, 0.3), 0, True)
THREE = Beliefs(("Always", "Never > 3", "It depends"), (0.2, 0.3, 0.5), 2, True)
ASKED = [("Should shops open on Sundays?", TWO), ("Is tax theft?", THREE)]


def test_the_spread_is_the_models_own(policy) -> None:
    """The next token's probabilities of the numbers, from a plain forward pass."""
    for (prompt, beliefs), found in zip(ASKED, spread(policy, ASKED), strict=True):
        ids = policy.renderer.prompt(prompt)
        with torch.no_grad():
            log_p = policy.model(torch.tensor([ids])).logits[0, -1].float().log_softmax(-1)
        numbers = [
            policy.tokenizer(beliefs.number(k), add_special_tokens=False)["input_ids"] for k in range(len(beliefs))
        ]
        assert all(len(n) == 1 for n in numbers)
        assert found.log_q == pytest.approx([float(log_p[n[0]]) for n in numbers], abs=1e-5)
        assert found.off_option == pytest.approx(1 - sum(map(math.exp, found.log_q)))
        assert sum(found.shares) == pytest.approx(1)


def test_numbers_of_more_than_ten_options_do_not_begin_each_other() -> None:
    many = Beliefs(tuple(f"option {k}" for k in range(12)), (1 / 12,) * 12, 0, True)
    assert [many.number(k) for k in (0, 1, 10)] == ["00", "01", "10"]
    assert TWO.number(1) == "1"


def test_what_the_policy_is_shown_is_what_it_was_trained_on(policy) -> None:
    pieces = THREE.pieces(1)
    (trained,) = policy.renderer.render([
        Term("w", (messages("Is tax theft?"), Prefix(pieces)), messages("No.", role="assistant"))
    ])  # fmt: skip
    n = trained.scored.index(True)
    assert policy.renderer.prompt("Is tax theft?", prefix=pieces) == trained.context + trained.target[:n]
    assert policy.tokenizer.decode(trained.target[:n]) == "1<Never > 3>"


def test_the_answer_goes_on_behind_the_belief(policy) -> None:
    (found,) = believe(policy, ASKED[:1], "argmax", max_new_tokens=6, temperature=0.0)[0]
    ids = policy.renderer.prompt(ASKED[0][0], prefix=TWO.pieces(found.option))
    new: list[int] = []
    with torch.no_grad():
        while len(new) < 6 and (not new or new[-1] not in policy.renderer.stop_ids):
            new.append(int(policy.model(torch.tensor([ids + new])).logits[0, -1].argmax()))
    text = policy.tokenizer.decode([t for t in new if t not in policy.renderer.stop_ids], skip_special_tokens=True)
    assert found.answer.text == text.strip()
    assert found.answer.prompt_tokens == len(ids)


def test_every_option_answers(policy) -> None:
    found = believe(policy, ASKED, "all", max_new_tokens=3)
    assert [[b.option for b in row] for row in found] == [[0, 1], [0, 1, 2]]
    for row, own in zip(found, spread(policy, ASKED), strict=True):
        assert [b.weight for b in row] == pytest.approx(list(own.shares))


def test_the_same_seed_and_whatever_shares_the_batch(policy) -> None:
    options = {"samples": 3, "max_new_tokens": 4, "seed": 5}
    first = believe(policy, ASKED, **options)
    same = lambda found: [[(b.option, b.answer) for b in row] for row in found]  # weights differ by rounding
    assert same(believe(policy, ASKED, **options, batch_size=1)) == same(first)
    assert same(believe(policy, ASKED[:1], **options)) == same(first[:1])
    assert [len(row) for row in first] == [3, 3]
    assert believe(policy, ASKED, **{**options, "seed": 6}) != first


def test_options_are_drawn_in_the_policys_shares() -> None:
    """600 draws of (.7, .3) with half the mass elsewhere: 420 expected, deviation 11.2; four of them allowed."""
    half = Spread((math.log(0.35), math.log(0.15)))
    assert half.shares == pytest.approx((0.7, 0.3))
    assert half.off_option == pytest.approx(0.5)
    count = Counter(drawn(half, "sample", 0, place)[0] for place in range(600))
    assert abs(count[0] - 420) < 45
    assert drawn(half, "argmax", 0, 0) == (0,)
    assert drawn(half, "all", 0, 0) == (0, 1)


def test_what_cannot_be_is_refused(policy) -> None:
    with pytest.raises(SettingsError, match='"sample", "argmax" or "all"'):
        believe(policy, ASKED, "most")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="samples"):
        believe(policy, ASKED, samples=0)


def test_requests_without_a_prefix_are_what_they_were(policy) -> None:
    plain, empty = (
        answer(policy, [Request("Hi", max_new_tokens=4)]),
        answer(policy, [Request("Hi", max_new_tokens=4, prefix=())]),
    )
    assert plain == empty
