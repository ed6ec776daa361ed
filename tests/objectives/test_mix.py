"""Weighted sums of objectives from text: what they need, how their parts are addressed, what they refuse."""

from __future__ import annotations

import inspect
import math

import pytest
import torch

from pluralign.objectives import OBJECTIVES, batchwise, tokenwise, unpaired
from pluralign.objectives.core import Objective, Outcome
from pluralign.objectives.mix import mix

from .toys import FIXTURE_A, given, pairs, take

assert batchwise and tokenwise  # noqa: PT018 - imported for what they register


@pytest.fixture
def likelihood():
    """An objective that reads less than DPO and has a name of its own."""

    def loss(r, *, scale: float = 1.0) -> Outcome:
        return Outcome(-scale * r["w"].sum, {"chosen_logp": r["w"].sum.detach()})

    OBJECTIVES["toy_nll"] = Objective("toy_nll", loss, ("w",), "-log pi(y_w|x)", "maximum likelihood")
    yield OBJECTIVES["toy_nll"]
    del OBJECTIVES["toy_nll"]


def test_a_sum_by_hand(likelihood) -> None:
    """Fixture A: .554355 + .2 * 10."""
    objective = mix("dpo + 0.2*toy_nll")
    outcome = objective(pairs(**FIXTURE_A), beta=0.1)
    assert outcome.loss.item() == pytest.approx(0.554355 + 2.0, abs=1e-5)
    assert objective.name == "dpo + 0.2*toy_nll"
    assert objective.needs == ("w", "l", "ref_w", "ref_l")
    assert objective.formula == "1 (-log sigma(beta rho)) + 0.2 (-log pi(y_w|x))"
    assert "2305.18290" in objective.paper
    assert objective.data == "pairs"
    assert objective.reference
    assert not objective.per_token


def test_weights_are_read_in_any_spelling() -> None:
    r = pairs(**FIXTURE_A)
    dpo, ipo = (OBJECTIVES[n](r).loss for n in ("dpo", "ipo"))
    for text in ("0.8*dpo + 2e-1*ipo", "0.8 * dpo+.2*ipo", " .8*dpo +0.20* ipo "):
        torch.testing.assert_close(mix(text)(r).loss, 0.8 * dpo + 0.2 * ipo)
        assert mix(text).name == "0.8*dpo + 0.2*ipo"
    torch.testing.assert_close(mix("dpo")(r).loss, dpo)


def test_its_name_makes_it_again() -> None:
    first = mix("2*dpo+0.125*simpo")
    assert mix(first.name).name == first.name


def test_gradients_are_the_weighted_sum() -> None:
    r, alone = pairs(**FIXTURE_A, grad=True), pairs(**FIXTURE_A, grad=True)
    mix("0.5*dpo + 2*ipo")(r).loss.sum().backward()
    (0.5 * OBJECTIVES["dpo"](alone).loss + 2 * OBJECTIVES["ipo"](alone).loss).sum().backward()
    torch.testing.assert_close(r["w"].sum.grad, alone["w"].sum.grad)


def test_hyper_parameters_by_part_and_bare_where_one_part_has_them() -> None:
    objective = mix("dpo + simpo")
    assert objective.defaults == {"dpo_beta": 0.1, "simpo_beta": 2.0, "simpo_gamma": 0.5, "gamma": 0.5}
    r = pairs(**FIXTURE_A)
    expected = OBJECTIVES["dpo"](r, beta=0.3).loss + OBJECTIVES["simpo"](r, beta=1.0, gamma=0.2).loss
    torch.testing.assert_close(objective(r, dpo_beta=0.3, simpo_beta=1.0, gamma=0.2).loss, expected)
    torch.testing.assert_close(objective(r, dpo_beta=0.3, simpo_beta=1.0, simpo_gamma=0.2).loss, expected)


def test_passing_every_default_along_changes_nothing() -> None:
    """A caller may fill in what was not given: the value that was chosen wins over the default of its other name."""
    objective, r = mix("dpo + ipo"), pairs(**FIXTURE_A)
    given_all = objective.defaults | {"tau": 0.5}
    torch.testing.assert_close(objective(r, **given_all).loss, objective(r, ipo_tau=0.5).loss)
    with pytest.raises(ValueError, match="the same hyper-parameter"):
        objective(r, tau=0.5, ipo_tau=0.2)


def test_an_unknown_hyper_parameter_is_refused() -> None:
    with pytest.raises(TypeError, match=r'"beta" is no .*it has gamma, dpo_beta'):
        mix("dpo + simpo")(pairs(**FIXTURE_A), beta=0.2)  # both have one: whose?


