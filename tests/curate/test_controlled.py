"""CPSFT and CDPO: the reward of a target, the pairs it makes, and their mixture."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given as over
from hypothesis import settings
from hypothesis import strategies as st

from pluralign.conditioning import scored
from pluralign.curate.controlled import (
    PAPER_QUOTAS,
    Quota,
    control,
    control_reward,
    controlled_pairs,
    cpo_form,
    say_target,
)
from pluralign.curate.pipeline import Count
from pluralign.errors import RecordError, SettingsError
from pluralign.records import Demonstration, Message, Preference, Ranked, messages
from pluralign.terms import Term, demonstration

NAMES = ("helpfulness", "honesty")


def rated(*ratings: tuple[float | None, float | None], prompt: str = "Tell me.", **more) -> Ranked:
    """Responses "r0", "r1", ... with (helpfulness, honesty)."""
    return Ranked(
        prompt=messages(prompt),
        responses=tuple((Message("assistant", f"r{i}"),) for i in range(len(ratings))),
        scores=tuple(float(i) for i in range(len(ratings))),
        attributes={name: tuple(r[k] for r in ratings) for k, name in enumerate(NAMES)},
        **more,
    )


def winners(record: Ranked, target, names=NAMES, **weights) -> list[str]:
    """ "r0>r1" of each pair."""
    pairs = controlled_pairs(record, target, names, **weights)
    return sorted(f"{p.chosen[0].content}>{p.rejected[0].content}" for p in pairs)


# The reward


def test_reward_by_hand() -> None:
    ratings = {"helpfulness": 4.0, "honesty": 2.0}
    assert control_reward(ratings, {}, NAMES) == 6.0
    assert control_reward(ratings, {"helpfulness": 5}, NAMES) == -1.0 + 2.0
    assert control_reward(ratings, {"helpfulness": 5, "honesty": 5}, NAMES) == -4.0
    weighted = {"distance_weights": {"helpfulness": 3.0}, "weights": {"honesty": 0.5}}
    assert control_reward(ratings, {"helpfulness": 5}, NAMES, **weighted) == -3.0 + 1.0
    assert control_reward({"helpfulness": 4.0, "honesty": None}, {}, NAMES) is None
    assert control_reward({"helpfulness": 4.0}, {"helpfulness": 5}, NAMES) is None


def test_an_exact_match_has_distance_zero_and_not_its_rating() -> None:
    """`cond and a or b` gives b where a is 0: an exact match would be worth its rating."""
    assert control_reward({"helpfulness": 2.0}, {"helpfulness": 2}, ("helpfulness",)) == 0.0
    record = rated((2.0, 3.0), (3.0, 3.0))
    assert winners(record, {"helpfulness": 2}, ("helpfulness",)) == ["r0>r1"]


def test_distance_on_the_second_attribute_is_a_distance() -> None:
    """-|honesty(y)| - honesty(target) would prefer the least honest response whatever the target."""
    record = rated((3.0, 1.0), (3.0, 4.0), (3.0, 5.0))
    assert winners(record, {"honesty": 4}) == ["r1>r0", "r1>r2", "r2>r0"]
    assert winners(record, {"helpfulness": 3, "honesty": 5}) == ["r1>r0", "r2>r0", "r2>r1"]


@over(st.lists(st.integers(1, 5), min_size=2, max_size=5), st.data())
@settings(max_examples=60, deadline=None)
def test_the_exact_response_beats_all_others_where_it_alone_is_controlled(given, data) -> None:
    at = data.draw(st.integers(0, len(given) - 1))
    record = rated(*((float(g), 3.0) for g in given))
    pairs = controlled_pairs(record, {"helpfulness": given[at]}, ("helpfulness",))
    own = [p for p in pairs if f"r{at}" in (p.chosen[0].content, p.rejected[0].content)]
    assert all(p.chosen[0].content == f"r{at}" for p in own)
    assert len(own) == sum(g != given[at] for g in given)
    for p in pairs:  # nearer is better, and by how much
        w, l = (abs(given[int(r[0].content[1:])] - given[at]) for r in (p.chosen, p.rejected))
        assert w < l
        assert p.margin == l - w


def test_nothing_controlled_is_the_ranking_by_sum() -> None:
    record = rated((5.0, 1.0), (2.0, 5.0), (3.0, 3.0))
    assert winners(record, {}) == ["r1>r0", "r1>r2"]  # 6 7 6: equal sums make no pair


def test_another_target_flips_the_winner() -> None:
    record = rated((5.0, 3.0), (1.0, 3.0))
    assert winners(record, {"helpfulness": 5}) == ["r0>r1"]
    assert winners(record, {"helpfulness": 1}) == ["r1>r0"]
    assert winners(record, {"helpfulness": 3}) == []


def test_missing_ratings_make_no_pair_and_attributes_stay_with_their_response() -> None:
    record = rated((5.0, 3.0), (1.0, None), (2.0, 4.0), source="here")
    (pair,) = controlled_pairs(record, {"helpfulness": 2}, NAMES)
    assert pair.chosen[0].content == "r2"
    assert pair.attributes == {"helpfulness": (2.0, 5.0), "honesty": (4.0, 3.0)}
    assert pair.meta["target"] == {"helpfulness": 2}
    assert pair.source == "here"
    assert pair.validate() is pair


def test_a_target_on_an_unknown_attribute_is_refused() -> None:
    """Misspelt once ("helplessness"), and the second stage trains words that the first has never seen."""
    with pytest.raises(SettingsError, match='a target on "helplessness"'):
        controlled_pairs(rated((5.0, 3.0), (1.0, 3.0)), {"helplessness": 5}, NAMES)
    with pytest.raises(SettingsError, match='a target on "helplessness"'):
        control([Quota(1, {"helplessness": 5})])


# The prefix


def test_both_stages_say_the_same() -> None:
    form = cpo_form(NAMES)
    shown = Demonstration(
        prompt=messages("Tell me."),
        response=(Message("assistant", "r"),),
        attributes={"honesty": 3.0, "helpfulness": 5.0},
    )
    (term,) = (t for t in scored(demonstration, form, "own")(shown) if isinstance(t, Term))
    (pair,) = controlled_pairs(rated((5.0, 3.0), (1.0, 3.0)), {"honesty": 3, "helpfulness": 5}, NAMES)
    assert term.turns() == pair.prompt
    assert pair.prompt[0].content == "<helpfulness: 5> <honesty: 3> Tell me."
    assert say_target(messages("Tell me."), {}, form) == messages("Tell me.")
    assert form.read(pair.prompt[0].content) == {"helpfulness": 5.0, "honesty": 3.0}


# The mixture


def table(n: int) -> list[Ranked]:
    """Every rating occurs; few rows have a helpfulness of 1."""
    rows = []
    for i in range(n):
        low = 1.0 if i % 20 == 0 else 2.0 + i % 3
        rows.append(rated((low, 1.0 + i % 5), (5.0, 5.0), (low, 1.0 + (i + 1) % 5), prompt=f"question {i}"))
    return rows


def made(quotas, rows, seed: int = 0) -> tuple[list[Preference], Count]:
    count = Count("control")
    return list(control(quotas, seed=seed)(rows, count)), count


def key(pair: Preference) -> str:
    return " ".join(f"{n}={v:g}" for n, v in pair.meta["target"].items()) or "no target"


QUOTAS = (
    Quota(20, {"helpfulness": 5, "honesty": 5}),
    Quota(20),
    Quota(30, free=("helpfulness", "honesty")),
    Quota(8, {"helpfulness": 1}),
)


def test_quotas_are_met_and_no_row_is_used_twice() -> None:
    rows = table(200)
    pairs, count = made(QUOTAS, rows)
    assert len(pairs) == 78
    questions = [p.prompt[-1].content.rpartition("> ")[2] for p in pairs]
    assert len(set(questions)) == len(questions)
    found = Counter(map(key, pairs))
    assert found["no target"] == 20
    assert found["helpfulness=1"] == 8  # there are ten such rows: a common target does not eat them
    assert found["helpfulness=5 honesty=5"] >= 20
    assert not count.noted
    assert count.dropped == {"quotas are full": 122}


def test_no_order_bias() -> None:
    """Rows from all over the data, and neither the first ones nor in their order."""
    rows = table(200)
    pairs, _ = made(QUOTAS, rows)
    numbers = [int(p.prompt[-1].content.rpartition(" ")[2]) for p in pairs]
    assert numbers != sorted(numbers)
    assert max(numbers) > 150
    assert sum(n >= 100 for n in numbers) > 25
    assert made(QUOTAS, rows)[0] == pairs
    assert made(QUOTAS, rows, seed=1)[0] != pairs


def test_targets_are_ratings_of_a_response_of_the_row() -> None:
    rows = table(60)
    by_prompt = {r.prompt[0].content: r for r in rows}
    pairs, _ = made([Quota(60, free=("helpfulness", "honesty"))], rows)
    assert len(pairs) > 40
    for pair in pairs:
        row = by_prompt[pair.prompt[0].content.rpartition("> ")[2]]
        target = tuple(pair.meta["target"][n] for n in NAMES)
        assert target in list(zip(*(row.attributes[n] for n in NAMES), strict=True))
    assert len({key(p) for p in pairs}) > 5


def test_quotas_that_stay_short_are_noted() -> None:
    pairs, count = made([Quota(50, {"helpfulness": 1}), Quota(5, {"helpfulness": 4.5})], table(100))
    assert len(pairs) == 5
    assert count.noted == {"missing of helpfulness=1": 45, "missing of helpfulness=4.5": 5}
    assert count.balanced


def test_pairs_are_rows_too_and_others_are_not() -> None:
    pair = Preference(
        prompt=messages("Tell me."),
        chosen=(Message("assistant", "a"),),
        rejected=(Message("assistant", "b"),),
        attributes={"helpfulness": (1.0, 4.0), "honesty": (3.0, 3.0)},
    )
    (found,), _ = made([Quota(1)], [pair])
    assert found.chosen[0].content == "b"  # the sum decides, and not who was preferred
    with pytest.raises(RecordError, match="this is a demonstration"):
        made([Quota(1)], [Demonstration(prompt=messages("q"), response=(Message("assistant", "a"),))])


def test_the_papers_mixture() -> None:
    assert sum(q.count for q in PAPER_QUOTAS) == 72_000
    assert [q.name for q in PAPER_QUOTAS[:2]] == ["helpfulness=5 honesty=5", "helpfulness=any honesty=any"]
    assert PAPER_QUOTAS[-1].name == "no target"
