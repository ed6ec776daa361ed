"""AMoPO in whole runs: its terms, lists read token by token, weights drawn the same however a step is split."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace

import pytest

from pluralign.api import settings_for
from pluralign.errors import RecordError
from pluralign.objectives import OBJECTIVES
from pluralign.recipes import recipe
from pluralign.recipes.amopo import dimensions
from pluralign.records import Preference, messages
from pluralign.training.run import align

from .conftest import sentence
from .test_runs import assert_same_weights, losses


def said(text: str):
    return messages(text, role="assistant")


def pair(**attributes) -> Preference:
    return Preference(
        prompt=messages("Tell me."), chosen=said("This is so."), rejected=said("It is not."), attributes=attributes
    )


def terms(ex: Preference, *names: str) -> dict[str, tuple[str, str]]:
    """By name: (what the user turn says, the target)."""
    return {t.name: (t.turns()[-1].content, t.target[0].content) for t in dimensions(*names)(ex)}


def test_each_dimension_has_its_own_order_and_says_so() -> None:
    found = terms(pair(a=(1.0, 3.0), b=(2.0, 2.0), clear_words=(4.0, 1.0), d=(1.0, None)), "a", "b", "clear_words", "d")
    aimed = "Tell me. Your response must be as good as possible in this respect: "
    assert found == {
        "w.0": ("Tell me.", "This is so."),
        "l.0": ("Tell me.", "It is not."),
        "w.1": (f"{aimed}a.", "It is not."),
        "l.1": (f"{aimed}a.", "This is so."),
        "w.3": (f"{aimed}clear words.", "This is so."),
        "l.3": (f"{aimed}clear words.", "It is not."),
    }
    plan = recipe("amopo").plan
    assert plan is not None
    with pytest.raises(RecordError, match="no scores on helpfulness, correctness"):
        list(plan(pair(a=(1.0, 3.0))))


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> str:
    """Pairs whose attributes agree with them, contradict them, tie or are missing."""
    rng = random.Random(0)
    rate = lambda: [rng.randint(0, 4), rng.choice([None, 0, 1, 2, 3, 4])]
    rows = [
        {
            "prompt": f"{i} {sentence(rng)}",
            "chosen": sentence(rng) + " good",
            "rejected": sentence(rng) + " bread",
            "attributes": {"helpfulness": [rng.randint(0, 4), rng.randint(0, 4)], "correctness": rate()},
        }
        for i in range(48)
    ]
    path = tmp_path_factory.mktemp("amopo") / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def run(tiny_model, source, tmp_path):
    def go(*overrides: str, output: str = "run", plan: bool = True, objective=None):
        short = [
            f"model={tiny_model}", f"data.source={source}", f"output={tmp_path / output}", "precision=fp32",
            "batch_size=8", "learning_rate=1e-3", "max_steps=4", "validation_fraction=0.2", "kl_rows=0",
            "max_length=128", "warmup=0",
        ]  # fmt: skip
        settings, own = settings_for("amopo", {}, [*short, *overrides])
        assert own is not None
        return align(settings, plan=own.plan if plan else None, objective=objective)

    return go


def test_the_split_of_a_step_changes_nothing_not_even_what_is_drawn(run) -> None:
    whole = run(output="whole")
    split = run("token_budget=256", output="split")
    rows = run("layout=rows", output="rows")
    for other in (split, rows):
        assert losses(other.output) == pytest.approx(losses(whole.output), abs=3e-5)
        assert losses(other.output, "validation") == pytest.approx(losses(whole.output, "validation"), abs=3e-5)


def test_weights_are_drawn_from_the_seed(run) -> None:
    first, again = run(output="first"), run(output="again")
    assert_same_weights(first.output, again.output)
    still = run(output="still", objective=replace(OBJECTIVES["amopo"], optional=()))  # the mean, as in validation
    assert losses(still.output)[0] != losses(first.output)[0]
    assert losses(still.output)[0] == pytest.approx(losses(first.output)[0], rel=0.05)


def test_plain_pairs_are_simpo(run) -> None:
    amopo = run(output="amopo", plan=False)
    simpo = run("objective=simpo", "beta=0.8", "gamma=2", output="simpo", plan=False)
    assert losses(amopo.output) == pytest.approx(losses(simpo.output), abs=1e-6)


def test_metrics_are_in_their_bounds(run) -> None:
    done = run("max_steps=1", output="one")
    assert 1 / 3 <= losses(done.output, name="largest_weight")[0] <= 1.0
    assert 0 <= losses(done.output, name="accuracy")[0] <= 1
    assert losses(done.output, name="nll")[0] == pytest.approx(math.log(4096), rel=0.1)  # a fresh model: 1/V a token
    assert math.isfinite(losses(done.output, "validation")[-1])