def test_metrics_of_the_first_part_keep_their_names() -> None:
    metrics = mix("dpo + 0.5*ipo")(pairs(**FIXTURE_A)).metrics
    assert metrics["margin"].item() == pytest.approx(0.3, abs=1e-6)
    assert metrics["ipo_margin"].item() == pytest.approx(0.3, abs=1e-6)
    assert metrics["dpo_loss"].item() == pytest.approx(0.554355, abs=1e-6)
    assert metrics["ipo_loss"].item() == pytest.approx(4.0, abs=1e-5)  # before its weight
    assert all(not m.requires_grad for m in metrics.values())


def test_reads_are_joined() -> None:
    assert mix("dpo + wpo + ld_dpo").reads == ("tokens", "collision")
    assert mix("tdpo2 + ld_dpo").reads == ("kl", "tokens")


def test_statistics_are_those_of_each_part_over_the_whole_step() -> None:
    """AOT sorts the step: half of it alone, under the gathered batch, gives its share of the whole."""
    objective = mix("dpo + 0.5*aot + 2*aot_unpaired")
    r = pairs([-9.0, -6.0, -8.0], [-11.0, -13.0, -9.0], [-10.0] * 3, [-14.0, -13.0, -8.0])
    pieces = [take(r, [0]), take(r, [1, 2])]
    gathered = [objective.statistics(piece) for piece in pieces]
    assert set(gathered[0]) == {"aot.gap", "aot.ref_gap", "aot_unpaired.chosen", "aot_unpaired.rejected"}
    batch = {key: torch.cat([g[key] for g in gathered]) for key in gathered[0]}
    together = torch.cat([objective(piece, batch=batch).loss for piece in pieces])
    torch.testing.assert_close(together, objective(r).loss)
    assert "batch" in inspect.signature(objective.function).parameters
    assert "batch" not in objective.defaults


def test_running_numbers_belong_to_their_part() -> None:
    objective = mix("kto + bco")
    assert objective.needs == ("y", "ref_y", "label", "mismatched", "ref_mismatched")
    r = {
        "y": given([-10.0, -14.0]),
        "ref_y": given([-12.0, -13.0]),
        "label": torch.tensor([True, False]),
        "mismatched": given([-19.0, -20.0]),
        "ref_mismatched": given([-20.0, -20.0]),
    }
    state = objective.update({}, objective.statistics(r))
    assert state == {"bco.count": 2.0, "bco.drift": 0.5}
    assert objective.update(state, {"bco.drift": torch.tensor([3.5]), "kto.kl": torch.tensor([1.0])}) == {
        "bco.count": 3.0,
        "bco.drift": 1.5,
    }
    expected = unpaired.kto(r).loss + unpaired.bco(r, running={"drift": 4.0}).loss
    torch.testing.assert_close(objective(r, running={"bco.drift": 4.0}).loss, expected)


def test_parts_without_statistics_take_none() -> None:
    objective = mix("dpo + ipo")
    assert objective.statistics is None
    assert objective.update is None
    assert not {"batch", "running"} & set(inspect.signature(objective.function).parameters)


def test_an_unknown_name_meets_the_nearest_known_one() -> None:
    with pytest.raises(KeyError, match=r'unknown objective "dop".*nearest is "dpo"'):
        mix("dop + simpo")
    with pytest.raises(KeyError, match='nearest is "simpo"'):
        mix("dpo + 0.5*sinpo")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no sum of objectives"),
        ("dpo +", "no sum of objectives"),
        ("*dpo", "no sum of objectives"),
        ("dpo + 0.2*", "no sum of objectives"),
        ("x*dpo", '"x" in .* is no number'),
        ("-0.5*dpo", "must be above 0"),
        ("0*dpo", "must be above 0"),
        ("nan*dpo", "must be above 0"),
        ("dpo + inf*simpo", "must be above 0"),
        ("dpo + 2*dpo", "more than once"),
        ("sft", "averaged over tokens"),
        ("dpo + kto", '"dpo" learns from pairs and "kto" from labels'),
    ],
)
def test_what_is_no_such_sum_is_refused(text, message) -> None:
    with pytest.raises(ValueError, match=message):
        mix(text)


def test_policy_equal_to_reference() -> None:
    r = pairs([-12.0], [-13.0], [-12.0], [-13.0])
    assert mix("dpo + 0.1*ipo")(r).loss.item() == pytest.approx(math.log(2) + 2.5, abs=1e-5)


def test_likelihood_beside_a_preference() -> None:
    """Fixture A, per token of one: .554355 + .2 * 10; `beta` is DPO's, the likelihood has none."""
    r = pairs(**FIXTURE_A)
    assert mix("dpo + 0.2*nll")(r, beta=0.1).loss.item() == pytest.approx(2.554355, abs=1e-5)
    torch.testing.assert_close(mix("dpo + 0.2*nll")(r, beta=0.5).loss, OBJECTIVES["dpo"](r, beta=0.5).loss + 2.0)
