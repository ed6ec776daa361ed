"""User-level reward heads: values by hand, reductions, and people who want opposite things."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pluralign.errors import SettingsError
from pluralign.heads.users import (
    KINDS,
    Shape,
    UserReward,
    ideal_point,
    load_users,
    save_users,
    similarity,
    unit_similarity,
)
from pluralign.heads.users_fit import Options, Pairs, adapt, fit_users, gaps, right

PERSONAL = [kind for kind in KINDS if kind != "shared"]


def head(kind: str, users: int = 3, **more: object) -> UserReward:
    return UserReward(Shape(kind=kind, width=4, hidden=8, **more), users)  # type: ignore[arg-type]


# By hand


def test_pals_distance_and_angle_by_hand() -> None:
    """u = (1, 0). |(1, 1) - u| = 1 and |(-1, 0) - u| = 2: the pair's logit is 1 - 2 = -1 for the right one.
    cos((1, 1), u) = 0.707107, over 0.07 10.101525; cos((-1, 0), u) = -1, over 0.07 -14.285714."""
    u, left, other = torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0]), torch.tensor([-1.0, 0.0])
    assert float(similarity(other, u, "distance") - similarity(left, u, "distance")) == pytest.approx(-1.0)
    angles = [float(similarity(x, u, "angle", 1 / 0.07)) for x in (left, other)]
    assert angles == pytest.approx([10.101525, -14.285714], rel=1e-6)


def test_pal_begins_at_the_scale_of_its_code() -> None:
    model = head("pal")
    with torch.no_grad():
        model.prototypes.copy_(torch.tensor([[1.0, 0, 0, 0]] * 2))
    states = torch.tensor([[1.0, 1.0, 0, 0], [-1.0, 0, 0, 0]])
    found = model(states, torch.tensor([0, 0]))
    assert found.tolist() == pytest.approx([10.101525, -14.285714], rel=1e-5)


def test_an_ideal_point_by_hand() -> None:
    """Weights softmax(ln 3, 0) = (3/4, 1/4) of (4, 0) and (0, 4): (3, 1)."""
    found = ideal_point(torch.tensor([[4.0, 0.0], [0.0, 4.0]]), torch.tensor([math.log(3), 0.0]))
    assert found.tolist() == pytest.approx([3.0, 1.0])


def test_a_ipos_similarity_by_hand() -> None:
    z = torch.tensor([2.0, 0.0])
    rows = torch.tensor([[3.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [1.0, 1.0]])
    assert unit_similarity(rows, z).tolist() == pytest.approx([1.0, 0.5, 0.0, (1 + 0.5**0.5) / 2])


def test_a_ipo_user_adds_lambda_times_the_difference_of_similarities() -> None:
    """H.5.1: Delta = s(y_w) - s(y_l) + lambda (sim(y_w, u) - sim(y_l, u))."""
    model = head("a_ipo", lam=0.5)
    table, pairs = torch.randn(6, 4), Pairs.of([(0, 1, 2), (2, 5, 0)])
    z = model.users[pairs.users]
    base = (model.base(table[pairs.chosen]) - model.base(table[pairs.rejected])).squeeze(-1)
    sims = unit_similarity(table[pairs.chosen], z) - unit_similarity(table[pairs.rejected], z)
    torch.testing.assert_close(gaps(model, table, pairs), base + 0.5 * sims)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 20))
def test_what_the_user_can_do_to_an_a_ipo_logit_is_at_most_lambda(seed: int, lam: float) -> None:
    """sim lies in [0, 1], so the difference of two lies in [-1, 1]."""
    draw = torch.Generator().manual_seed(seed)
    h = torch.randn(8, 2, 4, generator=draw)
    z = torch.randn(8, 1, 4, generator=draw)
    one, two = unit_similarity(h, z).unbind(1)
    assert float((lam * (one - two)).abs().max()) <= lam + 1e-5


# Reductions


def test_lambda_0_is_the_base_reward() -> None:
    model, table = head("a_ipo", lam=0.0), torch.randn(5, 4)
    who = torch.tensor([0, 1, 2, 0, 1])
    torch.testing.assert_close(model(table, who), model.base(table).squeeze(-1))


def test_one_prototype_is_one_ideal_point_for_all() -> None:
    model, table = head("pal", prototypes=1), torch.randn(5, 4)
    each = torch.stack([model(table, torch.full((5,), u)) for u in range(3)])
    torch.testing.assert_close(each, each[:1].expand(3, 5))
    scale = model.log_scale.exp()
    torch.testing.assert_close(each[0], similarity(table, model.prototypes[0], "angle", scale))


def test_a_linear_head_on_the_concatenation_is_refused_because_it_cancels() -> None:
    """v . e_u is in both rewards: [h_w, e] - [h_l, e] = [h_w - h_l, 0]."""
    linear = torch.nn.Linear(6, 1)
    h, e = torch.randn(2, 4), torch.randn(3, 2)
    gap = [linear(torch.cat([h[0], u])) - linear(torch.cat([h[1], u])) for u in e]
    torch.testing.assert_close(gap[1], gap[0])
    with pytest.raises(SettingsError, match="cancels in a pair"):
        Shape(kind="p_rlhf", width=4, hidden=0).check()


@pytest.mark.parametrize("kind", PERSONAL)
def test_what_is_exchanged_between_users_is_exchanged_in_rewards(kind: str) -> None:
    model, table = head(kind), torch.randn(5, 4)
    first, second = (model(table, torch.full((5,), u)).detach() for u in (0, 1))
    assert not torch.allclose(first, second)
    with torch.no_grad():
        model.users[:2] = model.users[:2].flip(0)
    torch.testing.assert_close(model(table, torch.zeros(5, dtype=torch.long)), second)
    torch.testing.assert_close(model(table, torch.ones(5, dtype=torch.long)), first)


def test_the_typical_user_is_the_mean_of_what_users_are_to_the_head() -> None:
    pal = head("pal")
    with torch.no_grad():
        pal.users.copy_(torch.tensor([[math.log(3), 0.0], [0.0, math.log(3)], [0.0, 0.0]]))
    assert pal.typical().softmax(-1).tolist() == pytest.approx([0.5, 0.5])
    ideal = ideal_point(pal.prototypes, pal.typical())
    torch.testing.assert_close(ideal, ideal_point(pal.prototypes, pal.users).mean(0))
    aipo = head("a_ipo", users=2)
    with torch.no_grad():
        aipo.users.copy_(torch.tensor([[5.0, 0, 0, 0], [0, 0.1, 0, 0]]))
    assert aipo.typical().tolist() == pytest.approx([0.5, 0.5, 0, 0])  # a long embedding weighs no more


# Learning

OPPOSED = Options(batch_size=16, epochs=10, patience=10, user_rate=5e-2, learning_rate=5e-3, adapt_rate=5e-2)


def opposed(users: int = 8, n: int = 60) -> tuple[torch.Tensor, Pairs, Pairs, Pairs]:
    """Users who want the highest first feature, and as many who want the lowest, on the same pairs."""
    draw = torch.Generator().manual_seed(3)
    table = torch.randn(80, 4, generator=draw)

    def pairs(count: int) -> Pairs:
        rows = []
        for i, j in torch.randint(80, (count, 2), generator=draw).tolist():
            if i != j:
                high, low = (i, j) if table[i, 0] > table[j, 0] else (j, i)
                rows += [(u, high, low) if u % 2 else (u, low, high) for u in range(users)]
        return Pairs.of(rows)

    return table, pairs(n), pairs(20), pairs(40)


@pytest.mark.parametrize(("kind", "low", "high"), [("shared", 0.5, 0.5), *((k, 0.93, 1.0) for k in PERSONAL)])
def test_opposed_users_need_parameters_of_their_own(kind: str, low: float, high: float) -> None:
    """A head without users is right about one of two opposed users on every pair: exactly half."""
    table, train, validation, test = opposed()
    model, history = fit_users(Shape(kind=kind, width=4, lam=4.0), 8, table, train, validation, OPPOSED)  # type: ignore[arg-type]
    share = float(right(model, table, test).mean())
    assert low <= share <= high
    assert max(h["accuracy"] for h in history) == pytest.approx(float(right(model, table, validation).mean()))


def test_one_prototype_cannot_serve_opposed_users() -> None:
    table, train, validation, test = opposed()
    model, _ = fit_users(Shape(kind="pal", width=4, prototypes=1), 8, table, train, validation, OPPOSED)
    assert float(right(model, table, test).mean()) == pytest.approx(0.5)


@pytest.fixture(scope="module")
def mixture() -> tuple[torch.Tensor, list[Pairs], torch.Tensor, torch.Tensor]:
    """40 known users with ideal points between two prototypes, and 12 new ones with 260 pairs each (K = 2, D = 8)."""
    draw = torch.Generator().manual_seed(0)
    table = torch.randn(300, 8, generator=draw)
    prototypes = torch.nn.functional.normalize(torch.randn(2, 8, generator=draw), dim=-1)
    weight = (torch.rand(52, 1, generator=draw) > 0.5).float() * 0.8 + 0.1
    ideal = weight * prototypes[0] + (1 - weight) * prototypes[1]

    def pairs(user: int, n: int) -> list[tuple[int, int, int]]:
        scores = torch.cosine_similarity(table, ideal[user][None], dim=-1)
        return [
            (user, i, j) if scores[i] > scores[j] else (user, j, i)
            for i, j in torch.stack([torch.randperm(300, generator=draw)[:2] for _ in range(n)]).tolist()
        ]

    parts = [Pairs.of([p for u in range(40) for p in pairs(u, n)]) for n in (60, 10)]
    new = torch.tensor([pairs(u, 260) for u in range(40, 52)])
    return table, parts, new[..., 1], new[..., 2]


@pytest.mark.parametrize("kind", PERSONAL)
def test_more_pairs_of_a_new_user_never_hurt_on_a_mixture(kind: str, mixture) -> None:
    table, (train, validation), chosen, rejected = mixture
    shape = Shape(kind=kind, width=8, lam=8.0)  # type: ignore[arg-type]
    model, _ = fit_users(shape, 40, table, train, validation, Options(batch_size=48))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    test = Pairs(torch.arange(12).repeat_interleave(60), chosen[:, 200:].flatten(), rejected[:, 200:].flatten())
    found = []
    for k in (0, 50, 100, 200):
        own = adapt(model, table, chosen[:, :k], rejected[:, :k])
        found.append(float(right(model, table, test, own).mean()))
    assert all(later >= earlier - 0.01 for earlier, later in itertools.pairwise(found)), found
    assert found[-1] > found[0] + 0.05, found
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())  # shared parts frozen


@pytest.mark.parametrize("kind", PERSONAL)
def test_new_users_fitted_together_are_fitted_alone(kind: str, mixture) -> None:
    table, _, chosen, rejected = mixture
    model = UserReward(Shape(kind=kind, width=8), 4)  # type: ignore[arg-type]
    together = adapt(model, table, chosen[:3, :40], rejected[:3, :40])
    alone = torch.cat([adapt(model, table, chosen[i : i + 1, :40], rejected[i : i + 1, :40]) for i in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(adapt(model, table, chosen[:3, :0], rejected[:3, :0])[1], model.typical())


def test_the_same_seed_gives_the_same_head() -> None:
    table, train, validation, _ = opposed()
    options = Options(batch_size=64, epochs=2, seed=5)
    one, two = (fit_users(Shape(kind="pal", width=4), 8, table, train, validation, options)[0] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


# Files and mistakes


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_is_the_same(kind: str, tmp_path: Path) -> None:
    model = head(kind)
    save_users(model, tmp_path / "users", ["a", "b", "c"])
    loaded, names = load_users(tmp_path / "users")
    assert names == ("a", "b", "c")
    table, who = torch.randn(6, 4), torch.tensor([0, 1, 2, 2, 1, 0])
    assert torch.equal(loaded(table, who), model(table, who))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [({"kind": "pall"}, 'Did you mean "pal"'), ({"similarity": "angel"}, 'Did you mean "angle"'),
     ({"width": 0}, "width must be at least 1"), ({"lam": -1.0}, "0 or more")],
)  # fmt: skip
def test_what_cannot_be_is_told(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        Shape(**{"kind": "pal", "width": 4, **wrong}).check()  # type: ignore[arg-type]


def test_mistakes_of_fitting_and_files_are_told(tmp_path: Path) -> None:
    table, train, _, _ = opposed()
    with pytest.raises(SettingsError, match="pairs to validate on"):
        fit_users(Shape(kind="pal", width=4), 8, table, train, Pairs.of([]))
    with pytest.raises(SettingsError, match="user_rate must be above 0"):
        fit_users(Shape(kind="pal", width=4), 8, table, train, train, Options(user_rate=0))
    with pytest.raises(SettingsError, match=r"are \(users, pairs\)"):
        adapt(head("pal"), table, torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 4, dtype=torch.long))
    with pytest.raises(SettingsError, match="holds no user-level head"):
        load_users(tmp_path)
    with pytest.raises(SettingsError, match="2 names for 3 users"):
        save_users(head("pal"), tmp_path, ["a", "b"])
    save_users(head("pal"), tmp_path)
    text = (tmp_path / "users.json").read_text().replace('"width": 4', '"width": 5')
    (tmp_path / "users.json").write_text(text)
    with pytest.raises(SettingsError, match="does not fit"):
        load_users(tmp_path)
