"""Every recipe is complete, and what it presets are settings that exist."""

from __future__ import annotations

import json

import pytest

from pluralign.api import settings_for
from pluralign.errors import SettingsError
from pluralign.objectives import OBJECTIVES
from pluralign.recipes import Recipe, recipe, recipes
from pluralign.reports.wording import flatten

from .conftest import Cli


@pytest.mark.parametrize("own", recipes().values(), ids=lambda r: r.name)
def test_a_recipe_is_complete_and_its_preset_is_what_runs(own: Recipe) -> None:
    made, found = settings_for(own.name)
    assert found is own
    tree = flatten(made.model_dump())
    for key, value in flatten(own.preset).items():
        assert tree[key] == value
    assert own.preset["recipe"] == own.name
    assert made.objective.name in OBJECTIVES
    assert all([own.title, own.paper, own.equations, own.needs, own.note])


def test_the_papers_own_settings() -> None:
    """DPO appendix B; SimPO section 3: what a reader would look up."""
    dpo, simpo = settings_for("dpo")[0], settings_for("simpo")[0]
    assert (dpo.objective.hyper, dpo.training.learning_rate, dpo.training.batch_size) == ({"beta": 0.1}, 1e-6, 64)
    assert (simpo.objective.hyper, simpo.training.batch_size) == ({"beta": 2.0, "gamma": 0.5}, 128)
    assert {r.training.warmup for r in (dpo, simpo)} == {0.1}
    assert {r.training.epochs for r in (dpo, simpo)} == {1}


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(SettingsError, match=r'unknown recipe "simp"\. Did you mean "simpo"\?'):
        recipe("simp")
    with pytest.raises(SettingsError, match=r'unknown recipe "xyz"\. Known: .*dpo, .*simpo, '):
        recipe("xyz")


def test_lists_for_people_and_for_scripts(cli: Cli) -> None:
    listed = cli("recipes").out
    assert all(name in listed for name in recipes())
    assert {r["name"] for r in json.loads(cli("recipes", "--json").out)} == set(recipes())
    assert json.loads(cli("recipes", "ipo", "--json").out)["preset"]["objective"] == {"name": "ipo", "tau": 0.1}
    shown = cli("objectives").out
    assert all(o.formula in shown for o in OBJECTIVES.values())
    assert {o["name"] for o in json.loads(cli("objectives", "--json").out)} == set(OBJECTIVES)


def test_version_and_cache(cli: Cli, short: list[str], tmp_path) -> None:
    assert json.loads(cli("version", "--json").out)["pluralign"]
    assert cli("align", "dpo", *short, "--output", "run").code == 0
    held = json.loads(cli("cache", "--json").out)
    assert held["folder"] == str(tmp_path / "cache")
    assert held["files"] == 2  # the reference readings of both splits
    assert "(removed)" in cli("cache", "--clear").out
    assert json.loads(cli("cache", "--json").out)["files"] == 0
