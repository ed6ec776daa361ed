"""Arena-Hard: the fixtures of its specification, both versions' rules, and its saturated Bradley-Terry fit."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pluralign.errors import SettingsError
from pluralign.judging.arena_hard import LABELS, ArenaGame, arena_hard, game_score, row_entries
from pluralign.judging.logistic import fit_logistic


def game(uid, first, second, model="m", category="hard_prompt"):
    return ArenaGame(str(uid), model, (first, second), category)


def some_games(n=60, seed=0, model="m"):
    rng = np.random.default_rng(seed)
    labels = ["A>>B", "A>B", "A=B", "B>A", "B>>A"]
    return [game(i, *rng.choice(labels, 2, p=[0.15, 0.3, 0.2, 0.25, 0.1]).tolist(), model) for i in range(n)]


def test_fixture_of_the_specification():
    # game 0 (baseline A) "A>B": a loss; game 1 (model A) "A>>B": three wins
    found = row_entries([game(1, "A>B", "A>>B")])
    assert sorted(found.scores.tolist()) == [0, 1, 1, 1]
    assert found.scores.mean() == 0.75


def test_labels_mirror():
    for label, mirrored in [("A>>B", "B>>A"), ("A>B", "B>A"), ("A=B", "B=A"), ("A<B", "B<A"), ("A<<B", "B<<A")]:
        ours, theirs = game_score(label, model_is_a=True), game_score(label, model_is_a=False)
        assert ours == [1 - s for s in theirs] == game_score(mirrored, model_is_a=False)
    assert len(LABELS) == 10
    assert game_score(None, model_is_a=True) is None
    with pytest.raises(SettingsError, match="no verdict"):
        game_score("A", model_is_a=True)


def test_a_judge_that_always_takes_the_first_gives_exactly_half():
    found = arena_hard([game(i, "A>B", "A>B") for i in range(9)])[0]
    assert (found.score.value, found.score.low, found.score.high) == (0.5, 0.5, 0.5)


def test_weights_one_and_three_agree_on_the_side():
    games = some_games()
    sides = [arena_hard(games, weight=w)[0].score.value - 0.5 for w in (1, 3)]
    assert sides[0] * sides[1] > 0


def test_an_unread_game_drops_the_row_in_v2_and_itself_in_v01():
    games = [game(1, "A>B", "A>B"), game(2, None, "A>>B"), game(3, "B>A", None)]
    new, old = arena_hard(games, "v2")[0], arena_hard(games, "v0.1")[0]
    assert (new.score.value, new.prompts, new.unread_rows, new.score.missing) == (0.5, 1, 2, 2)
    # v0.1: 0 and 1 of the first row, three wins, one win: 5 of 6
    assert (old.score.value, old.prompts, old.unread_games, old.score.missing) == (pytest.approx(5 / 6), 3, 2, 2)


def test_nothing_read_has_no_score():
    found = arena_hard([game(1, None, None)])[0]
    assert math.isnan(found.score.value)
    assert math.isnan(found.published.value)
    assert found.unread_rows == 1


def test_bradley_terry_against_one_baseline_is_the_share():
    """v0.1 fits strengths; with one baseline its optimum is each model's mean entry."""
    games = some_games(40, 1, "m") + some_games(40, 2, "n")
    entries = row_entries(games, "v0.1")
    owners = [games[i].model for i in entries.places]
    x = np.array([[o == "m", o == "n"] for o in owners], dtype=float) * math.log(10)
    theta = fit_logistic(x, entries.scores).coefficients
    shares = {s.model: s.score.value for s in arena_hard(games, "v0.1")}
    assert 1 / (1 + 10**-theta) == pytest.approx([shares["m"], shares["n"]])


def test_published_values_and_levels():
    games = some_games(200)
    new, old = arena_hard(games, "v2", resamples=400)[0], arena_hard(games, "v0.1", resamples=400)[0]
    assert (new.published.level, old.published.level) == (0.9, 0.95)
    assert old.published.value == old.score.value
    assert new.published.value != new.score.value  # the mean of the resamples
    assert new.published.value == pytest.approx(new.score.value, abs=0.01)
    # the published interval is that of entries drawn one by one: sd / sqrt(n) times 1.645 on both sides
    scores = row_entries(games).scores
    half = 1.645 * scores.std() / math.sqrt(len(scores))
    assert (new.published.high - new.published.low) / 2 == pytest.approx(half, rel=0.15)


def test_seeded():
    games = some_games()
    assert arena_hard(games, seed=3) == arena_hard(games, seed=3)
    assert arena_hard(games, seed=3)[0].published != arena_hard(games, seed=4)[0].published


def test_the_interval_over_prompts_covers_and_that_over_entries_is_too_narrow():
    """Both games of a prompt share its verdict, and strong ones count three times."""
    truth, hits, published = [], 0, 0
    rng = np.random.default_rng(7)
    labels, chances = ["A>>B", "A>B", "A=B", "B>A", "B>>A"], [0.2, 0.25, 0.15, 0.25, 0.15]
    mirror = {"A>>B": "B>>A", "A>B": "B>A", "A=B": "A=B", "B>A": "A>B", "B>>A": "A>>B"}
    weights = np.array([3, 1, 1, 1, 3]) * np.array(chances)
    truth = float(weights @ [1, 1, 0.5, 0, 0] / weights.sum())
    for run in range(200):
        drawn = rng.choice(labels, 60, p=chances).tolist()
        found = arena_hard([game(i, mirror[label], label) for i, label in enumerate(drawn)], seed=run, resamples=40)[0]
        hits += found.score.low <= truth <= found.score.high
        published += found.published.low <= truth <= found.published.high
    assert 0.92 <= hits / 200 <= 0.98
    assert published / 200 < 0.70  # says 90 %


def test_models_are_ranked_and_categories_are_the_callers():
    games = [game(i, "B>A", "A>B", "good") for i in range(3)] + [game(i, "A>B", "B>A", "bad") for i in range(3)]
    assert [s.model for s in arena_hard(games)] == ["good", "bad"]
    assert arena_hard(games)[0].baseline == "o3-mini-2025-01-31"
    with pytest.raises(SettingsError, match="a version is"):
        arena_hard(games, "v3")
