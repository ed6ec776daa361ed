"""Log-probs of what is written: those of scoring the same text, whatever shares the batch and however it is drawn."""

from __future__ import annotations

import pytest

from pluralign.errors import SettingsError
from pluralign.policy import Policy
from pluralign.scoring.layout import Scored
from pluralign.steering import Request, answer
from pluralign.steering.begin import contexts

PROMPTS = ["The cat sat on the house.", "A red tree and a dog.", "Then the bread ran under the tree with a blue cat."]


@pytest.mark.parametrize("temperature", [0.0, 1.3])
def test_they_are_those_of_scoring_the_text(policy: Policy, temperature: float) -> None:
    requests = [
        Request(p, max_new_tokens=n, temperature=temperature, top_p=0.8, place=i, logprobs=k)
        for i, (p, n, k) in enumerate(zip(PROMPTS, (3, 9, 6), (4, None, 0), strict=True))
    ]
    first, none, last = answer(policy, requests)
    assert none.places == ()
    assert [len(place.top) for place in (*first.places, *last.places)] == [4] * len(first.places) + [0] * len(
        last.places
    )
    for request, got in ((requests[0], first), (requests[2], last)):
        ids = [int(policy.tokenizer.encode(p.token, add_special_tokens=False)[0]) for p in got.places]
        context = contexts(policy, [request])[0][0]
        (read,) = policy.score([Scored(context, ids)], reads=("sum", "length", "tokens"))
        assert [p.logprob for p in got.places] == pytest.approx(read.tokens.tolist(), abs=2e-5)
        for place in got.places:
            listed = [lp for _, lp in place.top]
            assert listed == sorted(listed, reverse=True)
            if place.top and temperature == 0:
                assert place.top[0] == (place.token, place.logprob)


def test_looking_changes_nothing_and_the_end_of_the_turn_is_not_listed(policy: Policy) -> None:
    plain = [Request(p, max_new_tokens=12, temperature=0.9, place=i) for i, p in enumerate(PROMPTS)]
    seen = [Request(p, max_new_tokens=12, temperature=0.9, place=i, logprobs=1) for i, p in enumerate(PROMPTS)]
    for a, b in zip(answer(policy, plain), answer(policy, seen), strict=True):
        assert (a.text, a.finish) == (b.text, b.finish)
        assert len(b.places) == b.tokens - (b.finish == "stop")
        assert "".join(p.token for p in b.places).strip() == b.text


def test_more_than_twenty_are_refused() -> None:
    with pytest.raises(SettingsError, match="0 to 20"):
        Request("a", logprobs=21).check()
